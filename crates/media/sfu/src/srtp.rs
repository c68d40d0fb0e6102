//! Clients without a peer connection: RTP streams, each with an SSRC and a key of its own that the join hands out (RFC 3711; keys as
//! in RFC 4568).
//!
//! Reading order: [`join`] (what a client asks for becomes streams), [`endpoint`] (one client's streams), [`inbound`] and
//! [`outbound`] (one stream each), and below them what each is made of. Rooms and tracks know none of this; to them an
//! [`endpoint::Endpoint`] is one more [`crate::transport::Transport`].
//!
//! The packets' cryptography is here and not a library's because of what it has to be asked: whether a packet is authentic under
//! several rollover counters (a stream that goes on at another node), before anything is remembered of it (a forged packet must not
//! move the replay window), and never to believe RTCP whose encryption bit is off.

pub mod endpoint;
pub mod guard;
pub mod inbound;
pub mod join;
pub mod outbound;
pub mod reception;

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is not what its first bytes say.
    Garbage,
    /// Its tag is wrong, or it is not encrypted.
    Unauthentic,
    /// Too many packets of its stream were not authentic within the last second; it was not looked at.
    Limited,
    /// It was taken before, or is too old to tell.
    Replayed,
    /// It is authentic, but its payload type is not the stream's.
    PayloadType,
}
