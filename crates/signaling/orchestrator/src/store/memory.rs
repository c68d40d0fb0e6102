//! The map in memory: for one process that may lose it, such as a development server.
//!
//! One lock around everything makes each method atomic. The clock is the process's (tokio's, so that tests can move it).
//! `map` is the map itself; this file is the trait around it.

mod map;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signalbox_protocol::canary::CanaryChange;
use signalbox_protocol::history::HistoryEntry;
use signalbox_protocol::node::{DrainNode, NodeLoad, NodeState, NodeView, RegisterNode, RoomDigest};
use signalbox_protocol::placement::{CloseRoom, RoomView};
use signalbox_protocol::{ClusterId, Epoch, NodeId, RoomName};
use tokio::time::Instant;

use super::canary::{CanaryState, NodeOutcomes, ShareChange};
use super::{
    Assignment, DrainNote, DrainRecord, Fenced, Look, Overdue, Placed, Proposal, Purged, Registration, Renewal,
    Retention, Store, Wanted,
};
use crate::Error;
use crate::brake::Brake;
use crate::placement::Candidate;
use map::Map;

/// The map in memory.
#[derive(Debug)]
pub struct MemoryStore {
    map: Mutex<Map>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self {
            map: Mutex::new(Map::new(Instant::now())),
        }
    }
}

impl MemoryStore {
    /// Another map, with what this one holds now: what a standby has when it is promoted. For simulations.
    pub fn fork(&self) -> Self {
        Self {
            map: Mutex::new(self.lock().clone()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Map> {
        // No method leaves the map half changed, so a panic elsewhere does not spoil it.
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    async fn open(&self) -> Result<ClusterId, Error> {
        Ok(self.lock().cluster)
    }

    async fn find(&self, room: &RoomName) -> Result<Option<Assignment>, Error> {
        Ok(self.lock().find(room))
    }

    async fn place(&self, proposal: Proposal, margin: Duration) -> Result<Placed, Error> {
        Ok(self.lock().place(proposal, margin, Instant::now()))
    }

    async fn hand_off(
        &self,
        owner: &CloseRoom,
        proposal: Proposal,
        margin: Duration,
    ) -> Result<Option<Assignment>, Error> {
        Ok(self.lock().hand_off(owner, proposal, margin, Instant::now()))
    }

    async fn wanted(&self, room: &RoomName, owner: &CloseRoom) -> Result<Option<Wanted>, Error> {
        Ok(self.lock().wanted(room, owner))
    }

    async fn close(&self, room: &RoomName, owner: &CloseRoom, by: &str) -> Result<bool, Error> {
        Ok(self.lock().close(room, owner, by, Instant::now()))
    }

    async fn occupied(&self, group: Option<&str>, avoid: &[String]) -> Result<BTreeSet<NodeId>, Error> {
        Ok(self.lock().occupied(group, avoid))
    }

    async fn register(&self, about: &RegisterNode, lease: Duration) -> Result<Registration, Error> {
        Ok(self.lock().register(about, lease, Instant::now()))
    }

    async fn renew(
        &self,
        node: NodeId,
        epoch: Epoch,
        beat: u64,
        load: NodeLoad,
        lease: Duration,
    ) -> Result<Renewal, Error> {
        Ok(self.lock().renew(node, epoch, beat, load, lease, Instant::now()))
    }

    async fn restore(
        &self,
        node: NodeId,
        epoch: Epoch,
        rooms: &[RoomDigest],
        by: &str,
    ) -> Result<Vec<RoomDigest>, Error> {
        Ok(self.lock().restore(node, epoch, rooms, by, Instant::now()))
    }

    async fn release(&self, node: NodeId, epoch: Epoch) -> Result<bool, Error> {
        Ok(self.lock().release(node, epoch, Instant::now()))
    }

    async fn set_state(&self, node: NodeId, state: NodeState) -> Result<Option<NodeState>, Error> {
        Ok(self.lock().set_state(node, state))
    }

    async fn eject(&self, node: NodeId, epoch: Epoch, base: Duration, share: f64) -> Result<bool, Error> {
        Ok(self.lock().eject(node, epoch, base, share, Instant::now()))
    }

    async fn look(&self, orchestrator: &str, recent: Duration) -> Result<Look, Error> {
        Ok(self.lock().look(orchestrator, recent, Instant::now()))
    }

    async fn overdue(&self) -> Result<Vec<Overdue>, Error> {
        Ok(self.lock().overdue(Instant::now()))
    }

    async fn fence_expired(&self, brake: &Brake, spared: &BTreeSet<NodeId>) -> Result<Fenced, Error> {
        Ok(self.lock().fence_expired(brake, spared, Instant::now()))
    }

    async fn begin_drain(&self, node: NodeId, how: &DrainNode) -> Result<Option<DrainRecord>, Error> {
        Ok(self.lock().begin_drain(node, how, Instant::now()))
    }

    async fn drain(&self, node: NodeId) -> Result<Option<DrainRecord>, Error> {
        Ok(self.lock().drain(node, Instant::now()))
    }

    async fn cancel_drain(&self, node: NodeId) -> Result<Option<DrainRecord>, Error> {
        Ok(self.lock().cancel_drain(node, Instant::now()))
    }

    async fn claim_drains(&self, orchestrator: &str, time: Duration) -> Result<Vec<DrainRecord>, Error> {
        Ok(self.lock().claim_drains(orchestrator, time, Instant::now()))
    }

    async fn note_drain(&self, note: &DrainNote<'_>) -> Result<bool, Error> {
        Ok(self.lock().note_drain(note, Instant::now()))
    }

    async fn canary(&self, window: Duration) -> Result<CanaryState, Error> {
        Ok(self.lock().canary(window, Instant::now()))
    }

    async fn canary_history(&self, limit: usize) -> Result<Vec<CanaryChange>, Error> {
        Ok(self.lock().canary_history(limit))
    }

    async fn set_canary(&self, change: &ShareChange<'_>) -> Result<bool, Error> {
        Ok(self.lock().set_canary(change, Instant::now()))
    }

    async fn note_outcomes(&self, outcomes: &[NodeOutcomes]) -> Result<(), Error> {
        self.lock().note_outcomes(outcomes, Instant::now());
        Ok(())
    }

    async fn forget_outcomes(&self, age: Duration) -> Result<u64, Error> {
        Ok(self.lock().forget_outcomes(age, Instant::now()))
    }

    async fn candidates(&self, margin: Duration) -> Result<Vec<Candidate>, Error> {
        Ok(self.lock().candidates(margin, Instant::now()))
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, Error> {
        Ok(self.lock().nodes(Instant::now()))
    }

    async fn rooms(
        &self,
        after: Option<&RoomName>,
        node: Option<NodeId>,
        limit: usize,
    ) -> Result<Vec<RoomView>, Error> {
        Ok(self.lock().rooms(after, node, limit))
    }

    async fn history(&self, room: &RoomName, limit: usize) -> Result<Option<(RoomView, Vec<HistoryEntry>)>, Error> {
        Ok(self.lock().history(room, limit))
    }

    async fn purge(&self, retention: &Retention, limit: usize) -> Result<Purged, Error> {
        Ok(self.lock().purge(retention, limit, Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Purged;
    use crate::store::contract::{self, LONG, MARGIN, new_node, proposal, register, room};

    async fn nothing(_: &MemoryStore) {}

    contract::suite!(Some(MemoryStore::default()), nothing);

    #[tokio::test(start_paused = true)]
    async fn a_room_that_was_just_orphaned_is_kept_however_old_it_is() {
        let store = MemoryStore::default();
        let (node, other, name) = (new_node(), new_node(), room("daily"));
        let epoch = register(&store, &node, LONG).await;
        store.place(proposal(&name, node.node), MARGIN).await.unwrap();
        let retention = Retention {
            rooms: LONG / 2,
            nodes: LONG,
            history: LONG,
        };
        tokio::time::advance(LONG - MARGIN).await;
        assert!(store.release(node.node, epoch).await.unwrap());
        assert_eq!(store.purge(&retention, 10).await.unwrap(), Purged::default());
        register(&store, &other, LONG).await;
        let Placed::New(next) = store.place(proposal(&name, other.node), MARGIN).await.unwrap() else {
            panic!("not placed")
        };
        assert_eq!(next.generation.0, 2, "its tickets of generation 1 are still about");
    }
}
