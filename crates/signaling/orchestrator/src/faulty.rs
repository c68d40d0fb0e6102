//! A map in memory that can be away, slow, or lose its answers; and counts what it is asked. For tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use signalbox_protocol::canary::CanaryChange;
use signalbox_protocol::history::HistoryEntry;
use signalbox_protocol::node::{DrainNode, NodeLoad, NodeState, NodeView, RegisterNode, RoomDigest};
use signalbox_protocol::placement::{CloseRoom, RoomView};
use signalbox_protocol::{ClusterId, Epoch, NodeId, RoomName};

use crate::Error;
use crate::brake::Brake;
use crate::placement::Candidate;
use crate::store::canary::{CanaryState, NodeOutcomes, ShareChange};
use crate::store::memory::MemoryStore;
use crate::store::{
    Assignment, DrainNote, DrainRecord, Fenced, Look, Overdue, Placed, Proposal, Purged, Registration, Renewal,
    Retention, Store, Wanted,
};

#[derive(Default)]
pub struct FaultyStore {
    inner: MemoryStore,
    faults: Mutex<Faults>,
}

#[derive(Default)]
struct Faults {
    outage: bool,
    delay: Duration,
    /// Methods that do what they are asked, but whose answer is lost.
    mute: BTreeSet<&'static str>,
    incarnation: u32,
    calls: BTreeMap<&'static str, usize>,
}

impl FaultyStore {
    pub fn outage(&self, outage: bool) {
        self.faults.lock().unwrap().outage = outage;
    }

    pub fn delay(&self, delay: Duration) {
        self.faults.lock().unwrap().delay = delay;
    }

    pub fn mute(&self, method: &'static str) {
        self.faults.lock().unwrap().mute.insert(method);
    }

    pub fn unmute(&self, method: &'static str) {
        self.faults.lock().unwrap().mute.remove(method);
    }

    pub fn restart(&self) {
        self.faults.lock().unwrap().incarnation += 1;
    }

    pub fn calls(&self, method: &str) -> usize {
        self.faults.lock().unwrap().calls.get(method).copied().unwrap_or(0)
    }

    pub fn all_calls(&self) -> usize {
        self.faults.lock().unwrap().calls.values().sum()
    }

    async fn arrive(&self, method: &'static str) -> Result<(), Error> {
        let delay = {
            let mut faults = self.faults.lock().unwrap();
            *faults.calls.entry(method).or_default() += 1;
            faults.delay
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        self.answer(self.faults.lock().unwrap().outage)
    }

    fn leave(&self, method: &'static str) -> Result<(), Error> {
        self.answer(self.faults.lock().unwrap().mute.contains(method))
    }

    fn answer(&self, away: bool) -> Result<(), Error> {
        if away { Err(Error::Unanswered) } else { Ok(()) }
    }
}

macro_rules! faulty {
    ($($method:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        $(async fn $method(&self, $($arg: $type),*) -> Result<$out, Error> {
            self.arrive(stringify!($method)).await?;
            let done = self.inner.$method($($arg),*).await;
            self.leave(stringify!($method))?;
            done
        })*
    };
}

impl Store for FaultyStore {
    async fn look(&self, orchestrator: &str, recent: Duration) -> Result<Look, Error> {
        self.arrive("look").await?;
        let mut look = self.inner.look(orchestrator, recent).await?;
        look.incarnation = self.faults.lock().unwrap().incarnation.to_string();
        Ok(look)
    }

    faulty! {
        open() -> ClusterId;
        find(room: &RoomName) -> Option<Assignment>;
        place(proposal: Proposal, margin: Duration) -> Placed;
        hand_off(owner: &CloseRoom, proposal: Proposal, margin: Duration) -> Option<Assignment>;
        wanted(room: &RoomName, owner: &CloseRoom) -> Option<Wanted>;
        close(room: &RoomName, owner: &CloseRoom, by: &str) -> bool;
        occupied(group: Option<&str>, avoid: &[String]) -> BTreeSet<NodeId>;
        register(node: &RegisterNode, lease: Duration) -> Registration;
        renew(node: NodeId, epoch: Epoch, beat: u64, load: NodeLoad, lease: Duration) -> Renewal;
        restore(node: NodeId, epoch: Epoch, rooms: &[RoomDigest], by: &str) -> Vec<RoomDigest>;
        release(node: NodeId, epoch: Epoch) -> bool;
        set_state(node: NodeId, state: NodeState) -> Option<NodeState>;
        eject(node: NodeId, epoch: Epoch, base: Duration, share: f64) -> bool;
        overdue() -> Vec<Overdue>;
        fence_expired(brake: &Brake, spared: &BTreeSet<NodeId>) -> Fenced;
        candidates(margin: Duration) -> Vec<Candidate>;
        nodes() -> Vec<NodeView>;
        rooms(after: Option<&RoomName>, node: Option<NodeId>, limit: usize) -> Vec<RoomView>;
        history(room: &RoomName, limit: usize) -> Option<(RoomView, Vec<HistoryEntry>)>;
        purge(retention: &Retention, limit: usize) -> Purged;
        begin_drain(node: NodeId, how: &DrainNode) -> Option<DrainRecord>;
        drain(node: NodeId) -> Option<DrainRecord>;
        cancel_drain(node: NodeId) -> Option<DrainRecord>;
        claim_drains(orchestrator: &str, time: Duration) -> Vec<DrainRecord>;
        note_drain(note: &DrainNote<'_>) -> bool;
        canary(window: Duration) -> CanaryState;
        canary_history(limit: usize) -> Vec<CanaryChange>;
        set_canary(change: &ShareChange<'_>) -> bool;
        note_outcomes(outcomes: &[NodeOutcomes]) -> ();
        forget_outcomes(age: Duration) -> u64;
    }
}
