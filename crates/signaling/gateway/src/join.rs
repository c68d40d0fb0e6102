//! Our own HTTP API: one module for each noun of its URLs.
//!
//! Owns the routes, their JSON and the extractors that check who asks, before a body is read. Knows no placement and no link.
//!
//! | route | module |
//! |---|---|
//! | `POST /v1/rooms/{room}/join` | `admission` |
//! | `PATCH /v1/rooms/{room}` | `metadata` |
//! | `GET /v1/rooms/{room}/participants`; `GET`, `PATCH`, `DELETE …/{id or identity}`; `POST …/offer` | `participants` |
//! | `PATCH`, `DELETE …/participants/{id}/tracks/{track}` | `tracks` |
//! | `PATCH …/participants/{id}/subscriptions/{track}` | `subscriptions` |
//! | `GET …/participants/{id}/events` | `events` |
//! | `POST /v1/guest-tokens` | `guest_tokens` |

mod admission;
pub(crate) mod body;
pub(crate) mod events;
mod guest_tokens;
mod metadata;
mod participants;
mod subscriptions;
mod tracks;

use std::collections::HashMap;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::routing::any;
use signalbox_protocol::control::{Command, Reply, RoomCommand};
use signalbox_protocol::id::InvalidName;
use signalbox_protocol::room::ParticipantInfo;
use signalbox_protocol::{Identity, ParticipantId, RoomName, TrackId};

use crate::access::{self, Access};
use crate::openapi::{Routes, no_participant};
use crate::problem::ApiError;
use crate::rooms::unexpected;
use crate::routing::Wish;
use crate::state::State;

pub(crate) use events::Streams;

/// A participant's address.
const PARTICIPANT: &str = "/v1/rooms/{room}/participants/{participant}";

/// The API's operations.
pub fn routes() -> Routes {
    let routes = Routes::default()
        // A pattern does not match an empty name, and "nothing here" would not say what is wrong.
        .undocumented("/v1/rooms//join", any(empty_room));
    [
        admission::add,
        metadata::add,
        participants::add,
        tracks::add,
        subscriptions::add,
        events::add,
        guest_tokens::add,
    ]
    .into_iter()
    .fold(routes, |routes, add| add(routes))
}

async fn empty_room() -> ApiError {
    ApiError::InvalidName {
        what: "room's name",
        reason: InvalidName::Empty,
    }
}

/// Somebody whose token is for the room of the URL.
pub(crate) struct InRoom {
    pub(crate) access: Access,
    pub(crate) room: RoomName,
    /// Where the room is to be placed, if it has to be.
    pub(crate) wish: Wish,
}

/// Somebody who says to be a participant of the room; the node checks that the identity is the participant's.
pub(crate) struct Member {
    pub(crate) room: RoomName,
    pub(crate) participant: ParticipantId,
    pub(crate) identity: Identity,
}

/// Somebody who acts on a participant of the room, which the URL names by id or identity.
struct Actor {
    room: RoomName,
    /// As the URL says.
    participant: String,
    role: Role,
}

/// As what somebody acts.
enum Role {
    /// As one who administers the room (`roomAdmin`); the identity, if the token has one.
    Administrator(Option<Identity>),
    /// As a participant, on itself.
    Participant(Identity),
}

/// Somebody who asks about the whole room.
struct Observer {
    room: RoomName,
    role: Role,
}

/// A room that the URL names, whoever asks.
pub(crate) struct NamedRoom;

/// A track, named by the URL.
struct NamedTrack(TrackId);

impl FromRequestParts<State> for InRoom {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, ApiError> {
        let access = Access::from_request_parts(parts, state).await?;
        let room = room(parts, state).await?;
        access.for_room(&room)?;
        Ok(Self {
            access,
            room,
            wish: Wish::noted(parts),
        })
    }
}

impl FromRequestParts<State> for Member {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, ApiError> {
        let InRoom { access, room, .. } = InRoom::from_request_parts(parts, state).await?;
        Ok(Self {
            room,
            participant: ParticipantId::new(parameter(parts, state, "participant").await?),
            identity: access.identity,
        })
    }
}

impl FromRequestParts<State> for Observer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, ApiError> {
        let claims = state.claims(&access::token(parts)?)?;
        let room = room(parts, state).await?;
        let role = if claims.video.room_admin {
            if claims.video.room != room.as_str() {
                return Err(ApiError::Forbidden("The access token is for another room.".into()));
            }
            Role::Administrator(claims.sub.parse().ok())
        } else {
            let access = Access::from_request_parts(parts, state).await?;
            access.for_room(&room)?;
            Role::Participant(access.identity)
        };
        Ok(Self { room, role })
    }
}

impl FromRequestParts<State> for Actor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, ApiError> {
        let Observer { room, role } = Observer::from_request_parts(parts, state).await?;
        let participant = parameter(parts, state, "participant").await?;
        Ok(Self {
            room,
            participant,
            role,
        })
    }
}

impl Actor {
    /// Does something as an administrator.
    async fn administer(&self, state: &State, command: RoomCommand) -> Result<Reply, ApiError> {
        state.rooms().administer(&self.room, command).await
    }

    /// Does something as the participant itself.
    async fn command(&self, state: &State, own: &Identity, command: Command) -> Result<Reply, ApiError> {
        let id = if self.participant == own.as_str() {
            self.find(state).await?.id
        } else {
            ParticipantId::new(&self.participant)
        };
        state.rooms().command(&self.room, &id, own, command).await
    }

    /// The participant as it is now.
    async fn find(&self, state: &State) -> Result<ParticipantInfo, ApiError> {
        let participant = self.participant.clone();
        match self.administer(state, RoomCommand::Find { participant }).await {
            Ok(Reply::Participant { participant }) => Ok(*participant),
            Ok(reply) => Err(unexpected(&reply)),
            Err(ApiError::NoParticipant(_)) => Err(no_participant()),
            Err(error) => Err(error),
        }
    }
}

impl FromRequestParts<State> for NamedRoom {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, ApiError> {
        room(parts, state).await.map(|_| Self)
    }
}

impl FromRequestParts<State> for NamedTrack {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, ApiError> {
        parameter(parts, state, "track").await.map(|id| Self(TrackId::new(id)))
    }
}

/// The room that the URL names.
async fn room(parts: &mut Parts, state: &State) -> Result<RoomName, ApiError> {
    let name = parameter(parts, state, "room").await?;
    name.parse().map_err(|reason| ApiError::InvalidName {
        what: "room's name",
        reason,
    })
}

/// A part of the URL, decoded.
pub(crate) async fn parameter(parts: &mut Parts, state: &State, name: &str) -> Result<String, ApiError> {
    let Path(mut parameters) = Path::<HashMap<String, String>>::from_request_parts(parts, state)
        .await
        .map_err(|_| ApiError::InvalidRequest("The URL must be UTF-8, percent-encoded.".into()))?;
    parameters.remove(name).ok_or(ApiError::NotFound)
}

/// A participant's URL, percent-encoded (RFC 3986 section 2.3: only unreserved characters stay as they are).
fn participant_url(room: &RoomName, participant: &ParticipantId) -> String {
    let (room, participant) = (percent_encoded(room.as_str()), percent_encoded(participant.as_str()));
    format!("/v1/rooms/{room}/participants/{participant}")
}

/// A segment of a URL's path.
pub(crate) fn percent_encoded(segment: &str) -> String {
    let mut url = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_participants_url_is_percent_encoded() {
        let room = "Raum Å/7?".parse().unwrap();
        assert_eq!(
            participant_url(&room, &ParticipantId::new("PA_a")),
            "/v1/rooms/Raum%20%C3%85%2F7%3F/participants/PA_a"
        );
    }
}
