//! The orchestrator: the room map behind an HTTP API.
//!
//! It says which media node hosts a room, and keeps that answer true: a room has one owner, and gets another only after
//! the first one's epoch is over. All orchestrators over one database are equal and hold no truth of their own.
//!
//! | module | owns |
//! |---|---|
//! | [`placement`] | which node should take a new room; pure |
//! | [`brake`] | how many nodes may be fenced at once; pure |
//! | [`store`] | the map and its promises under races; PostgreSQL or memory |
//! | [`placer`] | the steps from a room's name to its assignment |
//! | [`fencer`] | the background task that ends the epochs of silent nodes |
//! | [`ticket`] | signing |
//! | [`api`] | HTTP |
//!
//! It sees no SDP and no media, and knows nothing of clients.

pub mod api;
pub mod brake;
pub mod config;
pub mod error;
pub mod fencer;
pub mod placement;
pub mod placer;
pub mod store;
pub mod ticket;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use config::Config;
pub use error::Error;

use api::{Guard, Shared};
use brake::Brake;
use placer::Placer;
use store::Store;
use store::memory::MemoryStore;
use store::postgres::PostgresStore;
use ticket::Signer;

/// How long requests under way get to finish after a shutdown began. Higher: fewer calls fail. Lower: restarts are
/// quicker.
pub const DRAIN: Duration = Duration::from_secs(5);

/// The share of a lease that must be left for a node to be given a room, and the share that passes between its end and
/// the fence.
const MARGIN: u32 = 4;
const GRACE: u32 = 8;

/// How long to wait before the database is tried again at the start.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

/// Serves until `shutdown`, then lets requests under way finish for at most [`DRAIN`].
///
/// A database that cannot be reached is no error: until it can, requests are answered 503. Fails with [`Error::Config`]
/// if the configuration contradicts itself, with [`Error::Schema`] if the database's schema does not fit, and with
/// [`Error::Listener`].
pub async fn run(listener: TcpListener, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    config.check()?;
    if let Some(url) = config.database_url() {
        let store = PostgresStore::new(url.expose())?;
        return serve(listener, &config, store, shutdown).await;
    }
    if !config.memory {
        tracing::warn!(
            "no --database-url: the room map is in memory and lost with this process; say --memory to mean it"
        );
    }
    serve(listener, &config, MemoryStore::default(), shutdown).await
}

async fn serve<S: Store>(
    listener: TcpListener,
    config: &Config,
    store: S,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let (reachable_sender, reachable) = watch::channel(false);
    let shared = Arc::new(Shared {
        store,
        placer: Placer::new(config.lease() / MARGIN),
        signer: Signer::new(&config.cluster_secret),
        lease: config.lease(),
        heartbeat: config.heartbeat(),
        reachable,
    });
    let router = api::router(shared.clone(), Guard::new(config.cluster_secret.clone()));
    let brake = Brake {
        lease: config.lease(),
        grace: config.lease() / GRACE,
    };

    let stop = shutdown.child_token();
    let http = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    let background = async {
        let opened = open_until_done(&shared.store, &stop).await;
        if opened.is_ok() {
            fencer::run(&shared.store, brake, config.heartbeat(), reachable_sender, stop.clone()).await;
        }
        // Without a store there is nothing to serve: this ends the HTTP side too.
        stop.cancel();
        opened
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
    let (opened, served) = tokio::join!(background, http);
    opened.and(served)
}

async fn open_until_done<S: Store>(store: &S, stop: &CancellationToken) -> Result<(), Error> {
    let mut logged = false;
    loop {
        let opened = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            opened = store.open() => opened,
        };
        match opened {
            Err(error) if error.is_outage() => {
                if !logged {
                    tracing::error!(%error, "the database cannot be reached; requests are refused until it can");
                    logged = true;
                }
            }
            done => return done,
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(OPEN_AGAIN) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::JoinHandle;

    use super::*;

    async fn start(args: &[&str]) -> (std::net::SocketAddr, CancellationToken, JoinHandle<Result<(), Error>>) {
        let secret = ["signalbox-orchestrator", "--cluster-secret", "0123456789abcdef"];
        let config = Config::parse_from(secret.iter().chain(args));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        (address, shutdown.clone(), tokio::spawn(run(listener, config, shutdown)))
    }

    /// The status line of `GET path`, on a connection of its own.
    async fn get(address: std::net::SocketAddr, path: &str) -> String {
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
