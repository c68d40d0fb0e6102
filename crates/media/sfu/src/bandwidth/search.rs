//! Looks for more than the estimate when more would be of use. The controller does so only for who sends less than it might, and after a
//! fall it believes for long that the path is still as narrow as it was.

use std::time::{Duration, Instant};

use super::Probe;

/// How long after a probe the next one follows. Higher: a path that has become wide again is used later. Lower: a narrow one is disturbed
/// more often.
const INTERVAL: Duration = Duration::from_millis(2_500);

/// The same after one that has found more.
const NEXT_STEP: Duration = Duration::from_millis(250);

/// How much more is looked for, in parts of the estimate.
const STEP: f64 = 2.0;

/// No less than this is looked for, in bits per second: a slower probe would take too long.
const MIN_BPS: u64 = 300_000;

/// No more than so many parts of what is wanted is looked for: somewhat less arrives than is sent.
const MARGIN: f64 = 1.2;

/// A probe has found more when the estimate has become this part of it.
const SUCCESS: f64 = 0.7;

/// How long a probe is. Higher: it tells more, and disturbs more.
const DURATION: Duration = Duration::from_millis(15);

/// Packets of a probe at least: fewer tell nothing.
const PACKETS: u32 = 5;

/// The first id; the controller's are lower.
const FIRST_ID: u32 = 1 << 24;

/// When to look, and how far.
#[derive(Debug)]
pub struct Search {
    last: Instant,
    /// The rate of the last one of ours.
    probed: u64,
    id: u32,
    /// Packets of the last one that have arrived.
    arrived: u32,
}

impl Search {
    /// One that has not looked yet.
    pub fn new(now: Instant) -> Self {
        Self {
            last: now,
            probed: u64::MAX,
            id: FIRST_ID,
            arrived: 0,
        }
    }

    /// A packet of a probe has arrived. Returns the probe's rate if it is the last one of ours, and this is what it lacked to be whole.
    pub fn arrived(&mut self, probe: &Probe) -> Option<u64> {
        if probe.id != self.id {
            return None;
        }
        self.arrived += 1;
        (self.arrived == PACKETS).then_some(probe.bps)
    }

    /// A probe is sent, be it of ours or not.
    pub fn probed(&mut self, now: Instant) {
        self.last = now;
    }

    /// The next probe, if it is time for one and the estimate is below what is wanted.
    pub fn next(&mut self, now: Instant, estimate: u64, wanted: u64) -> Option<Probe> {
        let has_found = estimate as f64 >= self.probed as f64 * SUCCESS;
        let pause = if has_found { NEXT_STEP } else { INTERVAL };
        if estimate >= wanted || now.saturating_duration_since(self.last) < pause {
            return None;
        }
        let bps = (estimate as f64 * STEP).max(MIN_BPS as f64).min(wanted as f64 * MARGIN) as u64;
        Some(self.probe(bps))
    }

    /// A probe at this rate.
    pub fn probe(&mut self, bps: u64) -> Probe {
        self.probed = bps;
        self.arrived = 0;
        self.id = (self.id + 1).max(FIRST_ID) & 0x7fff_ffff;
        Probe {
            id: self.id,
            bps,
            packets: PACKETS,
            bytes: (bps as f64 * DURATION.as_secs_f64() / 8.0) as u64,
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;

    #[test]
    fn one_that_finds_more_is_followed_soon_and_one_that_does_not_later() {
        let start = Instant::now();
        let mut search = Search::new(start);
        assert_eq!(search.next(start + INTERVAL, 400_000, 400_000), None, "enough");
        assert_eq!(search.next(start, 400_000, 3_000_000), None, "too early");
        let now = start + INTERVAL;
        let probe = search.next(now, 400_000, 3_000_000).unwrap();
        assert_eq!((probe.bps, probe.packets, probe.bytes), (800_000, PACKETS, 1_500));
        search.probed(now);
        assert_eq!(search.next(now + NEXT_STEP, 420_000, 3_000_000), None);
        let next = search.next(now + NEXT_STEP, 790_000, 3_000_000).unwrap();
        assert_eq!((next.bps, next.id), (1_580_000, probe.id + 1));
        assert_eq!(search.arrived(&probe), None, "of the one before");
        let arrived: Vec<_> = (0..PACKETS).map(|_| search.arrived(&next)).collect();
        assert_eq!(arrived, [None, None, None, None, Some(next.bps)]);
        search.probed(now + NEXT_STEP);
        let now = now + NEXT_STEP + INTERVAL;
        assert_eq!(search.next(now, 2_000_000, 3_000_000).unwrap().bps, 3_600_000);
    }
}
