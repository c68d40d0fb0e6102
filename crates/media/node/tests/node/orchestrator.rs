//! The fake orchestrator.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{post, put};
use axum::{Json, Router};
use signalbox_protocol::node::{
    Drain, DrainNode, DrainState, Heartbeat, RegisterNode, Registered, Release, Renewed, RoomDigest,
};
use signalbox_protocol::placement::{CloseRoom, RoomClosed};
use signalbox_protocol::problem::Problem;
use signalbox_protocol::{ClusterId, Epoch, Generation, NodeId};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cluster::{PATIENCE, SECRET};

/// The cluster that the fake orchestrators are of.
pub static CLUSTER: LazyLock<ClusterId> = LazyLock::new(ClusterId::random);

/// What the fake orchestrator does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Answer,
    /// Heartbeats of epochs so far are answered with 410.
    Gone,
    /// Nothing is answered.
    Silent,
    /// Drains cannot be begun at present: 503.
    NoDrains,
    /// Room closings fail with 503 after they have taken effect.
    LoseClosings,
    /// The database is away: heartbeats are answered with promises.
    Promise,
    /// Heartbeats have been overtaken: 409.
    Past,
    /// Registrations are refused for good: 400.
    BadRequest,
    /// The secret is not accepted: 401.
    Unauthorized,
}

/// What [`Mode::BadRequest`] answers.
pub const BAD_REQUEST: &str = "The media address 10.0.0.7 is private; give a public one.";

/// What it was told.
#[derive(Debug, Clone, Default)]
pub struct Log {
    pub registrations: Vec<(RegisterNode, Epoch)>,
    pub heartbeats: Vec<Heartbeat>,
    pub closings: Vec<(String, CloseRoom)>,
    pub released: Vec<Epoch>,
    pub drains: Vec<DrainNode>,
}

struct Shared {
    mode: Mutex<Mode>,
    lease: Duration,
    /// What the next heartbeat is answered with, besides the lease.
    next: Mutex<Option<Renewed>>,
    /// How the drain stands; none: it knows no drains.
    drain: Mutex<Option<Drain>>,
    log: watch::Sender<Log>,
}

/// The fake orchestrator.
pub struct Orchestrator {
    pub url: String,
    shared: Arc<Shared>,
    _server: DropGuard,
}

impl Orchestrator {
    pub async fn start(lease: Duration) -> Self {
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Answer),
            lease,
            next: Mutex::default(),
            drain: Mutex::default(),
            log: watch::Sender::new(Log::default()),
        });
        let router = Router::new()
            .route("/v1/nodes", post(register))
            .route("/v1/nodes/{node}/heartbeat", post(heartbeat))
            .route("/v1/nodes/{node}/release", post(release))
            .route("/v1/nodes/{node}/drain", put(begin_drain).get(look_at_drain))
            .route("/v1/rooms/{room}/close", post(close))
            .with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let serve = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        tokio::spawn(async move { serve.await });
        Self {
            url,
            shared,
            _server: stop.drop_guard(),
        }
    }

    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    /// The next heartbeat's answer wants the rooms, and calls these stale.
    pub fn answer_once(&self, rooms_wanted: bool, stale: &[(&str, u64)]) {
        let stale = stale.iter().map(|(room, generation)| RoomDigest {
            room: room.parse().unwrap(),
            generation: Generation(*generation),
        });
        *self.shared.next.lock().unwrap() = Some(Renewed {
            rooms_wanted,
            stale: stale.collect(),
            ..self.shared.renewed()
        });
    }

    /// Drains stand like this.
    pub fn set_drain(&self, state: DrainState, rooms_left: u64, stuck: u64) {
        *self.shared.drain.lock().unwrap() = Some(Drain {
            node: NodeId::random(),
            epoch: Epoch(1),
            state,
            rooms: 1,
            rooms_left,
            stuck,
            rate: 5.0,
            eta_ms: None,
            deadline_ms: None,
            age_ms: 0,
            by: String::new(),
        });
    }

    /// What it was told so far.
    pub fn log(&self) -> Log {
        self.shared.log.borrow().clone()
    }

    /// Waits until what it was told is like this.
    pub async fn told(&self, what: &str, like: impl Fn(&Log) -> bool) -> Log {
        let mut log = self.shared.log.subscribe();
        let wait = log.wait_for(|log| like(log));
        tokio::time::timeout(PATIENCE, wait).await.expect(what).unwrap().clone()
    }
}

impl Shared {
    fn renewed(&self) -> Renewed {
        Renewed {
            lease_ms: self.lease.as_millis() as u64,
            promised: false,
            rooms_wanted: false,
            stale: Vec::new(),
        }
    }
}

async fn enter(shared: &Shared, headers: &HeaderMap) -> Mode {
    assert_eq!(headers["authorization"], format!("Bearer {SECRET}"));
    let mode = *shared.mode.lock().unwrap();
    if mode == Mode::Silent {
        std::future::pending::<()>().await;
    }
    mode
}

fn problem(status: StatusCode, detail: &str) -> Response {
    (
        status,
        Json(Problem::new(status.as_u16(), "of-the-test", "Problem", detail)),
    )
        .into_response()
}

async fn register(State(shared): State<Arc<Shared>>, headers: HeaderMap, Json(body): Json<RegisterNode>) -> Response {
    let mode = enter(&shared, &headers).await;
    let mut epoch = Epoch(0);
    shared.log.send_modify(|log| {
        epoch = Epoch(log.registrations.len() as u64 + 1);
        log.registrations.push((body, epoch));
    });
    match mode {
        Mode::BadRequest => problem(StatusCode::BAD_REQUEST, BAD_REQUEST),
        Mode::Unauthorized => problem(StatusCode::UNAUTHORIZED, "Send the cluster secret."),
        _ => Json(Registered {
            epoch,
            cluster: *CLUSTER,
            lease_ms: shared.lease.as_millis() as u64,
            heartbeat_ms: 50,
        })
        .into_response(),
    }
}

async fn heartbeat(State(shared): State<Arc<Shared>>, headers: HeaderMap, Json(body): Json<Heartbeat>) -> Response {
    let mode = enter(&shared, &headers).await;
    shared.log.send_modify(|log| log.heartbeats.push(body));
    match mode {
        Mode::Gone => {
            *shared.mode.lock().unwrap() = Mode::Answer;
            StatusCode::GONE.into_response()
        }
        Mode::Past => StatusCode::CONFLICT.into_response(),
        mode => {
            let next = shared.next.lock().unwrap().take();
            Json(Renewed {
                promised: mode == Mode::Promise,
                ..next.unwrap_or_else(|| shared.renewed())
            })
            .into_response()
        }
    }
}

async fn release(State(shared): State<Arc<Shared>>, headers: HeaderMap, Json(body): Json<Release>) -> StatusCode {
    enter(&shared, &headers).await;
    shared.log.send_modify(|log| log.released.push(body.epoch));
    StatusCode::NO_CONTENT
}

async fn begin_drain(State(shared): State<Arc<Shared>>, headers: HeaderMap, Json(body): Json<DrainNode>) -> Response {
    let mode = enter(&shared, &headers).await;
    shared.log.send_modify(|log| log.drains.push(body));
    match mode {
        Mode::NoDrains => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ => drain(&shared),
    }
}

async fn look_at_drain(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    enter(&shared, &headers).await;
    drain(&shared)
}

fn drain(shared: &Shared) -> Response {
    match shared.drain.lock().unwrap().clone() {
        Some(drain) => Json(drain).into_response(),
        None => problem(StatusCode::NOT_FOUND, "There is nothing here."),
    }
}

async fn close(
    State(shared): State<Arc<Shared>>,
    Path(room): Path<String>,
    headers: HeaderMap,
    Json(body): Json<CloseRoom>,
) -> Response {
    let mode = enter(&shared, &headers).await;
    let mut first = false;
    shared.log.send_modify(|log| {
        first = log.closings.iter().all(|(known, _)| *known != room);
        log.closings.push((room, body));
    });
    match mode {
        Mode::LoseClosings => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ => Json(RoomClosed { closed: first }).into_response(),
    }
}
