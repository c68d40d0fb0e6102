//! Which nodes to ask for their rooms, so that the map is compared with what the nodes really host.
//!
//! A map that came back from a standby which lagged lacks rooms; the nodes know them. Owns, for each node, what it was last
//! asked and when. Holds nothing that matters: a node that is forgotten is asked once more.

use std::collections::BTreeMap;
use std::time::Duration;

use signalbox_protocol::{Epoch, NodeId};
use tokio::time::Instant;

/// How often a node is asked when nothing happened. Higher: less work for nodes with many rooms. Lower: what differs for
/// reasons that nobody foresaw is found sooner.
pub const EVERY: Duration = Duration::from_secs(30);

/// How long after the store came back as another one all nodes are asked for a second time. Only when every node's rooms have been compared
/// once is it known which of two nodes that name the same room has the higher generation. Higher: nodes that come back later are taken
/// into account. Lower: the one that has the room no more learns it sooner.
pub const SETTLED: Duration = Duration::from_secs(5);

/// How long rooms that were asked for are waited for, before they are asked for again. Higher: less work when they came
/// to another orchestrator. Lower: a lost answer matters less.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The most nodes that are remembered. When there are more, one is forgotten for each new one.
pub const MAX_NODES: usize = 16_384;

/// What is remembered of the nodes.
#[derive(Debug, Default)]
pub struct Digests {
    nodes: BTreeMap<NodeId, Memory>,
    /// The store's incarnation, and since when it is known.
    incarnation: Option<(String, Instant)>,
}

#[derive(Debug)]
struct Memory {
    epoch: Epoch,
    /// The store's incarnation and the time when the rooms were compared last.
    compared: Option<(String, Instant)>,
    asked: Option<Instant>,
}

impl Digests {
    /// Whether to ask the node for its rooms in the answer to its heartbeat: at the first one of an epoch, when the store has
    /// another incarnation, again when that has [`SETTLED`], and after [`EVERY`].
    pub fn wanted(&mut self, node: NodeId, epoch: Epoch, incarnation: &str, now: Instant) -> bool {
        let settled = self.since(incarnation, now) + SETTLED;
        let memory = self.of(node, epoch);
        let recent = |(of, at): &(String, Instant)| {
            let before_settled = *at < settled && settled <= now;
            of == incarnation && now < *at + EVERY && !before_settled
        };
        if memory.compared.as_ref().is_some_and(recent) || memory.asked.is_some_and(|asked| now < asked + PATIENCE) {
            return false;
        }
        memory.asked = Some(now);
        true
    }

    /// The rooms of the node were compared with the map. `incarnation` is the store's of which the caller knew before.
    pub fn compared(&mut self, node: NodeId, epoch: Epoch, incarnation: &str, now: Instant) {
        let memory = self.of(node, epoch);
        memory.compared = Some((incarnation.to_owned(), now));
        memory.asked = None;
    }

    /// Since when the store has this incarnation.
    fn since(&mut self, incarnation: &str, now: Instant) -> Instant {
        match &self.incarnation {
            Some((known, since)) if known == incarnation => *since,
            _ => {
                self.incarnation = Some((incarnation.to_owned(), now));
                now
            }
        }
    }

    fn of(&mut self, node: NodeId, epoch: Epoch) -> &mut Memory {
        if self.nodes.len() >= MAX_NODES && !self.nodes.contains_key(&node) {
            self.nodes.pop_first();
        }
        let new = || Memory {
            epoch,
            compared: None,
            asked: None,
        };
        let memory = self.nodes.entry(node).or_insert_with(new);
        if memory.epoch != epoch {
            *memory = new();
        }
        memory
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const NODE: NodeId = NodeId(Uuid::from_u128(1));

    #[test]
    fn rooms_are_wanted_again_when_another_store_has_settled() {
        let (mut digests, start) = (Digests::default(), Instant::now());
        assert!(digests.wanted(NODE, Epoch(1), "a", start));
        digests.compared(NODE, Epoch(1), "a", start);
        assert!(!digests.wanted(NODE, Epoch(1), "a", start + SETTLED - Duration::from_millis(1)));
        assert!(digests.wanted(NODE, Epoch(1), "a", start + SETTLED));
        digests.compared(NODE, Epoch(1), "a", start + SETTLED);
        assert!(!digests.wanted(NODE, Epoch(1), "a", start + SETTLED * 2));
    }

    #[test]
    fn rooms_are_wanted_first_and_then_every_half_minute() {
        let (mut digests, start) = (Digests::default(), Instant::now());
        assert!(digests.wanted(NODE, Epoch(1), "a", start));
        let start = start + SETTLED;
        digests.compared(NODE, Epoch(1), "a", start);
        assert!(!digests.wanted(NODE, Epoch(1), "a", start + EVERY - Duration::from_millis(1)));
        assert!(digests.wanted(NODE, Epoch(1), "a", start + EVERY));
    }

    #[test]
    fn another_epoch_or_incarnation_is_asked_at_once() {
        let (mut digests, now) = (Digests::default(), Instant::now());
        digests.compared(NODE, Epoch(1), "a", now);
        assert!(!digests.wanted(NODE, Epoch(1), "a", now));
        assert!(digests.wanted(NODE, Epoch(1), "b", now));
        assert!(digests.wanted(NODE, Epoch(2), "a", now));
    }

    #[test]
    fn rooms_that_do_not_come_are_asked_for_again_after_a_while() {
        let (mut digests, now) = (Digests::default(), Instant::now());
        assert!(digests.wanted(NODE, Epoch(1), "a", now));
        assert!(!digests.wanted(NODE, Epoch(1), "a", now + PATIENCE / 2));
        assert!(digests.wanted(NODE, Epoch(1), "a", now + PATIENCE));
    }

    #[test]
    fn memory_is_bounded() {
        let (mut digests, now) = (Digests::default(), Instant::now());
        for n in 0..2 * MAX_NODES as u128 {
            digests.wanted(NodeId(Uuid::from_u128(n)), Epoch(1), "a", now);
        }
        assert_eq!(digests.nodes.len(), MAX_NODES);
    }
}
