//! When this orchestrator may fence, and when it may promise not to, pure.
//!
//! While the database is away no lease can be renewed there. So that calls go on, an orchestrator may answer a heartbeat
//! with a promise: nobody is fenced by it for as long as a lease. Owns these promises, and the other reasons to hold a
//! fence back. It must not know the store, nor read a clock: `now` is an argument.
//!
//! **A promise and a fence exclude each other.** No fence begins before the last promise is over, and no promise is
//! given while a fence may still be carried out.

use std::time::Duration;

use tokio::time::Instant;

use crate::brake::Brake;

/// For how long a statement may still be carried out by the database after its answer was lost. PostgreSQL ends ours after
/// five seconds. Higher: after a fence that failed there are no promises for longer. Lower: a fence could overtake a
/// promise that was given after it.
pub const LINGER: Duration = Duration::from_secs(10);

/// See the module's documentation.
#[derive(Debug)]
pub struct Truce {
    brake: Brake,
    /// So long between two looks is an absence.
    absence: Duration,
    last_look: Option<Instant>,
    incarnation: Option<String>,
    held_until: Option<Instant>,
    fence_under_way: bool,
    /// When a fence failed last; it may have been carried out, or still be.
    in_doubt: Option<Instant>,
}

impl Truce {
    /// A truce before the first look. `interval` is the time between two looks when all is well.
    pub fn new(brake: Brake, interval: Duration) -> Self {
        Self {
            brake,
            absence: interval + brake.lease / 2,
            last_look: None,
            incarnation: None,
            held_until: None,
            fence_under_way: false,
            in_doubt: None,
        }
    }

    /// Promises that nobody is fenced for a lease from `now`, and says whether it does. Not while a fence is under way, nor
    /// after one whose outcome is not known.
    pub fn promise(&mut self, now: Instant) -> bool {
        if self.fence_under_way || self.in_doubt.is_some() {
            return false;
        }
        // The grace covers that the node's clock may run a little slower.
        self.hold(now, self.brake.lease + self.brake.grace);
        true
    }

    /// Notes a look that began at `began` and has succeeded at `now`, and what it saw.
    ///
    /// After the first one, after an absence, and in another incarnation of the store nobody is fenced for one lease: what
    /// kept this orchestrator from the store may have kept the nodes from it, and they come back on their own.
    pub fn looked(&mut self, began: Instant, now: Instant, incarnation: &str) {
        let absent = self.last_look.is_none_or(|last| now - last > self.absence);
        let changed = self.incarnation.as_deref() != Some(incarnation);
        if absent || changed {
            self.hold(now, self.brake.lease);
        }
        if changed {
            self.incarnation = Some(incarnation.to_owned());
        }
        self.last_look = Some(now);
        if self.in_doubt.is_some_and(|since| began >= since + LINGER) {
            self.in_doubt = None;
        }
    }

    /// Whether nobody may be fenced at this time.
    pub fn holds(&self, now: Instant) -> bool {
        self.held_until.is_none_or(|until| now < until)
    }

    /// Begins a fence, unless the truce holds; then it is false and nobody may be fenced. [`Truce::end_fence`] must follow.
    pub fn begin_fence(&mut self, now: Instant) -> bool {
        if self.holds(now) {
            return false;
        }
        self.fence_under_way = true;
        true
    }

    /// The fence that was begun has ended; `known`: the store answered what came of it.
    pub fn end_fence(&mut self, now: Instant, known: bool) {
        self.fence_under_way = false;
        if !known {
            self.in_doubt = Some(now);
        }
    }

    fn hold(&mut self, now: Instant, time: Duration) {
        self.held_until = self.held_until.max(Some(now + time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRAKE: Brake = Brake {
        lease: Duration::from_secs(2),
        grace: Duration::from_millis(250),
    };

    enum Step {
        Look(&'static str),
        /// A look that began so many milliseconds ago.
        SlowLook(u64),
        Promise(bool),
        Begin(bool),
        End(bool),
    }
    use Step::{Begin, End, Look, Promise, SlowLook};

    /// Takes the steps, each at its time in milliseconds.
    fn run(steps: &[(u64, Step)]) {
        let start = Instant::now();
        let mut truce = Truce::new(BRAKE, Duration::from_millis(500));
        for (ms, step) in steps {
            let now = start + Duration::from_millis(*ms);
            match step {
                Look(incarnation) => truce.looked(now, now, incarnation),
                SlowLook(ago) => truce.looked(now - Duration::from_millis(*ago), now, "a"),
                Promise(given) => assert_eq!(truce.promise(now), *given, "promise at {ms} ms"),
                Begin(permitted) => assert_eq!(truce.begin_fence(now), *permitted, "fence at {ms} ms"),
                End(known) => truce.end_fence(now, *known),
            }
        }
    }

    fn looks(from_ms: u64, to_ms: u64) -> impl Iterator<Item = (u64, Step)> {
        (from_ms..to_ms).step_by(500).map(|ms| (ms, Look("a")))
    }

    #[test]
    fn it_holds_before_the_first_look_and_for_a_lease_after_it() {
        run(&[(0, Begin(false)), (60_000, Begin(false))]);
        run(&[
            (0, Look("a")),
            (500, Look("a")),
            (1999, Begin(false)),
            (2000, Begin(true)),
        ]);
    }

    #[test]
    fn it_holds_for_a_lease_after_an_absence() {
        let mut steps: Vec<_> = looks(0, 2500).collect();
        steps.extend([(2000, Begin(true)), (2001, End(true)), (5000, Look("a"))]);
        steps.extend([(5000, Begin(false)), (6999, Begin(false)), (7000, Begin(true))]);
        run(&steps);
    }

    #[test]
    fn it_holds_for_a_lease_after_another_incarnation_was_seen() {
        let mut steps: Vec<_> = looks(0, 3000).collect();
        steps.extend([
            (3000, Look("b")),
            (3500, Look("b")),
            (4999, Begin(false)),
            (5000, Begin(true)),
        ]);
        run(&steps);
    }

    #[test]
    fn it_holds_as_long_as_a_promise_binds() {
        let mut steps: Vec<_> = looks(0, 3000).collect();
        steps.extend([(3000, Promise(true)), (3100, Promise(true))]);
        steps.extend([(5349, Begin(false)), (5350, Begin(true))]);
        run(&steps);
        // It can be kept without having seen the store, so it can be given.
        run(&[
            (0, Promise(true)),
            (100, Look("a")),
            (2249, Begin(false)),
            (2250, Begin(true)),
        ]);
    }

    #[test]
    fn a_shorter_hold_does_not_cut_a_longer_one() {
        run(&[(0, Promise(true)), (1, Look("a")), (2100, Begin(false))]);
    }

    #[test]
    fn nothing_is_promised_while_a_fence_is_under_way() {
        let mut steps: Vec<_> = looks(0, 2500).collect();
        steps.extend([
            (2500, Begin(true)),
            (2600, Promise(false)),
            (2700, End(true)),
            (2701, Promise(true)),
        ]);
        run(&steps);
    }

    #[test]
    fn nothing_is_promised_after_a_fence_in_doubt_until_a_look_that_began_after_it_can_have_ended() {
        let mut steps: Vec<_> = looks(0, 2500).collect();
        steps.extend([(2500, Begin(true)), (2600, End(false)), (2700, Promise(false))]);
        steps.extend([(3000, Look("a")), (3001, Promise(false))]);
        steps.extend([(12_700, SlowLook(500)), (12_701, Promise(false))]);
        steps.extend([(12_800, Look("a")), (12_801, Promise(true))]);
        run(&steps);
    }

    #[test]
    fn a_later_fence_does_not_end_the_doubt() {
        // While the first one is carried out, the second one may return without having waited for it.
        let mut steps: Vec<_> = looks(0, 2500).collect();
        steps.extend([
            (2500, Begin(true)),
            (2600, End(false)),
            (3000, Begin(true)),
            (3100, End(true)),
        ]);
        steps.push((3200, Promise(false)));
        run(&steps);
    }
}
