//! How long to wait between attempts.

use std::time::Duration;

use rand::{Rng, RngExt};

/// Waiting times between attempts: doubling, each drawn from the upper half of its range so that nodes do not come in step.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// From about `first` to at most `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, most }
    }

    /// How long to wait this time.
    pub fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let range = self.next;
        self.next = (range * 2).min(self.most);
        range.mul_f64(rng.random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn waiting_times_double_up_to_their_bound() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(400));
        for most in [100, 200, 400, 400] {
            let wait = backoff.next(&mut rng).as_millis();
            assert!((most / 2..=most).contains(&wait), "{wait} of {most}");
        }
    }
}
