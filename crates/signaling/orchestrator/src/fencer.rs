//! The background task that ends the epochs of nodes whose leases ran out.
//!
//! Every orchestrator runs one; the store sees to it that they do not add up. Owns the pace, asking the nodes first, and
//! what was seen of the map. It must not decide how many nodes are fenced: that is [`crate::brake`]; nor whether any may be:
//! that is [`crate::truce`].

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use signalbox_protocol::NodeId;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::brake::Brake;
use crate::known_rooms::KnownRooms;
use crate::probe::Prober;
use crate::store::{Fenced, Overdue, Store};
use crate::truce::Truce;

/// How long the store's answer is waited for. Longer than the database may take for a statement: a connection that is
/// dead without having been closed must not stop this task for good.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What the fencer saw of the map when it looked last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// Whether the store answered.
    pub reachable: bool,
    /// How many orchestrators work on the map, this one among them.
    pub orchestrators: usize,
    /// The store's incarnation; empty before the first look.
    pub incarnation: String,
}

impl Default for Sight {
    fn default() -> Self {
        Self {
            reachable: false,
            orchestrators: 1,
            incarnation: String::new(),
        }
    }
}

/// What the fencer works on.
pub struct Fencer<'a, S> {
    /// The room map.
    pub store: &'a S,
    /// This orchestrator's name.
    pub name: &'a str,
    /// How many may be fenced, and when.
    pub brake: Brake,
    /// How often it looks.
    pub interval: Duration,
    /// Whether any may be fenced.
    pub truce: &'a Mutex<Truce>,
    /// Asks the nodes.
    pub prober: &'a Prober,
    /// Forgets the rooms of those that were fenced.
    pub known_rooms: &'a Mutex<KnownRooms>,
    /// Who wants to know what was seen.
    pub sight: &'a watch::Sender<Sight>,
}

impl<S: Store> Fencer<'_, S> {
    /// Looks for leases that ran out every interval, until `shutdown`.
    ///
    /// Before a node is fenced it is asked: one that holds its epoch is spared. It lives on the promises of another
    /// orchestrator, or its next heartbeat is on its way.
    pub async fn run(&self, shutdown: CancellationToken) {
        // A fence that is given up half-way leaves the truce as it is, so that nothing is promised any more.
        shutdown.run_until_cancelled(self.rounds()).await;
    }

    async fn rounds(&self) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut held = 0;
        loop {
            ticks.tick().await;
            let result = self.round(&mut held).await;
            let reachable = !matches!(&result, Err(error) if error.is_outage());
            let mut was = reachable;
            self.sight.send_if_modified(|sight| {
                was = std::mem::replace(&mut sight.reachable, reachable);
                was != reachable
            });
            match result {
                Err(Error::NotReady) => {}
                Err(error) if was || !error.is_outage() => tracing::error!(%error, "leases cannot be looked after"),
                Ok(()) if !was => tracing::info!("the room map is reachable"),
                _ => {}
            }
        }
    }

    /// `held` is how many nodes the brake was last logged to hold; it is logged when it changes.
    async fn round(&self, held: &mut usize) -> Result<(), Error> {
        let began = Instant::now();
        let look = within(self.store.look(self.name, self.brake.lease)).await?;
        let now = Instant::now();
        let holds = {
            let mut truce = self.truce();
            truce.looked(began, now, &look.incarnation);
            truce.holds(now)
        };
        self.sight.send_if_modified(|sight| {
            let news = (sight.orchestrators, &sight.incarnation) != (look.orchestrators, &look.incarnation);
            if news && !sight.incarnation.is_empty() && sight.incarnation != look.incarnation {
                tracing::warn!("the database was restarted or another took its place; nobody is fenced for one lease");
            }
            sight.orchestrators = look.orchestrators;
            sight.incarnation.clone_from(&look.incarnation);
            news
        });
        if look.overdue == 0 {
            *held = 0;
        }
        if holds || look.overdue == 0 {
            return Ok(());
        }

        let began = Instant::now();
        let overdue = within(self.store.overdue()).await?;
        let spared = self.spared(&overdue).await;
        if spared.len() == overdue.len() {
            return Ok(());
        }
        let fenced = self.fence(began, &spared).await?;
        for (node, epoch) in &fenced.nodes {
            tracing::warn!(%node, %epoch, "node fenced: its lease ran out");
            let mut known_rooms = self.known_rooms.lock().unwrap_or_else(PoisonError::into_inner);
            known_rooms.dead(*node, *epoch);
        }
        if fenced.held > 0 && fenced.held != *held {
            tracing::warn!(
                held = fenced.held,
                "too many leases ran out together; their nodes are fenced one by one"
            );
            *held = fenced.held;
        }
        Ok(())
    }

    /// Those that answer that they hold their epoch. The prober bounds how many are asked at once, the store how many in all.
    async fn spared(&self, overdue: &[Overdue]) -> BTreeSet<NodeId> {
        let answers = join_all(overdue.iter().map(|node| self.is_held(node))).await;
        let spared = overdue.iter().zip(answers).filter(|(_, holds)| *holds);
        spared.map(|(node, _)| node.node).collect()
    }

    async fn is_held(&self, overdue: &Overdue) -> bool {
        let holds = self.prober.holds(overdue.node, overdue.epoch, &overdue.control).await;
        if holds {
            tracing::debug!(node = %overdue.node, epoch = %overdue.epoch, "node spared: it holds its epoch");
        }
        holds
    }

    /// Fences those that were overdue at `began`, when the nodes began to be asked, and are not spared.
    async fn fence(&self, began: Instant, spared: &BTreeSet<NodeId>) -> Result<Fenced, Error> {
        let now = Instant::now();
        if !self.truce().begin_fence(now) {
            return Ok(Fenced::default());
        }
        // Whose lease ran out since then was not asked: so much more grace excludes it.
        let brake = Brake {
            grace: self.brake.grace + (now - began),
            ..self.brake
        };
        let fenced = within(self.store.fence_expired(&brake, spared)).await;
        self.truce().end_fence(Instant::now(), fenced.is_ok());
        if let Err(error) = &fenced {
            tracing::warn!(%error, "it is not known whether nodes were fenced; nothing is promised until it is");
        }
        fenced
    }

    fn truce(&self) -> MutexGuard<'_, Truce> {
        self.truce.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn within<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(PATIENCE, answer).await.unwrap_or(Err(Error::Unanswered))
}

#[cfg(test)]
mod tests;
