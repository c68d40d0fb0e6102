//! `GET /rtc`: from the HTTP request to the WebSocket.
//!
//! The participant is admitted before the connection is upgraded, so that whatever stands in the way is an HTTP status,
//! which SDKs can show, and not a closed WebSocket, which they cannot.

use std::collections::HashMap;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{self, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::response::Response;
use livekit_protocol as lk;
use signalbox_protocol::control::{Snapshot, Transports};
use signalbox_protocol::{ParticipantId, RoomName};

use super::firefox;
use super::socket::{self, Start};
use super::validate::{Plain, admitted};
use super::wire::{self, Wire};
use super::{dialect, translate};
use crate::access::Access;
use crate::dialect::Dialect;
use crate::observe::sockets::Transport;
use crate::problem::ApiError;
use crate::rooms::JoinSpec;
use crate::routing::Wish;
use crate::state::State;

/// The most capabilities that a client is taken to have.
const MAX_CAPABILITIES: usize = 32;

/// `GET /rtc`.
///
/// # Errors
/// As [`admitted`]; 426 when it is no WebSocket request; 503 when no node can host the room or its node does not
/// answer.
pub(super) async fn connect(extract::State(state): extract::State<State>, request: Request) -> Result<Response, Plain> {
    let (mut parts, _) = request.into_parts();
    let (access, room) = admitted(&state, &parts)?;
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &state)
        .await
        .map_err(|_| ApiError::UpgradeRequired)?;
    let query = Params::of(&parts);
    // Firefox does not begin DTLS anew on an established connection.
    let moves_in_place = !firefox::is(query.get("browser"), &parts.headers);
    // From here on the shutdown waits for the connection.
    let guard = state.socket_guard(Dialect::Livekit, Transport::WebSocket);
    let start = if query.is_resume() {
        resume(&state, &access, &room, &query).await?
    } else {
        join(&state, access, room, Wish::noted(&parts), &query).await?
    };
    Ok(wire::limits(upgrade).on_upgrade(async move |socket| {
        socket::serve(Wire::new(socket), state, start, moves_in_place, guard);
    }))
}

/// Whether the request goes on with a session.
pub(crate) fn is_resume(parts: &Parts) -> bool {
    Params::of(parts).is_resume()
}

async fn join(state: &State, access: Access, room: RoomName, wish: Wish, query: &Params) -> Result<Start, ApiError> {
    let admitted = state
        .rooms()
        .join(JoinSpec {
            room,
            dialect_info: dialect::pack(&about(&access, query)),
            identity: access.identity,
            name: access.name,
            metadata: access.metadata,
            attributes: access.attributes,
            grants: access.grants,
            limits: access.limits,
            transports: Transports::Dual,
            auto_subscribe: query.flag("auto_subscribe").unwrap_or(true),
            never_pause: query.flag("subscriber_allow_pause") == Some(false),
            attach: true,
            publish: Vec::new(),
            offer: None,
            one_offer: None,
            srtp: None,
            wish,
        })
        .await?;
    let session = admitted.session.ok_or(ApiError::Internal)?;
    Ok(Start::Joined {
        session,
        snapshot: Box::new(Snapshot {
            media: Some(admitted.joined.media),
            ..admitted.joined.snapshot
        }),
    })
}

async fn resume(state: &State, access: &Access, room: &RoomName, query: &Params) -> Result<Start, ApiError> {
    let Some(sid) = query.get("sid") else {
        return Ok(Start::Unknown);
    };
    match state
        .rooms()
        .attach(room, &ParticipantId::new(sid), &access.identity)
        .await
    {
        Ok((session, snapshot)) => Ok(Start::Resumed {
            session,
            snapshot: Box::new(snapshot),
        }),
        Err(ApiError::NoParticipant(_)) => Ok(Start::Unknown),
        Err(error) => Err(error),
    }
}

/// What the participant's peers in this dialect are to know of its client.
fn about(access: &Access, query: &Params) -> lk::ParticipantInfo {
    let kind = lk::participant_info::Kind::from_str_name(&access.claims.kind.to_ascii_uppercase()).unwrap_or_default();
    let capabilities = query
        .get("capabilities")
        .unwrap_or_default()
        .split(',')
        .filter_map(|number| number.parse().ok())
        .take(MAX_CAPABILITIES)
        .collect();
    lk::ParticipantInfo {
        kind: kind.into(),
        client_protocol: query
            .get("client_protocol")
            .and_then(|n| n.parse().ok())
            .unwrap_or_default(),
        capabilities: translate::all_known::<lk::client_info::Capability>(capabilities),
        ..lk::ParticipantInfo::default()
    }
}

/// The query. What is unknown or malformed counts as absent, as clients of all ages come here.
#[derive(Debug, Default)]
struct Params(HashMap<String, String>);

impl Params {
    fn of(parts: &Parts) -> Self {
        Query::try_from_uri(&parts.uri)
            .map(|Query(map)| Self(map))
            .unwrap_or_default()
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn is_resume(&self) -> bool {
        self.flag("reconnect") == Some(true)
    }

    fn flag(&self, name: &str) -> Option<bool> {
        match self.get(name)? {
            "1" | "true" | "TRUE" | "True" | "t" | "T" => Some(true),
            "0" | "false" | "FALSE" | "False" | "f" | "F" => Some(false),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        let request = axum::http::Request::builder().uri(format!("/rtc?{query}")).body(());
        Params::of(&request.unwrap().into_parts().0)
    }

    #[test]
    fn flags_are_understood_as_sdks_write_them() {
        let query = params("auto_subscribe=0&reconnect=1&adaptive_stream=maybe&sid=");
        assert_eq!(query.flag("auto_subscribe"), Some(false));
        assert_eq!(query.flag("reconnect"), Some(true));
        assert_eq!(query.flag("adaptive_stream"), None);
        assert_eq!(query.flag("absent"), None);
        assert_eq!(query.get("sid"), None);
    }

    #[test]
    fn a_query_named_twice_or_broken_is_no_obstacle() {
        assert_eq!(params("a=1&a=0").flag("a"), Some(false));
        assert_eq!(params("%%%=%%%&a=1").flag("a"), Some(true));
    }
}
