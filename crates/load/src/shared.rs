//! What all participants have in common: the plan, what to do now, and how far it is.

use std::net::IpAddr;
use std::sync::atomic::AtomicU64;

use tokio::sync::watch;
use tokio_tungstenite::Connector;

use crate::plan::Plan;

/// What everybody does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Some have yet to join.
    Joining,
    /// It counts.
    Measuring,
    /// Nothing more is sent, and what is on its way arrives.
    Ending,
    /// They leave.
    Leaving,
}

/// What all participants have in common.
pub struct Shared {
    /// What is to be done.
    pub plan: Plan,
    /// What requests go through.
    pub http: reqwest::Client,
    /// What WebSockets go through.
    pub tls: Connector,
    /// The address of this machine that the server is reached from.
    pub address: IpAddr,
    /// What to do now.
    pub phase: watch::Receiver<Phase>,
    /// How far it is.
    pub counts: Counts,
}

/// How far it is, for whoever watches.
#[derive(Debug, Default)]
pub struct Counts {
    /// Participants that the server has let in.
    pub joined: AtomicU64,
    /// Participants whose peer connection is up.
    pub connected: AtomicU64,
    /// Participants that failed.
    pub failed: AtomicU64,
    /// Packets that arrived.
    pub packets: AtomicU64,
    /// Bytes in them.
    pub bytes: AtomicU64,
    /// Packets that were sent.
    pub sent: AtomicU64,
}
