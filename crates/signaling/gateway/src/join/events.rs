//! `GET /v1/rooms/{room}/participants/{id}/events`: a participant's event stream, a WebSocket of JSON texts.
//!
//! The first message is a `snapshot`, and so is the first after any gap: whoever applies each snapshot as the whole truth misses
//! nothing. The last message before an end for good is `closed`. A close without it means: open the stream again, at whichever gateway.
//!
//! | close code | meaning |
//! |---|---|
//! | 1000 | after `closed` |
//! | 1008 | another stream of the same participant took over, or the client sent a message that is too long |
//! | 1012 | the gateway restarts |
//! | 1013 | the media node cannot be reached |

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use serde::Serialize;
use signalbox_protocol::TrackId;
use signalbox_protocol::control::{CloseReason, Event, Snapshot};
use signalbox_protocol::room::{ParticipantInfo, RoomInfo, Slot, Speaker};
use tokio::time::{Instant, MissedTickBehavior};

use super::Member;
use crate::problem::ApiError;
use crate::session::{Session, SessionEvent};
use crate::state::{SocketGuard, State};

/// The longest message of a client, in bytes. Nothing that it sends is used.
const MAX_MESSAGE_BYTES: usize = 4096;

/// When to ask the client for a sign of life.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// When to give the client up, after this long without anything from it. Higher: the others see a lost participant longer. Lower: a
/// phone that changes networks is given up too early.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);

/// How long a message may take to be written.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// What the client is told.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Told {
    Snapshot {
        room: RoomInfo,
        participant: ParticipantInfo,
        participants: Vec<ParticipantInfo>,
        speakers: Vec<Speaker>,
        slots: Vec<Slot>,
    },
    Joined {
        participant: ParticipantInfo,
    },
    Updated {
        participant: ParticipantInfo,
    },
    Left {
        participant: ParticipantInfo,
    },
    Published {
        participant: ParticipantInfo,
        track: TrackId,
    },
    Unpublished {
        participant: ParticipantInfo,
        track: TrackId,
    },
    Muted {
        participant: ParticipantInfo,
        track: TrackId,
        muted: bool,
    },
    Speakers {
        speakers: Vec<Speaker>,
    },
    Slots {
        slots: Vec<Slot>,
    },
    SlotsWanted {
        audio: u32,
        video: u32,
    },
    Closed {
        reason: CloseReason,
    },
}

impl From<Snapshot> for Told {
    fn from(snapshot: Snapshot) -> Self {
        Self::Snapshot {
            room: snapshot.room,
            participant: snapshot.participant,
            participants: snapshot.others,
            speakers: snapshot.speakers,
            slots: snapshot.slots,
        }
    }
}

impl Told {
    /// None for what another dialect is told.
    fn from_event(event: Event) -> Option<Self> {
        Some(match event {
            Event::ParticipantJoined { participant } => Self::Joined { participant },
            Event::ParticipantUpdated { participant } => Self::Updated { participant },
            Event::ParticipantLeft { participant } => Self::Left { participant },
            Event::TrackPublished { participant, track } => Self::Published { participant, track },
            Event::TrackUnpublished { participant, track } => Self::Unpublished { participant, track },
            Event::TrackMuted {
                participant,
                track,
                muted,
            } => Self::Muted {
                participant,
                track,
                muted,
            },
            Event::Speakers { speakers } => Self::Speakers { speakers },
            Event::Slots { slots } => Self::Slots { slots },
            Event::SlotsWanted { audio, video } => Self::SlotsWanted { audio, video },
            Event::Closed { reason } => Self::Closed { reason },
            Event::Offer { .. } => return None,
        })
    }
}

/// Attaches before it upgrades, so that whatever is wrong is an HTTP error.
pub(super) async fn open(
    Shared(state): Shared<State>,
    member: Member,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|_| ApiError::UpgradeRequired)?;
    if state.shutdown().is_cancelled() {
        return Err(ApiError::ShuttingDown);
    }
    let (session, snapshot) = state
        .rooms()
        .attach(&member.room, &member.participant, &member.identity)
        .await?;
    let guard = state.socket_guard();
    Ok(upgrade
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES)
        // The library's default is 128 KiB for each socket, most of which idle.
        .read_buffer_size(MAX_MESSAGE_BYTES)
        .write_buffer_size(0)
        .on_upgrade(move |socket| async move {
            Stream {
                socket,
                session,
                state,
                _guard: guard,
            }
            .run(snapshot)
            .await;
        }))
}

struct Stream {
    socket: WebSocket,
    session: Session,
    state: State,
    _guard: SocketGuard,
}

/// Why a stream ends; the client is told by the close code.
enum End {
    Closed,
    Replaced,
    TooLong,
    Restart,
    NodeUnreachable,
    /// There is nobody to tell.
    ClientGone,
}

impl Stream {
    async fn run(mut self, snapshot: Snapshot) {
        let end = match self.tell(snapshot.into()).await {
            Ok(()) => self.relay().await,
            Err(end) => end,
        };
        let (code, reason) = match end {
            End::Closed => (close_code::NORMAL, "closed"),
            End::Replaced => (close_code::POLICY, "another stream took over"),
            End::TooLong => (close_code::POLICY, "message too long"),
            End::Restart => (close_code::RESTART, "the gateway restarts"),
            End::NodeUnreachable => (close_code::AGAIN, "the media node cannot be reached"),
            End::ClientGone => return,
        };
        let bye = Message::Close(Some(CloseFrame {
            code,
            reason: reason.into(),
        }));
        let _ = tokio::time::timeout(SEND_TIMEOUT, self.socket.send(bye)).await;
    }

    async fn relay(&mut self) -> End {
        let shutdown = self.state.shutdown().clone();
        let mut ping = tokio::time::interval(PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard_at = Instant::now();
        loop {
            let done = tokio::select! {
                event = self.session.next_event() => self.pass_on(event).await,
                message = self.socket.recv() => match message {
                    Some(Ok(Message::Close(_))) | None => Err(End::ClientGone),
                    Some(Ok(_)) => {
                        heard_at = Instant::now();
                        Ok(())
                    }
                    Some(Err(error)) => Err(if is_too_long(&error) { End::TooLong } else { End::ClientGone }),
                },
                _ = ping.tick() => {
                    if heard_at.elapsed() > SILENCE_LIMIT {
                        Err(End::ClientGone)
                    } else {
                        self.send(Message::Ping(Bytes::new())).await
                    }
                }
                () = shutdown.cancelled() => Err(End::Restart),
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    async fn pass_on(&mut self, event: SessionEvent) -> Result<(), End> {
        match event {
            SessionEvent::Event(event) => {
                let last = matches!(event, Event::Closed { .. });
                if let Some(told) = Told::from_event(event) {
                    self.tell(told).await?;
                }
                if last { Err(End::Closed) } else { Ok(()) }
            }
            SessionEvent::Replaced => Err(End::Replaced),
            SessionEvent::Lost => self.attach_again().await,
        }
    }

    /// The link broke or events were missed; if the participant is still there, a new snapshot makes up for it.
    async fn attach_again(&mut self) -> Result<(), End> {
        let attached = {
            let Session {
                room,
                participant,
                identity,
                ..
            } = &self.session;
            tokio::select! {
                attached = self.state.rooms().attach(room, participant, identity) => attached,
                () = self.state.shutdown().cancelled() => return Err(End::Restart),
            }
        };
        match attached {
            Ok((session, snapshot)) => {
                self.session = session;
                self.tell(snapshot.into()).await
            }
            Err(ApiError::NoParticipant(_)) => {
                let reason = CloseReason::NodeGone;
                self.tell(Told::Closed { reason }).await?;
                Err(End::Closed)
            }
            Err(_) => Err(End::NodeUnreachable),
        }
    }

    async fn tell(&mut self, told: Told) -> Result<(), End> {
        match serde_json::to_string(&told) {
            Ok(text) => self.send(Message::text(text)).await,
            Err(error) => {
                tracing::error!(%error, "an event cannot be written as JSON");
                Ok(())
            }
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        match tokio::time::timeout(SEND_TIMEOUT, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(End::ClientGone),
        }
    }
}

/// The library's error for a frame over the cap is only told apart by its type, two levels down.
fn is_too_long(error: &axum::Error) -> bool {
    std::error::Error::source(error)
        .and_then(|error| error.downcast_ref::<tokio_tungstenite::tungstenite::Error>())
        .is_some_and(|error| matches!(error, tokio_tungstenite::tungstenite::Error::Capacity(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_json() {
        let json = |told: Told| serde_json::to_string(&told).unwrap();
        assert_eq!(
            json(Told::from_event(Event::SlotsWanted { audio: 0, video: 2 }).unwrap()),
            r#"{"type":"slots_wanted","audio":0,"video":2}"#
        );
        assert_eq!(
            json(
                Told::from_event(Event::Closed {
                    reason: CloseReason::DuplicateIdentity
                })
                .unwrap()
            ),
            r#"{"type":"closed","reason":"duplicate_identity"}"#
        );
    }
}
