//! A gateway of the simulation: the real choice among orchestrators, around joins. What becomes of those who have joined is in `sessions`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use signalbox_gateway::upstreams::{Outcome, Upstreams};
use signalbox_protocol::placement::{PlaceRoom, Placement};
use signalbox_protocol::{Epoch, Generation, NodeId, RoomName};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::network::Host;
use crate::node::{Person, Refused};
use crate::sessions::Sessions;
use crate::world::World;

/// How long one request may take, and one join altogether.
const REQUEST: Duration = Duration::from_secs(1);
const JOIN: Duration = Duration::from_secs(8);

/// How often a join asks anew after a node has refused its ticket.
const TRIES: usize = 4;

/// How long it waits before: a room that closes is soon closed.
const AGAIN: Duration = Duration::from_millis(250);

/// A gateway. Clones are the same one.
#[derive(Clone)]
pub struct Gateway {
    pub index: usize,
    state: Arc<Mutex<State>>,
    /// Its sessions may have something to do.
    pub woken: Arc<Notify>,
    killed: CancellationToken,
}

pub struct State {
    upstreams: Upstreams,
    pub rng: StdRng,
    /// Placements remembered; only hints.
    pub known: BTreeMap<RoomName, Placement>,
    pub sessions: Sessions,
    people: u64,
    /// How often it has asked for a room.
    pub asked: u64,
}

/// Where somebody came in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Joined {
    pub room: RoomName,
    pub node: NodeId,
    pub epoch: Epoch,
    pub generation: Generation,
}

impl Gateway {
    pub fn new(index: usize, orchestrators: usize, seed: u64) -> Self {
        Self {
            index,
            state: Arc::new(Mutex::new(State {
                upstreams: Upstreams::new(orchestrators),
                rng: StdRng::seed_from_u64(seed),
                known: BTreeMap::new(),
                sessions: Sessions::default(),
                people: 0,
                asked: 0,
            })),
            woken: Arc::default(),
            killed: CancellationToken::new(),
        }
    }

    /// Its process has ended, and with it all that was under way.
    pub fn killed(&self) {
        self.killed.cancel();
    }

    /// Brings somebody into the room; none: that did not work.
    pub async fn join(&self, world: &World, room: RoomName) -> Option<Joined> {
        let join = timeout(JOIN, self.try_join(world, &room));
        self.killed.run_until_cancelled(join).await?.ok().flatten()
    }

    async fn try_join(&self, world: &World, room: &RoomName) -> Option<Joined> {
        let person = {
            let mut state = self.state();
            state.people += 1;
            (self.index, state.people)
        };
        for _ in 0..TRIES {
            let placement = self.find(world, room).await?;
            if let Some(joined) = self.enter(world, &placement, &BTreeSet::from([person])).await {
                self.state().sessions.enter(&placement, person);
                return Some(joined);
            }
            self.state().known.remove(room);
            sleep(AGAIN).await;
        }
        None
    }

    async fn find(&self, world: &World, room: &RoomName) -> Option<Placement> {
        if let Some(known) = self.state().known.get(room) {
            return Some(known.clone());
        }
        let placement = self.ask(world, &PlaceRoom::new(room.clone())).await?;
        self.state().known.insert(room.clone(), placement.clone());
        Some(placement)
    }

    /// Asks one orchestrator after the other.
    pub async fn ask(&self, world: &World, request: &PlaceRoom) -> Option<Placement> {
        self.state().asked += 1;
        let mut tried = Vec::new();
        loop {
            let attempt = {
                let state = &mut *self.state();
                if tried.is_empty() {
                    state.upstreams.first(None, world.elapsed(), &mut state.rng)?
                } else {
                    state
                        .upstreams
                        .retry(&tried, None, world.elapsed(), &mut state.rng)
                        .ok()?
                }
            };
            tried.push(attempt.upstream());
            let call = world.post(Host::Gateway(self.index), attempt.upstream(), "/v1/placements", request);
            let reply = timeout(REQUEST, call).await.ok();
            let placement = reply.as_ref().and_then(|reply| reply.ok::<Placement>());
            let outcome = if placement.is_some() {
                Outcome::Success
            } else {
                Outcome::Failure
            };
            self.state().upstreams.finish(attempt, outcome, world.elapsed());
            if placement.is_some() {
                return placement;
            }
        }
    }

    /// Brings people to where the room is.
    pub async fn enter(&self, world: &World, placement: &Placement, people: &BTreeSet<Person>) -> Option<Joined> {
        let (from, index) = (Host::Gateway(self.index), world.index_of(placement.node));
        let round_trip = async {
            world.network.carry(from, Host::Node(index)).await;
            world.awake(index).await;
            let admitted = world
                .node(index)
                .map(|node| node.admit(world, &placement.room, &placement.ticket, people));
            world.network.carry(Host::Node(index), from).await;
            admitted
        };
        let (generation, epoch) = match timeout(REQUEST, round_trip).await.ok()?? {
            Ok(admitted) => admitted,
            Err(Refused(why)) => {
                world.note(|| {
                    format!(
                        "node {index} refuses {} generation {}: {why}",
                        placement.room, placement.generation
                    )
                });
                return None;
            }
        };
        Some(Joined {
            room: placement.room.clone(),
            node: placement.node,
            epoch,
            generation,
        })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
