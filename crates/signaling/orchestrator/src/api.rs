//! The HTTP API that gateways and media nodes call; its table is in [`signalbox_protocol::placement`].
//!
//! Owns routes, authentication, limits and the form of errors. It must not know SQL, nor choose nodes. One file for
//! each noun of the paths.

mod extract;
mod failure;
mod guard;
mod health;
mod nodes;
mod placements;
mod rooms;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Router, middleware};
use tokio::sync::watch;

use crate::placer::Placer;
use crate::store::Store;
use crate::ticket::Signer;

use failure::Failure;
pub use guard::Guard;

/// The longest body, in bytes, except for heartbeats.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// The longest heartbeat, in bytes: it names every room of the node. About 10,000 rooms with names of the longest kind.
pub const MAX_HEARTBEAT_BYTES: usize = 4 * 1024 * 1024;

/// What the handlers share.
pub struct Shared<S> {
    /// The room map.
    pub store: S,
    /// Finds and places rooms.
    pub placer: Placer,
    /// Signs tickets.
    pub signer: Signer,
    /// How long a lease holds.
    pub lease: Duration,
    /// How often to renew it.
    pub heartbeat: Duration,
    /// Whether the store answered when it was last asked.
    pub reachable: watch::Receiver<bool>,
}

/// All routes. Everything but `/livez` and `/readyz` needs the cluster secret.
pub fn router<S: Store>(shared: Arc<Shared<S>>, guard: Guard) -> Router {
    let heartbeat = post(nodes::heartbeat::<S>).layer(DefaultBodyLimit::max(MAX_HEARTBEAT_BYTES));
    let api = Router::new()
        .route("/v1/placements", post(placements::place::<S>))
        .route("/v1/nodes", get(nodes::list::<S>).post(nodes::register::<S>))
        .route("/v1/nodes/{node}/heartbeat", heartbeat)
        .route("/v1/nodes/{node}/release", post(nodes::release::<S>))
        .route("/v1/rooms/{room}/close", post(rooms::close::<S>))
        .fallback(async || Failure::NotFound)
        .method_not_allowed_fallback(async || Failure::MethodNotAllowed)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(Arc::new(guard), guard::check));
    let health = Router::new()
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready::<S>))
        .method_not_allowed_fallback(async || Failure::MethodNotAllowed);
    health.merge(api).with_state(shared)
}
