//! A POST to an endpoint: who asks, and the offer; or where to ask instead.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::http::uri::PathAndQuery;
use axum::response::{IntoResponse, Response};

use super::{SDP, header};
use crate::join::{InRoom, body};
use crate::problem::ApiError;
use crate::state::State;

/// Somebody whose token is for the room, and an offer.
pub(super) struct Offered {
    pub(super) who: InRoom,
    pub(super) offer: String,
}

impl FromRequest<State> for Offered {
    type Rejection = Response;

    async fn from_request(request: Request, state: &State) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        if let Some(elsewhere) = &state.config().redirect_whip_to {
            // Read first: a client that is still sending when the connection closes sees a reset instead of the answer.
            let _ = body::read(&parts.headers, body).await;
            return Err(redirect(elsewhere, parts.uri.path_and_query()).unwrap_or_else(IntoResponse::into_response));
        }
        let who = InRoom::from_request_parts(&mut parts, state)
            .await
            .map_err(IntoResponse::into_response)?;
        let offer = async {
            let body = body::read(&parts.headers, body).await?;
            if !body::has_type(&parts.headers, SDP) {
                return Err(ApiError::WrongMediaType(SDP));
            }
            sdp(body)
        };
        match offer.await {
            Ok(offer) => Ok(Self { who, offer }),
            Err(error) => Err(error.into_response()),
        }
    }
}

/// A body as SDP (RFC 8866 section 5: it begins with the version), so that garbage reaches no node.
pub(super) fn sdp(body: Vec<u8>) -> Result<String, ApiError> {
    String::from_utf8(body)
        .ok()
        .filter(|body| body.starts_with("v=0"))
        .ok_or_else(|| ApiError::InvalidSdp("The body is not SDP; it has to begin with `v=0`.".into()))
}

/// To the same path at another gateway, by 307 alone, which keeps method and body (RFC 9725 section 4.5).
fn redirect(elsewhere: &reqwest::Url, asked: Option<&PathAndQuery>) -> Result<Response, ApiError> {
    let base = elsewhere.as_str().trim_end_matches('/');
    let path = asked.map_or("", PathAndQuery::as_str);
    let location = header(&format!("{base}{path}"))?;
    Ok((StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location)]).into_response())
}
