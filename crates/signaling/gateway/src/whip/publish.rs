//! `POST /v1/rooms/{room}/whip`: an encoder publishes, as a participant like any other.

use axum::extract::State as Shared;
use axum::http::header::{ETAG, LINK, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use signalbox_protocol::control::{Joined, OneOffer, Transports};
use signalbox_protocol::openapi::Operation;
use signalbox_protocol::{ParticipantId, RoomName};
use utoipa::openapi::HttpMethod::Post;

use super::offer::Offered;
use super::session_url::SessionUrl;
use super::{ACCEPT_PATCH, Protocol, SDP, SDP_FRAGMENT, TAG, WHIP, entity_tag, header, of_type};
use crate::access::Access;
use crate::join::InRoom;
use crate::openapi::{Routes, operation};
use crate::problem::ApiError;
use crate::rooms::JoinSpec;
use crate::routing::Wish;
use crate::state::State;

pub(super) fn add(routes: Routes) -> Routes {
    routes.guarded(
        endpoint(WHIP, "publish", "Publish with one offer (RFC 9725).")
            .answers_as::<String>(201, "The SDP answer.", SDP)
            .answer_header(201, "Location", "The session's URL, which nobody can guess.")
            .answer_header(201, "ETag", "Names the ICE session.")
            .answer_header(
                201,
                "Link",
                "The event stream, with `rel=\"urn:signalbox:events\"`; and each ICE server, with `rel=\"ice-server\"`.",
            )
            .answer_header(201, "Accept-Patch", "What the session takes."),
        publish,
    )
}

/// What both endpoints have in common.
pub(super) fn endpoint(path: &'static str, id: &str, summary: &str) -> Operation {
    operation(Post, path, id, summary)
        .tag(TAG)
        .body_as::<String>(SDP, true)
        .answers_nothing(
            307,
            "Another gateway is to be asked, with the same method and body; only where the operator wants it.",
        )
        .answer_header(307, "Location", "The same path and query there.")
        .fails([
            ApiError::InvalidSdp("The offer cannot be used; the detail says why.".into()),
            ApiError::WrongMediaType(SDP),
        ])
}

pub(super) async fn publish(
    Shared(state): Shared<State>,
    Offered {
        who: InRoom { access, room, wish },
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
            never_pause: false,
            wish,
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
pub(super) fn spec(access: Access, room: &RoomName, purpose: OneOffer, offer: String) -> JoinSpec {
    JoinSpec {
        room: room.clone(),
        identity: access.identity,
        name: access.name,
        metadata: access.metadata,
        attributes: access.attributes,
        grants: access.grants,
        limits: access.limits,
        transports: Transports::Single,
        auto_subscribe: true,
        never_pause: false,
        attach: false,
        publish: Vec::new(),
        offer: Some(offer),
        one_offer: Some(purpose),
        srtp: None,
        dialect_info: None,
        wish: Wish::default(),
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
    let url = session.sign(state)?;
    headers.insert(LOCATION, header(&url)?);
    // A relation of our own (RFC 8288 section 2.1.2): neither document has one for this.
    headers.append(LINK, header(&format!("<{url}/events>; rel=\"urn:signalbox:events\""))?);
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
