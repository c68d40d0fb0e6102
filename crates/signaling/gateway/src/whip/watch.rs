//! `POST /v1/rooms/{room}/whep`: a player watches what is published.
//!
//! Each player is a participant of its own, under an identity that nobody else has: one token, put into a page, serves all who open it,
//! and a second player must not evict the first. They are hidden, since a roster of players tells nobody anything, and to tell
//! everyone of each that comes and goes would cost most where there are most.

use std::time::{Duration, SystemTime};

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use signalbox_protocol::Identity;
use signalbox_protocol::control::{CounterOffer, Joined, OneOffer};
use signalbox_protocol::id::MAX_NAME_BYTES;
use signalbox_protocol::room::Grants;

use super::offer::Offered;
use super::publish::{created, describe, endpoint, spec};
use super::session_url::SessionUrl;
use super::{Protocol, SDP, WHEP, header, of_type};
use crate::join::InRoom;
use crate::openapi::Routes;
use crate::problem::ApiError;
use crate::rooms::JoinSpec;
use crate::state::State;

pub(super) fn add(routes: Routes) -> Routes {
    routes.guarded(
        endpoint(WHEP, "watch", "Watch with one offer (draft-ietf-wish-whep).")
            .answers_as::<String>(201, "The SDP answer.", SDP)
            .answer_header(201, "Location", "The session's URL, which nobody can guess.")
            .answer_header(201, "ETag", "Names the ICE session.")
            .answer_header(201, "Link", "An ICE server, with `rel=\"ice-server\"`; one header for each.")
            .answer_header(201, "Accept-Patch", "What the session takes.")
            .answers_as::<String>(
                406,
                "The offer can receive nothing of what is published. This is the node's own offer, to be answered by a `PATCH` of the \
                 session before the `valid-until` of its `Content-Type`.",
                SDP,
            )
            .answer_header(406, "Location", "The session's URL.")
            .fails([ApiError::NothingLive(
                "Nothing is published in the room; try again after Retry-After seconds.".into(),
            )])
            .answer_header(409, "Retry-After", "After how many seconds to try again."),
        watch,
    )
}

pub(super) async fn watch(
    Shared(state): Shared<State>,
    Offered {
        who: InRoom { access, room, .. },
        offer,
    }: Offered,
) -> Result<Response, ApiError> {
    if !access.grants.subscribe {
        return Err(ApiError::Forbidden(
            "The access token does not allow to receive; it needs the grant `canSubscribe`.".into(),
        ));
    }
    let identity = one_of(&access.identity)?;
    let grants = Grants {
        publish: false,
        subscribe: true,
        publish_data: false,
        sources: Vec::new(),
        update_own_metadata: false,
        hidden: true,
    };
    let mut joined = state
        .rooms()
        .join(JoinSpec {
            identity: identity.clone(),
            grants,
            ..spec(access, &room, OneOffer::Receive, offer)
        })
        .await?
        .joined;
    let session = SessionUrl {
        protocol: Protocol::Whep,
        room,
        participant: joined.snapshot.participant.id.clone(),
        identity,
    };
    match joined.counter_offer.take() {
        Some(counter) => countered(&state, &session, &joined, counter),
        None => created(&state, &session, joined),
    }
}

/// 406 with the node's own offer, which a PATCH of the session answers.
fn countered(
    state: &State,
    session: &SessionUrl,
    joined: &Joined,
    counter: CounterOffer,
) -> Result<Response, ApiError> {
    let mut headers = of_type(SDP)?;
    describe(&mut headers, state, session, joined.ice_session.as_deref(), SDP)?;
    let until = SystemTime::now() + Duration::from_secs(counter.valid_seconds.into());
    let media_type = format!("{SDP}; valid-until=\"{}\"", httpdate::fmt_http_date(until));
    headers.insert(CONTENT_TYPE, header(&media_type)?);
    Ok((StatusCode::NOT_ACCEPTABLE, headers, counter.sdp).into_response())
}

/// An identity of one's own, derived from the token's.
fn one_of(identity: &Identity) -> Result<Identity, ApiError> {
    let suffix = format!("~{:016x}", rand::random::<u64>());
    let mut name = identity.as_str();
    while name.len() + suffix.len() > MAX_NAME_BYTES {
        let Some((last, _)) = name.char_indices().next_back() else {
            break;
        };
        name = name.get(..last).unwrap_or_default();
    }
    format!("{name}{suffix}").parse().map_err(|_| ApiError::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn players_with_one_token_have_different_identities_of_the_right_length() {
        let long: Identity = "ä".repeat(MAX_NAME_BYTES / 2).parse().unwrap();
        let (one, other) = (one_of(&long).unwrap(), one_of(&long).unwrap());
        assert_ne!(one, other);
        assert!(one.as_str().len() <= MAX_NAME_BYTES && one.as_str().starts_with("ääää"));
        let ann: Identity = "ann".parse().unwrap();
        assert!(one_of(&ann).unwrap().as_str().starts_with("ann~"));
    }
}
