//! Those who have joined through a gateway of the simulation, and what it does when their node is lost or hands their room over.
//!
//! The real [`Recovery`] decides when a lost room is asked for; around it stands what the real gateway does with its answers, without sessions
//! of clients: to have a room opened with everyone and to take its people up is one message here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::RngExt;
use signalbox_gateway::moves::recovery::{Answer, Place, Recovery};
use signalbox_protocol::node::MoveRoom;
use signalbox_protocol::placement::{PlaceRoom, Placement};
use signalbox_protocol::{NodeId, RoomName};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::gateway::Gateway;
use crate::network::Host;
use crate::node::{Person, Seen};
use crate::world::World;

/// How often a gateway looks at the nodes that it has people on. A broken link is noticed at the next look.
const LOOK: Duration = Duration::from_millis(100);

/// For how long a node may be silent before it counts as lost.
const SILENT: Duration = Duration::from_secs(1);

/// How long one round of questions for a lost room may take.
const ASK: Duration = Duration::from_millis(1500);

/// A gateway's people, and the rooms of theirs that are lost.
#[derive(Default)]
pub struct Sessions {
    rooms: BTreeMap<RoomName, Session>,
    recovery: Recovery,
    /// Rooms that are being opened at the node that they were handed over to.
    handing_over: BTreeSet<RoomName>,
    /// Nodes whose answer is awaited.
    looking: BTreeSet<NodeId>,
}

struct Session {
    at: Placement,
    people: BTreeSet<Person>,
}

impl Sessions {
    /// Somebody came in.
    pub fn enter(&mut self, placement: &Placement, person: Person) {
        let fresh = || Session {
            at: placement.clone(),
            people: BTreeSet::new(),
        };
        // One who comes to a later place than the others are known at waits with them: they are all brought there.
        let session = self.rooms.entry(placement.room.clone()).or_insert_with(fresh);
        session.people.insert(person);
    }

    /// Whom it has in rooms at a node.
    pub fn people_at(&self, node: NodeId) -> impl Iterator<Item = (&RoomName, &BTreeSet<Person>)> {
        let rooms = self.rooms.iter().filter(move |(_, session)| session.at.node == node);
        rooms.map(|(room, session)| (room, &session.people))
    }

    /// These rooms of a node are lost.
    fn lost(&mut self, now: Duration, node: NodeId, is_lost: impl Fn(&Session) -> bool, dice: impl FnMut() -> f64) {
        let rooms = self.rooms.iter().filter(|(_, session)| session.at.node == node);
        let lost: Vec<_> = rooms
            .filter(|(_, session)| is_lost(session))
            .map(|(room, session)| (room.clone(), Place::of(&session.at), session.people.len()))
            .collect();
        self.recovery.handle_lost(now, lost, dice);
    }
}

/// What came of something that a gateway had begun.
enum Done {
    /// Whether the node answered, and what.
    Looked(NodeId, Option<Seen>),
    Asked(RoomName, Option<Place>, Option<Found>),
    HandedOver(MoveRoom, bool),
    Released,
}

enum Found {
    Elsewhere(Placement),
    Back,
}

impl Gateway {
    /// Watches the nodes that it has people on, and looks for the rooms that are lost. Dropping that is the end of the process.
    pub async fn watch_over(self, world: World) {
        let mut jobs = JoinSet::new();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.ask_for_lost(&world, &mut jobs);
            tokio::select! {
                biased;
                Some(done) = jobs.join_next() => match done.expect("a job ends") {
                    Done::Looked(node, seen) => self.looked(&world, node, seen, &mut jobs),
                    Done::Asked(room, from, found) => self.asked(&world, &room, from, found, &mut jobs),
                    Done::HandedOver(order, is_open) => self.handed_over(&world, &order, is_open, &mut jobs),
                    Done::Released => {}
                },
                _ = looks.tick() => self.look_around(&world, &mut jobs),
                () = world.sleep_until(due.map(Into::into)) => {}
                () = self.woken.notified() => {}
            }
        }
    }

    /// Nobody is in the room any more.
    pub fn all_leave(&self, room: &RoomName) {
        let mut state = self.state();
        state.sessions.rooms.remove(room);
        state.sessions.recovery.forget(room);
    }

    /// Begins to ask for the rooms that it is time for; gives when it is time again.
    fn ask_for_lost(&self, world: &World, jobs: &mut JoinSet<Done>) -> Option<Duration> {
        let now = world.elapsed();
        let mut state = self.state();
        while let Some(room) = state.sessions.recovery.poll(now) {
            let from = state.sessions.recovery.lost_from(&room);
            let people = state.sessions.rooms.get(&room).map(|session| session.people.clone());
            let (gateway, world) = (self.clone(), world.clone());
            jobs.spawn(async move {
                let found = match from.zip(people) {
                    Some((from, people)) => gateway.look_for(&world, &room, from, &people).await,
                    None => None,
                };
                Done::Asked(room, from, found)
            });
        }
        state.sessions.recovery.poll_timeout()
    }

    /// Asks once for a lost room.
    async fn look_for(&self, world: &World, room: &RoomName, from: Place, people: &BTreeSet<Person>) -> Option<Found> {
        let request = PlaceRoom {
            lost: Some(from.node),
            ..PlaceRoom::new(room.clone())
        };
        let placed = timeout(ASK, self.ask(world, &request)).await.ok().flatten();
        if let Some(placement) = placed.filter(|placement| Place::of(placement) != from) {
            let is_open = self.enter(world, &placement, people).await.is_some();
            return is_open.then_some(Found::Elsewhere(placement));
        }
        let seen = self.look_at(world, from.node).await?;
        (seen.rooms.get(room) == Some(&from.generation)).then_some(Found::Back)
    }

    fn asked(
        &self,
        world: &World,
        room: &RoomName,
        from: Option<Place>,
        found: Option<Found>,
        jobs: &mut JoinSet<Done>,
    ) {
        let state = &mut *self.state();
        let sessions = &mut state.sessions;
        let answer = match &found {
            Some(Found::Elsewhere(placement)) => Answer::Elsewhere(Place::of(placement)),
            Some(Found::Back) => Answer::Back,
            None => Answer::Unsettled,
        };
        let is_awaited = from.is_some() && sessions.recovery.lost_from(room) == from;
        let dice = || state.rng.random::<f64>();
        sessions.recovery.handle_answer(world.elapsed(), room, answer, dice);
        let Some(session) = sessions.rooms.get_mut(room) else {
            return sessions.recovery.forget(room);
        };
        if let (Some(Found::Elsewhere(placement)), true) = (found, is_awaited) {
            state.known.insert(room.clone(), placement.clone());
            world.note(|| format!("gateway {} finds {room} in {}", self.index, placement.generation));
            let left = std::mem::replace(&mut session.at, placement);
            self.release(world, &left, session.people.clone(), jobs);
        }
    }

    /// Looks at the nodes that it has people on, unless it waits for their answer.
    fn look_around(&self, world: &World, jobs: &mut JoinSet<Done>) {
        let mut state = self.state();
        let nodes: BTreeSet<_> = state.sessions.rooms.values().map(|session| session.at.node).collect();
        for node in nodes {
            if state.sessions.looking.insert(node) {
                let (gateway, world) = (self.clone(), world.clone());
                jobs.spawn(async move { Done::Looked(node, gateway.look_at(&world, node).await) });
            }
        }
    }

    /// What the node tells; none: its process is not there, or it is silent.
    async fn look_at(&self, world: &World, node: NodeId) -> Option<Seen> {
        let (here, index) = (Host::Gateway(self.index), world.index_of(node));
        let round_trip = async {
            world.network.carry(here, Host::Node(index)).await;
            world.awake(index).await;
            let seen = world.node(index).map(|node| node.seen());
            world.network.carry(Host::Node(index), here).await;
            seen
        };
        timeout(SILENT, round_trip).await.ok().flatten()
    }

    fn looked(&self, world: &World, node: NodeId, seen: Option<Seen>, jobs: &mut JoinSet<Done>) {
        let state = &mut *self.state();
        let sessions = &mut state.sessions;
        sessions.looking.remove(&node);
        let is_lost = |session: &Session| {
            let there = seen.as_ref().and_then(|seen| seen.rooms.get(&session.at.room));
            there != Some(&session.at.generation)
        };
        let dice = || state.rng.random::<f64>();
        sessions.lost(world.elapsed(), node, is_lost, dice);
        for order in seen.into_iter().flat_map(|seen| seen.moving.into_values()) {
            let room = &order.to.room;
            let Some(session) = sessions.rooms.get(room) else {
                continue;
            };
            let is_there = session.at.node == node && session.at.generation == order.generation;
            if !is_there || sessions.recovery.lost_from(room).is_some() || !sessions.handing_over.insert(room.clone()) {
                continue;
            }
            let (gateway, world, people) = (self.clone(), world.clone(), session.people.clone());
            jobs.spawn(async move {
                let is_open = gateway.enter(&world, &order.to, &people).await.is_some();
                Done::HandedOver(order, is_open)
            });
        }
    }

    /// A room is open at the node that it was handed over to; or that did not work, and it is looked for.
    fn handed_over(&self, world: &World, order: &MoveRoom, is_open: bool, jobs: &mut JoinSet<Done>) {
        let state = &mut *self.state();
        let (sessions, room) = (&mut state.sessions, &order.to.room);
        sessions.handing_over.remove(room);
        let Some(session) = sessions.rooms.get_mut(room) else {
            return;
        };
        if session.at.generation != order.generation {
            return;
        }
        if is_open {
            sessions.recovery.forget(room);
            state.known.insert(room.clone(), order.to.clone());
            let left = std::mem::replace(&mut session.at, order.to.clone());
            self.release(world, &left, session.people.clone(), jobs);
        } else {
            let node = session.at.node;
            let is_it = |session: &Session| session.at.room == *room;
            let dice = || state.rng.random::<f64>();
            sessions.lost(world.elapsed(), node, is_it, dice);
        }
    }

    /// Its people have gone from where they were, and that node is told.
    fn release(&self, world: &World, left: &Placement, people: BTreeSet<Person>, jobs: &mut JoinSet<Done>) {
        let (from, index) = (Host::Gateway(self.index), world.index_of(left.node));
        let (world, left) = (world.clone(), left.clone());
        jobs.spawn(async move {
            let there = async {
                world.network.carry(from, Host::Node(index)).await;
                world.awake(index).await;
                if let Some(node) = world.node(index) {
                    node.release(&left.room, left.generation, &people);
                }
            };
            // Not told in time, it lets go of them by itself.
            let _ = timeout(SILENT, there).await;
            Done::Released
        });
    }
}
