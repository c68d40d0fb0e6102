//! Drains from their beginning to their end, with nodes that are played.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;

use signalbox_protocol::Generation;
use signalbox_protocol::history::RoomEvent;
use signalbox_protocol::node::{Asker, DrainNode, EpochHeld, HostedRoom, MoveRoom, RegisterNode};
use signalbox_protocol::placement::PlaceRoom;

use super::*;
use crate::harness::{Orchestrator, SECRET, node, orchestrator_asking, register_with, registration, start};
use crate::probe::Ask;
use crate::store::Assignment;

/// Longer than any test goes on.
const LEASE: Duration = Duration::from_secs(3600);

/// How well it can be told when a drain will be over: the first room goes, what was handed over is noted, and the end is seen, each up to a round
/// late.
const TO_WITHIN: Duration = ROUND.saturating_mul(3);

/// The nodes, as far as a drain asks them: each room leaves a while after its node was told that it moves.
#[derive(Default)]
struct Nodes {
    rooms: Mutex<BTreeMap<String, BTreeMap<RoomName, Hosted>>>,
    leaving: Mutex<Duration>,
    /// The control listeners of those that do not say what they host.
    silent: Mutex<Vec<String>>,
}

#[derive(Debug, Clone)]
struct Hosted {
    generation: Generation,
    until: Option<Instant>,
}

impl Nodes {
    fn host(&self, assignment: &Assignment) {
        let hosted = Hosted {
            generation: assignment.generation,
            until: None,
        };
        let mut rooms = self.rooms.lock().unwrap();
        let of_node = rooms.entry(assignment.control.clone()).or_default();
        of_node.insert(assignment.room.clone(), hosted);
    }
}

impl Ask for Nodes {
    fn ask<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = Option<EpochHeld>> + Send + 'a>> {
        Box::pin(async { None })
    }

    fn rooms<'a>(&'a self, control: &'a str) -> Pin<Box<dyn Future<Output = Option<HostedRooms>> + Send + 'a>> {
        if self.silent.lock().unwrap().iter().any(|silent| silent == control) {
            return Box::pin(std::future::pending());
        }
        let now = Instant::now();
        let mut rooms = self.rooms.lock().unwrap();
        let of_node = rooms.entry(control.to_owned()).or_default();
        of_node.retain(|_, hosted| hosted.until.is_none_or(|until| until > now));
        let rooms = of_node.iter().map(|(room, hosted)| HostedRoom {
            room: room.clone(),
            generation: hosted.generation,
            participants: 1,
            moving: hosted.until.is_some(),
        });
        let rooms = rooms.collect();
        Box::pin(async move { Some(HostedRooms { rooms }) })
    }

    fn send_on<'a>(&'a self, control: &'a str, order: &'a MoveRoom) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        let mut rooms = self.rooms.lock().unwrap();
        let hosted = rooms.get_mut(control).and_then(|rooms| rooms.get_mut(&order.to.room));
        if let Some(hosted) = hosted {
            hosted.until = Some(Instant::now() + *self.leaving.lock().unwrap());
        }
        Box::pin(async { true })
    }
}

struct Stage {
    nodes: Arc<Nodes>,
    service: Orchestrator,
}

impl Stage {
    async fn new() -> Self {
        let nodes = Arc::new(Nodes::default());
        let service = orchestrator_asking(nodes.clone(), SECRET, &[]);
        start(&service).await;
        Self { nodes, service }
    }

    async fn register(&self, n: u128) -> RegisterNode {
        let about = registration(node(n));
        register_with(&self.service.store, &about, LEASE).await.unwrap();
        about
    }

    /// Places so many rooms, and has their nodes host them.
    async fn place(&self, name: &str, rooms: usize) {
        for number in 0..rooms {
            let request = PlaceRoom::new(format!("{name} {number}").parse().unwrap());
            let placed = self.service.placer.place(&self.service.store, &request, 1).await;
            self.nodes.host(&placed.unwrap().expect("placed"));
        }
    }

    async fn begin(&self, node: NodeId, rate: f64) {
        let how = DrainNode {
            rate,
            ..DrainNode::default()
        };
        self.service.store.begin_drain(node, &how).await.unwrap().unwrap();
    }

    async fn drain(&self, node: NodeId) -> DrainRecord {
        self.service.store.drain(node).await.unwrap().expect("it was begun")
    }

    /// Looks every so often until the drain is over; what was told meanwhile, and when it was over.
    async fn watch(&self, node: NodeId) -> (Vec<(Instant, DrainRecord)>, Instant) {
        let mut told = Vec::new();
        loop {
            let record = self.drain(node).await;
            let now = Instant::now();
            if record.drain.state != DrainState::Running {
                assert_eq!(record.drain.state, DrainState::Done);
                return (told, now);
            }
            told.push((now, record));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn when_a_drain_will_be_over_is_told_as_soon_as_the_first_room_has_left() {
    let stage = Stage::new().await;
    let full = stage.register(1).await.node;
    stage.place("room", 40).await;
    stage.register(2).await;
    *stage.nodes.leaving.lock().unwrap() = Duration::from_secs(4);
    stage.begin(full, 5.0).await;
    let (told, over) = stage.watch(full).await;
    let off = |(at, record): &(Instant, DrainRecord)| {
        let eta = eta::of(record).expect("it goes on");
        (*at + eta).duration_since(over).max(over.duration_since(*at + eta))
    };
    let measured: Vec<_> = told.iter().filter(|(_, record)| record.leaving.is_some()).collect();
    assert!(measured.len() > 50 && measured.iter().any(|(_, record)| record.drain.rooms_left == 0));
    for one in measured {
        assert!(off(one) < TO_WITHIN, "{:?} off: {one:?}", off(one));
    }
    // Until then it is a guess.
    let guessed = leaving::FIRST_GUESS.abs_diff(Duration::from_secs(4)) + TO_WITHIN;
    for one in &told {
        assert!(off(one) < guessed, "{:?} off: {one:?}", off(one));
    }
}

#[tokio::test(start_paused = true)]
async fn a_room_that_was_handed_over_says_by_which_drain() {
    let stage = Stage::new().await;
    let full = stage.register(1).await.node;
    stage.place("room", 1).await;
    let empty = stage.register(2).await.node;
    let how = DrainNode {
        asked_by: Asker::Node,
        ..DrainNode::default()
    };
    let begun = stage.service.store.begin_drain(full, &how).await.unwrap().unwrap();
    stage.watch(full).await;
    let history = stage
        .service
        .store
        .history(&"room 0".parse().unwrap(), 1)
        .await
        .unwrap();
    let (_, entries) = history.expect("it was placed");
    assert_eq!((entries[0].event, entries[0].node), (RoomEvent::HandedOff, empty));
    let expected = Drained {
        node: full,
        asked_by: Asker::Node,
        began_at_ms: begun.began_at_ms,
    };
    assert_eq!(
        entries[0].reasons.as_ref().and_then(|reasons| reasons.drained),
        Some(expected)
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_answer_holds_up_no_other_drain() {
    let stage = Stage::new().await;
    for n in 1..=4 {
        stage.register(n).await;
    }
    stage.place("room", 60).await;
    stage.register(9).await;
    let of_silent: Vec<String> = (1..=3).map(|n| registration(node(n)).control).collect();
    *stage.nodes.silent.lock().unwrap() = of_silent;
    let begun = Instant::now();
    for n in 1..=4 {
        stage.begin(node(n), 100.0).await;
    }
    let (_, over) = stage.watch(node(4)).await;
    assert!(over - begun < ANSWER, "{:?}", over - begun);
    for n in 1..=3 {
        assert_eq!(stage.drain(node(n)).await.drain.state, DrainState::Running);
    }
}

#[tokio::test(start_paused = true)]
async fn more_drains_than_are_looked_at_at_a_time_all_come_to_their_end() {
    let drains = ROUNDS_AT_A_TIME as u128 + 4;
    let stage = Stage::new().await;
    for n in 1..=drains {
        stage.register(n).await;
    }
    stage.place("room", 100).await;
    stage.register(99).await;
    for n in 1..=drains {
        stage.begin(node(n), 10.0).await;
    }
    for n in 1..=drains {
        let (told, _) = stage.watch(node(n)).await;
        assert!(told.len() < 200, "node {n}");
    }
}

#[tokio::test(start_paused = true)]
async fn those_that_waited_longest_for_their_turn_come_first() {
    let stage = Stage::new().await;
    let mut records = Vec::new();
    for n in 1..=3 {
        stage.register(n).await;
        stage.begin(node(n), 1.0).await;
        records.push(stage.drain(node(n)).await);
    }
    let mut due = VecDeque::from([records[2].clone(), records[1].clone()]);
    line_up(&mut due, records);
    let order: Vec<NodeId> = due.iter().map(|record| record.drain.node).collect();
    assert_eq!(order, [node(3), node(2), node(1)]);
}
