//! `/v1/rooms/{room}/participants` and `…/{participant}`: who is there; change one, remove one, leave, and negotiate again.
//!
//! With the grant `roomAdmin` for all participants of the room, else for oneself.

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use signalbox_protocol::control::{Command, ParticipantUpdate, Reply, RoomCommand};
use signalbox_protocol::room::{ParticipantInfo, RoomInfo};
use utoipa::ToSchema;
use utoipa::openapi::HttpMethod::{Delete, Get, Patch, Post};

use super::admission::{check_name, check_offer};
use super::body::JsonBody;
use super::{Actor, Member, Observer, PARTICIPANT, Role};
use crate::openapi::{Routes, no_participant, operation};
use crate::problem::ApiError;
use crate::rooms::unexpected;
use crate::state::State;

/// Another offer.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OfferRequest {
    /// The SDP of the client's offer (RFC 8866).
    offer: String,
}

/// What the node says to another offer.
#[derive(Serialize, ToSchema)]
pub(super) struct OfferResponse {
    /// The SDP of the answer.
    answer: String,
}

/// A room and who is in it.
#[derive(Serialize, ToSchema)]
pub(super) struct RoomView {
    /// The room.
    room: RoomInfo,
    /// Everyone in it whom the caller may know about.
    participants: Vec<ParticipantInfo>,
}

pub(super) fn add(routes: Routes) -> Routes {
    routes
        .guarded(
            operation(
                Get,
                "/v1/rooms/{room}/participants",
                "listParticipants",
                "Who is in the room, and what they publish.",
            )
            .tag("participants")
            .describe(
                "With `roomAdmin` everyone, the hidden ones too. Without it only for those who are in the room themselves. A room that \
                 nobody is in is not opened by asking.",
            )
            .answers::<RoomView>(200, "The room and its participants.")
            .fails([ApiError::NoRoom]),
            list,
        )
        .guarded(
            operation(Get, PARTICIPANT, "getParticipant", "One participant, by its id or its identity.")
                .tag("participants")
                .answers::<ParticipantInfo>(200, "The participant.")
                .fails([ApiError::NoRoom]),
            get,
        )
        .guarded(
            operation(
                Patch,
                PARTICIPANT,
                "updateParticipant",
                "Change a participant's name, metadata, attributes or grants.",
            )
            .tag("participants")
            .describe(
                "What is not named stays as it is; an attribute with an empty value is removed. Grants can be changed with `roomAdmin` \
                 only, and what is taken away takes effect: tracks end, nothing more is received. The rest a participant may change of \
                 itself if it has the grant `canUpdateOwnMetadata`.",
            )
            .body::<ParticipantUpdate>()
            .answers::<ParticipantInfo>(200, "The participant as it is now.")
            .fails([ApiError::NoRoom]),
            update,
        )
        .guarded(
            operation(
                Delete,
                PARTICIPANT,
                "removeParticipant",
                "Leave the room; with `roomAdmin`, remove somebody from it.",
            )
            .tag("participants")
            .answers_nothing(204, "It is out.")
            .fails([ApiError::NoRoom]),
            remove,
        )
        .guarded(
            operation(
                Post,
                "/v1/rooms/{room}/participants/{participant}/offer",
                "negotiate",
                "Another offer on the same connection: for more tracks, more slots, or an ICE restart.",
            )
            .tag("participants")
            .body::<OfferRequest>()
            .answers::<OfferResponse>(200, "The answer.")
            .fails([invalid_sdp()]),
            offer,
        )
}

/// 400 of operations that take SDP.
pub(super) fn invalid_sdp() -> ApiError {
    ApiError::InvalidSdp("The SDP cannot be used; the detail says why.".into())
}

async fn list(Shared(state): Shared<State>, observer: Observer) -> Result<Json<RoomView>, ApiError> {
    view(&state, &observer).await.map(Json)
}

/// The room as somebody may see it.
async fn view(state: &State, Observer { room, role }: &Observer) -> Result<RoomView, ApiError> {
    let (room, mut participants) = match state.rooms().administer(room, RoomCommand::List).await? {
        Reply::Room { room, participants } => (room, participants),
        reply => return Err(unexpected(&reply)),
    };
    if let Role::Participant(own) = role {
        if !participants.iter().any(|participant| participant.identity == *own) {
            return Err(ApiError::Forbidden(
                "Only who is in the room may see who else is; join first, or ask for a token with the grant `roomAdmin`.".into(),
            ));
        }
        participants.retain(|participant| !participant.grants.hidden || participant.identity == *own);
    }
    Ok(RoomView { room, participants })
}

async fn get(Shared(state): Shared<State>, actor: Actor) -> Result<Json<ParticipantInfo>, ApiError> {
    let is_named =
        |info: &ParticipantInfo| [info.id.as_str(), info.identity.as_str()].contains(&actor.participant.as_str());
    match &actor.role {
        Role::Administrator(_) => actor.find(&state).await.map(Json),
        Role::Participant(_) => {
            let observer = Observer {
                room: actor.room,
                role: actor.role,
            };
            let found = view(&state, &observer).await?.participants.into_iter().find(is_named);
            found.map(Json).ok_or_else(no_participant)
        }
    }
}

async fn update(
    Shared(state): Shared<State>,
    actor: Actor,
    JsonBody(update): JsonBody<ParticipantUpdate>,
) -> Result<Json<ParticipantInfo>, ApiError> {
    if update == ParticipantUpdate::default() {
        return Err(ApiError::InvalidBody(
            "it names none of `name`, `metadata`, `attributes`, `grants`".into(),
        ));
    }
    if let Some(name) = &update.name {
        check_name(name)?;
    }
    let own = match &actor.role {
        Role::Administrator(_) => {
            let command = RoomCommand::Update {
                participant: actor.participant.clone(),
                update: Box::new(update),
            };
            return match actor.administer(&state, command).await? {
                Reply::Participant { participant } => Ok(Json(*participant)),
                reply => Err(unexpected(&reply)),
            };
        }
        Role::Participant(own) => own,
    };
    let ParticipantUpdate {
        name,
        metadata,
        attributes,
        grants,
    } = update;
    if grants.is_some() {
        return Err(ApiError::Forbidden(
            "The access token does not allow to change grants; it needs the grant `roomAdmin`.".into(),
        ));
    }
    let command = Command::Update {
        name,
        metadata,
        attributes,
    };
    actor.command(&state, own, command).await?;
    actor.find(&state).await.map(Json)
}

async fn remove(Shared(state): Shared<State>, actor: Actor) -> Result<StatusCode, ApiError> {
    match &actor.role {
        Role::Administrator(_) => {
            let participant = actor.participant.clone();
            actor.administer(&state, RoomCommand::Remove { participant }).await?;
        }
        Role::Participant(own) => {
            actor.command(&state, own, Command::Leave).await?;
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn offer(
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
