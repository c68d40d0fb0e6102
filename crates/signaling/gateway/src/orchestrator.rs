//! Asks the orchestrators over HTTP where a room is.
//!
//! Knows their URLs and which one answered last. Keeps no placement: see [`crate::placements`].

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Client, StatusCode, Url};
use signalbox_protocol::placement::{PlaceRoom, Placement};
use signalbox_protocol::problem::Problem;
use signalbox_protocol::{RoomName, Secret};

use crate::problem::ApiError;

/// How long one orchestrator may take. Higher: a hanging one delays joins. Lower: a busy database looks like an outage.
const TIMEOUT: Duration = Duration::from_secs(3);

/// How long a TCP connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest `Retry-After` that is passed on, in seconds: an hour-long one would be a mistake.
const MAX_RETRY_AFTER_SECONDS: u64 = 60;

/// All orchestrators. They are equal, so the one that answered last is asked first.
#[derive(Debug)]
pub(crate) struct Orchestrator {
    client: Client,
    secret: Secret,
    placements: Vec<Url>,
    preferred: AtomicUsize,
}

impl Orchestrator {
    /// # Errors
    /// [`ApiError::Start`] for a URL that is not plain HTTP.
    pub(crate) fn new(urls: &[Url], secret: Secret) -> Result<Self, ApiError> {
        let placements = urls.iter().map(placements_url).collect::<Result<Vec<_>, _>>()?;
        if placements.is_empty() {
            return Err(ApiError::Start("--orchestrator must name at least one URL".into()));
        }
        let client = Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            // Between the tiers there is no proxy, whatever the environment says.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| ApiError::Start(format!("no HTTP client: {error}")))?;
        Ok(Self {
            client,
            secret,
            placements,
            preferred: AtomicUsize::new(0),
        })
    }

    /// Where the room is; it is placed if it is nowhere.
    ///
    /// # Errors
    /// [`ApiError::NoNode`] when no node can take it, [`ApiError::OrchestratorUnavailable`] when no orchestrator answers.
    pub(crate) async fn place(&self, room: &RoomName) -> Result<Placement, ApiError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut error = ApiError::OrchestratorUnavailable;
        for step in 0..self.placements.len() {
            let index = (first + step) % self.placements.len();
            let Some(url) = self.placements.get(index) else {
                continue;
            };
            match self.ask(url, room).await {
                Ok(placement) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(placement);
                }
                Err(next) => error = next,
            }
        }
        Err(error)
    }

    async fn ask(&self, url: &Url, room: &RoomName) -> Result<Placement, ApiError> {
        let body = PlaceRoom {
            room: room.clone(),
            region: None,
        };
        let response = self
            .client
            .post(url.clone())
            .bearer_auth(self.secret.expose())
            .json(&body)
            .send()
            .await
            .map_err(|error| {
                tracing::warn!(orchestrator = %url, error = %root_cause(&error), "an orchestrator does not answer");
                ApiError::OrchestratorUnavailable
            })?;
        let status = response.status();
        if status == StatusCode::OK {
            let placement = response.json::<Placement>().await.map_err(|error| {
                tracing::error!(orchestrator = %url, error = %root_cause(&error), "an orchestrator's placement cannot be read");
                ApiError::OrchestratorUnavailable
            })?;
            if placement.room != *room {
                tracing::error!(orchestrator = %url, %room, "an orchestrator placed another room than was asked");
                return Err(ApiError::OrchestratorUnavailable);
            }
            return Ok(placement);
        }
        let retry_after = response
            .headers()
            .get(reqwest::header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let problem = response.json::<Problem>().await.ok();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let detail = problem.map_or_else(
                || "No media node is available at the moment; try again shortly.".to_owned(),
                |problem| problem.detail,
            );
            return Err(ApiError::NoNode {
                detail,
                retry_after: retry_after.unwrap_or(2).min(MAX_RETRY_AFTER_SECONDS),
            });
        }
        let kind = problem.map_or_else(String::new, |problem| problem.kind);
        tracing::error!(orchestrator = %url, %status, kind, "an orchestrator refuses this gateway; check the cluster secret");
        Err(ApiError::OrchestratorUnavailable)
    }
}

fn placements_url(url: &Url) -> Result<Url, ApiError> {
    if url.scheme() != "http" || url.cannot_be_a_base() {
        return Err(ApiError::Start(format!(
            "--orchestrator must be a URL like http://127.0.0.1:7890, not {url}"
        )));
    }
    let mut placements = url.clone();
    let base = url.path().trim_end_matches('/');
    placements.set_path(&format!("{base}/v1/placements"));
    Ok(placements)
}

/// The innermost reason, which says `connection refused` where reqwest itself only says that sending failed.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_may_have_a_path() {
        let url = |text: &str| placements_url(&text.parse().unwrap()).map(String::from);
        assert_eq!(url("http://a:1").unwrap(), "http://a:1/v1/placements");
        assert_eq!(url("http://a:1/map/").unwrap(), "http://a:1/map/v1/placements");
        assert!(url("ftp://a").is_err());
    }
}
