//! A media node: sockets, threads, control link and heartbeats around the sans-IO core of `signalbox-sfu`.
//!
//! ```text
//!  gateways ──WebSocket──▶ control ─▶ link_task ─▶ node ─▶ rooms ──commands──▶ shard_thread ×N ──▶ host ─▶ core
//!                                        ▲                                        │    ▲
//!                                        └──────────── link: replies, events ─────┘    └─ media_socket ◀──UDP──▶ clients
//!  orchestrators ◀──HTTP── orchestrators ◀─ registration (tenure, lease), closing (empty rooms), drain (the node's own end)
//!                └──HTTP──▶ control ─▶ hand_off (rooms that go to other nodes; `moves`)
//! ```
//!
//! As a process of its own it has a [`supervisor`] behind it, which must not know any of this.
//!
//! Each shard is a thread of its own with its own UDP port; the rest runs on the caller's runtime and never touches a packet.
//! What the threads share is small and locked for moments: the lease, the table of rooms, counters.
//!
//! - A request goes to its room's shard through a bounded queue, and is refused when that is full. The shard puts the reply into the
//!   link's bounded queue itself, so order is kept and nobody waits; a gateway that reads too slowly loses its link (`link`).
//! - A room is hosted in one generation, which never opens again once it is closed (`rooms`, `closing`).
//! - A node without a lease hosts nothing; the shards themselves see to it ([`lease`]). When to ask whom for one, and what the answers
//!   mean, is a state machine without I/O ([`tenure`]), which `registration` drives; simulations can drive the same one.
//!
//! The crate must not know PostgreSQL, HTTP clients or any client dialect.

pub mod asks;
mod backoff;
mod closing;
mod config;
mod control;
mod counters;
mod drain;
mod hand_off;
mod handle;
mod host;
mod latency;
pub mod lease;
mod link;
mod link_task;
mod load;
mod media_socket;
mod metrics;
mod moves;
mod node;
mod orchestrators;
mod registration;
pub mod rooms;
mod run;
mod send_run;
mod shard_command;
mod shard_thread;
pub mod supervisor;
pub mod tenure;
pub mod tickets;

use std::io;
use std::net::SocketAddr;

pub use config::Config;
pub use handle::Handle;
pub use media_socket::bind_media;
pub use run::run;

/// Why a media node cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration makes no sense; the text is a sentence for the operator.
    #[error("{0}")]
    Config(String),
    /// The orchestrator will never register this node; the text is its sentence.
    #[error("the orchestrator refuses to register this node: {0}")]
    Refused(String),
    /// The task that keeps the node registered has panicked.
    #[error("the node cannot keep itself registered: {0}")]
    Registration(#[source] tokio::task::JoinError),
    /// A shard's UDP socket cannot be bound.
    #[error("cannot bind the media address {address}: {source}")]
    BindMedia {
        /// Where it was to be.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A shard's thread cannot be started.
    #[error("cannot start shard {index}: {source}")]
    StartShard {
        /// Which.
        index: usize,
        /// Why not.
        source: io::Error,
    },
    /// The HTTP client for the orchestrators cannot be made.
    #[error("cannot make the client for the orchestrators: {0}")]
    HttpClient(#[source] reqwest::Error),
    /// The supervisor cannot start a worker, or wait for one.
    #[error("cannot run the node's process: {0}")]
    Supervise(#[source] io::Error),
    /// The control listener has failed.
    #[error("the control listener failed: {0}")]
    Control(#[source] io::Error),
}
