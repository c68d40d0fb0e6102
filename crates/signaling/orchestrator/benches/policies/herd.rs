//! What happens between two reports: every orchestrator sees the same idle node.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use signalbox_orchestrator::placement::{Chooser, Settings};
use signalbox_protocol::placement::{PlaceRoom, Policy};

use crate::cluster::{index, max_to_mean, nodes, seen};
use crate::{Bar, Row, Scale};

const NODES: usize = 100;
const ORCHESTRATORS: usize = 20;
const JOINS_PER_SECOND: u32 = 500;
const REPORTS_EVERY: u32 = 5;

/// How orchestrators choose.
#[derive(Clone, Copy)]
enum Way {
    /// Any node.
    Random,
    /// By this policy, on the reports alone.
    Stale(Policy),
    /// By this policy, remembering the rooms in flight.
    InFlight(Policy),
}

pub fn herd(scale: Scale) -> Vec<Row> {
    // 120,000 joins, 1,200 a node.
    let seconds = scale.pick(240, 60);
    let row = |what: &str, way, bar| Row::new(what, run(way, seconds), bar);
    let default = Policy::default();
    let mut rows = vec![row(default.name(), Way::InFlight(default), Bar::AtMost(1.05))];
    if scale.full {
        let others = Policy::ALL.into_iter().filter(|&policy| policy != default);
        rows.extend(others.map(|policy| row(policy.name(), Way::InFlight(policy), Bar::None)));
        rows.extend([
            row("two-choices by reports alone", Way::Stale(default), Bar::None),
            row("random", Way::Random, Bar::None),
            row(
                "least-loaded by reports alone",
                Way::Stale(Policy::LeastLoaded),
                Bar::None,
            ),
        ]);
    }
    rows
}

fn run(way: Way, seconds: u32) -> f64 {
    let mut rng = StdRng::seed_from_u64(3);
    // Big enough to be never full, whatever the policy.
    let mut candidates = nodes([1_000_000; NODES]);
    let mut loads = vec![0_u32; NODES];
    let mut orchestrators: Vec<Chooser> = (0..ORCHESTRATORS)
        .map(|_| {
            Chooser::new(Settings {
                // A room is a join here: what is measured is the load that joins make.
                expected_participants: 1.0,
                ..Settings::default()
            })
        })
        .collect();
    for join in 0..seconds * JOINS_PER_SECOND {
        if join % (REPORTS_EVERY * JOINS_PER_SECOND) == 0 {
            for (candidate, &load) in candidates.iter_mut().zip(&loads) {
                candidate.participants = load;
            }
        }
        let now = Duration::from_secs(1) * join / JOINS_PER_SECOND;
        let orchestrator = &mut orchestrators[rng.random_range(0..ORCHESTRATORS)];
        let mut choose = |policy| {
            let request = PlaceRoom {
                policy: Some(policy),
                ..PlaceRoom::new(format!("room-{join}").parse().expect("a name"))
            };
            let choice = orchestrator.choose(&request, &seen(&candidates, ORCHESTRATORS, now), &mut rng);
            choice.node.expect("there is room")
        };
        let node = match way {
            Way::Random => candidates[rng.random_range(0..NODES)].node,
            Way::Stale(policy) => choose(policy),
            Way::InFlight(policy) => {
                let node = choose(policy);
                orchestrator.placed(node, now);
                node
            }
        };
        loads[index(&candidates, node)] += 1;
    }
    max_to_mean(&loads)
}
