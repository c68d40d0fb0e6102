//! Forgetting what is over.

use std::collections::BTreeSet;
use std::time::Duration;

use signalbox_protocol::node::NodeState;
use signalbox_protocol::{NodeId, RoomName};
use tokio::time::Instant;

use super::rooms::Room;
use super::{Map, age};
use crate::store::{Purged, Retention};

impl Map {
    /// Since when the room is closed or orphaned. An orphan's node may have ended later epochs as well; the last one
    /// counts, which errs on the side of keeping the room. Nothing here is placed in an epoch that has ended.
    fn over_since(&self, room: &Room) -> Option<Instant> {
        if room.closed_at.is_some() {
            return room.closed_at;
        }
        let node = self.nodes.get(&room.node).filter(|_| self.is_dead(room))?;
        Some(node.epoch_since)
    }

    pub fn purge(&mut self, retention: &Retention, limit: usize, now: Instant) -> Purged {
        let old = |at: Instant, keep: Duration| age(at, now) > keep;
        let mut purged = Purged::default();

        let over = self
            .rooms
            .iter()
            .filter(|(_, room)| self.over_since(room).is_some_and(|since| old(since, retention.rooms)));
        let over: Vec<RoomName> = over.map(|(name, _)| name.clone()).take(limit).collect();
        for name in over {
            self.rooms.remove(&name);
            purged.rooms += 1;
        }

        let referred: BTreeSet<NodeId> = self.rooms.values().map(|room| room.node).collect();
        let gone = self.nodes.iter().filter(|(id, node)| {
            node.state == NodeState::Lost && !referred.contains(id) && old(node.renewed_at, retention.nodes)
        });
        let gone: Vec<NodeId> = gone.map(|(id, _)| *id).take(limit).collect();
        for node in gone {
            self.nodes.remove(&node);
            purged.nodes += 1;
        }

        let mut left = limit;
        for room in self.rooms.values_mut() {
            while left > 0 && room.history.front().is_some_and(|(at, _)| old(*at, retention.history)) {
                room.history.pop_front();
                purged.history += 1;
                left -= 1;
            }
        }
        purged
    }
}
