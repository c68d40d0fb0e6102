//! The L7 tier: takes clients over HTTP and WebSocket and leads each to the media node of its room.
//!
//! Each client dialect is one module that translates into the control protocol: [`join`] (our own HTTP API, with `srtp` for clients without a
//! peer connection), [`livekit`], and [`whip`].
//! Sees no media, decides no placement, opens no database, reads no SDP.

pub mod access;
pub mod config;
pub mod join;
pub mod livekit;
pub mod metrics;
pub mod moves;
pub mod openapi;
pub mod page;
pub mod problem;
pub mod rooms;
pub mod session;
pub mod state;
pub mod upstreams;
pub mod whip;

mod node_link;
mod orchestrators;
mod placements;
mod reports;
mod routes;
mod server;
mod srtp;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::Config;
pub use problem::ApiError as Error;

use crate::state::State;

/// How many connections of operators at once.
const ADMIN_CONNECTIONS: usize = 64;

/// How long an operator's last request may take at the end.
const ADMIN_DRAIN: Duration = Duration::from_secs(1);

/// Runs a gateway on `listener` until `shutdown` is cancelled.
///
/// Then it accepts nobody any more, WebSockets are told one by one to come back elsewhere (close code 1012), requests under way are answered,
/// and after [`Config::drain_seconds`] what is left is cut off. The `admin` listener, if any, is served until then; it says "not ready".
/// The addresses in `config` are not used: the caller has bound them.
///
/// # Errors
/// [`Error::Start`] when the settings contradict each other.
pub async fn run(
    listener: TcpListener,
    admin: Option<TcpListener>,
    config: Config,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let drain = Duration::from_secs(config.drain_seconds);
    let limit = config.max_connections;
    let state = State::new(config, shutdown.clone())?;
    let admin_shutdown = CancellationToken::new();
    let admin = admin.map(|listener| {
        let router = routes::admin(state.clone());
        let stop = admin_shutdown.clone();
        tokio::spawn(server::serve(
            listener,
            router,
            None,
            ADMIN_CONNECTIONS,
            ADMIN_DRAIN,
            stop,
        ))
    });
    // Stops the admin listener also when this future is dropped before its end.
    let admin_guard = admin_shutdown.drop_guard();
    let metrics = Some(Arc::clone(state.metrics()));
    let public = server::serve(
        listener,
        routes::public(state.clone()),
        metrics,
        limit,
        drain,
        shutdown.clone(),
    );
    let sockets = async {
        shutdown.cancelled().await;
        if tokio::time::timeout(drain, state.sockets_gone()).await.is_err() {
            tracing::warn!("WebSockets were cut off at the end");
        }
    };
    tokio::join!(public, sockets);
    state.rooms().close().await;
    drop(admin_guard);
    if let Some(admin) = admin {
        let _ = admin.await;
    }
    Ok(())
}
