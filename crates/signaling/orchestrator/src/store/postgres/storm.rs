//! Take-overs under load: nodes appear and go at random while many tasks place and close rooms, and afterwards the record
//! of it all is searched for a room that was taken from a live owner.
//!
//! For this crate's tests, and for its benchmark, which can only reach what is public.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use signalbox_protocol::history::Reasons;
use signalbox_protocol::node::{NodeLoad, RegisterNode};
use signalbox_protocol::placement::{CloseRoom, Policy, Track};
use signalbox_protocol::{Epoch, Generation, NodeId, RoomName};
use tokio::task::JoinSet;

use crate::Error;
use crate::brake::Brake;
use crate::placement::Wish;
use crate::store::{Assignment, Proposal, Store};

const LEASE: Duration = Duration::from_secs(600);

/// Permits the fence of a node whose lease was made to run out.
const LOOSE: Brake = Brake {
    lease: Duration::ZERO,
    grace: Duration::ZERO,
};

/// How many tasks in a row ask for the same room, so that they get into each other's way.
const CROWD: usize = 16;

/// How hard it blows.
#[derive(Debug, Clone, Copy)]
pub struct Storm {
    /// Nodes at a time.
    pub nodes: usize,
    /// Rooms.
    pub rooms: usize,
    /// Tasks that place and close rooms.
    pub takers: usize,
    /// Tasks that let nodes appear and go.
    pub breakers: usize,
    /// After how many take-overs it is over.
    pub take_overs: usize,
    /// The seed of whatever is chosen at random.
    pub seed: u64,
}

/// What it left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Damage {
    /// Rooms that were placed anew although nobody had closed them.
    pub take_overs: usize,
    /// Those of them whose owner's epoch was not over. Must be none.
    pub live: usize,
    /// Generations of a room that are missing, or were given out twice. Must be none.
    pub gaps: usize,
}

/// What happened, each with its place in one order of all events: calls that end something count from when they begin,
/// placements from when they have been answered. So what ended a placement must come before what followed it.
#[derive(Debug, Default)]
struct Log {
    clock: AtomicU64,
    alive: Mutex<Vec<(NodeId, Epoch)>>,
    placed: Mutex<Vec<(u64, Assignment)>>,
    ended: Mutex<HashMap<(NodeId, Epoch), u64>>,
    closed: Mutex<HashMap<(RoomName, Generation), u64>>,
    turns: AtomicUsize,
    moved: AtomicUsize,
    over: AtomicBool,
}

impl Log {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn end(&self, node: NodeId, epoch: Epoch) {
        let now = self.tick();
        lock(&self.ended).insert((node, epoch), now);
    }

    fn damage(&self) -> Damage {
        let mut rooms = BTreeMap::<&RoomName, Vec<&(u64, Assignment)>>::new();
        let placed = lock(&self.placed);
        for entry in placed.iter() {
            rooms.entry(&entry.1.room).or_default().push(entry);
        }
        let (ended, closed) = (lock(&self.ended), lock(&self.closed));
        let mut damage = Damage::default();
        for placements in rooms.values_mut() {
            placements.sort_by_key(|(_, assignment)| assignment.generation);
            let generations = placements.iter().map(|(_, assignment)| assignment.generation.0);
            damage.gaps += generations.zip(1..).filter(|(is, should)| is != should).count();
            for pair in placements.windows(2) {
                let ((_, before), (at, _)) = (pair[0], pair[1]);
                if closed.contains_key(&(before.room.clone(), before.generation)) {
                    continue;
                }
                damage.take_overs += 1;
                let end = ended.get(&(before.node, before.epoch));
                damage.live += usize::from(end.is_none_or(|end| end > at));
            }
        }
        damage
    }
}

/// Lets the storm loose on an empty store. `place` answers the assignment if this call made it.
pub async fn run<S, P, F>(store: Arc<S>, storm: Storm, place: P) -> Result<Damage, Error>
where
    S: Store,
    P: Fn(Proposal) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Option<Assignment>, Error>> + Send + 'static,
{
    let log = Arc::new(Log::default());
    let mut tasks = JoinSet::new();
    for breaker in 0..storm.breakers {
        let rng = StdRng::seed_from_u64(storm.seed + breaker as u64);
        tasks.spawn(break_nodes(store.clone(), log.clone(), storm, rng));
    }
    for taker in 0..storm.takers {
        let rng = StdRng::seed_from_u64(storm.seed + 1000 + taker as u64);
        tasks.spawn(take_rooms(store.clone(), log.clone(), storm, place.clone(), rng));
    }
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(result) => result?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
    Ok(log.damage())
}

async fn break_nodes<S: Store>(store: Arc<S>, log: Arc<Log>, storm: Storm, mut rng: StdRng) -> Result<(), Error> {
    while !log.is_over() {
        let victim = {
            let mut alive = lock(&log.alive);
            let many = alive.len() >= storm.nodes;
            many.then(|| {
                let index = rng.random_range(0..alive.len());
                alive.remove(index)
            })
        };
        let (mut appearing, mut after) = (NodeId::random(), Epoch(0));
        if let Some((node, epoch)) = victim {
            log.end(node, epoch);
            match rng.random_range(0..3) {
                0 => drop(store.release(node, epoch).await?),
                1 => {
                    store.renew(node, epoch, 1, NodeLoad::default(), Duration::ZERO).await?;
                    store.fence_expired(&LOOSE, &BTreeSet::new()).await?;
                    // Somebody else may have had the turn to fence.
                    store.release(node, epoch).await?;
                }
                _ => (appearing, after) = (node, epoch),
            }
        }
        let about = RegisterNode {
            after,
            ..about(appearing)
        };
        if let Some(epoch) = store.register(&about, LEASE).await?.held() {
            lock(&log.alive).push((appearing, epoch));
        }
    }
    Ok(())
}

async fn take_rooms<S, P, F>(store: Arc<S>, log: Arc<Log>, storm: Storm, place: P, mut rng: StdRng) -> Result<(), Error>
where
    S: Store,
    P: Fn(Proposal) -> F,
    F: Future<Output = Result<Option<Assignment>, Error>>,
{
    let rooms: Vec<RoomName> = (0..storm.rooms)
        .filter_map(|n| format!("room-{n}").parse().ok())
        .collect();
    while !log.is_over() {
        let candidate = {
            let alive = lock(&log.alive);
            // Often the newest: statements that began before it appeared do not see it.
            let newest = rng.random_bool(0.5);
            let index = if newest {
                0
            } else {
                rng.random_range(0..alive.len().max(1))
            };
            alive.iter().rev().nth(index).copied()
        };
        let Some((candidate, _)) = candidate else {
            tokio::task::yield_now().await;
            continue;
        };
        let room = &rooms[log.turns.fetch_add(1, Ordering::Relaxed) / CROWD % rooms.len()];
        let Some(assignment) = place(proposal(room, candidate)).await? else {
            continue;
        };
        let now = log.tick();
        lock(&log.placed).push((now, assignment.clone()));
        if assignment.generation > Generation(1) && log.moved.fetch_add(1, Ordering::Relaxed) >= storm.take_overs {
            log.over.store(true, Ordering::SeqCst);
        }
        if rng.random_bool(0.02) {
            let now = log.tick();
            let owner = CloseRoom {
                node: assignment.node,
                epoch: assignment.epoch,
                generation: assignment.generation,
            };
            // Noted before it is asked for, so that nobody can place the room before it is noted.
            lock(&log.closed).insert((room.clone(), owner.generation), now);
            if !store.close(room, &owner, "storm").await? {
                // It was taken over before, or not closed: then it counts.
                lock(&log.closed).remove(&(room.clone(), owner.generation));
            }
        }
    }
    Ok(())
}

/// A registration.
pub fn about(node: NodeId) -> RegisterNode {
    RegisterNode {
        node,
        after: Epoch(0),
        control: "ws://10.0.0.7:7900".into(),
        media: Vec::new(),
        region: "eu".into(),
        zone: "a".into(),
        labels: BTreeMap::new(),
        track: Track::Stable,
        capacity: 1000,
        version: "1.2.3".into(),
    }
}

/// A proposal without groups.
pub fn proposal(room: &RoomName, candidate: NodeId) -> Proposal {
    Proposal {
        room: room.clone(),
        candidate,
        group: None,
        avoid: Vec::new(),
        wish: Wish::default(),
        by: "storm".into(),
        reasons: Reasons {
            policy: Policy::TwoChoices,
            rule: None,
            region: None,
            spilled_to: None,
            track: Track::Stable,
            track_fallback: false,
            panic: false,
            candidates: Vec::new(),
            omitted: 0,
            drained: None,
        },
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
