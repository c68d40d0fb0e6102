//! Packets that arrive: what the stack says of them becomes a [`MediaPacket`].

use std::time::{Instant, SystemTime};

use signalbox_protocol::room::Kind;
use str0m::rtp::{ExtensionValues, RtpPacket};

use super::negotiation::codec;
use super::{Connection, PayloadFormat, dependency};
use crate::clock;
use crate::packet::{MediaPacket, Mid, Rid};

impl Connection {
    pub(super) fn media_packet(&mut self, now: Instant, packet: RtpPacket) -> Option<MediaPacket> {
        let (mid, rid) = {
            let mut api = self.rtc.direct_api();
            let stream = api.stream_rx(&packet.header.ssrc)?;
            (stream.mid(), stream.rid())
        };
        let payload_type = packet.header.payload_type;
        let params = *self
            .rtc
            .codec_config()
            .find(|params| params.pt() == payload_type || params.red() == Some(payload_type))?;
        let codec = codec(&params)?;
        if codec.kind() == Kind::Video && params.fb_nack() {
            let ssrc = *packet.header.ssrc;
            self.asking
                .packet(now, ssrc, *packet.seq_no, self.carrier != Some(ssrc));
        }
        let values = &packet.header.ext_vals;
        Some(MediaPacket {
            arrived: now,
            ssrc: *packet.header.ssrc,
            sequence: *packet.seq_no,
            timestamp: packet.header.timestamp,
            marker: packet.header.marker,
            codec,
            format: PayloadFormat(params),
            is_red: params.pt() != payload_type,
            clock_rate: params.spec().clock_rate.get(),
            rid: rid.map(|rid| Rid::from(&*rid)),
            mid: Mid::from(&*mid),
            audio_level: values.audio_level,
            voice: values.voice_activity,
            rotation: values.video_orientation.map(|turn| turn as u8),
            playout_delay: playout_delay(values),
            capture_time: capture_time(values),
            dependency: dependency::of(values),
            payload: packet.payload,
        })
    }
}

/// In 10 ms; the stack reads it as seconds.
fn playout_delay(values: &ExtensionValues) -> Option<(u16, u16)> {
    let hundredths = |seconds: f64| (seconds * 100.0).round() as u16;
    Some((
        hundredths(values.play_delay_min?.as_seconds()),
        hundredths(values.play_delay_max?.as_seconds()),
    ))
}

fn capture_time(values: &ExtensionValues) -> Option<(u64, Option<i64>)> {
    let captured = values.abs_capture_time?;
    let since_1970 = captured.capture_time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some((clock::to_ntp(since_1970), captured.clock_offset))
}
