//! `/v1/nodes` and `/v1/nodes/{node}/…`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use signalbox_protocol::NodeId;
use signalbox_protocol::placement::{Heartbeat, NodeList, RegisterNode, Registered, Release, Renewed};

use super::extract::{Body, Param};
use super::{Failure, Shared};
use crate::store::Store;

/// The longest text of a registration, in bytes.
const MAX_TEXT_BYTES: usize = 256;

/// The most labels and the most media addresses of a registration.
const MAX_ENTRIES: usize = 256;

/// `POST /v1/nodes`.
pub async fn register<S: Store>(
    State(shared): State<Arc<Shared<S>>>,
    Body(node): Body<RegisterNode>,
) -> Result<Json<Registered>, Failure> {
    check(&node)?;
    let epoch = shared.store.register(&node, shared.lease).await?;
    tracing::info!(node = %node.node, %epoch, region = node.region, version = node.version, "node registered");
    Ok(Json(Registered {
        epoch,
        lease_ms: millis(shared.lease),
        heartbeat_ms: millis(shared.heartbeat),
    }))
}

/// `POST /v1/nodes/{node}/heartbeat`.
pub async fn heartbeat<S: Store>(
    State(shared): State<Arc<Shared<S>>>,
    Param(node): Param<NodeId>,
    Body(heartbeat): Body<Heartbeat>,
) -> Result<Json<Renewed>, Failure> {
    if shared
        .store
        .renew(node, heartbeat.epoch, heartbeat.load, shared.lease)
        .await?
    {
        Ok(Json(Renewed {
            lease_ms: millis(shared.lease),
        }))
    } else {
        Err(Failure::EpochOver)
    }
}

/// `POST /v1/nodes/{node}/release`.
pub async fn release<S: Store>(
    State(shared): State<Arc<Shared<S>>>,
    Param(node): Param<NodeId>,
    Body(release): Body<Release>,
) -> Result<StatusCode, Failure> {
    if shared.store.release(node, release.epoch).await? {
        tracing::info!(%node, epoch = %release.epoch, "node released its lease");
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/nodes`.
pub async fn list<S: Store>(State(shared): State<Arc<Shared<S>>>) -> Result<Json<NodeList>, Failure> {
    Ok(Json(NodeList {
        nodes: shared.store.nodes().await?,
    }))
}

fn check(node: &RegisterNode) -> Result<(), Failure> {
    if !(node.control.starts_with("ws://") || node.control.starts_with("wss://")) {
        return Err(Failure::BadRequest(
            "`control` must be a WebSocket URL such as ws://10.0.0.7:7900.".into(),
        ));
    }
    if node.media.is_empty() || node.media.len() > MAX_ENTRIES || node.labels.len() > MAX_ENTRIES {
        return Err(Failure::BadRequest(
            "`media` must name 1 to 256 addresses, and `labels` at most 256 pairs.".into(),
        ));
    }
    let labels = node.labels.iter().flat_map(|(key, value)| [key, value]);
    let texts = [&node.control, &node.region, &node.zone, &node.version]
        .into_iter()
        .chain(labels);
    for text in texts {
        // Control characters would garble operators' tables; NUL, the database refuses.
        if text.len() > MAX_TEXT_BYTES || text.chars().any(char::is_control) {
            return Err(Failure::BadRequest(
                "Every text of a registration must be at most 256 bytes long and hold printable characters only."
                    .into(),
            ));
        }
    }
    Ok(())
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
