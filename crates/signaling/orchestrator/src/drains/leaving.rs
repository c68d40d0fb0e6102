//! How long a room takes from being handed over until its former node is seen not to host it any more. No clock, no I/O.
//!
//! A drain is over when the last room has left, not when it was handed over, and how long that takes is the clients' and the gateways'
//! doing: it can only be measured. A room that nobody was in leaves at once, and says nothing about the others.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use signalbox_protocol::RoomName;
use signalbox_protocol::node::HostedRooms;
use tokio::time::Instant;

/// What is told until the first room was seen to leave: about as long as gateways wait for what clients were sending to come in at the new
/// node. Higher: the first times that are told are too long if clients are quick. Lower: too short if they are not.
pub const FIRST_GUESS: Duration = Duration::from_secs(2);

/// The weight of what was known before against one more room. Higher: one that is slow misleads less. Lower: what changes is followed sooner.
const WEIGHT: u32 = 7;

/// See the module.
#[derive(Debug, Default)]
pub struct Leaving {
    /// Rooms with somebody in them, as the node said last.
    inhabited: HashSet<RoomName>,
    /// When those were handed over that have not left.
    under_way: HashMap<RoomName, Instant>,
    takes: Option<Duration>,
}

impl Leaving {
    /// The room was handed over at this time.
    pub fn handle_handed(&mut self, room: &RoomName, at: Instant) {
        if self.inhabited.contains(room) {
            self.under_way.insert(room.clone(), at);
        }
    }

    /// What the node hosts at this time.
    pub fn handle_hosted(&mut self, hosted: &HostedRooms, now: Instant) {
        let there: HashSet<&RoomName> = hosted.rooms.iter().map(|room| &room.room).collect();
        let (mut sum, mut count) = (Duration::ZERO, 0);
        self.under_way.retain(|room, handed| {
            let is_there = there.contains(room);
            if !is_there {
                // It left earlier, since the last look; but a drain is not over before that is seen either.
                sum += now - *handed;
                count += 1;
            }
            is_there
        });
        if count > 0 {
            let mean = sum / count;
            self.takes = Some(self.takes.map_or(mean, |known| (known * WEIGHT + mean) / (WEIGHT + 1)));
        }
        let inhabited = hosted.rooms.iter().filter(|room| room.participants > 0);
        self.inhabited = inhabited.map(|room| room.room.clone()).collect();
    }

    /// What another carrier of the drain has measured; what was measured here counts more.
    pub fn handle_known(&mut self, takes: Option<Duration>) {
        self.takes = self.takes.or(takes);
    }

    /// Whether rooms that were handed over have not left.
    pub fn is_waiting(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// How long it takes; none: nobody was seen to leave.
    pub fn takes(&self) -> Option<Duration> {
        self.takes
    }
}

#[cfg(test)]
mod tests {
    use signalbox_protocol::Generation;
    use signalbox_protocol::node::HostedRoom;

    use super::*;

    fn hosted(rooms: &[(&str, u32)]) -> HostedRooms {
        let rooms = rooms.iter().map(|(name, participants)| HostedRoom {
            room: name.parse().unwrap(),
            generation: Generation(1),
            participants: *participants,
            moving: true,
        });
        HostedRooms { rooms: rooms.collect() }
    }

    fn room(name: &str) -> RoomName {
        name.parse().unwrap()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_time_until_a_room_was_seen_to_have_left_is_measured() {
        let (mut leaving, start) = (Leaving::default(), Instant::now());
        leaving.handle_hosted(&hosted(&[("a", 2)]), start);
        leaving.handle_handed(&room("a"), start);
        assert!(leaving.is_waiting());
        leaving.handle_hosted(&hosted(&[("a", 1)]), start + SECOND * 2);
        assert_eq!(leaving.takes(), None, "it is still there");
        leaving.handle_hosted(&hosted(&[]), start + SECOND * 3);
        assert_eq!(leaving.takes(), Some(SECOND * 3));
        assert!(!leaving.is_waiting());
    }

    #[tokio::test(start_paused = true)]
    async fn a_room_that_nobody_was_in_says_nothing() {
        let (mut leaving, start) = (Leaving::default(), Instant::now());
        leaving.handle_hosted(&hosted(&[("empty", 0)]), start);
        leaving.handle_handed(&room("empty"), start);
        leaving.handle_handed(&room("never opened"), start);
        leaving.handle_hosted(&hosted(&[]), start);
        assert!(!leaving.is_waiting());
        assert_eq!(leaving.takes(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_slow_room_moves_the_time_a_little_and_what_was_measured_here_counts_more_than_what_was_noted() {
        let (mut leaving, start) = (Leaving::default(), Instant::now());
        leaving.handle_known(Some(SECOND));
        leaving.handle_known(Some(SECOND * 5));
        assert_eq!(leaving.takes(), Some(SECOND));
        leaving.handle_hosted(&hosted(&[("slow", 1)]), start);
        leaving.handle_handed(&room("slow"), start);
        leaving.handle_hosted(&hosted(&[("slow", 1)]), start + SECOND * 9);
        leaving.handle_hosted(&hosted(&[]), start + SECOND * 9);
        assert_eq!(leaving.takes(), Some(SECOND * 2));
    }
}
