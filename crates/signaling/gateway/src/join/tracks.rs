//! `/v1/rooms/{room}/participants/{id}/tracks/{track}`: the participant's own tracks.

use axum::extract::State as Shared;
use axum::http::StatusCode;
use serde::Deserialize;
use signalbox_protocol::control::Command;

use super::body::JsonBody;
use super::{Member, NamedTrack};
use crate::problem::ApiError;
use crate::state::State;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrackUpdate {
    muted: bool,
}

/// `PATCH`: mute or unmute.
pub(super) async fn update(
    Shared(state): Shared<State>,
    member: Member,
    NamedTrack(track): NamedTrack,
    JsonBody(TrackUpdate { muted }): JsonBody<TrackUpdate>,
) -> Result<StatusCode, ApiError> {
    member.command(&state, Command::Mute { track, muted }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE`: unpublish.
pub(super) async fn unpublish(
    Shared(state): Shared<State>,
    member: Member,
    NamedTrack(track): NamedTrack,
) -> Result<StatusCode, ApiError> {
    member.command(&state, Command::Unpublish { track }).await?;
    Ok(StatusCode::NO_CONTENT)
}
