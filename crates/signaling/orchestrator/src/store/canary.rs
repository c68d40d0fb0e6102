//! What the map keeps of the canary share, and of what came of it.

use std::time::Duration;

use signalbox_protocol::NodeId;
use signalbox_protocol::canary::{CanaryChange, ChangedBy, Outcomes};

/// How many changes of the share are kept. Higher: the history goes back further. Lower: fewer rows.
pub const KEPT_CHANGES: u64 = 100;

/// Into stretches of which length outcomes are counted. Higher: fewer rows, and the window's end is less sharp. Lower: the reverse.
pub const BUCKET: Duration = Duration::from_secs(10);

/// What [`Store::canary`](super::Store::canary) sees.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CanaryState {
    /// How often the share has been set; 0: never.
    pub version: u64,
    /// The last time; none: never.
    pub last: Option<CanaryChange>,
    /// What came of joins and connections on stable nodes since then.
    pub stable: Outcomes,
    /// The same on canary nodes.
    pub canary: Outcomes,
}

/// What [`Store::set_canary`](super::Store::set_canary) is told.
#[derive(Debug, Clone, Copy)]
pub struct ShareChange<'a> {
    /// The version that it comes after.
    pub after: u64,
    /// The share until now.
    pub from: f64,
    /// The share from now on, from 0 to 1.
    pub to: f64,
    /// Who; not the configuration.
    pub by: ChangedBy,
    /// Why.
    pub why: &'a str,
}

/// What came of joins and connections on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeOutcomes {
    /// Which.
    pub node: NodeId,
    /// What.
    pub outcomes: Outcomes,
}
