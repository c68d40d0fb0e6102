//! One request to one orchestrator, and what its answer says about the orchestrator.
//!
//! An answer is whatever any other orchestrator would say too: it is final. A failure is this one's own: another one may do better.

use std::fmt;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use signalbox_protocol::Secret;
use signalbox_protocol::problem::Problem;
use signalbox_protocol::trace::{TRACEPARENT, TRACESTATE};

use crate::problem::ApiError;

/// The longest `Retry-After` that is passed on, in seconds: an hour-long one would be a mistake.
const MAX_RETRY_AFTER_SECONDS: u64 = 60;

/// When to come back if the orchestrator does not say, in seconds.
const RETRY_AFTER_SECONDS: u64 = 2;

/// Where a request goes.
pub(super) struct Call<'a> {
    pub(super) client: &'a Client,
    pub(super) secret: &'a Secret,
    /// Ends with a slash.
    pub(super) base: &'a Url,
    /// Without a leading slash.
    pub(super) path: &'a str,
    pub(super) timeout: Duration,
}

/// Why this orchestrator could not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failed {
    /// It cannot be reached, or did not answer in time.
    Silent(String),
    /// It cannot reach the room map, and does not remember the room.
    MapAway,
    /// It does not take the request: the cluster secret differs, or the URL is of something else.
    Refused { status: u16, kind: String },
    /// What it says makes no sense.
    Unreadable(String),
    /// It is overloaded, or has another fault of its own.
    Faulty { status: u16, kind: String },
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(error) => write!(f, "no answer: {error}"),
            Self::MapAway => f.write_str("it cannot reach its database"),
            Self::Refused { status, kind } => {
                write!(
                    f,
                    "it refuses this gateway with status {status} {kind}; check the cluster secret and the URL"
                )
            }
            Self::Unreadable(error) => write!(f, "its answer cannot be read: {error}"),
            Self::Faulty { status, kind } => write!(f, "it answers with status {status} {kind}"),
        }
    }
}

/// Posts `body`. The outer error is the orchestrator's, the inner one is its answer.
pub(super) async fn call<B: Serialize, A: DeserializeOwned>(
    call: &Call<'_>,
    body: &B,
) -> Result<Result<A, ApiError>, Failed> {
    let url = call
        .base
        .join(call.path)
        .map_err(|error| Failed::Silent(error.to_string()))?;
    let mut request = call
        .client
        .post(url)
        .timeout(call.timeout)
        .bearer_auth(call.secret.expose());
    if let Some(trace) = signalbox_telemetry::span::current() {
        request = request.header(TRACEPARENT, trace.parent);
        if !trace.state.is_empty() {
            request = request.header(TRACESTATE, trace.state);
        }
    }
    let response = request
        .json(body)
        .send()
        .await
        .map_err(|error| Failed::Silent(root_cause(&error)))?;
    if response.status() == StatusCode::NO_CONTENT {
        // What is answered without a body is nothing, which JSON has a word for.
        let nothing = serde_json::from_value(serde_json::Value::Null);
        return nothing.map(Ok).map_err(|error| Failed::Unreadable(error.to_string()));
    }
    if response.status() == StatusCode::OK {
        let answer = response.json().await;
        return answer.map(Ok).map_err(|error| {
            let cause = root_cause(&error);
            if error.is_decode() {
                Failed::Unreadable(cause)
            } else {
                Failed::Silent(cause)
            }
        });
    }
    refusal(response).await.map(Err)
}

/// What any answer but 200 and 204 means.
async fn refusal(response: Response) -> Result<ApiError, Failed> {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let problem = response.json::<Problem>().await.ok();
    let kind = problem.as_ref().map_or("", |problem| {
        problem
            .kind
            .strip_prefix("urn:signalbox:problem:")
            .unwrap_or(&problem.kind)
    });
    match (status, kind) {
        (StatusCode::SERVICE_UNAVAILABLE, "no-node") => Ok(ApiError::NoNode {
            detail: problem.map(|problem| problem.detail).unwrap_or_default(),
            retry_after: retry_after.unwrap_or(RETRY_AFTER_SECONDS).min(MAX_RETRY_AFTER_SECONDS),
        }),
        (StatusCode::NOT_FOUND, "unknown-room") => Ok(ApiError::NoRoom),
        (StatusCode::SERVICE_UNAVAILABLE, "map-unavailable") => Err(Failed::MapAway),
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => Err(Failed::Refused {
            status: status.as_u16(),
            kind: kind.to_owned(),
        }),
        // With a problem of ours it is about the request, and stays so wherever it is sent; without one, nobody of ours answered.
        _ if status.is_client_error() && problem.is_some() => {
            tracing::debug!(%status, kind, "an orchestrator cannot do what was asked");
            Ok(ApiError::OrchestratorUnavailable)
        }
        _ if status.is_client_error() => Err(Failed::Refused {
            status: status.as_u16(),
            kind: String::new(),
        }),
        _ => Err(Failed::Faulty {
            status: status.as_u16(),
            kind: kind.to_owned(),
        }),
    }
}

/// The innermost reason, which says `connection refused` where reqwest itself only says that sending failed.
fn root_cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it takes too long".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
