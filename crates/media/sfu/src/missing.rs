//! Packets of a stream that have not come, and when to ask for them again (RFC 4585 section 6.2.1).

use std::time::{Duration, Instant};

/// How often a packet is asked for.
pub const MAX_REQUESTS: u32 = 3;

/// Packets that are waited for at a time. What is missing beyond is a key frame's business.
const MAX_MISSING: usize = 128;

/// What is missing.
#[derive(Debug, Default)]
pub struct Missing {
    /// In ascending order.
    missing: Vec<Packet>,
}

#[derive(Debug)]
struct Packet {
    index: u64,
    since: Instant,
    due: Instant,
    requests: u32,
}

impl Missing {
    /// A packet arrived; `before`: the highest index until then. What it shows to be missing is to be asked for after `wait`. Returns for how long
    /// it has been missing itself, if it has.
    pub fn packet(&mut self, now: Instant, index: u64, before: Option<u64>, wait: Duration) -> Option<Duration> {
        let before = before?;
        if index < before {
            let place = self.missing.iter().position(|missing| missing.index == index)?;
            let missing = self.missing.remove(place);
            return Some(now.saturating_duration_since(missing.since));
        }
        let first = (before + 1).max(index.saturating_sub(MAX_MISSING as u64));
        let due = now + wait;
        self.missing.extend((first..index).map(|index| Packet {
            index,
            since: now,
            due,
            requests: 0,
        }));
        let excess = self.missing.len().saturating_sub(MAX_MISSING);
        self.missing.drain(..excess);
        None
    }

    /// The packets to ask for now; what stays missing is asked for again after `repeat`.
    pub fn due(&mut self, now: Instant, repeat: Duration) -> Vec<u16> {
        self.missing
            .retain(|missing| missing.requests < MAX_REQUESTS || missing.due > now);
        let due = self.missing.iter_mut().filter(|missing| missing.due <= now);
        due.map(|missing| {
            missing.due = now + repeat;
            missing.requests += 1;
            missing.index as u16
        })
        .collect()
    }

    /// When there is something to ask for.
    pub fn next_due(&self) -> Option<Instant> {
        self.missing.iter().map(|missing| missing.due).min()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_millis(20);

    const REPEAT: Duration = Duration::from_millis(100);

    #[test]
    fn what_stays_missing_is_asked_for_three_times_and_what_comes_late_is_not() {
        let (mut now, mut missing) = (Instant::now(), Missing::default());
        missing.packet(now, 10, None, WAIT);
        missing.packet(now, 13, Some(10), WAIT);
        let late = Duration::from_millis(5);
        assert_eq!(missing.packet(now + late, 11, Some(13), WAIT), Some(late));
        assert_eq!(missing.packet(now + late, 11, Some(13), WAIT), None);
        assert!(missing.due(now, REPEAT).is_empty());
        for _ in 0..MAX_REQUESTS {
            now = missing.next_due().unwrap();
            assert_eq!(missing.due(now, REPEAT), [12]);
            assert!(missing.due(now, REPEAT).is_empty(), "not twice at a time");
        }
        now = missing.next_due().unwrap();
        assert!(missing.due(now, REPEAT).is_empty());
        assert_eq!(missing.next_due(), None);
        missing.packet(now, 15, Some(13), WAIT);
        missing.due(now + WAIT, REPEAT);
        assert_eq!(missing.packet(now + WAIT, 14, Some(15), WAIT), Some(WAIT));
        assert_eq!(missing.next_due(), None);
    }

    #[test]
    fn a_long_gap_costs_no_more_than_a_short_one() {
        let (now, mut missing) = (Instant::now(), Missing::default());
        missing.packet(now, 1_000_000, Some(10), WAIT);
        assert_eq!(missing.due(now + WAIT, REPEAT).len(), MAX_MISSING);
    }
}
