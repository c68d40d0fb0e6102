//! What a node tells of an admitted participant, by itself.

use serde::{Deserialize, Serialize};

use super::{Quality, ResumptionChange, Target};
use crate::placement::Placement;
use crate::room::{ParticipantInfo, ParticipantQuality, RoomInfo, Slot, Speaker};
use crate::{ParticipantId, TrackId};

/// What happened to a participant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// Someone else joined.
    ParticipantJoined {
        /// Who.
        participant: ParticipantInfo,
    },
    /// Someone, perhaps the receiver itself, changed state, name, metadata, attributes or grants.
    ParticipantUpdated {
        /// As it is now.
        participant: ParticipantInfo,
    },
    /// Someone else is gone.
    ParticipantLeft {
        /// As it was last, without tracks.
        participant: ParticipantInfo,
    },
    /// A track can be received, or, to its publisher, has been negotiated.
    TrackPublished {
        /// Whose, as it is now.
        participant: ParticipantInfo,
        /// Which.
        track: TrackId,
    },
    /// A track is gone.
    TrackUnpublished {
        /// Whose, as it is now.
        participant: ParticipantInfo,
        /// Which.
        track: TrackId,
    },
    /// A track was muted or unmuted.
    TrackMuted {
        /// Whose, as it is now.
        participant: ParticipantInfo,
        /// Which.
        track: TrackId,
        /// The new state.
        muted: bool,
    },
    /// Who speaks, as far as it changed.
    Speakers {
        /// The changed ones.
        speakers: Vec<Speaker>,
    },
    /// To the publisher of a track alone, before the [`Event::TrackMuted`]: somebody else muted it.
    MutedRemotely {
        /// Which.
        track: TrackId,
    },
    /// How well participants' connections do, as far as it changed; at most every two seconds.
    Quality {
        /// The changed ones.
        participants: Vec<ParticipantQuality>,
    },
    /// To the publisher of a track alone: which encodings of it anybody receives, in full. What nobody does need not be sent.
    EncodingsWanted {
        /// Which track.
        track: TrackId,
        /// Each codec that it is or can be published in, as [`PublishTrack::codec`](crate::room::PublishTrack::codec) and
        /// [`PublishTrack::backup_codec`](crate::room::PublishTrack::backup_codec) said.
        codecs: Vec<CodecWanted>,
    },
    /// To a subscriber: these tracks are paused because there is no room for them on its connection, or go on.
    StreamStates {
        /// The changed ones.
        streams: Vec<StreamState>,
    },
    /// To a subscriber: a track that it wants cannot be received.
    SubscriptionFailed {
        /// Whose.
        participant: ParticipantId,
        /// Which.
        track: TrackId,
        /// Why.
        reason: SubscriptionFault,
    },
    /// To one participant: it publishes more than its cap, and some of its layers or tracks are not forwarded. At most once a minute.
    PublishLimited {
        /// The cap in bits per second, all its tracks together.
        limit_bps: u64,
    },
    /// To one participant: reliable data messages were dropped by the node since it was last told; they will not arrive. At most every
    /// 300 ms.
    DataLost {
        /// Of those that it sent: it sends too much, or what nobody can take.
        sent: u64,
        /// Of those that were for it: it takes them too slowly.
        received: u64,
    },
    /// Not with [`Transports::Dual`](super::Transports::Dual): these slots carry something else than before.
    Slots {
        /// The changed ones.
        slots: Vec<Slot>,
    },
    /// Not with [`Transports::Dual`](super::Transports::Dual): there are more tracks than slots. With [`Transports::Single`](super::Transports::Single) the client may offer with that many
    /// m-lines more.
    SlotsWanted {
        /// Audio m-lines missing.
        audio: u32,
        /// Video m-lines missing.
        video: u32,
    },
    /// With [`Transports::Dual`](super::Transports::Dual): the node's offer on [`Target::Subscriber`](super::Target::Subscriber). At most one is unanswered at a time.
    Offer {
        /// To be repeated in [`Command::Answer`](super::Command::Answer).
        id: u32,
        /// The SDP.
        sdp: String,
    },
    /// What everyone is told of the room itself has changed: its metadata.
    RoomUpdated {
        /// As it is now.
        room: RoomInfo,
    },
    /// To one participant's gateway: its [`Resumption`](super::Resumption) has changed.
    Resumable {
        /// How.
        change: ResumptionChange,
    },
    /// To one participant's gateway: media can flow on a connection of its, for the first time, or again after it was made anew.
    Connected {
        /// Which.
        target: Target,
    },
    /// To the gateway of a participant that was taken up here: its client has reached this node, but for a second no handshake of DTLS was
    /// done, as with clients that do not begin one anew. It has to join anew.
    MoveStalled {
        /// On which connection.
        target: Target,
    },
    /// The room moves to another node: take the participant up there ([`Join::resume`](super::Join::resume)), then say
    /// [`Command::Moved`](super::Command::Moved). Until then it is still served here.
    Moving {
        /// Where to, with a ticket.
        to: Box<Placement>,
        /// How long it is still served here, in milliseconds.
        within_ms: u64,
    },
    /// Another link has attached the participant: no more of its events come over this one.
    AttachedElsewhere,
    /// The participant is no longer in the room; the last event.
    Closed {
        /// Why.
        reason: CloseReason,
    },
}

/// What is wanted of one codec of a track.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CodecWanted {
    /// Its media type, such as `video/VP9`.
    pub mime_type: String,
    /// The layers to send, lowest first; empty: nobody receives it in this codec. Simulcast layers with the usual RIDs (`q`, `h`, `f` and the
    /// like) have the names of these, others go by their place: the lowest, the second, and from the third, or the highest, on. Of a stream
    /// that holds all its layers, those below the best one are among them; one that has no layers is sent if any is named.
    pub layers: Vec<Quality>,
}

/// Whether a track is sent to a subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StreamState {
    /// Whose.
    pub participant: ParticipantId,
    /// Which.
    pub track: TrackId,
    /// There is no room for it.
    pub paused: bool,
}

/// Why a track cannot be received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SubscriptionFault {
    /// The subscriber can decode none of its codecs.
    Codec,
}

/// Why a participant was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum CloseReason {
    /// It asked to.
    Left,
    /// Somebody who administers the room removed it.
    Removed,
    /// The same identity joined again.
    DuplicateIdentity,
    /// Neither signaling nor media for too long.
    TimedOut,
    /// The room was closed.
    RoomClosed,
    /// The node stops, or lost its lease.
    NodeGone,
    /// A fault in its connection.
    Failed,
}
