//! `/v1/nodes` and `/v1/nodes/{node}/…`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use signalbox_protocol::NodeId;
use signalbox_protocol::node::{
    Heartbeat, NodeList, NodeState, RegisterNode, Registered, Release, Renewed, ReportNode, SetNodeState, Verdict,
};

use super::check;
use super::extract::{Body, Param};
use super::failure::{Failure, Kind};
use crate::Service;
use crate::leases::{Beat, millis};
use crate::store::{Registration, Store};

/// `POST /v1/nodes`.
pub async fn register<S: Store>(
    State(service): State<Arc<Service<S>>>,
    Body(node): Body<RegisterNode>,
) -> Result<Json<Registered>, Failure> {
    check::registration(&node, service.public_media)?;
    let cluster = service.cluster()?;
    let lease = service.leases.lease();
    let epoch = match service.store.register(&node, lease).await? {
        Registration::Held(epoch) => epoch,
        Registration::Behind(epoch) => return Err(Failure::epoch_moved(epoch)),
    };
    tracing::info!(node = %node.node, %epoch, region = node.region, version = node.version, "node registered");
    Ok(Json(Registered {
        epoch,
        cluster,
        lease_ms: millis(lease),
        heartbeat_ms: millis(service.heartbeat),
    }))
}

/// `POST /v1/nodes/{node}/heartbeat`.
pub async fn heartbeat<S: Store>(
    State(service): State<Arc<Service<S>>>,
    Param(node): Param<NodeId>,
    Body(heartbeat): Body<Heartbeat>,
) -> Result<Json<Renewed>, Failure> {
    match service.beat(node, &heartbeat).await? {
        Beat::Renewed(renewed) => Ok(Json(renewed)),
        Beat::Past => Err(Kind::HeartbeatFromThePast.into()),
        Beat::Over => Err(Kind::EpochOver.into()),
    }
}

/// `POST /v1/nodes/{node}/release`.
pub async fn release<S: Store>(
    State(service): State<Arc<Service<S>>>,
    Param(node): Param<NodeId>,
    Body(release): Body<Release>,
) -> Result<StatusCode, Failure> {
    let released = service.store.release(node, release.epoch).await?;
    service.known_rooms().dead(node, release.epoch);
    if released {
        tracing::info!(%node, epoch = %release.epoch, "node released its lease");
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/nodes/{node}/reports`.
pub async fn report<S: Store>(
    State(service): State<Arc<Service<S>>>,
    Param(node): Param<NodeId>,
    Body(report): Body<ReportNode>,
) -> Result<Json<Verdict>, Failure> {
    let verdict = service.look_into(node, report).await?;
    verdict.map(Json).ok_or(Kind::UnknownNode.into())
}

/// `PUT /v1/nodes/{node}/state`.
pub async fn set_state<S: Store>(
    State(service): State<Arc<Service<S>>>,
    Param(node): Param<NodeId>,
    Body(wanted): Body<SetNodeState>,
) -> Result<StatusCode, Failure> {
    if wanted.state == NodeState::Lost {
        return Err(Failure::bad_request(
            "`lost` cannot be set: stop the node, and it is lost. Set `serving` or `draining`.",
        ));
    }
    match service.store.set_state(node, wanted.state).await? {
        None => Err(Kind::UnknownNode.into()),
        Some(NodeState::Lost) => Err(Kind::NodeLost.into()),
        Some(state) => {
            tracing::info!(%node, ?state, "an operator set the state of a node");
            Ok(StatusCode::NO_CONTENT)
        }
    }
}

/// `GET /v1/nodes`.
pub async fn list<S: Store>(State(service): State<Arc<Service<S>>>) -> Result<Json<NodeList>, Failure> {
    Ok(Json(NodeList {
        nodes: service.store.nodes().await?,
    }))
}
