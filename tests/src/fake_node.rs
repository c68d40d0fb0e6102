//! A media node without media: it registers, renews its lease, says which rooms it hosts, and answers which epoch it holds. Many fit
//! into one process. It hosts what a test tells it to; rooms that the orchestrators call stale, and all of them when its epoch ends,
//! it closes, as a real node does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use reqwest::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use signalbox_protocol::node::{EpochHeld, Heartbeat, NodeLoad, RegisterNode, Registered, Renewed, RoomDigest};
use signalbox_protocol::placement::Track;
use signalbox_protocol::problem::Problem;
use signalbox_protocol::{Epoch, Generation, NodeId, RoomName};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::cluster::CLUSTER_SECRET;
use crate::until;

/// How long one call may take. Several fit into a lease of two seconds.
const ATTEMPT: Duration = Duration::from_millis(500);

/// What a node knows of itself.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The epoch that it holds.
    pub epoch: Option<Epoch>,
    /// The rooms that it hosts.
    pub rooms: BTreeMap<RoomName, Generation>,
    /// Rooms that it had to close because the orchestrators said that they are not its own.
    pub stale: Vec<RoomDigest>,
    /// How often it has registered.
    pub registrations: u64,
    /// How often an orchestrator ended its epoch.
    pub fenced: u64,
    /// How often its lease ran out.
    pub expired: u64,
    /// Heartbeats that were answered with a promise instead of a renewal.
    pub promised: u64,
    /// Heartbeats that named its rooms.
    pub digests: u64,
}

/// A node. Dropping it silences it without a word, as a crashed one.
#[derive(Debug)]
pub struct FakeNode {
    /// Who.
    pub id: NodeId,
    view: watch::Sender<View>,
    restart: Arc<Notify>,
    beats: JoinHandle<()>,
    control: JoinHandle<()>,
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.beats.abort();
        self.control.abort();
    }
}

impl FakeNode {
    /// One that is registered with one of these orchestrators.
    ///
    /// # Panics
    /// When it cannot register.
    pub async fn start(orchestrators: &[String]) -> Self {
        Self::start_on(Track::Stable, orchestrators).await
    }

    /// The same on a track.
    ///
    /// # Panics
    /// When it cannot register.
    pub async fn start_on(track: Track, orchestrators: &[String]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let id = NodeId::random();
        let announcement = RegisterNode {
            node: id,
            after: Epoch(0),
            control: format!("ws://{}", listener.local_addr().expect("it is bound")),
            // Nobody sends media to it.
            media: vec!["127.0.0.1:9".parse().expect("an address")],
            region: String::new(),
            zone: String::new(),
            labels: BTreeMap::new(),
            track,
            capacity: 100_000,
            version: "0.1.0".to_owned(),
        };
        let view = watch::Sender::new(View::default());
        let restart = Arc::new(Notify::new());
        let (answering, renewing) = (view.clone(), view.clone());
        let app = axum::Router::new()
            .route("/v1/epoch", get(epoch))
            .with_state((id, answering));
        let control = tokio::spawn(async move {
            // It serves until the node is dropped.
            let _ = axum::serve(listener, app).await;
        });
        let beats = Beats {
            announcement,
            orchestrators: orchestrators.to_vec(),
            preferred: AtomicUsize::new(rand::random_range(0..orchestrators.len())),
            http: reqwest::Client::new(),
            view: renewing,
            restart: restart.clone(),
        };
        let node = Self {
            id,
            view,
            restart,
            control,
            beats: tokio::spawn(beats.run()),
        };
        node.until("registered", |view| view.epoch.is_some()).await;
        node
    }

    /// So many of them.
    ///
    /// # Panics
    /// When one cannot register.
    pub async fn start_many(count: usize, orchestrators: &[String]) -> Vec<Self> {
        futures_util::future::join_all((0..count).map(|_| Self::start(orchestrators))).await
    }

    /// What it knows.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Waits for a condition; see [`until`].
    pub async fn until(&self, what: &str, condition: impl FnMut(&View) -> bool) {
        until(&mut self.view.subscribe(), what, condition).await;
    }

    /// Hosts a room from now on.
    pub fn host(&self, room: RoomName, generation: Generation) {
        self.view.send_modify(|view| {
            view.rooms.insert(room, generation);
        });
    }

    /// Registers anew, without rooms, as one that was killed and started again.
    pub fn restart(&self) {
        self.restart.notify_one();
    }

    /// Answers nothing on its control listener any more, and refuses connections, while its lease goes on.
    pub fn close_control(&self) {
        self.control.abort();
    }
}

async fn epoch(State((node, view)): State<(NodeId, watch::Sender<View>)>) -> impl IntoResponse {
    let epoch = view.borrow().epoch;
    // No connection outlives its answer: once the listener is gone, nothing answers any more.
    ([(header::CONNECTION, "close")], Json(EpochHeld { node, epoch }))
}

/// Why a call had no use.
enum Failure {
    Gone,
    /// The node's epoch is another one than it registers after.
    Moved(Epoch),
    Other,
}

/// The task that keeps a node registered.
struct Beats {
    announcement: RegisterNode,
    orchestrators: Vec<String>,
    preferred: AtomicUsize,
    http: reqwest::Client,
    view: watch::Sender<View>,
    restart: Arc<Notify>,
}

impl Beats {
    async fn run(mut self) {
        loop {
            let sent = Instant::now();
            let registered = match self.call::<Registered>("", &self.announcement).await {
                Ok(registered) => registered,
                Err(Failure::Moved(epoch)) => {
                    self.announcement.after = epoch;
                    continue;
                }
                Err(Failure::Gone | Failure::Other) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            self.view.send_modify(|view| {
                view.epoch = Some(registered.epoch);
                view.registrations += 1;
            });
            let deadline = sent + Duration::from_millis(registered.lease_ms);
            let ended = tokio::select! {
                ended = self.renew(&registered, deadline) => Some(ended),
                () = self.restart.notified() => None,
            };
            self.view.send_modify(|view| {
                view.epoch = None;
                view.rooms.clear();
                match ended {
                    Some(Failure::Gone) => view.fenced += 1,
                    Some(Failure::Moved(_) | Failure::Other) => view.expired += 1,
                    None => {}
                }
            });
        }
    }

    /// Until the epoch is over, or the lease, which [`Failure::Other`] stands for.
    async fn renew(&self, registered: &Registered, mut deadline: Instant) -> Failure {
        let path = format!("/{}/heartbeat", self.announcement.node);
        let interval = Duration::from_millis(registered.heartbeat_ms);
        let mut wanted = false;
        for beat in 1.. {
            tokio::time::sleep(interval.min(deadline.saturating_duration_since(Instant::now()))).await;
            let hosted = self.view.borrow().rooms.clone();
            let digest = |(room, generation): (RoomName, Generation)| RoomDigest { room, generation };
            let load = NodeLoad {
                rooms: hosted.len() as u32,
                ..NodeLoad::default()
            };
            let rooms = wanted.then(|| hosted.into_iter().map(digest).collect());
            let heartbeat = Heartbeat {
                epoch: registered.epoch,
                beat,
                load,
                rooms,
                connections: Default::default(),
            };
            let sent = Instant::now();
            match self.call::<Renewed>(&path, &heartbeat).await {
                Ok(renewed) => {
                    deadline = sent + Duration::from_millis(renewed.lease_ms);
                    wanted = renewed.rooms_wanted;
                    self.view.send_modify(|view| {
                        view.promised += u64::from(renewed.promised);
                        view.digests += u64::from(heartbeat.rooms.is_some());
                        view.rooms.retain(|room, generation| {
                            !renewed
                                .stale
                                .iter()
                                .any(|stale| stale.room == *room && stale.generation == *generation)
                        });
                        view.stale.extend(renewed.stale);
                    });
                }
                Err(Failure::Gone) => return Failure::Gone,
                Err(Failure::Moved(_) | Failure::Other) => {}
            }
            if Instant::now() > deadline {
                return Failure::Other;
            }
        }
        Failure::Other
    }

    /// Asks the orchestrator that answered last, and the next one in turn when it does not answer.
    async fn call<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        for _ in 0..self.orchestrators.len() {
            let index = self.preferred.load(Ordering::Relaxed) % self.orchestrators.len();
            let url = format!("{}/v1/nodes{path}", self.orchestrators[index]);
            let request = self
                .http
                .post(url)
                .bearer_auth(CLUSTER_SECRET)
                .json(body)
                .timeout(ATTEMPT);
            match request.send().await {
                Ok(response) if response.status() == StatusCode::OK => match response.json().await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => tracing::warn!(%error, path, "an answer that cannot be read"),
                },
                Ok(response) if response.status() == StatusCode::GONE => return Err(Failure::Gone),
                Ok(response) if response.status() == StatusCode::CONFLICT => {
                    let epoch = response.json::<Problem>().await.ok().and_then(|problem| problem.epoch);
                    return Err(epoch.map_or(Failure::Other, Failure::Moved));
                }
                Ok(response) => tracing::debug!(status = %response.status(), path, "a fake node's call is refused"),
                Err(error) => tracing::debug!(%error, path, "a fake node's call fails"),
            }
            self.preferred.fetch_add(1, Ordering::Relaxed);
        }
        Err(Failure::Other)
    }
}
