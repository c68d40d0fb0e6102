//! What must hold at every moment of a simulation.

use std::collections::BTreeMap;
use std::time::Duration;

use signalbox_orchestrator::digests::{self, SETTLED};
use signalbox_orchestrator::store::Store;
use signalbox_protocol::history::{HistoryEntry, RoomEvent};
use signalbox_protocol::node::DrainState;
use signalbox_protocol::{Epoch, Generation, NodeId, RoomName};
use tokio::time::Instant;

use crate::faults;
use crate::gateway::Joined;
use crate::world::World;

/// How long after a failover that lost writes two nodes may serve a room: until every node has named its rooms twice, which the last one does at its
/// second heartbeat after [`SETTLED`], and for the nodes that are restarted meanwhile.
const RECONCILED: Duration = SETTLED.saturating_add(Duration::from_secs(3));

/// How long after a room was handed over, and all is well, its former node may serve it without having been told. Nobody tells it any more
/// once the drain was cancelled; it is then told by the answer to its next list of rooms, for which it is asked every so often.
const TOLD: Duration = digests::EVERY
    .saturating_add(digests::PATIENCE)
    .saturating_add(Duration::from_secs(1));

/// The same while its drain is carried on and all is well, also of what was handed over before.
const CARRIED: Duration = Duration::from_secs(4);

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Invariants {
    /// Who was given a generation of a room.
    owners: BTreeMap<(RoomName, Generation), (NodeId, Epoch)>,
    latest: BTreeMap<RoomName, Generation>,
    lost_writes: Option<Instant>,
    /// Since when a node serves a generation that was handed over, without being told.
    untold: BTreeMap<(RoomName, Generation), Instant>,
}

impl Invariants {
    /// A failover has lost writes: generations may repeat once, and what two nodes serve has to be sorted out first.
    pub fn writes_were_lost(&mut self) {
        self.owners.clear();
        self.latest.clear();
        self.lost_writes = Some(Instant::now());
    }

    fn is_reconciling(&self) -> bool {
        self.lost_writes.is_some_and(|at| at.elapsed() < RECONCILED)
    }

    /// Somebody was let in.
    ///
    /// # Errors
    /// What is wrong.
    pub fn joined(&mut self, joined: &Joined) -> Result<(), String> {
        self.owned(&joined.room, joined.generation, (joined.node, joined.epoch))
    }

    /// Looks at everything.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn check(&mut self, world: &World) -> Result<(), String> {
        let mut serving: BTreeMap<RoomName, (usize, Generation)> = BTreeMap::new();
        let untold = std::mem::take(&mut self.untold);
        for index in 0..world.node_count() {
            // A machine that stands still sends no packet; when it goes on, it asks its lease first.
            let Some(node) = world.node(index).filter(|_| !world.is_frozen(index)) else {
                continue;
            };
            for (room, generation, epoch) in node.serves(world) {
                self.owned(&room, generation, (node.id, epoch))?;
                // Those in a room that was handed over are served until they are at its next node.
                if node.is_moving(&room) {
                    continue;
                }
                if was_handed_over(world, &room, generation).await {
                    let key = (room.clone(), generation);
                    let since = untold.get(&key).copied().filter(|_| world.elapsed() > faults::TROUBLE);
                    let since = *self.untold.entry(key).or_insert(since.unwrap_or_else(Instant::now));
                    let calm = index == faults::DRAINED && world.elapsed() > faults::CALM + CARRIED;
                    if since.elapsed() > if calm { CARRIED } else { TOLD } {
                        return Err(format!(
                            "node {index} was never told that room {room} has moved on from {generation}"
                        ));
                    }
                    continue;
                }
                if let Some((other, theirs)) = serving.insert(room.clone(), (index, generation))
                    && !self.is_reconciling()
                {
                    return Err(format!(
                        "room {room} is served by node {other} (generation {theirs}) and node {index} (generation {generation})"
                    ));
                }
            }
        }
        let map = world.database.map();
        for view in map.rooms(None, None, 1000).await.expect("the map in memory") {
            self.owned(&view.room, view.generation, (view.node, view.epoch))?;
            let latest = self.latest.entry(view.room.clone()).or_insert(view.generation);
            if view.generation < *latest {
                return Err(format!(
                    "room {}: generation {} after {latest}",
                    view.room, view.generation
                ));
            }
            *latest = view.generation;
        }
        Ok(())
    }

    /// Looks at the histories: each change of a room is the next generation, and has a reason.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn check_histories(&self, world: &World) -> Result<(), String> {
        let map = world.database.map();
        for view in map.rooms(None, None, 1000).await.expect("the map in memory") {
            let (_, mut history) = map
                .history(&view.room, 1000)
                .await
                .expect("the map in memory")
                .expect("it is there");
            history.reverse();
            for pair in history.windows(2) {
                let [before, after] = pair else { continue };
                let step = after.generation.0.saturating_sub(before.generation.0);
                let is_right = match after.event {
                    RoomEvent::Placed => step == 1 && before.event == RoomEvent::Closed,
                    RoomEvent::TakenOver => step == 1 && before.event != RoomEvent::Closed,
                    RoomEvent::HandedOff => step == 1,
                    RoomEvent::Closed => step == 0 && after.node == before.node,
                    RoomEvent::Restored => self.lost_writes.is_some(),
                };
                if !is_right {
                    return Err(format!("room {}: {:?} after {:?}", view.room, after, before));
                }
            }
        }
        Ok(())
    }

    /// Looks at the node that was drained while nothing else happened.
    ///
    /// # Errors
    /// What is wrong.
    pub async fn check_drained(&self, world: &World, index: usize) -> Result<(), String> {
        let node = world.node(index).ok_or("the drained node does not run")?;
        let record = world.database.map().drain(node.id).await.expect("the map in memory");
        let drain = record.ok_or("there was no drain")?.drain;
        let hosted = node.hosted();
        if drain.state != DrainState::Done || drain.rooms_left > 0 || !hosted.rooms.is_empty() {
            return Err(format!("not drained: {drain:?}, and it hosts {hosted:?}"));
        }
        Ok(())
    }

    fn owned(&mut self, room: &RoomName, generation: Generation, owner: (NodeId, Epoch)) -> Result<(), String> {
        if self.is_reconciling() {
            return Ok(());
        }
        let known = *self.owners.entry((room.clone(), generation)).or_insert(owner);
        if known == owner {
            return Ok(());
        }
        Err(format!(
            "room {room}, generation {generation}: of {known:?}, and of {owner:?}"
        ))
    }
}

/// Whether the generation after this one began with a hand-off.
async fn was_handed_over(world: &World, room: &RoomName, generation: Generation) -> bool {
    let history = world
        .database
        .map()
        .history(room, 1000)
        .await
        .expect("the map in memory");
    let next = Generation(generation.0 + 1);
    let handed_over = |entry: &HistoryEntry| entry.generation == next && entry.event == RoomEvent::HandedOff;
    history.is_some_and(|(now, history)| now.generation >= next && history.iter().any(handed_over))
}
