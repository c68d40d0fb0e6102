//! `/v1/placements`.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use signalbox_protocol::placement::{PlaceRoom, Placement};
use signalbox_protocol::ticket::LIFETIME_SECONDS;

use super::check;
use super::extract::Body;
use super::failure::{Failure, Kind};
use crate::Service;
use crate::store::Store;

/// `POST /v1/placements`.
pub async fn place<S: Store>(
    State(service): State<Arc<Service<S>>>,
    Body(request): Body<PlaceRoom>,
) -> Result<Json<Placement>, Failure> {
    check::placement(&request)?;
    let cluster = service.cluster()?;
    let missing = if request.find_only {
        Kind::UnknownRoom
    } else {
        Kind::NoNode
    };
    let assignment = service.place(&request).await?.ok_or(missing)?;
    let ticket = service.signer.sign(cluster, &assignment, SystemTime::now())?;
    Ok(Json(Placement {
        room: assignment.room,
        node: assignment.node,
        control: assignment.control,
        epoch: assignment.epoch,
        generation: assignment.generation,
        ticket,
        ticket_seconds: LIFETIME_SECONDS,
    }))
}
