//! `PATCH /v1/rooms/{room}`: what everyone is told of the room itself. With the grant `roomAdmin` only.

use axum::Json;
use axum::extract::State as Shared;
use serde::Deserialize;
use signalbox_protocol::control::{Reply, RoomCommand};
use signalbox_protocol::room::RoomInfo;
use utoipa::ToSchema;
use utoipa::openapi::HttpMethod::Patch;

use super::body::JsonBody;
use super::{Observer, Role};
use crate::openapi::{Routes, operation};
use crate::problem::ApiError;
use crate::rooms::unexpected;
use crate::state::State;

/// What is to change of a room.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RoomUpdate {
    /// Free text of the application, 64 KiB at most with the rest of the body; empty: none.
    metadata: String,
}

pub(super) fn add(routes: Routes) -> Routes {
    routes.guarded(
        operation(Patch, "/v1/rooms/{room}", "updateRoom", "Change a room's metadata.")
            .tag("rooms")
            .describe(
                "With `roomAdmin`. Everyone in the room is told: in `room` on event streams, in a room update in LiveKit's SDKs. It stays when \
                 the room moves to another node, and ends with the room: a room that nobody is in is not opened by this.",
            )
            .body::<RoomUpdate>()
            .answers::<RoomInfo>(200, "The room as it is now.")
            .fails([ApiError::NoRoom]),
        update,
    )
}

async fn update(
    Shared(state): Shared<State>,
    observer: Observer,
    JsonBody(RoomUpdate { metadata }): JsonBody<RoomUpdate>,
) -> Result<Json<RoomInfo>, ApiError> {
    let Observer { room, role } = observer;
    if let Role::Participant(_) = role {
        return Err(ApiError::Forbidden(
            "The access token does not allow to change the room; it needs the grant `roomAdmin`.".into(),
        ));
    }
    let command = RoomCommand::SetMetadata { metadata };
    match state.rooms().administer(&room, command).await? {
        Reply::Room { room, .. } => Ok(Json(room)),
        reply => Err(unexpected(&reply)),
    }
}
