//! The map in memory: for one process that may lose it, such as a development server.
//!
//! One lock around everything makes each method atomic. The clock is the process's.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use signalbox_protocol::placement::{CloseRoom, NodeLoad, NodeState, NodeView, RegisterNode};
use signalbox_protocol::{Epoch, Generation, NodeId, RoomName};
use tokio::time::Instant;

use super::{Assignment, Fenced, Placed, Store};
use crate::Error;
use crate::brake::{Brake, Fleet};
use crate::placement::Candidate;

/// The map in memory.
#[derive(Debug)]
pub struct MemoryStore {
    map: Mutex<Map>,
}

#[derive(Debug)]
struct Map {
    last_epoch: u64,
    nodes: BTreeMap<NodeId, Node>,
    rooms: HashMap<RoomName, Room>,
}

#[derive(Debug)]
struct Node {
    about: RegisterNode,
    epoch: Epoch,
    state: NodeState,
    load: NodeLoad,
    lease_until: Instant,
    fenced_at: Option<Instant>,
}

#[derive(Debug)]
struct Room {
    node: NodeId,
    epoch: Epoch,
    generation: Generation,
    closed: bool,
}

impl Default for MemoryStore {
    fn default() -> Self {
        // Epochs go on growing over a restart of this process, although the map is lost: else a ticket from before the
        // restart could name an epoch that a node has again.
        let start = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        Self {
            map: Mutex::new(Map {
                last_epoch: u64::try_from(start).unwrap_or(0),
                nodes: BTreeMap::new(),
                rooms: HashMap::new(),
            }),
        }
    }
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, Map> {
        // No method leaves the map half changed, so a panic elsewhere does not spoil it.
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Map {
    fn next_epoch(&mut self) -> Epoch {
        self.last_epoch += 1;
        Epoch(self.last_epoch)
    }

    fn is_dead(&self, room: &Room) -> bool {
        self.nodes.get(&room.node).is_some_and(|node| node.epoch > room.epoch)
    }

    fn find(&self, name: &RoomName) -> Option<Assignment> {
        let room = self.rooms.get(name)?;
        if room.closed || self.is_dead(room) {
            return None;
        }
        Some(Assignment {
            room: name.clone(),
            node: room.node,
            epoch: room.epoch,
            generation: room.generation,
            control: self.nodes.get(&room.node)?.about.control.clone(),
        })
    }
}

impl Node {
    fn takes_rooms(&self, now: Instant, margin: Duration) -> bool {
        self.state == NodeState::Serving && self.lease_until > now + margin
    }

    fn is_overdue(&self, now: Instant, grace: Duration) -> bool {
        self.state != NodeState::Lost && self.lease_until + grace < now
    }
}

impl Store for MemoryStore {
    async fn open(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn find(&self, room: &RoomName) -> Result<Option<Assignment>, Error> {
        Ok(self.lock().find(room))
    }

    async fn place(&self, name: &RoomName, candidate: NodeId, margin: Duration) -> Result<Placed, Error> {
        let mut map = self.lock();
        if let Some(existing) = map.find(name) {
            return Ok(Placed::Existing(existing));
        }
        let Some(node) = map
            .nodes
            .get(&candidate)
            .filter(|node| node.takes_rooms(Instant::now(), margin))
        else {
            return Ok(Placed::Refused);
        };
        let (epoch, control) = (node.epoch, node.about.control.clone());
        let generation = Generation(map.rooms.get(name).map_or(0, |room| room.generation.0) + 1);
        map.rooms.insert(
            name.clone(),
            Room {
                node: candidate,
                epoch,
                generation,
                closed: false,
            },
        );
        Ok(Placed::New(Assignment {
            room: name.clone(),
            node: candidate,
            epoch,
            generation,
            control,
        }))
    }

    async fn close(&self, name: &RoomName, owner: &CloseRoom) -> Result<bool, Error> {
        let mut map = self.lock();
        let Some(room) = map.rooms.get_mut(name) else {
            return Ok(false);
        };
        let is_owner = (room.node, room.epoch, room.generation) == (owner.node, owner.epoch, owner.generation);
        let closes = is_owner && !room.closed;
        room.closed |= closes;
        Ok(closes)
    }

    async fn register(&self, about: &RegisterNode, lease: Duration) -> Result<Epoch, Error> {
        let mut map = self.lock();
        let epoch = map.next_epoch();
        let fenced_at = map.nodes.get(&about.node).and_then(|node| node.fenced_at);
        map.nodes.insert(
            about.node,
            Node {
                about: about.clone(),
                epoch,
                state: NodeState::Serving,
                load: NodeLoad::default(),
                lease_until: Instant::now() + lease,
                fenced_at,
            },
        );
        Ok(epoch)
    }

    async fn renew(&self, node: NodeId, epoch: Epoch, load: NodeLoad, lease: Duration) -> Result<bool, Error> {
        let mut map = self.lock();
        let now = Instant::now();
        let holds = |node: &&mut Node| node.epoch == epoch && node.state != NodeState::Lost && node.lease_until > now;
        let Some(node) = map.nodes.get_mut(&node).filter(holds) else {
            return Ok(false);
        };
        node.load = load;
        node.lease_until = now + lease;
        Ok(true)
    }

    async fn release(&self, node: NodeId, epoch: Epoch) -> Result<bool, Error> {
        let mut map = self.lock();
        let next = map.next_epoch();
        let Some(node) = map
            .nodes
            .get_mut(&node)
            .filter(|node| node.epoch == epoch && node.state != NodeState::Lost)
        else {
            return Ok(false);
        };
        node.epoch = next;
        node.state = NodeState::Lost;
        Ok(true)
    }

    async fn overdue(&self) -> Result<usize, Error> {
        let map = self.lock();
        let now = Instant::now();
        Ok(map
            .nodes
            .values()
            .filter(|node| node.is_overdue(now, Duration::ZERO))
            .count())
    }

    async fn fence_expired(&self, brake: &Brake) -> Result<Fenced, Error> {
        let mut map = self.lock();
        let now = Instant::now();
        let recently = |node: &Node| node.fenced_at.is_some_and(|at| at + brake.lease > now);
        let fleet = Fleet {
            nodes: map
                .nodes
                .values()
                .filter(|node| node.state != NodeState::Lost || recently(node))
                .count(),
            overdue: map
                .nodes
                .values()
                .filter(|node| node.is_overdue(now, Duration::ZERO))
                .count(),
            fenced: map.nodes.values().filter(|node| recently(node)).count(),
        };
        let mut due: Vec<(Instant, NodeId)> = map
            .nodes
            .iter()
            .filter(|(_, node)| node.is_overdue(now, brake.grace))
            .map(|(id, node)| (node.lease_until, *id))
            .collect();
        due.sort_unstable();
        let permitted = brake.permits(fleet).min(due.len());
        let mut fenced = Fenced {
            nodes: Vec::new(),
            held: due.len() - permitted,
        };
        for (_, id) in due.into_iter().take(permitted) {
            let next = map.next_epoch();
            if let Some(node) = map.nodes.get_mut(&id) {
                fenced.nodes.push((id, node.epoch));
                node.epoch = next;
                node.state = NodeState::Lost;
                node.fenced_at = Some(now);
            }
        }
        Ok(fenced)
    }

    async fn candidates(&self, margin: Duration) -> Result<Vec<Candidate>, Error> {
        let map = self.lock();
        let now = Instant::now();
        let candidates = map.nodes.iter().filter(|(_, node)| node.takes_rooms(now, margin));
        Ok(candidates
            .map(|(id, node)| Candidate {
                node: *id,
                region: node.about.region.clone(),
                capacity: node.about.capacity,
                participants: node.load.participants,
            })
            .collect())
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, Error> {
        let map = self.lock();
        let now = Instant::now();
        let view = |(id, node): (&NodeId, &Node)| NodeView {
            node: *id,
            epoch: node.epoch,
            state: node.state,
            live: node.state != NodeState::Lost && node.lease_until > now,
            control: node.about.control.clone(),
            media: node.about.media.clone(),
            region: node.about.region.clone(),
            capacity: node.about.capacity,
            load: node.load,
            version: node.about.version.clone(),
        };
        Ok(map.nodes.iter().map(view).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    super::super::contract::suite!(Some(MemoryStore::default()), async |_: &MemoryStore| {});
}
