//! Requests that belong to a trace: those that a gateway makes for one of its clients. No other one begins a trace, so heartbeats are in none.

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use signalbox_telemetry::{Span, context};

/// The middleware.
pub async fn carry_on(request: Request, next: Next) -> Response {
    let Some(said) = context::from_headers(request.headers()) else {
        return next.run(request).await;
    };
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let span = Span::carry_on(format!("{method} {route}"), Some(&said));
    span.note("http.request.method", &method);
    span.note("http.route", route);
    let response = span.run(next.run(request)).await;
    let status = response.status();
    span.note_number("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.fail(status);
    }
    response
}
