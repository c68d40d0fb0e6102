//! The estimate for a peer that gives no transport-wide feedback: it grows while nothing is lost, shrinks when much is, and never exceeds
//! what the peer says that it can receive.

use std::time::{Duration, Instant};

/// What is lost is looked at this often. Higher: it reacts later. Lower: a few packets decide.
const INTERVAL: Duration = Duration::from_secs(1);

/// Below this share of losses it grows, by this factor (draft-ietf-rmcat-gcc-02 section 6).
const GROWTH: (f64, f64) = (0.02, 1.08);

/// Above this share of losses it shrinks.
const SHRINKAGE: f64 = 0.10;

/// An estimate of a peer outside of this is none: with less there is no call, and nobody has more.
const BELIEVABLE: std::ops::RangeInclusive<u64> = 30_000..=10_000_000_000;

/// A peer's estimate says nothing of the present after so long.
const MEMORY: Duration = Duration::from_secs(10);

/// The estimate.
#[derive(Debug)]
pub struct FromReports {
    bps: f64,
    lost: u64,
    expected: u64,
    looked: Instant,
    bound: Option<(u64, Instant)>,
}

impl FromReports {
    /// One that knows nothing yet.
    pub fn new(now: Instant, start: u64) -> Self {
        Self {
            bps: start as f64,
            lost: 0,
            expected: 0,
            looked: now,
            bound: None,
        }
    }

    /// A peer has reported that so many of so many packets were lost, while so much would have been of use.
    pub fn lost(&mut self, now: Instant, lost: u32, expected: u32, wanted: u64, bounds: (u64, u64)) {
        self.lost += u64::from(lost.min(expected));
        self.expected += u64::from(expected);
        if self.expected == 0 || now.saturating_duration_since(self.looked) < INTERVAL {
            return;
        }
        let share = self.lost as f64 / self.expected as f64;
        (self.lost, self.expected, self.looked) = (0, 0, now);
        if share > SHRINKAGE {
            self.bps *= 1.0 - share / 2.0;
        } else if share < GROWTH.0 && self.bps < wanted as f64 {
            self.bps *= GROWTH.1;
        }
        self.bps = self.bps.clamp(bounds.0 as f64, bounds.1 as f64);
    }

    /// The peer has told what it can receive. `false`: nobody can believe that.
    pub fn peer_estimate(&mut self, now: Instant, bps: u64) -> bool {
        let is_believable = BELIEVABLE.contains(&bps);
        if is_believable {
            self.bound = Some((bps, now));
            // It measures what arrives, and may know of more than losses tell.
            self.bps = self.bps.max(bps as f64);
        }
        is_believable
    }

    /// What may be sent.
    pub fn estimate(&self, now: Instant) -> u64 {
        let bound = self.bound.filter(|(_, at)| now.saturating_duration_since(*at) < MEMORY);
        let bps = self.bps as u64;
        bound.map_or(bps, |(bound, _)| bps.min(bound))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;

    const BOUNDS: (u64, u64) = (30_000, 50_000_000);

    #[test]
    fn it_grows_without_losses_and_shrinks_with_many() {
        let mut now = Instant::now();
        let mut reports = FromReports::new(now, 1_000_000);
        for _ in 0..15 {
            now += INTERVAL;
            reports.lost(now, 0, 100, 10_000_000, BOUNDS);
        }
        let grown = reports.estimate(now);
        assert!(grown > 3_000_000, "{grown}");
        now += INTERVAL;
        reports.lost(now, 5, 100, 10_000_000, BOUNDS);
        assert_eq!(reports.estimate(now), grown, "some losses change nothing");
        now += INTERVAL;
        reports.lost(now, 50, 100, 10_000_000, BOUNDS);
        assert!(reports.estimate(now) < grown * 4 / 5);
        for _ in 0..100 {
            now += INTERVAL;
            reports.lost(now, 100, 100, 10_000_000, BOUNDS);
        }
        assert_eq!(reports.estimate(now), BOUNDS.0);
    }

    #[test]
    fn what_is_of_no_use_is_not_grown_to() {
        let mut now = Instant::now();
        let mut reports = FromReports::new(now, 1_000_000);
        for _ in 0..50 {
            now += INTERVAL;
            reports.lost(now, 0, 100, 2_000_000, BOUNDS);
        }
        assert!((2_000_000..2_200_000).contains(&reports.estimate(now)));
    }

    #[test]
    fn a_peers_estimate_bounds_for_a_while_and_an_absurd_one_does_not() {
        let now = Instant::now();
        let mut reports = FromReports::new(now, 1_000_000);
        for absurd in [0, 1, 29_999, u64::MAX] {
            assert!(!reports.peer_estimate(now, absurd));
        }
        assert_eq!(reports.estimate(now), 1_000_000);
        assert!(reports.peer_estimate(now, 300_000));
        assert_eq!(reports.estimate(now), 300_000);
        assert_eq!(reports.estimate(now + MEMORY), 1_000_000);
        assert!(reports.peer_estimate(now, 4_000_000));
        assert_eq!(reports.estimate(now), 4_000_000);
    }
}
