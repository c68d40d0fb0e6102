//! A fall of the controller's estimate that nothing but a burst has caused: a key frame waits for a moment where the path is narrowest, which
//! looks like too much, and the controller falls to what arrived of late, which was little only because little was sent. When it does
//! so, the queue has drained already. Such a fall is not believed until a probe has told.

use std::time::{Duration, Instant};

/// The part of the estimate that has to be left for a fall to be none.
const FALL: f64 = 0.75;

/// The part of what was believed before that is believed meanwhile.
const PART: f64 = 0.9;

/// For how long: a probe, a round trip, and the time until it is told of. Higher: a path that is narrower, and has no queue to tell by,
/// is filled up for longer. Lower: where a round trip is long, the probe comes too late.
const PATIENCE: Duration = Duration::from_millis(600);

/// After a fall that was doubted, the next one is believed for so long. Higher: a second burst costs a layer. Lower: on a path that
/// drops what is too much, and has no queue, falls are believed later.
const PAUSE: Duration = Duration::from_secs(3);

/// What is doubted.
#[derive(Debug, Default)]
pub struct Doubt {
    held: Option<(u64, Instant)>,
}

impl Doubt {
    /// The estimate has changed, while nothing queues and nothing to speak of is lost, or not. Returns a rate to probe for.
    pub fn changed(&mut self, now: Instant, before: u64, after: u64, is_clear: bool) -> Option<u64> {
        let is_fall = (after as f64) < before as f64 * FALL;
        let may_doubt = self
            .held
            .is_none_or(|(_, since)| now.saturating_duration_since(since) >= PAUSE);
        if !is_fall || !is_clear || !may_doubt {
            return None;
        }
        self.held = Some(((before as f64 * PART) as u64, now));
        Some(before)
    }

    /// There is a queue after all, or losses.
    pub fn refuted(&mut self, now: Instant) {
        if self.held(now).is_some() {
            self.held = self.held.map(|(_, since)| (0, since));
        }
    }

    /// What is believed at least.
    pub fn held(&self, now: Instant) -> Option<u64> {
        let (bps, since) = self.held?;
        (now.saturating_duration_since(since) < PATIENCE).then_some(bps)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;

    #[test]
    fn a_fall_without_a_queue_is_believed_later_and_the_next_one_at_once() {
        let now = Instant::now();
        let mut doubt = Doubt::default();
        assert_eq!(doubt.changed(now, 1_000_000, 800_000, true), None, "a small one");
        assert_eq!(doubt.changed(now, 1_000_000, 500_000, false), None, "there is a queue");
        assert_eq!(doubt.held(now), None);
        assert_eq!(doubt.changed(now, 1_000_000, 500_000, true), Some(1_000_000));
        assert_eq!(doubt.held(now), Some(900_000));
        let later = now + PATIENCE;
        assert_eq!(doubt.held(later), None);
        assert_eq!(doubt.changed(later, 1_000_000, 500_000, true), None);
        assert!(doubt.changed(now + PAUSE, 1_000_000, 500_000, true).is_some());
    }

    #[test]
    fn it_is_believed_at_once_when_a_queue_shows_after_all() {
        let now = Instant::now();
        let mut doubt = Doubt::default();
        doubt.changed(now, 1_000_000, 500_000, true);
        doubt.refuted(now);
        assert_eq!(doubt.held(now), Some(0));
        assert_eq!(doubt.changed(now, 1_000_000, 500_000, true), None);
    }
}
