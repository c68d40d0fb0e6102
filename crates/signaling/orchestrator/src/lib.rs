//! The orchestrator: the room map behind an HTTP API.
//!
//! It says which media node hosts a room, and keeps that answer true: a room has one owner, and gets another only after
//! the first one's epoch is over. All orchestrators over one database are equal and hold no truth of their own.
//!
//! | module | owns |
//! |---|---|
//! | [`placement`] | which node should take a new room; pure |
//! | [`brake`] | how many nodes may be fenced at once; pure |
//! | [`truce`] | whether any may be fenced now, and promises that none will be; pure |
//! | [`store`] | the map and its promises under races; PostgreSQL or memory |
//! | [`candidates`] | a copy of the nodes that rooms may be placed on |
//! | [`placer`] | the steps from a room's name to its assignment |
//! | [`joins`] | the steps of a join, while the map is away too |
//! | [`canary`] | the canary share while the cluster runs, and the background task that takes it back |
//! | [`leases`] | the steps of a heartbeat |
//! | [`digests`] | which nodes to ask for their rooms |
//! | [`drains`] | the background task that empties nodes |
//! | [`probe`] | asking nodes whether they are there |
//! | [`health`] | what follows from a complaint about a node |
//! | [`known_rooms`] | where rooms were of late, for the time that the database is away; pure |
//! | [`fencer`] | the background task that ends the epochs of silent nodes |
//! | [`housekeeping`] | the background task that removes what is over |
//! | [`ticket`] | signing |
//! | [`public_address`] | which addresses the internet can reach |
//! | [`api`] | HTTP, and its OpenAPI document |
//! | [`service`] | all of these put together |
//!
//! It sees no SDP and no media, and knows nothing of clients.
//!
//! # In a simulation
//!
//! [`run`] is [`Service`] over a listener, the wall clock's runtime and sockets towards the nodes. The parts need none of
//! them. Under a paused tokio clock, over any [`store::Store`], with a seed and with nodes that are asked over a simulated
//! network, the same code runs like this:
//!
//! ```
//! use std::{future::Future, pin::Pin, sync::Arc};
//!
//! use clap::Parser;
//! use rand::{SeedableRng, rngs::StdRng};
//! use signalbox_orchestrator::store::memory::MemoryStore;
//! use signalbox_orchestrator::{Config, Service, probe::Ask};
//! use signalbox_protocol::node::EpochHeld;
//! use tokio_util::sync::CancellationToken;
//! use tower::ServiceExt;
//!
//! struct Nowhere;
//!
//! impl Ask for Nowhere {
//!     fn ask<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = Option<EpochHeld>> + Send + 'a>> {
//!         Box::pin(async { None })
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let config = Config::parse_from(["", "--cluster-secret", "0123456789abcdef", "--name", "a"]);
//! let seed = StdRng::seed_from_u64(7);
//! let service = Service::new(MemoryStore::default(), &config, "a".into(), Arc::new(Nowhere), seed);
//!
//! // Opens the store, and then looks after leases and what is over until it is cancelled. Dropped, it is a crash.
//! let shutdown = CancellationToken::new();
//! let background = tokio::spawn({
//!     let (service, shutdown) = (service.clone(), shutdown.clone());
//!     async move { service.background(shutdown).await }
//! });
//!
//! // The HTTP API, without a socket.
//! let request = axum::http::Request::get("/livez").body(axum::body::Body::empty()).unwrap();
//! assert_eq!(service.router().oneshot(request).await.unwrap().status(), 200);
//! # shutdown.cancel();
//! # background.await.unwrap().unwrap();
//! # }
//! ```

pub mod api;
pub mod brake;
pub mod canary;
pub mod candidates;
pub mod config;
pub mod digests;
pub mod drains;
pub mod error;
#[cfg(test)]
mod faulty;
pub mod fencer;
#[cfg(test)]
mod harness;
pub mod health;
pub mod housekeeping;
pub mod joins;
pub mod known_rooms;
pub mod leases;
pub mod placement;
pub mod placer;
pub mod probe;
pub mod public_address;
pub mod service;
pub mod store;
pub mod ticket;
pub mod truce;
mod turns;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::Config;
pub use error::Error;
pub use service::Service;

use probe::HttpAsk;
use store::Store;
use store::memory::MemoryStore;
use store::postgres::PostgresStore;

/// How long requests under way get to finish after a shutdown began. Higher: fewer calls fail. Lower: restarts are
/// quicker.
pub const DRAIN: Duration = Duration::from_secs(5);

/// Serves until `shutdown`, then lets requests under way finish for at most [`DRAIN`].
///
/// A database that cannot be reached is no error: until it can, requests are answered 503. Fails with [`Error::Config`]
/// if the configuration contradicts itself, with [`Error::Schema`] if the database's schema does not fit, and with
/// [`Error::Listener`].
pub async fn run(listener: TcpListener, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    config.check()?;
    if let Some(url) = config.database_url() {
        let store = PostgresStore::new(url.expose())?;
        return serve(listener, config, store, shutdown).await;
    }
    if !config.memory {
        tracing::warn!(
            "no --database-url: the room map is in memory and lost with this process; say --memory to mean it"
        );
    }
    serve(listener, config, MemoryStore::default(), shutdown).await
}

/// Boxed: for a future that names every statement of a store the compiler can no longer show that it may be sent to another
/// thread.
fn serve<S: Store>(
    listener: TcpListener,
    config: Config,
    store: S,
    shutdown: CancellationToken,
) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> {
    Box::pin(async move {
        let mut rng = StdRng::from_rng(&mut rand::rng());
        let name = match &config.name {
            Some(name) => name.clone(),
            None => default_name(listener.local_addr()?, &mut rng),
        };
        let ask = Arc::new(HttpAsk::new(config.cluster_secret.current().clone())?);
        tracing::info!(name, policy = %config.policy, "orchestrator on duty");
        let service = Service::new(store, &config, name, ask, rng);

        let stop = shutdown.child_token();
        // An answer does not wait until the one before it is acknowledged.
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let http = axum::serve(listener, service.router()).with_graceful_shutdown(stop.clone().cancelled_owned());
        let background = async {
            let ended = service.background(stop.clone()).await;
            // Without a store there is nothing to serve: this ends the HTTP side too.
            stop.cancel();
            ended
        };
        let drained = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        let http = async {
            tokio::select! {
                served = http => served.map_err(Error::from),
                () = drained => Ok(()),
            }
        };
        let (ended, served) = tokio::join!(background, http);
        ended.and(served)
    })
}

/// A name that no other orchestrator has: hosts may be called alike, and containers have the same port.
fn default_name(listening: SocketAddr, rng: &mut StdRng) -> String {
    let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok());
    let host = host.unwrap_or_else(|| "orchestrator".to_owned());
    let suffix: u16 = rng.random();
    format!("{host}:{}-{suffix:04x}", listening.port())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;

    use super::*;

    async fn start(args: &[&str]) -> (SocketAddr, CancellationToken, JoinHandle<Result<(), Error>>) {
        let secret = ["signalbox-orchestrator", "--cluster-secret", "0123456789abcdef"];
        let config = Config::parse_from(secret.iter().chain(args));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        (address, shutdown.clone(), tokio::spawn(run(listener, config, shutdown)))
    }

    /// The status line of `GET path`, on a connection of its own.
    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    }

    async fn ends(running: JoinHandle<Result<(), Error>>) -> Result<(), Error> {
        tokio::time::timeout(Duration::from_secs(30), running)
            .await
            .expect("it ends")
            .unwrap()
    }

    #[tokio::test]
    async fn it_serves_until_it_is_shut_down() {
        let (address, shutdown, running) = start(&["--memory"]).await;
        while get(address, "/readyz").await != "HTTP/1.1 200 OK" {
            tokio::task::yield_now().await;
        }
        assert_eq!(get(address, "/v1/nodes").await, "HTTP/1.1 401 Unauthorized");
        // A connection that idles does not hold the shutdown.
        let _idle = TcpStream::connect(address).await.unwrap();
        shutdown.cancel();
        ends(running).await.unwrap();
    }

    #[tokio::test]
    async fn it_starts_without_its_database_and_says_that_it_is_not_ready() {
        let (address, shutdown, running) = start(&["--database-url", "postgres://nobody@127.0.0.1:1/none"]).await;
        assert_eq!(get(address, "/livez").await, "HTTP/1.1 200 OK");
        assert_eq!(get(address, "/readyz").await, "HTTP/1.1 503 Service Unavailable");
        shutdown.cancel();
        ends(running).await.unwrap();
    }

    #[tokio::test]
    async fn a_configuration_that_contradicts_itself_does_not_start() {
        for args in [["--heartbeat-ms", "1900"], ["--database-url", "mysql://a:b@c/d"]] {
            let (_, _, running) = start(&args).await;
            assert!(matches!(ends(running).await, Err(Error::Config(_))));
        }
    }
}
