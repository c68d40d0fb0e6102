//! The room map: which node hosts which room, and which nodes hold a lease.
//!
//! Owns the truth, and the promises about it under races. It must not know HTTP, tickets or policies.
//!
//! **The one rule:** an assignment is dead if and only if its node's epoch has moved on (`node.epoch >
//! assignment.epoch`). Only [`Store::register`], [`Store::release`] and [`Store::fence_expired`] move an epoch, each to
//! a greater value, and one that no node has had before. Leases are read by two methods for two purposes: fencing, and
//! not giving new rooms to a node that looks dead. A lease that has run out does not by itself make a room free.
//!
//! All methods may be called at the same time from any number of processes. Every lease is computed and compared on the
//! store's one clock (the database's), never on a caller's. All fail with [`Error::Unavailable`] or [`Error::NotReady`]
//! when the store cannot be reached, and then may or may not have been carried out: all can be repeated safely.

pub mod canary;
pub mod memory;
pub mod postgres;

#[cfg(test)]
mod contract;

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use signalbox_protocol::canary::CanaryChange;
use signalbox_protocol::history::{HistoryEntry, Reasons};
use signalbox_protocol::node::{
    Asker, Drain, DrainNode, DrainState, NodeLoad, NodeState, NodeView, RegisterNode, RoomDigest,
};
use signalbox_protocol::placement::{CloseRoom, RoomView};
use signalbox_protocol::{ClusterId, Epoch, Generation, NodeId, RoomName};

use crate::Error;
use crate::brake::Brake;
use crate::placement::{Candidate, Wish};
use canary::{CanaryState, NodeOutcomes, ShareChange};

/// Where a room is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The room.
    pub room: RoomName,
    /// Its node.
    pub node: NodeId,
    /// The node's epoch when the room was placed.
    pub epoch: Epoch,
    /// How often the room has been placed.
    pub generation: Generation,
    /// The node's control listener.
    pub control: String,
}

/// What [`Store::place`] and [`Store::hand_off`] are asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// The room.
    pub room: RoomName,
    /// The node that is to have it.
    pub candidate: NodeId,
    /// The group that the room belongs to.
    pub group: Option<String>,
    /// The groups whose rooms may not be on the same node.
    pub avoid: Vec<String>,
    /// What the room asks of its node, for when it is moved.
    pub wish: Wish,
    /// Who proposes, for the history.
    pub by: String,
    /// Why, for the history.
    pub reasons: Reasons,
}

/// What a room was placed with: [`Store::wanted`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// See [`Proposal::group`].
    pub group: Option<String>,
    /// See [`Proposal::avoid`].
    pub avoid: Vec<String>,
    /// See [`Proposal::wish`].
    pub wish: Wish,
}

/// What came of [`Store::place`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// The candidate has it by this call.
    New(Assignment),
    /// It had a live owner, which keeps it.
    Existing(Assignment),
    /// Neither: the candidate does not take rooms (any more) or hosts one that this one avoids, or the map changed
    /// twice meanwhile. Choose again.
    Refused,
}

/// What came of [`Store::register`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// The node holds this epoch from now on.
    Held(Epoch),
    /// Nothing is changed: this is the node's epoch, and not the one that it registers after; 0: it has none.
    Behind(Epoch),
}

impl Registration {
    /// The epoch, if the node holds it.
    pub fn held(self) -> Option<Epoch> {
        match self {
            Self::Held(epoch) => Some(epoch),
            Self::Behind(_) => None,
        }
    }
}

/// What came of [`Store::renew`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The lease is extended.
    Renewed,
    /// A heartbeat with this number or a later one has come before: nothing is changed.
    Past,
    /// The epoch is over: the node must drop its rooms and register again.
    Over,
}

/// What came of [`Store::fence_expired`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fenced {
    /// These nodes were fenced by this call; the epochs are those that ended.
    pub nodes: Vec<(NodeId, Epoch)>,
    /// So many more have run out of grace, but the brake holds them.
    pub held: usize,
}

/// What [`Store::look`] sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Nodes that are not lost and whose lease has run out.
    pub overdue: usize,
    /// Orchestrators that have looked within the given time, the caller among them.
    pub orchestrators: usize,
    /// Names this run of the store: it changes when the database was restarted, or a standby took its place. Until the
    /// nodes have renewed their leases there, their absence says nothing.
    pub incarnation: String,
}

/// A node whose lease ran out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overdue {
    /// Which.
    pub node: NodeId,
    /// The epoch that may be ended.
    pub epoch: Epoch,
    /// Its control listener, to ask it.
    pub control: String,
}

/// How long what is over is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Rooms, after they were closed, or after they were placed and their node's epoch last moved on. Longer than any
    /// ticket lives: a generation repeats afterwards.
    pub rooms: Duration,
    /// Lost nodes to which no room refers, after their last renewal.
    pub nodes: Duration,
    /// Entries of the history.
    pub history: Duration,
}

/// What [`Store::purge`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Rooms.
    pub rooms: u64,
    /// Nodes.
    pub nodes: u64,
    /// Entries of the history.
    pub history: u64,
}

/// What [`Store::drain`] answers.
#[derive(Debug, Clone, PartialEq)]
pub struct DrainRecord {
    /// How it stands, without [`Drain::eta_ms`].
    pub drain: Drain,
    /// The node's control listener.
    pub control: String,
    /// Who asked for it first.
    pub asked_by: Asker,
    /// When it began, in milliseconds since 1970 by the store's clock.
    pub began_at_ms: u64,
    /// See [`DrainNote::leaving`]; the last that was noted.
    pub leaving: Option<Duration>,
    /// How long ago it was last noted that a room was moved; none: none was.
    pub moved_ago: Option<Duration>,
}

/// What [`Store::note_drain`] is told.
#[derive(Debug, Clone, Copy)]
pub struct DrainNote<'a> {
    /// Which node.
    pub node: NodeId,
    /// In which epoch.
    pub epoch: Epoch,
    /// The orchestrator that carries it on.
    pub by: &'a str,
    /// Rooms that were moved since the last note.
    pub moved: u64,
    /// Rooms that nobody takes at present.
    pub stuck: u64,
    /// How long a room takes from being moved until the node has closed it; none: as was noted before.
    pub leaving: Option<Duration>,
    /// How it ends; none: it goes on.
    pub end: Option<DrainState>,
}

/// The room map. See the module's documentation for what holds for all methods.
pub trait Store: Send + Sync + 'static {
    /// Makes the store usable, brings its schema to this version, and says which cluster it is of: the same at each
    /// call. Until it has succeeded the other methods may fail with [`Error::NotReady`]. Concurrent calls, of other
    /// processes too, wait for each other.
    ///
    /// Fails with [`Error::Schema`] if the schema is newer or was altered.
    fn open(&self) -> impl Future<Output = Result<ClusterId, Error>> + Send;

    /// Where the room is: its assignment if it is neither closed nor dead. One read, no write. The answer may be out of
    /// date when it arrives; a node refuses what is not its own.
    fn find(&self, room: &RoomName) -> impl Future<Output = Result<Option<Assignment>, Error>> + Send;

    /// Gives the room to the candidate if it has never been placed, is closed or dead, the candidate is serving with a
    /// lease that holds for longer than `margin`, and the candidate hosts no open room of a group that the proposal
    /// avoids, nor one that avoids the proposal's group. The generation is one more than the room's last, 1 for a room
    /// that has never been placed. Writes the proposal's reasons to the history, in the same step.
    ///
    /// Of any number of concurrent calls for one room one gets [`Placed::New`]; the others get [`Placed::Existing`]
    /// with the same assignment, or [`Placed::Refused`]. A room with a live owner is never given away, not even to a
    /// node that registered, or from one that was placed on, while this call waited. Of concurrent calls for rooms that
    /// avoid each other no two put theirs on one node. If the candidate is fenced while this call is under way the room
    /// may be given to its ended epoch: such an assignment is dead from the start, and the next call replaces it.
    fn place(&self, proposal: Proposal, margin: Duration) -> impl Future<Output = Result<Placed, Error>> + Send;

    /// Moves the room from a live owner to the proposal's candidate, if node, epoch and generation are exactly those of
    /// its assignment and that assignment is open and not dead; the candidate must be as for [`Store::place`], and
    /// another node. The group, what it avoids and its wish stay as they were, whatever the proposal says. The generation grows
    /// by one. None: nothing was changed. Of any number of concurrent calls, closes among them, at most one succeeds.
    fn hand_off(
        &self,
        owner: &CloseRoom,
        proposal: Proposal,
        margin: Duration,
    ) -> impl Future<Output = Result<Option<Assignment>, Error>> + Send;

    /// What the room was placed with, if it is open and node, epoch and generation are exactly those of its assignment.
    fn wanted(&self, room: &RoomName, owner: &CloseRoom) -> impl Future<Output = Result<Option<Wanted>, Error>> + Send;

    /// Closes the room if it is open and node, epoch and generation are exactly those of its assignment, and says
    /// whether this call did. Of any number of concurrent calls at most one closes. The generation is kept. `by` is for
    /// the history.
    fn close(&self, room: &RoomName, owner: &CloseRoom, by: &str) -> impl Future<Output = Result<bool, Error>> + Send;

    /// The nodes that host an open room which one of this group, avoiding these groups, must not be with.
    fn occupied(
        &self,
        group: Option<&str>,
        avoid: &[String],
    ) -> impl Future<Output = Result<BTreeSet<NodeId>, Error>> + Send;

    /// Adds the node, or replaces what is known of it, with a lease from now on and an epoch greater than any that it
    /// has had; it serves and is not ejected. Whatever was assigned to it before is dead from then on. Only if the node's
    /// epoch is the one that the registration comes after, or there is no such node (any more): of any number of
    /// concurrent calls that come after the same epoch one holds the lease.
    fn register(
        &self,
        node: &RegisterNode,
        lease: Duration,
    ) -> impl Future<Output = Result<Registration, Error>> + Send;

    /// Extends the lease to `lease` from now and notes the load, if the epoch is the node's current one, and `beat` is
    /// greater than that of all renewals of the epoch before; beats count from 1. Also when the lease has run out: as long as nobody has
    /// fenced the node, its rooms are its own. Of a renewal and a fence that race, one happens and the other does not.
    ///
    /// An epoch greater than the current one was handed out by a store that has since lost it, in a failover to a
    /// standby that lagged. It becomes the current one, unless the node is lost, and is not handed out again.
    fn renew(
        &self,
        node: NodeId,
        epoch: Epoch,
        beat: u64,
        load: NodeLoad,
        lease: Duration,
    ) -> impl Future<Output = Result<Renewal, Error>> + Send;

    /// Compares the map with the rooms that a node says it hosts, if the epoch is its current one and it is not lost. A
    /// room that the map does not have, or has with a smaller generation, becomes the node's, with the generation that
    /// the node says: the map lost it in a failover. Answers those that are not the node's, which it must close; all of
    /// them if the epoch is not the current one or the node is lost, so ask only after a renewal. Of a room that is
    /// named twice the greater generation counts. `by` is for the history.
    fn restore(
        &self,
        node: NodeId,
        epoch: Epoch,
        rooms: &[RoomDigest],
        by: &str,
    ) -> impl Future<Output = Result<Vec<RoomDigest>, Error>> + Send;

    /// Ends the epoch at once, on the word of the node itself: its rooms may be placed elsewhere. Says whether this
    /// call did; an epoch that had ended before stays as it is.
    fn release(&self, node: NodeId, epoch: Epoch) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Makes a node that is not lost serving or draining, and says what its state is then; none: there is no such node.
    /// [`NodeState::Lost`] changes nothing.
    fn set_state(
        &self,
        node: NodeId,
        state: NodeState,
    ) -> impl Future<Output = Result<Option<NodeState>, Error>> + Send;

    /// Marks the node as not to be given rooms for a while, if the epoch is its current one, it is not lost nor ejected,
    /// and no more than `share` of the nodes that are not lost would be ejected then; one node always may be. Says
    /// whether the node is ejected in this epoch now. It is advice to who chooses: [`Store::place`] does not look at it.
    /// The time is `base` for the first time and grows by `base` with each further one, up to ten times; it begins
    /// anew with a registration. Concurrent calls do not exceed the share.
    fn eject(
        &self,
        node: NodeId,
        epoch: Epoch,
        base: Duration,
        share: f64,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Looks at the map as a whole, and notes that this orchestrator has looked. `recent` is how long a look counts.
    fn look(&self, orchestrator: &str, recent: Duration) -> impl Future<Output = Result<Look, Error>> + Send;

    /// The nodes that are not lost and whose lease has run out, those overdue for longest first, at most 1,000.
    fn overdue(&self) -> impl Future<Output = Result<Vec<Overdue>, Error>> + Send;

    /// Ends the epochs of nodes whose lease ran out longer than the brake's grace ago, those overdue for longest first,
    /// as many as the brake permits, and none that is `spared`. Of concurrent calls one does the work, and the others
    /// may return without having done any; the brake's bound holds over all of them together.
    fn fence_expired(
        &self,
        brake: &Brake,
        spared: &BTreeSet<NodeId>,
    ) -> impl Future<Output = Result<Fenced, Error>> + Send;

    /// Begins to empty a node, which is draining from then on; or, if that goes on already, changes how. None: there is no such node, or it is
    /// lost.
    fn begin_drain(
        &self,
        node: NodeId,
        how: &DrainNode,
    ) -> impl Future<Output = Result<Option<DrainRecord>, Error>> + Send;

    /// How far the emptying of a node has come, or came the last time; none: there was none.
    fn drain(&self, node: NodeId) -> impl Future<Output = Result<Option<DrainRecord>, Error>> + Send;

    /// A node that is draining serves again, and is emptied no further. Answers as [`Store::drain`].
    fn cancel_drain(&self, node: NodeId) -> impl Future<Output = Result<Option<DrainRecord>, Error>> + Send;

    /// The drains that go on and that this orchestrator carries on, for so long from now: those that it has already, and those that
    /// nobody has. Of concurrent calls by several of them each drain is answered to one.
    fn claim_drains(
        &self,
        orchestrator: &str,
        time: Duration,
    ) -> impl Future<Output = Result<Vec<DrainRecord>, Error>> + Send;

    /// Notes that so many more rooms were moved and so many are stuck; `end` ends it. False, and nothing is changed, if it does not go on in
    /// this epoch, or another orchestrator has it.
    fn note_drain(&self, note: &DrainNote<'_>) -> impl Future<Output = Result<bool, Error>> + Send;

    /// The canary share as it was set last, and what was counted under it within so long until now.
    fn canary(&self, window: Duration) -> impl Future<Output = Result<CanaryState, Error>> + Send;

    /// The newest changes of the canary share, newest first, at most `limit` and [`canary::KEPT_CHANGES`].
    fn canary_history(&self, limit: usize) -> impl Future<Output = Result<Vec<CanaryChange>, Error>> + Send;

    /// Sets the canary share if its version is the one that the change comes after, and says whether this call did. Of any number of concurrent
    /// calls that come after one version one succeeds. What is counted from then on counts for the new version.
    fn set_canary(&self, change: &ShareChange<'_>) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Counts outcomes for the tracks of their nodes, under the share as it is now. A node that is not known counts for none. Unlike all others
    /// this must not be repeated: it may have been carried out.
    fn note_outcomes(&self, outcomes: &[NodeOutcomes]) -> impl Future<Output = Result<(), Error>> + Send;

    /// Removes outcomes of stretches that began longer ago than this, and says how many stretches that were.
    fn forget_outcomes(&self, age: Duration) -> impl Future<Output = Result<u64, Error>> + Send;

    /// All nodes that are not lost, as [`Store::place`] would see them at this moment, ordered by id.
    fn candidates(&self, margin: Duration) -> impl Future<Output = Result<Vec<Candidate>, Error>> + Send;

    /// All nodes, ordered by id.
    fn nodes(&self) -> impl Future<Output = Result<Vec<NodeView>, Error>> + Send;

    /// At most `limit` rooms whose names come after `after`, ordered by name byte by byte; of one node only, or of all.
    fn rooms(
        &self,
        after: Option<&RoomName>,
        node: Option<NodeId>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<RoomView>, Error>> + Send;

    /// Where the room is or was, and the newest `limit` entries of its history, newest first; none: it was never placed,
    /// or that was purged.
    fn history(
        &self,
        room: &RoomName,
        limit: usize,
    ) -> impl Future<Output = Result<Option<(RoomView, Vec<HistoryEntry>)>, Error>> + Send;

    /// Removes what is older than `retention`, at most `limit` of each kind. Concurrent calls do not wait for each other.
    fn purge(&self, retention: &Retention, limit: usize) -> impl Future<Output = Result<Purged, Error>> + Send;
}
