//! Problem details for HTTP errors (RFC 9457), `application/problem+json`.

use serde::{Deserialize, Serialize};

use crate::Epoch;

/// The media type of a [`Problem`].
pub const CONTENT_TYPE: &str = "application/problem+json";

/// An HTTP error's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// Stable, for programs: `urn:signalbox:problem:` and the kind, such as `token-expired`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// A sentence that says what to do.
    pub detail: String,
    /// Names this request, as the `X-Request-Id` header does: `urn:signalbox:request:` and its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Of an `epoch-moved`: the node's epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
}

impl Problem {
    /// A problem of the given kind, such as `token-expired`.
    pub fn new(status: u16, kind: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:signalbox:problem:{kind}"),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            instance: None,
            epoch: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_keeps_its_json() {
        let problem = Problem::new(401, "token-expired", "Token expired", "Ask for a new token.");
        assert_eq!(
            serde_json::to_string(&problem).unwrap(),
            r#"{"type":"urn:signalbox:problem:token-expired","title":"Token expired","status":401,"detail":"Ask for a new token."}"#
        );
    }
}
