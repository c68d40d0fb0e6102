//! `/v1/rooms/{room}/…`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use signalbox_protocol::RoomName;
use signalbox_protocol::placement::{CloseRoom, RoomClosed};

use super::extract::{Body, Param};
use super::{Failure, Shared};
use crate::store::Store;

/// `POST /v1/rooms/{room}/close`.
pub async fn close<S: Store>(
    State(shared): State<Arc<Shared<S>>>,
    Param(room): Param<RoomName>,
    Body(owner): Body<CloseRoom>,
) -> Result<Json<RoomClosed>, Failure> {
    let closed = shared.store.close(&room, &owner).await?;
    if closed {
        tracing::info!(%room, node = %owner.node, generation = %owner.generation, "room closed");
    }
    Ok(Json(RoomClosed { closed }))
}
