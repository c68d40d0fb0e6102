//! A media node of the simulation: the real tenure, lease, tickets and admission, around a list of rooms that have people in them, instead
//! of shards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use signalbox_media::lease::Lease;
use signalbox_media::rooms::{Rooms, Unmoved};
use signalbox_media::tenure::{Action, Answer, Ask, Note, Promises, Question, Tenure};
use signalbox_media::tickets::Tickets;
use signalbox_protocol::node::{
    EpochHeld, Heartbeat, HostedRoom, HostedRooms, MoveRoom, NodeLoad, RegisterNode, RoomDigest,
};
use signalbox_protocol::placement::{CloseRoom, RoomClosed};
use signalbox_protocol::{Epoch, Generation, NodeId, RoomName};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::network::Host;
use crate::world::World;

/// How long a stale room may turn out to be one that moves.
const MAY_MOVE: std::time::Duration = std::time::Duration::from_secs(1);

/// How long the call may take that closes a room.
const CLOSE: std::time::Duration = std::time::Duration::from_secs(2);

/// How often it looks whether all have gone from a room that moves.
const GONE: std::time::Duration = std::time::Duration::from_millis(50);

/// Somebody in a room: the gateway, and a number of its own.
pub type Person = (usize, u64);

/// A room that has people in it.
#[derive(Debug, Clone)]
struct Open {
    generation: Generation,
    people: BTreeSet<Person>,
}

/// What a gateway that has a link to a node knows of it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub rooms: BTreeMap<RoomName, Generation>,
    /// Rooms that are another node's, whose people are to go there.
    pub moving: BTreeMap<RoomName, MoveRoom>,
}

/// One process of a node: another one after a restart. Clones are the same.
#[derive(Clone)]
pub struct Node {
    pub index: usize,
    pub id: NodeId,
    pub lease: Arc<Lease>,
    tickets: Arc<Tickets>,
    rooms: Arc<Rooms>,
    /// What the shards would host: rooms with participants.
    shards: Arc<Mutex<BTreeMap<RoomName, Open>>>,
    moving: Arc<Mutex<BTreeMap<RoomName, MoveRoom>>>,
}

/// Why a join was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub String);

impl Node {
    pub fn new(world: &World, index: usize) -> Self {
        let id = NodeId(uuid::Uuid::from_u128(index as u128 + 1));
        Self {
            index,
            id,
            lease: Arc::default(),
            tickets: Arc::new(Tickets::new(&world.secrets(), id)),
            rooms: Arc::new(Rooms::new(1, 1000)),
            shards: Arc::default(),
            moving: Arc::default(),
        }
    }

    /// The rooms that it serves at this moment: what its shards would forward packets of.
    pub fn serves(&self, world: &World) -> Vec<(RoomName, Generation, Epoch)> {
        let Some(epoch) = self.lease.epoch(world.boottime()) else {
            return Vec::new();
        };
        let shards = self.shards();
        shards
            .iter()
            .map(|(room, open)| (room.clone(), open.generation, epoch))
            .collect()
    }

    /// Who is in a room, and in which generation of it, if it is served.
    pub fn people(&self, world: &World, room: &RoomName) -> Option<(Generation, BTreeSet<Person>)> {
        self.lease.epoch(world.boottime())?;
        let shards = self.shards();
        shards.get(room).map(|open| (open.generation, open.people.clone()))
    }

    /// What it tells the gateways that have a link to it.
    pub fn seen(&self) -> Seen {
        let shards = self.shards();
        Seen {
            rooms: shards
                .iter()
                .map(|(room, open)| (room.clone(), open.generation))
                .collect(),
            moving: self.moving().clone(),
        }
    }

    /// Lets people in, as the real admission does: one who joins, or all who were in the room at another node.
    pub fn admit(
        &self,
        world: &World,
        room: &RoomName,
        ticket: &str,
        people: &BTreeSet<Person>,
    ) -> Result<(Generation, Epoch), Refused> {
        let claims = self
            .tickets
            .check(ticket, room, self.lease.held(world.boottime()))
            .map_err(|refusal| Refused(refusal.detail))?;
        let generation = claims.generation;
        let hand_over = |_| {
            let mut shards = self.shards();
            let fresh = || Open {
                generation,
                people: BTreeSet::new(),
            };
            let open = shards.entry(room.clone()).or_insert_with(fresh);
            if open.generation != generation {
                *open = fresh();
            }
            open.people.extend(people);
            Ok(())
        };
        self.rooms
            .enter(room, generation, Instant::now(), |_| 0, hand_over)
            .map_err(|refusal| Refused(refusal.detail))?;
        Ok((generation, claims.epoch))
    }

    /// The rooms that it hosts, by its own account.
    pub fn hosted(&self) -> HostedRooms {
        let hosted = self.rooms.list().into_iter().map(|listed| HostedRoom {
            room: listed.room,
            generation: listed.generation,
            participants: 1,
            moving: listed.moving,
        });
        let mut rooms: Vec<HostedRoom> = hosted.collect();
        rooms.sort_by(|one, other| one.room.cmp(&other.room));
        HostedRooms { rooms }
    }

    /// Whether it lets the room's people go, since the room is another node's.
    pub fn is_moving(&self, room: &RoomName) -> bool {
        self.rooms
            .list()
            .iter()
            .any(|listed| listed.room == *room && listed.moving)
    }

    /// A room was handed to another node: whether that is taken in.
    pub fn send_on(&self, world: &World, order: &MoveRoom) -> bool {
        let (room, to) = (&order.to.room, order.to.generation);
        match self.rooms.begin_move(room, order.generation, to, |_| Ok(())) {
            Ok(()) => {
                self.moving().insert(room.clone(), order.clone());
                tokio::spawn(self.clone().let_go(world.clone(), order.clone()));
            }
            Err(Unmoved::NotHosted | Unmoved::Overtaken) => {}
            Err(Unmoved::Busy) => return false,
        }
        world.note(|| format!("node {} lets {room} go to generation {to}", self.index));
        true
    }

    /// Serves a room that moves until its people have gone; whoever has not done so in time is closed out.
    async fn let_go(self, world: World, order: MoveRoom) {
        let (room, generation) = (&order.to.room, order.generation);
        let is_full = || {
            let shards = self.shards();
            shards
                .get(room)
                .is_some_and(|open| open.generation == generation && !open.people.is_empty())
        };
        let gone = async {
            while is_full() {
                sleep(GONE).await;
            }
        };
        let within = std::time::Duration::from_millis(order.within_ms);
        let are_gone = timeout(within, gone).await.is_ok();
        world.awake(self.index).await;
        if self.rooms.hosts(room, generation) {
            self.shards().remove(room);
            self.rooms.closed(room, generation, Instant::now());
        }
        self.moving()
            .retain(|_, known| known.to.room != *room || known.generation != generation);
        world.note(|| format!("node {} has let {room} go, all gone: {are_gone}", self.index));
    }

    /// People of a gateway have gone from this generation of a room.
    pub fn release(&self, room: &RoomName, generation: Generation, people: &BTreeSet<Person>) {
        if let Some(open) = self.shards().get_mut(room).filter(|open| open.generation == generation) {
            open.people.retain(|person| !people.contains(person));
        }
    }

    pub fn held(&self, world: &World) -> EpochHeld {
        EpochHeld {
            node: self.id,
            epoch: self.lease.epoch(world.boottime()),
        }
    }

    /// The process.
    pub async fn run(self, world: World, promises: Promises, seed: u64) {
        tokio::join!(self.stay_registered(&world, promises, seed), self.close_again(&world));
    }

    async fn stay_registered(&self, world: &World, promises: Promises, seed: u64) {
        let mut tenure = Tenure::new(Arc::clone(&self.lease), world.orchestrators(), promises, seed);
        let mut calls = JoinSet::new();
        let mut closings = JoinSet::new();
        loop {
            while closings.try_join_next().is_some() {}
            world.awake(self.index).await;
            while let Some(action) = tenure.poll_action(world.boottime()) {
                match action {
                    Action::Ask(ask) => {
                        let call = self.clone().call(world.clone(), ask);
                        calls.spawn(call);
                    }
                    Action::Fence { .. } => {
                        world.note(|| format!("node {} is fenced", self.index));
                        self.rooms.fence();
                        self.shards().clear();
                        self.moving().clear();
                    }
                    Action::Close(stale) => {
                        // As in the real node: one that turns out to move does not end.
                        let marked: Vec<RoomDigest> = stale
                            .into_iter()
                            .filter(|digest| self.rooms.mark_stale(&digest.room, digest.generation).is_some())
                            .collect();
                        let own = self.clone();
                        closings.spawn(async move {
                            sleep(MAY_MOVE).await;
                            own.close_stale(&marked);
                        });
                    }
                    Action::GiveUp(why) => panic!("node {} is refused: {why}", self.index),
                    Action::Note(Note::Registered(held)) => self.rooms.set_cluster(held.cluster),
                    Action::Note(_) => {}
                }
            }
            let timeout = tenure.poll_timeout();
            tokio::select! {
                biased;
                Some(answered) = calls.join_next() => {
                    world.awake(self.index).await;
                    let (ask, answer) = answered.expect("a call ends");
                    tenure.handle_answer(world.boottime(), &ask, answer);
                }
                () = world.sleep_until(timeout) => {}
            }
        }
    }

    /// Everyone leaves one of its rooms, when it has any, and it is closed as in the real node.
    pub async fn empty_one(self, world: World, choice: usize) {
        let Some(epoch) = self.lease.epoch(world.boottime()) else {
            return;
        };
        let (room, generation) = {
            let mut shards = self.shards();
            let count = shards.len().max(1);
            let Some((room, open)) = shards.iter().nth(choice % count) else {
                return;
            };
            if self.is_moving(room) {
                return;
            }
            let (room, generation) = (room.clone(), open.generation);
            shards.remove(&room);
            (room, generation)
        };
        world.all_leave(&room);
        self.rooms.mark_empty(&room, generation);
        let owner = CloseRoom {
            node: self.id,
            epoch,
            generation,
        };
        // Until one answers, or the epoch is over.
        for attempt in 0.. {
            world.awake(self.index).await;
            if self.lease.epoch(world.boottime()) != Some(epoch) || !self.rooms.hosts(&room, generation) {
                return;
            }
            let orchestrator = attempt % world.orchestrators();
            if self.tell_closed(&world, orchestrator, &room, &owner).await {
                break;
            }
        }
        world.awake(self.index).await;
        if self.lease.epoch(world.boottime()) == Some(epoch) {
            self.rooms.closed(&room, generation, Instant::now());
        }
    }

    /// As in the real node: see its `closing`.
    async fn close_again(&self, world: &World) {
        for attempt in 0.. {
            let (room, generation) = self.rooms.next_doubted().await;
            world.awake(self.index).await;
            let Some(epoch) = self.lease.epoch(world.boottime()) else {
                continue;
            };
            let owner = CloseRoom {
                node: self.id,
                epoch,
                generation,
            };
            self.tell_closed(world, attempt % world.orchestrators(), &room, &owner)
                .await;
        }
    }

    /// Whether the orchestrator has answered.
    async fn tell_closed(&self, world: &World, orchestrator: usize, room: &RoomName, owner: &CloseRoom) -> bool {
        let path = format!("/v1/rooms/{room}/close");
        let call = world.post(Host::Node(self.index), orchestrator, &path, owner);
        let reply = timeout(CLOSE, call).await;
        reply.is_ok_and(|reply| reply.ok::<RoomClosed>().is_some())
    }

    fn close_stale(&self, stale: &[RoomDigest]) {
        for digest in stale {
            if self.rooms.is_stale(&digest.room, digest.generation) {
                self.shards().remove(&digest.room);
                self.rooms.closed(&digest.room, digest.generation, Instant::now());
            }
        }
    }

    async fn call(self, world: World, ask: Ask) -> (Ask, Answer) {
        let host = Host::Node(self.index);
        let reply = match &ask.question {
            Question::Register { after } => {
                let about = RegisterNode {
                    node: self.id,
                    after: *after,
                    control: format!("ws://node-{}", self.index),
                    media: vec!["192.0.2.1:50000".parse().expect("an address")],
                    region: String::new(),
                    zone: String::new(),
                    labels: BTreeMap::new(),
                    track: Default::default(),
                    capacity: 1000,
                    version: "1.0.0".into(),
                };
                world.post(host, ask.orchestrator, "/v1/nodes", &about).await
            }
            Question::Beat { epoch, beat, rooms } => {
                let heartbeat = Heartbeat {
                    epoch: *epoch,
                    beat: *beat,
                    load: NodeLoad::default(),
                    rooms: rooms.then(|| self.rooms.digests()),
                    connections: Default::default(),
                };
                let path = format!("/v1/nodes/{}/heartbeat", self.id);
                world.post(host, ask.orchestrator, &path, &heartbeat).await
            }
        };
        let answer = match (&ask.question, reply.status()) {
            (Question::Register { .. }, Some(200)) => reply.ok().map(Answer::Registered),
            (Question::Beat { .. }, Some(200)) => reply.ok().map(Answer::Renewed),
            (Question::Register { .. }, Some(409)) => {
                reply.problem().and_then(|problem| problem.epoch).map(Answer::Behind)
            }
            (_, Some(409)) => Some(Answer::Past),
            (_, Some(410)) => Some(Answer::Over),
            (_, Some(400)) => Some(Answer::Refused(reply.text())),
            _ => None,
        };
        (ask, answer.unwrap_or(Answer::Failed(String::new())))
    }

    fn shards(&self) -> MutexGuard<'_, BTreeMap<RoomName, Open>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moving(&self) -> MutexGuard<'_, BTreeMap<RoomName, MoveRoom>> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
