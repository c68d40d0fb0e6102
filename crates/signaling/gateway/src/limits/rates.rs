//! How often somebody may ask: so many at once, and then so many a second.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// How many are remembered at most, about 100 bytes each. Those who have not asked for a while are forgotten first; when all have, nobody new is limited.
const MAX_REMEMBERED: usize = 100_000;

/// After how many requests those are looked for who can be forgotten.
const TIDY_EVERY: u64 = 10_000;

/// A rate for each of many.
#[derive(Debug)]
pub(super) struct Rates<K: Clone + Eq + Hash> {
    /// None: there is no limit.
    limiter: Option<DefaultKeyedRateLimiter<K>>,
    clock: DefaultClock,
    taken: AtomicU64,
}

impl<K: Clone + Eq + Hash> Rates<K> {
    /// So many a second after a burst of so many; 0 of either: as many as they like.
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let quota = NonZeroU32::new(per_second)
            .zip(NonZeroU32::new(burst))
            .map(|(rate, burst)| Quota::per_second(rate).allow_burst(burst));
        Self {
            limiter: quota.map(RateLimiter::keyed),
            clock: DefaultClock::default(),
            taken: AtomicU64::new(0),
        }
    }

    /// Takes one.
    ///
    /// # Errors
    /// After how many seconds there is another one, at least 1.
    pub(super) fn take(&self, key: K) -> Result<(), u64> {
        let Some(limiter) = &self.limiter else {
            return Ok(());
        };
        if self.taken.fetch_add(1, Ordering::Relaxed) % TIDY_EVERY == TIDY_EVERY - 1 {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
        if limiter.len() >= MAX_REMEMBERED {
            return Ok(());
        }
        limiter.check_key(&key).map_err(|not_until| {
            let wait = not_until.wait_time_from(self.clock.now());
            wait.as_secs() + u64::from(wait.subsec_nanos() > 0).max(u64::from(wait < Duration::from_secs(1)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_burst_of_its_own() {
        let rates = Rates::new(1, 3);
        assert_eq!([1, 2, 3].map(|_| rates.take("ann")), [Ok(()); 3]);
        let wait = rates.take("ann").unwrap_err();
        assert_eq!(wait, 1);
        assert_eq!(rates.take("bob"), Ok(()));
    }

    #[test]
    fn without_a_limit_nobody_is_remembered() {
        let rates = Rates::new(0, 3);
        assert!((0..100).all(|_| rates.take("ann").is_ok()));
        assert!(rates.limiter.is_none());
    }
}
