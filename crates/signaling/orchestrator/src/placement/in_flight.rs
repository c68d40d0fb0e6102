//! Rooms that were placed so recently that their node's reported load does not show them yet.
//!
//! Without this term every placement between two reports sees the same idle node. Each orchestrator knows only its own
//! placements.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use signalbox_protocol::NodeId;

/// How long it takes until a placed room shows in its node's reports. Higher: bursts spread more evenly, but a node
/// looks busy for longer than it is. Lower: the reverse.
pub const SETTLE: Duration = Duration::from_secs(5);

/// The most placements that are remembered for one node; beyond that the oldest is forgotten. Bounds memory and the
/// work of a score.
pub const MAX_PER_NODE: usize = 1024;

/// Own recent placements, by node.
#[derive(Debug, Default)]
pub struct InFlight {
    placed: HashMap<NodeId, VecDeque<Duration>>,
}

impl InFlight {
    /// A room was placed on `node` at `now`.
    pub fn note(&mut self, node: NodeId, now: Duration) {
        // Nodes come and go under new ids: forget those that have nothing recent.
        self.placed.retain(|_, times| {
            while times.front().is_some_and(|&placed| placed + SETTLE <= now) {
                times.pop_front();
            }
            !times.is_empty()
        });
        let times = self.placed.entry(node).or_default();
        if times.len() == MAX_PER_NODE {
            times.pop_front();
        }
        times.push_back(now);
    }

    /// How many rooms of `node` its reports do not show yet, each counted less as it gets older.
    pub fn rooms(&self, node: NodeId, now: Duration) -> f64 {
        let Some(times) = self.placed.get(&node) else {
            return 0.0;
        };
        times
            .iter()
            .map(|&placed| 1.0 - now.saturating_sub(placed).div_duration_f64(SETTLE).min(1.0))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(uuid::Uuid::from_u128(1));

    #[test]
    fn a_placement_counts_less_as_it_gets_older_and_then_not_at_all() {
        let mut in_flight = InFlight::default();
        in_flight.note(NODE, Duration::ZERO);
        assert_eq!(in_flight.rooms(NODE, Duration::ZERO), 1.0);
        assert_eq!(in_flight.rooms(NODE, SETTLE / 2), 0.5);
        assert_eq!(in_flight.rooms(NODE, SETTLE * 3), 0.0);
    }

    #[test]
    fn memory_is_bounded() {
        let mut in_flight = InFlight::default();
        for _ in 0..MAX_PER_NODE * 2 {
            in_flight.note(NODE, Duration::ZERO);
        }
        assert_eq!(in_flight.rooms(NODE, Duration::ZERO), MAX_PER_NODE as f64);
        for n in 2..100 {
            in_flight.note(NodeId(uuid::Uuid::from_u128(n)), SETTLE * n as u32);
        }
        assert_eq!(in_flight.placed.len(), 1);
    }
}
