//! What a shard's thread is asked: by gateways, through the node's admission, and by the node itself.

use std::collections::HashMap;
use std::time::Instant;

use signalbox_protocol::control::{CloseReason, Command, Join, Request, RoomCommand};
use signalbox_protocol::placement::Placement;
use signalbox_protocol::room::{ParticipantInfo, RoomInfo};
use signalbox_protocol::{Epoch, Generation, Identity, ParticipantId, RoomName};
use tokio::sync::oneshot;

use crate::link::{Answer, LinkId};

/// What a shard's thread is asked.
pub enum ShardCommand {
    /// A gateway's request, admitted.
    Request(Box<AdmittedRequest>),
    /// A link has ended.
    LinkLost(LinkId),
    /// Is the room that the core called empty still empty? Asked after the last admission has been handed over.
    IsEmpty {
        /// Which.
        room: RoomName,
        /// In which generation.
        generation: Generation,
        /// The answer; true also when it is not here any more.
        answer: oneshot::Sender<bool>,
    },
    /// Close a room, if it is still here in this generation.
    CloseRoom {
        /// Which.
        room: RoomName,
        /// In which generation.
        generation: Generation,
        /// What those in it are told.
        reason: CloseReason,
        /// Told when it is closed.
        done: oneshot::Sender<()>,
    },
    /// A room is another node's; those in it are to go there.
    Move {
        /// Which.
        room: RoomName,
        /// In which generation it is here.
        generation: Generation,
        /// Where it is.
        to: Box<Placement>,
        /// How long it is served here.
        until: Instant,
        /// Told when the gateways' news are in their links' queues.
        done: oneshot::Sender<()>,
    },
    /// How many participants are in each room?
    Count {
        /// The answer.
        answer: oneshot::Sender<HashMap<RoomName, u32>>,
    },
    /// Close every room, because the node stops or has lost its lease.
    CloseAll {
        /// Told when all are closed and their events are in the links' queues.
        done: oneshot::Sender<()>,
    },
}

/// A gateway's request that may run.
pub struct AdmittedRequest {
    /// Whom to answer.
    pub answer: Answer,
    /// The gateway does not wait longer.
    pub start_by: Instant,
    /// The epoch in which it was admitted. A request that its epoch's end has overtaken must not run in the next.
    pub epoch: Option<Epoch>,
    /// What to do.
    pub work: Work,
}

/// What a request asks of the core.
pub enum Work {
    /// [`Request::Open`].
    Open(RoomName, Generation),
    /// [`Request::Expect`].
    Expect(Box<RoomInfo>, Vec<ParticipantInfo>, Generation),
    /// [`Request::Join`].
    Join(Box<Join>, Generation),
    /// [`Request::Participant`].
    Participant(RoomName, ParticipantId, Identity, Command),
    /// [`Request::Administer`].
    Administer(RoomName, RoomCommand),
}

impl Work {
    /// What an admitted request asks; `generation` is its ticket's.
    pub fn new(request: Request, generation: Generation) -> Self {
        match request {
            Request::Open { room, .. } => Work::Open(room, generation),
            Request::Expect { room, participants, .. } => Work::Expect(room, participants, generation),
            Request::Join(join) => Work::Join(join, generation),
            Request::Participant {
                room,
                participant,
                identity,
                command,
            } => Work::Participant(room, participant, identity, command),
            Request::Administer { room, command } => Work::Administer(room, command),
        }
    }
}
