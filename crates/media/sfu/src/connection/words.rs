//! What a peer connection is asked for, and what it tells.

use std::net::SocketAddr;
use std::time::Instant;

use signalbox_protocol::room::Kind;
use str0m::RtcError;
use str0m::channel::ChannelId;

use crate::data::Delivery;
use crate::datagram::Datagram;
use crate::packet::{MediaPacket, Mid};

/// A connection that cannot go on, or input that it cannot take.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The SDP does not parse, or cannot be negotiated. The connection is as it was.
    #[error("{0}")]
    Sdp(String),
    /// The connection is over.
    #[error("the WebRTC stack failed: {0}")]
    Stack(#[from] RtcError),
    /// A bug in the stack, caught. The connection is over.
    #[error("the WebRTC stack panicked")]
    Panicked,
}

/// What a connection wants done, or tells.
pub enum Polled {
    /// Send this.
    Datagram {
        /// By which of its addresses; none: the shard's.
        by: Option<SocketAddr>,
        /// Where to.
        to: SocketAddr,
        /// What.
        bytes: Datagram,
    },
    /// Something happened.
    Event(ConnectionEvent),
    /// Nothing until then.
    Idle(Instant),
}

/// What happened on a connection.
pub enum ConnectionEvent {
    /// ICE and DTLS are up.
    Connected,
    /// ICE has had no check for a long time. It may come back.
    Disconnected,
    /// The peer closed it.
    Closed,
    /// Media arrived.
    Packet(MediaPacket),
    /// The peer does not send, or does not receive, a stream any more.
    StreamEnded(Mid),
    /// The peer needs a key frame on an m-line that we send on.
    KeyFrameWanted(Mid),
    /// What may be sent to the peer has changed noticeably: see [`Connection::estimate`].
    Estimate,
    /// A data channel can be written to; on this SCTP stream (RFC 8832 section 6).
    ChannelOpen(Channel, Delivery, u16),
    /// A data channel is gone.
    ChannelClosed(Channel),
    /// A data channel has room again.
    ChannelDrained,
    /// A message arrived.
    Message(Channel, Vec<u8>),
}

/// A data channel of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel(pub(super) ChannelId);

/// An m-line to be added to our next offer, on which we send.
#[derive(Debug, Clone)]
pub struct NewLine {
    /// Sound or picture.
    pub kind: Kind,
    /// The first part of `a=msid`.
    pub stream_id: String,
    /// The second part of `a=msid`.
    pub track_id: String,
}

/// What our next offer changes.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// m-lines to add.
    pub add: Vec<NewLine>,
    /// m-lines to stop sending on.
    pub stop: Vec<Mid>,
    /// New ICE credentials.
    pub restart_ice: bool,
    /// Data channels to add.
    pub channels: Vec<Delivery>,
}
