//! What a [`Tenure`](super::Tenure) wants to be done, and what it is told.

use std::time::Duration;

use signalbox_protocol::Epoch;
use signalbox_protocol::node::{Registered, Renewed, RoomDigest};

use crate::lease::{Boottime, Held};

/// A request to one orchestrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Which round of requests it belongs to. Once there is a request of a later round, answers to this one are ignored, and it
    /// may be dropped.
    pub round: u64,
    /// Which orchestrator, counted from 0 in the configured order.
    pub orchestrator: usize,
    /// When it was given out: what the answer grants counts from then, so it must be sent after it.
    pub sent: Boottime,
    /// How long its answer is waited for.
    pub within: Duration,
    /// What is asked.
    pub question: Question,
}

/// What an [`Ask`] asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// [`signalbox_protocol::node::RegisterNode`].
    Register {
        /// The epoch that it comes after, as far as the node knows.
        after: Epoch,
    },
    /// [`signalbox_protocol::node::Heartbeat`].
    Beat {
        /// Its epoch.
        epoch: Epoch,
        /// Its number: each request of the epoch has one of its own, greater than those before.
        beat: u64,
        /// Whether it names the node's rooms.
        rooms: bool,
    },
}

/// What came of an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 200 to a registration.
    Registered(Registered),
    /// 200 to a heartbeat.
    Renewed(Renewed),
    /// 409 to a registration: the node's epoch is this one.
    Behind(Epoch),
    /// 409 to a heartbeat: a later one came first. Neither a failure nor a renewal.
    Past,
    /// 410 to a heartbeat: the epoch is over.
    Over,
    /// 400: the request will never be accepted. The orchestrator's sentence.
    Refused(String),
    /// Anything else, or nothing at all. Why, for the log.
    Failed(String),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this request, and hand its answer to [`super::Tenure::handle_answer`]. One that gets none may be forgotten.
    Ask(Ask),
    /// Close all rooms and forget them. The lease is revoked already. Only afterwards go on to poll.
    Fence {
        /// The epoch that has ended.
        epoch: Epoch,
        /// Why.
        why: Lost,
    },
    /// Close these rooms, those that are still hosted in exactly these generations: they are not this node's.
    Close(Vec<RoomDigest>),
    /// End the node: it can never be registered. The orchestrator's sentence.
    GiveUp(String),
    /// Nothing needs to be done; for logs and counters.
    Note(Note),
}

/// Why an epoch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// An orchestrator said so.
    Over,
    /// The deadline passed.
    Expired,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// An epoch has begun.
    Registered(Held),
    /// A registration failed, and why; there will be more attempts.
    NotRegistered(String),
    /// A round of heartbeats: one orchestrator has confirmed.
    Renewed,
    /// A round of heartbeats: none has confirmed, but promises keep the lease.
    Promised,
    /// A round of heartbeats in vain, and why.
    Missed(String),
}
