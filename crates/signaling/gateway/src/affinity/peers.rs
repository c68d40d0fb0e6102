//! The other gateways: where they are, and which of them take clients at present.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use futures_util::future::join_all;
use reqwest::{Client, Response, Url};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::config::PeerUrl;
use super::pass::Passes;
use crate::metrics::Metrics;
use crate::problem::ApiError;

/// How often each is asked whether it takes clients, and how long it may take to say so. Higher: clients wait longer for one that is gone. Lower: more requests, and
/// one that is only busy counts as gone.
const PERIOD: Duration = Duration::from_secs(1);

/// How many times in a row it may fail to say so. Higher: clients wait longer for one that is gone. Lower: one that is only busy counts as gone.
const FAILURES: u32 = 2;

/// How long a connection to one may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// How long one may take to answer what a client has asked: as long as a join may take, and a little more.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(11);

/// How long a connection to one may be silent before the system asks for a sign of life.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// All other gateways.
#[derive(Debug)]
pub(super) struct Peers {
    client: Client,
    peers: Vec<Peer>,
}

#[derive(Debug)]
struct Peer {
    name: String,
    url: Url,
    is_up: AtomicBool,
}

impl Peers {
    /// Those of the list but for ourselves. None counts as up until it has said so.
    ///
    /// # Errors
    /// [`ApiError::Start`] if there can be no client for them.
    pub(super) fn new(own: &str, peers: &[PeerUrl]) -> Result<Self, ApiError> {
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(KEEPALIVE)
            .http1_only()
            // Between gateways there is no proxy, whatever the environment says.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| ApiError::Start(format!("no HTTP client: {error}")))?;
        let others = peers.iter().filter(|peer| peer.name != own);
        let peer = |PeerUrl { name, url }: &PeerUrl| Peer {
            name: name.clone(),
            url: url.clone(),
            is_up: AtomicBool::new(false),
        };
        Ok(Self {
            client,
            peers: others.map(peer).collect(),
        })
    }

    /// The names of those that take clients.
    pub(super) fn up(&self) -> impl Iterator<Item = &str> {
        let up = self.peers.iter().filter(|peer| peer.is_up.load(Ordering::Relaxed));
        up.map(|peer| peer.name.as_str())
    }

    /// It takes clients or not, until it says otherwise.
    pub(super) fn mark(&self, name: &str, is_up: bool) {
        if let Some(peer) = self.named(name) {
            peer.is_up.store(is_up, Ordering::Relaxed);
        }
    }

    /// Asks one for what a client has asked.
    ///
    /// # Errors
    /// Why it has not answered.
    pub(super) async fn get(&self, name: &str, path: &str, headers: HeaderMap) -> Result<Response, String> {
        let peer = self.named(name).ok_or("there is no such gateway")?;
        let url = peer.url.join(path).map_err(|error| error.to_string())?;
        let request = self.client.get(url).headers(headers);
        let answered = timeout(ANSWER_TIMEOUT, request.send()).await;
        let answered = answered.map_err(|_| "it does not answer".to_owned())?;
        // The URL holds a token.
        answered.map_err(|error| error.without_url().to_string())
    }

    fn named(&self, name: &str) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.name == name)
    }

    /// Asks them until `ended`.
    pub(super) async fn watch(&self, passes: &Passes, metrics: &Metrics, ended: CancellationToken) {
        let watch = self.peers.iter().map(|peer| self.watch_one(peer, passes, metrics));
        ended.run_until_cancelled(join_all(watch)).await;
    }

    async fn watch_one(&self, peer: &Peer, passes: &Passes, metrics: &Metrics) {
        let mut beat = interval(PERIOD);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = 0;
        loop {
            beat.tick().await;
            let answer = timeout(PERIOD, self.ask(peer, passes)).await;
            let (is_ready, why) = match answer {
                Ok(Ok(StatusCode::OK)) => (true, String::new()),
                Ok(Ok(status)) => (false, status.to_string()),
                Ok(Err(why)) => (false, why),
                Err(_) => (false, "it does not answer".to_owned()),
            };
            failures = if is_ready { 0 } else { failures + 1 };
            let was_up = peer.is_up.load(Ordering::Relaxed);
            if is_ready && !was_up {
                tracing::info!(gateway = peer.name, "another gateway takes clients");
                peer.is_up.store(true, Ordering::Relaxed);
            } else if failures == FAILURES {
                tracing::warn!(gateway = peer.name, why, "another gateway takes no clients");
                peer.is_up.store(false, Ordering::Relaxed);
            }
            metrics.peers_up.set(self.up().count() as i64);
        }
    }

    async fn ask(&self, peer: &Peer, passes: &Passes) -> Result<StatusCode, String> {
        let mut headers = HeaderMap::new();
        headers.insert(super::pass::HEADER, passes.probe(&peer.name).ok_or("no pass")?);
        headers.insert(axum::http::header::CONNECTION, HeaderValue::from_static("close"));
        Ok(self.get(&peer.name, "/readyz", headers).await?.status())
    }
}
