//! Gateway ↔ media node: one WebSocket per pair at [`PATH`], each message one JSON frame of at most [`MAX_FRAME_BYTES`].
//!
//! The gateway sends [`RequestFrame`]s, each with an id of its own choosing and a deadline; the node answers every one with exactly
//! one [`NodeFrame::Reply`], in any order, and pushes [`NodeFrame::Event`]s. Events of one participant arrive in order, and
//! after the reply to the request that attached the participant to the link.
//!
//! A participant's events go to the link that attached it last ([`Join::attach`], [`Command::Attach`]); one that had attached it before
//! is told so ([`Event::AttachedElsewhere`]). Nobody attached: they are dropped, and [`Command::Attach`] answers with a [`Snapshot`]
//! that makes up for them.

mod administration;
mod command;
mod event;
mod join;
mod resumption;

use serde::{Deserialize, Serialize};

pub use administration::{ParticipantUpdate, RoomCommand};
pub use command::{Command, Preference, Quality, Target};
pub use event::{CloseReason, CodecWanted, Event, StreamState, SubscriptionFault};
pub use join::{COUNTER_OFFER_ID, CounterOffer, Join, Joined, OneOffer, ParticipantLimits, Transports};
pub use resumption::{Agreed, ChannelInfo, KnownStream, Resume, Resumption, ResumptionChange, SaidTrack, Wanted};

use crate::room::{MediaAddress, ParticipantInfo, ParticipantQuality, RoomInfo, Slot, Speaker, TrackInfo};
use crate::srtp::SrtpSession;
use crate::trace::TraceContext;
use crate::tunnel::Tunnel;
use crate::{Identity, ParticipantId, RoomName};

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
    /// The trace that it belongs to, if any. A node that does not know this field does what is asked all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
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
    /// A room that was lost with its node goes on here: open it, or find it open, and expect those who were in it. They are shown to everyone as
    /// if they were there, until they are taken up ([`Join::resume`]), join anew, or have not come within the time that an absent
    /// participant has. Those who are in the room already stay as they are. Answered with [`Reply::Opened`].
    Expect {
        /// The orchestrator's signed ticket; see [`crate::ticket`].
        ticket: String,
        /// The room as it was last; a room that is opened by this takes its id, its time and its metadata from it.
        room: Box<RoomInfo>,
        /// Who was in it, as far as the gateway knows; the hidden ones too.
        participants: Vec<ParticipantInfo>,
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

impl Request {
    /// What both ends call it in traces: `control/` and the frame's `type`.
    pub fn span(&self) -> &'static str {
        match self {
            Self::Open { .. } => "control/open",
            Self::Expect { .. } => "control/expect",
            Self::Join(_) => "control/join",
            Self::Participant { .. } => "control/participant",
            Self::Administer { .. } => "control/administer",
        }
    }

    /// The room that it is about.
    pub fn room(&self) -> &RoomName {
        match self {
            Self::Open { room, .. } | Self::Participant { room, .. } | Self::Administer { room, .. } => room,
            Self::Expect { room, .. } => &room.name,
            Self::Join(join) => &join.room,
        }
    }
}

/// What the node answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Open`] and [`Request::Expect`].
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
    /// To [`Command::OpenTunnels`].
    Tunnels {
        /// One for each of the participant's connections that can go on.
        tunnels: Vec<Tunnel>,
    },
    /// To everything else.
    Done,
}

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
    /// What the participant may use, as its join said: a gateway that puts it back into its room at another node has to repeat it.
    #[serde(default, skip_serializing_if = "ParticipantLimits::is_none")]
    pub limits: ParticipantLimits,
    /// What takes the participant up again at another node; none: only its client can, by joining anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumption: Option<Box<Resumption>>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TrackId;
    use crate::room::GrantsUpdate;

    #[test]
    fn frames_keep_their_json() {
        let frame = RequestFrame {
            id: 7,
            deadline_ms: 5000,
            trace: None,
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

        let traced = RequestFrame {
            trace: Some(TraceContext {
                parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
                state: "rojo=00f067aa0ba902b7".into(),
            }),
            ..frame
        };
        let json = r#"{"id":7,"deadline_ms":5000,"trace":{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","tracestate":"rojo=00f067aa0ba902b7"},"request":{"type":"participant","room":"daily","participant":"PA_a","identity":"ann","command":{"type":"mute","track":"TR_a","muted":true}}}"#;
        assert_eq!(serde_json::to_string(&traced).unwrap(), json);
        assert_eq!(serde_json::from_str::<RequestFrame>(json).unwrap(), traced);
        let stateless = TraceContext {
            parent: "00-a-b-01".into(),
            state: String::new(),
        };
        let json = r#"{"traceparent":"00-a-b-01"}"#;
        assert_eq!(serde_json::to_string(&stateless).unwrap(), json);
        assert_eq!(serde_json::from_str::<TraceContext>(json).unwrap(), stateless);

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
    fn tiers_of_versions_before_and_after_the_trace_understand_each_other() {
        /// The frame as it was before.
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Old {
            id: u64,
            deadline_ms: u32,
            request: Request,
        }
        let request = Request::Open {
            ticket: "t".into(),
            room: "daily".parse().unwrap(),
        };
        let old = Old {
            id: 7,
            deadline_ms: 5000,
            request: request.clone(),
        };
        let new = |trace| RequestFrame {
            id: 7,
            deadline_ms: 5000,
            trace,
            request: request.clone(),
        };
        let traced = new(Some(TraceContext {
            parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
            state: String::new(),
        }));
        let json = serde_json::to_string(&traced).unwrap();
        assert_eq!(serde_json::from_str::<Old>(&json).unwrap(), old, "an old node");
        let json = serde_json::to_string(&old).unwrap();
        assert_eq!(
            serde_json::from_str::<RequestFrame>(&json).unwrap(),
            new(None),
            "an old gateway"
        );
        assert_eq!(
            serde_json::to_string(&new(None)).unwrap(),
            json,
            "untraced, as it always was"
        );
    }

    #[test]
    fn a_request_is_called_in_traces_what_its_frame_says() {
        let request = Request::Administer {
            room: "daily".parse().unwrap(),
            command: RoomCommand::List,
        };
        let json = serde_json::to_value(&request).unwrap();
        assert_eq!(request.span(), format!("control/{}", json["type"].as_str().unwrap()));
        assert_eq!(request.room().as_str(), "daily");
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
