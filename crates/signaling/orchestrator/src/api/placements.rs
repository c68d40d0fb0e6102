//! `/v1/placements`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use signalbox_protocol::placement::{PlaceRoom, Placement};

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
    // Nothing is placed that no ticket could open.
    service.cluster()?;
    let missing = if request.find_only {
        Kind::UnknownRoom
    } else {
        Kind::NoNode
    };
    let assignment = service.place(&request).await?.ok_or(missing)?;
    let by_canary_share = service.placer.is_by_canary_share(&request, assignment.node);
    Ok(Json(Placement {
        by_canary_share,
        ..service.placement(assignment)?
    }))
}
