//! What the node counts besides what its shards count. Plain numbers that only grow; [`crate::metrics`] gives them names.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::link::REFUSALS;

/// The counters.
#[derive(Debug, Default)]
pub struct Counters {
    /// Links that gateways have opened.
    pub links_opened: AtomicU64,
    /// Links that have ended.
    pub links_ended: AtomicU64,
    /// Of those, the ones that were closed because their gateway read too slowly.
    pub links_slow: AtomicU64,
    /// Of those, the ones that were closed because of a frame that made no sense.
    pub links_garbage: AtomicU64,
    /// Links and questions refused for want of the cluster secret.
    pub unauthorized: AtomicU64,
    /// Requests read.
    pub requests: AtomicU64,
    /// Requests refused, in the order of [`REFUSALS`].
    pub refusals: [AtomicU64; REFUSALS.len()],
    /// Frames for gateways that could not be delivered any more.
    pub frames_dropped: AtomicU64,
    /// Registrations with the orchestrator.
    pub registrations: AtomicU64,
    /// Heartbeats that no orchestrator has answered with a renewal, nor enough of them with promises.
    pub heartbeats_failed: AtomicU64,
    /// Heartbeats that only promises have answered, because the orchestrators' database was away.
    pub heartbeats_promised: AtomicU64,
    /// How often the node dropped all rooms because it lost its lease.
    pub fenced: AtomicU64,
    /// Rooms closed after they had become empty.
    pub rooms_closed: AtomicU64,
    /// Rooms closed because an orchestrator said that they are not this node's.
    pub rooms_stale: AtomicU64,
    /// Rooms that have moved to another node.
    pub rooms_moved: AtomicU64,
    /// Participants that were still in a room when the time for its move was over.
    pub left_behind: AtomicU64,
}

impl Counters {
    /// Adds one.
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
