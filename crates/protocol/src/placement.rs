//! Gateway → orchestrator, and operators: where rooms are. HTTP with JSON bodies, each request with
//! `Authorization: Bearer <cluster secret>`. Errors are [`crate::problem`]s.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /v1/placements` | [`PlaceRoom`] | 200 [`Placement`]; 503 + `Retry-After` when no node can take the room; 404 with `find_only` when it is nowhere |
//! | `POST /v1/rooms/{room}/close` | [`CloseRoom`] | 200 [`RoomClosed`] |
//! | `GET /v1/rooms?after=&limit=&node=` | | 200 [`RoomList`] |
//! | `GET /v1/rooms/{room}/placement` | | 200 [`crate::history::RoomPlacement`]; 404 when the room was never placed |
//!
//! What nodes ask is in [`crate::node`].

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Epoch, Generation, NodeId, RoomName};

/// The most labels, groups and the longest text that [`PlaceRoom`] and a registration may have; texts in bytes.
pub const MAX_LABELS: usize = 64;
/// See [`MAX_LABELS`].
pub const MAX_GROUPS: usize = 16;
/// See [`MAX_LABELS`].
pub const MAX_TEXT_BYTES: usize = 256;

/// Where is this room, and if nowhere, place it. All but `room` matters only in the second case: who joins a room that has
/// a node goes to that node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlaceRoom {
    /// The room.
    pub room: RoomName,
    /// The region to prefer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Labels that the node must have, with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The track that the node must be of. Default: as [`PlaceRoom::user`] falls into the cluster's canary share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track: Option<Track>,
    /// The track to prefer, whichever the user falls into: as with the canary share, a stable node does if no canary node can take the room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefer: Option<Track>,
    /// Whose join it is; only hashed, for the canary share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The user was in the canary share before, as a cookie of the cluster's says: as if it fell into it, for as long as it is more than 0.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub canary_user: bool,
    /// The lowest version of the node's software, such as `1.4` or `1.4.2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<String>,
    /// The group of rooms that it belongs to, for [`PlaceRoom::avoid`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Groups whose rooms may not be on the same node, in either direction; its own among them spreads a group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoid: Vec<String>,
    /// The policy that chooses, instead of the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// The gateway's rule that asks for this, for whoever wants to know why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The node that it was on, and is lost: another one is preferred, also if that node is back. Its address is the one that clients have
    /// just lost, and what made it fail once may do so again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<NodeId>,
    /// Only say where it is: a room that is nowhere stays so, and is answered with 404 `unknown-room`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub find_only: bool,
}

impl PlaceRoom {
    /// Only the room's name; everything else as the cluster is configured.
    pub fn new(room: RoomName) -> Self {
        Self {
            room,
            region: None,
            labels: BTreeMap::new(),
            track: None,
            prefer: None,
            user: None,
            canary_user: false,
            min_version: None,
            group: None,
            avoid: Vec::new(),
            policy: None,
            rule: None,
            lost: None,
            find_only: false,
        }
    }
}

/// Which of the two groups of nodes: the tried one, or the one that a new version is tried on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Track {
    /// For everyone.
    #[default]
    Stable,
    /// For a share of the users.
    Canary,
}

/// How a node is chosen among those that may take a room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Of two random nodes the less loaded one.
    #[default]
    TwoChoices,
    /// In turn, by capacity, smoothly.
    RoundRobin,
    /// The least loaded one.
    LeastLoaded,
    /// By weighted rendezvous hash of the room's name.
    Rendezvous,
    /// The same, passing over nodes that have more than their share.
    BoundedRendezvous,
    /// The fullest one that has room to spare.
    Packing,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::TwoChoices,
        Self::RoundRobin,
        Self::LeastLoaded,
        Self::Rendezvous,
        Self::BoundedRendezvous,
        Self::Packing,
    ];

    /// As configurations and the wire write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TwoChoices => "two-choices",
            Self::RoundRobin => "round-robin",
            Self::LeastLoaded => "least-loaded",
            Self::Rendezvous => "rendezvous",
            Self::BoundedRendezvous => "bounded-rendezvous",
            Self::Packing => "packing",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Policy {
    type Err = UnknownPolicy;
    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL
            .into_iter()
            .find(|policy| policy.name() == text)
            .ok_or(UnknownPolicy)
    }
}

/// No policy has this name. Its text lists those that do exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownPolicy;

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is no such policy; those that exist are ")?;
        for (index, policy) in Policy::ALL.into_iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{policy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownPolicy {}

/// Where a room is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Placement {
    /// The room.
    pub room: RoomName,
    /// Its node.
    pub node: NodeId,
    /// The node's control listener, such as `ws://10.0.0.7:7900`.
    pub control: String,
    /// The node's epoch.
    pub epoch: Epoch,
    /// The room's generation.
    pub generation: Generation,
    /// The signed ticket; see [`crate::ticket`].
    pub ticket: String,
    /// How long the ticket holds from now on, in seconds.
    pub ticket_seconds: u64,
    /// The node is of the canary track, and the user that asked is in the canary share.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_canary_share: bool,
}

/// A node closes a room that is empty. Compare-and-set on all three.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CloseRoom {
    /// The node.
    pub node: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The room's generation.
    pub generation: Generation,
}

/// What came of [`CloseRoom`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoomClosed {
    /// Whether this request closed it; false: it was closed, or owned by another, before.
    pub closed: bool,
}

/// Rooms, a page of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoomList {
    /// Ordered by name, byte by byte.
    pub rooms: Vec<RoomView>,
    /// Ask again with `after` this name for the next page; none: this was the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<RoomName>,
}

/// A room as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoomView {
    /// Which.
    pub room: RoomName,
    /// Its node, or the last one that it had.
    pub node: NodeId,
    /// The node's epoch when the room was placed.
    pub epoch: Epoch,
    /// How often it has been placed.
    pub generation: Generation,
    /// Whether it lives there.
    pub state: RoomState,
    /// Its group, for anti-affinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// When it was placed, in milliseconds since 1970 by the store's clock.
    pub placed_at_ms: u64,
}

/// Whether a room lives where the map says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RoomState {
    /// It does.
    Open,
    /// It was closed; the next join places it anew.
    Closed,
    /// Its node's epoch is over; the next join places it anew.
    Orphaned,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placement_keeps_its_json() {
        let placement = Placement {
            room: "daily".parse().unwrap(),
            node: "00000000-0000-0000-0000-000000000001".parse().unwrap(),
            control: "ws://127.0.0.1:7900".into(),
            epoch: Epoch(3),
            generation: Generation(1),
            ticket: "t".into(),
            ticket_seconds: 30,
            by_canary_share: false,
        };
        let json = r#"{"room":"daily","node":"00000000-0000-0000-0000-000000000001","control":"ws://127.0.0.1:7900","epoch":3,"generation":1,"ticket":"t","ticket_seconds":30}"#;
        assert_eq!(serde_json::to_string(&placement).unwrap(), json);
        assert_eq!(serde_json::from_str::<Placement>(json).unwrap(), placement);
    }

    #[test]
    fn a_request_with_only_a_name_keeps_its_json() {
        let request = PlaceRoom::new("daily".parse().unwrap());
        assert_eq!(serde_json::to_string(&request).unwrap(), r#"{"room":"daily"}"#);
        assert_eq!(
            serde_json::from_str::<PlaceRoom>(r#"{"room":"daily"}"#).unwrap(),
            request
        );
    }

    #[test]
    fn a_policy_is_written_alike_everywhere_and_an_unknown_one_names_those_that_exist() {
        for policy in Policy::ALL {
            assert_eq!(policy.name().parse(), Ok(policy));
            assert_eq!(serde_json::to_string(&policy).unwrap(), format!("\"{policy}\""));
        }
        let error = "fastest".parse::<Policy>().unwrap_err().to_string();
        assert!(
            Policy::ALL.iter().all(|policy| error.contains(policy.name())),
            "{error}"
        );
    }

    #[test]
    fn a_room_that_is_not_printable_is_refused() {
        assert!(serde_json::from_str::<PlaceRoom>(r#"{"room":"a\u0007"}"#).is_err());
    }
}
