//! What this orchestrator was told of outcomes since it last told the map; pure.
//!
//! Nothing here is worth a repetition: what is lost on the way, or told to an orchestrator that goes, is lost for both tracks alike.

use std::collections::HashMap;

use signalbox_protocol::canary::{Outcomes, Tally};
use signalbox_protocol::{Epoch, NodeId};

use crate::store::canary::NodeOutcomes;

/// How many nodes are remembered. Higher: more memory (about 150 bytes each). Lower: of a larger cluster's nodes some do not count.
pub const MAX_NODES: usize = 10_000;

/// The tallies.
#[derive(Debug, Default)]
pub struct Tallies {
    pending: HashMap<NodeId, Outcomes>,
    seen: HashMap<NodeId, Seen>,
}

/// What a node's last heartbeat here said.
#[derive(Debug)]
struct Seen {
    epoch: Epoch,
    beat: u64,
    connections: Tally,
}

impl Tallies {
    /// A gateway tells of joins on a node.
    pub fn joins(&mut self, node: NodeId, joins: Tally) {
        self.add(
            node,
            Outcomes {
                joins,
                ..Outcomes::default()
            },
        );
    }

    /// A node's heartbeat tells of its connections since the node's process began. What has come since the heartbeat before counts, if that was told
    /// here: another orchestrator has counted what came before others, or nobody has.
    pub fn beat(&mut self, node: NodeId, epoch: Epoch, beat: u64, connections: Tally) {
        if self.seen.len() >= MAX_NODES && !self.seen.contains_key(&node) {
            self.seen.clear();
        }
        let now = Seen {
            epoch,
            beat,
            connections,
        };
        let Some(before) = self.seen.insert(node, now) else {
            return;
        };
        if (before.epoch, before.beat.saturating_add(1)) != (epoch, beat) {
            return;
        }
        let connections = Tally {
            ok: connections.ok.saturating_sub(before.connections.ok),
            failed: connections.failed.saturating_sub(before.connections.failed),
        };
        self.add(
            node,
            Outcomes {
                connections,
                ..Outcomes::default()
            },
        );
    }

    /// All that was told since the last call.
    pub fn take(&mut self) -> Vec<NodeOutcomes> {
        let pending = self.pending.drain();
        pending
            .map(|(node, outcomes)| NodeOutcomes { node, outcomes })
            .collect()
    }

    fn add(&mut self, node: NodeId, outcomes: Outcomes) {
        if outcomes == Outcomes::default() || (self.pending.len() >= MAX_NODES && !self.pending.contains_key(&node)) {
            return;
        }
        let pending = self.pending.entry(node).or_default();
        *pending = pending.plus(outcomes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch(3);

    fn tally(ok: u64, failed: u64) -> Tally {
        Tally { ok, failed }
    }

    fn connections(tallies: &mut Tallies) -> Tally {
        let taken = tallies.take();
        taken
            .iter()
            .fold(Tally::default(), |sum, one| sum.plus(one.outcomes.connections))
    }

    #[test]
    fn what_came_between_two_heartbeats_counts_once() {
        let (mut tallies, node) = (Tallies::default(), NodeId::random());
        tallies.beat(node, EPOCH, 1, tally(100, 7));
        assert_eq!(tallies.take(), [], "it may have been counted before");
        tallies.beat(node, EPOCH, 2, tally(103, 8));
        tallies.beat(node, EPOCH, 3, tally(104, 8));
        assert_eq!(connections(&mut tallies), tally(4, 1));
        tallies.beat(node, EPOCH, 4, tally(104, 8));
        assert_eq!(tallies.take(), [], "nothing happened");
    }

    #[test]
    fn what_another_orchestrator_was_told_does_not_count_here() {
        let (mut tallies, node) = (Tallies::default(), NodeId::random());
        tallies.beat(node, EPOCH, 1, tally(10, 0));
        // The second and third went elsewhere.
        tallies.beat(node, EPOCH, 4, tally(40, 30));
        assert_eq!(tallies.take(), []);
        tallies.beat(node, EPOCH, 5, tally(41, 30));
        assert_eq!(connections(&mut tallies), tally(1, 0));
    }

    #[test]
    fn a_process_that_begins_anew_counts_anew() {
        let (mut tallies, node) = (Tallies::default(), NodeId::random());
        tallies.beat(node, EPOCH, 1, tally(10, 5));
        tallies.beat(node, Epoch(4), 2, tally(100, 50));
        assert_eq!(tallies.take(), []);
        // A number that shrinks is not believed, whatever the epoch.
        tallies.beat(node, Epoch(4), 3, tally(1, 0));
        assert_eq!(tallies.take(), []);
    }

    #[test]
    fn joins_of_several_gateways_add_up_for_each_node() {
        let (mut tallies, node, other) = (Tallies::default(), NodeId::random(), NodeId::random());
        tallies.joins(node, tally(1, 0));
        tallies.joins(node, tally(2, 1));
        tallies.joins(other, tally(0, 1));
        let mut taken = tallies.take();
        taken.sort_by_key(|one| one.outcomes.joins.failed + 10 * one.outcomes.joins.ok);
        assert_eq!(taken.iter().map(|one| one.node).collect::<Vec<_>>(), [other, node]);
        assert_eq!(taken[1].outcomes.joins, tally(3, 1));
        assert_eq!(tallies.take(), []);
    }

    #[test]
    fn the_number_of_nodes_is_bounded() {
        let mut tallies = Tallies::default();
        for beat in 1..=2 {
            for n in 0..=MAX_NODES {
                let node = NodeId(uuid::Uuid::from_u128(n as u128));
                tallies.joins(node, tally(1, 0));
                tallies.beat(node, EPOCH, beat, tally(beat, 0));
            }
        }
        assert!(tallies.seen.len() <= MAX_NODES);
        assert_eq!(tallies.take().len(), MAX_NODES);
    }
}
