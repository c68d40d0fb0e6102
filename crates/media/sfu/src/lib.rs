//! The sans-IO core of one shard: rooms, forwarding, layer selection.
//!
//! **After every `handle_*` call, call [`Shard::poll_output`] until it returns `None`, then wait for a datagram, a request, or
//! [`Shard::poll_timeout`].** Several datagrams that arrived together may be handled before polling: that is cheaper, and makes
//! runs of packets to one destination that can leave in one system call.
//!
//! Nothing here reads a clock, opens a socket or spawns: `now` is an argument everywhere, and never goes back.

mod administer;
pub mod allocation;
pub mod allocator;
pub mod api;
pub mod bandwidth;
mod bridge;
mod budget;
mod clock;
pub mod codec;
mod commands;
mod connection;
mod connections;
mod courses;
mod cut_over;
pub mod data;
pub mod datagram;
pub mod dynacast;
mod egress;
mod encodings;
mod events;
mod hand_over;
mod history;
mod ids;
pub mod layers;
mod loudest;
mod missing;
mod one_offer;
pub mod packet;
mod participant;
mod policer;
mod publish;
pub mod quality;
mod resume;
mod resumption;
pub mod rewrite;
mod room;
mod sdp;
pub mod shard;
pub mod speakers;
mod srtp;
pub mod stun;
mod subscribe;
mod timers;
mod track;
mod transport;
mod tunnels;
pub mod vp8;

use signalbox_srtp::{cipher, keys, reporter, rtcp, rtp, window};

pub use api::{Limits, Output, ShardConfig, ShardStats};
pub use shard::Shard;
