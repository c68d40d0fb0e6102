//! Where rooms were of late, for the time that the database is away: joins of known rooms then go on.
//!
//! **Only to be read while the store fails with an outage.** As long as it answers, the store alone knows where a room is.
//!
//! What is remembered may be wrong by the time that it is used: the room may have been closed, or placed anew. That is sound, because a
//! ticket only opens what its node lets it open. A node refuses another epoch than its own, and a generation that it has closed, which it
//! remembers for 20 ticket lifetimes (`CLOSED_MEMORY` in the media node). What was read from the store was open then, so its node can have closed it only
//! afterwards, and a ticket for it that expires within those 20 lifetimes cannot open it again. Hence [`MAX_AGE`].
//!
//! Owns the memory and its bounds. It must not know the store, tickets or HTTP; the time is an argument, since any fixed moment.

use std::collections::HashMap;
use std::time::Duration;

use signalbox_protocol::node::RoomDigest;
use signalbox_protocol::{Epoch, Generation, NodeId, RoomName, ticket};

use crate::store::Assignment;

/// For how long an assignment is used after the store, or its node, confirmed it: 8 minutes. Higher than 19 ticket lifetimes: a room that was closed meanwhile could be opened
/// twice; three of them are left for clocks that differ. Lower: a longer outage ends the joins of rooms that nobody confirms.
pub const MAX_AGE: Duration = Duration::from_secs(16 * ticket::LIFETIME_SECONDS);

/// How many rooms are remembered; of more, those that were confirmed longest ago are forgotten. Higher: more memory (about 300 bytes each).
/// Lower: in a larger cluster some known rooms count as new while the database is away.
pub const MAX_ROOMS: usize = 100_000;

#[derive(Debug)]
struct Known {
    assignment: Assignment,
    /// When the store, or the node, was asked for it: it was true then or later.
    confirmed: Duration,
}

/// The memory: two halves, of which the older one is dropped whole when the younger one is full. So neither age nor size has to be
/// searched for.
#[derive(Debug)]
pub struct KnownRooms {
    young: HashMap<RoomName, Known>,
    old: HashMap<RoomName, Known>,
    half: usize,
}

impl Default for KnownRooms {
    fn default() -> Self {
        Self::new(MAX_ROOMS)
    }
}

impl KnownRooms {
    /// An empty memory for at most `rooms` rooms.
    pub fn new(rooms: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            half: (rooms / 2).max(1),
        }
    }

    /// The store said that the room is there. `asked` is when the question was sent, not when the answer came. Answers may come in any order: one for
    /// an earlier generation than is known changes nothing.
    pub fn insert(&mut self, assignment: Assignment, asked: Duration) {
        let overtaken = self.get(&assignment.room).is_some_and(|known| {
            let generation = known.assignment.generation;
            generation > assignment.generation || generation == assignment.generation && known.confirmed >= asked
        });
        if overtaken {
            return;
        }
        self.old.remove(&assignment.room);
        if self.young.len() >= self.half && !self.young.contains_key(&assignment.room) {
            self.old = std::mem::take(&mut self.young);
        }
        let known = Known {
            confirmed: asked,
            assignment,
        };
        self.young.insert(known.assignment.room.clone(), known);
    }

    /// The node said, in a request that came at `now`, that it hosts these rooms. What agrees with that counts as fresh; what is not known stays unknown.
    pub fn confirm(&mut self, node: NodeId, epoch: Epoch, rooms: &[RoomDigest], now: Duration) {
        for digest in rooms {
            let is_it = |known: &&Known| {
                let known = &known.assignment;
                (known.node, known.epoch, known.generation) == (node, epoch, digest.generation)
            };
            if let Some(known) = self.get(&digest.room).filter(is_it) {
                self.insert(known.assignment.clone(), now);
            }
        }
    }

    /// The room was closed in this generation.
    pub fn closed(&mut self, room: &RoomName, generation: Generation) {
        for half in [&mut self.young, &mut self.old] {
            if half
                .get(room)
                .is_some_and(|known| known.assignment.generation <= generation)
            {
                half.remove(room);
            }
        }
    }

    /// This epoch of the node is over, and all that came before. Goes through all rooms.
    pub fn dead(&mut self, node: NodeId, epoch: Epoch) {
        for half in [&mut self.young, &mut self.old] {
            half.retain(|_, known| known.assignment.node != node || known.assignment.epoch > epoch);
        }
    }

    /// Where the room was, if that is not too long ago. For the time that the store cannot be asked.
    pub fn find(&self, room: &RoomName, now: Duration) -> Option<&Assignment> {
        let known = self.get(room)?;
        (now < known.confirmed.saturating_add(MAX_AGE)).then_some(&known.assignment)
    }

    /// How many rooms are remembered, also for longer than [`MAX_AGE`].
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn get(&self, room: &RoomName) -> Option<&Known> {
        self.young.get(room).or_else(|| self.old.get(room))
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use uuid::Uuid;

    use super::*;

    const NODE: NodeId = NodeId(Uuid::from_u128(1));
    const OTHER: NodeId = NodeId(Uuid::from_u128(2));

    fn name(room: &str) -> RoomName {
        room.parse().unwrap()
    }

    fn assignment(room: &str, node: NodeId, epoch: u64, generation: u64) -> Assignment {
        Assignment {
            room: name(room),
            node,
            epoch: Epoch(epoch),
            generation: Generation(generation),
            control: "ws://10.0.0.7:7900".to_owned(),
        }
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn generation(known: &KnownRooms, room: &str, now: Duration) -> Option<u64> {
        known.find(&name(room), now).map(|found| found.generation.0)
    }

    #[test]
    fn a_room_is_known_until_it_was_not_confirmed_for_too_long() {
        let mut known = KnownRooms::default();
        known.insert(assignment("a", NODE, 1, 1), seconds(5));
        assert_eq!(known.find(&name("a"), seconds(6)), Some(&assignment("a", NODE, 1, 1)));
        assert_eq!(generation(&known, "b", seconds(6)), None);
        let last = seconds(5) + MAX_AGE - Duration::from_nanos(1);
        assert_eq!(generation(&known, "a", last), Some(1));
        assert_eq!(generation(&known, "a", seconds(5) + MAX_AGE), None);
        known.insert(assignment("a", NODE, 1, 1), seconds(100));
        assert_eq!(generation(&known, "a", seconds(5) + MAX_AGE), Some(1));
    }

    #[test]
    fn tickets_of_remembered_rooms_expire_before_their_node_forgets_that_it_closed_them() {
        let remembered = seconds(20 * ticket::LIFETIME_SECONDS);
        assert!(MAX_AGE + seconds(2 * ticket::LIFETIME_SECONDS) <= remembered);
    }

    #[test]
    fn answers_that_come_late_do_not_replace_later_ones() {
        let mut known = KnownRooms::default();
        known.insert(assignment("a", OTHER, 2, 6), seconds(1));
        known.insert(assignment("a", NODE, 1, 5), seconds(2));
        assert_eq!(generation(&known, "a", seconds(3)), Some(6));
        known.insert(assignment("a", OTHER, 2, 6), seconds(0));
        assert_eq!(
            generation(&known, "a", MAX_AGE),
            Some(6),
            "the later confirmation counts"
        );
        known.insert(assignment("a", NODE, 3, 7), seconds(1));
        assert_eq!(generation(&known, "a", seconds(3)), Some(7));
    }

    #[test]
    fn a_closed_room_is_forgotten_but_not_a_later_generation() {
        let mut known = KnownRooms::default();
        known.insert(assignment("a", NODE, 1, 5), seconds(0));
        known.closed(&name("a"), Generation(4));
        assert_eq!(generation(&known, "a", seconds(1)), Some(5));
        known.closed(&name("a"), Generation(5));
        assert!(known.is_empty());
        known.closed(&name("a"), Generation(5));
    }

    #[test]
    fn a_dead_epoch_takes_its_rooms_along() {
        let mut known = KnownRooms::default();
        known.insert(assignment("a", NODE, 1, 1), seconds(0));
        known.insert(assignment("b", NODE, 2, 1), seconds(0));
        known.insert(assignment("c", NODE, 3, 1), seconds(0));
        known.insert(assignment("d", OTHER, 1, 1), seconds(0));
        known.dead(NODE, Epoch(2));
        let left = ["a", "b", "c", "d"].map(|room| generation(&known, room, seconds(1)).is_some());
        assert_eq!(left, [false, false, true, true]);
    }

    #[test]
    fn a_node_confirms_what_agrees_with_what_it_says() {
        let mut known = KnownRooms::default();
        for room in ["a", "b"] {
            known.insert(assignment(room, NODE, 1, 2), seconds(0));
        }
        let said = |room: &str, generation| RoomDigest {
            room: name(room),
            generation: Generation(generation),
        };
        let later = MAX_AGE / 2;
        known.confirm(NODE, Epoch(1), &[said("a", 2), said("b", 1), said("c", 1)], later);
        known.confirm(OTHER, Epoch(1), &[said("b", 2)], later);
        known.confirm(NODE, Epoch(2), &[said("b", 2)], later);
        assert_eq!(generation(&known, "a", MAX_AGE), Some(2));
        assert_eq!(generation(&known, "b", MAX_AGE), None);
        assert_eq!(generation(&known, "c", MAX_AGE), None);
        assert_eq!(known.len(), 2);
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_what_was_confirmed_last() {
        for seed in 0..20 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut known = KnownRooms::new(100);
            for step in 0..2000_u64 {
                let room = format!("r{}", rng.random_range(0..400));
                known.insert(assignment(&room, NODE, 1, 1 + step), Duration::from_millis(step));
                assert!(known.len() <= 100, "seed {seed}");
                assert_eq!(generation(&known, &room, seconds(3)), Some(1 + step), "seed {seed}");
                if rng.random_bool(0.05) {
                    known.closed(&name(&room), Generation(1 + step));
                    assert_eq!(generation(&known, &room, seconds(3)), None, "seed {seed}");
                }
            }
            // The last half of the bound, at least, is never dropped.
            let mut known = KnownRooms::new(100);
            for room in 0..1000 {
                known.insert(assignment(&format!("r{room}"), NODE, 1, 1), seconds(0));
            }
            assert!((950..1000).all(|room| generation(&known, &format!("r{room}"), seconds(1)).is_some()));
        }
    }
}
