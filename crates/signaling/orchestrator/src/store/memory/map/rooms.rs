//! Rooms: where they are, and how they came there.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use signalbox_protocol::history::{HistoryEntry, Reasons, RoomEvent};
use signalbox_protocol::node::RoomDigest;
use signalbox_protocol::placement::{CloseRoom, RoomState, RoomView};
use signalbox_protocol::{Epoch, Generation, NodeId, RoomName};
use tokio::time::Instant;

use super::Map;
use crate::placement::Wish;
use crate::store::{Assignment, Placed, Proposal, Wanted};

/// The most entries of one room's history; the oldest are forgotten first. The database keeps them by age alone, but a
/// process's memory has to be bounded.
const MAX_HISTORY: usize = 64;

#[derive(Debug, Clone)]
pub(super) struct Room {
    pub node: NodeId,
    pub epoch: Epoch,
    generation: Generation,
    pub placed_at: Instant,
    pub closed_at: Option<Instant>,
    group: Option<String>,
    avoid: Vec<String>,
    wish: Wish,
    /// Oldest first, each with when it happened.
    pub history: VecDeque<(Instant, HistoryEntry)>,
}

impl Room {
    /// A room that nobody has been given yet.
    fn new(node: NodeId, now: Instant) -> Self {
        Self {
            node,
            epoch: Epoch(0),
            generation: Generation(0),
            placed_at: now,
            closed_at: None,
            group: None,
            avoid: Vec::new(),
            wish: Wish::default(),
            history: VecDeque::new(),
        }
    }

    /// Gives it to the node.
    fn assign(&mut self, node: NodeId, epoch: Epoch, generation: Generation, now: Instant) {
        (self.node, self.epoch, self.generation) = (node, epoch, generation);
        (self.placed_at, self.closed_at) = (now, None);
    }

    fn is_owned_by(&self, owner: &CloseRoom) -> bool {
        (self.node, self.epoch, self.generation) == (owner.node, owner.epoch, owner.generation)
    }

    /// Whether it and one of this group, avoiding these groups, must not be together.
    fn conflicts(&self, group: Option<&str>, avoid: &[String]) -> bool {
        let avoided = self.group.as_ref().is_some_and(|theirs| avoid.contains(theirs));
        avoided || group.is_some_and(|group| self.avoid.iter().any(|theirs| theirs == group))
    }
}

/// What happened, by whom and why.
struct Note {
    event: RoomEvent,
    by: String,
    reasons: Option<Reasons>,
}

impl Map {
    pub fn find(&self, name: &RoomName) -> Option<Assignment> {
        let room = self.rooms.get(name).filter(|room| self.is_open(room))?;
        self.assignment(name, room)
    }

    fn assignment(&self, name: &RoomName, room: &Room) -> Option<Assignment> {
        Some(Assignment {
            room: name.clone(),
            node: room.node,
            epoch: room.epoch,
            generation: room.generation,
            control: self.nodes.get(&room.node)?.about.control.clone(),
        })
    }

    pub fn place(&mut self, proposal: Proposal, margin: Duration, now: Instant) -> Placed {
        if let Some(existing) = self.find(&proposal.room) {
            return Placed::Existing(existing);
        }
        if !self.may_take(&proposal, margin, now) {
            return Placed::Refused;
        }
        let orphaned = self
            .rooms
            .get(&proposal.room)
            .is_some_and(|room| room.closed_at.is_none());
        let event = if orphaned {
            RoomEvent::TakenOver
        } else {
            RoomEvent::Placed
        };
        self.assign(proposal, event, now).map_or(Placed::Refused, Placed::New)
    }

    pub fn hand_off(
        &mut self,
        owner: &CloseRoom,
        mut proposal: Proposal,
        margin: Duration,
        now: Instant,
    ) -> Option<Assignment> {
        let room = self.rooms.get(&proposal.room)?;
        if !self.is_open(room) || !room.is_owned_by(owner) || proposal.candidate == owner.node {
            return None;
        }
        proposal.group.clone_from(&room.group);
        proposal.avoid.clone_from(&room.avoid);
        proposal.wish.clone_from(&room.wish);
        if !self.may_take(&proposal, margin, now) {
            return None;
        }
        self.assign(proposal, RoomEvent::HandedOff, now)
    }

    pub fn wanted(&self, name: &RoomName, owner: &CloseRoom) -> Option<Wanted> {
        let room = self.rooms.get(name)?;
        let is_it = room.is_owned_by(owner) && room.closed_at.is_none();
        is_it.then(|| Wanted {
            group: room.group.clone(),
            avoid: room.avoid.clone(),
            wish: room.wish.clone(),
        })
    }

    fn may_take(&self, proposal: &Proposal, margin: Duration, now: Instant) -> bool {
        let takes = self
            .nodes
            .get(&proposal.candidate)
            .is_some_and(|node| node.takes_rooms(now, margin));
        takes && !self.hosts_avoided(proposal.candidate, proposal.group.as_deref(), &proposal.avoid)
    }

    fn assign(&mut self, proposal: Proposal, event: RoomEvent, now: Instant) -> Option<Assignment> {
        let epoch = self.nodes.get(&proposal.candidate)?.epoch;
        let room = self.rooms.entry(proposal.room.clone());
        let room = room.or_insert_with(|| Room::new(proposal.candidate, now));
        let next = Generation(room.generation.0 + 1);
        room.assign(proposal.candidate, epoch, next, now);
        (room.group, room.avoid, room.wish) = (proposal.group, proposal.avoid, proposal.wish);
        let note = Note {
            event,
            by: proposal.by,
            reasons: Some(proposal.reasons),
        };
        self.note(&proposal.room, note, now);
        self.find(&proposal.room)
    }

    /// Adds to the room's history, as it is now.
    fn note(&mut self, name: &RoomName, note: Note, now: Instant) {
        let at_ms = self.unix_ms(now);
        let Some(room) = self.rooms.get_mut(name) else { return };
        if room.history.len() == MAX_HISTORY {
            room.history.pop_front();
        }
        let entry = HistoryEntry {
            event: note.event,
            at_ms,
            generation: room.generation,
            node: room.node,
            epoch: room.epoch,
            by: note.by,
            reasons: note.reasons,
        };
        room.history.push_back((now, entry));
    }

    pub fn close(&mut self, name: &RoomName, owner: &CloseRoom, by: &str, now: Instant) -> bool {
        let room = self.rooms.get_mut(name);
        let Some(room) = room.filter(|room| room.is_owned_by(owner) && room.closed_at.is_none()) else {
            return false;
        };
        room.closed_at = Some(now);
        let note = Note {
            event: RoomEvent::Closed,
            by: by.to_owned(),
            reasons: None,
        };
        self.note(name, note, now);
        true
    }

    /// Whether the node hosts a room that one of this group, avoiding these groups, must not be with. The room that is
    /// to be placed is not among them: it is not open, or on another node.
    fn hosts_avoided(&self, node: NodeId, group: Option<&str>, avoid: &[String]) -> bool {
        if group.is_none() && avoid.is_empty() {
            return false;
        }
        let mut rooms = self.rooms.values().filter(|room| room.node == node);
        rooms.any(|room| self.is_open(room) && room.conflicts(group, avoid))
    }

    pub fn occupied(&self, group: Option<&str>, avoid: &[String]) -> BTreeSet<NodeId> {
        if group.is_none() && avoid.is_empty() {
            return BTreeSet::new();
        }
        let rooms = self
            .rooms
            .values()
            .filter(|room| self.is_open(room) && room.conflicts(group, avoid));
        rooms.map(|room| room.node).collect()
    }

    pub fn restore(
        &mut self,
        id: NodeId,
        epoch: Epoch,
        digests: &[RoomDigest],
        by: &str,
        now: Instant,
    ) -> Vec<RoomDigest> {
        if !self.nodes.get(&id).is_some_and(|node| node.is_current(epoch)) {
            return digests.to_vec();
        }
        for digest in digests {
            // Outside of what the database can hold is what nobody has ever been given.
            let in_range = i64::try_from(digest.generation.0).is_ok_and(|generation| generation > 0);
            let known = self.rooms.get(&digest.room);
            if !in_range || known.is_some_and(|room| room.generation >= digest.generation) {
                continue;
            }
            let room = self.rooms.entry(digest.room.clone());
            let room = room.or_insert_with(|| Room::new(id, now));
            room.assign(id, epoch, digest.generation, now);
            let note = Note {
                event: RoomEvent::Restored,
                by: by.to_owned(),
                reasons: None,
            };
            self.note(&digest.room, note, now);
        }
        let is_its_own = |digest: &&RoomDigest| {
            self.rooms.get(&digest.room).is_some_and(|room| {
                room.closed_at.is_none() && (room.node, room.epoch, room.generation) == (id, epoch, digest.generation)
            })
        };
        digests.iter().filter(|digest| !is_its_own(digest)).cloned().collect()
    }

    fn view(&self, name: &RoomName, room: &Room) -> RoomView {
        RoomView {
            room: name.clone(),
            node: room.node,
            epoch: room.epoch,
            generation: room.generation,
            state: match room.closed_at {
                Some(_) => RoomState::Closed,
                None if self.is_dead(room) => RoomState::Orphaned,
                None => RoomState::Open,
            },
            group: room.group.clone(),
            placed_at_ms: self.unix_ms(room.placed_at),
        }
    }

    pub fn rooms(&self, after: Option<&RoomName>, node: Option<NodeId>, limit: usize) -> Vec<RoomView> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rooms = self.rooms.range::<RoomName, _>((from, Bound::Unbounded));
        let rooms = rooms.filter(|(_, room)| node.is_none_or(|node| room.node == node));
        rooms.take(limit).map(|(name, room)| self.view(name, room)).collect()
    }

    pub fn history(&self, name: &RoomName, limit: usize) -> Option<(RoomView, Vec<HistoryEntry>)> {
        let room = self.rooms.get(name)?;
        let newest = room.history.iter().rev().take(limit).map(|(_, entry)| entry.clone());
        Some((self.view(name, room), newest.collect()))
    }
}
