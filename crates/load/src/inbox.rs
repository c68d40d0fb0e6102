//! Where what happens on a participant's connections goes.

use std::collections::HashMap;
use std::time::{Instant, SystemTime};

use str0m::Event;
use str0m::media::MediaKind;

use crate::arrivals::{Arrivals, Arrived};
use crate::connection::Happened;
use crate::publication::Publication;

/// Where it goes.
#[derive(Default)]
pub struct Inbox {
    /// What arrived.
    pub arrivals: Arrivals,
    /// Whether the main connection is up.
    pub is_connected: bool,
    /// Whether a stream is sound.
    sounds: HashMap<u32, bool>,
    packets: u64,
    bytes: u64,
}

impl Inbox {
    /// Something has happened on a connection; whether it is the one that it joined for.
    pub fn happened(&mut self, publication: &mut Publication, what: Happened<'_>, is_main: bool) {
        let (rtc, event) = match what {
            Happened::Event(rtc, event) => (rtc, event),
            Happened::Media(receiver, described, datagram) => {
                let now = (Instant::now(), SystemTime::now());
                let bytes = receiver.handle(now, datagram, described, &mut self.arrivals);
                return self.got(bytes);
            }
        };
        match event {
            Event::Connected => self.is_connected |= is_main,
            Event::RtpPacket(packet) => {
                let ssrc = *packet.header.ssrc;
                let is_sound = *self.sounds.entry(ssrc).or_insert_with(|| {
                    let stream = rtc
                        .direct_api()
                        .stream_rx(&packet.header.ssrc)
                        .map(|stream| stream.mid());
                    let media = stream.and_then(|mid| rtc.media(mid));
                    media.is_some_and(|media| media.kind() == MediaKind::Audio)
                });
                let arrived = Arrived {
                    ssrc,
                    sequence: *packet.seq_no,
                    timestamp: packet.header.timestamp,
                    is_sound,
                    payload: &packet.payload,
                };
                let bytes = self.arrivals.add(Instant::now(), SystemTime::now(), arrived);
                self.got(bytes);
            }
            Event::KeyframeRequest(request) => publication.want_key_frame(request),
            _ => {}
        }
    }

    /// A packet with so many bytes has come; 0: it is nothing new.
    fn got(&mut self, bytes: usize) {
        self.packets += u64::from(bytes > 0);
        self.bytes += bytes as u64;
    }

    /// The packets and bytes since the last time.
    pub fn counted(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.packets), std::mem::take(&mut self.bytes))
    }
}
