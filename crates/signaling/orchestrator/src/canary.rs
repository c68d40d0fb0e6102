//! The canary share while the cluster runs: what it is, who may change it, and when it is taken back.
//!
//! The map holds the share and what was counted under it; every orchestrator looks at both twice a second, tells the map what it was told since, and takes
//! the share back when [`comparison`] says that canary nodes do worse. Owns the pace. It must not know HTTP or SQL.

pub mod comparison;
pub mod tallies;

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signalbox_protocol::canary::{CanaryVerdict, ChangedBy, Compared, Comparison, Outcomes, Tally};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::store::Store;
use crate::store::canary::{CanaryState, ShareChange};
use crate::{Error, Service};
use comparison::{LEVEL, share_failed};
use tallies::Tallies;

/// How often the map is looked at. Higher: fewer statements. Lower: a change that another orchestrator was asked for counts here sooner.
pub const LOOK: Duration = Duration::from_millis(500);

/// How often both tracks are compared. Higher: a bad version is withdrawn later. Lower: more comparisons that may err; see [`comparison`].
pub const COMPARE: Duration = Duration::from_secs(5);

/// How far back outcomes count, if the share has not been changed since. Higher: smaller differences come to light. Lower: a version that
/// begins to fail after hours is found sooner, since less that went well stands beside it.
pub const WINDOW: Duration = Duration::from_secs(600);

/// How often a change is tried while others change the share too.
const TRIES: usize = 8;

/// The canary share as this orchestrator knows it.
#[derive(Debug)]
pub struct CanaryShare {
    configured: f64,
    seen: Mutex<Seen>,
    tallies: Mutex<Tallies>,
    rollbacks: AtomicU64,
}

#[derive(Debug, Default)]
struct Seen {
    /// When the look began.
    began: Option<Instant>,
    state: CanaryState,
}

impl CanaryShare {
    /// What counts until somebody sets another.
    pub fn new(configured: f64) -> Self {
        Self {
            configured,
            seen: Mutex::default(),
            tallies: Mutex::default(),
            rollbacks: AtomicU64::new(0),
        }
    }

    /// What was seen of it last.
    pub fn seen(&self) -> CanaryState {
        self.lock().state.clone()
    }

    /// The share that counts by what the map says.
    pub fn of(&self, state: &CanaryState) -> f64 {
        state.last.as_ref().map_or(self.configured, |last| last.to)
    }

    /// What was told and is not in the map yet.
    pub fn tallies(&self) -> MutexGuard<'_, Tallies> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often this orchestrator has taken the share back since it was made.
    pub fn rollbacks(&self) -> u64 {
        self.rollbacks.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows the share, counts outcomes, and takes the share back if it must be, until `shutdown`.
pub async fn run<S: Store>(service: &Service<S>, shutdown: CancellationToken) {
    let rounds = async {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut compared = Instant::now();
        loop {
            ticks.tick().await;
            let compare = compared.elapsed() >= COMPARE;
            if compare {
                compared = Instant::now();
            }
            if let Err(error) = service.tend_canary(compare).await
                && !error.is_outage()
            {
                // The fencer tells of outages.
                tracing::error!(%error, "the canary share cannot be looked after");
            }
        }
    };
    shutdown.run_until_cancelled(rounds).await;
}

impl<S: Store> Service<S> {
    /// The share as the map has it now, which counts here from now on.
    pub async fn look_at_canary(&self) -> Result<CanaryState, Error> {
        let began = Instant::now();
        let state = self.store.canary(WINDOW).await?;
        self.follow(began, &state);
        Ok(state)
    }

    /// Sets the share for an operator.
    ///
    /// Fails with [`Error::Unanswered`] if others change it all the time.
    pub async fn set_canary_share(&self, share: f64, why: &str) -> Result<CanaryState, Error> {
        for _ in 0..TRIES {
            let state = self.look_at_canary().await?;
            let change = ShareChange {
                after: state.version,
                from: self.canary.of(&state),
                to: share,
                by: ChangedBy::Operator,
                why,
            };
            if self.store.set_canary(&change).await? {
                tracing::info!(from = change.from, to = share, why, "an operator set the canary share");
                return self.look_at_canary().await;
            }
        }
        Err(Error::Unanswered)
    }

    async fn tend_canary(&self, compare: bool) -> Result<(), Error> {
        let told = self.canary.tallies().take();
        if !told.is_empty() {
            self.store.note_outcomes(&told).await?;
        }
        let state = self.look_at_canary().await?;
        if compare && self.canary.of(&state) > 0.0 {
            self.take_back_if_worse(&state).await?;
        }
        Ok(())
    }

    async fn take_back_if_worse(&self, state: &CanaryState) -> Result<(), Error> {
        let verdict = comparison::verdict(&state.stable, &state.canary);
        let Some(why) = why_worse(&verdict, &state.stable, &state.canary) else {
            return Ok(());
        };
        let change = ShareChange {
            after: state.version,
            from: self.canary.of(state),
            to: 0.0,
            by: ChangedBy::Rollback,
            why: &why,
        };
        if self.store.set_canary(&change).await? {
            self.canary.rollbacks.fetch_add(1, Ordering::Relaxed);
            tracing::error!(from = change.from, why, "the canary share was taken back");
        }
        self.look_at_canary().await.map(drop)
    }

    /// Takes in what was seen by a look that began at `began`. An answer that another look has overtaken counts for nothing.
    fn follow(&self, began: Instant, state: &CanaryState) {
        let mut seen = self.canary.lock();
        if seen.began.is_some_and(|latest| latest > began) {
            return;
        }
        let is_news = seen.state.version != state.version;
        *seen = Seen {
            began: Some(began),
            state: state.clone(),
        };
        let share = self.canary.of(state);
        if is_news {
            let by = state.last.as_ref().map(|last| last.by);
            tracing::info!(share, ?by, "the canary share is another one");
        }
        self.placer.set_canary_share(share);
    }
}

/// Why the share is to be taken back, with figures; none: it is not.
fn why_worse(verdict: &CanaryVerdict, stable: &Outcomes, canary: &Outcomes) -> Option<String> {
    let mut why = String::new();
    let mut say = |what: &str, comparison: &Comparison, stable: Tally, canary: Tally| {
        if comparison.result != Compared::Worse {
            return;
        }
        let and = if why.is_empty() { "" } else { "; " };
        let percent = |tally| 100.0 * share_failed(tally);
        // Writing to a `String` cannot fail.
        let _ = write!(
            why,
            "{and}of {} {what} on canary nodes {} failed ({:.1}%), on stable nodes {} of {} ({:.1}%); p = {:.1e} < {LEVEL:.0e}",
            canary.all(),
            canary.failed,
            percent(canary),
            stable.failed,
            stable.all(),
            percent(stable),
            comparison.p.unwrap_or_default()
        );
    };
    say("joins", &verdict.joins, stable.joins, canary.joins);
    say(
        "connections",
        &verdict.connections,
        stable.connections,
        canary.connections,
    );
    (!why.is_empty()).then_some(why)
}

#[cfg(test)]
mod tests;
