//! What a shard takes and gives.

use std::net::SocketAddr;
use std::time::Duration;

use signalbox_protocol::control::Event;
use signalbox_protocol::{Generation, NodeId, ParticipantId, RoomName};

use crate::datagram::Datagram;

/// What a shard is told when it is made.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// The node that it belongs to; reported in [`signalbox_protocol::room::MediaAddress`].
    pub node: NodeId,
    /// The UDP address that clients are told to send to.
    pub public: SocketAddr,
    /// The UDP address that other nodes reach it at; none: the same.
    pub tunnel: Option<SocketAddr>,
    /// The time in milliseconds since 1970 at the `now` that [`crate::Shard::new`] is given.
    pub unix_ms: u64,
    /// What its ids are made from. The same seed and the same input give the same ids. Use a secret one in production: ids
    /// should not be guessable.
    pub seed: [u8; 32],
    /// What it bounds.
    pub limits: Limits,
}

/// What a shard bounds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Participants. Higher: more load before the orchestrator is told to look elsewhere.
    pub participants: usize,
    /// Tracks that one participant publishes, unless its token says fewer.
    pub tracks_per_participant: usize,
    /// Bits per second that one participant publishes, of payloads, all its tracks together, unless its token says less; 0: no
    /// limit. Beyond it layers and then whole pictures are not forwarded. Higher: one participant can fill the links of all
    /// others. Lower: large screens are not seen sharp.
    pub publish_bps: u64,
    /// Datagrams per second that one connection may send, STUN not counted; those of more are dropped before they are decrypted. 0:
    /// no limit. Higher: a flood from within the room costs more. Lower: bursts of legitimate packets are lost.
    pub packets_per_second: u64,
    /// m-lines in an offer. Each costs memory, and time with every packet that the client sends.
    pub media_lines: usize,
    /// Audio tracks of a room that are forwarded at a time: those of the loudest; 0: all. Higher: more packets for everyone in big
    /// rooms. Lower: of many who speak at once, some are not heard.
    pub loudest_audio: usize,
    /// Data messages that one participant may send in a second. Higher: one that sends too much costs more. Lower: files sent in
    /// pieces lose some.
    pub data_messages_per_second: u64,
    /// The same in bytes.
    pub data_bytes_per_second: u64,
    /// How long a participant stays that has neither signaling nor media.
    pub departure: Duration,
    /// How long a stream without a peer connection, or a participant that has no others and no signaling, stays without any sign of
    /// life.
    pub srtp_idle: Duration,
    /// How long an empty room stays open.
    pub empty_room: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            participants: 2_000,
            tracks_per_participant: 16,
            publish_bps: 20_000_000,
            packets_per_second: 5_000,
            media_lines: 128,
            loudest_audio: 10,
            data_messages_per_second: 1_000,
            data_bytes_per_second: 4 * 1024 * 1024,
            departure: Duration::from_secs(15),
            srtp_idle: Duration::from_secs(60),
            empty_room: Duration::from_secs(20),
        }
    }
}

/// What a shard wants done.
#[derive(Debug)]
pub enum Output {
    /// Send this datagram. Those of one destination come in runs.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// What.
        bytes: Datagram,
    },
    /// Tell these participants' gateways.
    Event {
        /// Attached participants.
        to: Vec<ParticipantId>,
        /// What. Boxed, so that the many datagrams do not carry its size.
        event: Box<Event>,
    },
    /// A room has been empty for [`Limits::empty_room`]. It stays until [`crate::Shard::close_room`].
    RoomEmpty {
        /// Which.
        room: RoomName,
        /// In which generation.
        generation: Generation,
    },
}

/// Plain counters since the start, and gauges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Rooms open now.
    pub rooms: u64,
    /// Participants now.
    pub participants: u64,
    /// Entries by which connections are found now.
    pub connections: u64,
    /// Datagrams taken in.
    pub datagrams_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Datagrams put out.
    pub datagrams_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Datagrams passed on between clients and the nodes that their rooms have moved to.
    pub tunneled: u64,
    /// Packets of sound passed on to the node that a room is leaving or going to.
    pub bridged: u64,
    /// RTP packets written to subscribers.
    pub forwarded: u64,
    /// RTP packets that were sent again since a peer missed them.
    pub resent: u64,
    /// RTP packets that a publisher was asked for another time, since it had not sent them again as soon as usual.
    pub asked_again: u64,
    /// RTP packets that were sent to a peer only to measure its network.
    pub padding: u64,
    /// RTP packets that were not sent to a peer: they had waited too long for its network.
    pub dropped_overdue: u64,
    /// RTP packets that could not be sent to a peer: too long for a datagram, or their number had been used.
    pub dropped_unsendable: u64,
    /// What peers asked for and did not get: packets that they cannot have missed, or had asked for too often, and key frames right
    /// after others.
    pub refused_requests: u64,
    /// What peers said about what they receive that cannot be: unreadable, or about what was never sent.
    pub bad_feedback: u64,
    /// Datagrams that are neither STUN, DTLS nor RTP.
    pub dropped_garbage: u64,
    /// Datagrams longer than [`crate::shard::MAX_DATAGRAM_BYTES`].
    pub dropped_oversize: u64,
    /// STUN requests with a username that no connection has, or that fail their integrity check.
    pub dropped_stun: u64,
    /// DTLS from an address that no connection uses.
    pub dropped_unknown: u64,
    /// RTP and RTCP from an address that no connection uses, of an SSRC that no stream has.
    pub dropped_ssrc: u64,
    /// RTP and RTCP of a known SSRC that is not authentic.
    pub dropped_unauthentic: u64,
    /// RTP and RTCP of a known SSRC that was not looked at, because too much of it was not authentic.
    pub dropped_limited: u64,
    /// RTP and RTCP that was taken before, or is too old to tell.
    pub dropped_replayed: u64,
    /// Authentic RTP of another payload type than its stream's.
    pub dropped_payload_type: u64,
    /// Datagrams of a connection that were dropped since it sent more than [`Limits::packets_per_second`].
    pub dropped_flood: u64,
    /// RTP packets that were not forwarded since their publisher sent more than [`Limits::publish_bps`] or its token allow.
    pub dropped_bitrate: u64,
    /// Data messages that were dropped: malformed, too long, or not permitted.
    pub dropped_data: u64,
    /// Data messages that were dropped since their sender sent too many.
    pub dropped_data_rate: u64,
    /// Data messages that were dropped on the way to one receiver, which takes them too slowly or has no data channels.
    pub dropped_data_slow: u64,
    /// Connections that were ended because of an error or a panic in them.
    pub failed_connections: u64,
    /// Connections whose ICE and DTLS came up; not those that came from another node.
    pub connections_up: u64,
    /// Connections whose ICE and DTLS did not come up in time, or that were lost while their client's signaling was there.
    pub connections_failed: u64,
}
