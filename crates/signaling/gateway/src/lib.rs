//! The L7 tier: takes clients over HTTP and WebSocket and leads each to the media node of its room.
//!
//! Each client dialect is one module that translates into the control protocol: [`join`] (our own HTTP API, with `srtp` for clients without a
//! peer connection), [`livekit`], and [`whip`].
//! Sees no media, decides no placement, opens no database, reads no SDP.

pub mod access;
pub mod affinity;
pub mod config;
pub mod cors;
pub mod dialect;
pub mod front;
mod group;
pub mod inherited;
pub mod join;
pub mod limits;
pub mod livekit;
pub mod metrics;
pub mod moves;
pub mod observe;
pub mod openapi;
pub mod page;
pub mod problem;
pub mod rooms;
pub mod routing;
pub mod session;
pub mod state;
pub mod upstreams;
pub mod whip;

mod cookies;
mod node_link;
mod orchestrators;
mod outcomes;
mod placements;
mod reload;
mod reports;
mod routes;
mod signed;
mod srtp;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use config::Config;
pub use problem::ApiError as Error;

use crate::front::{Door, redirect};
use crate::state::State;

/// How many connections of operators at once.
const ADMIN_CONNECTIONS: usize = 64;

/// How long an operator's last request may take at the end.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);

/// What a gateway listens on.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub clients: TcpListener,
    /// For operators; none: they are not served.
    pub operators: Option<TcpListener>,
    /// For clients without TLS, which are sent to where it is; none: they are not served.
    pub redirect: Option<TcpListener>,
    /// For other gateways; none: they are not served.
    pub peers: Option<TcpListener>,
}

impl Listeners {
    /// For clients and operators.
    pub fn new(clients: TcpListener, operators: Option<TcpListener>) -> Self {
        Self {
            clients,
            operators,
            redirect: None,
            peers: None,
        }
    }
}

/// What a gateway is told while it runs.
#[derive(Debug, Clone)]
pub struct Signals {
    /// It is to end.
    pub shutdown: CancellationToken,
    /// Whatever it has read from files is to be read again, each time the number changes.
    pub reload: watch::Receiver<u64>,
}

impl From<CancellationToken> for Signals {
    /// It will be told nothing else.
    fn from(shutdown: CancellationToken) -> Self {
        let (_, reload) = watch::channel(0);
        Self { shutdown, reload }
    }
}

/// Checks settings, and the files that they name, as [`run`] does at its beginning.
///
/// # Errors
/// [`Error::Start`].
pub fn check(config: &Config) -> Result<(), Error> {
    config.front.check(config.listen).map_err(Error::Start)?;
    config.front.tls().map_err(Error::Start)?;
    cors::layer(&config.cors_origin).map(drop).map_err(Error::Start)?;
    State::new(config.clone(), CancellationToken::new()).map(drop)
}

/// Runs a gateway until it is told to end.
///
/// Then it accepts nobody any more, WebSockets are told one by one to come back elsewhere (close code 1012), requests under way are answered,
/// and after [`Config::drain_seconds`] what is left is cut off. Operators are served until then; it says "not ready".
/// The addresses in `config` are not used: the caller has bound them.
///
/// # Errors
/// [`Error::Start`] when the settings contradict each other, or a file that they name cannot be used.
pub async fn run(listeners: Listeners, config: Config, signals: impl Into<Signals>) -> Result<(), Error> {
    let Signals {
        shutdown,
        reload: asked,
    } = signals.into();
    let Listeners {
        clients,
        operators,
        redirect,
        peers,
    } = listeners;
    let front = config.front.clone();
    let address = clients.local_addr().unwrap_or(config.listen);
    front.check(address).map_err(Error::Start)?;
    let tls = front.tls().map_err(Error::Start)?;
    let cors = cors::layer(&config.cors_origin).map_err(Error::Start)?;
    if redirect.is_some() && tls.is_none() {
        let why = "a listener whose clients are to be sent to TLS needs --tls-certificate or --acme-domain";
        return Err(Error::Start(why.to_owned()));
    }
    let drain = Duration::from_secs(config.drain_seconds);
    let state = State::new(config, shutdown.clone())?;
    let metrics = Arc::clone(state.metrics());

    let beside = CancellationToken::new();
    // Stops what runs beside also when this future is dropped before its end.
    let beside_guard = beside.clone().drop_guard();
    let operators = operators.map(|listener| {
        let door = Door::plain(routes::admin(state.clone()), ADMIN_CONNECTIONS, ADMIN_DRAIN);
        tokio::spawn(door.serve(listener, beside.clone()))
    });
    if let Some(tls) = &tls {
        let (tls, metrics, asked, ended) = (tls.clone(), Arc::clone(&metrics), asked.clone(), beside.clone());
        tokio::spawn(async move { tls.keep_fresh(metrics, asked, ended).await });
    }
    if state.config().rules.is_some() {
        let rules = Arc::clone(state.routing());
        let fresh = reload::keep_fresh(rules, Arc::clone(&metrics), asked.clone(), beside.clone());
        tokio::spawn(fresh);
    }
    if let Some(log) = state.access_log() {
        let fresh = reload::keep_fresh(Arc::clone(log), Arc::clone(&metrics), asked, beside.clone());
        tokio::spawn(fresh);
    }
    tokio::spawn(Arc::clone(state.rooms().outcomes()).tell(beside.clone()));
    if let Some(listener) = redirect {
        let router = redirect::router(front.redirect_port.unwrap_or(address.port()));
        let door = Door {
            balancers: front.balancers(),
            limit_per_address: front.max_connections_per_address,
            ..Door::plain(router, front.max_connections, ADMIN_DRAIN)
        };
        tokio::spawn(door.serve(listener, shutdown.clone()));
    }
    let peers = peers.map(|listener| {
        let door = Door {
            metrics: Some(Arc::clone(&metrics)),
            ..Door::plain(routes::peers(state.clone()), front.max_connections, drain)
        };
        tokio::spawn(door.serve(listener, shutdown.clone()))
    });
    if let Some(affinity) = state.affinity().map(Arc::clone) {
        let (metrics, ended) = (Arc::clone(&metrics), beside.clone());
        tokio::spawn(async move { affinity.watch(metrics, ended).await });
    }
    let door = Door {
        router: routes::public(state.clone(), cors),
        tls,
        balancers: front.balancers(),
        limit: front.max_connections,
        limit_per_address: front.max_connections_per_address,
        metrics: Some(metrics),
        drain,
    };
    let public = door.serve(clients, shutdown.clone());
    let sockets = async {
        shutdown.cancelled().await;
        if tokio::time::timeout(drain, state.sockets_gone()).await.is_err() {
            tracing::warn!("WebSockets were cut off at the end");
        }
    };
    tokio::join!(public, sockets);
    if let Some(peers) = peers {
        let _ = peers.await;
    }
    state.rooms().close().await;
    drop(beside_guard);
    if let Some(operators) = operators {
        let _ = operators.await;
    }
    Ok(())
}
