//! An orchestrator without sockets, for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use rand::SeedableRng;
use rand::rngs::StdRng;
use signalbox_protocol::node::{EpochHeld, Heartbeat, NodeLoad, RegisterNode, RoomDigest};
use signalbox_protocol::{Epoch, NodeId};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::faulty::FaultyStore;
use crate::probe::Ask;
use crate::store::{Registration, Store};
use crate::{Config, Error, Service};

pub const SECRET: &str = "the cluster's secret";

/// What nodes answer when they are asked, by their control listeners.
#[derive(Default)]
pub struct Answers(Mutex<BTreeMap<String, EpochHeld>>, Mutex<BTreeSet<String>>);

impl Answers {
    /// The node's machine stands still: it takes connections, and never answers.
    pub fn freeze(&self, node: NodeId) {
        self.1.lock().unwrap().insert(control(node));
    }

    pub fn set(&self, node: NodeId, epoch: Option<Epoch>) {
        self.0.lock().unwrap().insert(control(node), EpochHeld { node, epoch });
    }
}

impl Ask for Answers {
    fn ask<'a>(&'a self, control: &'a str) -> Pin<Box<dyn Future<Output = Option<EpochHeld>> + Send + 'a>> {
        let answer = self.0.lock().unwrap().get(control).copied();
        let is_frozen = self.1.lock().unwrap().contains(control);
        Box::pin(async move {
            if is_frozen {
                std::future::pending().await
            } else {
                answer
            }
        })
    }
}

pub type Orchestrator = Arc<Service<FaultyStore>>;

/// An orchestrator with [`SECRET`] and these flags, and what its nodes answer.
pub fn orchestrator(flags: &[&str]) -> (Orchestrator, Arc<Answers>) {
    orchestrator_of(SECRET, flags)
}

/// The same with these secrets.
pub fn orchestrator_of(secrets: &str, flags: &[&str]) -> (Orchestrator, Arc<Answers>) {
    let answers = Arc::new(Answers::default());
    (orchestrator_asking(answers.clone(), secrets, flags), answers)
}

/// One that asks its nodes like this.
pub fn orchestrator_asking(ask: Arc<dyn Ask>, secrets: &str, flags: &[&str]) -> Orchestrator {
    let required = ["orchestrator", "--cluster-secret", secrets];
    let config = Config::try_parse_from(required.iter().chain(flags)).unwrap();
    Service::new(
        FaultyStore::default(),
        &config,
        "a".into(),
        ask,
        StdRng::seed_from_u64(1),
    )
}

/// Its background tasks, until they are aborted; returns when the store is open.
pub async fn start(service: &Orchestrator) -> JoinHandle<Result<(), Error>> {
    let running = service.clone();
    let task = tokio::spawn(async move { running.background(CancellationToken::new()).await });
    service.sight().wait_for(|sight| sight.reachable).await.unwrap();
    task
}

pub fn node(n: u128) -> NodeId {
    NodeId(Uuid::from_u128(n))
}

fn control(node: NodeId) -> String {
    format!("ws://{node}.example:7900")
}

pub fn registration(node: NodeId) -> RegisterNode {
    RegisterNode {
        node,
        after: Epoch(0),
        control: control(node),
        media: vec!["192.0.2.1:50000".parse().unwrap()],
        region: "eu".into(),
        zone: String::new(),
        labels: BTreeMap::new(),
        track: Default::default(),
        capacity: 100,
        version: "1.0.0".into(),
    }
}

pub async fn register(service: &Orchestrator, node: NodeId) -> Epoch {
    let lease = service.leases.lease();
    register_with(&service.store, &registration(node), lease).await.unwrap()
}

/// Registers as a node does, that asks again when it is told another epoch.
pub async fn register_with(store: &impl Store, about: &RegisterNode, lease: Duration) -> Result<Epoch, Error> {
    let mut about = about.clone();
    loop {
        match store.register(&about, lease).await? {
            Registration::Held(epoch) => return Ok(epoch),
            Registration::Behind(epoch) => about.after = epoch,
        }
    }
}

pub fn heartbeat(epoch: Epoch, beat: u64, rooms: Option<Vec<RoomDigest>>) -> Heartbeat {
    Heartbeat {
        epoch,
        beat,
        load: NodeLoad::default(),
        rooms,
        connections: Default::default(),
    }
}
