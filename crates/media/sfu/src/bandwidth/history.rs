//! The packets that were sent of late, by transport-wide sequence number: what feedback can be about.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Load, Probe};

/// Packets remembered at most: at 1,200 bytes each four seconds at 20 Mbit/s. Higher: more memory. Lower: feedback that comes late on a
/// fast path is about what is forgotten.
const CAPACITY: usize = 8_192;

/// Feedback about what was sent so long ago is of no use. Higher: more memory for each receiver. Lower: a path with such a round trip cannot be measured.
const MEMORY: Duration = Duration::from_secs(2);

/// A packet that was sent.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// Its transport-wide sequence number, extended.
    pub sequence: u64,
    /// When.
    pub at: Instant,
    /// Its datagram's length.
    pub bytes: usize,
    /// What it carries.
    pub load: Load,
    /// The probe that it is part of, and how many bytes of it were sent before.
    pub probe: Option<(Probe, u64)>,
    /// Bytes under way when it was sent.
    pub in_flight: usize,
}

/// What is kept of a packet: there are hundreds of them for each receiver.
#[derive(Debug, Clone, Copy)]
struct Kept {
    /// Microseconds since the first packet.
    at: u64,
    in_flight: u32,
    bytes: u16,
    load: Load,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Unknown,
    Lost,
    Arrived,
}

/// Packets in the order of their numbers, without gaps.
#[derive(Debug, Default)]
pub struct History {
    /// When the first one was sent.
    begun: Option<Instant>,
    /// The number of the first that is kept.
    first: u64,
    packets: VecDeque<Kept>,
    /// Those of them that are part of a probe, by their numbers, ascending.
    probes: VecDeque<(u64, Probe, u64)>,
    in_flight: usize,
}

impl History {
    /// Remembers a packet. A number that does not follow the last one makes all before it forgotten.
    pub fn sent(&mut self, at: Instant, sequence: u64, bytes: usize, load: Load, probe: Option<(Probe, u64)>) -> Sent {
        let begun = *self.begun.get_or_insert(at);
        if self.last().is_some_and(|last| last + 1 != sequence) {
            self.packets.clear();
            self.probes.clear();
            self.in_flight = 0;
        }
        if self.packets.is_empty() {
            self.first = sequence;
        }
        let now = at.saturating_duration_since(begun).as_micros() as u64;
        let oldest = now.saturating_sub(MEMORY.as_micros() as u64);
        while self.packets.len() >= CAPACITY || self.packets.front().is_some_and(|first| first.at < oldest) {
            self.forget_first();
        }
        // No datagram is longer.
        let bytes = bytes.min(usize::from(u16::MAX));
        self.in_flight += bytes;
        self.packets.push_back(Kept {
            at: now,
            in_flight: u32::try_from(self.in_flight).unwrap_or(u32::MAX),
            bytes: bytes as u16,
            load,
            outcome: Outcome::Unknown,
        });
        if let Some((probe, before)) = probe {
            self.probes.push_back((sequence, probe, before));
        }
        Sent {
            sequence,
            at,
            bytes,
            load,
            probe,
            in_flight: self.in_flight,
        }
    }

    fn forget_first(&mut self) {
        if let Some(first) = self.packets.pop_front()
            && first.outcome == Outcome::Unknown
        {
            self.in_flight -= usize::from(first.bytes);
        }
        self.first += 1;
        while self.probes.front().is_some_and(|(sequence, ..)| *sequence < self.first) {
            self.probes.pop_front();
        }
    }

    /// Bytes of which the peer has told nothing yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The last number; none: nothing was sent.
    pub fn last(&self) -> Option<u64> {
        (self.first + self.packets.len() as u64)
            .checked_sub(1)
            .filter(|_| !self.packets.is_empty())
    }

    /// The peer has told about a packet. `None`: it is not remembered, or that is no news.
    pub fn told(&mut self, sequence: u64, has_arrived: bool) -> Option<Sent> {
        let begun = self.begun?;
        let place = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        let kept = self.packets.get_mut(place)?;
        let outcome = if has_arrived { Outcome::Arrived } else { Outcome::Lost };
        if kept.outcome == Outcome::Arrived || kept.outcome == outcome {
            return None;
        }
        if kept.outcome == Outcome::Unknown {
            self.in_flight -= usize::from(kept.bytes);
        }
        kept.outcome = outcome;
        let kept = *kept;
        let probe = self
            .probes
            .binary_search_by_key(&sequence, |(sequence, ..)| *sequence)
            .ok();
        let probe = probe.and_then(|place| self.probes.get(place));
        Some(Sent {
            sequence,
            at: begun + Duration::from_micros(kept.at),
            bytes: kept.bytes.into(),
            load: kept.load,
            probe: probe.map(|(_, probe, before)| (*probe, *before)),
            in_flight: kept.in_flight as usize,
        })
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;

    #[test]
    fn each_packet_is_news_once_and_what_is_under_way_adds_up() {
        let now = Instant::now();
        let mut history = History::default();
        for sequence in 10..20 {
            history.sent(now, sequence, 100, Load::Video, None);
        }
        assert_eq!((history.in_flight(), history.last()), (1_000, Some(19)));
        assert!(history.told(12, false).is_some());
        assert!(history.told(12, false).is_none());
        assert!(history.told(12, true).is_some(), "it was only late");
        assert!(history.told(12, false).is_none());
        assert!(history.told(12, true).is_none());
        assert!(history.told(9, true).is_none());
        assert!(history.told(20, true).is_none());
        assert_eq!(history.in_flight(), 900);
        history.sent(now + MEMORY + Duration::from_secs(1), 20, 100, Load::Video, None);
        assert_eq!(history.in_flight(), 100);
        assert!(history.told(19, true).is_none());
    }

    #[test]
    fn what_it_tells_is_what_was_sent() {
        let (now, ms) = (Instant::now(), Duration::from_millis);
        let probe = Probe {
            id: 7,
            bps: 1_000_000,
            packets: 2,
            bytes: 300,
        };
        let mut history = History::default();
        for sequence in 10..20 {
            let probe = (13..15).contains(&sequence).then_some((probe, (sequence - 13) * 100));
            history.sent(now + ms(sequence), sequence, 100, Load::Audio, probe);
        }
        for sequence in 10..20 {
            let told = history.told(sequence, true).unwrap();
            assert_eq!(
                (told.sequence, told.at, told.bytes),
                (sequence, now + ms(sequence), 100)
            );
            assert_eq!(
                (told.load, told.in_flight),
                (Load::Audio, 100 * (sequence as usize - 9))
            );
            let before = told.probe.map(|(told, before)| (told == probe, before));
            let expected = (13..15).contains(&sequence).then_some((true, (sequence - 13) * 100));
            assert_eq!(before, expected);
        }
        history.sent(now + MEMORY * 2, 20, 100, Load::Video, None);
        assert!(history.probes.is_empty() && history.packets.len() == 1);
    }

    #[test]
    fn it_is_bounded() {
        let now = Instant::now();
        let mut history = History::default();
        for sequence in 0..2 * CAPACITY as u64 {
            history.sent(now, sequence, 1, Load::Video, None);
        }
        assert_eq!(history.packets.len(), CAPACITY);
        assert_eq!(history.in_flight(), CAPACITY);
    }
}
