//! `POST /v1/rooms/{room}/whip`: an encoder publishes, as a participant like any other.

use axum::extract::State as Shared;
use axum::http::header::{ETAG, LINK, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use signalbox_protocol::ParticipantId;
use signalbox_protocol::control::{Joined, OneOffer, Transports};

use super::offer::Offered;
use super::session_url::SessionUrl;
use super::{ACCEPT_PATCH, Protocol, SDP, SDP_FRAGMENT, entity_tag, header, of_type};
use crate::access::Access;
use crate::join::InRoom;
use crate::problem::ApiError;
use crate::rooms::JoinSpec;
use crate::state::State;

pub(super) async fn publish(
    Shared(state): Shared<State>,
    Offered {
        who: InRoom { access, room },
        offer,
    }: Offered,
) -> Result<Response, ApiError> {
    if !access.grants.publish {
        return Err(ApiError::Forbidden(
            "The access token does not allow to publish; it needs the grant `canPublish`.".into(),
        ));
    }
    let identity = access.identity.clone();
    let joined = state
        .rooms()
        .join(JoinSpec {
            room: room.clone(),
            auto_subscribe: false,
            ..spec(access, &room, OneOffer::Publish, offer)
        })
        .await?
        .joined;
    let session = SessionUrl {
        protocol: Protocol::Whip,
        room,
        participant: joined.snapshot.participant.id.clone(),
        identity,
    };
    created(&state, &session, joined)
}

/// Somebody who offers once.
pub(super) fn spec(access: Access, room: &signalbox_protocol::RoomName, purpose: OneOffer, offer: String) -> JoinSpec {
    JoinSpec {
        room: room.clone(),
        identity: access.identity,
        name: access.name,
        metadata: access.metadata,
        attributes: access.attributes,
        grants: access.grants,
        transports: Transports::Single,
        auto_subscribe: true,
        attach: false,
        publish: Vec::new(),
        offer: Some(offer),
        one_offer: Some(purpose),
        srtp: None,
        dialect_info: None,
    }
}

/// 201 with the answer (RFC 9725 section 4.2).
pub(super) fn created(state: &State, session: &SessionUrl, joined: Joined) -> Result<Response, ApiError> {
    let answer = joined
        .answer
        .ok_or_else(|| unanswered(&joined.snapshot.participant.id))?;
    let mut headers = of_type(SDP)?;
    describe(
        &mut headers,
        state,
        session,
        joined.ice_session.as_deref(),
        SDP_FRAGMENT,
    )?;
    Ok((StatusCode::CREATED, headers, answer).into_response())
}

/// What a client has to know of its session: where it is, which ICE session it is in, what it takes, and which ICE servers there are.
pub(super) fn describe(
    headers: &mut HeaderMap,
    state: &State,
    session: &SessionUrl,
    ice_session: Option<&str>,
    patches: &str,
) -> Result<(), ApiError> {
    headers.insert(LOCATION, header(&session.sign(state)?)?);
    headers.insert(ACCEPT_PATCH, header(patches)?);
    if let Some(ice_session) = ice_session {
        headers.insert(ETAG, header(&entity_tag::of(ice_session))?);
    }
    for server in &state.config().ice_server {
        headers.append(LINK, header(&server.link())?);
    }
    Ok(())
}

/// A fault of the node's software.
pub(super) fn unanswered(participant: &ParticipantId) -> ApiError {
    tracing::error!(%participant, "a media node admitted a participant without answering its offer");
    ApiError::Internal
}
