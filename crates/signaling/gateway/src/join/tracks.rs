//! `/v1/rooms/{room}/participants/{participant}/tracks/{track}`: the participant's own tracks; with `roomAdmin` anybody's.

use axum::extract::State as Shared;
use axum::http::StatusCode;
use serde::Deserialize;
use signalbox_protocol::TrackId;
use signalbox_protocol::control::{Command, RoomCommand};
use utoipa::ToSchema;
use utoipa::openapi::HttpMethod::{Delete, Patch};

use super::body::JsonBody;
use super::{Actor, NamedTrack, Role};
use crate::openapi::{Routes, operation};
use crate::problem::ApiError;
use crate::state::State;

const TRACK: &str = "/v1/rooms/{room}/participants/{participant}/tracks/{track}";

/// What is to change of a track.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TrackUpdate {
    /// Muted: nothing of it is forwarded.
    muted: bool,
}

pub(super) fn add(routes: Routes) -> Routes {
    routes
        .guarded(
            operation(Patch, TRACK, "muteTrack", "Mute or unmute a track.")
                .tag("tracks")
                .describe(
                    "With `roomAdmin` anybody's track can be muted. Only the participant itself unmutes: nobody turns on another's microphone.",
                )
                .body::<TrackUpdate>()
                .answers_nothing(204, "It is so.")
                .fails([ApiError::NoRoom]),
            update,
        )
        .guarded(
            operation(Delete, TRACK, "unpublishTrack", "End a track.")
                .tag("tracks")
                .answers_nothing(204, "It is no longer published.")
                .fails([ApiError::NoRoom]),
            unpublish,
        )
}

async fn update(
    Shared(state): Shared<State>,
    actor: Actor,
    NamedTrack(track): NamedTrack,
    JsonBody(TrackUpdate { muted }): JsonBody<TrackUpdate>,
) -> Result<StatusCode, ApiError> {
    match &actor.role {
        Role::Administrator(_) if muted => {
            let participant = actor.participant.clone();
            let command = RoomCommand::Mute {
                participant,
                track,
                muted,
            };
            actor.administer(&state, command).await?;
        }
        Role::Administrator(own) => unmute(&state, &actor, own.as_ref(), track).await?,
        Role::Participant(own) => {
            actor.command(&state, own, Command::Mute { track, muted }).await?;
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// An administrator unmutes, which only its own track allows.
async fn unmute(
    state: &State,
    actor: &Actor,
    own: Option<&signalbox_protocol::Identity>,
    track: TrackId,
) -> Result<(), ApiError> {
    let found = actor.find(state).await?;
    let Some(own) = own.filter(|own| **own == found.identity) else {
        return Err(ApiError::Forbidden(
            "Only the participant itself can unmute its track; ask it to.".into(),
        ));
    };
    let command = Command::Mute { track, muted: false };
    state.rooms().command(&actor.room, &found.id, own, command).await?;
    Ok(())
}

async fn unpublish(
    Shared(state): Shared<State>,
    actor: Actor,
    NamedTrack(track): NamedTrack,
) -> Result<StatusCode, ApiError> {
    match &actor.role {
        Role::Administrator(_) => {
            let participant = actor.participant.clone();
            let command = RoomCommand::Unpublish { participant, track };
            actor.administer(&state, command).await?;
        }
        Role::Participant(own) => {
            actor.command(&state, own, Command::Unpublish { track }).await?;
        }
    }
    Ok(StatusCode::NO_CONTENT)
}
