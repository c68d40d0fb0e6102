//! Nodes to place rooms on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use signalbox_orchestrator::placement::{Candidate, Scored, Situation};
use signalbox_protocol::NodeId;
use signalbox_protocol::node::NodeState;
use signalbox_protocol::placement::Track;

/// No node.
pub static NOBODY: BTreeSet<NodeId> = BTreeSet::new();

/// Idle nodes with these capacities.
pub fn nodes(capacities: impl IntoIterator<Item = u32>) -> Vec<Candidate> {
    capacities
        .into_iter()
        .zip(1_u64..)
        .map(|(capacity, n)| Candidate {
            // Ids as they are drawn, in order.
            node: NodeId(uuid::Uuid::from_u64_pair(
                n << 32,
                n.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            )),
            state: NodeState::Serving,
            lease_holds: true,
            ejected: false,
            region: String::new(),
            zone: String::new(),
            labels: BTreeMap::new(),
            track: Track::Stable,
            version: "1.4.2".into(),
            capacity,
            participants: 0,
        })
        .collect()
}

/// All of them, as an orchestrator sees them that is one of `orchestrators`.
pub fn seen(candidates: &[Candidate], orchestrators: usize, now: Duration) -> Situation<'_> {
    Situation {
        candidates,
        occupied: &NOBODY,
        bucket: None,
        orchestrators,
        now,
    }
}

/// All of them, with the load that they report.
pub fn scored(candidates: &[Candidate]) -> Vec<Scored<'_>> {
    candidates
        .iter()
        .map(|candidate| Scored {
            candidate,
            score: f64::from(candidate.participants) / f64::from(candidate.capacity),
        })
        .collect()
}

/// The busiest node's load as a multiple of the mean.
pub fn max_to_mean(loads: &[u32]) -> f64 {
    let most = loads.iter().max().copied().unwrap_or(0);
    let all: u32 = loads.iter().sum();
    f64::from(most) * loads.len() as f64 / f64::from(all)
}

/// Where in `candidates`, which are ordered by id, the node is.
pub fn index(candidates: &[Candidate], node: NodeId) -> usize {
    candidates
        .binary_search_by_key(&node, |candidate| candidate.node)
        .expect("the node is one of them")
}
