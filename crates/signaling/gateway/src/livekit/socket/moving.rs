//! A client whose node is lost, or hands its room over: how its peer connections go on at the next node.
//!
//! The client keeps its WebSocket, and is served on it while its participant is looked for. At the new node the subscriber's connection goes on with
//! the node's offer, and the publisher's with an offer of the client, for which it is asked ([`events::offer_wanted`]). What does not work out
//! falls back:
//!
//! | | the client is told |
//! |---|---|
//! | it does not offer within [`OFFER_PATIENCE`]; it has been at that address lately ([`Addresses`](super::addresses::Addresses)), as soon as it is served there if it can be reached over the old node; its connection does not come up within [`PUBLISHER_PATIENCE`] | to resume: a new WebSocket, the same peer connections, with ICE begun anew |
//! | the node says that the client does not begin DTLS anew; it is Firefox; nothing takes its participant up | to reconnect: new peer connections |

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use livekit_protocol::DisconnectReason as Reason;
use livekit_protocol::leave_request::Action as LeaveAction;
use signalbox_protocol::control::{CloseReason, Command, Event, Snapshot, Target};
use signalbox_protocol::placement::Placement;
use tokio::time::{Instant, sleep_until};

use super::{Client, End, Flow, rejoin, restart_subscriber};
use crate::livekit::pending::{Asked, MAX_UNDER_WAY};
use crate::livekit::wire::Ending;
use crate::livekit::{events, translate};
use crate::metrics::{MoveKind, MoveOutcome};
use crate::moves::leaving::Leaving;
use crate::moves::take_up::{Loss, Lost, Recovered, TakenUp};
use crate::session::Session;

/// How long the client may take to offer anew. Higher: clients that do not understand what they are asked for are without their own media for
/// longer. Lower: slow ones are made to open a new WebSocket for nothing.
const OFFER_PATIENCE: Duration = Duration::from_secs(1);

/// How long the publisher's connection may take to come up from the client's offer on. Higher: clients that keep to what they had with another node are
/// without their own media for longer. Lower: slow ones are made to open a new WebSocket for nothing.
const PUBLISHER_PATIENCE: Duration = Duration::from_millis(1_500);

/// How long a client's connections may take to come up at the node that took it up after a loss, before that counts as failed. Nothing else
/// follows from it: a client that the new node hears is told to reconnect much earlier.
const CONNECT_PATIENCE: Duration = Duration::from_secs(15);

/// How often a request is asked again after its node was lost.
const MAX_FAILED: u32 = 3;

/// A participant that is looked for, or taken up elsewhere.
pub(super) struct Moving {
    work: BoxFuture<'static, Recovered>,
    kind: MoveKind,
    /// Of a room that is handed over: how long its node goes on to serve the participant.
    served_until: Option<Instant>,
}

/// A participant that was taken up elsewhere, until its connections are up there.
pub(super) struct Moved {
    kind: MoveKind,
    leaving: Leaving,
    /// When the client has to have offered; then, when what it has offered has to be up.
    publisher_until: Option<Instant>,
    /// It is reached over the node that it was at before, and finds this one only when it begins ICE anew.
    needs_new_ice: bool,
}

impl Moved {
    /// Lets go of the node that it was at before.
    pub(super) fn let_go(self) {
        self.leaving.let_go();
    }
}

/// What was waited for in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The client's offer, or the connection that it is for.
    Publisher,
    /// Its connections.
    Connections,
}

/// What came of looking for the participant. Cancelling it loses nothing.
pub(super) async fn found(moving: &mut Option<Moving>) -> Recovered {
    let Some(under_way) = moving else {
        return std::future::pending().await;
    };
    under_way.work.as_mut().await
}

/// When something is overdue of a client that has moved. Cancelling it loses nothing.
pub(super) async fn overdue(moved: &mut Option<Moved>) -> Overdue {
    let Some(moved) = moved else {
        return std::future::pending().await;
    };
    let publisher_until = moved.publisher_until;
    let publisher = async {
        match publisher_until {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = publisher => Overdue::Publisher,
        () = moved.leaving.ended() => Overdue::Connections,
    }
}

impl Client {
    /// Whether more of the client's messages may be read.
    pub(super) fn has_room(&self) -> bool {
        self.pending.has_room() && self.held.len() < MAX_UNDER_WAY
    }

    /// Asks the node, or, while the room is handed over, the next one.
    pub(super) async fn ask(&mut self, asked: Asked) {
        if matches!(asked.command, Command::Offer { .. })
            && let Some(moved) = &mut self.moved
        {
            let is_up = !moved.leaving.waits_for(Target::Publisher);
            moved.publisher_until = (!is_up).then(|| Instant::now() + PUBLISHER_PATIENCE);
        }
        if self.moving.as_ref().is_some_and(|moving| moving.served_until.is_some()) {
            self.session.note(&asked.command);
            self.held.push(self.pending.number(asked));
        } else {
            self.pending.start(&self.session, asked).await;
        }
    }

    /// The session can tell nothing any more.
    pub(super) fn lost(&mut self) -> Flow {
        self.is_listening = false;
        self.look(if self.session.link.is_broken() {
            Loss::Link
        } else {
            Loss::Events
        })
    }

    /// The node did not answer.
    pub(super) fn unanswered(&mut self, asked: Asked) -> Flow {
        if asked.failed >= MAX_FAILED {
            return Flow::Break(rejoin(Reason::ServerShutdown));
        }
        self.held.push(Asked {
            failed: asked.failed + 1,
            ..asked
        });
        self.look(Loss::Events)
    }

    /// Looks for the participant, unless that is under way.
    pub(super) fn look(&mut self, loss: Loss) -> Flow {
        if self.moving.is_none() {
            tracing::debug!(room = %self.session.room, participant = %self.session.participant, ?loss, "looking for a participant");
            self.start_moving(loss, MoveKind::Crash, None)?;
        }
        Flow::Continue(())
    }

    /// Takes note of an event that has to do with a move; gives back what the client is to be told.
    pub(super) async fn move_on(&mut self, event: Event) -> ControlFlow<End, Option<Event>> {
        match event {
            Event::Moving { to, within_ms } => self.hand_over(to.into(), within_ms)?,
            Event::Connected { target } => self.connected(target).await?,
            Event::MoveStalled { .. } => {
                self.count(MoveOutcome::Rejoined);
                return ControlFlow::Break(rejoin(Reason::MediaFailure));
            }
            Event::Closed {
                reason: CloseReason::NodeGone,
            } if self.session.is_resumable() => {
                self.is_listening = false;
                self.look(Loss::Closed)?;
            }
            event => return ControlFlow::Continue(Some(event)),
        }
        ControlFlow::Continue(None)
    }

    fn hand_over(&mut self, to: Arc<Placement>, within_ms: u64) -> Flow {
        let until = Instant::now() + Duration::from_millis(within_ms);
        if !self.moves_in_place {
            // Its new participant takes the place of this one at the new node, where the others expect it.
            self.session.forget();
            self.state.metrics().moved(MoveKind::Planned, MoveOutcome::Rejoined);
            return Flow::Break(rejoin(Reason::ServerShutdown));
        }
        // The next node goes on from what the client has answered; an offer that it gets from now on would be lost.
        self.session.drop_offers();
        self.held.extend(self.pending.take_all());
        self.start_moving(Loss::HandOver(to), MoveKind::Planned, Some(until))
    }

    fn start_moving(&mut self, loss: Loss, kind: MoveKind, served_until: Option<Instant>) -> Flow {
        let Some(lost) = Lost::of(&self.session) else {
            return Flow::Break(rejoin(Reason::ServerShutdown));
        };
        let (state, take_up) = (self.state.clone(), self.moves_in_place);
        let work = async move { state.rooms().recover(lost, loss, take_up).await }.boxed();
        self.moving = Some(Moving {
            work,
            kind,
            served_until,
        });
        Flow::Continue(())
    }

    /// It is known what becomes of the participant.
    pub(super) async fn recovered(&mut self, recovered: Recovered) -> Flow {
        let Some(moving) = self.moving.take() else {
            return Flow::Continue(());
        };
        match recovered {
            Recovered::Unneeded => {
                self.session.trust_again();
                let held = std::mem::take(&mut self.held);
                self.ask_again(held).await;
                Flow::Continue(())
            }
            Recovered::Here { session, snapshot } => {
                // The old one is replaced, and has no say any more.
                self.session = *session;
                self.is_listening = true;
                self.refresh(&snapshot).await?;
                // The offer that the client's answer is for may still be the node's latest, so that the answer goes first.
                let mut unanswered = self.take_unanswered();
                unanswered.retain(|asked| asked.command != Command::RestartIce);
                unanswered.push(restart_subscriber());
                self.ask_again(unanswered).await;
                Flow::Continue(())
            }
            Recovered::Moved(taken) => self.taken_up(*taken, moving).await,
            Recovered::Gone(there) => {
                if there.is_some() {
                    self.state.metrics().moved(moving.kind, MoveOutcome::Rejoined);
                }
                let is_moved = there.is_some() && !self.moves_in_place;
                Flow::Break(rejoin(if is_moved {
                    Reason::ServerShutdown
                } else {
                    Reason::StateMismatch
                }))
            }
            Recovered::Unreachable => {
                self.state.metrics().moved(moving.kind, MoveOutcome::Failed);
                Flow::Break(rejoin(Reason::ServerShutdown))
            }
        }
    }

    async fn taken_up(&mut self, taken: TakenUp, moving: Moving) -> Flow {
        let TakenUp {
            session,
            snapshot,
            connections,
            media,
            keeps_ice,
            ..
        } = taken;
        let has_been_there = self.addresses.go_to(media.socket_addr(), Instant::now());
        if let Some(before) = self.moved.take() {
            before.let_go();
        }
        let old = std::mem::replace(&mut self.session, session);
        let was_listening = std::mem::replace(&mut self.is_listening, true);
        let leaving = match moving.served_until {
            Some(until) if was_listening => Leaving::handed_over(old, connections, until),
            _ => {
                old.give_up();
                Leaving::lost(connections, CONNECT_PATIENCE)
            }
        };
        self.refresh(&snapshot).await?;
        let mut unanswered = self.take_unanswered();
        // They are about the old node's offers; the new one's comes by itself.
        unanswered.retain(|asked| !matches!(asked.command, Command::Answer { .. } | Command::RestartIce));
        let is_offering = |asked: &Asked| matches!(asked.command, Command::Offer { .. });
        let has_to_offer = offers(&self.session, &leaving);
        let wants_offer = has_to_offer && !unanswered.iter().any(is_offering);
        self.moved = Some(Moved {
            kind: moving.kind,
            leaving,
            publisher_until: wants_offer.then(|| Instant::now() + OFFER_PATIENCE),
            needs_new_ice: has_been_there && keeps_ice,
        });
        if has_to_offer && has_been_there && !keeps_ice {
            return self.overdue(Overdue::Publisher);
        }
        if wants_offer {
            self.send(events::offer_wanted()).await?;
        }
        self.ask_again(unanswered).await;
        Flow::Continue(())
    }

    /// Something that the move was waiting for did not come.
    pub(super) fn overdue(&mut self, overdue: Overdue) -> Flow {
        match overdue {
            Overdue::Publisher => {
                self.count(MoveOutcome::Resumed);
                let leave = translate::leave(Reason::ServerShutdown, LeaveAction::Resume);
                Flow::Break(End::Leave(leave, Ending::Restart))
            }
            Overdue::Connections => {
                self.count(MoveOutcome::Failed);
                if let Some(moved) = self.moved.take() {
                    moved.let_go();
                }
                Flow::Continue(())
            }
        }
    }

    async fn connected(&mut self, target: Target) -> Flow {
        let is_up = self.moved.as_mut().is_some_and(|moved| {
            if target == Target::Publisher {
                moved.publisher_until = None;
            }
            moved.leaving.connected(target)
        });
        if is_up && let Some(moved) = self.moved.take() {
            let after = moved.leaving.since();
            tracing::debug!(participant = %self.session.participant, ?after, "a participant's connections go on at another node");
            self.state.metrics().moved(moved.kind, MoveOutcome::InPlace);
            let needs_new_ice = moved.needs_new_ice;
            moved.let_go();
            if needs_new_ice && self.session.offers() {
                // Nothing stands still meanwhile.
                let leave = translate::leave(Reason::ServerShutdown, LeaveAction::Resume);
                return Flow::Break(End::Leave(leave, Ending::Restart));
            }
            if needs_new_ice {
                self.ask(restart_subscriber()).await;
            }
        }
        Flow::Continue(())
    }

    fn count(&mut self, outcome: MoveOutcome) {
        if let Some(moved) = &self.moved {
            self.state.metrics().moved(moved.kind, outcome);
        }
    }

    /// Tells the client how all is.
    async fn refresh(&mut self, snapshot: &Snapshot) -> Flow {
        let gone = self.roster.reset(snapshot);
        self.room_changed = false;
        self.send_all(events::refresh(snapshot, gone)).await
    }

    /// What was under way, in the order in which it was asked.
    fn take_unanswered(&mut self) -> Vec<Asked> {
        let mut unanswered = std::mem::take(&mut self.held);
        unanswered.extend(self.pending.take_all());
        unanswered.sort_by_key(|asked| asked.number);
        unanswered
    }

    async fn ask_again(&mut self, unanswered: Vec<Asked>) {
        for asked in unanswered {
            self.pending.start(&self.session, asked).await;
        }
    }
}

/// Whether a client that was taken up has to offer anew for its own media.
fn offers(session: &Session, leaving: &Leaving) -> bool {
    session.offers() || leaving.waits_for(Target::Publisher)
}
