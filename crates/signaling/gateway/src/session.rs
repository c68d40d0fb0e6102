//! One client's session on the media node of its room: commands in, events out.
//!
//! Owns the session's end: whoever drops a [`Session`] detaches the participant, so that no client's disappearance goes unnoticed by
//! the node. Knows no dialect and no frame; the link behind it does the talking.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signalbox_protocol::control::{Command, Event, Reply, Request};
use signalbox_protocol::{Identity, ParticipantId, RoomName};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::node_link::NodeLink;
use crate::problem::ApiError;

/// How many events may wait for one session. Higher: a slow client costs more memory. Lower: a burst of joins in a big room cuts off
/// clients that would have caught up.
pub(crate) const EVENT_QUEUE: usize = 512;

/// How long a session's command may take at the node.
const COMMAND_DEADLINE: Duration = Duration::from_secs(8);

/// What a session is told.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "handed over one at a time, never stored")]
pub enum SessionEvent {
    /// The node's event. After [`Event::Closed`] only [`SessionEvent::Lost`] follows.
    Event(Event),
    /// No event will come any more: the link to the node broke, or the session was too slow for its events and some are missing.
    /// The participant may still be there: [`crate::rooms::Rooms::attach`] tells, with a fresh snapshot.
    Lost,
    /// Another session, of this or another gateway, attached the same participant; this one has no say any more and must not attach
    /// again.
    Replaced,
}

/// What the node is told when the session is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parting {
    /// Nothing: it knows.
    Nothing,
    /// The signaling is gone.
    Detach,
    /// Nobody took the participant that was asked for; it must not stay as a ghost.
    Leave,
}

/// The receiving end of a participant's events; its sending end is in the link's routing table.
#[derive(Debug)]
pub(crate) struct Feed {
    /// Which attachment of the participant it belongs to.
    pub(crate) serial: u64,
    pub(crate) events: mpsc::Receiver<Arc<Event>>,
    pub(crate) replaced: Arc<AtomicBool>,
}

/// An admitted participant's session. Dropping it sends [`Command::Detach`], unless the participant left or was closed, or another
/// session has taken over.
#[derive(Debug)]
pub struct Session {
    /// The room.
    pub room: RoomName,
    /// The participant.
    pub participant: ParticipantId,
    /// Who it is.
    pub identity: Identity,
    link: Arc<NodeLink>,
    /// None for a join that wanted no events.
    feed: Option<Feed>,
    parting: Parting,
}

impl Session {
    pub(crate) fn new(
        (room, participant, identity): (RoomName, ParticipantId, Identity),
        link: Arc<NodeLink>,
        feed: Option<Feed>,
        parting: Parting,
    ) -> Self {
        Self {
            room,
            participant,
            identity,
            link,
            feed,
            parting,
        }
    }

    /// Takes the session over from the link: from here on somebody is responsible for it. None if it has no events.
    pub(crate) fn claim(mut self) -> Option<Self> {
        self.parting = if self.feed.is_some() {
            Parting::Detach
        } else {
            Parting::Nothing
        };
        self.feed.is_some().then_some(self)
    }

    /// Does something for the participant. Many may be under way at once; the node takes them in the order in which the
    /// futures are first polled. The future does not borrow the session, so that its owner can wait for replies and events
    /// at the same time.
    ///
    /// # Errors
    /// The node's refusal, or [`ApiError::NodeUnavailable`] when the link broke or the node did not answer in 8 seconds.
    pub fn command(&self, command: Command) -> impl Future<Output = Result<Reply, ApiError>> + Send + use<> {
        let link = Arc::clone(&self.link);
        let request = Request::Participant {
            room: self.room.clone(),
            participant: self.participant.clone(),
            identity: self.identity.clone(),
            command,
        };
        async move {
            let answered = link.request(request, Instant::now() + COMMAND_DEADLINE).await?;
            Ok(answered.reply)
        }
    }

    /// The next event. Nothing is lost when the future is dropped before it is ready.
    pub async fn next_event(&mut self) -> SessionEvent {
        let Some(feed) = &mut self.feed else {
            return SessionEvent::Lost;
        };
        match feed.events.recv().await {
            Some(event) if *event == Event::AttachedElsewhere => {
                self.parting = Parting::Nothing;
                SessionEvent::Replaced
            }
            Some(event) => {
                if matches!(*event, Event::Closed { .. }) {
                    self.parting = Parting::Nothing;
                }
                SessionEvent::Event(Arc::unwrap_or_clone(event))
            }
            None if feed.replaced.load(Ordering::Acquire) => {
                self.parting = Parting::Nothing;
                SessionEvent::Replaced
            }
            None => SessionEvent::Lost,
        }
    }

    /// Leaves the room. The session is of no use afterwards, and dropping it says nothing more.
    ///
    /// # Errors
    /// As [`Session::command`]; dropping the session then still detaches the participant.
    pub async fn leave(&mut self) -> Result<(), ApiError> {
        self.command(Command::Leave).await?;
        self.parting = Parting::Nothing;
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let serial = self.feed.as_ref().map(|feed| feed.serial);
        let command = match self.parting {
            Parting::Nothing => None,
            Parting::Detach => Some(Command::Detach),
            Parting::Leave => Some(Command::Leave),
        };
        self.link
            .part(&self.room, &self.participant, &self.identity, serial, command);
    }
}
