//! A gateway of the simulation: the real choice among orchestrators, around joins.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use signalbox_gateway::upstreams::{Outcome, Upstreams};
use signalbox_protocol::placement::{PlaceRoom, Placement};
use signalbox_protocol::{Epoch, Generation, NodeId, RoomName};
use tokio::time::{sleep, timeout};

use crate::network::Host;
use crate::node::Refused;
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
    index: usize,
    state: Arc<Mutex<State>>,
}

struct State {
    upstreams: Upstreams,
    rng: StdRng,
    /// Placements remembered; only hints.
    known: BTreeMap<RoomName, Placement>,
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
            })),
        }
    }

    /// Brings somebody into the room; none: that did not work.
    pub async fn join(&self, world: &World, room: RoomName) -> Option<Joined> {
        timeout(JOIN, self.try_join(world, &room)).await.ok().flatten()
    }

    async fn try_join(&self, world: &World, room: &RoomName) -> Option<Joined> {
        for _ in 0..TRIES {
            let placement = self.find(world, room).await?;
            if let Some(joined) = self.enter(world, &placement).await {
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
        let placement = self.ask(world, room).await?;
        self.state().known.insert(room.clone(), placement.clone());
        Some(placement)
    }

    async fn ask(&self, world: &World, room: &RoomName) -> Option<Placement> {
        let request = PlaceRoom::new(room.clone());
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
            let call = world.post(
                Host::Gateway(self.index),
                attempt.upstream(),
                "/v1/placements",
                &request,
            );
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

    async fn enter(&self, world: &World, placement: &Placement) -> Option<Joined> {
        let (from, index) = (Host::Gateway(self.index), world.index_of(placement.node));
        let round_trip = async {
            world.network.carry(from, Host::Node(index)).await;
            world.awake(index).await;
            let admitted = world
                .node(index)
                .map(|node| node.admit(world, &placement.room, &placement.ticket));
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
