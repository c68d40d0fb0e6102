//! A path that has become much narrower at once: what is sent is many times what it takes, its queue is full, and most is lost. The controller
//! comes down in steps; what arrives tells at once how far.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Over how long arrivals are counted. Higher: surer. Lower: sooner.
const WINDOW: Duration = Duration::from_millis(250);

/// Fewer packets tell nothing.
const MIN_PACKETS: usize = 20;

/// The share that is lost.
const LOSS: f64 = 0.25;

/// No more than this part of what arrived is sent, so that the queue drains.
const PART: f64 = 0.65;

/// For how long; then the controller has come down as well.
const MEMORY: Duration = Duration::from_millis(1_500);

/// What has arrived of late, and what follows from it.
#[derive(Debug, Default)]
pub struct Overload {
    told: VecDeque<(Instant, usize, usize, usize)>,
    bound: Option<(u64, Instant)>,
}

impl Overload {
    /// The peer has told of so many packets and bytes that arrived, and so many packets that did not; whether they queue.
    pub fn told(&mut self, now: Instant, arrived: usize, bytes: usize, lost: usize, queues: bool) {
        self.told.push_back((now, arrived, bytes, lost));
        while self
            .told
            .front()
            .is_some_and(|(at, ..)| now.saturating_duration_since(*at) > WINDOW)
        {
            self.told.pop_front();
        }
        let sum = self.told.iter().fold((0, 0, 0), |sum, (_, arrived, bytes, lost)| {
            (sum.0 + arrived, sum.1 + bytes, sum.2 + lost)
        });
        let packets = sum.0 + sum.2;
        if queues && packets >= MIN_PACKETS && sum.2 as f64 >= LOSS * packets as f64 {
            let bps = sum.1 as f64 * 8.0 / WINDOW.as_secs_f64() * PART;
            self.bound = Some((bps as u64, now));
        }
    }

    /// What may be sent at most; none: there is no overload.
    pub fn bound(&self, now: Instant) -> Option<u64> {
        let (bps, at) = self.bound?;
        (now.saturating_duration_since(at) < MEMORY).then_some(bps)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;

    #[test]
    fn it_takes_losses_and_a_queue_and_is_forgotten() {
        let start = Instant::now();
        let at = |number: u64| start + Duration::from_millis(50 * number);
        for (arrived, lost, queues) in [(2, 8, false), (10, 1, true)] {
            let mut overload = Overload::default();
            for number in 0..10 {
                overload.told(at(number), arrived, 2_500, lost, queues);
            }
            assert_eq!(overload.bound(at(9)), None, "either alone is none");
        }
        let mut overload = Overload::default();
        for number in 0..10 {
            overload.told(at(number), 2, 2_500, 8, true);
        }
        // 2,500 bytes every 50 ms, of which six are in the window.
        assert_eq!(overload.bound(at(9)), Some(312_000));
        assert_eq!(overload.bound(at(9) + MEMORY), None);
    }
}
