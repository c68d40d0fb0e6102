//! From a participant's session to its feed, for as long as there is a client or one may come back.

use std::sync::Arc;
use std::time::Duration;

use signalbox_protocol::control::{CloseReason, Event, Snapshot};
use signalbox_protocol::room::MediaAddress;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::feed::{End, Feed, PATIENCE, Reader};
use super::message::Told;
use super::recovery::{self, CONNECT_PATIENCE, Moved, Moving};
use crate::join::participant_url;
use crate::metrics::MoveOutcome;
use crate::moves::leaving::Leaving;
use crate::moves::take_up::{Loss, Recovered, TakenUp};
use crate::session::{Session, SessionEvent};
use crate::state::State;

/// How often old messages are let go of.
const FORGET_INTERVAL: Duration = Duration::from_secs(10);

/// What moves a session's events to a feed.
struct Relay {
    state: State,
    feed: Arc<Feed>,
    session: Session,
    /// Where the participant's media goes.
    media: Option<MediaAddress>,
    /// Whether the session can still tell something.
    is_listening: bool,
    /// The participant is looked for, or taken up elsewhere.
    moving: Option<Moving>,
    /// It has been taken up elsewhere, and is not connected there yet.
    moved: Option<Moved>,
}

/// Begins to fill a new feed from a session that has just begun; returns the feed's reader.
pub(super) fn start(state: &State, session: Session, snapshot: Snapshot) -> Reader {
    let feed = Arc::new(Feed::new(
        session.room.clone(),
        session.participant.clone(),
        session.identity.clone(),
    ));
    let media = snapshot.media;
    feed.tell(&snapshot.into());
    let reader = feed.read();
    state.streams().enter(&feed);
    let relay = Relay {
        state: state.clone(),
        feed,
        session,
        media,
        is_listening: true,
        moving: None,
        moved: None,
    };
    let running = state.running();
    tokio::spawn(async move {
        relay.run().await;
        drop(running);
    });
    reader
}

impl Relay {
    async fn run(mut self) {
        let end = self.relay().await;
        self.feed.end(end);
        if let Some(moved) = self.moved.take() {
            moved.leaving.let_go();
        }
        // Which detaches the participant, if it is still there and nobody else has it.
        drop(self.session);
        if end == End::Closed {
            // A client whose connection broke just then is still told why.
            let shutdown = self.state.shutdown();
            shutdown.run_until_cancelled(tokio::time::sleep(PATIENCE)).await;
        }
        self.state.streams().remove(&self.feed);
    }

    async fn relay(&mut self) -> End {
        let mut farewell = std::pin::pin!(self.state.farewell());
        let mut forget = interval_at(Instant::now() + FORGET_INTERVAL, FORGET_INTERVAL);
        forget.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let feed = Arc::clone(&self.feed);
        loop {
            let waits_until = feed.waits_until();
            let given_up = async {
                match waits_until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            let done = tokio::select! {
                event = self.session.next_event(), if self.is_listening => self.pass_on(event).await,
                recovered = recovery::found(&mut self.moving) => self.recovered(recovered),
                () = recovery::overdue(&mut self.moved) => {
                    self.settle(MoveOutcome::Failed);
                    Ok(())
                }
                () = feed.woken.notified() => {
                    if feed.takes_snapshot() {
                        self.look(Loss::Events);
                    }
                    Ok(())
                }
                () = given_up => if feed.give_up(Instant::now()) { Err(End::Abandoned) } else { Ok(()) },
                _ = forget.tick() => {
                    feed.forget();
                    Ok(())
                }
                () = farewell.as_mut() => Err(End::Restart),
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    async fn pass_on(&mut self, event: SessionEvent) -> Result<(), End> {
        let event = match event {
            SessionEvent::Event(event) => event,
            // By the session that it is about to get.
            SessionEvent::Replaced { here: true } if self.moving.is_some() => {
                self.is_listening = false;
                return Ok(());
            }
            SessionEvent::Replaced { .. } => return Err(End::Replaced),
            SessionEvent::Silent => {
                self.look(Loss::Silence);
                return Ok(());
            }
            SessionEvent::Lost => {
                self.is_listening = false;
                let is_broken = self.session.link.is_broken();
                self.look(if is_broken { Loss::Link } else { Loss::Events });
                return Ok(());
            }
        };
        match event {
            Event::Closed {
                reason: CloseReason::NodeGone,
            } => {
                self.is_listening = false;
                self.look(Loss::Closed);
            }
            Event::Moving { to, within_ms } => {
                let until = Instant::now() + Duration::from_millis(within_ms);
                self.moving = Moving::start(&self.state, &self.session, Loss::HandOver(to.into()), Some(until));
            }
            Event::Connected { target } => {
                if self.moved.as_mut().is_some_and(|moved| moved.leaving.connected(target)) {
                    self.settle(MoveOutcome::InPlace);
                }
            }
            event => {
                let is_last = matches!(event, Event::Closed { .. });
                if let Some(told) = Told::from_event(event) {
                    self.feed.tell(&told);
                }
                if is_last {
                    return Err(End::Closed);
                }
            }
        }
        Ok(())
    }

    /// Looks for the participant, unless that is under way.
    fn look(&mut self, loss: Loss) {
        if self.moving.is_none() {
            self.moving = Moving::start(&self.state, &self.session, loss, None);
        }
    }

    /// The client has gone on at its new node, or nobody waits for that any more.
    fn settle(&mut self, outcome: MoveOutcome) {
        if let Some(moved) = self.moved.take() {
            self.state.metrics().moved(moved.kind, outcome);
            moved.leaving.let_go();
        }
    }

    fn recovered(&mut self, recovered: Recovered) -> Result<(), End> {
        let Some(moving) = self.moving.take() else {
            return Ok(());
        };
        match recovered {
            Recovered::Unneeded => self.session.trust_again(),
            Recovered::Here { session, snapshot } => {
                let before = self.media;
                self.media = snapshot.media.or(before);
                self.session = *session;
                self.is_listening = true;
                self.feed.tell(&(*snapshot).into());
                // After the snapshot, which voids all before it.
                if let Some(media) = moved(before, self.media) {
                    self.feed.tell(&Told::moved(media));
                }
            }
            Recovered::Moved(taken) => self.taken_up(*taken, moving),
            Recovered::Gone(there) => {
                if let Some(media) = there {
                    self.state.metrics().moved(moving.kind(), MoveOutcome::Rejoined);
                    self.feed.tell(&Told::moved(media));
                }
                let reason = CloseReason::NodeGone;
                self.feed.tell(&Told::Closed { reason });
                return Err(End::Closed);
            }
            Recovered::Unreachable => {
                self.state.metrics().moved(moving.kind(), MoveOutcome::Failed);
                return Err(End::NodeUnreachable);
            }
        }
        Ok(())
    }

    fn taken_up(&mut self, taken: TakenUp, moving: Moving) {
        let TakenUp {
            session,
            snapshot,
            media,
            srtp,
            connections,
            keeps_ice,
        } = taken;
        if let Some(before) = self.moved.take() {
            before.leaving.let_go();
        }
        let is_same = session.participant == self.session.participant;
        let old = std::mem::replace(&mut self.session, session);
        let was_listening = std::mem::replace(&mut self.is_listening, true);
        let kind = moving.kind();
        let leaving = match moving.served_until {
            Some(until) if was_listening => Leaving::handed_over(old, connections, until),
            _ => {
                old.give_up();
                Leaving::lost(connections, CONNECT_PATIENCE)
            }
        };
        self.moved = Some(Moved { kind, leaving });
        self.media = Some(media);
        self.feed.tell(&snapshot.into());
        let streams = srtp.unwrap_or_default();
        let location = (!is_same).then(|| participant_url(&self.session.room, &self.session.participant));
        self.feed.tell(&Told::Moved {
            media,
            location,
            keeps_ice,
            publish: streams.publish,
            receive: streams.receive,
        });
    }
}

/// Where media goes now, if that is not where it went before.
fn moved(before: Option<MediaAddress>, now: Option<MediaAddress>) -> Option<MediaAddress> {
    now.filter(|now| before.is_some_and(|before| before != *now))
}

#[cfg(test)]
mod tests {
    use signalbox_protocol::{Generation, NodeId};

    use super::*;

    #[test]
    fn only_another_address_or_generation_is_a_move() {
        let at = |port, generation| MediaAddress {
            ip: "192.0.2.1".parse().unwrap(),
            port,
            node: NodeId(Default::default()),
            generation: Generation(generation),
        };
        assert_eq!(moved(Some(at(1, 1)), Some(at(1, 1))), None);
        assert_eq!(moved(Some(at(1, 1)), Some(at(2, 1))), Some(at(2, 1)));
        assert_eq!(moved(Some(at(1, 1)), Some(at(1, 2))), Some(at(1, 2)));
        assert_eq!(moved(None, Some(at(1, 1))), None);
        assert_eq!(moved(Some(at(1, 1)), None), None);
    }
}
