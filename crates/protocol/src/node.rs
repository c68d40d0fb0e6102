//! Media node → orchestrator, and operators: which nodes there are. HTTP with JSON bodies, each request with
//! `Authorization: Bearer <cluster secret>`. Errors are [`crate::problem`]s.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /v1/nodes` | [`RegisterNode`] | 200 [`Registered`]; 409 with the node's `epoch` when that is not the one it registers after |
//! | `POST /v1/nodes/{node}/heartbeat` | [`Heartbeat`] | 200 [`Renewed`]; 409 when a later heartbeat came first; 410 when the epoch is over: drop all rooms, register again |
//! | `POST /v1/nodes/{node}/release` | [`Release`] | 204, also when it was released before |
//! | `POST /v1/nodes/{node}/reports` | [`ReportNode`] | 200 [`Verdict`]; 404 |
//! | `PUT /v1/nodes/{node}/state` | [`SetNodeState`] | 204; 404; 409 when the node is lost |
//! | `GET /v1/nodes` | | 200 [`NodeList`] |
//! | `PUT /v1/nodes/{node}/drain` | [`DrainNode`] | 200 [`Drain`]: begun, or gone on with these settings; 404; 409 when the node is lost |
//! | `GET /v1/nodes/{node}/drain` | | 200 [`Drain`], the last one; 404 when there was none |
//! | `DELETE /v1/nodes/{node}/drain` | | 200 [`Drain`]: cancelled, the node takes rooms again; 404 |
//!
//! And orchestrator → media node, on the node's control listener:
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/epoch` | | 200 [`EpochHeld`] |
//! | `GET /v1/rooms` | | 200 [`HostedRooms`] |
//! | `POST /v1/moves` | [`MoveRoom`] | 204: the participants' gateways have been told; 404 when it does not host the room in that generation |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::canary::Tally;
use crate::placement::{Placement, Track};
use crate::{ClusterId, Epoch, Generation, NodeId, RoomName};

/// A node announces itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RegisterNode {
    /// Who it is; the same over restarts.
    pub node: NodeId,
    /// The epoch that this registration comes after, 0 for the first one: it is refused if the node's epoch is another one. A node
    /// that does not know is told. So a registration that was given up, and arrives late, cannot end the epoch of a later one.
    pub after: Epoch,
    /// Its control listener, such as `ws://10.0.0.7:7900`.
    pub control: String,
    /// Its shards' public UDP addresses, such as `54.12.34.56:50000`.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
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
    /// Whether it is one of those that a new version is tried on.
    #[serde(default)]
    pub track: Track,
    /// How many participants it takes.
    pub capacity: u32,
    /// Its software's version.
    pub version: String,
}

/// A node's registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Registered {
    /// Its new epoch.
    pub epoch: Epoch,
    /// The cluster that it belongs to from now on; tickets of another are refused.
    pub cluster: ClusterId,
    /// How long the lease holds from the moment that the request was sent, in milliseconds.
    pub lease_ms: u64,
    /// How often to renew it, in milliseconds.
    pub heartbeat_ms: u64,
}

/// A node renews its lease.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Heartbeat {
    /// Its epoch.
    pub epoch: Epoch,
    /// Counts the heartbeats of the epoch, so that one that was delayed on the way is told from a fresh one.
    pub beat: u64,
    /// How busy it is.
    pub load: NodeLoad,
    /// Every room that it hosts, when the last answer asked for it ([`Renewed::rooms_wanted`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rooms: Option<Vec<RoomDigest>>,
    /// What came of the connections of clients since the process began: ICE and DTLS that came up, and those that did not within a while, or were
    /// lost while the client's signaling was there. Connections that came from another node do not count.
    #[serde(default, skip_serializing_if = "Tally::is_empty")]
    pub connections: Tally,
}

/// How busy a node is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeLoad {
    /// Rooms.
    pub rooms: u32,
    /// Participants.
    pub participants: u32,
    /// Packets sent in the last second.
    pub packets_per_second: u64,
    /// Processor time of the process, in percent of one core: 200 means that two cores were busy.
    #[serde(default)]
    pub cpu_percent: u32,
}

/// A room that a node hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoomDigest {
    /// Which.
    pub room: RoomName,
    /// In which generation.
    pub generation: Generation,
}

/// A renewed lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Renewed {
    /// How long the lease holds from the moment that the request was sent, in milliseconds.
    pub lease_ms: u64,
    /// The database is away, so the lease is not renewed there; but this orchestrator promises to fence nobody for that time.
    #[serde(default)]
    pub promised: bool,
    /// Name all rooms in the next heartbeat.
    #[serde(default)]
    pub rooms_wanted: bool,
    /// Of the rooms that the heartbeat named, those that are not the node's (any more): it must close them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale: Vec<RoomDigest>,
}

/// A node goes: its rooms may be placed elsewhere at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Release {
    /// Its epoch.
    pub epoch: Epoch,
}

/// A gateway's complaint about a node. The orchestrator looks for itself before it believes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReportNode {
    /// The epoch that the complaint is about.
    pub epoch: Epoch,
    /// What is wrong.
    pub complaint: Complaint,
}

/// What is wrong with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Complaint {
    /// It cannot be connected to.
    Unreachable,
    /// It can, but several joins in a row have failed on it.
    JoinsFail,
}

/// What came of a [`ReportNode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Verdict {
    /// Whether the node answered the orchestrator and holds the epoch.
    pub answers: bool,
    /// Whether it is given no rooms for a while.
    pub ejected: bool,
}

/// Whether a node is to take rooms. [`NodeState::Lost`] cannot be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SetNodeState {
    /// The state.
    pub state: NodeState,
}

/// What a node holds, by its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EpochHeld {
    /// Who it is.
    pub node: NodeId,
    /// Its epoch, if its lease has not run out.
    pub epoch: Option<Epoch>,
}

/// The rooms that a node hosts, by its own account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostedRooms {
    /// In no order.
    pub rooms: Vec<HostedRoom>,
}

/// A room that a node hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostedRoom {
    /// Which.
    pub room: RoomName,
    /// In which generation.
    pub generation: Generation,
    /// How many participants are in it.
    pub participants: u32,
    /// It is moving to another node, and has not left altogether.
    #[serde(default)]
    pub moving: bool,
}

/// A room was handed to another node, and its participants are to go there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveRoom {
    /// The room, in the generation that the node hosts.
    pub generation: Generation,
    /// Where it is from now on.
    pub to: Placement,
    /// How long the participants may take, in milliseconds; who is still there then is told that the node is gone.
    pub within_ms: u64,
}

/// Empty a node: its rooms are moved to others, one by one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrainNode {
    /// Rooms per second, more than 0.
    #[serde(default = "default_drain_rate")]
    pub rate: f64,
    /// For how long to go on, in milliseconds; what is left then stays where it is. None: until it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Whose wish it is, for the history of the rooms.
    #[serde(default, skip_serializing_if = "Asker::is_operator")]
    pub asked_by: Asker,
}

/// Who wants a node to be emptied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Asker {
    /// An operator.
    #[default]
    Operator,
    /// The node itself, which was told to end.
    Node,
}

impl Asker {
    fn is_operator(&self) -> bool {
        *self == Self::Operator
    }
}

fn default_drain_rate() -> f64 {
    5.0
}

impl Default for DrainNode {
    fn default() -> Self {
        Self {
            rate: default_drain_rate(),
            deadline_ms: None,
            asked_by: Asker::Operator,
        }
    }
}

/// How far the emptying of a node has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Drain {
    /// Which node.
    pub node: NodeId,
    /// The node's epoch when it began.
    pub epoch: Epoch,
    /// How it stands.
    pub state: DrainState,
    /// Rooms that it had when it began, and those that came since.
    pub rooms: u64,
    /// Of these, those that are still on it, by the room map.
    pub rooms_left: u64,
    /// Rooms that could not be moved so far, since no other node takes them.
    pub stuck: u64,
    /// See [`DrainNode::rate`].
    pub rate: f64,
    /// How long it will go on until the node hosts nothing, in milliseconds, as far as can be told. None: it does not go on, or nobody takes what
    /// is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_ms: Option<u64>,
    /// How long it may still go on, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// How long ago it began, in milliseconds.
    pub age_ms: u64,
    /// The orchestrator that carries it on at present.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
}

/// How a [`Drain`] stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DrainState {
    /// It goes on.
    Running,
    /// The node hosts nothing any more.
    Done,
    /// An operator has ended it.
    Cancelled,
    /// Its deadline came first; the node still takes no new rooms.
    Expired,
    /// The node went, with what it still had.
    Lost,
}

/// All nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeList {
    /// Ordered by id.
    pub nodes: Vec<NodeView>,
}

/// A node as operators see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub media: Vec<std::net::SocketAddr>,
    /// Where it stands.
    pub region: String,
    /// Which failure domain of the region.
    pub zone: String,
    /// What rooms can be placed by.
    pub labels: BTreeMap<String, String>,
    /// Whether a new version is tried on it.
    pub track: Track,
    /// How many participants it takes.
    pub capacity: u32,
    /// How busy it said to be.
    pub load: NodeLoad,
    /// Its software's version.
    pub version: String,
    /// How long ago it renewed its lease, in milliseconds.
    pub lease_age_ms: u64,
    /// For how much longer it is given no rooms because joins on it failed, in milliseconds; 0: it is not ejected.
    pub ejected_ms: u64,
}

/// Whether a node takes rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
    fn the_wish_for_a_drain_keeps_its_json() {
        let of_an_operator: DrainNode = serde_json::from_str("{}").unwrap();
        assert_eq!(of_an_operator, DrainNode::default());
        assert_eq!(serde_json::to_string(&of_an_operator).unwrap(), r#"{"rate":5.0}"#);
        let of_the_node = DrainNode {
            asked_by: Asker::Node,
            deadline_ms: Some(30_000),
            ..of_an_operator
        };
        let json = r#"{"rate":5.0,"deadline_ms":30000,"asked_by":"node"}"#;
        assert_eq!(serde_json::to_string(&of_the_node).unwrap(), json);
        assert_eq!(serde_json::from_str::<DrainNode>(json).unwrap(), of_the_node);
    }

    #[test]
    fn a_heartbeat_keeps_its_json() {
        let heartbeat = Heartbeat {
            epoch: Epoch(3),
            beat: 7,
            load: NodeLoad::default(),
            rooms: None,
            connections: Tally::default(),
        };
        let json = r#"{"epoch":3,"beat":7,"load":{"rooms":0,"participants":0,"packets_per_second":0,"cpu_percent":0}}"#;
        assert_eq!(serde_json::to_string(&heartbeat).unwrap(), json);
        assert_eq!(serde_json::from_str::<Heartbeat>(json).unwrap(), heartbeat);
        let of_an_older_version = heartbeat;
        let heartbeat = Heartbeat {
            connections: Tally { ok: 5, failed: 1 },
            ..of_an_older_version
        };
        let json = json.replace("}}", r#"},"connections":{"ok":5,"failed":1}}"#);
        assert_eq!(serde_json::to_string(&heartbeat).unwrap(), json);
        assert_eq!(serde_json::from_str::<Heartbeat>(&json).unwrap(), heartbeat);
        let json = r#"{"lease_ms":2000,"promised":false,"rooms_wanted":true}"#;
        let renewed: Renewed = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&renewed).unwrap(), json);
    }
}
