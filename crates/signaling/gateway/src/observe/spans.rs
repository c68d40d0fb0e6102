//! What a request's trace says: the request itself, the search for the room, and what its node was asked.
//!
//! A span names rooms, nodes and participants, by their ids. It holds no token, secret, address, identity or URL.

use axum::http::Method;
use axum::http::request::Parts;
use axum::response::Response;
use signalbox_protocol::RoomName;
use signalbox_protocol::control::{Reply, Request};
use signalbox_protocol::placement::Placement;
use signalbox_telemetry::{Kind, Span, context};

use crate::dialect::Dialect;
use crate::node_link::{Answered, Failure};
use crate::placements::Found;
use crate::problem::ApiError;

/// A client's request. `route` is its pattern, `none` if there is none.
pub(super) fn request(parts: &Parts, route: &str, request_id: &str) -> Span {
    let method = method(&parts.method);
    let span = Span::begin(
        format!("{method} {route}"),
        context::from_headers(&parts.headers).as_ref(),
    );
    span.note("http.request.method", method);
    span.note("http.route", route);
    span.note("signalbox.request_id", request_id);
    if let Some(dialect) = Dialect::of_route(route) {
        span.note("signalbox.dialect", dialect.name());
    }
    span
}

/// What a client's request was answered.
pub(super) fn answered(span: &Span, response: &Response) {
    let status = response.status();
    let error = response.extensions().get::<ApiError>();
    span.note_number("http.response.status_code", status.as_u16());
    span.note("signalbox.result", error.map_or("ok", ApiError::name));
    if status.is_server_error() {
        span.fail(error.map_or("a fault", ApiError::name));
    }
}

/// The search for a room.
pub(crate) fn placing(room: &RoomName) -> Span {
    let span = Span::part("place room", Kind::Internal);
    span.note("signalbox.room", room);
    span
}

/// Where it is.
pub(crate) fn placed(span: &Span, found: &Result<Found, ApiError>) {
    match found {
        Ok(found) => {
            span.note("signalbox.result", "ok");
            span.note("signalbox.node", found.placement.node);
        }
        Err(error) => {
            span.note("signalbox.result", error.name());
            span.fail(error.name());
        }
    }
}

/// What a room's node is asked.
pub(crate) fn asking(request: &Request, placement: &Placement) -> Span {
    let span = Span::part(request.span(), Kind::Client);
    span.note("signalbox.room", &placement.room);
    span.note("signalbox.node", placement.node);
    span
}

/// What it said.
pub(crate) fn replied(span: &Span, answered: &Answered) {
    span.note("signalbox.result", "ok");
    if let Reply::Joined(joined) = &answered.reply {
        span.note("signalbox.participant", &joined.snapshot.participant.id);
    }
}

/// That it said no, or nothing.
pub(crate) fn not_done(span: &Span, failure: &Failure) {
    let name = ApiError::from(failure.clone()).name();
    span.note("signalbox.result", name);
    if !matches!(failure, Failure::Refused(_)) {
        span.fail(name);
    }
}

/// Methods are the clients'; what is not a usual one is `_OTHER` (OpenTelemetry's conventions for HTTP).
fn method(method: &Method) -> &str {
    const KNOWN: [Method; 7] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    if KNOWN.contains(method) {
        method.as_str()
    } else {
        "_OTHER"
    }
}
