//! The public API's OpenAPI 3.1 document, and routes that cannot diverge from it: an operation is added together with its handler.
//!
//! Owns what all operations have in common: who may call them, the parameters of their paths, and the problems that any of them may
//! answer. Knows no operation: each dialect adds its own, in its own files. The document's form is [`signalbox_protocol::openapi`]'s.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, get, on};
use signalbox_protocol::id::InvalidName;
use signalbox_protocol::openapi::{self, About, Failure, Operation, Operations};
use signalbox_protocol::{RoomName, TrackId};
use utoipa::openapi::HttpMethod;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};

use crate::problem::ApiError;
use crate::state::State;

/// The names of the security schemes: either will do.
const TOKEN: [&str; 2] = ["access_token", "access_token_in_query"];

const DESCRIPTION: &str = "Rooms for voice and video. Join one here, then stream UDP straight to the media node that hosts it: no media passes \
through this API.\n\nEvery error is a problem document (RFC 9457) whose `type` is `urn:signalbox:problem:` and the name that stands \
below in code font, and whose `detail` says what to do. An error that no operation lists can only come from a request that fits none: \
404 for an unknown address, 405 with `Allow` for an unknown method.\n\nThe protocol that LiveKit's SDKs speak, at `/rtc`, is not \
described here.";

impl From<&ApiError> for Failure {
    fn from(error: &ApiError) -> Self {
        Self {
            status: error.status().as_u16(),
            name: error.name().to_owned(),
            detail: error.to_string(),
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::from(&error)
    }
}

/// An operation with a stable id and a sentence. The parameters of the path are `{room}`, `{participant}` and `{track}`.
pub fn operation(method: HttpMethod, path: &'static str, id: &str, summary: &str) -> Operation {
    let mut operation = Operation::new(method, path, id, summary);
    if path.contains("{room}") {
        operation = operation.path_parameter::<RoomName>(
            "room",
            "The room's name: 1 to 256 bytes of printable characters, percent-encoded, and neither `.` nor `..`.",
        );
    }
    if path.contains("{participant}") {
        operation = operation
            .path_parameter::<String>("participant", "The participant: its id (`PA_…`) as the join told it.")
            .fails([no_participant()]);
    }
    if path.contains("{track}") {
        operation = operation
            .path_parameter::<TrackId>("track", "The track's id (`TR_…`).")
            .fails([ApiError::NoTrack("There is no such track.".into())]);
    }
    operation
}

/// 404 of operations on participants.
pub fn no_participant() -> ApiError {
    ApiError::NoParticipant(
        "The participant is not in the room (any more), or is somebody else's; if it is your own, join again.".into(),
    )
}

/// Routes and what is documented of them.
#[derive(Clone, Default)]
pub struct Routes {
    router: Router<State>,
    operations: Operations,
}

impl Routes {
    /// Adds an operation that anybody may call, and who carries it out.
    pub fn open<H: Handler<T, State>, T: 'static>(self, operation: Operation, handler: H) -> Self {
        self.add(operation, handler)
    }

    /// Adds an operation that needs an access token and a room's node, and who carries it out.
    pub fn guarded<H: Handler<T, State>, T: 'static>(self, operation: Operation, handler: H) -> Self {
        let operation = operation.secured(&TOKEN).fails([
            ApiError::TokenMissing,
            ApiError::TokenInvalid(
                "The access token was not signed by a key that this gateway knows, or does not hold yet; the detail says which.".into(),
            ),
            ApiError::TokenExpired,
            ApiError::Forbidden("The access token does not allow it; the detail says which grant it needs.".into()),
            ApiError::NoNode {
                detail: "No media node can take the room at the moment; try again after Retry-After seconds.".into(),
                retry_after: 0,
            },
            ApiError::OrchestratorUnavailable,
            ApiError::NodeUnavailable,
            ApiError::Overloaded("Too much is under way; try again shortly.".into()),
            ApiError::ShuttingDown,
            ApiError::Internal,
        ]);
        self.add(operation, handler)
    }

    fn add<H: Handler<T, State>, T: 'static>(mut self, operation: Operation, handler: H) -> Self {
        let mut operation = operation.fails([ApiError::TooOften {
            detail: "More is asked than one user may ask, or one network; ask again after Retry-After seconds.".into(),
            retry_after: 0,
        }]);
        if operation.has_parameters() {
            operation = operation.fails([
                ApiError::InvalidName {
                    what: "room's name",
                    reason: InvalidName::NotPrintable,
                },
                ApiError::InvalidRequest(
                    "The request makes no sense, or not at this moment; the detail says what to change.".into(),
                ),
            ]);
        }
        if operation.has_body() {
            operation = operation.fails([
                ApiError::InvalidBody("the detail says what it has to be".into()),
                ApiError::BodyTimeout,
                ApiError::BodyTooLarge,
            ]);
        }
        if operation.has_json_body() {
            operation = operation.fails([ApiError::UnsupportedMediaType]);
        }
        let handler = on(filter(&operation.method()), handler);
        self.router = self.router.route(operation.path(), handler);
        self.operations.add(operation);
        self
    }

    /// Adds a route that is no operation of its own, such as one that only says what is wrong.
    pub fn undocumented(mut self, path: &str, handler: MethodRouter<State>) -> Self {
        self.router = self.router.route(path, handler);
        self
    }

    /// Adds another dialect's.
    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.operations.merge(other.operations);
        self
    }

    /// The routes alone.
    pub fn into_router(self) -> Router<State> {
        self.router
    }

    /// The routes, and one that serves the document, which describes itself too.
    pub fn into_described_router(self) -> Router<State> {
        let described = operation(
            HttpMethod::Get,
            "/openapi.json",
            "describe",
            "This document. `/docs` shows it to people.",
        )
        .tag("service")
        .answers::<serde_json::Value>(200, "OpenAPI 3.1.");
        let mut operations = self.operations;
        operations.add(described);
        let document: Arc<str> = format!("{:#}\n", document(operations)).into();
        let serve = move || {
            let document = Arc::clone(&document);
            async move { serve(&document) }
        };
        self.router.route("/openapi.json", get(serve))
    }
}

fn serve(document: &str) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, document.to_owned()).into_response()
}

fn document(operations: Operations) -> serde_json::Value {
    let header = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some(
            "An access token: a JWT signed with an API key's secret (HS256), with the claims of LiveKit's tokens.",
        ));
    let query = ApiKeyValue::with_description(
        "access_token",
        "The same token in the query, for clients that cannot send headers, such as a browser's WebSocket and EventSource.",
    );
    let about = About {
        title: "Signalbox",
        version: env!("CARGO_PKG_VERSION"),
        description: DESCRIPTION,
        license: env!("CARGO_PKG_LICENSE"),
        security: vec![
            (TOKEN[0], SecurityScheme::Http(header.build())),
            (TOKEN[1], SecurityScheme::ApiKey(ApiKey::Query(query))),
        ],
    };
    openapi::document(about, operations)
}

fn filter(method: &HttpMethod) -> MethodFilter {
    match method {
        HttpMethod::Post => MethodFilter::POST,
        HttpMethod::Put => MethodFilter::PUT,
        HttpMethod::Delete => MethodFilter::DELETE,
        HttpMethod::Patch => MethodFilter::PATCH,
        HttpMethod::Options => MethodFilter::OPTIONS,
        _ => MethodFilter::GET,
    }
}
