//! Which orchestrator to ask: spread, retries and circuit breakers, as a pure state machine.
//!
//! **It opens no connection and reads no clock.** The time (since any fixed moment) and the random number generator are arguments, so that a seeded
//! simulation drives the same decisions as the gateway. Orchestrators are known by their index, 0 to `count - 1`.
//!
//! For each request call [`Upstreams::first`]; send it there, and say with [`Upstreams::finish`] how that ended; after a failure ask
//! [`Upstreams::retry`] for another one. Every [`Attempt`] has to be finished, also one that nobody waits for any more.
//!
//! - **Spread**: of two random orchestrators the one with fewer requests under way here (Mitzenmacher, "The Power of Two Choices in Randomized
//!   Load Balancing", 2001). One that hangs gathers requests and is avoided before its first timeout.
//! - **Retries**: on another orchestrator each, within a budget: 20% of the requests, and three per second in any case.
//! - **Breakers**: one per orchestrator, see [`BreakerState`]. One that is not closed is given nothing but its trials, with two exceptions: when
//!   no other one is left to ask, and on a retry when it is known to have what the others lack.

mod breaker;
mod budget;

use std::time::Duration;

use rand::{Rng, RngExt};

use self::breaker::Breaker;
pub use self::breaker::{FAILURES, OPEN_AT_MOST, OPEN_FOR};
use self::budget::Budget;

/// One request to one orchestrator, until it is given to [`Upstreams::finish`].
#[derive(Debug)]
#[must_use = "every attempt has to be finished"]
pub struct Attempt {
    upstream: usize,
    trial: bool,
}

impl Attempt {
    /// The index of the orchestrator to ask.
    pub fn upstream(&self) -> usize {
        self.upstream
    }

    /// Whether it decides if the orchestrator's breaker closes.
    pub fn is_trial(&self) -> bool {
        self.trial
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered, whatever the answer: also "no node can take the room".
    Success,
    /// No answer, one that makes no sense, or one that says that this orchestrator cannot answer at the moment.
    Failure,
    /// Nobody waited for the end.
    Abandoned,
}

/// Why there is no retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRetry {
    /// All were tried.
    AllTried,
    /// The budget is used up.
    Budget,
}

/// A breaker's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BreakerState {
    /// Requests go through.
    Closed,
    /// A trial is under way.
    HalfOpen,
    /// None go through.
    Open,
}

/// One orchestrator's figures. Those that count begin with the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamView {
    /// Its breaker.
    pub breaker: BreakerState,
    /// Requests under way.
    pub in_flight: u32,
    /// Requests sent, retries among them.
    pub requests: u64,
    /// Those that failed.
    pub failures: u64,
    /// Those that were retries.
    pub retries: u64,
}

#[derive(Debug)]
struct Upstream {
    breaker: Breaker,
    in_flight: u32,
    requests: u64,
    failures: u64,
    retries: u64,
}

/// All orchestrators. See the module.
#[derive(Debug)]
pub struct Upstreams {
    upstreams: Vec<Upstream>,
    budget: Budget,
    exhausted: u64,
}

impl Upstreams {
    /// So many orchestrators, of which nothing is known yet.
    pub fn new(count: usize) -> Self {
        let fresh = || Upstream {
            breaker: Breaker::CLOSED,
            in_flight: 0,
            requests: 0,
            failures: 0,
            retries: 0,
        };
        Self {
            upstreams: std::iter::repeat_with(fresh).take(count).collect(),
            budget: Budget::new(),
            exhausted: 0,
        }
    }

    /// Where to send a request; none only if there are no orchestrators at all. `prefer` is one that is known to be able to answer, and is
    /// asked unless others are to be trusted more: it is taken if its breaker is closed, or if nobody's is.
    pub fn first(&mut self, prefer: Option<usize>, now: Duration, rng: &mut impl Rng) -> Option<Attempt> {
        self.budget.pay_in(now);
        let preferred = prefer.filter(|&index| {
            self.upstreams
                .get(index)
                .is_some_and(|upstream| upstream.breaker.is_closed() || self.nobody_serves(now))
        });
        let chosen = preferred.or_else(|| self.choose(&[], now, rng))?;
        self.begin(chosen, now)
    }

    /// Where to send a request again that has failed on all of `tried`. `prefer` is one that is known to be able to answer; if it was not tried it is
    /// asked, whatever its breaker says.
    ///
    /// # Errors
    /// [`NoRetry`], and then nothing is drawn from the budget.
    pub fn retry(
        &mut self,
        tried: &[usize],
        prefer: Option<usize>,
        now: Duration,
        rng: &mut impl Rng,
    ) -> Result<Attempt, NoRetry> {
        let preferred = prefer.filter(|index| *index < self.upstreams.len() && !tried.contains(index));
        let chosen = preferred
            .or_else(|| self.choose(tried, now, rng))
            .ok_or(NoRetry::AllTried)?;
        if !self.budget.draw(now) {
            self.exhausted += 1;
            return Err(NoRetry::Budget);
        }
        let attempt = self.begin(chosen, now).ok_or(NoRetry::AllTried)?;
        if let Some(upstream) = self.upstreams.get_mut(chosen) {
            upstream.retries += 1;
        }
        Ok(attempt)
    }

    /// Notes how an attempt ended; returns the breaker's new state if it opened or closed by that.
    pub fn finish(&mut self, attempt: Attempt, outcome: Outcome, now: Duration) -> Option<BreakerState> {
        let upstream = self.upstreams.get_mut(attempt.upstream)?;
        let was_closed = upstream.breaker.is_closed();
        upstream.in_flight = upstream.in_flight.saturating_sub(1);
        match outcome {
            Outcome::Success => upstream.breaker.handle_success(),
            Outcome::Failure => {
                upstream.failures += 1;
                upstream.breaker.handle_failure(attempt.trial, now);
            }
            Outcome::Abandoned => upstream.breaker.handle_abandoned(attempt.trial, now),
        }
        match (was_closed, upstream.breaker.is_closed()) {
            (true, false) => Some(BreakerState::Open),
            (false, true) => Some(BreakerState::Closed),
            _ => None,
        }
    }

    /// Whether no orchestrator can be expected to answer, so that whoever has another way need not ask: all breakers are open, and no
    /// trial is due.
    pub fn nobody_serves(&self, now: Duration) -> bool {
        let serves = |upstream: &Upstream| upstream.breaker.is_closed() || upstream.breaker.is_due(now);
        !self.upstreams.iter().any(serves)
    }

    /// The figures of all, by index.
    pub fn views(&self) -> impl Iterator<Item = UpstreamView> {
        self.upstreams.iter().map(|upstream| UpstreamView {
            breaker: match upstream.breaker {
                Breaker::Closed { .. } => BreakerState::Closed,
                Breaker::HalfOpen { .. } => BreakerState::HalfOpen,
                Breaker::Open { .. } => BreakerState::Open,
            },
            in_flight: upstream.in_flight,
            requests: upstream.requests,
            failures: upstream.failures,
            retries: upstream.retries,
        })
    }

    /// How often a retry was refused because the budget was used up.
    pub fn budget_exhausted(&self) -> u64 {
        self.exhausted
    }

    /// One that a trial is due of; else the better of two random ones that are closed; else the one whose last failure is longest ago.
    fn choose(&self, tried: &[usize], now: Duration, rng: &mut impl Rng) -> Option<usize> {
        let untried = || {
            let all = self.upstreams.iter().enumerate();
            all.filter(|(index, _)| !tried.contains(index))
        };
        if let Some((due, _)) = untried().find(|(_, upstream)| upstream.breaker.is_due(now)) {
            return Some(due);
        }
        let closed: Vec<usize> = untried()
            .filter(|(_, upstream)| upstream.breaker.is_closed())
            .map(|(index, _)| index)
            .collect();
        match closed.as_slice() {
            [] => untried()
                .min_by_key(|(_, upstream)| upstream.breaker.failed_at())
                .map(|(index, _)| index),
            [only] => Some(*only),
            several => {
                let a = rng.random_range(0..several.len());
                // Another one than `a`, each with the same probability.
                let b = (a + rng.random_range(1..several.len())) % several.len();
                let in_flight = |at: usize| {
                    let index = several.get(at)?;
                    Some((self.upstreams.get(*index)?.in_flight, *index))
                };
                let (a, b) = (in_flight(a)?, in_flight(b)?);
                // Of equals the first, which is random.
                Some(if b.0 < a.0 { b.1 } else { a.1 })
            }
        }
    }

    fn begin(&mut self, index: usize, now: Duration) -> Option<Attempt> {
        let upstream = self.upstreams.get_mut(index)?;
        upstream.in_flight = upstream.in_flight.saturating_add(1);
        upstream.requests += 1;
        Some(Attempt {
            upstream: index,
            trial: upstream.breaker.begin_trial(now),
        })
    }
}

#[cfg(test)]
mod tests;
