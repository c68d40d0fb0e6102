//! A circuit breaker: spares one orchestrator the requests, and the requests the wait, while it fails.
//!
//! **Closed**: requests go through; [`FAILURES`] failures in a row open it. **Open**: none go through, until its time is over. Then one request
//! is let through as a **trial** (half-open): its success closes the breaker, its failure opens it again for twice as long. Whatever
//! else succeeds meanwhile closes it too: an answer is an answer.

use std::time::Duration;

/// How many failures in a row open the breaker. Higher: more requests fail before it does. Lower: a single hiccup makes an orchestrator
/// unused.
pub const FAILURES: u32 = 5;

/// How long it stays open the first time; it doubles with each trial that fails. Higher: an orchestrator that is back is used later.
/// Lower: more requests are spent on trials.
pub const OPEN_FOR: Duration = Duration::from_secs(10);

/// The longest time that it stays open. Higher: fewer trials, each of which is somebody's request, of an orchestrator that is gone for good. Lower:
/// it is used sooner when it comes back after all.
pub const OPEN_AT_MOST: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Breaker {
    Closed {
        /// In a row.
        failures: u32,
    },
    Open {
        until: Duration,
        /// For how long this time.
        pause: Duration,
        /// The last failure, whichever request's.
        failed_at: Duration,
    },
    HalfOpen {
        pause: Duration,
        failed_at: Duration,
    },
}

impl Breaker {
    pub(super) const CLOSED: Self = Self::Closed { failures: 0 };

    pub(super) fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }

    /// Whether a trial may begin.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        matches!(self, Self::Open { until, .. } if *until <= now)
    }

    /// When it failed last, as long as it is not closed.
    pub(super) fn failed_at(&self) -> Option<Duration> {
        match self {
            Self::Closed { .. } => None,
            Self::Open { failed_at, .. } | Self::HalfOpen { failed_at, .. } => Some(*failed_at),
        }
    }

    /// A trial begins, if one is due.
    pub(super) fn begin_trial(&mut self, now: Duration) -> bool {
        match *self {
            Self::Open {
                until,
                pause,
                failed_at,
            } if until <= now => {
                *self = Self::HalfOpen { pause, failed_at };
                true
            }
            _ => false,
        }
    }

    pub(super) fn handle_success(&mut self) {
        *self = Self::CLOSED;
    }

    /// A request failed; `trial`: the one that [`Breaker::begin_trial`] let through.
    pub(super) fn handle_failure(&mut self, trial: bool, now: Duration) {
        match self {
            Self::Closed { failures } if failures.saturating_add(1) < FAILURES => *failures += 1,
            Self::Closed { .. } => {
                *self = Self::Open {
                    until: now + OPEN_FOR,
                    pause: OPEN_FOR,
                    failed_at: now,
                }
            }
            Self::HalfOpen { pause, .. } if trial => {
                let pause = (*pause * 2).min(OPEN_AT_MOST);
                *self = Self::Open {
                    until: now + pause,
                    pause,
                    failed_at: now,
                };
            }
            // Sent before it opened, or because there was no other: its time goes on as it was.
            Self::Open { failed_at, .. } | Self::HalfOpen { failed_at, .. } => *failed_at = now,
        }
    }

    /// Nobody waited for a request's end. A trial then has shown nothing, and another one has to; but not at once: a caller that gave up may have
    /// done so because the orchestrator hangs.
    pub(super) fn handle_abandoned(&mut self, trial: bool, now: Duration) {
        if let Self::HalfOpen { pause, failed_at } = *self
            && trial
        {
            *self = Self::Open {
                until: now + pause,
                pause,
                failed_at,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Duration) -> Breaker {
        let mut breaker = Breaker::CLOSED;
        for _ in 0..FAILURES {
            assert!(breaker.is_closed());
            breaker.handle_failure(false, now);
        }
        assert!(!breaker.is_closed());
        breaker
    }

    #[test]
    fn failures_open_it_only_when_they_are_in_a_row() {
        let mut breaker = Breaker::CLOSED;
        for _ in 0..10 {
            for _ in 1..FAILURES {
                breaker.handle_failure(false, Duration::ZERO);
            }
            breaker.handle_success();
        }
        assert!(breaker.is_closed());
        opened(Duration::ZERO);
    }

    #[test]
    fn one_trial_is_let_through_when_its_time_is_over_and_its_success_closes_it() {
        let start = Duration::from_secs(7);
        let mut breaker = opened(start);
        let early = start + OPEN_FOR - Duration::from_nanos(1);
        assert!(!breaker.is_due(early) && !breaker.begin_trial(early));
        let due = start + OPEN_FOR;
        assert!(breaker.is_due(due) && breaker.begin_trial(due));
        assert!(!breaker.is_due(due + OPEN_AT_MOST) && !breaker.begin_trial(due + OPEN_AT_MOST));
        breaker.handle_success();
        assert_eq!(breaker, Breaker::CLOSED);
    }

    #[test]
    fn each_trial_that_fails_doubles_its_time_up_to_a_minute() {
        let mut now = Duration::ZERO;
        let mut breaker = opened(now);
        for seconds in [10, 20, 40, 60, 60] {
            let pause = Duration::from_secs(seconds);
            assert!(!breaker.is_due(now + pause - Duration::from_nanos(1)), "{seconds}");
            now += pause;
            assert!(breaker.begin_trial(now), "{seconds}");
            breaker.handle_failure(true, now);
        }
        assert!(breaker.begin_trial(now + OPEN_AT_MOST));
        breaker.handle_success();
        assert_eq!(breaker, Breaker::CLOSED, "and its time begins anew");
    }

    #[test]
    fn a_late_failure_does_not_end_the_trial_nor_put_it_off() {
        let mut breaker = opened(Duration::ZERO);
        breaker.handle_failure(false, OPEN_FOR / 2);
        assert_eq!(breaker.failed_at(), Some(OPEN_FOR / 2));
        assert!(breaker.begin_trial(OPEN_FOR));
        breaker.handle_failure(false, OPEN_FOR);
        assert!(
            !breaker.begin_trial(OPEN_FOR * 10),
            "the first trial is still under way"
        );
        breaker.handle_success();
        assert!(breaker.is_closed());
    }

    #[test]
    fn an_abandoned_trial_makes_room_for_another_one_later() {
        let mut breaker = opened(Duration::ZERO);
        assert!(breaker.begin_trial(OPEN_FOR));
        breaker.handle_abandoned(false, OPEN_FOR);
        assert!(
            !breaker.begin_trial(OPEN_FOR * 3),
            "another request's end is not the trial's"
        );
        breaker.handle_abandoned(true, OPEN_FOR);
        assert!(!breaker.begin_trial(OPEN_FOR));
        assert!(breaker.begin_trial(OPEN_FOR * 2));
    }
}
