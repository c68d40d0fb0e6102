//! The nemesis: breaks one thing after the other, as the seed says.

use std::time::Duration;

use axum::http::Method;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use signalbox_orchestrator::store::Store;
use signalbox_protocol::NodeId;
use signalbox_protocol::node::DrainNode;
use tokio::time::sleep;

use crate::network::Host;
use crate::world::World;

/// What may break in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Faults {
    /// Everything.
    All,
    /// Everything, but nodes and orchestrators can always reach each other: see the documentation of the default of promises.
    NodesReachOrchestrators,
    /// Processes, and a standby that takes over and has missed the last writes. While the database is away nothing can be sorted out, so it stays.
    LossyFailover,
    /// Processes, two nodes at once, and the database, while nodes are drained and drains are cancelled.
    Drains,
}

/// For how long things break.
pub const TROUBLE: Duration = Duration::from_secs(40);

/// Breaks things until [`TROUBLE`] is over, then mends everything.
pub async fn run(world: World, faults: Faults) {
    let mut rng = StdRng::seed_from_u64(world.seed ^ 0x0bad_5eed);
    while world.elapsed() < TROUBLE {
        sleep(Duration::from_millis(rng.random_range(200..2500))).await;
        let fault = one(&world, faults, &mut rng);
        world.note(|| format!("fault: {fault}"));
    }
    world.note(|| "all is mended".to_owned());
    world.heal();
    world.network.calm();
    if faults == Faults::Drains {
        drain_one(world).await;
    }
}

/// The node that is drained once all is well: it must come to an end.
pub const DRAINED: usize = 0;

/// How long after everything was mended it is drained: it may have to register anew first.
const DRAIN_AFTER: Duration = Duration::from_secs(10);

/// Since when that goes on.
pub const CALM: Duration = TROUBLE.saturating_add(DRAIN_AFTER);

/// Has no node draining, and later one, so that there is a drain that nothing disturbs.
async fn drain_one(world: World) {
    for index in 0..world.node_count() {
        cancel(&world, index).await;
    }
    sleep(DRAIN_AFTER).await;
    let path = format!("/v1/nodes/{}/drain", id(DRAINED));
    let how = DrainNode {
        rate: 2.0,
        ..DrainNode::default()
    };
    let reply = world.send(Method::PUT, Host::Gateway(0), 0, &path, &how).await;
    world.note(|| format!("drain of node {DRAINED}: {:?}", reply.status()));
}

async fn cancel(world: &World, index: usize) {
    let map = world.database.map();
    map.cancel_drain(id(index)).await.expect("the map in memory");
}

fn id(index: usize) -> NodeId {
    NodeId(uuid::Uuid::from_u128(index as u128 + 1))
}

fn one(world: &World, faults: Faults, rng: &mut StdRng) -> String {
    let node = rng.random_range(0..world.node_count());
    let orchestrator = rng.random_range(0..world.orchestrators());
    let kinds: &[&str] = match faults {
        Faults::All => &[
            "heal",
            "kill node",
            "freeze node",
            "cut node off",
            "cut node and orchestrator",
            "kill orchestrator",
            "kill gateway",
            "cut orchestrator and database",
            "cut gateway and orchestrator",
            "stop database",
            "fail over",
            "lose",
        ],
        Faults::NodesReachOrchestrators => &[
            "heal",
            "kill node",
            "freeze node",
            "kill orchestrator",
            "cut orchestrator and database",
            "cut gateway and orchestrator",
            "stop database",
            "fail over",
        ],
        Faults::Drains => &[
            "heal",
            "drain",
            "drain",
            "drain",
            "cancel drain",
            "cancel drain",
            "kill node",
            "kill two nodes",
            "freeze node",
            "kill orchestrator",
            "kill orchestrator",
            "kill gateway",
            "cut orchestrator and database",
            "stop database",
        ],
        Faults::LossyFailover => &[
            "heal",
            "kill node",
            "kill orchestrator",
            "fail over and lose writes",
            "fall behind",
        ],
    };
    let kind = *kinds.choose(rng).expect("there are some");
    let (at_node, at_orchestrator) = (Host::Node(node), Host::Orchestrator(orchestrator));
    match kind {
        "heal" => world.heal(),
        "kill node" => kill_for_a_while(world, rng, node),
        "kill two nodes" => {
            for node in [node, (node + 1) % world.node_count()] {
                kill_for_a_while(world, rng, node);
            }
        }
        "drain" => {
            let how = DrainNode {
                rate: f64::from(rng.random_range(1..20)),
                deadline_ms: rng.random_bool(0.2).then_some(1000),
                ..DrainNode::default()
            };
            ask(world, Method::PUT, orchestrator, node, how);
        }
        "cancel drain" => ask(world, Method::DELETE, orchestrator, node, DrainNode::default()),
        "freeze node" => world.freeze_node(node, Duration::from_millis(rng.random_range(100..6000))),
        "cut node off" => {
            for index in 0..world.orchestrators() {
                both(world, at_node, Host::Orchestrator(index));
            }
        }
        "cut node and orchestrator" => some(world, rng, at_node, at_orchestrator),
        "kill orchestrator" => {
            world.kill_orchestrator(orchestrator);
            let again = Duration::from_millis(rng.random_range(10..4000));
            let world = world.clone();
            tokio::spawn(async move {
                sleep(again).await;
                world.start_orchestrator(orchestrator);
            });
        }
        "kill gateway" => {
            let gateway = rng.random_range(0..crate::GATEWAYS);
            world.kill_gateway(gateway);
            let again = Duration::from_millis(rng.random_range(10..4000));
            let world = world.clone();
            tokio::spawn(async move {
                sleep(again).await;
                world.start_gateway(gateway);
            });
        }
        "cut orchestrator and database" => some(world, rng, at_orchestrator, Host::Database),
        "cut gateway and orchestrator" => {
            let gateway = Host::Gateway(rng.random_range(0..crate::GATEWAYS));
            some(world, rng, gateway, at_orchestrator);
        }
        "stop database" => {
            world.database.stop();
            let again = Duration::from_millis(rng.random_range(100..8000));
            let world = world.clone();
            tokio::spawn(async move {
                sleep(again).await;
                world.database.start();
            });
        }
        "fail over" => {
            world.database.replicate();
            world.database.promote();
        }
        "fall behind" => world.database.replicate(),
        "fail over and lose writes" => {
            world.database.promote();
            world.has_lost_writes();
        }
        "lose" => world.network.lose(0.05),
        _ => unreachable!("every kind is handled"),
    }
    format!("{kind} (node {node}, orchestrator {orchestrator})")
}

/// An operator asks about a node's drain.
fn ask(world: &World, method: Method, orchestrator: usize, node: usize, how: DrainNode) {
    let world = world.clone();
    tokio::spawn(async move {
        let path = format!("/v1/nodes/{}/drain", id(node));
        let reply = world.send(method, Host::Gateway(0), orchestrator, &path, &how).await;
        world.note(|| format!("drain of node {node}: {:?}", reply.status()));
    });
}

fn kill_for_a_while(world: &World, rng: &mut StdRng, node: usize) {
    world.kill_node(node);
    let again = Duration::from_millis(rng.random_range(10..4000));
    let world = world.clone();
    tokio::spawn(async move {
        sleep(again).await;
        world.start_node(node);
    });
}

fn both(world: &World, a: Host, b: Host) {
    world.network.cut(a, b);
    world.network.cut(b, a);
}

/// One direction, the other one, or both.
fn some(world: &World, rng: &mut StdRng, a: Host, b: Host) {
    match rng.random_range(0..3) {
        0 => world.network.cut(a, b),
        1 => world.network.cut(b, a),
        _ => both(world, a, b),
    }
}
