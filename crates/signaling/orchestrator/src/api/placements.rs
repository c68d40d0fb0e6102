//! `/v1/placements`.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use signalbox_protocol::placement::{PlaceRoom, Placement};
use signalbox_protocol::ticket::LIFETIME_SECONDS;

use super::extract::Body;
use super::{Failure, Shared};
use crate::store::Store;

/// `POST /v1/placements`.
pub async fn place<S: Store>(
    State(shared): State<Arc<Shared<S>>>,
    Body(request): Body<PlaceRoom>,
) -> Result<Json<Placement>, Failure> {
    let assignment = shared
        .placer
        .place(&shared.store, &request)
        .await?
        .ok_or(Failure::NoNode)?;
    let ticket = shared.signer.sign(&assignment, SystemTime::now())?;
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
