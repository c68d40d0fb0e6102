//! Calls to the orchestrators: any of them will do, so the one that answered last is asked first and the next one when it does not.
//!
//! It knows how to ask, not what for: what an answer means is for [`crate::registration`] and [`crate::closing`] to say.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use signalbox_protocol::Secret;

use crate::Error;
use crate::lease::Boottime;

/// Why a call had no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallError {
    /// No connection, no answer in time, or not one of the protocol's. Whether the call has taken effect is unknown.
    Unanswered,
    /// Another status than the protocol's good one.
    Status(StatusCode),
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CallError::Unanswered => f.write_str("no usable answer"),
            CallError::Status(status) => write!(f, "status {status}"),
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answered<T> {
    /// When the request was sent: what it grants counts from then.
    pub sent: Boottime,
    /// What it says.
    pub body: T,
}

/// All orchestrators.
pub struct Orchestrators {
    http: reqwest::Client,
    urls: Vec<Url>,
    secret: Secret,
    preferred: AtomicUsize,
}

impl Orchestrators {
    /// For these URLs, at least one.
    ///
    /// # Errors
    /// [`Error::HttpClient`].
    pub fn new(urls: Vec<Url>, secret: Secret) -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            // The cluster secret goes to the orchestrators and nowhere else.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(Error::HttpClient)?;
        Ok(Self {
            http,
            urls,
            secret,
            preferred: AtomicUsize::new(0),
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.urls.len()
    }

    /// One attempt with one orchestrator; a failure makes the next attempt go to the next one.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<Answered<T>, CallError> {
        let (sent, response) = self.post(path, body, timeout).await?;
        match response.json().await {
            Ok(body) => Ok(Answered { sent, body }),
            Err(_) => {
                self.prefer_next();
                Err(CallError::Unanswered)
            }
        }
    }

    /// Like [`Orchestrators::call`], for answers without a body.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn tell(&self, path: &[&str], body: &impl Serialize, timeout: Duration) -> Result<(), CallError> {
        self.post(path, body, timeout).await.map(drop)
    }

    async fn post(
        &self,
        path: &[&str],
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<(Boottime, reqwest::Response), CallError> {
        let index = self.preferred.load(Ordering::Relaxed) % self.urls.len().max(1);
        let mut url = self.urls.get(index).cloned().ok_or(CallError::Unanswered)?;
        if let Ok(mut segments) = url.path_segments_mut() {
            // Room names may hold any character: each segment is encoded by itself.
            segments.pop_if_empty().extend(path);
        }
        let sent = Boottime::now();
        let result = self
            .http
            .post(url)
            .bearer_auth(self.secret.expose())
            .json(body)
            .timeout(timeout)
            .send()
            .await;
        match result {
            Ok(response) if response.status().is_success() => Ok((sent, response)),
            Ok(response) => {
                let status = response.status();
                if status != StatusCode::GONE {
                    self.prefer_next();
                }
                Err(CallError::Status(status))
            }
            Err(_) => {
                self.prefer_next();
                Err(CallError::Unanswered)
            }
        }
    }

    fn prefer_next(&self) {
        self.preferred.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waiting times between attempts: doubling, each drawn from the upper half of its range so that nodes do not come in step.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// From about `first` to at most `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, most }
    }

    /// How long to wait this time.
    pub fn next(&mut self) -> Duration {
        let range = self.next;
        self.next = (range * 2).min(self.most);
        range.mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_times_double_up_to_their_bound() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(400));
        for most in [100, 200, 400, 400] {
            let wait = backoff.next().as_millis();
            assert!((most / 2..=most).contains(&wait), "{wait} of {most}");
        }
    }
}
