//! What a viewer sees: a jitter buffer and a decoder of [`super::camera`]'s VP8. A frame is shown when its time has come, it is complete, and
//! what it refers to was shown; a key frame is asked for as browsers do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What the jitter buffer holds back. Browsers hold back more than this on a network that loses packets: the time of a repair, which is a
/// round trip and what it takes to notice.
const PLAYOUT: Duration = Duration::from_millis(150);

/// Without a frame for so long it asks for a key frame. Browsers wait up to 3 seconds for repair, and 200 ms for a first frame.
const KEY_FRAME_AFTER: Duration = Duration::from_millis(1_000);

/// How long it waits for its first key frame, and for the one that it has asked for, until it asks again.
const KEY_FRAME_AGAIN: Duration = Duration::from_millis(300);

/// A frame that was shown.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    pub at: Instant,
    /// Which layer the publisher sent it as.
    pub layer: u8,
    pub temporal: u8,
}

/// A packet, as far as a decoder cares.
struct Packet {
    timestamp: u32,
    marker: bool,
    is_first: bool,
    is_key: bool,
    is_sync: bool,
    temporal: u8,
    tl0_pic_idx: u8,
    layer: u8,
}

impl Packet {
    fn parse(timestamp: u32, marker: bool, payload: &[u8]) -> Option<Self> {
        let [required, 0xe0, _, _, tl0_pic_idx, temporal, header, ..] = *payload else {
            return None;
        };
        Some(Self {
            timestamp,
            marker,
            is_first: required & 0x10 != 0,
            is_key: header & 1 == 0,
            is_sync: temporal & 0x20 != 0,
            temporal: temporal >> 6,
            tl0_pic_idx,
            layer: payload.iter().rev().nth(3).copied()?,
        })
    }
}

/// The time from one timestamp to a later one, in the clock of video, 90 kHz (RFC 3551 section 5).
fn since(zero: u32, timestamp: u32) -> Duration {
    // What was sent before the one that came first is as old as that one.
    let ticks = timestamp.wrapping_sub(zero) as i32;
    Duration::from_secs_f64(f64::from(ticks.max(0)) / 90_000.0)
}

/// A viewer's screen.
#[derive(Default)]
pub struct Screen {
    pub shown: Vec<Shown>,
    /// How often it has asked for a key frame.
    pub key_frames_wanted: usize,
    /// Packets that came again.
    pub duplicates: usize,
    /// All sequence numbers that came.
    pub sequences: BTreeMap<u64, ()>,
    packets: BTreeMap<u64, Packet>,
    /// The last packet of the frame that was shown last.
    last: Option<u64>,
    /// The base layer's frame that was shown last, and whether one of the middle layer that refers to it was.
    base: Option<(u8, bool)>,
    /// The timestamp that came first, and what a packet that takes no longer than the fastest one so far arrives at if it has that one.
    clock: Option<(u32, Instant)>,
    first_packet: Option<Instant>,
    asked: Option<Instant>,
}

impl Screen {
    pub fn receive(&mut self, now: Instant, sequence: u64, timestamp: u32, marker: bool, payload: &[u8]) {
        self.first_packet.get_or_insert(now);
        if self.sequences.insert(sequence, ()).is_some() {
            self.duplicates += 1;
        }
        let Some(packet) = Packet::parse(timestamp, marker, payload) else {
            return;
        };
        let (zero, fastest) = *self.clock.get_or_insert((timestamp, now));
        self.clock = Some((zero, fastest.min(now - since(zero, timestamp))));
        if self.last.is_none_or(|last| sequence > last) {
            self.packets.insert(sequence, packet);
        }
        self.show(now);
    }

    /// Shows what can be shown.
    pub fn show(&mut self, now: Instant) {
        while self.show_next(now) {}
    }

    /// When the next frame's time comes, if it is there.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let mut times = self.packets.values().map(|packet| self.time(packet));
        times.find(|time| *time > now)
    }

    /// When a packet's frame is to be shown.
    fn time(&self, packet: &Packet) -> Instant {
        let (zero, fastest) = self.clock.expect("set with the first packet");
        fastest + since(zero, packet.timestamp) + PLAYOUT
    }

    /// Whether it is time to ask for a key frame.
    pub fn wants_key_frame(&mut self, now: Instant) -> bool {
        let Some(first) = self.first_packet else {
            return false;
        };
        let (since, patience) = match self.shown.last() {
            Some(shown) => (shown.at, KEY_FRAME_AFTER),
            None => (first, KEY_FRAME_AGAIN),
        };
        let is_new = self
            .asked
            .is_none_or(|asked| now.duration_since(asked) >= KEY_FRAME_AGAIN);
        // Nothing came at all: nothing is sent, or nothing arrives.
        let has_something = !self.packets.is_empty();
        if !is_new || !has_something || now.duration_since(since) < patience {
            return false;
        }
        self.asked = Some(now);
        self.key_frames_wanted += 1;
        true
    }

    /// Shows the first frame that can be.
    fn show_next(&mut self, now: Instant) -> bool {
        let mut frame: Option<(u64, u64)> = None;
        for (&sequence, packet) in &self.packets {
            frame = match frame {
                Some((first, last)) if last + 1 == sequence && self.packets[&first].timestamp == packet.timestamp => {
                    Some((first, sequence))
                }
                _ if packet.is_first => Some((sequence, sequence)),
                _ => None,
            };
            let Some((first, last)) = frame.filter(|_| packet.marker) else {
                continue;
            };
            let packet = &self.packets[&first];
            if self.time(packet) > now {
                return false;
            }
            if self.can_show(packet) {
                self.show_frame(now, first, last);
                return true;
            }
            frame = None;
        }
        false
    }

    fn can_show(&self, frame: &Packet) -> bool {
        let Some((base, has_middle)) = self.base.filter(|_| !frame.is_key) else {
            return frame.is_key;
        };
        match frame.temporal {
            0 => frame.tl0_pic_idx == base.wrapping_add(1),
            _ => frame.tl0_pic_idx == base && (frame.is_sync || has_middle),
        }
    }

    fn show_frame(&mut self, now: Instant, first: u64, last: u64) {
        let frame = &self.packets[&first];
        self.shown.push(Shown {
            at: now,
            layer: frame.layer,
            temporal: frame.temporal,
        });
        let has_middle = frame.temporal == 1 || (frame.temporal > 0 && self.base.is_some_and(|(_, middle)| middle));
        self.base = Some((frame.tl0_pic_idx, has_middle));
        self.last = Some(last);
        self.packets = self.packets.split_off(&(last + 1));
    }
}
