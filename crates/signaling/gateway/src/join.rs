//! Our own HTTP API: one module for each noun of its URLs.
//!
//! Owns the routes, their JSON and the extractors that check who asks, before a body is read. Knows no placement and no link.
//!
//! | route | module |
//! |---|---|
//! | `POST /v1/rooms/{room}/join` | `admission` |
//! | `DELETE /v1/rooms/{room}/participants/{id}`, `POST …/offer` | `participants` |
//! | `PATCH`, `DELETE …/participants/{id}/tracks/{track}` | `tracks` |
//! | `PATCH …/participants/{id}/subscriptions/{track}` | `subscriptions` |
//! | `GET …/participants/{id}/events` | `events` |
//! | `POST /v1/guest-tokens` | `guest_tokens` |

mod admission;
mod body;
mod events;
mod guest_tokens;
mod participants;
mod subscriptions;
mod tracks;

use std::collections::HashMap;

use axum::Router;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::routing::{any, delete, get, patch, post};
use signalbox_protocol::id::InvalidName;
use signalbox_protocol::{Identity, ParticipantId, RoomName, TrackId};

use crate::access::Access;
use crate::problem::ApiError;
use crate::state::State;

/// The API's routes.
pub fn routes() -> Router<State> {
    const PARTICIPANT: &str = "/v1/rooms/{room}/participants/{participant}";
    Router::new()
        .route("/v1/rooms/{room}/join", post(admission::join))
        // A pattern does not match an empty name, and "nothing here" would not say what is wrong.
        .route("/v1/rooms//join", any(empty_room))
        .route(PARTICIPANT, delete(participants::leave))
        .route(&format!("{PARTICIPANT}/offer"), post(participants::offer))
        .route(&format!("{PARTICIPANT}/events"), get(events::open))
        .route(
            &format!("{PARTICIPANT}/tracks/{{track}}"),
            patch(tracks::update).delete(tracks::unpublish),
        )
        .route(
            &format!("{PARTICIPANT}/subscriptions/{{track}}"),
            patch(subscriptions::update),
        )
        .route("/v1/guest-tokens", post(guest_tokens::create))
}

async fn empty_room() -> ApiError {
    ApiError::InvalidName {
        what: "room's name",
        reason: InvalidName::Empty,
    }
}

/// Somebody whose token is for the room of the URL.
struct InRoom {
    access: Access,
    room: RoomName,
}

/// Somebody who says to be a participant of the room; the node checks that the identity is the participant's.
struct Member {
    room: RoomName,
    participant: ParticipantId,
    identity: Identity,
}

/// A track, named by the URL.
struct NamedTrack(TrackId);

impl FromRequestParts<State> for InRoom {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, ApiError> {
        let access = Access::from_request_parts(parts, state).await?;
        let room = parameter(parts, state, "room")
            .await?
            .parse()
            .map_err(|reason| ApiError::InvalidName {
                what: "room's name",
                reason,
            })?;
        access.for_room(&room)?;
        Ok(Self { access, room })
    }
}

impl FromRequestParts<State> for Member {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, ApiError> {
        let InRoom { access, room } = InRoom::from_request_parts(parts, state).await?;
        Ok(Self {
            room,
            participant: ParticipantId::new(parameter(parts, state, "participant").await?),
            identity: access.identity,
        })
    }
}

impl FromRequestParts<State> for NamedTrack {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, ApiError> {
        parameter(parts, state, "track").await.map(|id| Self(TrackId::new(id)))
    }
}

/// A part of the URL, decoded.
async fn parameter(parts: &mut Parts, state: &State, name: &str) -> Result<String, ApiError> {
    let Path(mut parameters) = Path::<HashMap<String, String>>::from_request_parts(parts, state)
        .await
        .map_err(|_| ApiError::InvalidRequest("The URL must be UTF-8, percent-encoded.".into()))?;
    parameters.remove(name).ok_or(ApiError::NotFound)
}

/// A participant's URL, percent-encoded (RFC 3986 section 2.3: only unreserved characters stay as they are).
fn participant_url(room: &RoomName, participant: &ParticipantId) -> String {
    let mut url = String::from("/v1/rooms/");
    push_encoded(&mut url, room.as_str());
    url.push_str("/participants/");
    push_encoded(&mut url, participant.as_str());
    url
}

fn push_encoded(url: &mut String, segment: &str) {
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
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
