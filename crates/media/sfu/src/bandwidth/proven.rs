//! What arrives: where nothing queues and little is lost, the path takes at least that much, whatever the controller makes of the times. It tells
//! a queue by times that grow by a few milliseconds, which at the rate of a few small pictures those of a busy peer do as well; and once it has
//! come down so, it goes up again by little at a time, though more than it says arrives all along.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Over how long it is counted. Higher: surer. Lower: it tells sooner.
const WINDOW: Duration = Duration::from_secs(1);

/// Less tells nothing: a key frame alone may be as long.
const LEAST: Duration = Duration::from_millis(500);

/// If more than one packet in so many is lost, something is wrong with the path.
const LOST_SHARE: usize = 10;

/// So many packets that are lost in [`WINDOW`] are more than an accident.
const SOME: usize = 2;

/// What the peer has told of late.
#[derive(Debug, Default)]
pub struct Proven {
    /// When it told of how many packets and bytes that arrived, and how many packets that did not.
    told: VecDeque<(Instant, usize, usize, usize)>,
    /// The sum of all of them: it is asked for with every packet that is sent.
    sum: (usize, usize, usize),
}

impl Proven {
    /// The peer has told of so many packets and bytes that arrived, and so many packets that did not; whether they queue.
    pub fn told(&mut self, now: Instant, arrived: usize, bytes: usize, lost: usize, queues: bool) {
        if queues {
            *self = Self::default();
            return;
        }
        self.told.push_back((now, arrived, bytes, lost));
        self.sum = (self.sum.0 + arrived, self.sum.1 + bytes, self.sum.2 + lost);
        while let Some((_, arrived, bytes, lost)) = self.told.pop_front_if(|(at, ..)| age(now, *at) > WINDOW) {
            self.sum = (self.sum.0 - arrived, self.sum.1 - bytes, self.sum.2 - lost);
        }
    }

    /// What the path has been taking until now, in bits per second; none: that is not known, or not as it should be.
    pub fn bps(&self, now: Instant) -> Option<u64> {
        let (since, arrived, bytes, lost) = self.sum(now)?;
        let bps = bytes as f64 * 8.0 / since.as_secs_f64();
        (lost * LOST_SHARE <= arrived).then_some(bps as u64)
    }

    /// Whether some are lost, and not so many that the path may be full.
    pub fn loses(&self, now: Instant) -> bool {
        let some = |(_, arrived, _, lost)| lost >= SOME && lost * LOST_SHARE <= arrived;
        self.sum(now).is_some_and(some)
    }

    /// For how long, how many packets and bytes arrived, and how many did not.
    fn sum(&self, now: Instant) -> Option<(Duration, usize, usize, usize)> {
        let (first, last) = (self.told.front()?, self.told.back()?);
        let since = age(now, first.0);
        if since < LEAST || since > WINDOW + LEAST || age(now, last.0) >= LEAST {
            return None;
        }
        // The first one is about what was sent before.
        Some((since, self.sum.0 - first.1, self.sum.1 - first.2, self.sum.2 - first.3))
    }
}

fn age(now: Instant, at: Instant) -> Duration {
    now.saturating_duration_since(at)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;

    /// A peer that tells every 50 ms for a second, of ten packets with 5,000 bytes each time: 800 kbit/s.
    fn told(lost: usize, queues: impl Fn(u32) -> bool) -> (Proven, Instant) {
        let start = Instant::now();
        let mut proven = Proven::default();
        let mut now = start;
        for number in 0..=20 {
            now = start + number * Duration::from_millis(50);
            proven.told(now, 10, 5_000, lost, queues(number));
        }
        (proven, now)
    }

    #[test]
    fn what_arrives_is_believed_until_something_queues_or_much_is_lost_or_nothing_is_told() {
        let (proven, now) = told(0, |_| false);
        assert_eq!((proven.bps(now), proven.loses(now)), (Some(800_000), false));
        assert_eq!(proven.bps(now + LEAST), None, "nothing was told since");
        let (proven, now) = told(1, |_| false);
        assert_eq!((proven.bps(now), proven.loses(now)), (Some(800_000), true));
        let (proven, now) = told(2, |_| false);
        assert_eq!((proven.bps(now), proven.loses(now)), (None, false), "too much is lost");
        let (proven, now) = told(0, |number| number == 20);
        assert_eq!(proven.bps(now), None, "it queues");
        let (proven, now) = told(0, |number| number == 11);
        assert_eq!(proven.bps(now), None, "it did a moment ago");
        let (proven, now) = told(0, |number| number == 9);
        assert_eq!(proven.bps(now), Some(800_000));
    }
}
