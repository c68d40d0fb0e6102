//! The packets that were sent of late, by transport-wide sequence number: what feedback can be about.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Load, Probe};

/// Packets remembered at most: at 1,200 bytes each four seconds at 20 Mbit/s. Higher: more memory. Lower: feedback that comes late on a
/// fast path is about what is forgotten.
const CAPACITY: usize = 8_192;

/// Feedback about what was sent so long ago is of no use. Higher: more memory for each receiver. Lower: a path with such a round trip cannot be measured.
const MEMORY: Duration = Duration::from_secs(3);

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
    packets: VecDeque<Sent>,
    in_flight: usize,
}

impl History {
    /// Remembers a packet. A number that does not follow the last one makes all before it forgotten.
    pub fn sent(&mut self, at: Instant, sequence: u64, bytes: usize, load: Load, probe: Option<(Probe, u64)>) -> Sent {
        if self.packets.back().is_some_and(|last| last.sequence + 1 != sequence) {
            self.packets.clear();
            self.in_flight = 0;
        }
        while self.packets.len() >= CAPACITY
            || self
                .packets
                .front()
                .is_some_and(|first| at.saturating_duration_since(first.at) > MEMORY)
        {
            if let Some(first) = self.packets.pop_front()
                && first.outcome == Outcome::Unknown
            {
                self.in_flight -= first.bytes;
            }
        }
        self.in_flight += bytes;
        let sent = Sent {
            sequence,
            at,
            bytes,
            load,
            probe,
            in_flight: self.in_flight,
            outcome: Outcome::Unknown,
        };
        self.packets.push_back(sent);
        sent
    }

    /// Bytes of which the peer has told nothing yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The last number; none: nothing was sent.
    pub fn last(&self) -> Option<u64> {
        self.packets.back().map(|last| last.sequence)
    }

    /// The peer has told about a packet. `None`: it is not remembered, or that is no news.
    pub fn told(&mut self, sequence: u64, has_arrived: bool) -> Option<Sent> {
        let first = self.packets.front()?.sequence;
        let sent = self
            .packets
            .get_mut(usize::try_from(sequence.checked_sub(first)?).ok()?)?;
        let outcome = if has_arrived { Outcome::Arrived } else { Outcome::Lost };
        if sent.outcome == Outcome::Arrived || sent.outcome == outcome {
            return None;
        }
        if sent.outcome == Outcome::Unknown {
            self.in_flight -= sent.bytes;
        }
        sent.outcome = outcome;
        Some(*sent)
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
