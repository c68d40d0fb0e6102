//! What is seen of each request from outside: its id, how long it took and how it ended, in the metrics, in its trace and in the access log.
//!
//! Neither says more than it has to: routes by their patterns, as URLs hold tokens and names; addresses by their networks.

pub mod config;

pub(crate) mod access_log;
pub(crate) mod joins;
pub(crate) mod requests;
pub mod sockets;
pub(crate) mod spans;

use std::time::Instant;

use axum::Json;
use axum::extract::{MatchedPath, Request, State as Shared};
use axum::http::header::{HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY, USER_AGENT, X_CONTENT_TYPE_OPTIONS};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use signalbox_protocol::problem;
use uuid::Uuid;

use self::access_log::Entry;
use crate::dialect::Dialect;
use crate::front::client::{ClientAddress, Peer};
use crate::problem::ApiError;
use crate::routing::Wish;
use crate::state::State;

/// Names a request, in its answer and in whatever is written of it.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken over from a proxy.
const MAX_ID_BYTES: usize = 64;

/// Watches a request from its head to its answer's.
pub(crate) async fn watch(Shared(state): Shared<State>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let (parts, body) = request.into_parts();
    let id = id(&state, &parts);
    let mut entry = Entry {
        request_id: id.clone(),
        method: parts.method.to_string(),
        route: parts
            .extensions
            .get::<MatchedPath>()
            .map(|route| route.as_str().to_owned()),
        protocol: format!("{:?}", parts.version),
        client: ClientAddress::of(&state, &parts).redacted().to_string(),
        user_agent: parts
            .headers
            .get(USER_AGENT)
            .and_then(|agent| Some(agent.to_str().ok()?.to_owned())),
        ..Entry::default()
    };
    let route = entry.route.as_deref().unwrap_or("none");
    let joins = Dialect::of_join(&parts, route);
    let span = spans::request(&parts, route, &id);
    let response = span.run(next.run(Request::from_parts(parts, body))).await;
    spans::answered(&span, &response);
    let mut response = name(response, &id);
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(policy) = state.config().front.hsts() {
        headers.insert(STRICT_TRANSPORT_SECURITY, policy);
    }
    let took = begun.elapsed();
    state.metrics().response(response.status());
    state
        .metrics()
        .requests
        .count(&entry.method, route, response.status(), took);
    if let Some(dialect) = joins {
        state.metrics().join_requests.count(dialect, &response);
    }
    tracing::debug!(
        method = entry.method,
        route,
        status = response.status().as_u16(),
        request_id = id,
        "answered"
    );
    if let Some(log) = state.access_log() {
        entry.trace_id = span.trace_id();
        entry.status = response.status().as_u16();
        entry.problem = response.extensions().get::<ApiError>().map(ApiError::name);
        entry.rule = response.extensions().get::<Wish>().and_then(|wish| wish.rule.clone());
        entry.duration_ms = took.as_secs_f64() * 1e3;
        log.write(entry);
    }
    response
}

/// A proxy's that we trust, or a new one.
fn id(state: &State, parts: &Parts) -> String {
    let is_from_proxy = parts
        .extensions
        .get::<Peer>()
        .is_some_and(|Peer(address)| state.trust().covers(address.ip()));
    let said = parts
        .headers
        .get(REQUEST_ID)
        .filter(|_| is_from_proxy)
        .and_then(|id| id.to_str().ok());
    let is_id =
        |id: &&str| !id.is_empty() && id.len() <= MAX_ID_BYTES && id.bytes().all(|byte| byte.is_ascii_graphic());
    said.filter(is_id)
        .map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

/// Puts the id into the answer, and into its problem document if it is one (RFC 9457 section 3.1.5).
fn name(response: Response, id: &str) -> Response {
    let is_problem = response
        .headers()
        .get(axum::http::header::CONTENT_TYPE)
        .is_some_and(|media_type| media_type == problem::CONTENT_TYPE);
    let error = response.extensions().get::<ApiError>().filter(|_| is_problem).cloned();
    let mut response = match error {
        Some(error) => {
            let mut problem = error.problem();
            problem.instance = Some(format!("urn:signalbox:request:{id}"));
            let (mut parts, _) = response.into_parts();
            parts.headers.remove(axum::http::header::CONTENT_LENGTH);
            let (_, body) = Json(problem).into_response().into_parts();
            Response::from_parts(parts, body)
        }
        None => response,
    };
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}
