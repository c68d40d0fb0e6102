//! Everything that runs in one simulation, and how its parts reach each other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use signalbox_media::lease::Boottime;
use signalbox_media::tenure::Promises;
use signalbox_protocol::problem::Problem;
use signalbox_protocol::{NodeId, RoomName, Secrets};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};
use tower::ServiceExt;

use crate::database::Database;
use crate::gateway::Gateway;
use crate::network::{Host, Network};
use crate::node::Node;
use crate::orchestrator;
use crate::{NODES, ORCHESTRATORS};

const SECRET: &str = "the cluster's secret";

/// The simulation. Clones are the same one.
#[derive(Clone)]
pub struct World {
    pub network: Network,
    pub database: Database,
    pub promises: Promises,
    pub seed: u64,
    replay: bool,
    start: Instant,
    processes: Arc<Mutex<Processes>>,
}

struct Processes {
    orchestrators: Vec<Option<Orchestrator>>,
    nodes: Vec<Option<(Node, AbortHandle)>>,
    gateways: Vec<Option<(Gateway, AbortHandle)>>,
    /// Until when a node's machine stands still.
    asleep: BTreeMap<usize, Instant>,
    /// Counts starts, so that each has other random numbers.
    starts: u64,
    lost_writes: bool,
    /// A hash of all that was noted.
    trace: u64,
}

struct Orchestrator {
    router: Router,
    /// Differs from start to start.
    run: u64,
    task: AbortHandle,
}

/// An answer to a request; none: whoever was asked is not there.
#[derive(Debug, Clone)]
pub struct Reply(Option<(StatusCode, Vec<u8>)>);

impl Reply {
    pub fn status(&self) -> Option<u16> {
        self.0.as_ref().map(|(status, _)| status.as_u16())
    }

    pub fn ok<T: DeserializeOwned>(&self) -> Option<T> {
        let (status, body) = self.0.as_ref()?;
        status
            .is_success()
            .then(|| serde_json::from_slice(body).expect("an answer of the protocol"))
    }

    /// Why it was refused.
    pub fn problem(&self) -> Option<Problem> {
        let (_, body) = self.0.as_ref()?;
        serde_json::from_slice(body).ok()
    }

    pub fn text(&self) -> String {
        self.0
            .as_ref()
            .map_or_else(String::new, |(_, body)| String::from_utf8_lossy(body).into_owned())
    }
}

impl World {
    pub fn new(seed: u64, promises: Promises, gateways: usize) -> Self {
        let world = Self {
            network: Network::new(seed),
            database: Database::new(),
            promises,
            seed,
            replay: std::env::var_os("SIGNALBOX_SIMULATION_SEED").is_some(),
            start: Instant::now(),
            processes: Arc::new(Mutex::new(Processes {
                orchestrators: (0..ORCHESTRATORS).map(|_| None).collect(),
                nodes: (0..NODES).map(|_| None).collect(),
                gateways: (0..gateways).map(|_| None).collect(),
                asleep: BTreeMap::new(),
                starts: 0,
                lost_writes: false,
                trace: 0,
            })),
        };
        world.start_all();
        world
    }

    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// The nodes' clock.
    pub fn boottime(&self) -> Boottime {
        Boottime::from(self.elapsed())
    }

    pub async fn sleep_until(&self, time: Option<Boottime>) {
        match time {
            Some(time) => sleep_until(self.start + time.since(Boottime::from(Duration::ZERO))).await,
            None => std::future::pending().await,
        }
    }

    pub fn secrets(&self) -> Secrets {
        SECRET.parse().expect("long enough")
    }

    pub fn orchestrators(&self) -> usize {
        ORCHESTRATORS
    }

    pub fn node_count(&self) -> usize {
        NODES
    }

    pub fn gateways(&self) -> usize {
        self.processes().gateways.len()
    }

    pub fn node(&self, index: usize) -> Option<Node> {
        let processes = self.processes();
        let (node, _) = processes.nodes.get(index)?.as_ref()?;
        Some(node.clone())
    }

    pub fn index_of(&self, node: NodeId) -> usize {
        usize::try_from(node.0.as_u128() - 1).expect("one of ours")
    }

    /// The node's process is killed.
    pub fn kill_node(&self, index: usize) {
        if let Some((_, task)) = self.processes().nodes[index].take() {
            task.abort();
        }
    }

    /// The node's process is started, with the same id, if it does not run.
    pub fn start_node(&self, index: usize) {
        if self.node(index).is_some() {
            return;
        }
        let node = Node::new(self, index);
        let seed = self.next_seed();
        let task = tokio::spawn(node.clone().run(self.clone(), self.promises, seed)).abort_handle();
        self.processes().nodes[index] = Some((node, task));
    }

    /// The node's machine stands still, and its clock goes on.
    pub fn freeze_node(&self, index: usize, time: Duration) {
        self.processes().asleep.insert(index, Instant::now() + time);
    }

    /// Waits until the node's machine goes.
    pub async fn awake(&self, index: usize) {
        loop {
            let until = self.processes().asleep.get(&index).copied();
            match until.filter(|until| *until > Instant::now()) {
                Some(until) => sleep_until(until).await,
                None => return,
            }
        }
    }

    pub fn is_frozen(&self, index: usize) -> bool {
        self.processes()
            .asleep
            .get(&index)
            .is_some_and(|until| *until > Instant::now())
    }

    /// The orchestrator's process is killed.
    pub fn kill_orchestrator(&self, index: usize) {
        if let Some(orchestrator) = self.processes().orchestrators[index].take() {
            orchestrator.task.abort();
        }
    }

    /// The orchestrator's process is started, if it does not run.
    pub fn start_orchestrator(&self, index: usize) {
        if self.processes().orchestrators[index].is_some() {
            return;
        }
        let run = self.next_seed();
        let (router, service) = orchestrator::start(self, index, run);
        let task = tokio::spawn(service).abort_handle();
        self.processes().orchestrators[index] = Some(Orchestrator { router, run, task });
    }

    pub fn gateway(&self, index: usize) -> Option<Gateway> {
        let processes = self.processes();
        let (gateway, _) = processes.gateways.get(index)?.as_ref()?;
        Some(gateway.clone())
    }

    /// The gateway's process is killed: nobody knows any more what it knew.
    pub fn kill_gateway(&self, index: usize) {
        if let Some((gateway, task)) = self.processes().gateways[index].take() {
            gateway.killed();
            task.abort();
        }
    }

    /// The gateway's process is started, if it does not run.
    pub fn start_gateway(&self, index: usize) {
        if self.gateway(index).is_some() {
            return;
        }
        let gateway = Gateway::new(index, ORCHESTRATORS, self.next_seed());
        let task = tokio::spawn(gateway.clone().watch_over(self.clone())).abort_handle();
        self.processes().gateways[index] = Some((gateway, task));
    }

    /// Everybody leaves the room, and no gateway has anything to do with it any more.
    pub fn all_leave(&self, room: &RoomName) {
        for index in 0..self.gateways() {
            if let Some(gateway) = self.gateway(index) {
                gateway.all_leave(room);
            }
        }
    }

    /// Mends and starts everything.
    pub fn heal(&self) {
        self.network.heal();
        self.database.heal();
        self.processes().asleep.clear();
        self.start_all();
    }

    fn start_all(&self) {
        for index in 0..ORCHESTRATORS {
            self.start_orchestrator(index);
        }
        for index in 0..NODES {
            self.start_node(index);
        }
        for index in 0..self.gateways() {
            self.start_gateway(index);
        }
    }

    /// One request to an orchestrator. Never ends if it, or the answer, is lost.
    pub async fn post(&self, from: Host, orchestrator: usize, path: &str, body: &impl Serialize) -> Reply {
        self.send(Method::POST, from, orchestrator, path, body).await
    }

    /// The same with any method.
    pub async fn send(
        &self,
        method: Method,
        from: Host,
        orchestrator: usize,
        path: &str,
        body: &impl Serialize,
    ) -> Reply {
        let to = Host::Orchestrator(orchestrator);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {SECRET}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(serde_json::to_vec(body).expect("plain data")))
            .expect("a request");
        self.network.carry(from, to).await;
        let process = self.orchestrator(orchestrator);
        let reply = match process {
            None => None,
            Some((router, run)) => {
                let response = router.oneshot(request).await.unwrap_or_else(|never| match never {});
                let status = response.status();
                let body = to_bytes(response.into_body(), usize::MAX)
                    .await
                    .expect("a body in memory");
                // Killed meanwhile: what it had asked the database may have been done, but nobody is there to answer.
                let lives = self.orchestrator(orchestrator).is_some_and(|(_, now)| now == run);
                lives.then(|| (status, body.to_vec()))
            }
        };
        self.network.carry(to, from).await;
        Reply(reply)
    }

    /// A failover has lost writes.
    pub fn has_lost_writes(&self) {
        self.processes().lost_writes = true;
    }

    pub fn take_lost_writes(&self) -> bool {
        std::mem::take(&mut self.processes().lost_writes)
    }

    /// Notes what happens, and prints it in a replay.
    pub fn note(&self, what: impl FnOnce() -> String) {
        let line = format!("{:>10.3} {}", self.elapsed().as_secs_f64(), what());
        if self.replay {
            println!("{line}");
        }
        let mut processes = self.processes();
        // FNV-1a: only has to be the same for the same lines.
        for byte in line.bytes() {
            processes.trace = (processes.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub fn trace(&self) -> u64 {
        self.processes().trace
    }

    fn orchestrator(&self, index: usize) -> Option<(Router, u64)> {
        let processes = self.processes();
        let orchestrator = processes.orchestrators.get(index)?.as_ref()?;
        Some((orchestrator.router.clone(), orchestrator.run))
    }

    fn next_seed(&self) -> u64 {
        let mut processes = self.processes();
        processes.starts += 1;
        self.seed
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(processes.starts)
    }

    fn processes(&self) -> MutexGuard<'_, Processes> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
