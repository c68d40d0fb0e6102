//! `/v1/rooms/{room}/participants/{id}`: leave, and negotiate again.

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use signalbox_protocol::control::{Command, Reply};

use super::Member;
use super::admission::check_offer;
use super::body::JsonBody;
use crate::problem::ApiError;
use crate::state::State;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfferRequest {
    offer: String,
}

#[derive(Serialize)]
pub(super) struct OfferResponse {
    answer: String,
}

/// `DELETE`: leave the room.
pub(super) async fn leave(Shared(state): Shared<State>, member: Member) -> Result<StatusCode, ApiError> {
    member.command(&state, Command::Leave).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST …/offer`: another offer on the same connection, for more tracks, more slots or an ICE restart.
pub(super) async fn offer(
    Shared(state): Shared<State>,
    member: Member,
    JsonBody(request): JsonBody<OfferRequest>,
) -> Result<Json<OfferResponse>, ApiError> {
    check_offer(&request.offer)?;
    match member.command(&state, Command::Offer { sdp: request.offer }).await? {
        Reply::Answer { sdp } => Ok(Json(OfferResponse { answer: sdp })),
        _ => {
            tracing::error!(room = %member.room, "a media node did not answer an offer with an answer");
            Err(ApiError::Internal)
        }
    }
}

impl Member {
    /// Does something for this participant.
    pub(super) async fn command(&self, state: &State, command: Command) -> Result<Reply, ApiError> {
        state
            .rooms()
            .command(&self.room, &self.participant, &self.identity, command)
            .await
    }
}
