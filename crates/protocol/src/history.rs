//! Why a room is where it is: what the orchestrators wrote down when they placed it. Kept for a bounded time.
//!
//! `GET /v1/rooms/{room}/placement` answers a [`RoomPlacement`].

use serde::{Deserialize, Serialize};

use crate::node::Asker;
use crate::placement::{Policy, RoomView, Track};
use crate::{Epoch, Generation, NodeId};

/// The most candidates that [`Reasons`] lists, the chosen one among them.
pub const MAX_CANDIDATES: usize = 32;

/// Where a room is, and how it came there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoomPlacement {
    /// Where it is.
    pub now: RoomView,
    /// What has happened to it, newest first.
    pub history: Vec<HistoryEntry>,
}

/// One thing that happened to a room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryEntry {
    /// What.
    pub event: RoomEvent,
    /// When, in milliseconds since 1970 by the store's clock.
    pub at_ms: u64,
    /// The room's generation from then on.
    pub generation: Generation,
    /// The room's node from then on.
    pub node: NodeId,
    /// The node's epoch.
    pub epoch: Epoch,
    /// The orchestrator that did it: its name, as it was configured.
    pub by: String,
    /// Why that node; only where a node was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasons: Option<Reasons>,
}

/// What happened to a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RoomEvent {
    /// It was placed: for the first time, or after it had been closed.
    Placed,
    /// It was placed anew because its node's epoch was over.
    TakenOver,
    /// It was moved from a live node.
    HandedOff,
    /// It was closed.
    Closed,
    /// The map had lost it, and its node told where it was.
    Restored,
}

/// How a node was chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reasons {
    /// By which policy.
    pub policy: Policy,
    /// The gateway's rule for the request that it was placed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The region that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The region that was preferred in the end, when the one asked for was full or had no node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spilled_to: Option<String>,
    /// The track that was wanted.
    pub track: Track,
    /// The canary share wanted a canary node, but none could take the room where it was wanted, so that a stable one did.
    #[serde(default)]
    pub track_fallback: bool,
    /// More than half of the nodes were ejected, so that ejection was ignored.
    #[serde(default)]
    pub panic: bool,
    /// Who could have had it: the chosen one first, then by score, then those that were filtered out; at most
    /// [`MAX_CANDIDATES`].
    pub candidates: Vec<Considered>,
    /// How many more there were.
    #[serde(default)]
    pub omitted: u32,
    /// The drain by which the room was handed over; none: it was not, or a version before this one did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<Drained>,
}

/// The drain of a node that a room was on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Drained {
    /// The node.
    pub node: NodeId,
    /// Who asked for it first.
    pub asked_by: Asker,
    /// When it began, in milliseconds since 1970 by the store's clock.
    pub began_at_ms: u64,
}

/// A node that could have had the room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Considered {
    /// Which.
    pub node: NodeId,
    /// Where it stands.
    pub region: String,
    /// The share of its capacity that was, or soon would be, in use. Rounded to three places.
    pub score: f64,
    /// Why it could not; none: it could.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filtered: Option<Filter>,
}

/// Why a node cannot take a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// It is draining or lost.
    State,
    /// Its lease is almost out, or is.
    Lease,
    /// Joins on it have failed.
    Ejected,
    /// Its software is too old.
    Version,
    /// It lacks a label.
    Labels,
    /// It is of the other track.
    Track,
    /// It is full.
    Capacity,
    /// It hosts a room that this one must not be with.
    AntiAffinity,
    /// It could, but stands outside of the preferred region.
    Region,
}
