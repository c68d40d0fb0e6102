//! An orchestrator of the simulation: the real service, over the simulated database and network.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use clap::Parser;
use rand::SeedableRng;
use rand::rngs::StdRng;
use signalbox_orchestrator::probe::Ask;
use signalbox_orchestrator::{Config, Service};
use signalbox_protocol::node::{EpochHeld, HostedRooms, MoveRoom};
use tokio_util::sync::CancellationToken;

use crate::database::Connection;
use crate::network::Host;
use crate::world::World;

/// The API of a new process, and what it does in the background. Dropping that is a crash.
pub fn start(world: &World, index: usize, seed: u64) -> (Router, impl Future<Output = ()> + Send + use<>) {
    let name = format!("orchestrator-{index}");
    let secrets = world.secrets();
    let flags = [
        "",
        "--cluster-secret",
        secrets.current().expose(),
        "--name",
        &name,
        "--memory",
    ];
    let config = Config::parse_from(flags);
    let connection = Connection {
        database: world.database.clone(),
        network: world.network.clone(),
        host: Host::Orchestrator(index),
    };
    let probe = Probe {
        world: world.clone(),
        host: Host::Orchestrator(index),
    };
    let rng = StdRng::seed_from_u64(seed);
    let service = Service::new(connection, &config, name, Arc::new(probe), rng);
    let router = service.router();
    let background = async move {
        let ended = service.background(CancellationToken::new()).await;
        panic!("an orchestrator ended by itself: {ended:?}");
    };
    (router, background)
}

/// Asks nodes over the simulated network.
struct Probe {
    world: World,
    host: Host,
}

impl Ask for Probe {
    fn ask<'a>(&'a self, control: &'a str) -> Pin<Box<dyn Future<Output = Option<EpochHeld>> + Send + 'a>> {
        Box::pin(async move {
            let index: usize = control.rsplit('-').next()?.parse().ok()?;
            self.world.network.carry(self.host, Host::Node(index)).await;
            self.world.awake(index).await;
            let held = self.world.node(index).map(|node| node.held(&self.world));
            self.world.network.carry(Host::Node(index), self.host).await;
            held
        })
    }

    fn rooms<'a>(&'a self, control: &'a str) -> Pin<Box<dyn Future<Output = Option<HostedRooms>> + Send + 'a>> {
        Box::pin(async move {
            let index: usize = control.rsplit('-').next()?.parse().ok()?;
            self.world.network.carry(self.host, Host::Node(index)).await;
            self.world.awake(index).await;
            let hosted = self.world.node(index).map(|node| node.hosted());
            self.world.network.carry(Host::Node(index), self.host).await;
            hosted
        })
    }

    fn send_on<'a>(&'a self, control: &'a str, order: &'a MoveRoom) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(async move {
            let Some(index) = control.rsplit('-').next().and_then(|index| index.parse().ok()) else {
                return false;
            };
            self.world.network.carry(self.host, Host::Node(index)).await;
            self.world.awake(index).await;
            let told = self
                .world
                .node(index)
                .is_some_and(|node| node.send_on(&self.world, order));
            self.world.network.carry(Host::Node(index), self.host).await;
            told
        })
    }
}
