//! When a subscriber's track may get more than it has: what has happened to it so far.

use std::time::{Duration, Instant};

use super::{Layer, Standing};

/// How long something has to fit before it is given. Higher: good pictures come later. Lower: they come and go with each short peak of
/// the estimate.
const HOLD: Duration = Duration::from_millis(700);

/// The longest that something has to fit, after it was given several times and had to be taken back.
const MAX_HOLD: Duration = Duration::from_secs(4);

/// What has to be taken back within this time was given too early.
const FAILED_WITHIN: Duration = Duration::from_secs(5);

/// After this time without a failure, the next one counts as the first.
const FORGIVEN_AFTER: Duration = Duration::from_secs(20);

/// What has happened to one track of one subscriber.
#[derive(Debug, Clone, Copy)]
pub struct History {
    standing: Standing,
    /// Since when there has been room for more.
    fits_since: Option<Instant>,
    hold: Duration,
    raised: Option<Instant>,
    failed: Option<Instant>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            standing: Standing::New,
            fits_since: None,
            hold: HOLD,
            raised: None,
            failed: None,
        }
    }
}

impl History {
    /// What it has.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether it is time for it to get more, given whether there is room for that now.
    pub fn may_rise(&mut self, now: Instant, fits: bool) -> bool {
        if !fits {
            self.fits_since = None;
            self.hold = self.hold.max(HOLD);
            return self.standing == Standing::New;
        }
        let since = *self.fits_since.get_or_insert(now);
        self.standing == Standing::New || now.saturating_duration_since(since) >= self.hold
    }

    /// It got this. None: nothing, because it does not fit.
    pub fn gave(&mut self, now: Instant, layer: Option<Layer>) {
        let before = match self.standing {
            Standing::Given(layer) => Some(layer),
            Standing::New | Standing::Paused => None,
        };
        if layer > before {
            self.raised = Some(now);
            self.fits_since = None;
            self.hold = self.hold.max(HOLD);
        } else if layer < before {
            self.lowered(now);
        }
        self.standing = layer.map_or(Standing::Paused, Standing::Given);
    }

    fn lowered(&mut self, now: Instant) {
        let within = |since: Option<Instant>, time| since.is_some_and(|at| now.saturating_duration_since(at) < time);
        if within(self.raised.take(), FAILED_WITHIN) {
            self.hold = if within(self.failed, FORGIVEN_AFTER) {
                (self.hold * 2).min(MAX_HOLD)
            } else {
                HOLD * 2
            };
            self.failed = Some(now);
        } else if !within(self.failed, FORGIVEN_AFTER) {
            self.hold = HOLD;
        }
    }

    /// It is wanted otherwise from now on. If there is room for more at once, it needs not wait.
    pub fn wanted_anew(&mut self) {
        *self = Self {
            standing: self.standing,
            hold: Duration::ZERO,
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: Option<Layer> = Some(Layer {
        spatial: 0,
        temporal: 0,
    });
    const HIGH: Option<Layer> = Some(Layer {
        spatial: 2,
        temporal: 0,
    });

    /// How long there has to be room until it may rise, in steps of 100 ms.
    fn wait(history: &mut History, now: &mut Instant) -> Duration {
        let begin = *now;
        while !history.may_rise(*now, true) {
            *now += Duration::from_millis(100);
        }
        *now - begin
    }

    #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn what_is_new_need_not_wait_and_what_is_given_has_to() {
        let (mut history, mut now) = (History::default(), start());
        assert!(history.may_rise(now, false));
        history.gave(now, LOW);
        assert!(!history.may_rise(now, true));
        assert_eq!(wait(&mut history, &mut now), HOLD);
    }

    #[test]
    fn what_fits_now_and_then_does_not_count() {
        let (mut history, mut now) = (History::default(), start());
        history.gave(now, LOW);
        for index in 0..100 {
            assert!(!history.may_rise(now, index % 5 != 4), "after {index} steps");
            now += Duration::from_millis(100);
        }
    }

    #[test]
    fn each_failure_makes_it_wait_longer_until_it_is_forgiven() {
        let (mut history, mut now) = (History::default(), start());
        history.gave(now, LOW);
        let mut waits = Vec::new();
        for _ in 0..5 {
            waits.push(wait(&mut history, &mut now).as_millis());
            history.gave(now, HIGH);
            now += Duration::from_secs(1);
            history.gave(now, LOW);
        }
        assert_eq!(waits, [700, 1_400, 2_800, 4_000, 4_000]);
        wait(&mut history, &mut now);
        history.gave(now, HIGH);
        now += FORGIVEN_AFTER;
        history.gave(now, LOW);
        assert_eq!(
            wait(&mut history, &mut now),
            HOLD,
            "that it was kept for long is no failure"
        );
    }

    #[test]
    fn what_is_wanted_more_need_not_wait() {
        let (mut history, mut now) = (History::default(), start());
        history.gave(now, LOW);
        history.wanted_anew();
        assert!(history.may_rise(now, true));
        history.gave(now, HIGH);
        history.gave(now, LOW);
        assert!(wait(&mut history, &mut now) >= HOLD);
        history.wanted_anew();
        assert!(!history.may_rise(now, false));
        assert_eq!(
            wait(&mut history, &mut now),
            HOLD,
            "if there is no room at once, it has to"
        );
    }
}
