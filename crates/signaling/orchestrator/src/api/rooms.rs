//! `/v1/rooms` and `/v1/rooms/{room}/…`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use signalbox_protocol::history::RoomPlacement;
use signalbox_protocol::placement::{CloseRoom, RoomClosed, RoomList};
use signalbox_protocol::{NodeId, RoomName};
use utoipa::IntoParams;

use super::extract::{Body, Param, Query};
use super::failure::{Failure, Kind};
use crate::Service;
use crate::store::Store;

/// The most rooms of a page, and how many it has when nobody says.
const MAX_PAGE: usize = 1000;
const PAGE: usize = 100;

/// The most entries of a room's history that are told.
const MAX_HISTORY: usize = 100;

/// Which rooms.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Those whose names come after this one; byte by byte.
    #[param(value_type = Option<String>)]
    after: Option<RoomName>,
    /// At most so many, 1 to 1000. Default: 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Only those of this node.
    #[param(value_type = Option<uuid::Uuid>)]
    node: Option<NodeId>,
}

/// `GET /v1/rooms`.
pub async fn list<S: Store>(
    State(service): State<Arc<Service<S>>>,
    Query(page): Query<Page>,
) -> Result<Json<RoomList>, Failure> {
    let limit = page.limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Failure::bad_request(format!("`limit` must be from 1 to {MAX_PAGE}.")));
    }
    // One more tells whether there is a next page.
    let mut rooms = service.store.rooms(page.after.as_ref(), page.node, limit + 1).await?;
    let more = rooms.len() > limit;
    rooms.truncate(limit);
    let next = rooms.last().filter(|_| more).map(|last| last.room.clone());
    Ok(Json(RoomList { rooms, next }))
}

/// `GET /v1/rooms/{room}/placement`.
pub async fn explain<S: Store>(
    State(service): State<Arc<Service<S>>>,
    Param(room): Param<RoomName>,
) -> Result<Json<RoomPlacement>, Failure> {
    let (now, history) = service
        .store
        .history(&room, MAX_HISTORY)
        .await?
        .ok_or(Kind::UnknownRoom)?;
    Ok(Json(RoomPlacement { now, history }))
}

/// `POST /v1/rooms/{room}/close`.
pub async fn close<S: Store>(
    State(service): State<Arc<Service<S>>>,
    Param(room): Param<RoomName>,
    Body(owner): Body<CloseRoom>,
) -> Result<Json<RoomClosed>, Failure> {
    let closed = service.store.close(&room, &owner, &service.name).await?;
    if closed {
        service.known_rooms().closed(&room, owner.generation);
        tracing::info!(%room, node = %owner.node, generation = %owner.generation, "room closed");
    }
    Ok(Json(RoomClosed { closed }))
}
