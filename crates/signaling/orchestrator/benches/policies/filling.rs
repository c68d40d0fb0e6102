//! What happens while a cluster fills up: which nodes run dry, and where rooms spill over.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use signalbox_orchestrator::placement::{Candidate, Chooser, Settings};
use signalbox_protocol::placement::{PlaceRoom, Policy};

use crate::cluster::{index, nodes, seen};
use crate::{Bar, Row, Scale};

const NODES: usize = 10;

fn request() -> PlaceRoom {
    PlaceRoom::new("room".parse().expect("a name"))
}

fn one_participant() -> Settings {
    Settings {
        expected_participants: 1.0,
        ..Settings::default()
    }
}

pub fn packing(_: Scale) -> Vec<Row> {
    let mut rows = Vec::new();
    for policy in [Policy::TwoChoices, Policy::Packing] {
        let (rooms, ran_dry) = rooms_come_and_go(policy);
        let dry = rooms.iter().filter(|&&rooms| rooms == 0).count();
        let fullest = rooms.iter().max().copied().unwrap_or(0);
        let packs = policy == Policy::Packing;
        // 275 rooms at 65 a node need five nodes.
        let bar = if packs { Bar::Within(5.0, 0.0) } else { Bar::None };
        rows.push(Row::new(
            format!("{policy}: nodes without rooms in the end"),
            dry as f64,
            bar,
        ));
        let what = format!("{policy}: rooms on the fullest in the end");
        rows.push(Row::new(what, f64::from(fullest), Bar::AtMost(65.0)));
        if packs {
            // The five emptiest.
            let had: u32 = ran_dry.iter().take(5).map(|&n| at_first(n)).sum();
            let what = format!("{policy}: rooms that the first five to run dry had at first");
            rows.push(Row::new(what, f64::from(had), Bar::Within(75.0, 0.0)));
        }
    }
    rows
}

fn at_first(n: usize) -> u32 {
    5 * (n as u32 + 1)
}

/// How many rooms each node has in the end, and which ran dry, in that order.
fn rooms_come_and_go(policy: Policy) -> (Vec<u32>, Vec<usize>) {
    // Each room is replaced some 36 times.
    const CHANGES: u32 = 10_000;
    let mut rng = StdRng::seed_from_u64(5);
    let mut candidates = nodes([100; NODES]);
    for (n, candidate) in candidates.iter_mut().enumerate() {
        candidate.participants = at_first(n);
    }
    let (mut ran_dry, mut due) = (Vec::new(), [0.0; NODES]);
    let mut chooser = Chooser::new(Settings {
        policy,
        ..one_participant()
    });
    for _ in 0..CHANGES {
        let ends = next_to_lose(&candidates, &mut due);
        candidates[ends].participants -= 1;
        if candidates[ends].participants == 0 && !ran_dry.contains(&ends) {
            ran_dry.push(ends);
        }
        let choice = chooser.choose(&request(), &seen(&candidates, 1, Duration::ZERO), &mut rng);
        let chosen = index(&candidates, choice.node.expect("there is room"));
        candidates[chosen].participants += 1;
    }
    (candidates.iter().map(|node| node.participants).collect(), ran_dry)
}

/// The node whose room ends next. Nodes lose rooms as they have rooms, and not by chance, so that the order in which they run
/// dry is the policy's doing.
fn next_to_lose(candidates: &[Candidate], due: &mut [f64; NODES]) -> usize {
    let rooms: u32 = candidates.iter().map(|node| node.participants).sum();
    for (due, node) in due.iter_mut().zip(candidates) {
        *due += f64::from(node.participants) / f64::from(rooms);
    }
    let next = (0..NODES)
        .filter(|&n| candidates[n].participants > 0)
        .max_by(|&left, &right| due[left].total_cmp(&due[right]))
        .expect("there are rooms");
    due[next] -= 1.0;
    next
}

pub fn region(_: Scale) -> Vec<Row> {
    const REGIONS: [&str; 3] = ["eu", "us", "ap"];
    let mut rng = StdRng::seed_from_u64(6);
    let mut candidates = nodes([100; 3 * NODES]);
    for (n, candidate) in candidates.iter_mut().enumerate() {
        candidate.region = REGIONS[n / NODES].into();
    }
    let mut chooser = Chooser::new(Settings {
        near: BTreeMap::from([("eu".into(), vec!["us".into(), "ap".into()])]),
        ..one_participant()
    });
    let request = PlaceRoom {
        region: Some("eu".into()),
        ..request()
    };
    // How many rooms there were when the first one went to a region.
    let mut first = BTreeMap::new();
    let mut placed = 0;
    while let Some(node) = chooser
        .choose(&request, &seen(&candidates, 1, Duration::ZERO), &mut rng)
        .node
    {
        let chosen = index(&candidates, node);
        first.entry(REGIONS[chosen / NODES]).or_insert(placed);
        candidates[chosen].participants += 1;
        placed += 1;
    }
    let first = |region| f64::from(first.get(region).copied().unwrap_or(placed));
    vec![
        Row::new(
            "rooms before the first went to the nearest other one",
            first("us"),
            Bar::Within(820.0, 20.0),
        ),
        Row::new(
            "rooms before the first went to the last one",
            first("ap"),
            Bar::Within(1640.0, 40.0),
        ),
        Row::new(
            "rooms before one was refused",
            f64::from(placed),
            Bar::Within(3000.0, 0.0),
        ),
    ]
}
