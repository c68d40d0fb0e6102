//! The control listener: the gateways' WebSockets, and what operators and probes ask.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/control` with the cluster secret | WebSocket; see [`signalbox_protocol::control`] |
//! | `GET /v1/epoch` with the cluster secret | [`EpochHeld`]: whether the node holds its epoch at this moment |
//! | `GET /v1/rooms` with the cluster secret | [`HostedRooms`](signalbox_protocol::node::HostedRooms): the rooms here |
//! | `POST /v1/moves` with the cluster secret | [`MoveRoom`]: a room is another node's, send those in it there. 204; 404; 409; 503 |
//! | `GET /livez` | 200 while the process runs |
//! | `GET /readyz` | 200 while the node holds a lease, else 503 |
//! | `GET /metrics` | Prometheus text |
//!
//! The last three need no secret: the listener is on loopback unless the operator says otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use signalbox_protocol::Secrets;
use signalbox_protocol::control::{MAX_FRAME_BYTES, PATH};
use signalbox_protocol::node::{EpochHeld, MoveRoom};
use signalbox_protocol::problem::{self, Problem};
use subtle::{Choice, ConstantTimeEq};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::counters::Counters;
use crate::hand_off::{self, Failed};
use crate::lease::Boottime;
use crate::link::LinkId;
use crate::link_task;
use crate::metrics;
use crate::node::Node;
use crate::rooms::Unmoved;

/// How long an order to move a room may be, in bytes. The longest has a room name, a URL and a ticket, of some hundred bytes each.
const MAX_ORDER_BYTES: usize = 64 * 1024;

/// What the handlers share.
#[derive(Clone)]
pub struct Control {
    node: Arc<Node>,
    links: TaskTracker,
    stop: CancellationToken,
    next_link: Arc<AtomicU64>,
}

impl Control {
    /// For a node. `stop` ends every link, after what is in its queue has been sent.
    pub fn new(node: Arc<Node>, stop: CancellationToken) -> Self {
        Self {
            node,
            links: TaskTracker::new(),
            stop,
            next_link: Arc::default(),
        }
    }

    /// The links' tasks.
    pub fn links(&self) -> &TaskTracker {
        &self.links
    }

    /// The listener's routes.
    pub fn router(self) -> Router {
        Router::new()
            .route(PATH, get(link))
            .route("/v1/epoch", get(epoch))
            .route("/v1/rooms", get(rooms))
            .route("/v1/moves", post(begin_move))
            .route("/livez", get(|| async { "alive\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(show_metrics))
            .fallback(|| async {
                problem(
                    404,
                    "not-found",
                    "Not found",
                    "There is nothing here; gateways use /v1/control.",
                )
            })
            .method_not_allowed_fallback(|| async {
                problem(
                    405,
                    "method-not-allowed",
                    "Method not allowed",
                    "Use GET; for /v1/moves POST.",
                )
            })
            .with_state(self)
    }
}

async fn link(
    State(control): State<Control>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    if let Err(refusal) = authorize(&control, &headers) {
        return refusal;
    }
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let id = LinkId(control.next_link.fetch_add(1, Ordering::Relaxed));
    upgrade
        .max_message_size(MAX_FRAME_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .on_upgrade(move |socket| async move {
            let task = link_task::run(socket, id, Arc::clone(&control.node), control.stop.clone());
            control.links.track_future(task).await;
        })
}

async fn epoch(State(control): State<Control>, headers: HeaderMap) -> Response {
    if let Err(refusal) = authorize(&control, &headers) {
        return refusal;
    }
    let held = EpochHeld {
        node: control.node.id,
        epoch: control.node.lease.epoch(Boottime::now()),
    };
    Json(held).into_response()
}

async fn rooms(State(control): State<Control>, headers: HeaderMap) -> Response {
    if let Err(refusal) = authorize(&control, &headers) {
        return refusal;
    }
    Json(hand_off::hosted(&control.node).await).into_response()
}

/// The body is not read before the secret was seen.
async fn begin_move(State(control): State<Control>, headers: HeaderMap, body: Body) -> Response {
    if let Err(refusal) = authorize(&control, &headers) {
        return refusal;
    }
    let Ok(bytes) = to_bytes(body, MAX_ORDER_BYTES).await else {
        return problem(
            413,
            "too-large",
            "Too large",
            "The body is longer than an order can be, or was cut off.",
        );
    };
    let order = match serde_json::from_slice::<MoveRoom>(&bytes) {
        Ok(order) => order,
        Err(error) => {
            let detail = format!("The body is not an order to move a room: {error}.");
            return problem(400, "invalid-body", "Invalid body", &detail);
        }
    };
    match hand_off::begin(&control.node, order).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(Failed::Senseless) => problem(
            400,
            "invalid-move",
            "Invalid move",
            "A room moves to another node and into a later generation.",
        ),
        Err(Failed::Unmoved(Unmoved::NotHosted)) => problem(
            404,
            "unknown-room",
            "Unknown room",
            "The node does not host the room in this generation (any more); there is nobody to send elsewhere.",
        ),
        Err(Failed::Unmoved(Unmoved::Overtaken)) => problem(
            409,
            "overtaken",
            "Overtaken",
            "The room moves to a later generation already; ask the room map where it is.",
        ),
        Err(Failed::Unmoved(Unmoved::Busy)) => problem(
            503,
            "overloaded",
            "Overloaded",
            "The room's shard has too much to do; try again in a moment.",
        ),
    }
}

/// Refuses who does not send the cluster secret.
#[expect(clippy::result_large_err, reason = "once for a request, and returned as it is")]
fn authorize(control: &Control, headers: &HeaderMap) -> Result<(), Response> {
    if authorized(headers, &control.node.secrets) {
        return Ok(());
    }
    Counters::add(&control.node.counters.unauthorized);
    tracing::warn!("a request without the cluster secret was refused");
    let refusal = problem(
        401,
        "unauthorized",
        "Unauthorized",
        "Send the cluster secret as Authorization: Bearer <secret>.",
    );
    Err(([(WWW_AUTHENTICATE, "Bearer")], refusal).into_response())
}

fn authorized(headers: &HeaderMap, secrets: &Secrets) -> bool {
    let given = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let Some(given) = given else { return false };
    // Compared with all of them, so that the time does not tell which one it is.
    let accepted = secrets.accepted().iter();
    let equal = accepted.fold(Choice::from(0), |equal, secret| {
        equal | given.ct_eq(secret.expose().as_bytes())
    });
    equal.into()
}

async fn ready(State(control): State<Control>) -> Response {
    if control.node.lease.epoch(Boottime::now()).is_some() && !control.stop.is_cancelled() {
        return "ready\n".into_response();
    }
    problem(
        503,
        "not-ready",
        "Not ready",
        "The node holds no lease; see whether it reaches the orchestrator.",
    )
}

async fn show_metrics(State(control): State<Control>) -> Response {
    let content_type = [(CONTENT_TYPE, "text/plain; version=0.0.4")];
    (content_type, metrics::render(&control.node)).into_response()
}

fn problem(status: u16, kind: &str, title: &str, detail: &str) -> Response {
    let body = serde_json::to_string(&Problem::new(status, kind, title, detail)).unwrap_or_default();
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(CONTENT_TYPE, problem::CONTENT_TYPE)], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_secret_authorizes_and_each_of_several_does() {
        let secrets: Secrets = "0123456789abcdef,fedcba9876543210".parse().unwrap();
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            authorized(&headers, &secrets)
        };
        assert!(with("Bearer 0123456789abcdef"));
        assert!(with("Bearer fedcba9876543210"));
        for wrong in [
            "Bearer 0123456789abcdeF",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef,fedcba9876543210",
            "Bearer ",
            "0123456789abcdef",
            "Basic x",
        ] {
            assert!(!with(wrong), "{wrong}");
        }
        assert!(!authorized(&HeaderMap::new(), &secrets));
    }
}
