//! When a subscriber's track may get more than it has: what has happened to it so far.

use std::time::{Duration, Instant};

use super::{Budget, Layer, Standing};

/// How long something has to fit before it is given. Higher: good pictures come later. Lower: they come and go with each short peak of
/// the estimate.
const HOLD: Duration = Duration::from_millis(700);

/// The longest that something has to fit, after it was given several times and had to be taken back.
const MAX_HOLD: Duration = Duration::from_secs(4);

/// What has to be taken back within this time was given too early.
const FAILED_WITHIN: Duration = Duration::from_secs(5);

/// After this time without a failure, the next one counts as the first.
const FORGIVEN_AFTER: Duration = Duration::from_secs(20);

/// How long the lowest layer is sent on that has ceased to fit. Higher: a network that is really too narrow is crowded for longer. Lower:
/// pictures stand still when the estimate dips.
const HOLDS_OUT: Duration = Duration::from_secs(1);

/// What is wanted from now on needs not wait for so long: a viewer who comes gets the best soon.
const FRESH: Duration = Duration::from_secs(2);

/// What has happened to one track of one subscriber.
#[derive(Debug, Clone, Copy)]
pub struct History {
    standing: Standing,
    /// Since when there has been room for more.
    fits_since: Option<Instant>,
    /// Since when there has been no room for anything of it.
    lacks_since: Option<Instant>,
    /// Until when it needs not wait.
    fresh_until: Option<Instant>,
    hold: Duration,
    raised: Option<Instant>,
    failed: Option<Instant>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            standing: Standing::New,
            fits_since: None,
            lacks_since: None,
            fresh_until: None,
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

    /// The layer that it has.
    pub fn layer(&self) -> Option<Layer> {
        match self.standing {
            Standing::Given(layer) => Some(layer),
            Standing::New | Standing::Paused => None,
        }
    }

    /// Whether it is time for it to get more, given whether there is room for that now.
    pub fn may_rise(&mut self, now: Instant, fits: bool) -> bool {
        let fresh_until = *self.fresh_until.get_or_insert(now + FRESH);
        if self.standing == Standing::New {
            return true;
        }
        if !fits {
            self.fits_since = None;
            return false;
        }
        let since = *self.fits_since.get_or_insert(now);
        now < fresh_until || now.saturating_duration_since(since) >= self.hold
    }

    /// Whether it keeps the lowest layer though there is no room for that now.
    pub fn holds_out(&mut self, now: Instant, lacks_room: bool) -> bool {
        if !lacks_room {
            self.lacks_since = None;
            return false;
        }
        let since = *self.lacks_since.get_or_insert(now);
        self.layer().is_some() && now.saturating_duration_since(since) < HOLDS_OUT
    }

    /// It got this. None: nothing, because it does not fit.
    pub fn gave(&mut self, now: Instant, layer: Option<Layer>, budget: Budget) {
        let before = self.layer();
        if layer > before {
            // What is given before anything was measured is no mistake when it is taken back.
            self.raised = budget.bps.is_some().then_some(now);
        } else if layer < before {
            self.fits_since = None;
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
            self.fresh_until = Some(now);
        } else if !within(self.failed, FORGIVEN_AFTER) {
            self.hold = HOLD;
        }
    }

    /// It is wanted otherwise from now on.
    pub fn wanted_anew(&mut self) {
        *self = Self {
            standing: self.standing,
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

    const BUDGET: Budget = Budget {
        bps: Some(0),
        reserve: 0,
        never_pause: false,
    };

    #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    /// One that has been given the lowest layer for a long time.
    fn given() -> (History, Instant) {
        let (mut history, now) = (History::default(), start());
        assert!(history.may_rise(now, false), "what is new need not wait");
        history.gave(now, LOW, BUDGET);
        (history, now + FORGIVEN_AFTER)
    }

    /// How long there has to be room until it may rise, in steps of 100 ms.
    fn wait(history: &mut History, now: &mut Instant) -> u128 {
        let begin = *now;
        while !history.may_rise(*now, true) {
            *now += Duration::from_millis(100);
        }
        (*now - begin).as_millis()
    }

    #[test]
    fn what_is_given_has_to_fit_for_a_while() {
        let (mut history, mut now) = given();
        assert_eq!(wait(&mut history, &mut now), 700);
    }

    #[test]
    fn what_fits_now_and_then_does_not_count() {
        let (mut history, mut now) = given();
        for index in 0..100 {
            assert!(!history.may_rise(now, index % 5 != 4), "after {index} steps");
            now += Duration::from_millis(100);
        }
    }

    #[test]
    fn who_comes_need_not_wait_unless_it_was_too_early() {
        let (mut history, now) = (History::default(), start());
        history.may_rise(now, false);
        history.gave(now, LOW, BUDGET);
        let mut later = now + FRESH / 2;
        assert!(!history.may_rise(later, false));
        assert!(history.may_rise(later, true));
        history.gave(later, HIGH, BUDGET);
        history.gave(later, LOW, BUDGET);
        assert_eq!(wait(&mut history, &mut later), 1_400);
    }

    #[test]
    fn each_failure_makes_it_wait_longer_until_it_is_forgiven() {
        let (mut history, mut now) = given();
        let mut waits = Vec::new();
        for _ in 0..5 {
            waits.push(wait(&mut history, &mut now));
            history.gave(now, HIGH, BUDGET);
            now += Duration::from_secs(1);
            history.gave(now, LOW, BUDGET);
        }
        assert_eq!(waits, [700, 1_400, 2_800, 4_000, 4_000]);
        wait(&mut history, &mut now);
        history.gave(now, HIGH, BUDGET);
        now += FORGIVEN_AFTER;
        history.gave(now, LOW, BUDGET);
        assert_eq!(
            wait(&mut history, &mut now),
            700,
            "that it was kept for long is no failure"
        );
    }

    #[test]
    fn what_is_given_before_anything_is_measured_is_no_failure_when_it_is_taken_back() {
        let (mut history, mut now) = given();
        history.gave(now, HIGH, Budget { bps: None, ..BUDGET });
        history.gave(now, LOW, BUDGET);
        assert_eq!(wait(&mut history, &mut now), 700);
    }

    #[test]
    fn what_has_ceased_to_fit_holds_out_for_a_moment() {
        let (mut history, mut now) = given();
        for _ in 0..3 {
            assert!(!history.holds_out(now, false));
            assert!(history.holds_out(now, true));
            now += HOLDS_OUT - Duration::from_millis(1);
            assert!(history.holds_out(now, true));
        }
        now += Duration::from_millis(1);
        assert!(!history.holds_out(now, true));
        history.gave(now, None, BUDGET);
        assert!(!history.holds_out(now, false));
        assert!(!history.holds_out(now, true), "who is paused has nothing to hold on to");
    }

    #[test]
    fn what_is_wanted_more_need_not_wait() {
        let (mut history, now) = given();
        assert!(!history.may_rise(now, true));
        history.wanted_anew();
        assert!(history.may_rise(now, true));
    }
}
