//! What one receiver gets, stream by stream: how much of it, how long it took, and what is missing. It knows no connection and no clock.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;

use crate::clip;
use crate::stamp;

/// A longer delay counts as this.
const LONGEST: Duration = Duration::from_secs(60);

/// How long the receiver waited for what, and how much it got.
#[derive(Debug, Default)]
pub struct Arrivals {
    streams: HashMap<u32, Stream>,
    /// Packets with something in them, each once.
    pub packets: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// When the first packet arrived.
    pub first_packet: Option<Instant>,
    /// When the first packet of a key frame arrived.
    pub first_key_frame: Option<Instant>,
    /// One-way delays, in microseconds.
    pub delays: Delays,
    /// Interarrival jitter (RFC 3550 section 6.4.1) after each packet of sound and each picture, in microseconds.
    pub jitters: Delays,
}

/// A distribution of times in microseconds, to two digits.
#[derive(Debug, Clone)]
pub struct Delays(Histogram<u64>);

#[derive(Debug)]
struct Stream {
    /// The first number that counts, and the highest one, extended.
    numbers: (u64, u64),
    /// Which of the last ones arrived.
    seen: Seen,
    arrived: u64,
    /// Packets of the picture that is coming, whose last one says when they were sent.
    coming: (u32, Vec<Instant>),
    /// The last delay, and the jitter, in microseconds.
    jitter: (Option<f64>, f64),
}

/// A packet that arrived.
#[derive(Debug, Clone, Copy)]
pub struct Arrived<'a> {
    /// Its stream.
    pub ssrc: u32,
    /// Its number, extended past 16 bits.
    pub sequence: u64,
    /// Its RTP timestamp.
    pub timestamp: u32,
    /// It is sound.
    pub is_sound: bool,
    /// What it carries; nothing: it only fills a gap.
    pub payload: &'a [u8],
}

/// The numbers of the last 4,096 packets, each in its place.
#[derive(Debug)]
struct Seen(Vec<u64>);

impl Seen {
    const LENGTH: usize = 4_096;

    /// Whether a number is new.
    fn take(&mut self, number: u64) -> bool {
        let place = (number % Self::LENGTH as u64) as usize;
        if self.0.len() <= place {
            self.0.resize(place + 1, u64::MAX);
        }
        // What is older than all that is remembered is taken for new; so late nothing comes.
        self.0
            .get_mut(place)
            .is_some_and(|seen| std::mem::replace(seen, number) != number)
    }
}

impl Arrivals {
    /// A packet arrives. Returns its payload's length, 0 if it has come before or carries nothing.
    pub fn add(&mut self, now: Instant, clock: SystemTime, packet: Arrived<'_>) -> usize {
        let stream = self
            .streams
            .entry(packet.ssrc)
            .or_insert_with(|| Stream::new(packet.sequence));
        if !stream.seen.take(packet.sequence) {
            return 0;
        }
        // What was sent before it counts is neither expected nor missed.
        if packet.sequence < stream.numbers.0 {
            return 0;
        }
        stream.arrived += 1;
        stream.numbers.1 = stream.numbers.1.max(packet.sequence);
        if packet.payload.is_empty() {
            return 0;
        }
        self.packets += 1;
        self.bytes += packet.payload.len() as u64;
        self.first_packet.get_or_insert(now);
        if !packet.is_sound && begins_key_frame(packet.payload) {
            self.first_key_frame.get_or_insert(now);
        }
        let age = stamp::age(packet.payload, clock);
        let earlier = stream.coming(now, packet.timestamp, age.is_some());
        if let Some(age) = age {
            for at in earlier {
                // They were sent together with the last one, and arrived before it.
                self.delays.add(age.saturating_sub(now.saturating_duration_since(at)));
            }
            self.jitters.add(stream.jitter(age));
        }
        packet.payload.len()
    }

    /// How many packets should have arrived, and how many of them did not.
    pub fn expected_and_lost(&self) -> (u64, u64) {
        let streams = self.streams.values();
        streams.fold((0, 0), |(expected, lost), stream| {
            let (first, highest) = stream.numbers;
            let of_stream = highest + 1 - first;
            (expected + of_stream, lost + of_stream.saturating_sub(stream.arrived))
        })
    }

    /// How many streams something arrived of.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Counts anew from here on: what came before is remembered only as far as it takes to know what is new.
    pub fn begin(&mut self) {
        self.packets = 0;
        self.bytes = 0;
        self.delays = Delays::default();
        self.jitters = Delays::default();
        for stream in self.streams.values_mut() {
            stream.arrived = 0;
            stream.numbers.0 = stream.numbers.1 + 1;
        }
    }
}

impl Stream {
    fn new(first: u64) -> Self {
        Self {
            numbers: (first, first),
            seen: Seen(Vec::new()),
            arrived: 0,
            coming: (0, Vec::new()),
            jitter: (None, 0.0),
        }
    }

    /// A packet of a picture; if it is the last one, when all of them arrived.
    fn coming(&mut self, now: Instant, timestamp: u32, is_last: bool) -> Vec<Instant> {
        if self.coming.0 != timestamp {
            self.coming = (timestamp, Vec::new());
        }
        self.coming.1.push(now);
        if is_last {
            std::mem::take(&mut self.coming.1)
        } else {
            Vec::new()
        }
    }

    fn jitter(&mut self, age: Duration) -> Duration {
        let age = age.as_micros() as f64;
        if let Some(before) = self.jitter.0.replace(age) {
            self.jitter.1 += ((age - before).abs() - self.jitter.1) / 16.0;
        }
        Duration::from_micros(self.jitter.1 as u64)
    }
}

/// Whether a VP8 payload begins a key frame: the descriptor's S bit, partition 0, and behind the descriptor the frame's P bit (RFC 7741 section 4.2).
fn begins_key_frame(payload: &[u8]) -> bool {
    let Some(&first) = payload.first() else {
        return false;
    };
    let mut length = 1;
    if first & 0x80 != 0 {
        let extensions = payload.get(1).copied().unwrap_or_default();
        length += 1;
        if extensions & 0x80 != 0 {
            length += if payload.get(2).is_some_and(|id| id & 0x80 != 0) {
                2
            } else {
                1
            };
        }
        length += usize::from(extensions & 0x40 != 0) + usize::from(extensions & 0x30 != 0);
    }
    first & 0x17 == 0x10
        && payload
            .get(length..)
            .is_some_and(|frame| !frame.is_empty() && clip::is_key(frame))
}

impl Default for Delays {
    fn default() -> Self {
        let longest = LONGEST.as_micros() as u64;
        Self(Histogram::new_with_bounds(1, longest, 2).expect("two digits between these bounds can be counted"))
    }
}

impl Delays {
    /// Counts one.
    pub fn add(&mut self, delay: Duration) {
        self.0.saturating_record(delay.as_micros() as u64);
    }

    /// Adds another distribution.
    pub fn merge(&mut self, other: &Self) {
        // Both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// What this part of them does not exceed; nothing: there are none.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        (self.count() > 0).then(|| Duration::from_micros(self.0.value_at_quantile(part)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::camera::{Packet, Source};
    use crate::clip::Size;

    const MS: Duration = Duration::from_millis(1);

    /// Pictures or sound, each sent when it is due, and arriving `delay` later as far as `arrives` says so.
    fn send(
        source: &mut Source,
        start: Instant,
        count: u32,
        delay: Duration,
        arrives: impl Fn(u64) -> bool,
    ) -> Arrivals {
        let (mut arrivals, mut number) = (Arrivals::default(), 0);
        for _ in 0..count {
            let due = source.due;
            let clock = UNIX_EPOCH + (due - start);
            let mut packets: Vec<Packet> = Vec::new();
            source.next(due, clock, |packet| packets.push(packet));
            for packet in &packets {
                number += 1;
                if arrives(number) {
                    let arrived = Arrived {
                        ssrc: 7,
                        sequence: packet.sequence,
                        timestamp: packet.timestamp,
                        is_sound: source.is_sound(),
                        payload: &packet.payload,
                    };
                    arrivals.add(due + delay, clock + delay, arrived);
                    // A copy is none more.
                    assert_eq!(arrivals.add(due + delay, clock + delay, arrived), 0);
                }
            }
        }
        arrivals
    }

    #[test]
    fn every_packet_of_a_picture_has_its_delay_and_a_missing_one_is_lost() {
        let start = Instant::now();
        let arrivals = send(
            &mut Source::camera(start, &[Size::P360]),
            start,
            60,
            20 * MS,
            |number| number != 50,
        );
        let (expected, lost) = arrivals.expected_and_lost();
        assert_eq!((lost, arrivals.packets), (1, expected - 1));
        assert!(arrivals.delays.count() >= arrivals.packets - 1);
        assert!(arrivals.first_key_frame.is_some());
        for part in [0.0, 0.5, 1.0] {
            let delay = arrivals.delays.quantile(part).unwrap();
            assert!((19 * MS..=21 * MS).contains(&delay), "{delay:?}");
        }
        assert!(arrivals.jitters.quantile(1.0).unwrap() < MS);
    }

    #[test]
    fn what_is_counted_begins_where_it_is_said_to() {
        let start = Instant::now();
        let mut microphone = Source::microphone(start);
        let mut arrivals = send(&mut microphone, start, 100, MS, |number| number % 10 != 1);
        assert_eq!(arrivals.expected_and_lost(), (99, 9), "the first one is not known of");
        arrivals.begin();
        assert_eq!(
            (arrivals.expected_and_lost(), arrivals.packets, arrivals.streams()),
            ((0, 0), 0, 1)
        );
    }
}
