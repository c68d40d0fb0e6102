//! The map in memory, as plain data: what each method of the trait does, given the time.

mod canary;
mod drains;
mod fences;
mod nodes;
mod purge;
mod rooms;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use signalbox_protocol::{ClusterId, Epoch, NodeId, RoomName};
use tokio::time::Instant;

use nodes::Node;
use rooms::Room;

#[derive(Debug, Clone)]
pub struct Map {
    pub cluster: ClusterId,
    started: Instant,
    started_unix: Duration,
    last_epoch: u64,
    nodes: BTreeMap<NodeId, Node>,
    rooms: BTreeMap<RoomName, Room>,
    /// When each orchestrator last looked.
    lookers: BTreeMap<String, Instant>,
    drains: BTreeMap<NodeId, drains::Job>,
    canary: canary::Canary,
}

impl Map {
    pub fn new(now: Instant) -> Self {
        // Epochs go on growing over a restart of this process, although the map is lost: else a ticket from before the
        // restart could name an epoch that a node has again.
        let started_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            cluster: ClusterId::random(),
            started: now,
            started_unix,
            last_epoch: u64::try_from(started_unix.as_millis()).unwrap_or(0),
            nodes: BTreeMap::new(),
            rooms: BTreeMap::new(),
            lookers: BTreeMap::new(),
            drains: BTreeMap::new(),
            canary: canary::Canary::default(),
        }
    }

    fn unix_ms(&self, at: Instant) -> u64 {
        let at = self.started_unix + at.saturating_duration_since(self.started);
        u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
    }

    /// An epoch that no node has had, and greater than `than`.
    fn next_epoch(&mut self, than: Epoch) -> Epoch {
        self.last_epoch = (self.last_epoch + 1).max(than.0.saturating_add(1));
        Epoch(self.last_epoch)
    }

    fn is_dead(&self, room: &Room) -> bool {
        self.nodes.get(&room.node).is_some_and(|node| node.epoch > room.epoch)
    }

    fn is_open(&self, room: &Room) -> bool {
        room.closed_at.is_none() && !self.is_dead(room)
    }
}

/// How long ago that was; nothing for the future.
fn age(at: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(at)
}

/// How long it is until then; nothing for the past.
fn left(until: Instant, now: Instant) -> Duration {
    until.saturating_duration_since(now)
}
