//! Admission: what a gateway says of a client that joins, and what it is told back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Quality, Resume, Snapshot};
use crate::room::{Grants, MediaAddress, PublishTrack};
use crate::srtp::{SrtpRequest, SrtpSession};
use crate::{Identity, RoomName};

/// Admission of a participant to a room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// The orchestrator's signed ticket; see [`crate::ticket`].
    pub ticket: String,
    /// The room. Opened if the node does not have it.
    pub room: RoomName,
    /// Who. A participant of the room with the same identity is closed with [`CloseReason::DuplicateIdentity`](super::CloseReason::DuplicateIdentity).
    pub identity: Identity,
    /// A name to show; may be empty.
    pub name: String,
    /// Free text.
    pub metadata: String,
    /// Free key-value pairs.
    pub attributes: BTreeMap<String, String>,
    /// What it may do.
    pub grants: Grants,
    /// What it may use; see [`ParticipantLimits`].
    #[serde(default)]
    pub limits: ParticipantLimits,
    /// How the client connects.
    pub transports: Transports,
    /// Subscribe it to every track, present and future.
    pub auto_subscribe: bool,
    /// Its pictures are never paused for want of room on its connection: the lowest layer of each is sent all the same.
    #[serde(default)]
    pub never_pause: bool,
    /// Send its events over this link from the reply on.
    pub attach: bool,
    /// Tracks that it is about to publish.
    #[serde(default)]
    pub publish: Vec<PublishTrack>,
    /// The SDP offer of [`Transports::Single`]; answered in [`Joined::answer`].
    #[serde(default)]
    pub offer: Option<String>,
    /// With [`Transports::Single`]: the offer is the client's last, and serves one purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_offer: Option<OneOffer>,
    /// The streams of [`Transports::Srtp`]; answered in [`Joined::srtp`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub srtp: Option<SrtpRequest>,
    /// See [`ParticipantInfo::dialect_info`](crate::room::ParticipantInfo::dialect_info).
    #[serde(default)]
    pub dialect_info: Option<String>,
    /// It was in the room at another node. What this says goes before what the fields above say; of [`Transports::Srtp`] the streams are in `srtp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Box<Resume>>,
}

/// What one participant may use, as its token says. The node's own limits hold as well; the lower one counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParticipantLimits {
    /// Bits per second that it publishes, all its tracks together; none: as many as the node allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_bps: Option<u64>,
    /// Tracks that it publishes at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracks: Option<u32>,
    /// The highest quality that it receives of any track.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_quality: Option<Quality>,
    /// Bits per second that it receives, all tracks together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_bps: Option<u64>,
}

impl ParticipantLimits {
    /// Whether the node's own limits alone count.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How a client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transports {
    /// One peer connection; the client always offers. Its sending m-lines are published (one that no [`PublishTrack`] names gets
    /// the source that its kind suggests), its receiving m-lines are [`Slot`](crate::room::Slot)s.
    Single,
    /// Two peer connections: the client offers on the publisher's, the node offers on the subscriber's ([`Event::Offer`](super::Event::Offer)), one
    /// m-line for each track, with data channels on both.
    Dual,
    /// No peer connection: RTP streams with keys that the join hands out ([`Joined::srtp`]), of which the received ones are [`Slot`](crate::room::Slot)s.
    Srtp,
}

/// The purpose of a client that offers once: it negotiates nothing afterwards but ICE, by [`Command::PatchIce`](super::Command::PatchIce). An offer that could
/// be used in part only is refused as a whole (RFC 9725 section 4.4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OneOffer {
    /// To publish on each of its m-lines (WHIP).
    Publish,
    /// To receive on each of its m-lines (WHEP). Refused with [`RefusalReason::NothingLive`](super::RefusalReason::NothingLive) while nobody publishes; an offer that can
    /// receive nothing of what is published is answered with [`Joined::counter_offer`].
    Receive,
}

/// An admitted participant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Joined {
    /// The room and everyone in it.
    pub snapshot: Snapshot,
    /// Where its media goes.
    pub media: MediaAddress,
    /// The answer to [`Join::offer`].
    pub answer: Option<String>,
    /// The node's offer instead of an answer; see [`OneOffer::Receive`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter_offer: Option<CounterOffer>,
    /// With [`Join::one_offer`]: names the connection's ICE session until ICE is restarted. Letters and digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ice_session: Option<String>,
    /// The answer to [`Join::srtp`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub srtp: Option<SrtpSession>,
    /// To [`Resume::tunnels`](super::Resume::tunnels): all of them are used, so that the client's ICE sessions go on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_ice: bool,
}

/// An offer of the node for a client whose own offer does not fit what is published, to be answered with [`Command::Answer`](super::Command::Answer).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterOffer {
    /// The SDP.
    pub sdp: String,
    /// How long the node waits for the answer, in seconds; then the participant is gone.
    pub valid_seconds: u32,
}

/// The [`Command::Answer::id`](super::Command::Answer::id) of an answer to [`Joined::counter_offer`].
pub const COUNTER_OFFER_ID: u32 = 1;
