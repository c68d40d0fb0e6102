//! Joins that go on while something breaks, and what came of them.
//!
//! They are joins without an offer: gateway, orchestrator and node take part in them, and no media. One begins at each tick, whether
//! those before have ended or not, so that an outage shows as what it is.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::Value;
use signalbox_protocol::room::MediaAddress;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::client::join_url;
use crate::cluster::token;

/// How long one join may take. Higher than what any server waits for.
const LIMIT: Duration = Duration::from_secs(20);

/// What came of a join.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It was let in.
    Joined(MediaAddress),
    /// 503, and after how many seconds to try again.
    Refused(u64),
    /// Anything else.
    Failed(String),
}

/// One join.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// When it began.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
    /// What came of it.
    pub outcome: Outcome,
}

/// Joins a room without an offer.
pub async fn join(http: &reqwest::Client, gateway: &str, room: &str, identity: &str) -> Attempt {
    let at = Instant::now();
    let request = http
        .post(join_url(gateway, room))
        .bearer_auth(token(room, identity))
        .timeout(LIMIT);
    let outcome = match request.send().await {
        Ok(response) => outcome(response).await,
        Err(error) => Outcome::Failed(format!("{:#}", anyhow::Error::new(error))),
    };
    Attempt {
        at,
        took: at.elapsed(),
        outcome,
    }
}

async fn outcome(response: reqwest::Response) -> Outcome {
    let status = response.status();
    let after = response
        .headers()
        .get("retry-after")
        .and_then(|after| after.to_str().ok()?.parse().ok());
    let body = response.text().await.unwrap_or_default();
    match (status, after) {
        (StatusCode::OK, _) => {
            let media = serde_json::from_str::<Value>(&body)
                .ok()
                .and_then(|body| serde_json::from_value(body["media"].clone()).ok());
            media.map_or_else(|| Outcome::Failed(body), Outcome::Joined)
        }
        (StatusCode::SERVICE_UNAVAILABLE, Some(after)) => Outcome::Refused(after),
        _ => Outcome::Failed(format!("{status}: {body}")),
    }
}

/// Joins under way.
#[derive(Debug)]
pub struct Load {
    stop: CancellationToken,
    attempts: JoinHandle<Vec<Attempt>>,
}

impl Load {
    /// A join at each tick, through the gateways in turn, of the room that `room` names for its number.
    pub fn start(gateways: Vec<String>, tick: Duration, room: impl Fn(usize) -> String + Send + 'static) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let attempts = tokio::spawn(async move {
            let http = reqwest::Client::new();
            let gateways = Arc::new(gateways);
            let mut under_way = JoinSet::new();
            let mut ticks = tokio::time::interval(tick);
            for number in 0.. {
                if stopped.run_until_cancelled(ticks.tick()).await.is_none() {
                    break;
                }
                let (http, gateways, room) = (http.clone(), gateways.clone(), room(number));
                under_way.spawn(async move {
                    let gateway = &gateways[number % gateways.len()];
                    join(&http, gateway, &room, &format!("guest-{number}")).await
                });
            }
            let mut attempts = under_way.join_all().await;
            attempts.sort_by_key(|attempt| attempt.at);
            attempts
        });
        Self { stop, attempts }
    }

    /// Begins no more joins, and waits for those under way.
    ///
    /// # Panics
    /// When one of them panicked.
    pub async fn stop(self) -> Vec<Attempt> {
        self.stop.cancel();
        self.attempts.await.expect("no join panics")
    }
}

/// Joins, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Let in.
    pub joined: usize,
    /// 503 with Retry-After.
    pub refused: usize,
    /// Anything else.
    pub failed: usize,
    /// How long the slowest took.
    pub slowest: Duration,
    /// What went wrong, each once.
    pub failures: BTreeSet<String>,
}

impl Tally {
    /// Counts the joins that began at this time or later, and before that.
    pub fn of<'a>(attempts: impl IntoIterator<Item = &'a Attempt>, from: Instant, to: Instant) -> Self {
        let mut tally = Self::default();
        for attempt in attempts.into_iter().filter(|attempt| (from..to).contains(&attempt.at)) {
            tally.slowest = tally.slowest.max(attempt.took);
            match &attempt.outcome {
                Outcome::Joined(_) => tally.joined += 1,
                Outcome::Refused(_) => tally.refused += 1,
                Outcome::Failed(why) => {
                    tally.failed += 1;
                    tally.failures.insert(why.clone());
                }
            }
        }
        tally
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            joined,
            refused,
            failed,
            slowest,
            ..
        } = self;
        let slowest = slowest.as_millis();
        write!(
            f,
            "{joined:>6} joined {refused:>6} refused {failed:>6} failed, slowest {slowest:>6} ms"
        )
    }
}
