//! How many retries there may be: a share of the requests, and a few per second in any case.
//!
//! Without a bound, retries multiply the load exactly when there is too much of it. The token bucket is that of Finagle's
//! `RetryBudget`: requests pay in, retries draw out, and a trickle keeps a gateway with few requests able to retry.

use std::time::Duration;

/// What a retry costs. All amounts are in millionths of a retry, so that nothing is lost by rounding.
const RETRY: u64 = 1_000_000;

/// What a request pays in: 20% of a retry. Higher: more requests survive a faulty orchestrator. Lower: retries add less load to
/// orchestrators that are overloaded.
const PER_REQUEST: u64 = RETRY / 5;

/// What comes in by itself, per microsecond: three retries per second. Higher: a quiet gateway retries more. Lower: many quiet gateways
/// add less load together.
const PER_MICROSECOND: u64 = 3;

/// The most that is saved up: ten seconds of the trickle. Higher: more requests are retried at once when an orchestrator is lost after a
/// quiet time. Lower: the reverse.
const MOST: u64 = 30 * RETRY;

/// The bucket. It begins full.
#[derive(Debug)]
pub(super) struct Budget {
    saved: u64,
    filled_at: Duration,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            saved: MOST,
            filled_at: Duration::ZERO,
        }
    }

    /// A request that is not a retry pays in.
    pub(super) fn pay_in(&mut self, now: Duration) {
        self.fill(now);
        self.saved = self.saved.saturating_add(PER_REQUEST).min(MOST);
    }

    /// Draws out what a retry costs, if there is that much.
    pub(super) fn draw(&mut self, now: Duration) -> bool {
        self.fill(now);
        match self.saved.checked_sub(RETRY) {
            Some(left) => {
                self.saved = left;
                true
            }
            None => false,
        }
    }

    fn fill(&mut self, now: Duration) {
        let micros = now.saturating_sub(self.filled_at).as_micros();
        let trickle = u64::try_from(micros)
            .unwrap_or(u64::MAX)
            .saturating_mul(PER_MICROSECOND);
        self.saved = self.saved.saturating_add(trickle).min(MOST);
        self.filled_at = self.filled_at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn a_quiet_gateway_retries_three_times_a_second() {
        let mut budget = Budget::new();
        let mut drawn = |now: Duration| {
            let mut count = 0;
            while budget.draw(now) {
                count += 1;
            }
            count
        };
        assert_eq!(drawn(Duration::ZERO), 30);
        assert_eq!(drawn(Duration::ZERO), 0);
        assert_eq!(drawn(Duration::from_millis(333)), 0);
        assert_eq!(drawn(Duration::from_millis(334)), 1);
        assert_eq!(drawn(Duration::from_secs(1)), 2);
        assert_eq!(drawn(Duration::from_secs(3600)), 30);
    }

    #[test]
    fn every_fifth_request_pays_for_a_retry() {
        let mut budget = Budget::new();
        let now = Duration::ZERO;
        while budget.draw(now) {}
        for _ in 0..4 {
            budget.pay_in(now);
            assert!(!budget.draw(now));
        }
        budget.pay_in(now);
        assert!(budget.draw(now));
        assert!(!budget.draw(now));
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing() {
        let mut budget = Budget::new();
        let now = Duration::from_secs(10);
        while budget.draw(now) {}
        for _ in 0..100 {
            assert!(!budget.draw(Duration::from_secs(5)));
            assert!(!budget.draw(now));
        }
    }

    /// Over any time: at most what was saved up, a fifth of the requests, and three a second.
    #[test]
    fn retries_never_exceed_the_budget_in_any_span_of_time() {
        for seed in 0..50 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut budget = Budget::new();
            let mut now = Duration::ZERO;
            // What had been granted and what had been requested before each moment.
            let mut history = vec![(now, 0_u64, 0_u64)];
            let (mut requests, mut retries) = (0_u64, 0_u64);
            for _ in 0..400 {
                now += Duration::from_micros(rng.random_range(0..50_000));
                if rng.random_bool(0.5) {
                    budget.pay_in(now);
                    requests += 1;
                }
                if budget.draw(now) {
                    retries += 1;
                }
                history.push((now, requests, retries));
            }
            for (index, &(from, requests, retries)) in history.iter().enumerate() {
                for &(to, requests_then, retries_then) in &history[index..] {
                    let allowed =
                        30.0 + 0.2 * (requests_then - requests) as f64 + 3.0 * (to - from).as_secs_f64() + 1e-6;
                    assert!(
                        (retries_then - retries) as f64 <= allowed,
                        "seed {seed}, {from:?} to {to:?}"
                    );
                }
            }
            assert!(retries > 30, "the budget was used up in seed {seed}");
        }
    }
}
