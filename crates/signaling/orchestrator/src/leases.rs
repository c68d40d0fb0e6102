//! The steps of a heartbeat: renew the lease, or promise while that cannot be done, and compare the rooms.
//!
//! Owns how long the store may take for it: a node waits for the answer while its lease runs. It must not know HTTP.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signalbox_protocol::NodeId;
use signalbox_protocol::node::{Heartbeat, Renewed, RoomDigest};
use tokio::time::{Instant, timeout};

use crate::digests::Digests;
use crate::store::{Renewal, Store};
use crate::{Error, Service};

/// The share of a lease for which the store's answer to a renewal is waited for, and again for that to a comparison of
/// rooms. What is left must be enough for the node to try again. Higher: fewer promises while the database is slow. Lower:
/// more tries within a lease.
const PATIENCE: u32 = 4;

/// How heartbeats are treated.
#[derive(Debug)]
pub struct Leases {
    lease: Duration,
    digests: Mutex<Digests>,
}

/// What came of a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beat {
    /// The lease is extended, or a promise stands in for it.
    Renewed(Renewed),
    /// A later heartbeat came first.
    Past,
    /// The epoch is over.
    Over,
}

impl Leases {
    /// For leases of this length.
    pub fn new(lease: Duration) -> Self {
        Self {
            lease,
            digests: Mutex::default(),
        }
    }

    /// How long a lease holds.
    pub fn lease(&self) -> Duration {
        self.lease
    }
}

impl<S: Store> Service<S> {
    /// Treats a heartbeat of the node.
    ///
    /// Fails with an outage when the store is away and nothing may be promised.
    pub async fn beat(&self, node: NodeId, heartbeat: &Heartbeat) -> Result<Beat, Error> {
        let lease = self.leases.lease;
        let came = self.uptime();
        // Read before the store is asked: what is compared now may be compared with an older incarnation, never a newer.
        let incarnation = self.sight.borrow().incarnation.clone();
        let renewal = self
            .store
            .renew(node, heartbeat.epoch, heartbeat.beat, heartbeat.load, lease);
        let mut renewed = Renewed {
            lease_ms: millis(lease),
            promised: false,
            rooms_wanted: false,
            stale: Vec::new(),
        };
        match self.in_time(renewal).await {
            Ok(Renewal::Renewed) => {
                let connections = heartbeat.connections;
                let mut tallies = self.canary.tallies();
                tallies.beat(node, heartbeat.epoch, heartbeat.beat, connections);
            }
            Ok(Renewal::Past) => return Ok(Beat::Past),
            Ok(Renewal::Over) => {
                self.known_rooms().dead(node, heartbeat.epoch);
                return Ok(Beat::Over);
            }
            Err(error) if error.is_outage() && self.promise() => {
                tracing::debug!(%node, %error, "lease promised");
                if let Some(rooms) = &heartbeat.rooms {
                    self.known_rooms().confirm(node, heartbeat.epoch, rooms, came);
                }
                renewed.promised = true;
                // What they host now is compared as soon as the database is back; until then it keeps known rooms known.
                renewed.rooms_wanted = self
                    .digests()
                    .wanted(node, heartbeat.epoch, &incarnation, Instant::now());
                return Ok(Beat::Renewed(renewed));
            }
            Err(error) => return Err(error),
        }
        if let Some(rooms) = &heartbeat.rooms {
            renewed.stale = self.compare(node, heartbeat, rooms, &incarnation).await;
            let mut known_rooms = self.known_rooms();
            known_rooms.confirm(node, heartbeat.epoch, rooms, came);
            for stale in &renewed.stale {
                known_rooms.closed(&stale.room, stale.generation);
            }
        }
        renewed.rooms_wanted = self
            .digests()
            .wanted(node, heartbeat.epoch, &incarnation, Instant::now());
        Ok(Beat::Renewed(renewed))
    }

    /// Those of the rooms that the node must close. None when the store does not say: the lease is renewed all the same, and
    /// the rooms will be wanted again.
    async fn compare(
        &self,
        node: NodeId,
        heartbeat: &Heartbeat,
        rooms: &[RoomDigest],
        incarnation: &str,
    ) -> Vec<RoomDigest> {
        let restored = self.store.restore(node, heartbeat.epoch, rooms, &self.name);
        match self.in_time(restored).await {
            Ok(stale) => {
                self.digests()
                    .compared(node, heartbeat.epoch, incarnation, Instant::now());
                if !stale.is_empty() {
                    tracing::warn!(
                        %node,
                        epoch = %heartbeat.epoch,
                        rooms = rooms.len(),
                        stale = stale.len(),
                        first = %stale.first().map_or("", |stale| stale.room.as_str()),
                        "a node hosts rooms that are not its own; it is told to close them"
                    );
                }
                stale
            }
            Err(error) => {
                if !error.is_outage() {
                    tracing::error!(%node, %error, "a node's rooms cannot be compared with the map");
                }
                Vec::new()
            }
        }
    }

    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        timeout(self.leases.lease / PATIENCE, answer)
            .await
            .unwrap_or(Err(Error::Unanswered))
    }

    fn promise(&self) -> bool {
        let mut truce = self.truce.lock().unwrap_or_else(PoisonError::into_inner);
        truce.promise(Instant::now())
    }

    fn digests(&self) -> MutexGuard<'_, Digests> {
        self.leases.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whole milliseconds, as the wire has them.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
