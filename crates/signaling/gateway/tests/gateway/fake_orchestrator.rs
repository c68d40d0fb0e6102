//! An orchestrator that answers what the test tells it to, and remembers what it was asked.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::header::{AUTHORIZATION, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use signalbox_protocol::canary::{ReportOutcomes, Tally};
use signalbox_protocol::node::{ReportNode, Verdict};
use signalbox_protocol::placement::{PlaceRoom, Placement};
use signalbox_protocol::problem::Problem;
use signalbox_protocol::{Epoch, Generation, NodeId, RoomName};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

use crate::cluster::{SECRET, eventually};

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// It places rooms.
    Well,
    /// Its database is away; it answers for the rooms that it placed before.
    MapAway,
    /// It has too much to do.
    Busy,
    /// Something else answers in its place.
    Broken,
}

#[derive(Clone)]
pub struct FakeOrchestrator(Arc<Inner>);

struct Inner {
    url: String,
    asked: AtomicU64,
    nowhere: AtomicBool,
    by_share: AtomicBool,
    mood: Mutex<Mood>,
    /// The control address of the node that takes all rooms; none: there is no node.
    node: Mutex<Option<String>>,
    ticket_seconds: AtomicU64,
    generation: AtomicU64,
    placed: Mutex<BTreeSet<RoomName>>,
    requests: Mutex<Vec<PlaceRoom>>,
    headers: Mutex<Vec<HeaderMap>>,
    verdict: Mutex<Verdict>,
    reports: Mutex<Vec<(NodeId, ReportNode)>>,
    reported: Notify,
    outcomes: watch::Sender<Tally>,
}

impl FakeOrchestrator {
    pub async fn start(node: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let orchestrator = Self(Arc::new(Inner {
            url: format!("http://{}", listener.local_addr().unwrap()),
            asked: AtomicU64::new(0),
            nowhere: AtomicBool::new(false),
            by_share: AtomicBool::new(false),
            mood: Mutex::new(Mood::Well),
            node: Mutex::new(node),
            ticket_seconds: AtomicU64::new(30),
            generation: AtomicU64::new(1),
            placed: Mutex::default(),
            requests: Mutex::default(),
            headers: Mutex::default(),
            verdict: Mutex::new(Verdict {
                answers: true,
                ejected: false,
            }),
            reports: Mutex::default(),
            reported: Notify::new(),
            outcomes: watch::Sender::default(),
        }));
        let router = Router::new()
            .route("/v1/placements", post(place))
            .route("/v1/nodes/{node}/reports", post(report))
            .route("/v1/outcomes", post(outcomes))
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

    /// All rooms are placed anew, on this node.
    pub fn re_place(&self, control: String) {
        self.0.generation.fetch_add(1, Ordering::SeqCst);
        self.place_on(Some(control));
    }

    /// Where a room is, as a node says that hands it over.
    pub fn placement(&self, room: &str) -> Placement {
        Placement {
            room: room.parse().unwrap(),
            node: NodeId(Default::default()),
            control: self.0.node.lock().unwrap().clone().unwrap(),
            epoch: Epoch(1),
            generation: Generation(self.0.generation.load(Ordering::SeqCst)),
            ticket: "ticket of the hand-over".to_owned(),
            ticket_seconds: 30,
            by_canary_share: false,
        }
    }

    /// Whether it says that who asks is in the canary share, and the node of the canary track.
    pub fn place_by_share(&self, by_share: bool) {
        self.0.by_share.store(by_share, Ordering::SeqCst);
    }

    /// Rooms that are only looked for are nowhere from now on.
    pub fn know_nothing(&self) {
        self.0.nowhere.store(true, Ordering::SeqCst);
    }

    pub fn be(&self, mood: Mood) {
        *self.0.mood.lock().unwrap() = mood;
    }

    /// From now on tickets hold so long; with 0 none is used twice.
    pub fn sign_for(&self, seconds: u64) {
        self.0.ticket_seconds.store(seconds, Ordering::SeqCst);
    }

    /// What it makes of reports.
    pub fn judge(&self, verdict: Verdict) {
        *self.0.verdict.lock().unwrap() = verdict;
    }

    /// How often a placement was asked for. Tickets are numbered by it.
    pub fn asked(&self) -> u64 {
        self.0.asked.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> Vec<PlaceRoom> {
        self.0.requests.lock().unwrap().clone()
    }

    /// Of each request, in the same order.
    pub fn headers(&self) -> Vec<HeaderMap> {
        self.0.headers.lock().unwrap().clone()
    }

    pub fn reports(&self) -> Vec<(NodeId, ReportNode)> {
        self.0.reports.lock().unwrap().clone()
    }

    /// What it was told came of joins, all together.
    pub fn outcomes(&self) -> watch::Receiver<Tally> {
        self.0.outcomes.subscribe()
    }

    /// Waits for so many reports.
    pub async fn saw_reports(&self, count: usize) {
        eventually("the reports", async {
            loop {
                let reported = self.0.reported.notified();
                if self.reports().len() >= count {
                    return;
                }
                reported.await;
            }
        })
        .await;
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
    orchestrator.0.requests.lock().unwrap().push(request.clone());
    orchestrator.0.headers.lock().unwrap().push(headers);
    let mood = *orchestrator.0.mood.lock().unwrap();
    let known = orchestrator.0.placed.lock().unwrap().contains(&request.room);
    match mood {
        Mood::MapAway if !known => return unavailable("map-unavailable", "The database is away.", "1"),
        Mood::Busy => return unavailable("busy", "Too many requests.", "1"),
        Mood::Broken => return (StatusCode::BAD_GATEWAY, "nonsense").into_response(),
        Mood::Well | Mood::MapAway => {}
    }
    let node = orchestrator.0.node.lock().unwrap().clone();
    if request.find_only && orchestrator.0.nowhere.load(Ordering::SeqCst) {
        let problem = Problem::new(404, "unknown-room", "Unknown room", "Nowhere.");
        return (StatusCode::NOT_FOUND, Json(problem)).into_response();
    }
    match node {
        Some(control) => {
            orchestrator.0.placed.lock().unwrap().insert(request.room.clone());
            Json(Placement {
                room: request.room,
                node: NodeId(Default::default()),
                control,
                epoch: Epoch(1),
                generation: Generation(orchestrator.0.generation.load(Ordering::SeqCst)),
                ticket: format!("ticket-{number}"),
                ticket_seconds: orchestrator.0.ticket_seconds.load(Ordering::SeqCst),
                by_canary_share: orchestrator.0.by_share.load(Ordering::SeqCst),
            })
            .into_response()
        }
        None => unavailable("no-node", "No media node is serving; start one.", "3"),
    }
}

fn unavailable(kind: &str, detail: &str, retry_after: &'static str) -> Response {
    let problem = Problem::new(503, kind, "Unavailable", detail);
    (
        StatusCode::SERVICE_UNAVAILABLE,
        [(RETRY_AFTER, retry_after)],
        Json(problem),
    )
        .into_response()
}

async fn report(
    State(orchestrator): State<FakeOrchestrator>,
    Path(node): Path<NodeId>,
    Json(report): Json<ReportNode>,
) -> Json<Verdict> {
    let verdict = *orchestrator.0.verdict.lock().unwrap();
    orchestrator.0.reports.lock().unwrap().push((node, report));
    orchestrator.0.reported.notify_waiters();
    Json(verdict)
}

async fn outcomes(
    State(orchestrator): State<FakeOrchestrator>,
    headers: HeaderMap,
    Json(report): Json<ReportOutcomes>,
) -> StatusCode {
    if headers.get(AUTHORIZATION).unwrap() != format!("Bearer {SECRET}").as_str() {
        return StatusCode::UNAUTHORIZED;
    }
    let told = report.nodes.iter();
    let told = told.fold(Tally::default(), |sum, node| sum.plus(node.joins));
    orchestrator.0.outcomes.send_modify(|sum| *sum = sum.plus(told));
    StatusCode::NO_CONTENT
}
