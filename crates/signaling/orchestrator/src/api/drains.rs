//! `/v1/nodes/{node}/drain`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use signalbox_protocol::NodeId;
use signalbox_protocol::node::{Drain, DrainNode};

use super::extract::{Body, Param};
use super::failure::{Failure, Kind};
use crate::Service;
use crate::drains::eta;
use crate::store::{DrainRecord, Store};

/// The highest rate, in rooms per second. Higher: all rooms of a node may move at once, and their clients come to the others at once.
const MAX_RATE: f64 = 1_000.0;

/// The latest deadline: a week.
const MAX_DEADLINE_MS: u64 = 7 * 24 * 3600 * 1000;

/// `PUT /v1/nodes/{node}/drain`.
pub async fn begin<S: Store>(
    State(service): State<Arc<Service<S>>>,
    Param(node): Param<NodeId>,
    Body(how): Body<DrainNode>,
) -> Result<Json<Drain>, Failure> {
    if !(how.rate > 0.0 && how.rate <= MAX_RATE) {
        let detail = format!("`rate` is in rooms per second, more than 0 and at most {MAX_RATE}.");
        return Err(Failure::bad_request(&detail));
    }
    if how.deadline_ms.is_some_and(|ms| ms == 0 || ms > MAX_DEADLINE_MS) {
        let detail = format!(
            "`deadline_ms` is at least 1 and at most {MAX_DEADLINE_MS}; leave it out to go on until it is done."
        );
        return Err(Failure::bad_request(&detail));
    }
    let Some(record) = service.store.begin_drain(node, &how).await? else {
        let nodes = service.store.nodes().await?;
        let is_known = nodes.iter().any(|view| view.node == node);
        return Err(if is_known { Kind::NodeLost } else { Kind::UnknownNode }.into());
    };
    tracing::info!(%node, rate = how.rate, rooms = record.drain.rooms_left, "a node is to be emptied");
    Ok(Json(told(record)))
}

/// `GET /v1/nodes/{node}/drain`.
pub async fn look<S: Store>(
    State(service): State<Arc<Service<S>>>,
    Param(node): Param<NodeId>,
) -> Result<Json<Drain>, Failure> {
    let record = service.store.drain(node).await?.ok_or(Kind::NoDrain)?;
    Ok(Json(told(record)))
}

/// `DELETE /v1/nodes/{node}/drain`.
pub async fn cancel<S: Store>(
    State(service): State<Arc<Service<S>>>,
    Param(node): Param<NodeId>,
) -> Result<Json<Drain>, Failure> {
    let record = service.store.cancel_drain(node).await?.ok_or(Kind::NoDrain)?;
    tracing::info!(%node, "a node takes rooms again");
    Ok(Json(told(record)))
}

/// With how long it will go on.
fn told(record: DrainRecord) -> Drain {
    let eta = eta::of(&record);
    Drain {
        eta_ms: eta.map(|eta| u64::try_from(eta.as_millis()).unwrap_or(u64::MAX)),
        ..record.drain
    }
}
