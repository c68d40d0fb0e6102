//! Keeps the node registered: carries out over HTTP what [`crate::tenure`] says, and tells it what came of it.
//!
//! It must not know what an answer means for the lease.

use std::future::Future;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reqwest::StatusCode;
use signalbox_protocol::Epoch;
use signalbox_protocol::canary::Tally;
use signalbox_protocol::node::{Heartbeat, NodeLoad, RegisterNode, Release};
use tokio::time::{Duration, sleep};
use tokio_util::sync::CancellationToken;

use crate::counters::Counters;
use crate::lease::Boottime;
use crate::load::LoadMeter;
use crate::node::Node;
use crate::orchestrators::CallError;
use crate::tenure::{Action, Answer, Ask, Lost, Note, Promises, Question, Tenure};
use crate::{Error, closing};

/// How long the farewell may take at one orchestrator.
const RELEASE: Duration = Duration::from_secs(1);

/// How many reasons are logged before nothing is logged until something else happens. Higher: more to read. Lower: the one that
/// matters may be left out.
const MAX_REASONS: usize = 8;

/// Registers and renews until `stop`. The lease is left as it is then, for [`release`].
///
/// # Errors
/// [`Error::Refused`].
pub async fn run(
    node: Arc<Node>,
    announcement: RegisterNode,
    promises: Promises,
    stop: CancellationToken,
) -> Result<(), Error> {
    let lease = Arc::clone(&node.lease);
    let mut tenure = Tenure::new(lease, node.orchestrators.len(), promises, rand::random());
    let mut round = Round::new(&node);
    let mut log = Log::default();
    // The requests that are under way, all of one round.
    let mut calls = FuturesUnordered::new();
    loop {
        while let Some(action) = tenure.poll_action(Boottime::now()) {
            match action {
                Action::Ask(ask) => {
                    if round.begin(&node, ask.round) {
                        calls.clear();
                    }
                    calls.push(call(&node, &announcement, ask, round.load));
                }
                Action::Fence { epoch, why } => {
                    match why {
                        Lost::Over => {
                            tracing::warn!(%epoch, "the orchestrator has ended the epoch; all rooms are closed")
                        }
                        Lost::Expired => {
                            tracing::error!(%epoch, "the lease could not be renewed in time; all rooms are closed");
                        }
                    }
                    Counters::add(&node.counters.fenced);
                    node.fence().await;
                }
                Action::Close(stale) => {
                    // Not awaited: the lease does not wait for a shard.
                    let node = Arc::clone(&node);
                    tokio::spawn(async move { closing::close_stale(&node, &stale).await });
                }
                Action::GiveUp(why) => return Err(Error::Refused(why)),
                Action::Note(note) => {
                    if let Note::Registered(held) = &note {
                        node.told_epoch.send_replace(Some(held.epoch));
                        node.rooms.set_cluster(held.cluster);
                    }
                    log.note(&node, note);
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some((ask, answer)) = calls.next() => {
                if matches!(&answer, Answer::Registered(_) | Answer::Renewed(_)) {
                    node.orchestrators.prefer(ask.orchestrator);
                }
                tenure.handle_answer(Boottime::now(), &ask, answer);
            }
            () = wait_until(tenure.poll_timeout()) => {}
        }
    }
}

/// Ends the epoch at the orchestrator, so that it does not wait for the lease to run out. The rooms must be closed before.
pub async fn release(node: &Node, epoch: Epoch) {
    let id = node.id.to_string();
    for _ in 0..node.orchestrators.len() {
        let told = node
            .orchestrators
            .tell(&["v1", "nodes", &id, "release"], &Release { epoch }, RELEASE)
            .await;
        match told {
            Ok(()) => {
                node.told_epoch.send_replace(None);
                return;
            }
            Err(error) => tracing::debug!(%epoch, %error, "an orchestrator could not be told that the node goes"),
        }
    }
    tracing::warn!(%epoch, "no orchestrator could be told that the node goes; its rooms are free when the lease runs out");
}

/// What a request says.
enum Body {
    Register(RegisterNode),
    Beat(Heartbeat),
}

/// Sends one request. Its body is made now, and the answer is waited for as long as it says.
fn call(node: &Node, announcement: &RegisterNode, ask: Ask, load: NodeLoad) -> impl Future<Output = (Ask, Answer)> {
    let id = node.id.to_string();
    let body = match ask.question {
        Question::Register { after } => Body::Register(RegisterNode {
            after,
            ..announcement.clone()
        }),
        Question::Beat { epoch, beat, rooms } => Body::Beat(Heartbeat {
            epoch,
            beat,
            load,
            rooms: rooms.then(|| node.rooms.digests()),
            connections: connections(node),
        }),
    };
    let orchestrators = &node.orchestrators;
    async move {
        let (index, within) = (ask.orchestrator, ask.within);
        let answer = match body {
            Body::Register(announcement) => orchestrators
                .call_one(index, &["v1", "nodes"], &announcement, within)
                .await
                .map_or_else(failed, Answer::Registered),
            Body::Beat(heartbeat) => orchestrators
                .call_one(index, &["v1", "nodes", &id, "heartbeat"], &heartbeat, within)
                .await
                .map_or_else(failed, Answer::Renewed),
        };
        (ask, answer)
    }
}

/// What came of clients' connections since the process began.
fn connections(node: &Node) -> Tally {
    let core = node.total().core;
    Tally {
        ok: core.connections_up,
        failed: core.connections_failed,
    }
}

fn failed(error: CallError) -> Answer {
    match error {
        CallError::Status {
            status,
            epoch: Some(epoch),
            ..
        } if status == StatusCode::CONFLICT => Answer::Behind(epoch),
        CallError::Status { status, .. } if status == StatusCode::CONFLICT => Answer::Past,
        CallError::Status { status, .. } if status == StatusCode::GONE => Answer::Over,
        CallError::Status { status, detail, .. } if status == StatusCode::BAD_REQUEST => Answer::Refused(detail),
        error => Answer::Failed(error.to_string()),
    }
}

async fn wait_until(due: Option<Boottime>) {
    match due {
        // In a suspended machine this clock stands still and the lease's goes on: whoever waits asks the lease afterwards.
        Some(due) => sleep(due.since(Boottime::now())).await,
        None => std::future::pending().await,
    }
}

/// What the requests of a round have in common.
struct Round {
    number: u64,
    load: NodeLoad,
    meter: LoadMeter,
}

impl Round {
    fn new(node: &Node) -> Self {
        Self {
            number: 0,
            load: NodeLoad::default(),
            meter: LoadMeter::new(node),
        }
    }

    /// Whether this is a new one.
    fn begin(&mut self, node: &Node, number: u64) -> bool {
        let new = number != self.number;
        if new {
            self.number = number;
            self.load = self.meter.load(node);
        }
        new
    }
}

/// Counts what happens, and tells of changes, once each.
#[derive(Debug, Default)]
struct Log {
    last: Option<Standing>,
    /// The reasons that were told since then.
    told: Vec<String>,
}

/// How the node stands with the orchestrators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Unregistered,
    Renewed,
    Promised,
    Missed,
}

impl Log {
    fn note(&mut self, node: &Node, note: Note) {
        let counters = &node.counters;
        match note {
            Note::Registered(held) => {
                Counters::add(&counters.registrations);
                self.turns(Standing::Renewed);
                tracing::info!(node = %node.id, epoch = %held.epoch, "registered with the orchestrator");
            }
            Note::NotRegistered(why) => {
                if self.is_news(Standing::Unregistered, &why) {
                    tracing::warn!(why, "cannot register with the orchestrator; trying until it works");
                }
            }
            Note::Renewed => {
                if self.turns(Standing::Renewed) {
                    tracing::info!("the lease is renewed again");
                }
            }
            Note::Promised => {
                Counters::add(&counters.heartbeats_promised);
                if self.turns(Standing::Promised) {
                    tracing::warn!("the orchestrators' database is away; their promises keep the lease");
                }
            }
            Note::Missed(why) => {
                Counters::add(&counters.heartbeats_failed);
                if self.is_news(Standing::Missed, &why) {
                    tracing::warn!(why, "a heartbeat failed");
                }
            }
        }
    }

    fn turns(&mut self, to: Standing) -> bool {
        let turns = self.last.replace(to) != Some(to);
        if turns {
            self.told.clear();
        }
        turns
    }

    /// Several orchestrators may fail in several ways.
    fn is_news(&mut self, to: Standing, why: &str) -> bool {
        let news = self.turns(to) || (self.told.len() < MAX_REASONS && self.told.iter().all(|told| told != why));
        if news {
            self.told.push(why.to_owned());
        }
        news
    }
}
