//! What a participant sends: its m-lines, what is announced of them, and their packets as they fall due.

use std::time::{Duration, Instant, SystemTime};

use livekit_protocol as proto;
use str0m::Rtc;
use str0m::format::Codec;
use str0m::media::{Direction, KeyframeRequest, MediaKind, Mid, Pt, Rid, Simulcast, SimulcastLayer};
use str0m::rtp::{ExtensionValues, RtpWrite};

use crate::camera::{Packet, Source};
use crate::clip::Size;
use crate::connection::Connection;

/// How loud the sound is said to be, in -dBov.
const LEVEL: i8 = -25;

/// If it has fallen so far behind, pictures and sound are left out, as on a machine that is too slow for its encoder.
const BEHIND: Duration = Duration::from_millis(500);

/// How the server knows the track before it has a name.
const SOUND: &str = "sound";

/// The same of the picture.
const PICTURE: &str = "picture";

/// The m-lines of what is sent.
#[derive(Default)]
pub struct Publication(Vec<Line>);

/// What is sent on an m-line.
struct Line {
    source: Source,
    mid: Mid,
    rids: Vec<Option<Rid>>,
}

/// The request to publish sound.
pub fn sound() -> proto::AddTrackRequest {
    proto::AddTrackRequest {
        cid: SOUND.to_owned(),
        r#type: proto::TrackType::Audio as i32,
        source: proto::TrackSource::Microphone as i32,
        ..proto::AddTrackRequest::default()
    }
}

/// The request to publish a picture with these layers, ascending.
pub fn picture(layers: &[Size]) -> proto::AddTrackRequest {
    use proto::VideoQuality::{High, Low, Medium};
    let (width, height) = layers.last().map(|size| size.pixels()).unwrap_or_default();
    let layers = layers.iter().zip([Low, Medium, High]).map(|(size, quality)| {
        let (width, height) = size.pixels();
        proto::VideoLayer {
            quality: quality as i32,
            width,
            height,
            bitrate: size.bps(),
            ..proto::VideoLayer::default()
        }
    });
    proto::AddTrackRequest {
        cid: PICTURE.to_owned(),
        r#type: proto::TrackType::Video as i32,
        source: proto::TrackSource::Camera as i32,
        width,
        height,
        layers: layers.collect(),
        ..proto::AddTrackRequest::default()
    }
}

impl Publication {
    /// Adds m-lines to a connection: for sound, and for a picture with these layers, ascending. Returns the offer of them.
    pub fn offer(connection: &mut Connection, sound: bool, layers: Option<&[Size]>) -> anyhow::Result<(String, Self)> {
        let now = Instant::now();
        let stream = || Some("load".to_owned());
        connection.offer(|api| {
            let mut lines = Vec::new();
            if sound {
                let track = Some(SOUND.to_owned());
                let mid = api.add_media(MediaKind::Audio, Direction::SendOnly, stream(), track, None);
                let source = Source::microphone(now);
                let rids = vec![None];
                lines.push(Line { source, mid, rids });
            }
            if let Some(layers) = layers {
                let rids: Vec<Option<Rid>> = match layers.len() {
                    1 => vec![None],
                    _ => layers.iter().map(|size| Some(Rid::from(size.rid()))).collect(),
                };
                let named = rids.iter().flatten().map(|rid| SimulcastLayer::new(rid));
                let simulcast = (rids.len() > 1).then(|| Simulcast {
                    send: named.collect(),
                    recv: Vec::new(),
                });
                let track = Some(PICTURE.to_owned());
                let mid = api.add_media(MediaKind::Video, Direction::SendOnly, stream(), track, simulcast);
                let source = Source::camera(now, layers);
                lines.push(Line { source, mid, rids });
            }
            Self(lines)
        })
    }

    /// When something is to be sent.
    pub fn due(&self) -> Option<Instant> {
        self.0.iter().map(|line| line.source.due).min()
    }

    /// Sends what is due of picture and sound. Returns how many packets that were.
    pub fn send_due(&mut self, rtc: &mut Rtc, now: Instant) -> u64 {
        let (clock, mut sent) = (SystemTime::now(), 0);
        for line in &mut self.0 {
            if now.saturating_duration_since(line.source.due) > BEHIND {
                line.source.due = now;
            }
            while line.source.due <= now {
                let is_sound = line.source.is_sound();
                let Some(kind) = payload_type(rtc, line.mid, is_sound) else {
                    break;
                };
                let (mid, rids) = (line.mid, &line.rids);
                line.source.next(now, clock, |packet| {
                    let rid = rids.get(packet.layer).copied().flatten();
                    sent += u64::from(write(rtc, (mid, rid, kind), now, is_sound, packet));
                });
            }
        }
        sent
    }

    /// Somebody wants a key frame.
    pub fn want_key_frame(&mut self, request: &KeyframeRequest) {
        for line in self.0.iter_mut().filter(|line| line.mid == request.mid) {
            let layer = line.rids.iter().position(|rid| rid.is_some() && *rid == request.rid);
            line.source.want_key_frame(layer);
        }
    }
}

fn write(
    rtc: &mut Rtc,
    (mid, rid, kind): (Mid, Option<Rid>, Pt),
    now: Instant,
    is_sound: bool,
    packet: Packet,
) -> bool {
    let mut direct = rtc.direct_api();
    let Some(stream) = direct.stream_tx_by_mid(mid, rid) else {
        return false;
    };
    let values = ExtensionValues {
        audio_level: is_sound.then_some(LEVEL),
        voice_activity: is_sound.then_some(true),
        ..ExtensionValues::default()
    };
    let write = RtpWrite::new(kind, packet.sequence.into(), packet.timestamp, now, packet.payload)
        .marker(packet.marker)
        .nackable(!is_sound)
        .ext_vals(values);
    stream.write_rtp(write);
    true
}

fn payload_type(rtc: &Rtc, mid: Mid, is_sound: bool) -> Option<Pt> {
    let wanted = if is_sound { Codec::Opus } else { Codec::Vp8 };
    let negotiated = rtc.media(mid)?.remote_pts();
    let params = rtc.codec_config().params().iter();
    let mut fitting = params
        .filter(|params| params.spec().codec == wanted)
        .map(|params| params.pt());
    fitting.find(|kind| negotiated.contains(kind))
}
