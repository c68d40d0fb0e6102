//! What becomes of rooms whose node is lost, or is about to hand them over.
//!
//! A room's state dies with its node, so this gateway keeps what the next node has to be told (`knowledge`), notices that a node is gone, asks
//! the orchestrators where the room is then ([`recovery`] decides when, and about which room), and has it opened there with everyone who was in
//! it ([`Request::Expect`]): once for each room, however many sessions wait for it. What each session does then is in `take_up` and `leaving`.
//!
//! Nothing gives up while a session wants to know: with the room map away it goes on asking, at most every
//! [`recovery::LONGEST_PAUSE`] for each node and [`recovery::PATIENT_PAUSE`] for its other rooms.

mod knowledge;
pub(crate) mod leaving;
pub mod recovery;
mod streams;
pub(crate) mod take_up;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use signalbox_protocol::RoomName;
use signalbox_protocol::control::{Event, Reply, Request, RoomCommand, Snapshot};
use signalbox_protocol::placement::Placement;
use signalbox_protocol::room::MediaAddress;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

pub(crate) use self::knowledge::Kept;
use self::knowledge::RoomRecord;
use self::recovery::{Answer, Place, Recovery};
use crate::node_link::{Failure, NodeLink, NodeLinks};
use crate::placements::Placements;
use crate::reports::Reports;
use signalbox_protocol::ParticipantId;

/// How long to wait for one answer about a lost room. Lower than what a join waits: while one orchestrator hangs, another can be asked.
const ASK_TIMEOUT: Duration = Duration::from_millis(1500);

/// How long a node may take to open a lost room.
const EXPECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an outcome serves sessions that notice later than others. Lower than a ticket's lifetime.
const SETTLED_FOR: Duration = Duration::from_secs(15);

/// The same, of a room that is where it was: if it is lost again, that has to be found out anew.
const BACK_FOR: Duration = Duration::from_secs(1);

/// Where a lost room is.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// There, and everyone who was in it is expected.
    Elsewhere(Arc<Placement>, MediaAddress),
    /// Where it was, and its node answers.
    Back,
}

#[derive(Debug, Clone)]
struct Settled {
    from: Place,
    at: Instant,
    outcome: Outcome,
}

impl Settled {
    fn serves(&self, from: Place) -> bool {
        let lifetime = match self.outcome {
            Outcome::Elsewhere(..) => SETTLED_FOR,
            Outcome::Back => BACK_FOR,
        };
        self.from == from && self.at.elapsed() < lifetime
    }
}

/// A room in which this gateway has sessions.
#[derive(Debug)]
struct Room {
    name: RoomName,
    record: Mutex<RoomRecord>,
    settled: watch::Sender<Option<Settled>>,
    /// Held while it is opened at the node that it is handed over to.
    handing_over: tokio::sync::Mutex<()>,
}

impl Room {
    fn record(&self) -> MutexGuard<'_, RoomRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, from: Place, outcome: Outcome) {
        if let Outcome::Elsewhere(placement, _) = &outcome {
            self.record().next = Some(Arc::clone(placement));
        }
        let at = Instant::now();
        self.settled.send_replace(Some(Settled { from, at, outcome }));
    }

    fn outcome(&self, from: Place) -> Option<Outcome> {
        let settled = self.settled.borrow();
        let serving = settled.as_ref().filter(|settled| settled.serves(from));
        serving.map(|settled| settled.outcome.clone())
    }
}

#[derive(Debug, Default)]
struct State {
    /// Each room, with the number of its sessions.
    rooms: HashMap<RoomName, (Arc<Room>, usize)>,
    recovery: Recovery,
    /// Whether a task looks after `recovery`.
    is_driven: bool,
}

/// The rooms of all sessions, and those of them that are lost.
#[derive(Debug)]
pub(crate) struct Moves {
    placements: Arc<Placements>,
    links: Arc<NodeLinks>,
    reports: Arc<Reports>,
    started: Instant,
    state: Mutex<State>,
    woken: Notify,
}

/// A session's place among its room's sessions.
#[derive(Debug)]
pub(crate) struct Membership {
    moves: Weak<Moves>,
    room: Arc<Room>,
    participant: ParticipantId,
}

impl Membership {
    /// Takes in what the session was told.
    pub(crate) fn observe(&self, event: &Event) {
        self.room.record().observe(&self.participant, event);
    }

    /// Its participant is no longer in the room.
    pub(crate) fn forget(&self) {
        self.room.record().remove(&self.participant);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.room.record().leave(&self.participant);
        if let Some(moves) = self.moves.upgrade() {
            moves.leave(&self.room.name);
        }
    }
}

impl Moves {
    pub(crate) fn new(placements: Arc<Placements>, links: Arc<NodeLinks>, reports: Arc<Reports>) -> Arc<Self> {
        Arc::new(Self {
            placements,
            links,
            reports,
            started: Instant::now(),
            state: Mutex::default(),
            woken: Notify::new(),
        })
    }

    /// A session begins with this snapshot.
    pub(crate) fn enter(self: &Arc<Self>, snapshot: &Snapshot, at: &Arc<Placement>) -> Membership {
        let name = &snapshot.room.name;
        let mut state = self.state();
        let (room, sessions) = state.rooms.entry(name.clone()).or_insert_with(|| {
            let room = Room {
                name: name.clone(),
                record: Mutex::new(RoomRecord::new(&snapshot.room, Arc::clone(at))),
                settled: watch::Sender::new(None),
                handing_over: tokio::sync::Mutex::default(),
            };
            (Arc::new(room), 0)
        });
        *sessions += 1;
        room.record().enter(snapshot, at);
        Membership {
            moves: Arc::downgrade(self),
            room: Arc::clone(room),
            participant: snapshot.participant.id.clone(),
        }
    }

    fn leave(&self, name: &RoomName) {
        let mut state = self.state();
        let Some((_, sessions)) = state.rooms.get_mut(name) else {
            return;
        };
        *sessions = sessions.saturating_sub(1);
        if *sessions == 0 {
            state.rooms.remove(name);
            state.recovery.forget(name);
        }
    }

    /// Where a room of a lost session is. With it, all rooms of that stay of its node are looked for if `all` is set. Does not end before that is known.
    async fn find(self: &Arc<Self>, room: &Arc<Room>, from: &Placement, all: bool) -> Outcome {
        let place = Place::of(from);
        let mut settled = room.settled.subscribe();
        loop {
            settled.mark_unchanged();
            if let Some(outcome) = room.outcome(place) {
                return outcome;
            }
            // Again each time: another session of the room may have lost it from another place meanwhile, whose outcome is no answer here.
            self.lost(room, place, all);
            // The sender is in `room`, so that it cannot be gone.
            let _ = settled.changed().await;
        }
    }

    /// A room is handed over to another node: opens it there. If that cannot be done, it is looked for.
    async fn hand_over(self: &Arc<Self>, room: &Arc<Room>, from: &Placement, to: &Arc<Placement>) -> Outcome {
        let place = Place::of(from);
        let first = room.handing_over.lock().await;
        if let Some(outcome) = room.outcome(place) {
            return outcome;
        }
        self.placements.learn(to);
        match self.expect(to, room).await {
            Some(media) => {
                let outcome = Outcome::Elsewhere(Arc::clone(to), media);
                room.settle(place, outcome.clone());
                outcome
            }
            None => {
                drop(first);
                self.placements.forget(&room.name, to);
                self.find(room, from, false).await
            }
        }
    }

    /// What was found out about a lost room does not hold.
    fn doubt(&self, room: &Room, from: &Placement) {
        let place = Place::of(from);
        room.settled.send_if_modified(|settled| {
            let is_it = settled.as_ref().is_some_and(|settled| settled.from == place);
            if is_it {
                *settled = None;
            }
            is_it
        });
    }

    fn lost(self: &Arc<Self>, room: &Arc<Room>, place: Place, all: bool) {
        let now = self.started.elapsed();
        let mut state = self.state();
        // Whoever was first has named all of the node's rooms.
        if state.recovery.lost_from(&room.name) == Some(place) {
            return;
        }
        let others = state
            .rooms
            .values()
            .filter(|(other, _)| all && !Arc::ptr_eq(other, room));
        let mut rooms: Vec<_> = others
            .filter_map(|(other, _)| {
                let record = other.record();
                let at = Place::of(&record.placement);
                let is_there = (at.node, at.epoch) == (place.node, place.epoch);
                is_there.then(|| (other.name.clone(), at, record.served()))
            })
            .collect();
        rooms.push((room.name.clone(), place, room.record().served()));
        state.recovery.handle_lost(now, rooms, rand::random::<f64>);
        if !std::mem::replace(&mut state.is_driven, true) {
            tokio::spawn(Arc::clone(self).drive());
        }
        drop(state);
        self.woken.notify_one();
    }

    /// Asks for lost rooms until none is left.
    async fn drive(self: Arc<Self>) {
        let mut jobs = JoinSet::new();
        loop {
            let now = self.started.elapsed();
            let due = {
                let mut state = self.state();
                while let Some(name) = state.recovery.poll(now) {
                    let from = state.recovery.lost_from(&name);
                    let room = state.rooms.get(&name).map(|(room, _)| Arc::clone(room));
                    jobs.spawn(Arc::clone(&self).look(name, room.zip(from)));
                }
                if state.recovery.is_empty() && jobs.is_empty() {
                    state.is_driven = false;
                    return;
                }
                state.recovery.poll_timeout()
            };
            let due = async {
                match due {
                    Some(due) => tokio::time::sleep_until(self.started + due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(done) = jobs.join_next() => match done {
                    Ok((name, from, outcome)) => self.answered(&name, from, outcome),
                    Err(error) => tracing::error!(%error, "looking for a lost room failed"),
                },
                () = due => {}
                () = self.woken.notified() => {}
            }
        }
    }

    fn answered(&self, name: &RoomName, from: Option<Place>, outcome: Option<Outcome>) {
        let answer = match &outcome {
            Some(Outcome::Elsewhere(placement, _)) => Answer::Elsewhere(Place::of(placement)),
            Some(Outcome::Back) => Answer::Back,
            None => Answer::Unsettled,
        };
        let now = self.started.elapsed();
        let mut state = self.state();
        let is_awaited = from.is_some() && state.recovery.lost_from(name) == from;
        state.recovery.handle_answer(now, name, answer, rand::random::<f64>);
        let Some((room, _)) = state.rooms.get(name) else {
            return state.recovery.forget(name);
        };
        if let (Some(from), Some(outcome), true) = (from, outcome, is_awaited) {
            room.settle(from, outcome);
        }
    }

    /// Asks once for a room that was at `from`.
    async fn look(
        self: Arc<Self>,
        name: RoomName,
        lost: Option<(Arc<Room>, Place)>,
    ) -> (RoomName, Option<Place>, Option<Outcome>) {
        let Some((room, from)) = lost else {
            return (name, None, None);
        };
        let user = room.record().anybody();
        let placed = timeout(ASK_TIMEOUT, self.placements.find_anew(&name, user.as_ref(), from)).await;
        let outcome = match placed {
            Ok(Ok(placement)) if Place::of(&placement) != from => match self.expect(&placement, &room).await {
                Some(media) => Some(Outcome::Elsewhere(placement, media)),
                None => {
                    self.placements.forget(&name, &placement);
                    None
                }
            },
            _ => self.is_back(&room, from).await.then_some(Outcome::Back),
        };
        if let Some(Outcome::Elsewhere(placement, _)) = &outcome {
            let (node, generation) = (placement.node, placement.generation);
            tracing::info!(room = %name, %node, %generation, "a lost room is open at another node");
        }
        (name, Some(from), outcome)
    }

    /// Opens a room with everyone who was in it.
    async fn expect(&self, placement: &Placement, room: &Room) -> Option<MediaAddress> {
        let deadline = Instant::now() + EXPECT_TIMEOUT;
        let link = match self.links.get(&placement.control, deadline).await {
            Ok(link) => link,
            Err(_) => {
                self.reports.unreachable(placement);
                return None;
            }
        };
        let request = {
            let record = room.record();
            Request::Expect {
                ticket: placement.ticket.clone(),
                room: Box::new(record.room.clone()),
                participants: record.participants(),
            }
        };
        match link.request(request, deadline).await {
            Ok(answered) => match answered.reply {
                Reply::Opened { media } => Some(media),
                reply => {
                    crate::rooms::unexpected(&reply);
                    None
                }
            },
            Err(failure) => {
                tracing::info!(room = %room.name, node = %placement.node, ?failure, "a lost room's new node does not take it");
                None
            }
        }
    }

    /// Whether the node has the room as it was. If there is no link, one is made meanwhile.
    async fn is_back(&self, room: &Room, from: Place) -> bool {
        let Some(placement) = room.record().placement_at(from) else {
            return false;
        };
        let Some(link) = self.links.live(&placement.control) else {
            let (links, reports) = (Arc::clone(&self.links), Arc::clone(&self.reports));
            tokio::spawn(async move {
                if links.revive(&placement.control).await == Err(Failure::Broken) {
                    reports.unreachable(&placement);
                }
            });
            return false;
        };
        if link.is_silent() {
            return false;
        }
        has(&link, &room.name, from).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the node at the end of the link has this generation of the room. One that was started anew has no room at all.
async fn has(link: &Arc<NodeLink>, room: &RoomName, from: Place) -> bool {
    let list = Request::Administer {
        room: room.clone(),
        command: RoomCommand::List,
    };
    let answered = link.request(list, Instant::now() + ASK_TIMEOUT).await;
    matches!(answered.map(|answered| answered.reply), Ok(Reply::Room { room, .. }) if room.generation == from.generation)
}
