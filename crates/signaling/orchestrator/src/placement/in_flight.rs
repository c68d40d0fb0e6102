//! Rooms that were placed so recently that their node's reported load does not show them yet.
//!
//! Without this term every placement between two reports sees the same idle node. Each orchestrator knows only its own
//! placements.
//!
//! **Call [`InFlight::advance`] before reading.** Notes and reads cost the same however many rooms are in flight.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use signalbox_protocol::NodeId;

/// How long it takes until a placed room shows in its node's reports. Higher: bursts spread more evenly, but a node
/// looks busy for longer than it is. Lower: the reverse.
pub const SETTLE: Duration = Duration::from_secs(5);

/// The most placements that are remembered; beyond that the oldest is forgotten early. Higher: more memory, 24 bytes each.
/// Lower: bursts of more than this many rooms in [`SETTLE`] spread less evenly.
pub const MAX_PLACEMENTS: usize = 1 << 17;

/// Own recent placements.
#[derive(Debug, Default)]
pub struct InFlight {
    /// The latest time that it was told.
    now: Duration,
    /// Oldest first.
    placements: VecDeque<(Duration, NodeId)>,
    /// What `placements` says, by node; only nodes that it names.
    nodes: HashMap<NodeId, Recent>,
}

#[derive(Debug, Default)]
struct Recent {
    rooms: u32,
    /// The sum of the times at which they were placed, in nanoseconds.
    placed: u128,
}

impl InFlight {
    /// It is `now`. A time before one that it was told already counts as that one.
    pub fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
        while let Some(&(placed, _)) = self.placements.front()
            && self.now - placed >= SETTLE
        {
            self.forget_oldest();
        }
    }

    /// A room was placed on `node` at `now`.
    pub fn note(&mut self, node: NodeId, now: Duration) {
        self.advance(now);
        if self.placements.len() == MAX_PLACEMENTS {
            self.forget_oldest();
        }
        self.placements.push_back((self.now, node));
        let recent = self.nodes.entry(node).or_default();
        recent.rooms += 1;
        recent.placed += self.now.as_nanos();
    }

    /// How many rooms of `node` its reports do not show yet, each counted less as it gets older: Σ (1 − age / [`SETTLE`]).
    pub fn rooms(&self, node: NodeId) -> f64 {
        let Some(recent) = self.nodes.get(&node) else {
            return 0.0;
        };
        // The ages are summed up without a look at each; in whole nanoseconds, so that nothing is lost over a year.
        let rooms = u128::from(recent.rooms);
        let ages = rooms * self.now.as_nanos() - recent.placed;
        let left = rooms * SETTLE.as_nanos() - ages;
        left as f64 / SETTLE.as_nanos() as f64
    }

    fn forget_oldest(&mut self) {
        let Some((placed, node)) = self.placements.pop_front() else {
            return;
        };
        if let Some(recent) = self.nodes.get_mut(&node) {
            recent.rooms -= 1;
            recent.placed -= placed.as_nanos();
            if recent.rooms == 0 {
                self.nodes.remove(&node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u128) -> NodeId {
        NodeId(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn a_placement_counts_less_as_it_gets_older_and_then_not_at_all() {
        let start = SETTLE;
        let mut in_flight = InFlight::default();
        in_flight.note(node(1), start);
        assert_eq!(in_flight.rooms(node(1)), 1.0);
        in_flight.advance(start + SETTLE / 2);
        assert_eq!(in_flight.rooms(node(1)), 0.5);
        in_flight.note(node(1), start + SETTLE * 3 / 4);
        assert_eq!(in_flight.rooms(node(1)), 1.25);
        in_flight.advance(start + SETTLE);
        assert_eq!(in_flight.rooms(node(1)), 0.75);
        in_flight.advance(start + SETTLE * 3);
        assert_eq!(in_flight.rooms(node(1)), 0.0);
    }

    #[test]
    fn nothing_is_lost_after_a_long_uptime() {
        let century = Duration::from_secs(100 * 366 * 24 * 3600);
        let mut in_flight = InFlight::default();
        in_flight.note(node(1), century);
        in_flight.note(node(1), century + SETTLE / 2);
        assert_eq!(in_flight.rooms(node(1)), 1.5);
    }

    #[test]
    fn a_time_that_comes_late_counts_as_the_latest() {
        let mut in_flight = InFlight::default();
        in_flight.note(node(1), SETTLE * 2);
        in_flight.note(node(2), SETTLE);
        assert_eq!(in_flight.rooms(node(2)), 1.0);
        in_flight.advance(SETTLE * 3);
        assert_eq!((in_flight.rooms(node(1)), in_flight.rooms(node(2))), (0.0, 0.0));
    }

    #[test]
    fn memory_is_bounded_and_settled_nodes_are_forgotten() {
        let mut in_flight = InFlight::default();
        for _ in 0..MAX_PLACEMENTS * 2 {
            in_flight.note(node(1), Duration::ZERO);
        }
        assert_eq!(in_flight.rooms(node(1)), MAX_PLACEMENTS as f64);
        for n in 2..100 {
            in_flight.note(node(n), SETTLE * n as u32);
        }
        assert_eq!((in_flight.placements.len(), in_flight.nodes.len()), (1, 1));
    }
}
