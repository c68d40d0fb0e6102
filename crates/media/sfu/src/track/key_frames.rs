//! When key frames of one stream are asked for.

use std::time::{Duration, Instant};

/// The shortest time between the request that a key frame answered and the next one. Publishers with libwebrtc heed none before (its encoder's
/// least interval between key frames). Higher: whoever waits for a picture waits longer. Lower: the publisher spends its bit rate on key frames.
const INTERVAL: Duration = Duration::from_millis(300);

/// When one is asked for again of which nothing has come: the request may be lost, and so may the key frame's first packet. Higher: a loss costs
/// pictures. Lower: a publisher at the end of a long path, which heeds every request, makes more than one.
const RETRY: Duration = Duration::from_millis(100);

/// The same of a picture that came at another node until now: its publisher may have heeded a request of that one a moment ago, and then heeds no
/// other for [`INTERVAL`]. Higher: it stands still longer. Lower: requests for nothing.
const RETRY_OF_MOVED: Duration = Duration::from_millis(40);

/// After so many requests for nothing the next ones come at [`INTERVAL`]: nobody sends the stream.
const QUICK_TRIES: u32 = 5;

/// What is known of a stream's key frames.
#[derive(Debug, Default)]
pub struct KeyFrames {
    /// It came at another node, and has had no key frame here.
    is_from_elsewhere: bool,
    /// Somebody has lost its picture, and there has been no key frame since.
    is_wanted: bool,
    came: Option<Instant>,
    asked: Option<Instant>,
    /// How often one was asked for since the last one came.
    tries: u32,
}

impl KeyFrames {
    /// The stream came at another node until now.
    pub fn go_on_from_elsewhere(&mut self) {
        self.is_from_elsewhere = true;
    }

    /// One arrives.
    pub fn came(&mut self, now: Instant) {
        self.came = Some(now);
        self.is_wanted = false;
        self.is_from_elsewhere = false;
        self.tries = 0;
    }

    /// Somebody has lost its picture, who is so far away. What it says may be of the time before the last key frame got there.
    pub fn want(&mut self, now: Instant, round_trip: Duration) {
        let is_answered = self
            .came
            .is_some_and(|came| now.saturating_duration_since(came) < round_trip);
        self.is_wanted |= !is_answered;
    }

    /// Whether one is still to be had for whoever lost its picture.
    pub fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// Whether it is time to ask for one, for whoever waits.
    pub fn is_time(&self, now: Instant) -> bool {
        let interval = match (self.tries, self.is_from_elsewhere) {
            (0, _) | (QUICK_TRIES.., _) => INTERVAL,
            (_, false) => RETRY,
            (_, true) => RETRY_OF_MOVED,
        };
        self.asked
            .is_none_or(|asked| now.saturating_duration_since(asked) >= interval)
    }

    /// One was asked for.
    pub fn asked(&mut self, now: Instant) {
        self.asked = Some(now);
        self.tries = self.tries.saturating_add(1);
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// When one is asked for, from `begin` to `end` in steps of 10 ms.
    fn asked(frames: &mut KeyFrames, start: Instant, begin: u64, end: u64) -> Vec<u64> {
        let times = (begin..end).step_by(10);
        let asks = times.filter(|at| {
            let now = start + ms(*at);
            let is_time = frames.is_time(now);
            if is_time {
                frames.asked(now);
            }
            is_time
        });
        asks.collect()
    }

    #[test]
    fn one_that_does_not_come_is_asked_for_again_soon_and_later_not_so_often() {
        let (mut frames, start) = (KeyFrames::default(), Instant::now());
        assert_eq!(asked(&mut frames, start, 0, 1_100), [0, 100, 200, 300, 400, 700, 1_000]);
        let mut frames = KeyFrames::default();
        frames.go_on_from_elsewhere();
        assert_eq!(asked(&mut frames, start, 0, 500), [0, 40, 80, 120, 160, 460]);
    }

    #[test]
    fn after_one_that_came_the_next_is_asked_for_when_the_publisher_heeds_it() {
        let (mut frames, start) = (KeyFrames::default(), Instant::now());
        assert_eq!(asked(&mut frames, start, 0, 110), [0, 100]);
        frames.came(start + ms(150));
        assert_eq!(asked(&mut frames, start, 150, 550), [400, 500]);
    }

    #[test]
    fn who_asks_before_one_can_have_got_there_has_been_answered() {
        let (mut frames, start) = (KeyFrames::default(), Instant::now());
        frames.want(start, ms(50));
        assert!(frames.is_wanted());
        frames.came(start + ms(10));
        assert!(!frames.is_wanted());
        frames.want(start + ms(59), ms(50));
        assert!(!frames.is_wanted());
        frames.want(start + ms(60), ms(50));
        frames.asked(start + ms(60));
        assert!(frames.is_wanted(), "until it has come");
        frames.came(start + ms(100));
        assert!(!frames.is_wanted());
    }
}
