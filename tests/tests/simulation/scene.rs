//! What the scenarios are made of: a world in which all is well, with people in rooms, of whom it is known where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use signalbox_media::tenure::Promises;
use signalbox_orchestrator::store::Store;
use signalbox_protocol::node::DrainState;
use signalbox_protocol::{Generation, RoomName};
use tokio::time::{sleep, timeout};

use crate::NODES;
use crate::invariants::Invariants;
use crate::node::Person;
use crate::simulation::Summary;
use crate::world::World;

/// How many rooms there are.
const ROOMS: usize = 15;

/// How many gateways: more than one is left when one dies.
pub const GATEWAYS: usize = 3;

/// How many people a gateway brings into a room at most.
const CROWD: u64 = 3;

/// How often everything is looked at.
const STEP: Duration = Duration::from_millis(5);

/// How long it may take until the first rooms can be joined.
const READY: Duration = Duration::from_secs(20);

/// A room as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    pub node: usize,
    pub generation: Generation,
    pub people: BTreeSet<Person>,
}

/// A world, and what was in it before anything broke.
pub struct Scene {
    pub world: World,
    pub rng: StdRng,
    pub before: BTreeMap<RoomName, Served>,
    /// A node that has several of the rooms.
    pub doomed: usize,
    invariants: Invariants,
    joins: u64,
}

impl Scene {
    /// Waits until people of each gateway are in rooms at each node.
    pub async fn begin(seed: u64) -> Result<Self, String> {
        let world = World::new(seed, Promises::One, GATEWAYS);
        // So that what is measured is not a message that was slow.
        world.network.calm();
        let mut scene = Self {
            world,
            rng: StdRng::seed_from_u64(seed ^ 0x5ce0),
            before: BTreeMap::new(),
            doomed: 0,
            invariants: Invariants::default(),
            joins: 0,
        };
        for number in 0..ROOMS {
            let room: RoomName = format!("room-{number}").parse().expect("a name");
            for gateway in 0..GATEWAYS {
                // Most rooms have people of one gateway only.
                let only = number % 5;
                let crowd = if only == gateway || only >= GATEWAYS {
                    scene.rng.random_range(1..=CROWD)
                } else {
                    0
                };
                for _ in 0..crowd {
                    let ready = timeout(READY, scene.join_at_last(gateway, &room)).await;
                    ready.map_err(|_| format!("nobody could join {room}"))?;
                }
            }
            let [served] = &scene.served(&room)[..] else {
                return Err(format!("{room} is served by {:?}", scene.served(&room)));
            };
            scene.before.insert(room, served.clone());
        }
        scene.doomed = (0..NODES).max_by_key(|node| scene.rooms_of(*node).len()).unwrap_or(0);
        Ok(scene)
    }

    async fn join_at_last(&mut self, gateway: usize, room: &RoomName) {
        while !self.join(gateway, room).await {
            sleep(STEP).await;
        }
    }

    /// Whether somebody can join the room.
    pub async fn join(&mut self, gateway: usize, room: &RoomName) -> bool {
        let Some(gateway) = self.world.gateway(gateway) else {
            return false;
        };
        let joined = gateway.join(&self.world, room.clone()).await;
        self.joins += u64::from(joined.is_some());
        joined.is_some()
    }

    /// The rooms that were on a node.
    pub fn rooms_of(&self, node: usize) -> Vec<RoomName> {
        let rooms = self.before.iter().filter(|(_, served)| served.node == node);
        rooms.map(|(room, _)| room.clone()).collect()
    }

    /// Where a room is served at this moment.
    pub fn served(&self, room: &RoomName) -> Vec<Served> {
        let served = (0..NODES).filter_map(|node| {
            let (generation, people) = self.world.node(node)?.people(&self.world, room)?;
            Some(Served {
                node,
                generation,
                people,
            })
        });
        served.collect()
    }

    /// Where the map has each room, and in which generation.
    pub async fn map(&self) -> BTreeMap<RoomName, (usize, Generation)> {
        let map = self.world.database.map();
        let views = map.rooms(None, None, 1000).await.expect("the map in memory");
        let place = |node| self.world.index_of(node);
        views
            .into_iter()
            .map(|view| (view.room, (place(view.node), view.generation)))
            .collect()
    }

    /// How a node's drain is.
    pub async fn drain(&self, node: usize) -> Result<DrainState, String> {
        let node = self.world.node(node).ok_or("the node does not run")?;
        let record = self.world.database.map().drain(node.id).await;
        let record = record.expect("the map in memory").ok_or("there is no drain")?;
        Ok(record.drain.state)
    }

    /// That the room has gone from the doomed node to another one, in the next generation, and that people of these gateways are there and nowhere else.
    pub fn has_moved_on(&self, room: &RoomName, gateways: &[usize]) -> Result<(), String> {
        let (before, served) = (&self.before[room], self.served(room));
        let theirs = |people: &BTreeSet<Person>| -> BTreeSet<Person> {
            let theirs = people.iter().filter(|(gateway, _)| gateways.contains(gateway));
            theirs.copied().collect()
        };
        let is_right = matches!(&served[..], [now] if now.node != self.doomed
            && now.generation.0 == before.generation.0 + 1
            && theirs(&now.people).is_superset(&theirs(&before.people)));
        is_right
            .then_some(())
            .ok_or_else(|| format!("{room} was {before:?} and is {served:?}"))
    }

    /// That the room is as it was.
    pub fn has_stayed(&self, room: &RoomName) -> Result<(), String> {
        let (before, served) = (&self.before[room], self.served(room));
        let is_same = matches!(&served[..], [now] if now.node == before.node && now.generation == before.generation
            && now.people.is_superset(&before.people));
        is_same
            .then_some(())
            .ok_or_else(|| format!("{room} was {before:?} and is {served:?}"))
    }

    /// Lets a moment pass, and looks at everything.
    pub async fn step(&mut self) -> Result<(), String> {
        sleep(STEP).await;
        let looked = self.invariants.check(&self.world).await;
        looked.map_err(|what| format!("at {:?}: {what}", self.world.elapsed()))
    }

    /// Lets time pass in which something holds all the time.
    pub async fn holds(&mut self, time: Duration, check: impl Fn(&Self) -> Result<(), String>) -> Result<(), String> {
        let end = self.world.elapsed() + time;
        while self.world.elapsed() < end {
            self.step().await?;
            check(self)?;
        }
        Ok(())
    }

    /// Waits until something holds; gives how long that took.
    pub async fn until(
        &mut self,
        within: Duration,
        check: impl AsyncFn(&Self) -> Result<(), String>,
    ) -> Result<Duration, String> {
        let begin = self.world.elapsed();
        loop {
            self.step().await?;
            let took = self.world.elapsed() - begin;
            match check(self).await {
                Ok(()) => {
                    self.world.note(|| format!("that took {took:?}"));
                    return Ok(took);
                }
                Err(what) if took > within => return Err(format!("not within {within:?}: {what}")),
                Err(_) => {}
            }
        }
    }

    /// That the histories make sense, at the end.
    pub async fn end(self) -> Result<Summary, String> {
        self.invariants.check_histories(&self.world).await?;
        Ok(Summary {
            joins: self.joins,
            failed: 0,
            trace: self.world.trace(),
        })
    }
}
