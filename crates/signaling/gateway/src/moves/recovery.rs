//! When to ask where a lost room is now, and of which room next. No I/O: the clock and the dice are arguments.
//!
//! A node's rooms are lost together. One of them, the biggest, is asked for again and again, as *scout*; when it is elsewhere, so may be the
//! others, and all are asked for at once: the biggest first, and at most [`MAX_UNDER_WAY`] at a time. Until then each of the others is asked for
//! once in [`PATIENT_PAUSE`], as it may have been moved by itself.
//!
//! Nothing here gives up: a room is asked for until it is found, or nobody is left who wants to know ([`Recovery::forget`]).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use signalbox_protocol::placement::Placement;
use signalbox_protocol::{Epoch, Generation, NodeId, RoomName};

/// How many rooms may be asked for, or be opened elsewhere, at a time. Higher: the last of a full node's rooms is back sooner. Lower: less of a
/// burst for orchestrators and for the nodes that take the rooms.
pub const MAX_UNDER_WAY: usize = 64;

/// The first pause between two questions for the same room; it doubles each time. Higher: the picture stands still for longer. Lower: more
/// questions while a node's fate is open.
pub const FIRST_PAUSE: Duration = Duration::from_millis(25);

/// The longest pause. See [`FIRST_PAUSE`].
pub const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// The pause of rooms that have a scout.
pub const PATIENT_PAUSE: Duration = Duration::from_secs(1);

/// Over how long the rooms of a node are spread, if there are more than [`MAX_UNDER_WAY`]: other gateways ask for the same rooms.
pub const SPREAD: Duration = Duration::from_millis(100);

/// One stay of a room at a node. Two are the same only if all of it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The room's generation.
    pub generation: Generation,
}

impl Place {
    /// Where a placement says that the room is.
    pub fn of(placement: &Placement) -> Self {
        Self {
            node: placement.node,
            epoch: placement.epoch,
            generation: placement.generation,
        }
    }

    fn group(self) -> (NodeId, Epoch) {
        (self.node, self.epoch)
    }
}

/// What came of asking for a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is there now, and can be joined.
    Elsewhere(Place),
    /// It is where it was, and its node answers.
    Back,
    /// The map still has it where it was, or nobody can say, or its new node does not answer.
    Unsettled,
}

#[derive(Debug)]
struct Lost {
    from: Place,
    size: usize,
    state: Waits,
    pause: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    Until(Duration),
    Ready,
    ForAnswer,
}

#[derive(Debug)]
struct Group {
    scout: RoomName,
    scout_size: usize,
    /// One of its rooms was found elsewhere.
    is_over: bool,
    rooms: usize,
}

/// The rooms that are lost at present.
///
/// Call [`Recovery::handle_lost`] and [`Recovery::handle_answer`] when something happens, then [`Recovery::poll`] until it gives nothing, and again at
/// [`Recovery::poll_timeout`]. Times are since any fixed moment.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Ordered, so that the same lost rooms are always asked for in the same order.
    rooms: BTreeMap<RoomName, Lost>,
    groups: HashMap<(NodeId, Epoch), Group>,
    waiting: BTreeSet<(Duration, RoomName)>,
    ready: BTreeSet<(Reverse<usize>, RoomName)>,
    under_way: usize,
}

impl Recovery {
    /// A node, or the way to it, is lost, and with it these rooms, each with the number of its participants. `dice` gives numbers from 0 to 1.
    /// A room that is lost from there already is not lost twice.
    pub fn handle_lost(
        &mut self,
        now: Duration,
        rooms: impl IntoIterator<Item = (RoomName, Place, usize)>,
        mut dice: impl FnMut() -> f64,
    ) {
        let mut touched = HashSet::new();
        for (room, from, size) in rooms {
            match self.rooms.get(&room) {
                Some(known) if known.from == from => continue,
                Some(_) => self.forget(&room),
                None => {}
            }
            let group = self.groups.entry(from.group()).or_insert_with(|| Group {
                scout: room.clone(),
                scout_size: size,
                is_over: false,
                rooms: 0,
            });
            group.rooms += 1;
            if group.scout_size < size {
                group.scout = room.clone();
                group.scout_size = size;
            }
            let due = if group.is_over {
                now
            } else {
                now + PATIENT_PAUSE.mul_f64(0.5 + dice() / 2.0)
            };
            touched.insert(from.group());
            self.waiting.insert((due, room.clone()));
            let lost = Lost {
                from,
                size,
                state: Waits::Until(due),
                pause: FIRST_PAUSE,
            };
            self.rooms.insert(room, lost);
        }
        for group in touched {
            let Some(scout) = self.groups.get(&group).map(|group| group.scout.clone()) else {
                continue;
            };
            let lost = self.rooms.get(&scout);
            if lost.is_some_and(|lost| lost.state != Waits::ForAnswer && lost.pause == FIRST_PAUSE) {
                self.wait(&scout, now);
            }
        }
    }

    /// What came of asking for a room that [`Recovery::poll`] gave.
    pub fn handle_answer(
        &mut self,
        now: Duration,
        room: &RoomName,
        answer: Answer,
        mut dice: impl FnMut() -> f64,
    ) -> Option<Place> {
        self.under_way = self.under_way.saturating_sub(1);
        let lost = self.rooms.get_mut(room)?;
        if lost.state != Waits::ForAnswer {
            return None;
        }
        let group = lost.from.group();
        match answer {
            Answer::Elsewhere(place) if place != lost.from => {
                self.forget(room);
                let known = self.groups.get_mut(&group);
                if known.is_some_and(|known| !std::mem::replace(&mut known.is_over, true)) {
                    self.ask_for_all(now, group, dice);
                }
                Some(place)
            }
            Answer::Back => {
                self.forget(room);
                self.ask_for_all(now, group, dice);
                None
            }
            _ => {
                let known = self.groups.get(&group);
                let leads = known.is_none_or(|group| group.is_over || group.scout == *room);
                let pause = if leads { lost.pause } else { PATIENT_PAUSE };
                lost.pause = (lost.pause * 2).min(LONGEST_PAUSE);
                // So that gateways that lost the same node at the same time do not go on asking at the same time.
                let due = now + pause.mul_f64(0.75 + dice() / 4.0);
                self.wait(room, due);
                None
            }
        }
    }

    /// Nobody wants to know about the room any more, or it is where it was after all.
    pub fn forget(&mut self, room: &RoomName) {
        let Some(lost) = self.rooms.remove(room) else {
            return;
        };
        self.unqueue(room, &lost);
        let group = lost.from.group();
        let Some(known) = self.groups.get_mut(&group) else {
            return;
        };
        known.rooms -= 1;
        if known.rooms == 0 {
            self.groups.remove(&group);
        } else if known.scout == *room {
            let rest = self.rooms.iter().filter(|(_, lost)| lost.from.group() == group);
            if let Some((scout, lost)) = rest.max_by_key(|(_, lost)| lost.size) {
                (known.scout, known.scout_size) = (scout.clone(), lost.size);
            }
        }
    }

    /// The next room to ask for.
    pub fn poll(&mut self, now: Duration) -> Option<RoomName> {
        while let Some((due, _)) = self.waiting.first()
            && *due <= now
        {
            let (_, room) = self.waiting.pop_first()?;
            if let Some(lost) = self.rooms.get_mut(&room) {
                lost.state = Waits::Ready;
                self.ready.insert((Reverse(lost.size), room));
            }
        }
        if self.under_way >= MAX_UNDER_WAY {
            return None;
        }
        let (_, room) = self.ready.pop_first()?;
        self.rooms.get_mut(&room)?.state = Waits::ForAnswer;
        self.under_way += 1;
        Some(room)
    }

    /// When to poll again, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.waiting.first().map(|(due, _)| *due)
    }

    /// Whether no room is lost.
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// From where the room is lost.
    pub fn lost_from(&self, room: &RoomName) -> Option<Place> {
        self.rooms.get(room).map(|lost| lost.from)
    }

    /// The fate of one of a node's rooms is known: asks for all of them.
    fn ask_for_all(&mut self, now: Duration, group: (NodeId, Epoch), mut dice: impl FnMut() -> f64) {
        let known = self.rooms.iter().filter(|(_, lost)| lost.from.group() == group);
        let rooms: Vec<_> = known
            .filter(|(_, lost)| lost.state != Waits::ForAnswer)
            .map(|(room, _)| room.clone())
            .collect();
        let over = if rooms.len() > MAX_UNDER_WAY {
            SPREAD
        } else {
            Duration::ZERO
        };
        for room in rooms {
            self.wait(&room, now + over.mul_f64(dice()));
        }
    }

    /// Asks for a room then, unless that is under way.
    fn wait(&mut self, room: &RoomName, due: Duration) {
        let Some(lost) = self.rooms.get_mut(room) else {
            return;
        };
        let before = std::mem::replace(&mut lost.state, Waits::Until(due));
        match before {
            Waits::Until(before) => drop(self.waiting.remove(&(before, room.clone()))),
            Waits::Ready => drop(self.ready.remove(&(Reverse(lost.size), room.clone()))),
            Waits::ForAnswer => {}
        }
        self.waiting.insert((due, room.clone()));
    }

    fn unqueue(&mut self, room: &RoomName, lost: &Lost) {
        match lost.state {
            Waits::Until(due) => drop(self.waiting.remove(&(due, room.clone()))),
            Waits::Ready => drop(self.ready.remove(&(Reverse(lost.size), room.clone()))),
            Waits::ForAnswer => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(generation: u64) -> Place {
        Place {
            node: NodeId(Default::default()),
            epoch: Epoch(1),
            generation: Generation(generation),
        }
    }

    fn room(number: usize) -> RoomName {
        format!("room-{number}").parse().unwrap()
    }

    /// This many rooms of one node; the first has one participant, the second two, and so on.
    fn lost(count: usize) -> Recovery {
        let mut recovery = Recovery::default();
        let rooms = (0..count).map(|number| (room(number), place(1), number + 1));
        recovery.handle_lost(Duration::ZERO, rooms, || 0.5);
        recovery
    }

    fn all(recovery: &mut Recovery, now: Duration) -> Vec<RoomName> {
        std::iter::from_fn(|| recovery.poll(now)).collect()
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn one_room_asks_for_all_until_it_is_elsewhere_and_then_the_biggest_come_first() {
        let mut recovery = lost(3);
        assert_eq!(all(&mut recovery, Duration::ZERO), [room(2)]);
        recovery.handle_answer(MS, &room(2), Answer::Unsettled, || 1.0);
        assert_eq!(recovery.poll_timeout(), Some(26 * MS));
        assert_eq!(all(&mut recovery, 26 * MS), [room(2)]);
        let answer = Answer::Elsewhere(place(2));
        assert_eq!(
            recovery.handle_answer(52 * MS, &room(2), answer, || 1.0),
            Some(place(2))
        );
        assert_eq!(all(&mut recovery, 52 * MS), [room(1), room(0)]);
    }

    #[test]
    fn the_pauses_grow_and_end_at_the_longest() {
        let mut recovery = lost(1);
        let mut now = Duration::ZERO;
        let mut pauses = Vec::new();
        for _ in 0..6 {
            assert_eq!(all(&mut recovery, now), [room(0)]);
            recovery.handle_answer(now, &room(0), Answer::Unsettled, || 1.0);
            let due = recovery.poll_timeout().unwrap();
            pauses.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(pauses, [25, 50, 100, 200, 200, 200]);
    }

    #[test]
    fn never_more_than_the_bound_are_asked_for_at_a_time() {
        let mut recovery = lost(1000);
        assert_eq!(all(&mut recovery, Duration::ZERO).len(), 1);
        recovery.handle_answer(MS, &room(999), Answer::Elsewhere(place(2)), || 0.0);
        let mut asked = all(&mut recovery, MS);
        assert_eq!(asked.len(), MAX_UNDER_WAY);
        assert_eq!(asked[0], room(998));
        let mut found = 1;
        while let Some(next) = asked.pop() {
            recovery.handle_answer(MS, &next, Answer::Elsewhere(place(2)), || 0.0);
            found += 1;
            asked.extend(all(&mut recovery, MS));
            assert!(asked.len() <= MAX_UNDER_WAY);
        }
        assert_eq!(found, 1000);
        assert!(recovery.is_empty());
    }

    #[test]
    fn many_rooms_are_spread_and_few_are_not() {
        for (count, spread) in [(10, Duration::ZERO), (200, SPREAD / 2)] {
            let mut recovery = lost(count);
            all(&mut recovery, Duration::ZERO);
            recovery.handle_answer(MS, &room(count - 1), Answer::Elsewhere(place(2)), || 0.5);
            assert_eq!(recovery.poll_timeout(), Some(MS + spread), "{count}");
        }
    }

    #[test]
    fn a_room_that_nobody_waits_for_any_more_is_not_asked_for_and_another_one_asks_for_the_rest() {
        let mut recovery = lost(2);
        assert_eq!(all(&mut recovery, Duration::ZERO), [room(1)]);
        recovery.forget(&room(1));
        assert_eq!(recovery.handle_answer(MS, &room(1), Answer::Unsettled, || 1.0), None);
        let due = recovery.poll_timeout().unwrap();
        assert_eq!(all(&mut recovery, due), [room(0)]);
        recovery.handle_answer(due, &room(0), Answer::Unsettled, || 1.0);
        assert_eq!(recovery.poll_timeout(), Some(due + FIRST_PAUSE));
    }

    #[test]
    fn a_node_that_is_back_is_asked_about_all_of_its_rooms_at_once() {
        let mut recovery = lost(3);
        assert_eq!(all(&mut recovery, Duration::ZERO), [room(2)]);
        recovery.handle_answer(MS, &room(2), Answer::Back, || 1.0);
        assert_eq!(all(&mut recovery, MS), [room(1), room(0)]);
    }

    #[test]
    fn the_answer_that_a_room_is_where_it_was_is_no_move() {
        let mut recovery = lost(1);
        all(&mut recovery, Duration::ZERO);
        let answer = Answer::Elsewhere(place(1));
        assert_eq!(recovery.handle_answer(MS, &room(0), answer, || 1.0), None);
        assert!(!recovery.is_empty());
    }

    #[test]
    fn a_room_that_is_lost_twice_from_one_place_is_lost_once() {
        let mut recovery = lost(1);
        assert_eq!(all(&mut recovery, Duration::ZERO), [room(0)]);
        recovery.handle_lost(MS, [(room(0), place(1), 9)], || 0.5);
        assert_eq!(all(&mut recovery, MS), []);
        recovery.handle_lost(MS, [(room(0), place(2), 9)], || 0.5);
        assert_eq!(all(&mut recovery, MS), [room(0)]);
        assert_eq!(recovery.lost_from(&room(0)), Some(place(2)));
    }
}
