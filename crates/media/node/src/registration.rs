//! Keeps the node registered: asks for an epoch, renews its lease, and gives up all rooms when it cannot.
//!
//! **The node stops first.** The orchestrator moves a node's rooms once the lease has run out; so the node counts the lease from the
//! moment that it *sent* the request, which is before the orchestrator counted, takes a margin off, and closes its rooms
//! ([`CloseReason::NodeGone`](signalbox_protocol::control::CloseReason::NodeGone)) when that deadline passes. The shards check it
//! by themselves as well ([`crate::lease`]), in case this task is late.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use signalbox_protocol::Epoch;
use signalbox_protocol::placement::{Heartbeat, NodeLoad, RegisterNode, Registered, Release, Renewed};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::counters::Counters;
use crate::lease::Boottime;
use crate::node::Node;
use crate::orchestrators::{Backoff, CallError};

/// What is taken off the lease, as its tenth part. Higher: more time to close the rooms before they are placed elsewhere.
/// Lower: fewer rooms are lost to short outages.
const MARGIN: u32 = 10;

/// How long a registration may take. Higher: slow answers are waited for. Lower: a dead orchestrator is left sooner.
const REGISTER: Duration = Duration::from_secs(2);

/// How long the farewell may take.
const RELEASE: Duration = Duration::from_secs(1);

/// The shortest time between two heartbeats, whatever the orchestrator says.
const MIN_HEARTBEAT: Duration = Duration::from_millis(20);

/// Why an epoch ended.
#[derive(Debug)]
enum Ended {
    Stop,
    /// The orchestrator said so.
    Gone,
    /// The deadline passed.
    Expired,
}

/// Registers and renews until `stop`. The lease is left as it is then, for [`release`].
pub async fn run(node: Arc<Node>, announcement: RegisterNode, stop: CancellationToken) {
    loop {
        let Some(registered) = stop.run_until_cancelled(register(&node, &announcement)).await else {
            return;
        };
        let epoch = registered.epoch;
        tracing::info!(node = %node.id, %epoch, "registered with the orchestrator");
        let ended = tokio::select! {
            () = stop.cancelled() => Ended::Stop,
            ended = renew(&node, &registered) => ended,
        };
        match ended {
            Ended::Stop => return,
            Ended::Gone => tracing::warn!(%epoch, "the orchestrator has ended the epoch; all rooms are closed"),
            Ended::Expired => tracing::error!(%epoch, "the lease could not be renewed in time; all rooms are closed"),
        }
        Counters::add(&node.counters.fenced);
        node.fence().await;
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
            Ok(()) => return,
            Err(error) => tracing::debug!(%epoch, %error, "an orchestrator could not be told that the node goes"),
        }
    }
    tracing::warn!(%epoch, "no orchestrator could be told that the node goes; its rooms are free when the lease runs out");
}

/// Asks for an epoch until there is one.
async fn register(node: &Node, announcement: &RegisterNode) -> Registered {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut failing = false;
    loop {
        let answer = node
            .orchestrators
            .call::<Registered>(&["v1", "nodes"], announcement, REGISTER)
            .await;
        let why = match answer {
            Ok(answer) => {
                let lease = Duration::from_millis(answer.body.lease_ms);
                let deadline = answer.sent.after(lease - lease / MARGIN);
                if node.lease.grant(answer.body.epoch, deadline, Boottime::now()) {
                    Counters::add(&node.counters.registrations);
                    return answer.body;
                }
                "the lease had run out when it arrived".to_owned()
            }
            Err(error) => error.to_string(),
        };
        if !failing {
            failing = true;
            tracing::warn!(why, "cannot register with the orchestrator; trying until it works");
        }
        sleep(backoff.next()).await;
    }
}

/// Renews the lease until it is lost.
async fn renew(node: &Node, registered: &Registered) -> Ended {
    let lease = Duration::from_millis(registered.lease_ms);
    let interval = Duration::from_millis(registered.heartbeat_ms)
        .min(lease / 2)
        .max(MIN_HEARTBEAT);
    // Several attempts must fit into a lease.
    let attempt = (lease / 4).max(MIN_HEARTBEAT);
    let mut meter = Meter::new(node);
    let mut failing = false;
    loop {
        // The lease does not wait for a timer of a clock that stands still in suspend: it is asked each time.
        let remaining = node.lease.remaining(Boottime::now());
        if remaining.is_zero() {
            return Ended::Expired;
        }
        sleep(interval.min(remaining)).await;
        let heartbeat = Heartbeat {
            epoch: registered.epoch,
            load: meter.load(node),
            rooms: node.rooms.digests(),
        };
        let remaining = node.lease.remaining(Boottime::now());
        let beat = tokio::time::timeout(remaining, beat(node, &heartbeat, attempt));
        let why = match beat.await {
            Ok(Ok(())) => {
                if failing {
                    failing = false;
                    tracing::info!(epoch = %registered.epoch, "heartbeats are answered again");
                }
                continue;
            }
            Ok(Err(CallError::Status(StatusCode::GONE))) => return Ended::Gone,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer before the lease ran out".to_owned(),
        };
        Counters::add(&node.counters.heartbeats_failed);
        if !failing {
            failing = true;
            tracing::warn!(epoch = %registered.epoch, why, "a heartbeat failed");
        }
    }
}

/// One heartbeat, with each orchestrator until one takes it.
async fn beat(node: &Node, heartbeat: &Heartbeat, attempt: Duration) -> Result<(), CallError> {
    let id = node.id.to_string();
    let mut last = CallError::Unanswered;
    for _ in 0..node.orchestrators.len() {
        let answer = node
            .orchestrators
            .call::<Renewed>(&["v1", "nodes", &id, "heartbeat"], heartbeat, attempt)
            .await;
        match answer {
            Ok(answer) => {
                let lease = Duration::from_millis(answer.body.lease_ms);
                let deadline = answer.sent.after(lease - lease / MARGIN);
                // When it came too late, the next look at the lease says so.
                node.lease.renew(heartbeat.epoch, deadline, Boottime::now());
                return Ok(());
            }
            Err(gone @ CallError::Status(StatusCode::GONE)) => return Err(gone),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Packets per second between two heartbeats.
struct Meter {
    at: Instant,
    sent: u64,
}

impl Meter {
    fn new(node: &Node) -> Self {
        Self {
            at: Instant::now(),
            sent: node.total().socket.sent,
        }
    }

    fn load(&mut self, node: &Node) -> NodeLoad {
        let now = Instant::now();
        let total = node.total();
        let elapsed = now.duration_since(self.at).as_secs_f64().max(0.001);
        let sent = total.socket.sent.saturating_sub(self.sent);
        *self = Self {
            at: now,
            sent: total.socket.sent,
        };
        NodeLoad {
            rooms: u32::try_from(node.rooms.len()).unwrap_or(u32::MAX),
            participants: u32::try_from(total.core.participants).unwrap_or(u32::MAX),
            packets_per_second: (sent as f64 / elapsed) as u64,
        }
    }
}
