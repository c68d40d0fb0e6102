//! Every reason for which a request is not done, and how HTTP says it: a problem document (RFC 9457) whose `detail` tells the
//! caller what to do.
//!
//! Owns the statuses, the kinds and the headers that belong to them. Knows no handler and never holds a token.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use signalbox_protocol::control::{Refusal, RefusalReason};
use signalbox_protocol::id::InvalidName;
use signalbox_protocol::problem::{self, Problem};

/// After how many seconds to try again when nobody said better. Higher: a room opens later than it could. Lower: callers knock
/// more often while nothing has changed.
const RETRY_AFTER_SECONDS: u64 = 2;

/// Why the gateway did not do what it was asked. `Display` is the sentence for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// 400: a room's name or an identity breaks the rules.
    #[error("The {what} {reason}. Choose another one.")]
    InvalidName {
        /// Which name, as the sentence's subject.
        what: &'static str,
        /// The rule.
        reason: InvalidName,
    },
    /// 400: the body is not the JSON that the endpoint takes.
    #[error("The body cannot be used: {0}.")]
    InvalidBody(String),
    /// 400: the SDP cannot be used.
    #[error("{0}")]
    InvalidSdp(String),
    /// 400: anything else about the request.
    #[error("{0}")]
    InvalidRequest(String),
    /// 401: no token came with the request.
    #[error("Send an access token as `Authorization: Bearer <token>`.")]
    TokenMissing,
    /// 401: the token is not one that a known key signed, or does not hold yet.
    #[error("{0}")]
    TokenInvalid(String),
    /// 401: the token's time is over.
    #[error("The access token is expired; ask your application for a new one.")]
    TokenExpired,
    /// 403: the token does not allow it.
    #[error("{0}")]
    Forbidden(String),
    /// 403: this gateway signs no guest tokens.
    #[error("This gateway gives no tokens to guests; bring an access token from your application.")]
    GuestsOff,
    /// 404: no such route.
    #[error("There is nothing at this address; the API is under `/v1/rooms/{{room}}`.")]
    NotFound,
    /// 404: the room is not open anywhere.
    #[error("There is no such room at the moment; it opens when somebody joins it.")]
    NoRoom,
    /// 404: no such participant in the room, or it is somebody else's.
    #[error("{0}")]
    NoParticipant(String),
    /// 404: no such track.
    #[error("{0}")]
    NoTrack(String),
    /// 405: the route exists, but not with this method.
    #[error("This address does not take the method; the `Allow` header names those that it takes.")]
    MethodNotAllowed,
    /// 408: the body came too slowly.
    #[error("The body did not arrive in time; send it at once.")]
    BodyTimeout,
    /// 413: the body is too long.
    #[error("The body must be at most 64 KiB long.")]
    BodyTooLarge,
    /// 415: the body is not JSON by its header.
    #[error("Send the body as `Content-Type: application/json`.")]
    UnsupportedMediaType,
    /// 415: the body is of another type than this address takes.
    #[error("Send the body as `Content-Type: {0}`.")]
    WrongMediaType(&'static str),
    /// 415: the body is compressed.
    #[error("Send the body as it is, without `Content-Encoding`.")]
    EncodedBody,
    /// 409: nobody publishes in the room.
    #[error("{0}")]
    NothingLive(String),
    /// 412: the ICE session that it is for is over.
    #[error("{0}")]
    StaleIce(String),
    /// 422: this session cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// 428: which ICE session it is for was not said.
    #[error("Send `If-Match` with the session's entity-tag, or `If-Match: *` to restart ICE.")]
    PreconditionRequired,
    /// 426: a WebSocket that its handshake does not make one (RFC 6455 section 4.2.1).
    #[error("This is not how a WebSocket is opened; use version 13 of its protocol, or ask for no upgrade.")]
    UpgradeRequired,
    /// 429: more often than one may.
    #[error("{detail}")]
    TooOften {
        /// The sentence.
        detail: String,
        /// After how many seconds to ask again.
        retry_after: u64,
    },
    /// 503: no media node can take the room.
    #[error("{detail}")]
    NoNode {
        /// The sentence.
        detail: String,
        /// After how many seconds to try again.
        retry_after: u64,
    },
    /// 503: no orchestrator answers.
    #[error("Rooms cannot be placed at the moment; try again shortly.")]
    OrchestratorUnavailable,
    /// 503: the room's media node does not answer.
    #[error("The room's media node cannot be reached at the moment; try again shortly.")]
    NodeUnavailable,
    /// 503: too much is under way, here or at the node.
    #[error("{0}")]
    Overloaded(String),
    /// 503: this gateway is going away; another one will do.
    #[error("This gateway is shutting down; try again, another one will answer.")]
    ShuttingDown,
    /// As a rule of the operator's says.
    #[error("{1}")]
    Ruled(u16, String),
    /// 500: a fault on our side; the log has more.
    #[error("Something is wrong on our side; try again, and report it if it stays.")]
    Internal,
    /// Not a request's: the gateway cannot start.
    #[error("The gateway cannot start: {0}.")]
    Start(String),
}

impl ApiError {
    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::InvalidName { .. } | Self::InvalidBody(_) | Self::InvalidSdp(_) | Self::InvalidRequest(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::TokenMissing | Self::TokenInvalid(_) | Self::TokenExpired => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) | Self::GuestsOff => StatusCode::FORBIDDEN,
            Self::NotFound | Self::NoRoom | Self::NoParticipant(_) | Self::NoTrack(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType | Self::WrongMediaType(_) | Self::EncodedBody => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Self::NothingLive(_) => StatusCode::CONFLICT,
            Self::StaleIce(_) => StatusCode::PRECONDITION_FAILED,
            Self::Unsupported(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::PreconditionRequired => StatusCode::PRECONDITION_REQUIRED,
            Self::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
            Self::TooOften { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::NoNode { .. }
            | Self::OrchestratorUnavailable
            | Self::NodeUnavailable
            | Self::Overloaded(_)
            | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::Ruled(status, _) => StatusCode::from_u16(*status).unwrap_or(StatusCode::FORBIDDEN),
            Self::Internal | Self::Start(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// After how many seconds to try again; only with 409, 429 and 503.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::NoNode { retry_after, .. } | Self::TooOften { retry_after, .. } => Some(*retry_after),
            Self::NothingLive(_) => Some(RETRY_AFTER_SECONDS),
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => Some(RETRY_AFTER_SECONDS),
            _ => None,
        }
    }

    /// The last part of the problem's `type`, and its title.
    fn kind(&self) -> (&'static str, &'static str) {
        match self {
            Self::InvalidName { .. } => ("invalid-name", "Invalid name"),
            Self::InvalidBody(_) => ("invalid-body", "Invalid body"),
            Self::InvalidSdp(_) => ("invalid-sdp", "Invalid SDP"),
            Self::InvalidRequest(_) => ("invalid-request", "Invalid request"),
            Self::TokenMissing => ("token-missing", "Token missing"),
            Self::TokenInvalid(_) => ("token-invalid", "Token invalid"),
            Self::TokenExpired => ("token-expired", "Token expired"),
            Self::Forbidden(_) => ("forbidden", "Forbidden"),
            Self::GuestsOff => ("guests-off", "No guests"),
            Self::NotFound => ("not-found", "Not found"),
            Self::NoRoom => ("room-not-found", "No such room"),
            Self::NoParticipant(_) => ("participant-not-found", "No such participant"),
            Self::NoTrack(_) => ("track-not-found", "No such track"),
            Self::MethodNotAllowed => ("method-not-allowed", "Method not allowed"),
            Self::BodyTimeout => ("body-timeout", "Body too slow"),
            Self::BodyTooLarge => ("body-too-large", "Body too large"),
            Self::UnsupportedMediaType | Self::WrongMediaType(_) | Self::EncodedBody => {
                ("unsupported-media-type", "Unsupported media type")
            }
            Self::NothingLive(_) => ("nothing-live", "Nothing live"),
            Self::StaleIce(_) => ("ice-session-over", "ICE session over"),
            Self::Unsupported(_) => ("unsupported", "Not supported"),
            Self::PreconditionRequired => ("precondition-required", "Precondition required"),
            Self::UpgradeRequired => ("upgrade-required", "WebSocket expected"),
            Self::TooOften { .. } => ("too-often", "Too many requests"),
            Self::NoNode { .. } => ("no-node", "No media node"),
            Self::OrchestratorUnavailable => ("orchestrator-unavailable", "Placement unavailable"),
            Self::NodeUnavailable => ("node-unavailable", "Media node unavailable"),
            Self::Overloaded(_) => ("overloaded", "Overloaded"),
            Self::ShuttingDown => ("shutting-down", "Shutting down"),
            Self::Ruled(..) => ("ruled-out", "Not served here"),
            Self::Internal | Self::Start(_) => ("internal", "Internal error"),
        }
    }

    /// The last part of the problem's `type`, such as `token-expired`.
    pub fn name(&self) -> &'static str {
        self.kind().0
    }

    /// The problem document.
    pub fn problem(&self) -> Problem {
        let (kind, title) = self.kind();
        Problem::new(self.status().as_u16(), kind, title, self.to_string())
    }
}

impl From<Refusal> for ApiError {
    /// What a node's refusal means to the caller, once asking again is of no use.
    fn from(refusal: Refusal) -> Self {
        let Refusal { reason, detail } = refusal;
        match reason {
            RefusalReason::Ticket | RefusalReason::Closing => Self::NodeUnavailable,
            RefusalReason::Full => Self::NoNode {
                detail: "The room's media node takes no more participants at the moment; try again shortly.".into(),
                retry_after: RETRY_AFTER_SECONDS,
            },
            RefusalReason::NoRoom => Self::NoRoom,
            RefusalReason::NoParticipant => Self::NoParticipant(detail),
            RefusalReason::NoTrack => Self::NoTrack(detail),
            RefusalReason::Sdp => Self::InvalidSdp(detail),
            RefusalReason::NothingLive => Self::NothingLive(detail),
            RefusalReason::StaleIce => Self::StaleIce(detail),
            RefusalReason::Unsupported => Self::Unsupported(detail),
            RefusalReason::NotPermitted => Self::Forbidden(detail),
            RefusalReason::Invalid => Self::InvalidRequest(detail),
            RefusalReason::Overloaded => Self::Overloaded("The room's media node is busy; try again shortly.".into()),
            RefusalReason::Internal => Self::Internal,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(problem::CONTENT_TYPE));
        if let Some(seconds) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // The headers come after the body, so that the problem's media type replaces `Json`'s.
        let mut response = (self.status(), Json(self.problem())).into_response();
        response.headers_mut().extend(headers);
        // For whoever completes it with the request's id.
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_labelled_as_one() {
        let response = ApiError::NoNode {
            detail: "None.".into(),
            retry_after: 7,
        }
        .into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[CONTENT_TYPE], problem::CONTENT_TYPE);
        assert_eq!(response.headers().get_all(CONTENT_TYPE).iter().count(), 1);
        assert_eq!(response.headers()[RETRY_AFTER], "7");
    }

    #[test]
    fn a_missing_token_is_asked_for() {
        let response = ApiError::TokenMissing.into_response();
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");
        assert!(response.headers().get(RETRY_AFTER).is_none());
    }
}
