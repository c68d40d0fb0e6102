//! Asks the orchestrators over HTTP: where a room is, and what they think of a node.
//!
//! Owns the requests, their deadlines and their retries; whom to ask is decided by [`crate::upstreams`]. Keeps no placement: see
//! [`crate::placements`].

mod call;
mod figures;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::{Client, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use signalbox_protocol::canary::ReportOutcomes;
use signalbox_protocol::node::{ReportNode, Verdict};
use signalbox_protocol::placement::{PlaceRoom, Placement};
use signalbox_protocol::{NodeId, Secret};
use signalbox_telemetry::{Kind, Span};
use tokio::time::Instant;

use self::call::{Call, Failed, call};
use crate::problem::ApiError;
use crate::upstreams::{Attempt, BreakerState, NoRetry, Outcome, Upstreams};

/// How long one orchestrator may take. Higher: a hanging one delays joins. Lower: a busy database looks like an outage.
const ATTEMPT_DEADLINE: Duration = Duration::from_secs(3);

/// How long a request may take in all, retries included. Lower than what a join may take, so that time is left for the node.
const REQUEST_DEADLINE: Duration = Duration::from_secs(7);

/// How many orchestrators are tried for one request. Higher: one that few of them can answer is answered more often. Lower: less load
/// when all fail.
const MAX_ATTEMPTS: usize = 3;

/// How long a TCP connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long it is remembered that an orchestrator could not reach the room map. During that time a room is asked for where it was known
/// before, since orchestrators answer for rooms that they remember. Higher: requests are spread less evenly after an outage. Lower: more retries during one.
const OUTAGE_MEMORY: Duration = Duration::from_secs(5);

/// A placement, and which orchestrator knew it.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) placement: Placement,
    /// To be named when the same room is asked for again.
    pub(crate) by: usize,
}

/// All orchestrators. They are equal.
#[derive(Debug)]
pub(crate) struct Orchestrators {
    client: Client,
    secret: Secret,
    upstreams: Vec<Upstream>,
    started: Instant,
    /// The one that answered last.
    heard: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Upstream {
    /// Ends with a slash.
    base: Url,
    /// For logs and metrics: without credentials.
    name: String,
}

#[derive(Debug)]
struct State {
    choice: Upstreams,
    /// An orchestrator could not reach the room map; until then it is taken to be away.
    outage_until: Duration,
}

impl Orchestrators {
    /// # Errors
    /// [`ApiError::Start`] for a URL that is not plain HTTP.
    pub(crate) fn new(urls: &[Url], secret: Secret) -> Result<Self, ApiError> {
        let mut upstreams: Vec<Upstream> = Vec::new();
        for url in urls {
            let upstream = Upstream::new(url)?;
            if !upstreams.iter().any(|other| other.base == upstream.base) {
                upstreams.push(upstream);
            }
        }
        if upstreams.is_empty() {
            return Err(ApiError::Start("--orchestrator must name at least one URL".into()));
        }
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // Between the tiers there is no proxy, whatever the environment says.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| ApiError::Start(format!("no HTTP client: {error}")))?;
        let state = State {
            choice: Upstreams::new(upstreams.len()),
            outage_until: Duration::ZERO,
        };
        Ok(Self {
            client,
            secret,
            upstreams,
            started: Instant::now(),
            heard: AtomicUsize::new(0),
            state: Mutex::new(state),
        })
    }

    /// Where the room is; it is placed if it is nowhere, unless it is only looked for. `knew` is the orchestrator that knew it the last time.
    ///
    /// # Errors
    /// [`ApiError::NoNode`] when no node can take it, [`ApiError::NoRoom`] when it is only looked for and nowhere, [`ApiError::OrchestratorUnavailable`] when no orchestrator can say.
    pub(crate) async fn place(&self, request: &PlaceRoom, knew: Option<usize>) -> Result<Placed, ApiError> {
        let (placement, by) = self.ask::<_, Placement>("v1/placements", request, knew).await?;
        if placement.room != request.room {
            tracing::error!(orchestrator = self.name(by), room = %request.room, "an orchestrator placed another room than was asked");
            return Err(ApiError::OrchestratorUnavailable);
        }
        Ok(Placed { placement, by })
    }

    /// Complains about a node.
    ///
    /// # Errors
    /// [`ApiError::OrchestratorUnavailable`] when no orchestrator can say anything about the node.
    pub(crate) async fn report(&self, node: NodeId, report: &ReportNode) -> Result<Verdict, ApiError> {
        let path = format!("v1/nodes/{node}/reports");
        Ok(self.ask(&path, report, None).await?.0)
    }

    /// Tells the one that answered last what came of joins, once: told twice it would count twice. It says nothing about that orchestrator if it does not
    /// take it; whoever asks where a room is finds out soon enough.
    pub(crate) async fn tell_outcomes(&self, report: &ReportOutcomes) {
        let Some(upstream) = self.upstreams.get(self.heard.load(Ordering::Relaxed)) else {
            return;
        };
        let request = Call {
            client: &self.client,
            secret: &self.secret,
            base: &upstream.base,
            path: "v1/outcomes",
            timeout: ATTEMPT_DEADLINE,
        };
        if !matches!(call::<_, ()>(&request, report).await, Ok(Ok(()))) {
            tracing::debug!(
                orchestrator = upstream.name,
                "an orchestrator does not take what came of joins"
            );
        }
    }

    /// Whether no orchestrator can be expected to answer.
    pub(crate) fn nobody_serves(&self) -> bool {
        self.state().choice.nobody_serves(self.now())
    }

    /// Their figures in the Prometheus text format.
    pub(crate) fn render(&self) -> String {
        let state = self.state();
        let names = self.upstreams.iter().map(|upstream| upstream.name.as_str());
        figures::render(names.zip(state.choice.views()), state.choice.budget_exhausted())
    }

    /// Asks one after another until one answers; also says which one that was. Whatever is asked may arrive more than once.
    async fn ask<B: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        knew: Option<usize>,
    ) -> Result<(A, usize), ApiError> {
        let deadline = Instant::now() + REQUEST_DEADLINE;
        let mut tried = Vec::new();
        let mut next = self.first(knew);
        while let Some(under_way) = next.take() {
            let index = under_way.upstream();
            let Some(upstream) = self.upstreams.get(index) else {
                break;
            };
            let now = Instant::now();
            let request = Call {
                client: &self.client,
                secret: &self.secret,
                base: &upstream.base,
                path,
                timeout: ATTEMPT_DEADLINE.min(deadline.saturating_duration_since(now)),
            };
            let span = Span::part(format!("POST /{path}"), Kind::Client);
            span.note("server.address", &upstream.name);
            let answer = span.run(call(&request, body)).await;
            if let Err(failed) = &answer {
                span.fail(failed);
            }
            drop(span);
            match answer {
                Ok(answer) => {
                    under_way.finish(Outcome::Success);
                    self.heard.store(index, Ordering::Relaxed);
                    return answer.map(|answer| (answer, index));
                }
                Err(failed) => {
                    self.log(upstream, under_way.is_trial(), &failed);
                    if failed == Failed::MapAway {
                        self.state().outage_until = self.now() + OUTAGE_MEMORY;
                    }
                    under_way.finish(Outcome::Failure);
                }
            }
            tried.push(index);
            if tried.len() < MAX_ATTEMPTS && Instant::now() < deadline {
                next = self.retry(&tried, knew);
            }
        }
        Err(ApiError::OrchestratorUnavailable)
    }

    fn first(&self, knew: Option<usize>) -> Option<UnderWay<'_>> {
        let now = self.now();
        let mut state = self.state();
        let prefer = knew.filter(|_| now < state.outage_until);
        let attempt = state.choice.first(prefer, now, &mut rand::rng())?;
        Some(UnderWay::new(self, attempt))
    }

    fn retry(&self, tried: &[usize], knew: Option<usize>) -> Option<UnderWay<'_>> {
        let now = self.now();
        let mut state = self.state();
        let prefer = knew.filter(|_| now < state.outage_until);
        match state.choice.retry(tried, prefer, now, &mut rand::rng()) {
            Ok(attempt) => Some(UnderWay::new(self, attempt)),
            Err(reason) => {
                if reason == NoRetry::Budget {
                    tracing::debug!("a request is not repeated: too many others were");
                }
                None
            }
        }
    }

    /// Loudly as long as requests are sent there; afterwards the breaker's change has been told, and the trials are its own business.
    fn log(&self, upstream: &Upstream, trial: bool, failed: &Failed) {
        let orchestrator = upstream.name.as_str();
        match failed {
            Failed::Refused { .. } | Failed::Unreadable { .. } => {
                tracing::error!(orchestrator, %failed, "an orchestrator cannot be used");
            }
            _ if trial || self.nobody_serves() => tracing::debug!(orchestrator, %failed, "an orchestrator still fails"),
            _ => tracing::warn!(orchestrator, %failed, "an orchestrator fails"),
        }
    }

    fn name(&self, index: usize) -> &str {
        self.upstreams.get(index).map_or("", |upstream| upstream.name.as_str())
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upstream {
    fn new(url: &Url) -> Result<Self, ApiError> {
        let mut base = url.clone();
        // They would only come to light in a log.
        let bare = base.set_username("").is_ok() && base.set_password(None).is_ok();
        if url.scheme() != "http" || url.cannot_be_a_base() || !bare {
            return Err(ApiError::Start(
                "--orchestrator must name URLs like http://127.0.0.1:7890, with commas between them".to_owned(),
            ));
        }
        base.set_query(None);
        base.set_fragment(None);
        base.set_path(&format!("{}/", url.path().trim_end_matches('/')));
        let name = format!(
            "{}:{}{}",
            base.host_str().unwrap_or_default(),
            base.port_or_known_default().unwrap_or_default(),
            base.path().trim_end_matches('/')
        );
        Ok(Self { base, name })
    }
}

/// An attempt that is finished in any case: a caller that goes away drops it.
struct UnderWay<'a> {
    orchestrators: &'a Orchestrators,
    attempt: Option<Attempt>,
}

impl<'a> UnderWay<'a> {
    fn new(orchestrators: &'a Orchestrators, attempt: Attempt) -> Self {
        Self {
            orchestrators,
            attempt: Some(attempt),
        }
    }

    fn upstream(&self) -> usize {
        self.attempt.as_ref().map_or(0, Attempt::upstream)
    }

    fn is_trial(&self) -> bool {
        self.attempt.as_ref().is_some_and(Attempt::is_trial)
    }

    fn finish(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Outcome) {
        let Some(attempt) = self.attempt.take() else {
            return;
        };
        let all = self.orchestrators;
        let orchestrator = all.name(attempt.upstream());
        let changed = all.state().choice.finish(attempt, outcome, all.now());
        match changed {
            Some(BreakerState::Closed) => tracing::info!(orchestrator, "an orchestrator is back"),
            Some(_) => tracing::warn!(orchestrator, "an orchestrator failed too often and is given a rest"),
            None => {}
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.end(Outcome::Abandoned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(url: &str) -> Result<(String, String), ApiError> {
        let upstream = Upstream::new(&url.parse().unwrap())?;
        Ok((upstream.base.into(), upstream.name))
    }

    #[test]
    fn a_base_url_may_have_a_path() {
        assert_eq!(
            upstream("http://a:1").unwrap(),
            ("http://a:1/".to_owned(), "a:1".to_owned())
        );
        assert_eq!(
            upstream("http://a/map/?x=y").unwrap(),
            ("http://a/map/".to_owned(), "a:80/map".to_owned())
        );
        assert!(upstream("ftp://a").is_err());
    }

    #[test]
    fn credentials_in_a_url_are_not_repeated() {
        let (base, name) = upstream("http://ann:hush@a:1").unwrap();
        assert_eq!((base.as_str(), name.as_str()), ("http://a:1/", "a:1"));
        let error = upstream("https://ann:hush@a:1").unwrap_err().to_string();
        assert!(!error.contains("hush"), "{error}");
    }

    #[test]
    fn an_orchestrator_that_is_named_twice_is_one() {
        let urls = ["http://a:1", "http://a:1/", "http://b:1"].map(|url| url.parse().unwrap());
        let all = Orchestrators::new(&urls, "0123456789abcdef".parse().unwrap()).unwrap();
        assert_eq!(all.upstreams.len(), 2);
        assert!(Orchestrators::new(&[], "0123456789abcdef".parse().unwrap()).is_err());
    }
}
