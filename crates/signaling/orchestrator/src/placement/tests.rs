//! What holds for every choice, and the candidates that all tests of placement choose among.

mod choices;
mod properties;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use signalbox_protocol::NodeId;
use signalbox_protocol::node::NodeState;
use signalbox_protocol::placement::{PlaceRoom, Track};

use super::{Candidate, Scored, Situation};

pub(super) static NOBODY: BTreeSet<NodeId> = BTreeSet::new();

pub(super) fn node(n: u128) -> NodeId {
    NodeId(uuid::Uuid::from_u128(n))
}

/// A node that nothing speaks against.
pub(super) fn candidate(n: u128, participants: u32, capacity: u32) -> Candidate {
    Candidate {
        node: node(n),
        state: NodeState::Serving,
        lease_holds: true,
        ejected: false,
        region: String::new(),
        zone: String::new(),
        labels: BTreeMap::new(),
        track: Track::Stable,
        version: "1.4.2".into(),
        capacity,
        participants,
    }
}

pub(super) fn scored(candidates: &[Candidate]) -> Vec<Scored<'_>> {
    candidates
        .iter()
        .map(|candidate| Scored {
            candidate,
            score: f64::from(candidate.participants) / f64::from(candidate.capacity),
        })
        .collect()
}

pub(super) fn seen(candidates: &[Candidate]) -> Situation<'_> {
    Situation {
        candidates,
        occupied: &NOBODY,
        bucket: None,
        orchestrators: 1,
        now: Duration::ZERO,
    }
}

pub(super) fn request() -> PlaceRoom {
    PlaceRoom::new("daily".parse().unwrap())
}
