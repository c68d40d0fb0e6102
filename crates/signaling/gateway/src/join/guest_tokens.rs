//! `POST /v1/guest-tokens`: a token for whoever asks, where the operator allows it.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State as Shared;
use serde::{Deserialize, Serialize};
use signalbox_protocol::token::{AccessClaims, VideoGrant};
use signalbox_protocol::{Identity, RoomName};
use utoipa::ToSchema;
use utoipa::openapi::HttpMethod::Post;

use super::body::JsonBody;
use crate::openapi::{Routes, operation};
use crate::problem::ApiError;
use crate::state::State;

/// How long a guest's token holds. Higher: guests who keep it come back for longer. Lower: long calls cannot be rejoined.
const LIFETIME: Duration = Duration::from_secs(6 * 3600);

/// Who wants to join which room.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GuestRequest {
    /// The room.
    room: RoomName,
    /// Who the guest is in it.
    identity: Identity,
    /// A name to show.
    #[serde(default)]
    name: String,
}

/// What a guest joins with.
#[derive(Serialize, ToSchema)]
pub(super) struct GuestToken {
    /// The access token.
    token: String,
}

pub(super) fn add(routes: Routes) -> Routes {
    routes.open(
        operation(
            Post,
            "/v1/guest-tokens",
            "createGuestToken",
            "A token for whoever asks, where the operator allows it.",
        )
        .tag("tokens")
        .body::<GuestRequest>()
        .answers::<GuestToken>(200, "The token; it holds for six hours.")
        .fails([ApiError::GuestsOff, ApiError::Internal]),
        create,
    )
}

async fn create(
    Shared(state): Shared<State>,
    _: GuestsAllowed,
    JsonBody(request): JsonBody<GuestRequest>,
) -> Result<Json<GuestToken>, ApiError> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| ApiError::Internal)?;
    let token = state.keys().sign(AccessClaims {
        sub: request.identity.into(),
        exp: (now + LIFETIME).as_secs(),
        name: request.name,
        video: VideoGrant {
            room_join: true,
            room: request.room.into(),
            ..VideoGrant::default()
        },
        ..AccessClaims::default()
    })?;
    Ok(Json(GuestToken { token }))
}

/// Checked before the body is read.
struct GuestsAllowed;

impl axum::extract::FromRequestParts<State> for GuestsAllowed {
    type Rejection = ApiError;

    async fn from_request_parts(_: &mut axum::http::request::Parts, state: &State) -> Result<Self, ApiError> {
        if state.config().guests {
            Ok(Self)
        } else {
            Err(ApiError::GuestsOff)
        }
    }
}
