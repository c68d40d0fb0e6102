//! Gateway ↔ media node: one WebSocket per pair at [`PATH`], each message one JSON frame of at most [`MAX_FRAME_BYTES`].
//!
//! The gateway sends [`RequestFrame`]s, each with an id of its own choosing and a deadline; the node answers every one with exactly
//! one [`NodeFrame::Reply`], in any order, and pushes [`NodeFrame::Event`]s. Events of one participant arrive in order, and
//! after the reply to the request that attached the participant to the link.
//!
//! A participant's events go to the link that attached it last ([`Join::attach`], [`Command::Attach`]); one that had attached it before
//! is told so ([`Event::AttachedElsewhere`]). Nobody attached: they are dropped, and [`Command::Attach`] answers with a [`Snapshot`]
//! that makes up for them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::room::{
    Grants, GrantsUpdate, MediaAddress, ParticipantInfo, ParticipantQuality, PublishTrack, RoomInfo, Slot, Speaker,
    TrackInfo,
};
use crate::srtp::{SrtpRequest, SrtpSession};
use crate::{Identity, ParticipantId, RoomName, TrackId};

/// Where a media node's control listener takes the WebSocket.
pub const PATH: &str = "/v1/control";

/// The longest frame, in bytes; a longer one ends the link. Higher: more memory per link. Lower: big rooms do not fit in a
/// [`Snapshot`].
pub const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;

/// A request of the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestFrame {
    /// Chosen by the gateway, unique on the link while the request is under way.
    pub id: u64,
    /// How long the gateway waits, in milliseconds. A node that cannot start in that time refuses instead.
    pub deadline_ms: u32,
    /// What is asked.
    pub request: Request,
}

/// What the node sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum NodeFrame {
    /// The answer to a [`RequestFrame`].
    Reply {
        /// The request's id.
        id: u64,
        /// What came of it.
        result: Outcome,
    },
    /// Something happened to these participants, all attached to this link.
    Event {
        /// Whom it concerns.
        to: Vec<ParticipantId>,
        /// What.
        event: Event,
    },
}

/// A [`Reply`] or a [`Refusal`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done.
    Ok(Reply),
    /// Not done.
    Refused(Refusal),
}

impl From<Result<Reply, Refusal>> for Outcome {
    fn from(result: Result<Reply, Refusal>) -> Self {
        match result {
            Ok(reply) => Outcome::Ok(reply),
            Err(refusal) => Outcome::Refused(refusal),
        }
    }
}

/// What a gateway asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Request {
    /// Open a room, or find it open. Answered with [`Reply::Opened`]. A room that nobody joins is closed again after a while.
    Open {
        /// The orchestrator's signed ticket; see [`crate::ticket`].
        ticket: String,
        /// The room.
        room: RoomName,
    },
    /// Admit a participant. Answered with [`Reply::Joined`].
    Join(Box<Join>),
    /// Do something for a participant that was admitted before, by whichever gateway.
    Participant {
        /// Its room.
        room: RoomName,
        /// Which.
        participant: ParticipantId,
        /// Who it is by its token; another identity's participant is refused as if it did not exist.
        identity: Identity,
        /// What.
        command: Command,
    },
    /// Administer a room, without being in it. A room that is not here is refused with [`RefusalReason::NoRoom`] and not opened. The
    /// gateway has checked that the caller may.
    Administer {
        /// The room.
        room: RoomName,
        /// What.
        command: RoomCommand,
    },
}

/// What a gateway asks of a room on behalf of somebody who administers it. `participant` is a participant's id or, if there is no such
/// id, its identity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RoomCommand {
    /// Tell the room and everyone in it, the hidden ones too. Answered with [`Reply::Room`].
    List,
    /// Tell one participant. Answered with [`Reply::Participant`].
    Find {
        /// Which.
        participant: String,
    },
    /// Change a participant. Answered with [`Reply::Participant`].
    Update {
        /// Which.
        participant: String,
        /// How.
        update: Box<ParticipantUpdate>,
    },
    /// Mute or unmute a participant's track.
    Mute {
        /// Whose.
        participant: String,
        /// Which.
        track: TrackId,
        /// The new state.
        muted: bool,
    },
    /// End a participant's track.
    Unpublish {
        /// Whose.
        participant: String,
        /// Which.
        track: TrackId,
    },
    /// Close a participant with [`CloseReason::Removed`].
    Remove {
        /// Which.
        participant: String,
    },
}

/// What is to change of a participant; what is not named stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ParticipantUpdate {
    /// The new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The new metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
    /// These attributes are set; an empty value removes one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// What it may do from now on. What is taken away takes effect: its tracks end, it receives no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<GrantsUpdate>,
}

/// Admission of a participant to a room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// The orchestrator's signed ticket; see [`crate::ticket`].
    pub ticket: String,
    /// The room. Opened if the node does not have it.
    pub room: RoomName,
    /// Who. A participant of the room with the same identity is closed with [`CloseReason::DuplicateIdentity`].
    pub identity: Identity,
    /// A name to show; may be empty.
    pub name: String,
    /// Free text.
    pub metadata: String,
    /// Free key-value pairs.
    pub attributes: BTreeMap<String, String>,
    /// What it may do.
    pub grants: Grants,
    /// How the client connects.
    pub transports: Transports,
    /// Subscribe it to every track, present and future.
    pub auto_subscribe: bool,
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
    /// See [`ParticipantInfo::dialect_info`].
    #[serde(default)]
    pub dialect_info: Option<String>,
}

/// How a client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transports {
    /// One peer connection; the client always offers. Its sending m-lines are published (one that no [`PublishTrack`] names gets
    /// the source that its kind suggests), its receiving m-lines are [`Slot`]s.
    Single,
    /// Two peer connections: the client offers on the publisher's, the node offers on the subscriber's ([`Event::Offer`]), one
    /// m-line for each track, with data channels on both.
    Dual,
    /// No peer connection: RTP streams with keys that the join hands out ([`Joined::srtp`]), of which the received ones are [`Slot`]s.
    Srtp,
}

/// The purpose of a client that offers once: it negotiates nothing afterwards but ICE, by [`Command::PatchIce`]. An offer that could
/// be used in part only is refused as a whole (RFC 9725 section 4.4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OneOffer {
    /// To publish on each of its m-lines (WHIP).
    Publish,
    /// To receive on each of its m-lines (WHEP). Refused with [`RefusalReason::NothingLive`] while nobody publishes; an offer that can
    /// receive nothing of what is published is answered with [`Joined::counter_offer`].
    Receive,
}

/// Which peer connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The one that the client offers. With [`Transports::Single`] the only one.
    Publisher,
    /// The one that the node offers.
    Subscriber,
}

/// What a gateway asks for an admitted participant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Command {
    /// Send its events over this link from the reply on. Answered with [`Reply::Snapshot`].
    Attach,
    /// Its client's signaling connection is gone. It stays for a while if its media flows, or until it is attached again.
    Detach,
    /// The client offers on [`Target::Publisher`]; answered with [`Reply::Answer`]. New ICE credentials restart ICE.
    Offer {
        /// The SDP.
        sdp: String,
    },
    /// The client's answer to [`Event::Offer`] or [`Joined::counter_offer`].
    Answer {
        /// [`Event::Offer`]'s id; [`COUNTER_OFFER_ID`] for the other.
        id: u32,
        /// The SDP.
        sdp: String,
    },
    /// Restart ICE on [`Target::Subscriber`]: an [`Event::Offer`] with new credentials follows.
    RestartIce,
    /// A candidate of the client (RFC 8839 `candidate:…`). The node is ICE-lite and learns addresses from checks; this is a hint.
    Candidate {
        /// For which connection.
        target: Target,
        /// The attribute's value.
        candidate: String,
    },
    /// Of a client that offers once ([`Join::one_offer`]): candidates, or new ICE credentials (RFC 8840). Answered with [`Reply::Done`] to
    /// candidates, with [`Reply::IceRestarted`] to new credentials; those that are current already restart nothing. Refused
    /// with [`RefusalReason::StaleIce`] when it is for another ICE session, with [`RefusalReason::Unsupported`] when ICE cannot be restarted.
    PatchIce {
        /// The ICE sessions ([`Joined::ice_session`]) that it is for; empty: any, and a restart is wanted.
        sessions: Vec<String>,
        /// An SDP fragment.
        fragment: String,
    },
    /// A track is about to be published. Answered with [`Reply::Published`]; again with the same `cid`: the same track.
    Publish(Box<PublishTrack>),
    /// End a track.
    Unpublish {
        /// Which.
        track: TrackId,
    },
    /// Mute or unmute an own track: nothing of a muted track is forwarded.
    Mute {
        /// Which.
        track: TrackId,
        /// The new state.
        muted: bool,
    },
    /// Receive these tracks, or stop to.
    Subscribe {
        /// Which; unknown ones are ignored.
        tracks: Vec<TrackId>,
        /// Receive, or stop to.
        subscribed: bool,
    },
    /// How these tracks are to be received.
    Prefer {
        /// Which; unknown ones are ignored.
        tracks: Vec<TrackId>,
        /// How.
        preference: Preference,
    },
    /// Change what the others see. Refused without the grant.
    Update {
        /// The new name; none: as it is.
        #[serde(default)]
        name: Option<String>,
        /// The new metadata; none: as it is.
        #[serde(default)]
        metadata: Option<String>,
        /// These attributes are set; an empty value removes one.
        #[serde(default)]
        attributes: BTreeMap<String, String>,
    },
    /// Leave the room.
    Leave,
}

/// How a subscriber wants a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preference {
    /// Send it at all; false pauses it without renegotiation.
    pub enabled: bool,
    /// The most that is of use; none: the best.
    pub quality: Option<Quality>,
    /// The width in pixels that it is shown at; 0: not said. Used when `quality` is none.
    pub width: u32,
    /// The height in pixels that it is shown at; 0: not said. Used when `quality` is none.
    pub height: u32,
}

impl Default for Preference {
    fn default() -> Self {
        Self {
            enabled: true,
            quality: None,
            width: 0,
            height: 0,
        }
    }
}

/// A rung of a simulcast ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Quality {
    /// The lowest layer.
    Low,
    /// The middle layer.
    Medium,
    /// The highest layer.
    High,
}

/// What the node answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Open`].
    Opened {
        /// Where the room's media goes.
        media: MediaAddress,
    },
    /// To [`Request::Join`].
    Joined(Box<Joined>),
    /// To [`Command::Attach`].
    Snapshot(Box<Snapshot>),
    /// To [`Command::Offer`].
    Answer {
        /// The SDP.
        sdp: String,
    },
    /// To [`Command::Publish`].
    Published {
        /// The track, with its id.
        track: Box<TrackInfo>,
    },
    /// To [`Command::PatchIce`], when it has new credentials.
    IceRestarted {
        /// See [`Joined::ice_session`].
        session: String,
        /// The node's credentials and candidates, as an SDP fragment.
        fragment: String,
    },
    /// To [`RoomCommand::List`].
    Room {
        /// The room.
        room: RoomInfo,
        /// Everyone in it.
        participants: Vec<ParticipantInfo>,
    },
    /// To [`RoomCommand::Find`] and [`RoomCommand::Update`].
    Participant {
        /// As it is now.
        participant: Box<ParticipantInfo>,
    },
    /// To everything else.
    Done,
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
}

/// An offer of the node for a client whose own offer does not fit what is published, to be answered with [`Command::Answer`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterOffer {
    /// The SDP.
    pub sdp: String,
    /// How long the node waits for the answer, in seconds; then the participant is gone.
    pub valid_seconds: u32,
}

/// The [`Command::Answer::id`] of an answer to [`Joined::counter_offer`].
pub const COUNTER_OFFER_ID: u32 = 1;

/// All that a participant's events have told so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The room.
    pub room: RoomInfo,
    /// The participant itself.
    pub participant: ParticipantInfo,
    /// Everyone else who is not hidden.
    pub others: Vec<ParticipantInfo>,
    /// Who is speaking.
    pub speakers: Vec<Speaker>,
    /// Every slot; with [`Transports::Dual`] there are none.
    pub slots: Vec<Slot>,
    /// How well everyone's connection does, as far as it is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub qualities: Vec<ParticipantQuality>,
    /// Where its media goes; none in [`Joined`], which says it itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<MediaAddress>,
    /// With [`Transports::Srtp`], its streams, without proofs: what a gateway needs to put it back into its room at another node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub srtp: Option<Box<SrtpSession>>,
    /// Who left within the last minute: a client that lost its signaling meanwhile was not told, and a gateway that did not serve it
    /// before cannot know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub departed: Vec<Departed>,
}

/// A participant that left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departed {
    /// Who.
    pub identity: Identity,
    /// Which stay.
    pub participant: ParticipantId,
}

/// Why a request was not done, with a sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The kind, for programs.
    pub reason: RefusalReason,
    /// The sentence, for people.
    pub detail: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(reason: RefusalReason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

/// Kinds of [`Refusal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// The ticket is not for this node's epoch, this room or its generation, or it is expired or forged: ask the orchestrator anew.
    Ticket,
    /// The room is being closed here: ask the orchestrator anew, in a moment.
    Closing,
    /// The node takes no more: ask the orchestrator anew.
    Full,
    /// There is no such room here (any more).
    NoRoom,
    /// There is no such participant here (any more): join again.
    NoParticipant,
    /// There is no such track.
    NoTrack,
    /// The SDP cannot be used.
    Sdp,
    /// Nothing is published that the participant could receive: ask again later.
    NothingLive,
    /// The ICE session that it is for is over.
    StaleIce,
    /// This participant's connection cannot do it.
    Unsupported,
    /// The participant's grants do not allow it.
    NotPermitted,
    /// The request makes no sense in this state, or at all.
    Invalid,
    /// The request's deadline passed, or the queue is full.
    Overloaded,
    /// A fault of the node.
    Internal,
}

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
    /// Not with [`Transports::Dual`]: these slots carry something else than before.
    Slots {
        /// The changed ones.
        slots: Vec<Slot>,
    },
    /// Not with [`Transports::Dual`]: there are more tracks than slots. With [`Transports::Single`] the client may offer with that many
    /// m-lines more.
    SlotsWanted {
        /// Audio m-lines missing.
        audio: u32,
        /// Video m-lines missing.
        video: u32,
    },
    /// With [`Transports::Dual`]: the node's offer on [`Target::Subscriber`]. At most one is unanswered at a time.
    Offer {
        /// To be repeated in [`Command::Answer`].
        id: u32,
        /// The SDP.
        sdp: String,
    },
    /// Another link has attached the participant: no more of its events come over this one.
    AttachedElsewhere,
    /// The participant is no longer in the room; the last event.
    Closed {
        /// Why.
        reason: CloseReason,
    },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_keep_their_json() {
        let frame = RequestFrame {
            id: 7,
            deadline_ms: 5000,
            request: Request::Participant {
                room: "daily".parse().unwrap(),
                participant: ParticipantId::new("PA_a"),
                identity: "ann".parse().unwrap(),
                command: Command::Mute {
                    track: TrackId::new("TR_a"),
                    muted: true,
                },
            },
        };
        let json = r#"{"id":7,"deadline_ms":5000,"request":{"type":"participant","room":"daily","participant":"PA_a","identity":"ann","command":{"type":"mute","track":"TR_a","muted":true}}}"#;
        assert_eq!(serde_json::to_string(&frame).unwrap(), json);
        assert_eq!(serde_json::from_str::<RequestFrame>(json).unwrap(), frame);

        let command = Command::PatchIce {
            sessions: vec!["abc".into()],
            fragment: "a=ice-ufrag:x".into(),
        };
        let json = r#"{"type":"patch_ice","sessions":["abc"],"fragment":"a=ice-ufrag:x"}"#;
        assert_eq!(serde_json::to_string(&command).unwrap(), json);
        assert_eq!(serde_json::from_str::<Command>(json).unwrap(), command);

        let reply = Reply::IceRestarted {
            session: "def".into(),
            fragment: "a=ice-lite".into(),
        };
        let json = r#"{"type":"ice_restarted","session":"def","fragment":"a=ice-lite"}"#;
        assert_eq!(serde_json::to_string(&reply).unwrap(), json);
        assert_eq!(serde_json::from_str::<Reply>(json).unwrap(), reply);

        assert_eq!(serde_json::to_string(&OneOffer::Receive).unwrap(), r#""receive""#);
        let offer = CounterOffer {
            sdp: "v=0".into(),
            valid_seconds: 15,
        };
        let json = r#"{"sdp":"v=0","valid_seconds":15}"#;
        assert_eq!(serde_json::to_string(&offer).unwrap(), json);
        assert_eq!(serde_json::from_str::<CounterOffer>(json).unwrap(), offer);

        let frame = NodeFrame::Reply {
            id: 7,
            result: Err(Refusal::new(RefusalReason::NoTrack, "There is no such track.")).into(),
        };
        let json =
            r#"{"type":"reply","id":7,"result":{"refused":{"reason":"no_track","detail":"There is no such track."}}}"#;
        assert_eq!(serde_json::to_string(&frame).unwrap(), json);
        assert_eq!(serde_json::from_str::<NodeFrame>(json).unwrap(), frame);

        let frame = NodeFrame::Event {
            to: vec![ParticipantId::new("PA_a")],
            event: Event::SlotsWanted { audio: 0, video: 2 },
        };
        let json = r#"{"type":"event","to":["PA_a"],"event":{"type":"slots_wanted","audio":0,"video":2}}"#;
        assert_eq!(serde_json::to_string(&frame).unwrap(), json);
        assert_eq!(serde_json::from_str::<NodeFrame>(json).unwrap(), frame);
    }

    #[test]
    fn what_administers_a_room_keeps_its_json() {
        let update = ParticipantUpdate {
            name: Some("Ann".into()),
            grants: Some(GrantsUpdate {
                publish: Some(false),
                ..GrantsUpdate::default()
            }),
            ..ParticipantUpdate::default()
        };
        let request = Request::Administer {
            room: "daily".parse().unwrap(),
            command: RoomCommand::Update {
                participant: "ann".into(),
                update: Box::new(update),
            },
        };
        let json = r#"{"type":"administer","room":"daily","command":{"type":"update","participant":"ann","update":{"name":"Ann","grants":{"publish":false}}}}"#;
        assert_eq!(serde_json::to_string(&request).unwrap(), json);
        assert_eq!(serde_json::from_str::<Request>(json).unwrap(), request);
    }

    #[test]
    fn events_keep_their_json() {
        let event = Event::Quality {
            participants: vec![ParticipantQuality {
                participant: ParticipantId::new("PA_a"),
                quality: crate::room::ConnectionQuality::Poor,
            }],
        };
        let json = r#"{"type":"quality","participants":[{"participant":"PA_a","quality":"poor"}]}"#;
        assert_eq!(serde_json::to_string(&event).unwrap(), json);
        assert_eq!(serde_json::from_str::<Event>(json).unwrap(), event);
        assert_eq!(
            serde_json::to_string(&Event::AttachedElsewhere).unwrap(),
            r#"{"type":"attached_elsewhere"}"#
        );
    }
}
