//! The ticket: what the orchestrator signs when it has placed a room, and the media node checks before it admits anyone.
//!
//! On the wire it is a JWT (RFC 7519), HS256, signed with the first cluster secret, with the claims below;
//! the node checks it against each of its secrets, so that they can be changed while the cluster runs. Every cache of a placement is
//! only a hint; the node's check of the ticket is the truth.

use serde::{Deserialize, Serialize};

use crate::{ClusterId, Epoch, Generation, NodeId, RoomName};

/// The `aud` claim, so that no other token signed with the same secret passes for a ticket.
pub const AUDIENCE: &str = "signalbox-ticket";

/// How long a ticket is good for, in seconds. Higher: a gateway asks less often. Lower: a node has to remember closed rooms
/// for less long.
pub const LIFETIME_SECONDS: u64 = 30;

/// A ticket's claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketClaims {
    /// [`AUDIENCE`].
    pub aud: String,
    /// When it expires, in seconds since 1970.
    pub exp: u64,
    /// The cluster.
    pub cluster: ClusterId,
    /// The room.
    pub room: RoomName,
    /// The node that hosts it.
    pub node: NodeId,
    /// The node's epoch.
    pub epoch: Epoch,
    /// The room's generation.
    pub generation: Generation,
}
