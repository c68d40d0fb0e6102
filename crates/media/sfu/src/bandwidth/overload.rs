//! A path that has become much narrower at once: what is sent is many times what it takes, its queue is full, and most is lost. The controller
//! comes down in steps; what arrives tells at once how far.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Over how long arrivals are counted. Higher: surer. Lower: sooner.
const WINDOW: Duration = Duration::from_millis(250);

/// The same, as long as there are fewer than [`MIN_PACKETS`]: on a path that is very narrow.
const LONG_WINDOW: Duration = Duration::from_millis(1_000);

/// Fewer packets tell nothing.
const MIN_PACKETS: usize = 20;

/// The share that is lost.
const LOSS: f64 = 0.25;

/// No more than this part of what arrived is sent, so that the queue drains.
const PART: f64 = 0.65;

/// The same on a path so narrow that a smallest picture takes most of it: that is not to be given up for the queue's sake.
const NARROW_PART: f64 = 0.85;

/// For how long; then the controller has come down as well.
const MEMORY: Duration = Duration::from_millis(1_500);

/// Of so long, as many are counted together to tell whether the path drops what is too much without a queue.
const PERIOD: Duration = Duration::from_secs(1);

/// Periods in a row in which more was lost than arrived. Higher: such a path is overfilled for longer. Lower: losses in bursts are taken
/// for one.
const PERIODS: u32 = 2;

/// What has arrived of late, and what follows from it.
#[derive(Debug, Default)]
pub struct Overload {
    told: VecDeque<(Instant, usize, usize, usize)>,
    bound: Option<(u64, Instant)>,
    /// When the period began, what has arrived in it, and what was lost.
    period: Option<(Instant, usize, usize)>,
    halved: u32,
}

impl Overload {
    /// The peer has told of so many packets and bytes that arrived, and so many packets that did not; whether they queue.
    pub fn told(&mut self, now: Instant, arrived: usize, bytes: usize, lost: usize, queues: bool) {
        self.told.push_back((now, arrived, bytes, lost));
        let (begun, before_arrived, before_lost) = self.period.unwrap_or((now, 0, 0));
        let (all_arrived, all_lost) = (before_arrived + arrived, before_lost + lost);
        self.period = Some((begun, all_arrived, all_lost));
        if now.saturating_duration_since(begun) >= PERIOD {
            let is_halved = all_arrived + all_lost >= MIN_PACKETS && all_lost > all_arrived;
            self.halved = if is_halved { self.halved.saturating_add(1) } else { 0 };
            self.period = None;
        }
        let age = |at: Instant| now.saturating_duration_since(at);
        let mut sum = self.told.iter().fold((0, 0, 0), |sum, (_, arrived, bytes, lost)| {
            (sum.0 + arrived, sum.1 + bytes, sum.2 + lost)
        });
        while let Some((at, arrived, bytes, lost)) = self.told.front().copied() {
            let is_spare = sum.0 + sum.2 >= MIN_PACKETS + arrived + lost;
            if age(at) <= WINDOW || (age(at) <= LONG_WINDOW && !is_spare) {
                break;
            }
            self.told.pop_front();
            sum = (sum.0 - arrived, sum.1 - bytes, sum.2 - lost);
        }
        let packets = sum.0 + sum.2;
        if queues && packets >= MIN_PACKETS && sum.2 as f64 >= LOSS * packets as f64 {
            let time = self.told.front().map_or(WINDOW, |(at, ..)| age(*at).max(WINDOW));
            let part = if time > WINDOW { NARROW_PART } else { PART };
            let bps = sum.1 as f64 * 8.0 / time.as_secs_f64() * part;
            self.bound = Some((bps as u64, now));
        }
    }

    /// Whether more is lost than arrives, for longer than any burst of losses lasts: what is sent is too much, queue or not.
    pub fn is_policed(&self) -> bool {
        self.halved >= PERIODS
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
    fn a_path_that_drops_most_has_no_room_and_one_that_does_so_for_a_moment_may() {
        let start = Instant::now();
        for (seconds, expected) in [(1, false), (3, true)] {
            let mut overload = Overload::default();
            for number in 0..20 * seconds + 5 {
                let now = start + Duration::from_millis(50 * number);
                let is_bad = number < 20 * seconds;
                overload.told(
                    now,
                    if is_bad { 1 } else { 6 },
                    1_000,
                    if is_bad { 3 } else { 0 },
                    false,
                );
            }
            assert_eq!(overload.is_policed(), expected, "{seconds} s");
        }
    }

    #[test]
    fn few_packets_are_counted_for_longer() {
        let start = Instant::now();
        let mut overload = Overload::default();
        for number in 0..20 {
            let now = start + Duration::from_millis(100 * number);
            overload.told(now, 1, 1_250, 2, true);
        }
        // 1,250 bytes every 100 ms; those of seven tell enough.
        let bound = overload.bound(start + Duration::from_millis(1_900)).unwrap();
        assert!((75_000..=100_000).contains(&bound), "{bound}");
    }

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
