//! Which room of a drain goes next, and when. No clock, no I/O.
//!
//! Those that cost least go first: with few participants, so that a drain that is cancelled, or whose deadline comes, has disturbed few.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use signalbox_protocol::RoomName;
use signalbox_protocol::node::HostedRooms;
use signalbox_protocol::placement::RoomView;
use tokio::time::Instant;

/// When a room that no node took is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(2);

/// What is to be done.
#[derive(Debug)]
pub enum Next {
    /// Move this room.
    Room(RoomView),
    /// Nothing until then.
    At(Instant),
    /// Nothing until rooms are known.
    Nothing,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Plan {
    waiting: VecDeque<RoomView>,
    under_way: HashSet<RoomName>,
    stuck: HashMap<RoomName, Instant>,
    /// When the next room may go.
    due: Option<Instant>,
}

impl Plan {
    /// Whether there is no room to move that is known of.
    pub fn wants_rooms(&self, now: Instant) -> bool {
        self.waiting.is_empty() && self.stuck.values().all(|until| *until <= now)
    }

    /// The rooms that the map has on the node, and what the node says of them.
    pub fn set_rooms(&mut self, rooms: Vec<RoomView>, hosted: &HostedRooms) {
        let sizes: HashMap<&RoomName, u32> = hosted
            .rooms
            .iter()
            .map(|room| (&room.room, room.participants))
            .collect();
        self.stuck.retain(|room, _| rooms.iter().any(|view| view.room == *room));
        let mut rooms: Vec<RoomView> = rooms;
        rooms.retain(|view| !self.under_way.contains(&view.room));
        rooms.sort_by_key(|view| (sizes.get(&view.room).copied().unwrap_or_default(), view.room.clone()));
        self.waiting = rooms.into();
    }

    /// The next room, at this many rooms per second.
    pub fn next(&mut self, now: Instant, rate: f64) -> Next {
        if let Some(due) = self.due.filter(|due| *due > now) {
            return Next::At(due);
        }
        let is_ready = |view: &RoomView| self.stuck.get(&view.room).is_none_or(|until| *until <= now);
        let Some(index) = self.waiting.iter().position(is_ready) else {
            return Next::Nothing;
        };
        let Some(view) = self.waiting.remove(index) else {
            return Next::Nothing;
        };
        // From when the last one was due, so that the rate is kept; but what was not used before is not made up for.
        let gap = Duration::from_secs_f64(1.0 / rate.max(0.001));
        let from = self.due.filter(|due| now - *due < gap).unwrap_or(now);
        self.due = Some(from + gap);
        self.under_way.insert(view.room.clone());
        Next::Room(view)
    }

    /// Something else is done about the room; not if anything is under way already. [`Plan::moved`] or [`Plan::stuck`] must follow.
    pub fn begin(&mut self, room: &RoomName) -> bool {
        self.under_way.insert(room.clone())
    }

    /// It was not moved for want of a place.
    pub fn put_back(&mut self, view: RoomView) {
        self.under_way.remove(&view.room);
        self.waiting.push_front(view);
    }

    /// The room is the node's no more.
    pub fn moved(&mut self, room: &RoomName) {
        self.under_way.remove(room);
        self.stuck.remove(room);
    }

    /// No node took the room.
    pub fn stuck(&mut self, room: RoomName, now: Instant) {
        self.under_way.remove(&room);
        self.stuck.insert(room, now + TRY_AGAIN);
    }

    /// How many rooms no node took.
    pub fn stuck_rooms(&self) -> u64 {
        self.stuck.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use signalbox_protocol::node::HostedRoom;
    use signalbox_protocol::placement::RoomState;
    use signalbox_protocol::{Epoch, Generation, NodeId};

    use super::*;

    fn view(name: &str) -> RoomView {
        RoomView {
            room: name.parse().unwrap(),
            node: NodeId::random(),
            epoch: Epoch(1),
            generation: Generation(1),
            state: RoomState::Open,
            group: None,
            placed_at_ms: 0,
        }
    }

    fn hosted(sizes: &[(&str, u32)]) -> HostedRooms {
        let rooms = sizes.iter().map(|(name, participants)| HostedRoom {
            room: name.parse().unwrap(),
            generation: Generation(1),
            participants: *participants,
            moving: false,
        });
        HostedRooms { rooms: rooms.collect() }
    }

    fn room(next: Next) -> String {
        match next {
            Next::Room(view) => view.room.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_smallest_go_first_and_no_faster_than_the_rate() {
        let start = Instant::now();
        let mut plan = Plan::default();
        assert!(plan.wants_rooms(start));
        plan.set_rooms(
            vec![view("a"), view("b"), view("c")],
            &hosted(&[("a", 9), ("b", 1), ("c", 3)]),
        );
        assert_eq!(room(plan.next(start, 2.0)), "b", "the first one at once");
        let Next::At(due) = plan.next(start, 2.0) else { panic!() };
        assert_eq!(due, start + Duration::from_millis(500));
        assert_eq!(room(plan.next(due, 2.0)), "c");
        assert!(matches!(plan.next(due + Duration::from_millis(499), 2.0), Next::At(_)));
        assert_eq!(room(plan.next(due + Duration::from_millis(500), 2.0)), "a");
        assert!(matches!(plan.next(start + Duration::from_secs(9), 2.0), Next::Nothing));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_is_tried_again_later_and_holds_up_no_other() {
        let start = Instant::now();
        let mut plan = Plan::default();
        plan.set_rooms(vec![view("a"), view("b")], &HostedRooms::default());
        assert_eq!(room(plan.next(start, 1000.0)), "a");
        plan.stuck("a".parse().unwrap(), start);
        assert_eq!(plan.stuck_rooms(), 1);
        let later = start + Duration::from_millis(10);
        plan.set_rooms(vec![view("a"), view("b")], &HostedRooms::default());
        assert_eq!(room(plan.next(later, 1000.0)), "b");
        plan.moved(&"b".parse().unwrap());
        assert!(matches!(
            plan.next(later + Duration::from_millis(10), 1000.0),
            Next::Nothing
        ));
        assert_eq!(room(plan.next(start + TRY_AGAIN, 1000.0)), "a");
        plan.moved(&"a".parse().unwrap());
        assert_eq!(plan.stuck_rooms(), 0);
    }
}
