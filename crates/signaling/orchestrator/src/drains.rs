//! The background task that empties nodes: hands their rooms to others, one by one, and tells each room's node where it goes.
//!
//! A drain is a row of the map ([`Store::begin_drain`]); whichever orchestrator has claimed it carries it on, and another one does when the claim
//! runs out. All that is kept here is when the next room is due and which rooms nobody took: a new carrier begins with neither, and repeats
//! nothing, since a room that was handed over is the node's no more.
//!
//! The hand-off in the map comes first, and is the truth. A node that was not told of one, since its carrier was killed or could not reach it,
//! still names the room, and is told by whoever carries the drain on. If nobody does any more, it learns it with its next digest, closes the
//! room, and the gateways look for it: that is the same as when a node is lost.

pub mod eta;
mod leaving;
mod moving;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use signalbox_protocol::history::Drained;
use signalbox_protocol::node::{DrainState, HostedRooms};
use signalbox_protocol::placement::{CloseRoom, RoomState, RoomView};
use signalbox_protocol::{NodeId, RoomName};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use crate::store::{DrainNote, DrainRecord, Store};
use crate::{Error, Service};
use leaving::Leaving;
use moving::{ANSWER, Moved, WITHIN, move_room, tell};
use plan::Plan;

/// How often claims are renewed and drains looked at. Higher: fewer statements. Lower: a drain begins, and is taken over, sooner.
const ROUND: Duration = Duration::from_millis(250);

/// How long a claim holds. Higher: an orchestrator may stall for longer. Lower: the drains of one that was killed go on sooner.
const CLAIM: Duration = Duration::from_secs(3);

/// Rooms of a node that are read from the map at a time.
const PAGE: usize = 1_000;

/// How often the rooms of a node are read from the map while there is enough to do.
const READ: Duration = Duration::from_secs(2);

/// How often a node is asked which rooms have left. Higher: less work for the node. Lower: it is better known how long that takes.
const LOOK: Duration = Duration::from_millis(500);

/// By how much the time that rooms take to leave must change to be noted.
const CHANGED: Duration = Duration::from_millis(50);

/// Drains that are looked at at the same time; others wait for their turn. Higher: a node that does not answer holds up no other drain. Lower:
/// less work at once.
const ROUNDS_AT_A_TIME: usize = 16;

/// Moves of one drain that are under way at a time. Higher: one that waits for a node holds up no other. Lower: less work at once.
const AT_A_TIME: usize = 16;

/// One drain that this orchestrator carries on.
#[derive(Default)]
struct Carried {
    plan: Plan,
    leaving: Leaving,
    moves: JoinSet<(RoomName, Result<Moved, Error>)>,
    /// Rooms that were moved and not noted yet.
    moved: u64,
    /// When the rooms were last read.
    read_at: Option<Instant>,
    /// When the node was last asked.
    looked_at: Option<Instant>,
    /// Since when the map has no room on the node.
    empty_since: Option<Instant>,
}

/// Carries drains on until `shutdown`.
pub async fn run<S: Store>(service: &Service<S>, shutdown: CancellationToken) {
    // Side by side: a claim that waits for the map, or a round that waits for a node, must not hold the others up.
    let (claims, claimed) = mpsc::channel(1);
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = claim(service, claims) => {}
        () = carry_on(service, claimed) => {}
    }
}

/// Claims the drains every so often.
async fn claim<S: Store>(service: &Service<S>, claims: mpsc::Sender<Vec<DrainRecord>>) {
    let mut ticks = tokio::time::interval(ROUND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match service.store.claim_drains(&service.name, CLAIM).await {
            Ok(claimed) => {
                if claims.send(claimed).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::debug!(%error, "drains cannot be carried on"),
        }
    }
}

/// Goes on with each of the drains once for each time that they were claimed, or less often if that takes longer.
async fn carry_on<S: Store>(service: &Service<S>, mut claims: mpsc::Receiver<Vec<DrainRecord>>) {
    // Those that are in none of the rounds.
    let mut carried: HashMap<NodeId, Carried> = HashMap::new();
    let mut rounds = FuturesUnordered::new();
    let mut in_round: HashSet<NodeId> = HashSet::new();
    let mut due: VecDeque<DrainRecord> = VecDeque::new();
    loop {
        tokio::select! {
            Some((node, one)) = rounds.next() => {
                in_round.remove(&node);
                carried.insert(node, one);
            }
            claimed = claims.recv() => {
                let Some(claimed) = claimed else { return };
                // A move that has begun is finished, also when its drain was cancelled: a room whose node is not told where it went would be in
                // two places.
                let is_claimed = |node: &NodeId| claimed.iter().any(|record| record.drain.node == *node);
                carried.retain(|node, one| is_claimed(node) || one.moves_on());
                line_up(&mut due, claimed);
            }
        }
        while rounds.len() < ROUNDS_AT_A_TIME {
            let next = due.iter().position(|record| !in_round.contains(&record.drain.node));
            let Some(record) = next.and_then(|next| due.remove(next)) else {
                break;
            };
            let node = record.drain.node;
            let mut one = carried.remove(&node).unwrap_or_default();
            in_round.insert(node);
            rounds.push(async move {
                if let Err(error) = one.round(service, &record).await {
                    tracing::warn!(%node, %error, "a drain does not get on");
                }
                (node, one)
            });
        }
    }
}

/// As the drains stand now; those that have waited for their turn keep their places.
fn line_up(due: &mut VecDeque<DrainRecord>, mut claimed: Vec<DrainRecord>) {
    let waited = |record: &DrainRecord| {
        let place = due.iter().position(|waiting| waiting.drain.node == record.drain.node);
        place.unwrap_or(usize::MAX)
    };
    claimed.sort_by_key(waited);
    *due = claimed.into();
}

impl Carried {
    /// Whether moves are under way.
    fn moves_on(&mut self) -> bool {
        while self.moves.try_join_next().is_some() {}
        !self.moves.is_empty()
    }

    async fn round<S: Store>(&mut self, service: &Service<S>, record: &DrainRecord) -> Result<(), Error> {
        let drain = &record.drain;
        self.leaving.handle_known(record.leaving);
        while let Some(done) = self.moves.try_join_next() {
            self.done(done);
        }
        if drain.state == DrainState::Lost {
            return self.note(service, record, Some(DrainState::Lost)).await;
        }
        if drain.deadline_ms == Some(0) {
            tracing::warn!(node = %drain.node, left = drain.rooms_left, "a drain's deadline has come; the rest of the rooms stay");
            return self.note(service, record, Some(DrainState::Expired)).await;
        }
        if drain.rooms_left == 0 && self.moves.is_empty() {
            // The last ones may still be on their way; a node that does not say is given as much time as they have.
            let empty_for = self.empty_since.get_or_insert_with(Instant::now).elapsed();
            let is_empty = match self.look(service, record).await {
                Some(hosted) => {
                    self.tell_of_those_left_behind(service, record, &HashSet::new(), &hosted);
                    hosted.rooms.is_empty()
                }
                None => empty_for >= WITHIN,
            };
            let end = is_empty.then_some(DrainState::Done);
            if end.is_some() {
                tracing::info!(node = %drain.node, rooms = drain.rooms + self.moved, "a node is drained");
            }
            return self.note(service, record, end).await;
        }
        let now = Instant::now();
        let is_due = |last: Option<Instant>, every| last.is_none_or(|last| now - last >= every);
        if self.plan.wants_rooms(now) || is_due(self.read_at, READ) {
            self.read_at = Some(now);
            let rooms = rooms_of(service, record).await?;
            if let Some(hosted) = self.look(service, record).await {
                let on_it = rooms.iter().map(|view| view.room.clone()).collect();
                self.tell_of_those_left_behind(service, record, &on_it, &hosted);
                self.plan.set_rooms(rooms, &hosted);
            } else {
                self.plan.set_rooms(rooms, &HostedRooms::default());
            }
        } else if self.leaving.is_waiting() && is_due(self.looked_at, LOOK) {
            self.look(service, record).await;
        }
        let deadline = now + ROUND;
        loop {
            let now = Instant::now();
            match self.plan.next(now, drain.rate) {
                plan::Next::Room(view) if self.moves.len() < AT_A_TIME => {
                    self.start(service, record, view);
                }
                plan::Next::Room(view) => {
                    self.plan.put_back(view);
                    break;
                }
                plan::Next::At(at) if at < deadline => tokio::time::sleep_until(at).await,
                plan::Next::At(_) | plan::Next::Nothing => break,
            }
        }
        while let Some(done) = self.moves.try_join_next() {
            self.done(done);
        }
        self.note(service, record, None).await
    }

    /// What the node says it hosts; none: it does not say.
    async fn look<S: Store>(&mut self, service: &Service<S>, record: &DrainRecord) -> Option<HostedRooms> {
        let asked = Instant::now();
        self.looked_at = Some(asked);
        let answer = timeout(ANSWER, service.ask.rooms(&record.control)).await;
        let hosted = answer.ok().flatten()?;
        self.leaving.handle_hosted(&hosted, asked);
        Some(hosted)
    }

    fn done(&mut self, done: Result<(RoomName, Result<Moved, Error>), tokio::task::JoinError>) {
        match done {
            Ok((room, Ok(Moved::Yes(at)))) => {
                self.plan.moved(&room);
                self.leaving.handle_handed(&room, at);
                self.moved += 1;
            }
            Ok((room, Ok(Moved::Gone))) => self.plan.moved(&room),
            Ok((room, Ok(Moved::Stuck))) => self.plan.stuck(room, Instant::now()),
            Ok((room, Err(error))) => {
                tracing::debug!(%room, %error, "a room could not be moved; it is tried again");
                self.plan.stuck(room, Instant::now());
            }
            Err(error) => tracing::error!(%error, "moving a room failed"),
        }
    }

    async fn note<S: Store>(
        &mut self,
        service: &Service<S>,
        record: &DrainRecord,
        end: Option<DrainState>,
    ) -> Result<(), Error> {
        let stuck = self.plan.stuck_rooms();
        let takes = self.leaving.takes();
        let leaving = takes.filter(|takes| record.leaving.is_none_or(|known| known.abs_diff(*takes) >= CHANGED));
        if end.is_none() && self.moved == 0 && stuck == record.drain.stuck && leaving.is_none() {
            return Ok(());
        }
        let note = DrainNote {
            node: record.drain.node,
            epoch: record.drain.epoch,
            by: &service.name,
            moved: self.moved,
            stuck,
            leaving,
            end,
        };
        if service.store.note_drain(&note).await? {
            self.moved = 0;
        }
        Ok(())
    }

    /// Tells the node where rooms are that it hosts and the map has elsewhere: they were handed over, and it was not told. `on_it` was read
    /// from the map before the node was asked.
    fn tell_of_those_left_behind<S: Store>(
        &mut self,
        service: &Service<S>,
        record: &DrainRecord,
        on_it: &HashSet<RoomName>,
        hosted: &HostedRooms,
    ) {
        let Some(service) = service.me() else {
            return;
        };
        for left in hosted.rooms.iter().filter(|room| !room.moving) {
            let room = &left.room;
            if self.moves.len() >= AT_A_TIME || on_it.contains(room) || !self.plan.begin(room) {
                continue;
            }
            let (service, control, room, generation) = (
                Arc::clone(&service),
                record.control.clone(),
                room.clone(),
                left.generation,
            );
            self.moves.spawn(async move {
                let told = match service.store.find(&room).await {
                    Ok(Some(found)) if found.generation > generation => {
                        tell(&service, &control, generation, found).await
                    }
                    Ok(_) => Ok(()),
                    Err(error) => Err(error),
                };
                (room, told.map(|()| Moved::Gone))
            });
        }
    }

    fn start<S: Store>(&mut self, service: &Service<S>, record: &DrainRecord, view: RoomView) {
        let Some(service) = service.me() else {
            return;
        };
        let control = record.control.clone();
        let owner = CloseRoom {
            node: record.drain.node,
            epoch: record.drain.epoch,
            generation: view.generation,
        };
        let drained = Drained {
            node: record.drain.node,
            asked_by: record.asked_by,
            began_at_ms: record.began_at_ms,
        };
        self.moves.spawn(async move {
            let moved = move_room(&service, &control, &view.room, &owner, drained).await;
            (view.room, moved)
        });
    }
}

/// The open rooms of a node in the epoch of its drain.
async fn rooms_of<S: Store>(service: &Service<S>, record: &DrainRecord) -> Result<Vec<RoomView>, Error> {
    let mut rooms: Vec<RoomView> = Vec::new();
    loop {
        let after = rooms.last().map(|view| view.room.clone());
        let page = service
            .store
            .rooms(after.as_ref(), Some(record.drain.node), PAGE)
            .await?;
        let is_last = page.len() < PAGE;
        rooms.extend(page);
        if is_last {
            break;
        }
    }
    rooms.retain(|view| view.state == RoomState::Open && view.epoch == record.drain.epoch);
    Ok(rooms)
}
