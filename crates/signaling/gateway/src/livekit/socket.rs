//! One connected client: its messages to the node, the node's events to it, until one side ends it.
//!
//! Everything happens in one task that waits for whatever comes first, so that no lock and no second queue is needed. A
//! client that does not take its messages holds its own task up; its events then fill the session's bounded queue, and
//! when that is full the task starts over from a snapshot. What happens when the session's node is lost or hands the room over is in `moving`.

mod addresses;
mod moving;

use std::ops::ControlFlow;
use std::time::Duration;

use livekit_protocol as lk;
use livekit_protocol::DisconnectReason as Reason;
use livekit_protocol::leave_request::Action as LeaveAction;
use livekit_protocol::request_response::Reason as Refused;
use livekit_protocol::signal_response::Message;
use signalbox_protocol::control::{Command, Event, Reply, Snapshot};
use signalbox_protocol::{Identity, ParticipantId};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use self::addresses::Addresses;
use self::moving::{Moved, Moving};
use super::events::{self, PING_SECONDS, PING_TIMEOUT_SECONDS, Told};
use super::firefox;
use super::pending::{Asked, Pending};
use super::requests::{self, Action, Answer};
use super::roster::Roster;
use super::translate;
use super::wire::{Ending, Gone, Incoming, Wire};
use crate::moves::take_up::Loss;
use crate::problem::ApiError;
use crate::session::{Session, SessionEvent};
use crate::state::{SocketGuard, State};

/// With what a connection begins.
pub(super) enum Start {
    /// A participant that has just been admitted.
    Joined {
        /// Its session.
        session: Session,
        /// What it finds.
        snapshot: Box<Snapshot>,
    },
    /// A participant whose client is back.
    Resumed {
        /// Its new session.
        session: Session,
        /// What it finds.
        snapshot: Box<Snapshot>,
    },
    /// A client that wants to resume a participant that is not there.
    Unknown,
}

/// How a connection ends.
enum End {
    /// The client is gone; its participant stays for a while.
    Gone,
    /// It is closed without further words; the participant stays for a while.
    Close(Ending),
    /// It is told what to do next, then closed.
    Leave(lk::LeaveRequest, Ending),
    /// The participant leaves the room.
    Left,
}

type Flow = ControlFlow<End>;

impl From<Gone> for End {
    fn from(_: Gone) -> Self {
        End::Gone
    }
}

/// Serves a client until its connection is closed, in a task of its own: that of the upgrade has room for all that it took to get here, and would
/// keep it.
///
/// `moves_in_place`: its peer connections can go on at another node.
pub(super) fn serve(wire: Wire, state: State, start: Start, moves_in_place: bool, guard: SocketGuard) {
    let (session, snapshot, resumed) = match start {
        Start::Joined { session, snapshot } => (session, snapshot, false),
        Start::Resumed { session, snapshot } => (session, snapshot, true),
        Start::Unknown => {
            tokio::spawn(async move {
                turn_away(wire).await;
                drop(guard);
            });
            return;
        }
    };
    let mut addresses = Addresses::default();
    if let Some(media) = &snapshot.media {
        addresses.go_to(media.socket_addr(), Instant::now());
    }
    let mut client = Client {
        roster: Roster::new(&snapshot),
        state,
        session,
        wire,
        pending: Pending::default(),
        last_offer: 0,
        heard: Instant::now(),
        room_changed: false,
        moves_in_place,
        addresses,
        is_listening: true,
        moving: None,
        held: Vec::new(),
        moved: None,
    };
    // Most clients are idle most of the time. What is only needed now and then is boxed, here and in `run`, so that none of them keeps room for it.
    tokio::spawn(async move {
        let begun = if resumed {
            Box::pin(client.begin_again(&snapshot)).await
        } else {
            Box::pin(client.begin(&snapshot)).await
        };
        // It takes many times as much as the rest of what the connection holds.
        drop(snapshot);
        let end = match begun {
            Flow::Continue(()) => client.run().await,
            Flow::Break(end) => end,
        };
        Box::pin(client.finish(end)).await;
        drop(guard);
    });
}

/// Sends a client that wants to resume, and cannot, to join anew.
async fn turn_away(mut wire: Wire) {
    let leave = translate::leave(Reason::StateMismatch, LeaveAction::Reconnect);
    if wire.send(Message::Leave(leave)).await.is_ok() {
        wire.close(Ending::Done).await;
    }
}

/// Who left while the client had no signaling, as far as the node remembers, and is not back.
fn departed(snapshot: &Snapshot) -> Vec<(Identity, ParticipantId)> {
    snapshot
        .departed
        .iter()
        .filter(|gone| snapshot.others.iter().all(|other| other.identity != gone.identity))
        .filter(|gone| gone.identity != snapshot.participant.identity)
        .map(|gone| (gone.identity.clone(), gone.participant.clone()))
        .collect()
}

struct Client {
    state: State,
    session: Session,
    wire: Wire,
    roster: Roster,
    pending: Pending,
    /// The id of the node's latest offer.
    last_offer: u32,
    /// When the client last gave a sign of life.
    heard: Instant,
    /// Whether the room's numbers have changed since they were last told.
    room_changed: bool,
    moves_in_place: bool,
    addresses: Addresses,
    /// Whether the session can still tell something.
    is_listening: bool,
    /// Its participant is looked for, or taken up elsewhere.
    moving: Option<Moving>,
    /// Requests that wait for the end of that.
    held: Vec<Asked>,
    /// It has been taken up elsewhere, and is not connected there yet.
    moved: Option<Moved>,
}

impl Client {
    async fn begin(&mut self, snapshot: &Snapshot) -> Flow {
        if self.wire.send(events::join_response(snapshot)).await.is_err() {
            // The client does not know its participant, so that nobody could ever resume it.
            return Flow::Break(End::Left);
        }
        self.send_all(events::speakers(&snapshot.speakers)).await?;
        self.send_all(events::qualities(&snapshot.qualities)).await
    }

    async fn begin_again(&mut self, snapshot: &Snapshot) -> Flow {
        self.send(events::reconnect_response()).await?;
        self.send_all(events::refresh(snapshot, departed(snapshot))).await?;
        self.pending.start(&self.session, restart_subscriber()).await;
        Flow::Continue(())
    }

    async fn run(&mut self) -> End {
        let mut farewell = std::pin::pin!(self.state.farewell());
        let period = Duration::from_secs(PING_SECONDS.into());
        let mut beat = interval_at(Instant::now() + period, period);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let flow = tokio::select! {
                () = farewell.as_mut() => Flow::Break(stopping()),
                event = self.session.next_event(), if self.is_listening => Box::pin(self.event(event)).await,
                recovered = moving::found(&mut self.moving) => Box::pin(self.recovered(recovered)).await,
                late = moving::overdue(&mut self.moved) => self.overdue(late),
                (asked, result) = self.pending.next() => Box::pin(self.answered(asked, result)).await,
                incoming = self.wire.receive(), if self.has_room() => Box::pin(self.incoming(incoming)).await,
                _ = beat.tick() => Box::pin(self.beat()).await,
            };
            if let Flow::Break(end) = flow {
                return end;
            }
        }
    }

    async fn finish(self, end: End) {
        let Self {
            mut session,
            mut wire,
            moved,
            ..
        } = self;
        if let Some(moved) = moved {
            moved.let_go();
        }
        let (room, participant, end_name) = (&session.room, &session.participant, end.name());
        tracing::debug!(%room, %participant, end = end_name, "a client's connection ends");
        match end {
            End::Gone => {}
            End::Close(ending) => {
                drop(session);
                wire.close(ending).await;
            }
            End::Leave(leave, ending) => {
                drop(session);
                if wire.send(Message::Leave(leave)).await.is_ok() {
                    wire.close(ending).await;
                }
            }
            End::Left => {
                if let Err(error) = session.leave().await {
                    tracing::debug!(%error, "the node did not take a participant's leave");
                }
                wire.close(Ending::Done).await;
            }
        }
    }

    async fn send(&mut self, message: Message) -> Flow {
        match self.wire.send(message).await {
            Ok(()) => Flow::Continue(()),
            Err(gone) => Flow::Break(gone.into()),
        }
    }

    async fn send_all(&mut self, messages: impl IntoIterator<Item = Message>) -> Flow {
        for message in messages {
            self.send(message).await?;
        }
        Flow::Continue(())
    }

    async fn incoming(&mut self, incoming: Incoming) -> Flow {
        self.heard = Instant::now();
        let message = match incoming {
            Incoming::Request(message) => message,
            Incoming::Alive => return Flow::Continue(()),
            Incoming::Broken(ending) => return Flow::Break(End::Close(ending)),
            Incoming::Gone => return Flow::Break(End::Gone),
        };
        match requests::read(message, self.last_offer) {
            Action::Ask(commands) => {
                for command in commands {
                    self.ask(command.into()).await;
                }
                Flow::Continue(())
            }
            Action::Reply(message) => self.send(message).await,
            Action::Leave => Flow::Break(End::Left),
            Action::Ignore => Flow::Continue(()),
        }
    }

    async fn event(&mut self, event: SessionEvent) -> Flow {
        let event = match event {
            SessionEvent::Event(event) => event,
            SessionEvent::Lost => return self.lost(),
            SessionEvent::Silent => return self.look(Loss::Silence),
            // By the session that it is about to get.
            SessionEvent::Replaced { here: true } if self.moving.is_some() => {
                self.is_listening = false;
                return Flow::Continue(());
            }
            // The client has resumed on another connection and no longer listens on this one.
            SessionEvent::Replaced { .. } => return Flow::Break(End::Close(Ending::Done)),
        };
        let Some(event) = self.move_on(event).await? else {
            return Flow::Continue(());
        };
        self.room_changed |= matches!(
            event,
            Event::ParticipantJoined { .. }
                | Event::ParticipantLeft { .. }
                | Event::TrackPublished { .. }
                | Event::TrackUnpublished { .. }
        );
        match events::tell(event, &mut self.roster) {
            Told::Messages(messages) => self.send_all(messages).await,
            Told::Offer(mut offer) => {
                self.last_offer = offer.id;
                // Firefox alone does not.
                if !self.moves_in_place {
                    offer.sdp = firefox::tracks_named_by_streams(&offer.sdp);
                }
                self.send(Message::Offer(offer)).await
            }
            Told::Closed(leave) => Flow::Break(End::Leave(leave, Ending::Done)),
        }
    }

    async fn answered(&mut self, asked: Asked, result: Result<Reply, ApiError>) -> Flow {
        let error = match result {
            Ok(reply) => return self.replied(asked.answer, reply).await,
            // As good as a broken link, and most often the first that is heard of one.
            Err(ApiError::NodeUnavailable) => return self.unanswered(asked),
            Err(ApiError::NoParticipant(_)) => return Flow::Break(rejoin(Reason::StateMismatch)),
            Err(error) => error,
        };
        let Session { room, participant, .. } = &self.session;
        tracing::debug!(%room, %participant, %error, "the node refused a client's request");
        match asked.answer {
            // Without an answer neither side could go on from here.
            Answer::Offer { .. } => Flow::Break(rejoin(Reason::MediaFailure)),
            Answer::Silent => match (asked.command, error) {
                (Command::Answer { .. }, ApiError::InvalidSdp(_)) => Flow::Break(rejoin(Reason::MediaFailure)),
                _ => Flow::Continue(()),
            },
            Answer::Published { request } => {
                let subject = lk::request_response::Request::AddTrack(*request);
                self.send(requests::refused(0, reason(&error), error.to_string(), Some(subject)))
                    .await
            }
            Answer::Report { id, subject } => {
                self.send(requests::refused(id, reason(&error), error.to_string(), Some(*subject)))
                    .await
            }
        }
    }

    async fn replied(&mut self, answer: Answer, reply: Reply) -> Flow {
        match (answer, reply) {
            (Answer::Offer { id }, Reply::Answer { sdp }) => {
                let answer = lk::SessionDescription {
                    r#type: "answer".to_owned(),
                    sdp,
                    id,
                    ..lk::SessionDescription::default()
                };
                self.send(Message::Answer(answer)).await
            }
            (Answer::Published { request }, Reply::Published { track }) => {
                let published = lk::TrackPublishedResponse {
                    cid: request.cid,
                    track: Some(translate::track(&track)),
                };
                self.send(Message::TrackPublished(published)).await
            }
            (Answer::Report { id, .. }, _) if id != 0 => self.send(requests::done(id)).await,
            (Answer::Report { .. } | Answer::Silent, _) => Flow::Continue(()),
            (Answer::Offer { .. } | Answer::Published { .. }, _) => {
                tracing::error!("a media node's reply does not fit the request");
                Flow::Break(rejoin(Reason::MediaFailure))
            }
        }
    }

    async fn beat(&mut self) -> Flow {
        let silent = self.heard.elapsed() > Duration::from_secs(PING_TIMEOUT_SECONDS.into());
        // Whoever is not listened to cannot be blamed for silence.
        if silent && self.has_room() {
            return Flow::Break(End::Close(Ending::Silent));
        }
        if let Err(gone) = self.wire.ping().await {
            return Flow::Break(gone.into());
        }
        if std::mem::take(&mut self.room_changed) {
            self.send(events::room_update(&self.roster.room())).await?;
        }
        Flow::Continue(())
    }
}

impl End {
    /// For the log.
    fn name(&self) -> &'static str {
        match self {
            End::Gone => "gone",
            End::Close(Ending::Done) => "replaced",
            End::Close(Ending::Silent) => "silent",
            End::Close(Ending::Restart) => "restart",
            End::Close(Ending::Garbage) => "garbage",
            End::Close(Ending::TooLong) => "too long",
            End::Leave(..) => "told to leave",
            End::Left => "left",
        }
    }
}

/// The client is to join anew with new peer connections.
fn rejoin(reason: Reason) -> End {
    End::Leave(translate::leave(reason, LeaveAction::Reconnect), Ending::Done)
}

/// The client is to resume at another gateway; its media goes on.
fn stopping() -> End {
    End::Leave(
        translate::leave(Reason::ServerShutdown, LeaveAction::Resume),
        Ending::Restart,
    )
}

/// Has the node offer anew: an offer that came while nobody listened is lost, and the node waits for its answer.
fn restart_subscriber() -> Asked {
    (Command::RestartIce, Answer::Silent).into()
}

/// LiveKit's word for why a request was refused.
fn reason(error: &ApiError) -> Refused {
    match error {
        ApiError::Forbidden(_) => Refused::NotAllowed,
        ApiError::NoTrack(_) => Refused::NotFound,
        ApiError::InvalidRequest(_) | ApiError::InvalidSdp(_) => Refused::InvalidRequest,
        ApiError::Overloaded(_) => Refused::LimitExceeded,
        _ => Refused::UnclassifiedError,
    }
}
