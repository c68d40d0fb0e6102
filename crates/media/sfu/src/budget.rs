//! How much of something may be used in a time: a token bucket.

use std::time::{Duration, Instant};

/// So many units in a second, some of which can be saved up.
#[derive(Debug, Clone)]
pub struct Budget {
    per_second: u64,
    most: f64,
    left: f64,
    since: Option<Instant>,
}

impl Budget {
    /// So many units in a second, saved up for as long as `saved`. 0: no limit.
    pub fn new(per_second: u64, saved: Duration) -> Self {
        let most = per_second as f64 * saved.as_secs_f64();
        Self {
            per_second,
            most,
            left: most,
            since: None,
        }
    }

    /// Whether there are so many units left; if so, they are used.
    pub fn take(&mut self, now: Instant, units: u64) -> bool {
        self.take_leaving(now, units, 0.0)
    }

    /// The same for one that must leave a share of what can be saved up, 0 to 1, to those that are more important.
    pub fn take_leaving(&mut self, now: Instant, units: u64, share: f64) -> bool {
        if self.per_second == 0 {
            return true;
        }
        let passed = now.saturating_duration_since(*self.since.get_or_insert(now));
        self.since = Some(now);
        self.left = (self.left + passed.as_secs_f64() * self.per_second as f64).min(self.most);
        let (units, kept) = (units as f64, share * self.most);
        let is_left = self.left - units >= kept;
        if is_left {
            self.left -= units;
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_comes_back_with_time_and_no_more_than_can_be_saved() {
        #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
        let mut now = Instant::now();
        let mut budget = Budget::new(100, Duration::from_secs(2));
        let mut used = |now, times| (0..times).filter(|_| budget.take(now, 1)).count();
        assert_eq!(used(now, 1_000), 200);
        now += Duration::from_millis(500);
        assert_eq!(used(now, 1_000), 50);
        now += Duration::from_secs(60);
        assert_eq!(used(now, 1_000), 200);
    }

    #[test]
    fn the_less_important_leave_a_share_to_the_others() {
        #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
        let now = Instant::now();
        let mut budget = Budget::new(100, Duration::from_secs(1));
        assert_eq!((0..200).filter(|_| budget.take_leaving(now, 1, 0.25)).count(), 75);
        assert_eq!((0..200).filter(|_| budget.take(now, 1)).count(), 25);
    }

    #[test]
    fn without_a_limit_everything_may_be_used() {
        #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
        let now = Instant::now();
        assert!(Budget::new(0, Duration::from_secs(1)).take(now, u64::MAX));
    }
}
