//! All routes of both listeners, and what holds for each of them: CORS, counts, problems for what is not there.

use axum::Router;
use axum::extract::State as Shared;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tower_http::cors::CorsLayer;
use utoipa::openapi::HttpMethod::Get;

use crate::openapi::{Routes, operation};
use crate::problem::ApiError;
use crate::state::State;
use crate::{affinity, front, group, join, limits, livekit, observe, page, routing, whip};

/// What clients see.
pub(crate) fn public(state: State, cors: CorsLayer) -> Router {
    // A dialect that is described adds its operations here, any other one its routes below.
    Routes::default()
        .merge(join::routes())
        .merge(whip::routes())
        .merge(health())
        .into_described_router()
        .merge(livekit::routes())
        .merge(page::routes())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(state.clone(), routing::route))
        .layer(from_fn_with_state(state.clone(), group::remember))
        .layer(from_fn_with_state(state.clone(), affinity::lead))
        .layer(from_fn_with_state(state.clone(), limits::enforce))
        // Around what refuses requests, so that a page of another origin can read why.
        .layer(cors)
        .layer(from_fn(whip::advertise))
        .layer(from_fn(front::ambiguity::refuse))
        .layer(from_fn_with_state(state.clone(), observe::watch))
        .with_state(state)
}

/// What other gateways see: the same, for the clients that they bring.
pub(crate) fn peers(state: State) -> Router {
    // Who brings a client tells it from where it may ask.
    let cors = CorsLayer::new();
    public(state.clone(), cors).layer(from_fn_with_state(state, affinity::arrive))
}

/// What operators see.
pub(crate) fn admin(state: State) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/rules", get(rules))
        .merge(health().into_router())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state)
}

fn health() -> Routes {
    Routes::default()
        .open(
            operation(Get, "/livez", "isAlive", "Whether the gateway answers.")
                .tag("service")
                .answers_as::<String>(200, "It does.", "text/plain"),
            async || "ok\n",
        )
        .open(
            operation(
                Get,
                "/readyz",
                "isReady",
                "Whether the gateway takes clients: not while it goes.",
            )
            .tag("service")
            .answers_as::<String>(200, "It does.", "text/plain")
            .fails([ApiError::ShuttingDown]),
            ready,
        )
        .open(
            operation(Get, "/startupz", "hasStarted", "Whether the gateway has started.")
                .tag("service")
                .answers_as::<String>(200, "It has.", "text/plain"),
            async || "ok\n",
        )
}

/// Not ready while it goes. An orchestrator or a node that is away makes it no less ready: it says so to each caller, and no
/// other gateway could do better.
async fn ready(Shared(state): Shared<State>) -> Result<&'static str, ApiError> {
    if state.shutdown().is_cancelled() {
        Err(ApiError::ShuttingDown)
    } else {
        Ok("ok\n")
    }
}

async fn metrics(Shared(state): Shared<State>) -> Response {
    let media_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    let text = state.metrics().render() + &state.rooms().render_upstreams();
    ([(CONTENT_TYPE, media_type)], text).into_response()
}

/// The rules that count at present, as they were written.
async fn rules(Shared(state): Shared<State>) -> Response {
    let media_type = HeaderValue::from_static("application/toml");
    ([(CONTENT_TYPE, media_type)], state.routing().text()).into_response()
}

async fn not_found() -> ApiError {
    ApiError::NotFound
}

async fn method_not_allowed() -> ApiError {
    ApiError::MethodNotAllowed
}
