//! What carries a participant's media: a peer connection, or streams without one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::codec::{Codec, PayloadFormat};
use crate::connection::{Connection, Fault, Polled};
use crate::packet::{MediaPacket, Mid, OutgoingStream, PayloadType, Rid};
use crate::quality::Report;
use crate::rewrite::Rewritten;
use crate::srtp::endpoint::Endpoint;

/// One way to a client. What all have in common is here; SDP and data channels are for peer connections alone.
pub enum Transport {
    /// ICE, DTLS and what they carry.
    Peer(Box<Connection>),
    /// RTP streams with keys that the join handed out.
    Srtp(Box<Endpoint>),
}

impl Transport {
    /// The peer connection, if it is one.
    pub fn peer(&self) -> Option<&Connection> {
        match self {
            Self::Peer(connection) => Some(connection),
            Self::Srtp(_) => None,
        }
    }

    /// The peer connection, if it is one.
    pub fn peer_mut(&mut self) -> Option<&mut Connection> {
        match self {
            Self::Peer(connection) => Some(connection),
            Self::Srtp(_) => None,
        }
    }

    /// The client's signaling is there.
    pub fn keep(&mut self, now: Instant) {
        match self {
            // Its checks say whether it is there.
            Self::Peer(_) => {}
            Self::Srtp(endpoint) => endpoint.keep(now),
        }
    }

    /// The stream that is sent on an m-line.
    pub fn outgoing(&self, mid: Mid) -> Option<OutgoingStream> {
        match self {
            Self::Peer(connection) => connection.outgoing(mid),
            Self::Srtp(endpoint) => endpoint.outgoing(mid),
        }
    }

    /// Whether the client can take a codec on an m-line. None: one that is not known yet, which it may.
    pub fn can_take(&self, mid: Mid, codec: Option<Codec>) -> bool {
        match self {
            Self::Peer(connection) => connection.can_take(mid, codec),
            // Its slots have one codec each, and say so themselves.
            Self::Srtp(_) => true,
        }
    }

    /// The payload type of a format on an m-line, if the client can take it.
    pub fn payload_type(&self, mid: Mid, format: PayloadFormat) -> Option<PayloadType> {
        match self {
            Self::Peer(connection) => connection.payload_type(mid, format),
            Self::Srtp(endpoint) => endpoint.payload_type(mid, format),
        }
    }

    /// Queues a packet on an outgoing stream.
    pub fn write(
        &mut self,
        now: Instant,
        stream: OutgoingStream,
        kind: PayloadType,
        packet: &Arc<MediaPacket>,
        rewritten: &Rewritten,
    ) -> bool {
        match self {
            Self::Peer(connection) => connection.write(now, stream, kind, packet, rewritten),
            Self::Srtp(endpoint) => endpoint.write(stream, packet, rewritten),
        }
    }

    /// Queues an empty packet of this number: it closes a gap of which the receiver must not wait for anything.
    pub fn write_empty(&mut self, stream: OutgoingStream, kind: PayloadType, sequence: u64, timestamp: u32) {
        match self {
            Self::Peer(connection) => connection.write_empty(stream, kind, sequence, timestamp),
            // Its receivers wait for nothing.
            Self::Srtp(_) => {}
        }
    }

    /// What was queued or sent on a stream so far is of no more use to anyone: a key frame follows. On a network that takes less than was
    /// sent, repairing it would hold up what is.
    pub fn forget(&mut self, stream: OutgoingStream) {
        if let Self::Peer(connection) = self {
            connection.forget(stream);
        }
    }

    /// What may be sent to the client in all, in bits per second; none: nobody measures it, so everything fits.
    pub fn estimate(&self) -> Option<u64> {
        self.peer().and_then(Connection::estimate)
    }

    /// How much would be of use at most, in bits per second. Nothing beyond it is probed for.
    pub fn set_wanted(&mut self, now: Instant, bps: u64) {
        if let Some(connection) = self.peer_mut() {
            connection.set_wanted(now, bps);
        }
    }

    /// Bits per second of sound and of repair that were sent to the client lately.
    pub fn overhead(&self, now: Instant) -> u64 {
        self.peer().map_or(0, |connection| connection.overhead(now))
    }

    /// Asks the client for a key frame of a layer.
    pub fn request_key_frame(&mut self, now: Instant, mid: Mid, rid: Option<Rid>) {
        match self {
            Self::Peer(connection) => connection.request_key_frame(mid, rid),
            Self::Srtp(endpoint) => endpoint.request_key_frame(now, mid),
        }
    }

    /// Asks the client to send no more than so many bits per second in all (draft-alvestrand-rmcat-remb), in the name of one of its layers.
    pub fn limit_incoming(&mut self, mid: Mid, rid: Option<Rid>, bps: u64) {
        match self {
            Self::Peer(connection) => connection.limit_incoming(mid, rid, bps),
            // What sends plain RTP has no congestion control that it could tell.
            Self::Srtp(_) => {}
        }
    }

    /// What it has reported last of how well it does.
    pub fn report(&self) -> Report {
        match self {
            Self::Peer(connection) => connection.report(),
            Self::Srtp(endpoint) => endpoint.report(),
        }
    }

    /// The next thing to do. Must be called until [`Polled::Idle`] after anything else.
    pub fn poll(&mut self, now: Instant) -> Result<Polled, Fault> {
        match self {
            Self::Peer(connection) => connection.poll(now),
            Self::Srtp(endpoint) => Ok(endpoint.poll(now)),
        }
    }

    /// Takes a datagram from an address that is bound to a peer connection, which came to the shard's address or `by` another.
    /// `Ok(false)`: it is none that one can take.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        by: Option<SocketAddr>,
        source: SocketAddr,
        datagram: &[u8],
    ) -> Result<bool, Fault> {
        match self {
            Self::Peer(connection) => connection.handle_datagram(now, by, source, datagram),
            Self::Srtp(_) => Ok(false),
        }
    }
}
