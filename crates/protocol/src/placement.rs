//! Gateway → orchestrator and media node → orchestrator: HTTP with JSON bodies, each request with
//! `Authorization: Bearer <cluster secret>`. Errors are [`crate::problem`]s.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /v1/placements` | [`PlaceRoom`] | 200 [`Placement`]; 503 + `Retry-After` when no node can take the room |
//! | `POST /v1/nodes` | [`RegisterNode`] | 200 [`Registered`] |
//! | `POST /v1/nodes/{node}/heartbeat` | [`Heartbeat`] | 200 [`Renewed`]; 410 when the epoch is over: drop all rooms, register again |
//! | `POST /v1/nodes/{node}/release` | [`Release`] | 204, also when it was released before |
//! | `GET /v1/nodes` | | 200 [`NodeList`] |
//! | `POST /v1/rooms/{room}/close` | [`CloseRoom`] | 200 [`RoomClosed`] |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Epoch, Generation, NodeId, RoomName};

/// Where is this room, and if nowhere, place it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceRoom {
    /// The room.
    pub room: RoomName,
    /// The region to prefer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// Where a room is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// A node announces itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegisterNode {
    /// Who it is; the same over restarts.
    pub node: NodeId,
    /// Its control listener, such as `ws://10.0.0.7:7900`.
    pub control: String,
    /// Its shards' public UDP addresses, such as `54.12.34.56:50000`.
    pub media: Vec<std::net::SocketAddr>,
    /// Where it stands; may be empty.
    #[serde(default)]
    pub region: String,
    /// Which failure domain of the region; may be empty.
    #[serde(default)]
    pub zone: String,
    /// Free key-value pairs.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How many participants it takes.
    pub capacity: u32,
    /// Its software's version.
    pub version: String,
}

/// A node's registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Its new epoch.
    pub epoch: Epoch,
    /// How long the lease holds from the moment that the request was sent, in milliseconds.
    pub lease_ms: u64,
    /// How often to renew it, in milliseconds.
    pub heartbeat_ms: u64,
}

/// A node renews its lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Its epoch.
    pub epoch: Epoch,
    /// How busy it is.
    pub load: NodeLoad,
    /// Every room that it hosts.
    pub rooms: Vec<RoomDigest>,
}

/// How busy a node is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeLoad {
    /// Rooms.
    pub rooms: u32,
    /// Participants.
    pub participants: u32,
    /// Packets sent in the last second.
    pub packets_per_second: u64,
}

/// A room that a node hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomDigest {
    /// Which.
    pub room: RoomName,
    /// In which generation.
    pub generation: Generation,
}

/// A renewed lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// How long the lease holds from the moment that the request was sent, in milliseconds.
    pub lease_ms: u64,
}

/// A node goes: its rooms may be placed elsewhere at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its epoch.
    pub epoch: Epoch,
}

/// A node closes a room that is empty. Compare-and-set on all three.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct RoomClosed {
    /// Whether this request closed it; false: it was closed, or owned by another, before.
    pub closed: bool,
}

/// All nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeList {
    /// Ordered by id.
    pub nodes: Vec<NodeView>,
}

/// A node as operators see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Who.
    pub node: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Whether it takes rooms.
    pub state: NodeState,
    /// Whether its lease holds at this moment.
    pub live: bool,
    /// Its control listener.
    pub control: String,
    /// Its shards' public UDP addresses.
    pub media: Vec<std::net::SocketAddr>,
    /// Where it stands.
    pub region: String,
    /// How many participants it takes.
    pub capacity: u32,
    /// How busy it said to be.
    pub load: NodeLoad,
    /// Its software's version.
    pub version: String,
}

/// Whether a node takes rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It does.
    Serving,
    /// No new ones.
    Draining,
    /// It is gone; its rooms may be taken over.
    Lost,
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
        };
        let json = r#"{"room":"daily","node":"00000000-0000-0000-0000-000000000001","control":"ws://127.0.0.1:7900","epoch":3,"generation":1,"ticket":"t","ticket_seconds":30}"#;
        assert_eq!(serde_json::to_string(&placement).unwrap(), json);
        assert_eq!(serde_json::from_str::<Placement>(json).unwrap(), placement);
    }

    #[test]
    fn a_room_that_is_not_printable_is_refused() {
        assert!(serde_json::from_str::<PlaceRoom>(r#"{"room":"a\u0007"}"#).is_err());
    }
}
