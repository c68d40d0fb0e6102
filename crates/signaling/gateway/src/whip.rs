//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): publish to a room, or watch it, with one POST of SDP.
//!
//! Owns the routes and what HTTP has to say about them. What SDP says is the node's business: the gateway passes it on as text.
//!
//! | route | module |
//! |---|---|
//! | `POST /v1/rooms/{room}/whip` | `publish` |
//! | `POST /v1/rooms/{room}/whep` | `watch` |
//! | `PATCH`, `DELETE /v1/rooms/{room}/whip/{session}`, `…/whep/{session}`; `GET …/{session}/events` | `session` |

pub mod ice_server;

mod entity_tag;
mod offer;
mod publish;
mod session;
mod session_url;
mod watch;

use axum::extract::{MatchedPath, Request};
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::head;
use utoipa::openapi::HttpMethod::Get;

use crate::join::NamedRoom;
use crate::openapi::{Routes, operation};
use crate::problem::ApiError;

/// The media type of offers and answers.
const SDP: &str = "application/sdp";

/// The media type of what changes ICE alone (RFC 8840 section 9).
const SDP_FRAGMENT: &str = "application/trickle-ice-sdpfrag";

const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

/// The chapter of the API's document.
const TAG: &str = "WHIP and WHEP";

const WHIP: &str = "/v1/rooms/{room}/whip";
const WHEP: &str = "/v1/rooms/{room}/whep";
const WHIP_SESSION: &str = "/v1/rooms/{room}/whip/{session}";
const WHEP_SESSION: &str = "/v1/rooms/{room}/whep/{session}";
pub(crate) const WHIP_EVENTS: &str = "/v1/rooms/{room}/whip/{session}/events";
pub(crate) const WHEP_EVENTS: &str = "/v1/rooms/{room}/whep/{session}/events";

/// Which of the two protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// Publishing.
    Whip,
    /// Watching.
    Whep,
}

impl Protocol {
    /// The part of the URL that stands for it.
    fn segment(self) -> &'static str {
        match self {
            Self::Whip => "whip",
            Self::Whep => "whep",
        }
    }
}

/// The two protocols' operations.
pub fn routes() -> Routes {
    let routes = Routes::default().undocumented(WHEP, head(an_offer_is_taken));
    [publish::add, watch::add, session::add]
        .into_iter()
        .fold(routes, |routes, add| add(routes))
        .open(
            operation(Get, WHIP, "showWhip", "Nothing: an endpoint has no representation.")
                .tag(TAG)
                .answers_nothing(204, "It is there (RFC 9725 section 4.1)."),
            nothing,
        )
        .open(
            operation(Get, WHEP, "showWhep", "Nothing: an endpoint has no representation.")
                .tag(TAG)
                .answers_nothing(
                    204,
                    "It is there. `HEAD` tells players that it takes `application/sdp`.",
                ),
            nothing,
        )
}

/// An endpoint has no representation (RFC 9725 section 4.1).
async fn nothing(_: NamedRoom) -> StatusCode {
    StatusCode::NO_CONTENT
}

/// How a player finds out that a URL is a WHEP endpoint.
async fn an_offer_is_taken() -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static(SDP))], StatusCode::OK).into_response()
}

/// Says in the answer to `OPTIONS` what an endpoint or a session takes. Goes around CORS, which answers all of them.
pub(crate) async fn advertise(request: Request, next: Next) -> Response {
    let route = (request.method() == Method::OPTIONS)
        .then(|| request.extensions().get::<MatchedPath>().cloned())
        .flatten();
    let mut response = next.run(request).await;
    let route = route.as_ref().map_or("", MatchedPath::as_str);
    if route == WHIP || route == WHEP {
        response
            .headers_mut()
            .insert(ACCEPT_POST, HeaderValue::from_static(SDP));
    } else if route == WHIP_SESSION || route == WHEP_SESSION {
        response
            .headers_mut()
            .insert(ACCEPT_PATCH, HeaderValue::from_static(SDP_FRAGMENT));
    }
    response
}

/// A header's value that is made of what was checked before.
fn header(value: &str) -> Result<HeaderValue, ApiError> {
    HeaderValue::try_from(value).map_err(|_| ApiError::Internal)
}

/// The headers that say what a body is.
fn of_type(media_type: &str) -> Result<HeaderMap, ApiError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, header(media_type)?);
    Ok(headers)
}
