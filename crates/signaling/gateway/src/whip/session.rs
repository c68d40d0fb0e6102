//! `/v1/rooms/{room}/whip/{session}` and `…/whep/{session}`: ICE that changes, the answer to a counter-offer, and the end.

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts, Request, State as Shared};
use axum::http::StatusCode;
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use signalbox_protocol::control::{COUNTER_OFFER_ID, Command, Reply};
use signalbox_protocol::openapi::Operation;
use utoipa::openapi::HttpMethod::{self, Delete, Get, Patch};

use super::entity_tag::{self, Precondition};
use super::session_url::SessionUrl;
use super::{
    Protocol, SDP, SDP_FRAGMENT, TAG, WHEP_EVENTS, WHEP_SESSION, WHIP_EVENTS, WHIP_SESSION, header, of_type, offer,
};
use crate::dialect::Dialect;
use crate::join::{Member, body, events, parameter};
use crate::openapi::{Routes, operation};
use crate::problem::ApiError;
use crate::rooms::unexpected;
use crate::state::State;

pub(super) fn add(routes: Routes) -> Routes {
    let routes = events_of(routes, Protocol::Whip, WHIP_EVENTS, "streamWhipEvents");
    let routes = events_of(routes, Protocol::Whep, WHEP_EVENTS, "streamWhepEvents");
    let routes = of(
        routes,
        Protocol::Whip,
        WHIP_SESSION,
        ["patchWhip", "endWhip", "showWhipSession"],
    );
    of(
        routes,
        Protocol::Whep,
        WHEP_SESSION,
        ["patchWhep", "endWhep", "showWhepSession"],
    )
}

fn of(routes: Routes, protocol: Protocol, path: &'static str, ids: [&str; 3]) -> Routes {
    let [patch, end, show] = ids;
    routes
        .open(
            session(Patch, path, patch, "Candidates, or new ICE credentials.")
                .describe("A WHEP session takes the answer to a counter-offer here too, as `application/sdp`.")
                .header::<String>("If-Match", "The entity-tag of the ICE session, or `*` to restart ICE.")
                .body_as::<String>(SDP_FRAGMENT, true)
                .answers_nothing(204, "Taken.")
                .answers_as::<String>(
                    200,
                    "ICE was restarted: the node's credentials and candidates.",
                    SDP_FRAGMENT,
                )
                .answer_header(200, "ETag", "Names the new ICE session.")
                .fails([
                    ApiError::InvalidSdp("The fragment or the answer cannot be used; the detail says why.".into()),
                    ApiError::WrongMediaType(SDP_FRAGMENT),
                    ApiError::StaleIce("ICE has been restarted since; send the last entity-tag.".into()),
                    ApiError::Unsupported("ICE cannot be restarted on this session; POST again.".into()),
                    ApiError::PreconditionRequired,
                ]),
            move |state, request| change(state, protocol, request),
        )
        .open(
            session(Delete, path, end, "End the session, whatever its entity-tag.")
                .describe(
                    "A session does not move with its room. When its node is lost or drained it is over: nothing answers its ICE checks any more, \
                     its `/events` says `moved` and `closed`, and this answers 404. The client posts its offer again.",
                )
                .answers_nothing(200, "It is over."),
            move |state, request| finish(state, protocol, request),
        )
        .open(
            session(Get, path, show, "Nothing: a session has no representation.")
                .answers_nothing(204, "Its URL is genuine (RFC 9725 section 4.1)."),
            move |state, request| self::show(state, protocol, request),
        )
}

fn events_of(routes: Routes, protocol: Protocol, path: &'static str, id: &str) -> Routes {
    let summary = "The events of a session's participant, where the room has moved to among them.";
    routes.open(
        of_session(events::stream_operation(path, id, summary)),
        move |state, request| stream(state, protocol, request),
    )
}

fn session(method: HttpMethod, path: &'static str, id: &str, summary: &str) -> Operation {
    of_session(operation(method, path, id, summary))
}

fn of_session(operation: Operation) -> Operation {
    operation
        .tag(TAG)
        .path_parameter::<String>(
            "session",
            "The last part of the `Location` that began the session; no token is asked for.",
        )
        .fails([
            ApiError::NoParticipant("There is no such session (any more).".into()),
            ApiError::OrchestratorUnavailable,
            ApiError::NodeUnavailable,
            ApiError::Overloaded("Too much is under way; try again shortly.".into()),
            ApiError::Internal,
        ])
}

/// `PATCH`: candidates, new ICE credentials, or the answer to a counter-offer.
async fn change(Shared(state): Shared<State>, protocol: Protocol, request: Request) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let session = named(&mut parts, &state, protocol).await?;
    let body = body::read(&parts.headers, body).await?;
    if protocol == Protocol::Whep && body::has_type(&parts.headers, SDP) {
        let answer = Command::Answer {
            id: COUNTER_OFFER_ID,
            sdp: offer::sdp(body)?,
        };
        session.command(&state, answer).await?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    if !body::has_type(&parts.headers, SDP_FRAGMENT) {
        return Err(ApiError::WrongMediaType(SDP_FRAGMENT));
    }
    let sessions = match Precondition::of(&parts.headers) {
        None => return Err(ApiError::PreconditionRequired),
        Some(Precondition::Any) => Vec::new(),
        Some(Precondition::OneOf(tags)) if tags.is_empty() => {
            return Err(ApiError::StaleIce(format!(
                "`{IF_MATCH}` names no entity-tag that a session can have; send the last `{ETAG}` as it came."
            )));
        }
        Some(Precondition::OneOf(tags)) => tags,
    };
    let fragment = String::from_utf8(body)
        .map_err(|_| ApiError::InvalidSdp("The SDP fragment must be UTF-8; send the attributes alone.".into()))?;
    match session
        .command(&state, Command::PatchIce { sessions, fragment })
        .await?
    {
        Reply::Done => Ok(StatusCode::NO_CONTENT.into_response()),
        Reply::IceRestarted { session, fragment } => {
            let mut headers = of_type(SDP_FRAGMENT)?;
            headers.insert(ETAG, header(&entity_tag::of(&session))?);
            Ok((StatusCode::OK, headers, fragment).into_response())
        }
        reply => Err(unexpected(&reply)),
    }
}

/// `DELETE`: the participant leaves, whatever the entity-tag (RFC 9725 section 4.3.1).
async fn finish(Shared(state): Shared<State>, protocol: Protocol, request: Request) -> Result<StatusCode, ApiError> {
    let (mut parts, _) = request.into_parts();
    let session = named(&mut parts, &state, protocol).await?;
    session.command(&state, Command::Leave).await?;
    Ok(StatusCode::OK)
}

/// `GET`: a session has no representation (RFC 9725 section 4.1).
async fn show(Shared(state): Shared<State>, protocol: Protocol, request: Request) -> Result<StatusCode, ApiError> {
    let (mut parts, _) = request.into_parts();
    named(&mut parts, &state, protocol).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET …/events`: as any participant's, but without a token.
async fn stream(Shared(state): Shared<State>, protocol: Protocol, request: Request) -> Result<Response, ApiError> {
    let (mut parts, _) = request.into_parts();
    let SessionUrl {
        room,
        participant,
        identity,
        ..
    } = named(&mut parts, &state, protocol).await?;
    let member = Member {
        room,
        participant,
        identity,
    };
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &state).await;
    let dialect = match protocol {
        Protocol::Whip => Dialect::Whip,
        Protocol::Whep => Dialect::Whep,
    };
    let asked = (parts.method, parts.uri, parts.headers);
    events::open_for(dialect, &state, member, asked, upgrade).await
}

async fn named(parts: &mut Parts, state: &State, protocol: Protocol) -> Result<SessionUrl, ApiError> {
    let room = parameter(parts, state, "room").await?;
    let session = parameter(parts, state, "session").await?;
    SessionUrl::verify(state, protocol, &room, &session)
        .ok_or_else(|| ApiError::NoParticipant("There is no such session; POST an offer to begin one.".into()))
}

impl SessionUrl {
    async fn command(&self, state: &State, command: Command) -> Result<Reply, ApiError> {
        state
            .rooms()
            .command(&self.room, &self.participant, &self.identity, command)
            .await
    }
}
