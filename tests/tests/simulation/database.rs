//! The database of the simulation: the memory store behind a network, with outages, and with a standby that may have missed the last
//! writes when it takes over.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signalbox_orchestrator::Error;
use signalbox_orchestrator::brake::Brake;
use signalbox_orchestrator::placement::Candidate;
use signalbox_orchestrator::store::canary::{CanaryState, NodeOutcomes, ShareChange};
use signalbox_orchestrator::store::memory::MemoryStore;
use signalbox_orchestrator::store::{
    Assignment, DrainNote, DrainRecord, Fenced, Look, Overdue, Placed, Proposal, Purged, Registration, Renewal,
    Retention, Store, Wanted,
};
use signalbox_protocol::canary::CanaryChange;
use signalbox_protocol::history::HistoryEntry;
use signalbox_protocol::node::{DrainNode, NodeLoad, NodeState, NodeView, RegisterNode, RoomDigest};
use signalbox_protocol::placement::{CloseRoom, RoomView};
use signalbox_protocol::{ClusterId, Epoch, NodeId, RoomName};
use tokio::time::timeout;

use crate::network::{Host, Network};

/// How long an orchestrator waits for the database.
const PATIENCE: Duration = Duration::from_secs(1);

/// The database. Clones are the same one.
#[derive(Clone)]
pub struct Database {
    server: Arc<Mutex<Server>>,
}

struct Server {
    primary: Arc<MemoryStore>,
    /// What the standby has.
    standby: Arc<MemoryStore>,
    up: bool,
    /// Counts restarts and promotions.
    incarnation: u32,
}

impl Database {
    pub fn new() -> Self {
        let primary = Arc::new(MemoryStore::default());
        let standby = Arc::new(primary.fork());
        Self {
            server: Arc::new(Mutex::new(Server {
                primary,
                standby,
                up: true,
                incarnation: 1,
            })),
        }
    }

    /// The map itself, for the invariants.
    pub fn map(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.server().primary)
    }

    /// What is committed from now on, the standby does not have until the next call.
    pub fn replicate(&self) {
        let mut server = self.server();
        server.standby = Arc::new(server.primary.fork());
    }

    /// The server is killed.
    pub fn stop(&self) {
        self.server().up = false;
    }

    /// The server is started again, with all that was committed.
    pub fn start(&self) {
        let mut server = self.server();
        server.up = true;
        server.incarnation += 1;
    }

    /// The standby takes the place of the server. What was committed since [`Database::replicate`] is gone.
    pub fn promote(&self) {
        let mut server = self.server();
        server.primary = Arc::new(server.standby.fork());
        server.up = true;
        server.incarnation += 1;
    }

    /// The server runs, whatever was.
    pub fn heal(&self) {
        if !self.server().up {
            self.start();
        }
    }

    /// The map, for a statement.
    fn answering(&self) -> Result<Arc<MemoryStore>, Error> {
        let server = self.server();
        server.up.then(|| Arc::clone(&server.primary)).ok_or(Error::NotReady)
    }

    fn incarnation(&self) -> u32 {
        self.server().incarnation
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One orchestrator's connection to the database.
#[derive(Clone)]
pub struct Connection {
    pub database: Database,
    pub network: Network,
    pub host: Host,
}

/// One statement: it may be lost on the way, and so may its answer, after it was carried out.
macro_rules! statement {
    ($connection:ident, $store:ident => $call:expr) => {{
        let round_trip = async {
            $connection.network.carry($connection.host, Host::Database).await;
            let $store = $connection.database.answering()?;
            let result = $call.await;
            $connection.network.carry(Host::Database, $connection.host).await;
            result
        };
        timeout(PATIENCE, round_trip).await.unwrap_or(Err(Error::NotReady))
    }};
}

impl Store for Connection {
    async fn open(&self) -> Result<ClusterId, Error> {
        statement!(self, store => store.open())
    }

    async fn find(&self, room: &RoomName) -> Result<Option<Assignment>, Error> {
        statement!(self, store => store.find(room))
    }

    async fn place(&self, proposal: Proposal, margin: Duration) -> Result<Placed, Error> {
        statement!(self, store => store.place(proposal, margin))
    }

    async fn hand_off(
        &self,
        owner: &CloseRoom,
        proposal: Proposal,
        margin: Duration,
    ) -> Result<Option<Assignment>, Error> {
        statement!(self, store => store.hand_off(owner, proposal, margin))
    }

    async fn wanted(&self, room: &RoomName, owner: &CloseRoom) -> Result<Option<Wanted>, Error> {
        statement!(self, store => store.wanted(room, owner))
    }

    async fn close(&self, room: &RoomName, owner: &CloseRoom, by: &str) -> Result<bool, Error> {
        statement!(self, store => store.close(room, owner, by))
    }

    async fn occupied(&self, group: Option<&str>, avoid: &[String]) -> Result<BTreeSet<NodeId>, Error> {
        statement!(self, store => store.occupied(group, avoid))
    }

    async fn register(&self, node: &RegisterNode, lease: Duration) -> Result<Registration, Error> {
        statement!(self, store => store.register(node, lease))
    }

    async fn renew(
        &self,
        node: NodeId,
        epoch: Epoch,
        beat: u64,
        load: NodeLoad,
        lease: Duration,
    ) -> Result<Renewal, Error> {
        statement!(self, store => store.renew(node, epoch, beat, load, lease))
    }

    async fn restore(
        &self,
        node: NodeId,
        epoch: Epoch,
        rooms: &[RoomDigest],
        by: &str,
    ) -> Result<Vec<RoomDigest>, Error> {
        statement!(self, store => store.restore(node, epoch, rooms, by))
    }

    async fn release(&self, node: NodeId, epoch: Epoch) -> Result<bool, Error> {
        statement!(self, store => store.release(node, epoch))
    }

    async fn set_state(&self, node: NodeId, state: NodeState) -> Result<Option<NodeState>, Error> {
        statement!(self, store => store.set_state(node, state))
    }

    async fn eject(&self, node: NodeId, epoch: Epoch, base: Duration, share: f64) -> Result<bool, Error> {
        statement!(self, store => store.eject(node, epoch, base, share))
    }

    async fn look(&self, orchestrator: &str, recent: Duration) -> Result<Look, Error> {
        let look = statement!(self, store => store.look(orchestrator, recent))?;
        let run = self.database.incarnation();
        Ok(Look {
            incarnation: format!("{} run {run}", look.incarnation),
            ..look
        })
    }

    async fn overdue(&self) -> Result<Vec<Overdue>, Error> {
        statement!(self, store => store.overdue())
    }

    async fn fence_expired(&self, brake: &Brake, spared: &BTreeSet<NodeId>) -> Result<Fenced, Error> {
        statement!(self, store => store.fence_expired(brake, spared))
    }

    async fn canary(&self, window: Duration) -> Result<CanaryState, Error> {
        statement!(self, store => store.canary(window))
    }

    async fn canary_history(&self, limit: usize) -> Result<Vec<CanaryChange>, Error> {
        statement!(self, store => store.canary_history(limit))
    }

    async fn set_canary(&self, change: &ShareChange<'_>) -> Result<bool, Error> {
        statement!(self, store => store.set_canary(change))
    }

    async fn note_outcomes(&self, outcomes: &[NodeOutcomes]) -> Result<(), Error> {
        statement!(self, store => store.note_outcomes(outcomes))
    }

    async fn forget_outcomes(&self, age: Duration) -> Result<u64, Error> {
        statement!(self, store => store.forget_outcomes(age))
    }

    async fn candidates(&self, margin: Duration) -> Result<Vec<Candidate>, Error> {
        statement!(self, store => store.candidates(margin))
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, Error> {
        statement!(self, store => store.nodes())
    }

    async fn rooms(
        &self,
        after: Option<&RoomName>,
        node: Option<NodeId>,
        limit: usize,
    ) -> Result<Vec<RoomView>, Error> {
        statement!(self, store => store.rooms(after, node, limit))
    }

    async fn history(&self, room: &RoomName, limit: usize) -> Result<Option<(RoomView, Vec<HistoryEntry>)>, Error> {
        statement!(self, store => store.history(room, limit))
    }

    async fn purge(&self, retention: &Retention, limit: usize) -> Result<Purged, Error> {
        statement!(self, store => store.purge(retention, limit))
    }

    async fn begin_drain(&self, node: NodeId, how: &DrainNode) -> Result<Option<DrainRecord>, Error> {
        statement!(self, store => store.begin_drain(node, how))
    }

    async fn drain(&self, node: NodeId) -> Result<Option<DrainRecord>, Error> {
        statement!(self, store => store.drain(node))
    }

    async fn cancel_drain(&self, node: NodeId) -> Result<Option<DrainRecord>, Error> {
        statement!(self, store => store.cancel_drain(node))
    }

    async fn claim_drains(&self, orchestrator: &str, time: Duration) -> Result<Vec<DrainRecord>, Error> {
        statement!(self, store => store.claim_drains(orchestrator, time))
    }

    async fn note_drain(&self, note: &DrainNote<'_>) -> Result<bool, Error> {
        statement!(self, store => store.note_drain(note))
    }
}
