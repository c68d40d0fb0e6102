//! Packets of a stream that have not come, and when to ask for them again (RFC 4585 section 6.2.1).

use std::time::{Duration, Instant};

/// How long a packet may be late before it is asked for. Higher: losses are repaired later. Lower: reordering causes needless
/// requests.
pub const TOLERANCE: Duration = Duration::from_millis(20);

/// How long after a request the same packet is asked for again: longer than most round trips.
pub const REPEAT: Duration = Duration::from_millis(100);

/// How often a packet is asked for.
pub const MAX_REQUESTS: u32 = 3;

/// Packets that are waited for at a time. What is missing beyond is a key frame's business.
const MAX_MISSING: usize = 128;

/// What is missing.
#[derive(Debug, Default)]
pub struct Gaps {
    /// In ascending order.
    missing: Vec<Missing>,
}

#[derive(Debug)]
struct Missing {
    index: u64,
    due: Instant,
    requests: u32,
}

impl Gaps {
    /// A packet arrived; `before`: the highest index until then.
    pub fn packet(&mut self, now: Instant, index: u64, before: Option<u64>) {
        let Some(before) = before else {
            return;
        };
        if index < before {
            self.missing.retain(|missing| missing.index != index);
            return;
        }
        let first = (before + 1).max(index.saturating_sub(MAX_MISSING as u64));
        let due = now + TOLERANCE;
        self.missing.extend((first..index).map(|index| Missing {
            index,
            due,
            requests: 0,
        }));
        let excess = self.missing.len().saturating_sub(MAX_MISSING);
        self.missing.drain(..excess);
    }

    /// The packets to ask for now.
    pub fn due(&mut self, now: Instant) -> Vec<u16> {
        self.missing
            .retain(|missing| missing.requests < MAX_REQUESTS || missing.due > now);
        let due = self.missing.iter_mut().filter(|missing| missing.due <= now);
        due.map(|missing| {
            missing.due = now + REPEAT;
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

    #[test]
    fn what_stays_missing_is_asked_for_three_times_and_what_comes_late_is_not() {
        let (mut now, mut gaps) = (Instant::now(), Gaps::default());
        gaps.packet(now, 10, None);
        gaps.packet(now, 13, Some(10));
        gaps.packet(now, 11, Some(13));
        assert!(gaps.due(now).is_empty());
        for _ in 0..MAX_REQUESTS {
            now = gaps.next_due().unwrap();
            assert_eq!(gaps.due(now), [12]);
            assert!(gaps.due(now).is_empty(), "not twice at a time");
        }
        now = gaps.next_due().unwrap();
        assert!(gaps.due(now).is_empty());
        assert_eq!(gaps.next_due(), None);
    }

    #[test]
    fn a_long_gap_costs_no_more_than_a_short_one() {
        let (now, mut gaps) = (Instant::now(), Gaps::default());
        gaps.packet(now, 1_000_000, Some(10));
        assert_eq!(gaps.due(now + TOLERANCE).len(), MAX_MISSING);
    }
}
