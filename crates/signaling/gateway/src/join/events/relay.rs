//! From a participant's session to its feed, for as long as there is a client or one may come back.

use std::sync::Arc;
use std::time::Duration;

use signalbox_protocol::control::{CloseReason, Event, Snapshot};
use signalbox_protocol::room::MediaAddress;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::feed::{End, Feed, PATIENCE, Reader};
use super::message::Told;
use super::recovery::{Found, find_again, put_back};
use super::resumption::Resumption;
use crate::join::participant_url;
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
    /// What takes the participant up again at another node.
    resumption: Option<Resumption>,
}

/// Begins to fill a new feed from a session that has just begun; returns the feed's reader.
pub(super) fn start(state: &State, session: Session, snapshot: Snapshot) -> Reader {
    let feed = Arc::new(Feed::new(
        session.room.clone(),
        session.participant.clone(),
        session.identity.clone(),
    ));
    let (media, resumption) = (snapshot.media, Resumption::of(&snapshot));
    feed.tell(&snapshot.into());
    let reader = feed.read();
    state.streams().enter(&feed);
    let relay = Relay {
        state: state.clone(),
        feed,
        session,
        media,
        resumption,
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
        let shutdown = self.state.shutdown().clone();
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
                event = self.session.next_event() => self.pass_on(event).await,
                () = feed.woken.notified() => {
                    if feed.takes_snapshot() { self.recover().await } else { Ok(()) }
                }
                () = given_up => if feed.give_up(Instant::now()) { Err(End::Abandoned) } else { Ok(()) },
                _ = forget.tick() => {
                    feed.forget();
                    Ok(())
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
                if let Event::Closed {
                    reason: CloseReason::NodeGone,
                } = event
                {
                    return self.go_elsewhere().await;
                }
                let last = matches!(event, Event::Closed { .. });
                if let Some(resumption) = &mut self.resumption {
                    resumption.observe(&event);
                }
                if let Some(told) = Told::from_event(event) {
                    self.feed.tell(&told);
                }
                if last { Err(End::Closed) } else { Ok(()) }
            }
            SessionEvent::Replaced => Err(End::Replaced),
            SessionEvent::Lost => self.recover().await,
        }
    }

    /// The link broke or something was missed; if the participant is still there, a new snapshot makes up for it.
    async fn recover(&mut self) -> Result<(), End> {
        let found = tokio::select! {
            found = find_again(&self.state, &self.session, self.media, self.resumption.as_ref()) => found,
            () = self.state.shutdown().cancelled() => return Err(End::Restart),
        };
        self.take(found)
    }

    /// The node has stopped, or has lost its rooms, and said so.
    async fn go_elsewhere(&mut self) -> Result<(), End> {
        let found = tokio::select! {
            found = put_back(&self.state, &self.session, self.resumption.as_ref()) => found,
            () = self.state.shutdown().cancelled() => return Err(End::Restart),
        };
        self.take(found)
    }

    fn take(&mut self, found: Found) -> Result<(), End> {
        match found {
            Found::Here {
                session,
                snapshot,
                moved,
            } => {
                self.session = session;
                self.media = snapshot.media.or(self.media);
                self.resumption = Resumption::of(&snapshot);
                self.feed.tell(&snapshot.into());
                // After the snapshot, which voids all before it.
                if let Some(media) = moved {
                    self.feed.tell(&Told::moved(media));
                }
                Ok(())
            }
            Found::Resumed(joined, session) => {
                let streams = joined.srtp.unwrap_or_default();
                self.media = Some(joined.media);
                self.resumption = Resumption::of(&joined.snapshot);
                let snapshot = Snapshot {
                    limits: Default::default(),
                    media: self.media,
                    ..joined.snapshot
                };
                self.feed.tell(&snapshot.into());
                self.feed.tell(&Told::Moved {
                    media: joined.media,
                    location: Some(participant_url(&session.room, &session.participant)),
                    publish: streams.publish,
                    receive: streams.receive,
                });
                self.session = session;
                Ok(())
            }
            Found::Gone(reason, there) => {
                if let Some(media) = there {
                    self.feed.tell(&Told::moved(media));
                }
                self.feed.tell(&Told::Closed { reason });
                Err(End::Closed)
            }
            Found::Unreachable => Err(End::NodeUnreachable),
        }
    }
}
