//! Seeded simulations of the room map: gateways, orchestrators, media nodes and the database in one thread, on a clock of their own and a
//! network that loses, delays and splits, while processes are killed and machines stand still.
//!
//! What decides is the real code: the orchestrator's router, placer and fencer, the node's tenure, lease, tickets and admission, the gateway's choice among
//! orchestrators and its search for rooms whose node is lost. What carries is simulated.
//!
//! `SIGNALBOX_SIMULATION_SEEDS` says how many seeds each test tries; `SIGNALBOX_SIMULATION_SEED` replays one, and prints what happens.

mod database;
mod faults;
mod gateway;
mod invariants;
mod network;
mod node;
mod orchestrator;
mod scenarios;
mod scene;
mod sessions;
mod simulation;
mod world;

use faults::Faults;
use signalbox_media::tenure::Promises;
use simulation::{run, seeds};

/// How many there are of each.
const ORCHESTRATORS: usize = 3;
const NODES: usize = 3;
const GATEWAYS: usize = 2;
const ROOMS: usize = 6;

#[test]
fn a_room_is_served_once_whatever_breaks_when_leases_are_strict() {
    seeds(100, |seed| run(seed, Faults::All, Promises::All));
}

#[test]
fn a_room_is_served_once_when_nodes_reach_orchestrators() {
    seeds(60, |seed| run(seed, Faults::NodesReachOrchestrators, Promises::One));
}

#[test]
fn a_failover_that_lost_writes_is_sorted_out_by_the_nodes_digests() {
    seeds(60, |seed| run(seed, Faults::LossyFailover, Promises::One));
}

#[test]
fn rooms_are_moved_and_none_is_in_two_places_whatever_breaks_while_nodes_are_drained() {
    seeds(20, |seed| run(seed, Faults::Drains, Promises::One));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..3 {
        let one = run(seed, Faults::All, Promises::All).expect("it holds");
        let two = run(seed, Faults::All, Promises::All).expect("it holds");
        assert_eq!(one, two);
    }
}
