//! `/v1/rooms/{room}/whip/{session}` and `…/whep/{session}`: ICE that changes, the answer to a counter-offer, and the end.

use axum::extract::{Request, State as Shared};
use axum::http::StatusCode;
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use signalbox_protocol::control::{COUNTER_OFFER_ID, Command, Reply};

use super::entity_tag::{self, Precondition};
use super::session_url::SessionUrl;
use super::{Protocol, SDP, SDP_FRAGMENT, header, of_type, offer};
use crate::join::{body, parameter};
use crate::problem::ApiError;
use crate::rooms::unexpected;
use crate::state::State;

/// `PATCH`: candidates, new ICE credentials, or the answer to a counter-offer.
pub(super) async fn change(
    Shared(state): Shared<State>,
    protocol: Protocol,
    request: Request,
) -> Result<Response, ApiError> {
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
pub(super) async fn end(
    Shared(state): Shared<State>,
    protocol: Protocol,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let (mut parts, _) = request.into_parts();
    let session = named(&mut parts, &state, protocol).await?;
    session.command(&state, Command::Leave).await?;
    Ok(StatusCode::OK)
}

/// `GET`: a session has no representation (RFC 9725 section 4.1).
pub(super) async fn show(
    Shared(state): Shared<State>,
    protocol: Protocol,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let (mut parts, _) = request.into_parts();
    named(&mut parts, &state, protocol).await?;
    Ok(StatusCode::NO_CONTENT)
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
