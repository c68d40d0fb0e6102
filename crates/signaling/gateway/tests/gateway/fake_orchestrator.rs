//! An orchestrator that answers what the test tells it to.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::header::{AUTHORIZATION, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use signalbox_protocol::placement::{PlaceRoom, Placement};
use signalbox_protocol::problem::Problem;
use signalbox_protocol::{Epoch, Generation, NodeId};
use tokio::net::TcpListener;

use crate::cluster::SECRET;

#[derive(Clone)]
pub struct FakeOrchestrator(Arc<Inner>);

struct Inner {
    url: String,
    asked: AtomicU64,
    /// The control address of the node that takes all rooms; none: there is no node.
    node: Mutex<Option<String>>,
}

impl FakeOrchestrator {
    pub async fn start(node: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let orchestrator = Self(Arc::new(Inner {
            url: format!("http://{}", listener.local_addr().unwrap()),
            asked: AtomicU64::new(0),
            node: Mutex::new(node),
        }));
        let router = Router::new()
            .route("/v1/placements", post(place))
            .with_state(orchestrator.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        orchestrator
    }

    pub fn url(&self) -> &str {
        &self.0.url
    }

    pub fn place_on(&self, control: Option<String>) {
        *self.0.node.lock().unwrap() = control;
    }

    /// How often a placement was asked for. Tickets are numbered by it.
    pub fn asked(&self) -> u64 {
        self.0.asked.load(Ordering::SeqCst)
    }
}

async fn place(
    State(orchestrator): State<FakeOrchestrator>,
    headers: HeaderMap,
    Json(request): Json<PlaceRoom>,
) -> Response {
    if headers.get(AUTHORIZATION).unwrap() != format!("Bearer {SECRET}").as_str() {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let number = orchestrator.0.asked.fetch_add(1, Ordering::SeqCst) + 1;
    let node = orchestrator.0.node.lock().unwrap().clone();
    match node {
        Some(control) => Json(Placement {
            room: request.room,
            node: NodeId(Default::default()),
            control,
            epoch: Epoch(1),
            generation: Generation(1),
            ticket: format!("ticket-{number}"),
            ticket_seconds: 30,
        })
        .into_response(),
        None => {
            let problem = Problem::new(503, "no-node", "No node", "No media node is serving; start one.");
            (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "3")], Json(problem)).into_response()
        }
    }
}
