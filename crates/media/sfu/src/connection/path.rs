//! Where the peer is, and by which address it is reached: the shard's own, or that of the node that the connection goes on from.

use std::net::SocketAddr;

use str0m::{Candidate, RtcError};

use super::{Connection, Polled};
use crate::datagram::Datagram;
use crate::sdp;

/// How much an address is preferred to others (RFC 8445 section 5.1.2.1: 0 to 65535): that of the first node that an ICE session has. That of each
/// further one is preferred by one more, as a client keeps to the path that it has unless there is a better one.
const LOCAL_PREFERENCE: u32 = 0x8000;

/// A way to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// The node's address.
    pub by: SocketAddr,
    /// The peer's.
    pub to: SocketAddr,
}

/// What of an ICE session is decided before it begins.
pub struct Session {
    /// At least 4 characters (RFC 8445 section 5.3).
    pub ufrag: String,
    /// At least 22 characters.
    pub password: String,
    /// It goes on from another node's; none: it begins.
    pub from: Option<Former>,
}

/// The node that an ICE session goes on from.
#[derive(Debug, Clone, Copy)]
pub struct Former {
    /// Over which the client is reached until it has found this node.
    pub via: SocketAddr,
    /// How many nodes the session has had.
    pub moves: u8,
    /// What the client's network took from that node, in bits per second; none: it was not measured.
    pub estimate_bps: Option<u64>,
}

/// An ICE session as it is.
pub struct Ice {
    /// The node's ufrag.
    pub ufrag: String,
    /// The node's password.
    pub password: String,
    /// The client's ufrag.
    pub client_ufrag: String,
    /// How many nodes it has had before this one.
    pub moves: u8,
}

impl Connection {
    /// Its ICE session; none: the client has not named its own part yet.
    pub fn ice(&mut self) -> Option<Ice> {
        let own = self.rtc.direct_api().local_ice_credentials();
        Some(Ice {
            ufrag: own.ufrag,
            password: own.pass,
            client_ufrag: self.client_ufrag.clone()?,
            moves: self.moves,
        })
    }

    /// What sends this on a path.
    pub(super) fn datagram(&self, path: Path, bytes: Datagram) -> Polled {
        Polled::Datagram {
            by: (path.by != self.public).then_some(path.by),
            to: path.to,
            bytes,
        }
    }

    /// The client knows the former node's address already.
    pub(super) fn own_candidates(&self, description: String) -> String {
        match self.via {
            Some(via) => sdp::without_candidate(&description, via),
            None => description,
        }
    }
}

/// An address of ours, of the node that is the `moves`th further one of its ICE session.
pub fn candidate(address: SocketAddr, moves: u8) -> Result<Candidate, RtcError> {
    let priority = (126 << 24) | ((LOCAL_PREFERENCE + u32::from(moves)) << 8) | 255;
    let text = format!(
        "candidate:1 1 udp {priority} {} {} typ host",
        address.ip(),
        address.port()
    );
    Candidate::from_sdp_string(&text).map_err(RtcError::Ice)
}
