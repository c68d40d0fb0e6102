//! The room map: which node hosts which room, and which nodes hold a lease.
//!
//! Owns the truth, and the promises about it under races. It must not know HTTP, tickets or policies.
//!
//! **The one rule:** an assignment is dead if and only if its node's epoch has moved on (`node.epoch >
//! assignment.epoch`). Only [`Store::register`], [`Store::release`] and [`Store::fence_expired`] move an epoch, each to
//! a value that no node has had before. Leases are read by two methods for two purposes: fencing, and not giving new
//! rooms to a node that looks dead. A lease that has run out does not by itself make a room free.
//!
//! All methods may be called at the same time from any number of processes. Every lease is computed and compared on the
//! store's one clock (the database's), never on a caller's. All fail with [`Error::Unavailable`] or [`Error::NotReady`]
//! when the store cannot be reached, and then may or may not have been carried out: all can be repeated safely.

pub mod memory;
pub mod postgres;

#[cfg(test)]
mod contract;

use std::future::Future;
use std::time::Duration;

use signalbox_protocol::placement::{CloseRoom, NodeLoad, NodeView, RegisterNode};
use signalbox_protocol::{Epoch, Generation, NodeId, RoomName};

use crate::Error;
use crate::brake::Brake;
use crate::placement::Candidate;

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

/// What came of [`Store::place`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// The candidate has it by this call.
    New(Assignment),
    /// It had a live owner, which keeps it.
    Existing(Assignment),
    /// Neither: the candidate does not take rooms (any more), or the map changed twice meanwhile. Choose again.
    Refused,
}

/// What came of [`Store::fence_expired`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fenced {
    /// These nodes were fenced by this call; the epochs are those that ended.
    pub nodes: Vec<(NodeId, Epoch)>,
    /// So many more have run out of grace, but the brake holds them.
    pub held: usize,
}

/// The room map. See the module's documentation for what holds for all methods.
pub trait Store: Send + Sync + 'static {
    /// Makes the store usable, and brings its schema to this version. Until it has succeeded the other methods may fail
    /// with [`Error::NotReady`]. Concurrent calls, of other processes too, wait for each other.
    ///
    /// Fails with [`Error::Schema`] if the schema is newer or was altered.
    fn open(&self) -> impl Future<Output = Result<(), Error>> + Send;

    /// Where the room is: its assignment if it is neither closed nor dead. One read, no write. The answer may be out of
    /// date when it arrives; a node refuses what is not its own.
    fn find(&self, room: &RoomName) -> impl Future<Output = Result<Option<Assignment>, Error>> + Send;

    /// Gives the room to the candidate if it has never been placed, is closed or dead, and the candidate is serving
    /// with a lease that holds for longer than `margin`. The generation is one more than the room's last, 1 for a room
    /// that has never been placed.
    ///
    /// Of any number of concurrent calls for one room one gets [`Placed::New`]; the others get [`Placed::Existing`]
    /// with the same assignment, or [`Placed::Refused`]. A room with a live owner is never given away, not even to a
    /// node that registered, or from one that was placed on, while this call waited. If the candidate is fenced while
    /// this call is under way the room may be given to its ended epoch: such an assignment is dead from the start, and
    /// the next call replaces it.
    fn place(
        &self,
        room: &RoomName,
        candidate: NodeId,
        margin: Duration,
    ) -> impl Future<Output = Result<Placed, Error>> + Send;

    /// Closes the room if it is open and node, epoch and generation are exactly those of its assignment, and says
    /// whether this call did. Of any number of concurrent calls at most one closes. The generation is kept.
    fn close(&self, room: &RoomName, owner: &CloseRoom) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Adds the node, or replaces what is known of it, with a lease from now on and an epoch greater than any that it
    /// has had. Whatever was assigned to it before is dead from then on. Of concurrent calls for one node the one with
    /// the greatest epoch holds the lease.
    fn register(&self, node: &RegisterNode, lease: Duration) -> impl Future<Output = Result<Epoch, Error>> + Send;

    /// Extends the lease to `lease` from now and notes the load, if the epoch is the node's current one and its lease
    /// has not run out; says whether it did. If not, the node must drop its rooms and register again. A renewal that
    /// succeeded means that no fence came before it.
    fn renew(
        &self,
        node: NodeId,
        epoch: Epoch,
        load: NodeLoad,
        lease: Duration,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Ends the epoch at once, on the word of the node itself: its rooms may be placed elsewhere. Says whether this
    /// call did; an epoch that had ended before stays as it is.
    fn release(&self, node: NodeId, epoch: Epoch) -> impl Future<Output = Result<bool, Error>> + Send;

    /// How many nodes that are not lost have a lease that ran out. One read, no write.
    fn overdue(&self) -> impl Future<Output = Result<usize, Error>> + Send;

    /// Ends the epochs of nodes whose lease ran out longer than the brake's grace ago, those overdue for longest first,
    /// as many as the brake permits. Of concurrent calls one does the work, and the others may return without having
    /// done any; the brake's bound holds over all of them together.
    fn fence_expired(&self, brake: &Brake) -> impl Future<Output = Result<Fenced, Error>> + Send;

    /// The nodes that [`Store::place`] would accept at this moment, in no particular order.
    fn candidates(&self, margin: Duration) -> impl Future<Output = Result<Vec<Candidate>, Error>> + Send;

    /// All nodes, ordered by id.
    fn nodes(&self) -> impl Future<Output = Result<Vec<NodeView>, Error>> + Send;
}
