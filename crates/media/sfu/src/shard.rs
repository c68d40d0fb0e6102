//! One shard.

use std::net::SocketAddr;
use std::time::Instant;

use signalbox_protocol::control::{CloseReason, Command, Join, Refusal, Reply};
use signalbox_protocol::{Generation, Identity, ParticipantId, RoomName};

use crate::api::{Output, ShardConfig, ShardStats};

/// The longest datagram that is looked at, in bytes; longer ones are counted and dropped.
pub const MAX_DATAGRAM_BYTES: usize = 1400;

/// Every room of one UDP port.
pub struct Shard {
    stats: ShardStats,
}

impl Shard {
    /// An empty shard.
    pub fn new(_config: ShardConfig, _now: Instant) -> Self {
        Self {
            stats: ShardStats::default(),
        }
    }

    /// Takes a datagram that arrived at the shard's port.
    pub fn handle_datagram(&mut self, _now: Instant, _source: SocketAddr, _datagram: &[u8]) {}

    /// Opens a room in this generation, or finds it open. The caller has checked the ticket.
    pub fn handle_open(&mut self, _now: Instant, _room: &RoomName, _generation: Generation) -> Result<Reply, Refusal> {
        Ok(Reply::Done)
    }

    /// Admits a participant to a room, which is opened in this generation if it is not open. The caller has checked the ticket.
    pub fn handle_join(&mut self, _now: Instant, _generation: Generation, _join: Join) -> Result<Reply, Refusal> {
        Ok(Reply::Done)
    }

    /// Does something for a participant.
    pub fn handle_command(
        &mut self,
        _now: Instant,
        _room: &RoomName,
        _participant: &ParticipantId,
        _identity: &Identity,
        _command: Command,
    ) -> Result<Reply, Refusal> {
        Ok(Reply::Done)
    }

    /// Like [`Command::Detach`], for participants whose link broke. Unknown ones are ignored.
    pub fn handle_link_lost(&mut self, _now: Instant, _participants: &[ParticipantId]) {}

    /// Closes a room and everyone in it. Unknown ones are ignored.
    pub fn close_room(&mut self, _now: Instant, _room: &RoomName, _reason: CloseReason) {}

    /// Closes every room.
    pub fn close_all(&mut self, _now: Instant, _reason: CloseReason) {}

    /// Does what is due. Call it when [`Shard::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, _now: Instant) {}

    /// The next thing to do; `None`: nothing until the next `handle_*`.
    pub fn poll_output(&mut self, _now: Instant) -> Option<Output> {
        None
    }

    /// When to call [`Shard::handle_timeout`]; `None`: not before the next `handle_*`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Counters and gauges.
    pub fn stats(&self) -> ShardStats {
        self.stats
    }

    /// The open rooms.
    pub fn rooms(&self) -> impl Iterator<Item = (&RoomName, Generation)> {
        std::iter::empty()
    }
}
