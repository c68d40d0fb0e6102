//! Rooms of a shard that are another node's already: where those in them are to go, and until when they are served here.
//!
//! It must not know the core or the links.

use std::collections::HashMap;
use std::time::Instant;

use signalbox_protocol::RoomName;
use signalbox_protocol::control::Event;
use signalbox_protocol::placement::Placement;

/// The moving rooms. There are as many as rooms at most, and few at a time.
#[derive(Debug, Default)]
pub struct Moves(HashMap<RoomName, Move>);

#[derive(Debug)]
struct Move {
    to: Placement,
    until: Instant,
}

impl Move {
    fn event(&self, now: Instant) -> Event {
        let within = self.until.saturating_duration_since(now);
        Event::Moving {
            to: Box::new(self.to.clone()),
            within_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Moves {
    /// A room begins to move, or is sent elsewhere than before. What its participants' gateways are to be told.
    pub fn begin(&mut self, now: Instant, room: RoomName, to: Placement, until: Instant) -> Event {
        let begun = Move { to, until };
        let event = begun.event(now);
        self.0.insert(room, begun);
        event
    }

    /// What a gateway is to be told that takes up one of the room's participants now; none: the room does not move.
    pub fn event(&self, now: Instant, room: &RoomName) -> Option<Event> {
        self.0.get(room).map(|moving| moving.event(now))
    }

    /// The room has ended.
    pub fn forget(&mut self, room: &RoomName) {
        self.0.remove(room);
    }

    /// When the next one's time is over.
    pub fn due(&self) -> Option<Instant> {
        self.0.values().map(|moving| moving.until).min()
    }

    /// Those that are to end: nobody is in them any more, or their time is over.
    pub fn over(&self, now: Instant, is_empty: impl Fn(&RoomName) -> bool) -> Vec<RoomName> {
        let over = self.0.iter();
        over.filter(|(room, moving)| moving.until <= now || is_empty(room))
            .map(|(room, _)| room.clone())
            .collect()
    }
}
