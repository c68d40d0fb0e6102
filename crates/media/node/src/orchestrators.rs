//! Calls to the orchestrators: to one of them, or to any, as they are all equal.
//!
//! It knows how to ask, not what for: what an answer means is for [`crate::registration`] and [`crate::closing`] to say.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use signalbox_protocol::problem::Problem;
use signalbox_protocol::{Epoch, Secret, Secrets};

use crate::Error;

/// How much of an orchestrator's sentence is passed on, in characters.
const MAX_DETAIL: usize = 500;

/// Why a call had no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// No connection, no answer in time, or not one of the protocol's. Whether the call has taken effect is unknown.
    Unanswered,
    /// Another status than the protocol's good one.
    Status {
        /// Which.
        status: StatusCode,
        /// The orchestrator's sentence; may be empty.
        detail: String,
        /// The node's epoch, where the orchestrator names it.
        epoch: Option<Epoch>,
    },
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unanswered => f.write_str("no usable answer"),
            Self::Status { status, .. } if *status == StatusCode::UNAUTHORIZED => f.write_str(
                "the orchestrator does not accept the cluster secret (status 401): --cluster-secret must begin with one that it accepts",
            ),
            Self::Status { status, detail, .. } if detail.is_empty() => write!(f, "status {status}"),
            Self::Status { status, detail, .. } => write!(f, "status {status}: {detail}"),
        }
    }
}

/// All orchestrators.
pub struct Orchestrators {
    http: reqwest::Client,
    urls: Vec<Url>,
    secret: Secret,
    /// The one that calls to any of them go to.
    preferred: AtomicUsize,
}

impl Orchestrators {
    /// For these URLs, at least one.
    ///
    /// # Errors
    /// [`Error::HttpClient`].
    pub fn new(urls: Vec<Url>, secrets: &Secrets) -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            // The cluster secret goes to the orchestrators and nowhere else.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(Error::HttpClient)?;
        Ok(Self {
            http,
            urls,
            secret: secrets.current().clone(),
            preferred: AtomicUsize::new(0),
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.urls.len()
    }

    /// One attempt with this orchestrator, counted from 0 in the configured order.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call_one<T: DeserializeOwned>(
        &self,
        index: usize,
        path: &[&str],
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<T, CallError> {
        let response = self.send(index, Method::POST, path, Some(body), timeout).await?;
        response.json().await.map_err(|_| CallError::Unanswered)
    }

    /// One attempt with any orchestrator; a failure makes the next attempt go to the next one.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<T, CallError> {
        self.ask(Method::POST, path, Some(body), timeout).await
    }

    /// Like [`Orchestrators::call`], with another method than POST.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&impl Serialize>,
        timeout: Duration,
    ) -> Result<T, CallError> {
        let index = self.preferred();
        let answer = async {
            let response = self.send(index, method, path, body, timeout).await?;
            response.json().await.map_err(|_| CallError::Unanswered)
        };
        let result = answer.await;
        if result.is_err() {
            self.prefer(index + 1);
        }
        result
    }

    /// Like [`Orchestrators::call`], for answers without a body.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn tell(&self, path: &[&str], body: &impl Serialize, timeout: Duration) -> Result<(), CallError> {
        let index = self.preferred();
        let result = self.tell_one(index, path, body, timeout).await;
        if result.is_err() {
            self.prefer(index + 1);
        }
        result
    }

    /// Like [`Orchestrators::call_one`], for answers without a body.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn tell_one(
        &self,
        index: usize,
        path: &[&str],
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<(), CallError> {
        let sent = self.send(index, Method::POST, path, Some(body), timeout).await;
        sent.map(drop)
    }

    /// Calls to any orchestrator go to this one first.
    pub fn prefer(&self, index: usize) {
        self.preferred.store(index, Ordering::Relaxed);
    }

    fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed) % self.urls.len().max(1)
    }

    async fn send(
        &self,
        index: usize,
        method: Method,
        path: &[&str],
        body: Option<&impl Serialize>,
        timeout: Duration,
    ) -> Result<reqwest::Response, CallError> {
        let mut url = self.urls.get(index).cloned().ok_or(CallError::Unanswered)?;
        if let Ok(mut segments) = url.path_segments_mut() {
            // Room names may hold any character: each segment is encoded by itself.
            segments.pop_if_empty().extend(path);
        }
        let mut request = self.http.request(method, url).bearer_auth(self.secret.expose());
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request
            .timeout(timeout)
            .send()
            .await
            .map_err(|_| CallError::Unanswered)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let problem = response.json::<Problem>().await.ok();
        let epoch = problem.as_ref().and_then(|problem| problem.epoch);
        let detail = problem.map_or_else(String::new, |problem| {
            // It goes to logs and terminals.
            let printable = problem.detail.chars().filter(|character| !character.is_control());
            printable.take(MAX_DETAIL).collect()
        });
        Err(CallError::Status { status, detail, epoch })
    }
}
