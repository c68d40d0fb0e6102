//! What the API answers when it cannot do what was asked: problem details (RFC 9457).

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use signalbox_protocol::problem::{CONTENT_TYPE, Problem};

use crate::Error;

/// When to try again after a 503, in seconds. A lost node is fenced, and a restarted database is back, within a few of
/// them.
const RETRY_AFTER: &str = "1";

/// An answer that is not a success.
#[derive(Debug)]
pub enum Failure {
    /// The body, or an id in the path, is not what it should be. A sentence that says what.
    BadRequest(Cow<'static, str>),
    /// No or another secret.
    Unauthorized,
    /// No such path.
    NotFound,
    /// Not with this method.
    MethodNotAllowed,
    /// The epoch is over, or the node was never registered.
    EpochOver,
    /// The body is too long.
    TooLarge,
    /// The body does not say that it is JSON.
    NotJson,
    /// No node takes rooms.
    NoNode,
    /// More requests at once than the guard lets in.
    Busy,
    /// The store or the signer failed.
    Internal(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Internal(error)
    }
}

impl Failure {
    fn problem(&self) -> Problem {
        let problem = |status, kind, title, detail: &str| Problem::new(status, kind, title, detail);
        match self {
            Failure::BadRequest(detail) => problem(400, "bad-request", "Bad request", detail),
            Failure::Unauthorized => problem(
                401,
                "unauthorized",
                "Unauthorized",
                "Send the cluster secret as `Authorization: Bearer <secret>`; it must be the same in every process of the cluster.",
            ),
            Failure::NotFound => problem(
                404,
                "not-found",
                "Not found",
                "There is no such path; check the URL against the API's table.",
            ),
            Failure::MethodNotAllowed => problem(
                405,
                "method-not-allowed",
                "Method not allowed",
                "Use one of the methods that the Allow header names.",
            ),
            Failure::EpochOver => problem(
                410,
                "epoch-over",
                "Epoch over",
                "Drop all rooms of this epoch and register again for a new one.",
            ),
            Failure::TooLarge => problem(
                413,
                "body-too-large",
                "Body too large",
                "Send a shorter body; 64 KiB is the limit, 4 MiB for a heartbeat.",
            ),
            Failure::NotJson => problem(
                415,
                "unsupported-media-type",
                "Unsupported media type",
                "Send the body as JSON, with `Content-Type: application/json`.",
            ),
            Failure::NoNode => problem(
                503,
                "no-node",
                "No node available",
                "No media node can take the room at the moment; try again after Retry-After seconds, and start media nodes if it stays so.",
            ),
            Failure::Busy => problem(
                503,
                "busy",
                "Busy",
                "Too many requests are under way; try again after Retry-After seconds.",
            ),
            Failure::Internal(error) if error.is_outage() => problem(
                503,
                "map-unavailable",
                "Room map unavailable",
                "The database of the room map cannot be reached; try again after Retry-After seconds.",
            ),
            Failure::Internal(_) => problem(
                500,
                "internal",
                "Internal error",
                "The request could not be carried out; the orchestrator's log says why.",
            ),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        if let Failure::Internal(error) = &self {
            if error.is_outage() {
                // The fencer logs an outage once; here it would be once per request.
                tracing::debug!(%error, "request failed");
            } else {
                tracing::error!(%error, "request failed");
            }
        }
        let problem = self.problem();
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(problem)).into_response();
        let mut set = |name: HeaderName, value| response.headers_mut().insert(name, HeaderValue::from_static(value));
        set(header::CONTENT_TYPE, CONTENT_TYPE);
        match status {
            StatusCode::SERVICE_UNAVAILABLE => set(header::RETRY_AFTER, RETRY_AFTER),
            StatusCode::UNAUTHORIZED => set(header::WWW_AUTHENTICATE, "Bearer"),
            _ => None,
        };
        response
    }
}
