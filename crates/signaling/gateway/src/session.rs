//! One client's session on the media node of its room: commands in, events out.
//!
//! Owns the session's end: whoever drops a [`Session`] detaches the participant, so that no client's disappearance goes unnoticed by
//! the node. Keeps what takes the participant up at another node, as events and commands pass. Knows no dialect and no frame; the link behind it
//! does the talking.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signalbox_protocol::control::{Command, Event, Reply, Request, Snapshot};
use signalbox_protocol::placement::Placement;
use signalbox_protocol::{Identity, ParticipantId, RoomName};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::moves::{Kept, Membership};
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
    /// The participant may still be there, or be taken up elsewhere: [`crate::rooms::Rooms::recover`] tells.
    Lost,
    /// Nothing has been heard of the node for a second: [`crate::rooms::Rooms::recover`] tells what to do, while this session is served on. Told once,
    /// until `Session::trust_again`.
    Silent,
    /// Another session attached the same participant; this one has no say any more and must not attach again.
    Replaced {
        /// It is one of this gateway, perhaps the one that this one's owner has just asked for.
        here: bool,
    },
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

/// What takes the participant up elsewhere, for the session and for the futures of its commands.
#[derive(Debug)]
pub(crate) struct Keeping {
    kept: Mutex<Kept>,
    /// Notified of each answer of the client.
    pub(crate) answered: Notify,
}

impl Keeping {
    fn new(kept: Kept) -> Arc<Self> {
        Arc::new(Self {
            kept: Mutex::new(kept),
            answered: Notify::new(),
        })
    }

    /// What is kept. Not to be held for long.
    pub(crate) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a session that somebody has claimed belongs.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) at: Arc<Placement>,
    pub(crate) keeping: Arc<Keeping>,
    pub(crate) membership: Membership,
}

impl Claim {
    /// Of a session that begins with this snapshot.
    pub(crate) fn new(at: &Arc<Placement>, membership: Membership, snapshot: &Snapshot) -> Self {
        Self {
            at: Arc::clone(at),
            keeping: Keeping::new(Kept::new(snapshot)),
            membership,
        }
    }
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
    pub(crate) link: Arc<NodeLink>,
    /// None for a join that wanted no events.
    feed: Option<Feed>,
    parting: Parting,
    /// None until it is claimed.
    pub(crate) claim: Option<Claim>,
    silence: watch::Receiver<bool>,
    was_told_of_silence: bool,
    drops_offers: bool,
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
            silence: link.silence(),
            link,
            feed,
            parting,
            claim: None,
            was_told_of_silence: false,
            drops_offers: false,
        }
    }

    /// Takes the session over from the link: from here on somebody is responsible for it. None if it has no events.
    pub(crate) fn claim(mut self, claim: impl FnOnce() -> Claim) -> Option<Self> {
        if self.feed.is_none() {
            self.parting = Parting::Nothing;
            return None;
        }
        self.parting = Parting::Detach;
        self.claim = Some(claim());
        Some(self)
    }

    /// Does something for the participant. Many may be under way at once; the node takes them in the order in which the
    /// futures are first polled. The future does not borrow the session, so that its owner can wait for replies and events
    /// at the same time.
    ///
    /// # Errors
    /// The node's refusal, or [`ApiError::NodeUnavailable`] when the link broke or the node did not answer in 8 seconds.
    pub fn command(&self, command: Command) -> impl Future<Output = Result<Reply, ApiError>> + Send + use<> {
        self.note(&command);
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

    /// Whether something takes the participant up at another node.
    pub(crate) fn is_resumable(&self) -> bool {
        let claim = self.claim.as_ref();
        claim.is_some_and(|claim| claim.keeping.kept().is_resumable())
    }

    /// Whether the client has a connection that it has to offer anew at another node.
    pub(crate) fn offers(&self) -> bool {
        self.claim.as_ref().is_some_and(|claim| claim.keeping.kept().offers())
    }

    /// Takes in what the client wants, for the next node, if it is not asked of this one.
    pub(crate) fn note(&self, command: &Command) {
        if let (Some(claim), Command::Answer { .. }) = (&self.claim, command) {
            claim.keeping.kept().asked(command);
            claim.keeping.answered.notify_waiters();
        }
    }

    /// The next event. Nothing is lost when the future is dropped before it is ready.
    pub async fn next_event(&mut self) -> SessionEvent {
        loop {
            let event = self.any_event().await;
            if !self.drops_offers || !matches!(event, SessionEvent::Event(Event::Offer { .. })) {
                return event;
            }
        }
    }

    /// From now on its client gets no offers of this node any more: another one is about to offer, and goes on from the last answer.
    pub(crate) fn drop_offers(&mut self) {
        self.drops_offers = true;
    }

    async fn any_event(&mut self) -> SessionEvent {
        let Some(feed) = &mut self.feed else {
            return SessionEvent::Lost;
        };
        let told = self.was_told_of_silence;
        let silence = async {
            // Ends with an error when the link is gone, which the feed tells.
            if told || self.silence.wait_for(|silent| *silent).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let next = tokio::select! {
            biased;
            next = feed.events.recv() => next,
            () = silence => {
                self.was_told_of_silence = true;
                return SessionEvent::Silent;
            }
        };
        match next {
            Some(event) if *event == Event::AttachedElsewhere => {
                self.parting = Parting::Nothing;
                SessionEvent::Replaced { here: false }
            }
            Some(event) => {
                if matches!(*event, Event::Closed { .. }) {
                    self.parting = Parting::Nothing;
                }
                let is_dropped = self.drops_offers && matches!(*event, Event::Offer { .. });
                if let Some(claim) = self.claim.as_ref().filter(|_| !is_dropped) {
                    claim.keeping.kept().observe(&event);
                    claim.membership.observe(&event);
                }
                SessionEvent::Event(Arc::unwrap_or_clone(event))
            }
            None if feed.replaced.load(Ordering::Acquire) => {
                self.parting = Parting::Nothing;
                SessionEvent::Replaced { here: true }
            }
            None => SessionEvent::Lost,
        }
    }

    /// The node has been heard again.
    pub(crate) fn trust_again(&mut self) {
        self.was_told_of_silence = false;
    }

    /// Leaves the room. The session is of no use afterwards, and dropping it says nothing more.
    ///
    /// # Errors
    /// As [`Session::command`]; dropping the session then still detaches the participant.
    pub async fn leave(&mut self) -> Result<(), ApiError> {
        if let Some(claim) = &self.claim {
            claim.membership.forget();
        }
        self.command(Command::Leave).await?;
        self.parting = Parting::Nothing;
        Ok(())
    }

    /// The participant is at another node now, or about to join there: has this one forget it, without waiting for that. The session is of no use
    /// afterwards.
    pub(crate) fn forget(&mut self) {
        let command = self.command(Command::Moved);
        self.parting = Parting::Nothing;
        tokio::spawn(async move {
            if let Err(error) = command.await {
                tracing::debug!(%error, "the node that a participant was at does not take its leave");
            }
        });
    }

    /// Nothing is said to the node when it is dropped: the participant is taken up elsewhere, or the node is gone.
    pub(crate) fn give_up(mut self) {
        self.parting = Parting::Nothing;
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
