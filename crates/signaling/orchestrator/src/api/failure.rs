//! What the API answers when it cannot do what was asked: problem details (RFC 9457).

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use signalbox_protocol::Epoch;
use signalbox_protocol::problem::{CONTENT_TYPE, Problem};

use crate::Error;

/// When to try again after a 503, in seconds. A lost node is fenced, and a restarted database is back, within a few of
/// them.
const RETRY_AFTER: &str = "1";

/// Everything that can be wrong; the OpenAPI document is made from it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    BadRequest,
    PrivateMediaAddress,
    Unauthorized,
    NotFound,
    UnknownNode,
    UnknownRoom,
    NoDrain,
    MethodNotAllowed,
    HeartbeatFromThePast,
    EpochMoved,
    NodeLost,
    EpochOver,
    TooLarge,
    NotJson,
    NoNode,
    Busy,
    MapUnavailable,
    Internal,
}

impl Kind {
    /// Its status, its name in the problem's type, its title, and what to do about it.
    pub const fn about(self) -> (u16, &'static str, &'static str, &'static str) {
        match self {
            Kind::BadRequest => (
                400,
                "bad-request",
                "Bad request",
                "The body, the path or the query is not what it should be; the detail says what to correct.",
            ),
            Kind::PrivateMediaAddress => (
                400,
                "private-media-address",
                "Private media address",
                "The node announces a media address that cannot be reached from the internet; the detail says which.",
            ),
            Kind::Unauthorized => (
                401,
                "unauthorized",
                "Unauthorized",
                "Send the cluster secret as `Authorization: Bearer <secret>`; it must be one that every process of the cluster accepts.",
            ),
            Kind::NotFound => (
                404,
                "not-found",
                "Not found",
                "There is no such path; check the URL against /openapi.json.",
            ),
            Kind::UnknownNode => (
                404,
                "unknown-node",
                "Unknown node",
                "No node with this id has ever registered, or it was lost so long ago that it is forgotten; `GET /v1/nodes` lists those that are known.",
            ),
            Kind::UnknownRoom => (
                404,
                "unknown-room",
                "Unknown room",
                "This room was never placed, or it was over so long ago that it is forgotten; `GET /v1/rooms` lists those that are known.",
            ),
            Kind::NoDrain => (
                404,
                "no-drain",
                "No drain",
                "This node was never drained, or is not known; `PUT` begins, and `GET /v1/nodes` lists those that are known.",
            ),
            Kind::MethodNotAllowed => (
                405,
                "method-not-allowed",
                "Method not allowed",
                "Use one of the methods that the Allow header names.",
            ),
            Kind::HeartbeatFromThePast => (
                409,
                "heartbeat-from-the-past",
                "Heartbeat from the past",
                "A heartbeat of this epoch with this number or a later one has come before, so this one changed nothing; count `beat` up with each.",
            ),
            Kind::EpochMoved => (
                409,
                "epoch-moved",
                "Epoch moved",
                "The node's epoch is not the one that this registration comes after, so nothing was changed; register again with `after` set to the `epoch` of this answer.",
            ),
            Kind::NodeLost => (
                409,
                "node-lost",
                "Node lost",
                "The node is lost, so it cannot be made to serve or to drain; it has to register again first.",
            ),
            Kind::EpochOver => (
                410,
                "epoch-over",
                "Epoch over",
                "Drop all rooms of this epoch and register again for a new one.",
            ),
            Kind::TooLarge => (
                413,
                "body-too-large",
                "Body too large",
                "Send a shorter body; 64 KiB is the limit, 4 MiB for a heartbeat.",
            ),
            Kind::NotJson => (
                415,
                "unsupported-media-type",
                "Unsupported media type",
                "Send the body as JSON, with `Content-Type: application/json`.",
            ),
            Kind::NoNode => (
                503,
                "no-node",
                "No node available",
                "No media node can take the room at the moment; try again after Retry-After seconds, and start media nodes if it stays so.",
            ),
            Kind::Busy => (
                503,
                "busy",
                "Busy",
                "Too many requests are under way; try again after Retry-After seconds.",
            ),
            Kind::MapUnavailable => (
                503,
                "map-unavailable",
                "Room map unavailable",
                "The database of the room map cannot be reached; try again after Retry-After seconds.",
            ),
            Kind::Internal => (
                500,
                "internal",
                "Internal error",
                "The request could not be carried out; the orchestrator's log says why.",
            ),
        }
    }
}

/// An answer that is not a success.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    /// Instead of what the kind says.
    detail: Option<String>,
    epoch: Option<Epoch>,
    error: Option<Error>,
}

impl Failure {
    /// A failure with its own sentence that says what to correct.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            detail: Some(detail.into()),
            ..kind.into()
        }
    }

    /// The node's epoch is this one, and not the one that it registers after.
    pub fn epoch_moved(epoch: Epoch) -> Self {
        Self {
            epoch: Some(epoch),
            ..Kind::EpochMoved.into()
        }
    }

    /// The body, the path or the query is not what it should be. A sentence that says what to correct.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, detail)
    }
}

impl From<Kind> for Failure {
    fn from(kind: Kind) -> Self {
        Self {
            kind,
            detail: None,
            epoch: None,
            error: None,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let kind = if error.is_outage() {
            Kind::MapUnavailable
        } else {
            Kind::Internal
        };
        Self {
            error: Some(error),
            ..kind.into()
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match &self.error {
            // The fencer logs an outage once; here it would be once per request.
            Some(error) if error.is_outage() => tracing::debug!(%error, "request failed"),
            Some(error) => tracing::error!(%error, "request failed"),
            None => {}
        }
        let (status, kind, title, detail) = self.kind.about();
        let problem = Problem {
            epoch: self.epoch,
            ..Problem::new(status, kind, title, self.detail.as_deref().unwrap_or(detail))
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
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
