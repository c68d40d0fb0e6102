//! What came of joins on each node, which the orchestrators count to compare canary nodes with stable ones.
//!
//! A join counts as failed on a node that does not take it though it should: one that cannot be reached, does not answer, or has a fault. What a client does
//! wrong, and a room or node that is full or moves, counts as neither. Told once in a [`PAUSE`] in one request, if there is anything to tell; what no orchestrator
//! takes is lost, for both tracks alike.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signalbox_protocol::canary::{MAX_REPORTED_NODES, NodeJoins, ReportOutcomes, Tally};
use signalbox_protocol::{Identity, NodeId, RoomName};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::orchestrators::Orchestrators;

/// How often the orchestrators are told. Higher: fewer requests. Lower: they learn sooner that joins fail.
const PAUSE: Duration = Duration::from_secs(1);

/// For how long somebody whose join failed does not count again in the same room: one that tries again and again is one failure, not many. Higher: the
/// reverse of lower. Lower: single users weigh more.
const REPEAT: Duration = Duration::from_secs(600);

/// Of how many that is remembered. Higher: more memory (some 40 bytes each). Lower: when many fail, some count twice.
const MAX_REMEMBERED: usize = 10_000;

/// Counts, and tells.
#[derive(Debug)]
pub(crate) struct Outcomes {
    orchestrators: Arc<Orchestrators>,
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    nodes: HashMap<NodeId, Tally>,
    /// When each counted last, by a hash of room and identity.
    failing: HashMap<u64, Instant>,
    hashes: RandomState,
}

impl Outcomes {
    pub(crate) fn new(orchestrators: Arc<Orchestrators>) -> Self {
        Self {
            orchestrators,
            pending: Mutex::default(),
        }
    }

    /// A join succeeded there.
    pub(crate) fn joined(&self, node: NodeId) {
        self.pending().add(node, Tally { ok: 1, failed: 0 });
    }

    /// A join failed there, by no fault of its own.
    pub(crate) fn failed(&self, node: NodeId, room: &RoomName, user: Option<&Identity>) {
        let mut pending = self.pending();
        if pending.counts(room, user, Instant::now()) {
            pending.add(node, Tally { ok: 0, failed: 1 });
        }
    }

    /// Tells the orchestrators, until `shutdown`.
    pub(crate) async fn tell(self: Arc<Self>, shutdown: CancellationToken) {
        let telling = async {
            let mut ticks = tokio::time::interval(PAUSE);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let nodes = self.pending().take();
                if !nodes.is_empty() {
                    self.orchestrators.tell_outcomes(&ReportOutcomes { nodes }).await;
                }
            }
        };
        shutdown.run_until_cancelled(telling).await;
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    fn add(&mut self, node: NodeId, joins: Tally) {
        if self.nodes.len() >= MAX_REPORTED_NODES && !self.nodes.contains_key(&node) {
            return;
        }
        let counted = self.nodes.entry(node).or_default();
        *counted = counted.plus(joins);
    }

    fn counts(&mut self, room: &RoomName, user: Option<&Identity>, now: Instant) -> bool {
        let key = self.hashes.hash_one((room.as_str(), user.map(Identity::as_str)));
        if self.failing.get(&key).is_some_and(|at| now < *at + REPEAT) {
            return false;
        }
        if self.failing.len() >= MAX_REMEMBERED {
            self.failing.retain(|_, at| now < *at + REPEAT);
            if self.failing.len() >= MAX_REMEMBERED {
                self.failing.clear();
            }
        }
        self.failing.insert(key, now);
        true
    }

    fn take(&mut self) -> Vec<NodeJoins> {
        let nodes = self.nodes.drain();
        nodes.map(|(node, joins)| NodeJoins { node, joins }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_again_and_again_counts_once_in_a_while() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        let (daily, weekly): (RoomName, RoomName) = ("daily".parse().unwrap(), "weekly".parse().unwrap());
        let (ann, bob): (Identity, Identity) = ("ann".parse().unwrap(), "bob".parse().unwrap());
        assert!(pending.counts(&daily, Some(&ann), now));
        for minutes in 1..10 {
            assert!(!pending.counts(&daily, Some(&ann), now + Duration::from_secs(minutes * 60)));
        }
        assert!(pending.counts(&daily, Some(&bob), now), "somebody else");
        assert!(pending.counts(&weekly, Some(&ann), now), "elsewhere");
        assert!(pending.counts(&daily, Some(&ann), now + REPEAT));
    }

    #[test]
    fn what_is_counted_and_remembered_is_bounded() {
        let (mut pending, now) = (Pending::default(), Instant::now());
        let room: RoomName = "daily".parse().unwrap();
        for n in 0..2 * MAX_REMEMBERED {
            pending.add(NodeId::random(), Tally { ok: 1, failed: 0 });
            pending.counts(&room, Some(&n.to_string().parse().unwrap()), now);
        }
        assert!(pending.failing.len() <= MAX_REMEMBERED);
        assert_eq!(pending.take().len(), MAX_REPORTED_NODES);
        assert_eq!(pending.take(), []);
    }
}
