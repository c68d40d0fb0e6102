//! The canary share, and how nodes of both tracks do: gateway → orchestrator, and operators. HTTP with JSON bodies, each request with
//! `Authorization: Bearer <cluster secret>`. Errors are [`crate::problem`]s.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/canary` | | 200 [`Canary`] |
//! | `PUT /v1/canary` | [`SetCanary`] | 200 [`Canary`]: it counts from now on |
//! | `POST /v1/outcomes` | [`ReportOutcomes`] | 204 |
//!
//! What nodes see of connections is in their heartbeats: [`crate::node::Heartbeat::connections`].

use serde::{Deserialize, Serialize};

use crate::NodeId;

/// The most nodes that a [`ReportOutcomes`] names.
pub const MAX_REPORTED_NODES: usize = 500;

/// The highest number in a [`ReportOutcomes`].
pub const MAX_REPORTED: u64 = 1_000_000;

/// Set the canary share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SetCanary {
    /// The share of users, from 0 to 1, whose new rooms go to the nodes of the canary track.
    pub share: f64,
    /// Why, for the history; at most [`MAX_TEXT_BYTES`](crate::placement::MAX_TEXT_BYTES).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// The canary share, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Canary {
    /// The share of users, from 0 to 1, whose new rooms go to the nodes of the canary track.
    pub share: f64,
    /// Who set it.
    pub by: ChangedBy,
    /// Since when, in milliseconds since 1970 by the store's clock; none: since the orchestrator was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// How far back the outcomes below reach, in milliseconds; no further than [`Canary::since_ms`].
    pub window_ms: u64,
    /// What came of joins and connections on stable nodes.
    pub stable: Outcomes,
    /// The same on canary nodes.
    pub canary: Outcomes,
    /// What follows from that.
    pub verdict: CanaryVerdict,
    /// The last changes, newest first.
    pub history: Vec<CanaryChange>,
}

/// Who set a canary share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ChangedBy {
    /// Nobody since: it is what the orchestrator was started with.
    Configuration,
    /// An operator.
    Operator,
    /// An orchestrator, since canary nodes did worse than stable ones.
    Rollback,
}

/// A change of the canary share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CanaryChange {
    /// When, in milliseconds since 1970 by the store's clock.
    pub at_ms: u64,
    /// The share until then, from 0 to 1.
    pub from: f64,
    /// The share from then on.
    pub to: f64,
    /// Who.
    pub by: ChangedBy,
    /// Why, with figures if it was a rollback.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// What came of joins and connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Outcomes {
    /// Joins, as gateways saw them. Those that failed by the client's own doing, or since a room or a node is full, count as neither.
    pub joins: Tally,
    /// Connections, as nodes saw them: ICE and DTLS that came up, and those that did not, or were lost.
    pub connections: Tally,
}

/// How often something went well, and how often it did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tally {
    /// Well.
    pub ok: u64,
    /// Not.
    pub failed: u64,
}

impl Tally {
    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// How much was counted.
    pub fn all(self) -> u64 {
        self.ok.saturating_add(self.failed)
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            ok: self.ok.saturating_add(other.ok),
            failed: self.failed.saturating_add(other.failed),
        }
    }
}

impl Outcomes {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            joins: self.joins.plus(other.joins),
            connections: self.connections.plus(other.connections),
        }
    }
}

/// Whether canary nodes do worse than stable ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CanaryVerdict {
    /// Of [`Outcomes::joins`].
    pub joins: Comparison,
    /// Of [`Outcomes::connections`].
    pub connections: Comparison,
}

/// What came of comparing canary nodes with stable ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Comparison {
    /// In a word.
    pub result: Compared,
    /// How likely so many failures on canary nodes, or more, were if both tracks were alike, from 0 to 1; none if there is too little to compare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
}

/// See [`Comparison::result`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Compared {
    /// There is too little to compare.
    TooFew,
    /// Canary nodes do not clearly worse than stable ones.
    Alike,
    /// They do.
    Worse,
}

/// What came of joins at one gateway since its last report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReportOutcomes {
    /// At most [`MAX_REPORTED_NODES`].
    pub nodes: Vec<NodeJoins>,
}

/// What came of joins on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeJoins {
    /// Which.
    pub node: NodeId,
    /// At most [`MAX_REPORTED`] of each.
    pub joins: Tally,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_keeps_its_json() {
        let set: SetCanary = serde_json::from_str(r#"{"share":0.1}"#).unwrap();
        assert_eq!((set.share, set.why.as_str()), (0.1, ""));
        assert_eq!(serde_json::to_string(&set).unwrap(), r#"{"share":0.1}"#);
        let report = ReportOutcomes {
            nodes: vec![NodeJoins {
                node: "00000000-0000-0000-0000-000000000001".parse().unwrap(),
                joins: Tally { ok: 3, failed: 1 },
            }],
        };
        let json = r#"{"nodes":[{"node":"00000000-0000-0000-0000-000000000001","joins":{"ok":3,"failed":1}}]}"#;
        assert_eq!(serde_json::to_string(&report).unwrap(), json);
        assert_eq!(serde_json::from_str::<ReportOutcomes>(json).unwrap(), report);
    }

    #[test]
    fn what_is_answered_keeps_its_json() {
        let alike = Comparison {
            result: Compared::Alike,
            p: Some(0.5),
        };
        let canary = Canary {
            share: 0.0,
            by: ChangedBy::Rollback,
            since_ms: Some(7),
            why: "joins fail".into(),
            window_ms: 600_000,
            stable: Outcomes::default(),
            canary: Outcomes::default(),
            verdict: CanaryVerdict {
                joins: alike,
                connections: Comparison {
                    result: Compared::TooFew,
                    p: None,
                },
            },
            history: vec![CanaryChange {
                at_ms: 7,
                from: 0.1,
                to: 0.0,
                by: ChangedBy::Operator,
                why: String::new(),
            }],
        };
        let json = concat!(
            r#"{"share":0.0,"by":"rollback","since_ms":7,"why":"joins fail","window_ms":600000,"#,
            r#""stable":{"joins":{"ok":0,"failed":0},"connections":{"ok":0,"failed":0}},"#,
            r#""canary":{"joins":{"ok":0,"failed":0},"connections":{"ok":0,"failed":0}},"#,
            r#""verdict":{"joins":{"result":"alike","p":0.5},"connections":{"result":"too_few"}},"#,
            r#""history":[{"at_ms":7,"from":0.1,"to":0.0,"by":"operator"}]}"#
        );
        assert_eq!(serde_json::to_string(&canary).unwrap(), json);
        assert_eq!(serde_json::from_str::<Canary>(json).unwrap(), canary);
    }
}
