//! What every store must do: the promises of [`Store`], as tests that run on any of them.
//!
//! `suite!(store, after)` makes one test of each function: the first expression makes an empty store, or `None` to
//! skip; the second is a function that is given the store after the test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use signalbox_protocol::placement::{CloseRoom, NodeLoad, NodeState, RegisterNode};
use signalbox_protocol::{Epoch, Generation, NodeId, RoomName};
use tokio::task::JoinSet;

use super::{Assignment, Placed, Store};
use crate::brake::Brake;

/// Long enough that no lease runs out within a test.
pub const LONG: Duration = Duration::from_secs(600);

/// A margin that a [`LONG`] lease always leaves.
pub const MARGIN: Duration = Duration::from_secs(1);

/// A brake whose lease no test outlasts between two calls, but which a server that was just started soon has been up
/// for.
const STRICT: Brake = Brake {
    lease: Duration::from_secs(5),
    grace: Duration::ZERO,
};

/// A brake that has no grace and forgets at once, so that a lease of zero can be fenced.
pub const LOOSE: Brake = Brake {
    lease: Duration::ZERO,
    grace: Duration::ZERO,
};

macro_rules! suite {
    ($store:expr, $after:expr) => {
        $crate::store::contract::suite!($store, $after;
            an_unknown_room_is_nowhere,
            a_room_is_placed_once_and_found,
            a_node_that_is_unknown_or_almost_out_of_lease_gets_no_room,
            a_thousand_concurrent_places_of_one_room_agree,
            concurrent_places_of_many_rooms_agree,
            a_released_nodes_room_moves_with_the_next_generation,
            a_fenced_nodes_room_moves_with_the_next_generation,
            a_node_that_registers_again_loses_its_rooms,
            a_live_room_is_never_stolen,
            a_lease_that_ran_out_does_not_free_a_room_until_it_is_fenced,
            close_is_a_compare_and_set,
            of_concurrent_closes_one_closes,
            a_closed_rooms_generation_never_repeats,
            epochs_only_grow_and_never_repeat,
            an_old_epoch_cannot_renew_or_release,
            a_lease_that_ran_out_cannot_be_renewed,
            a_renewed_node_is_not_fenced,
            a_mass_expiry_is_fenced_one_by_one,
            concurrent_fences_do_not_add_up,
            a_fleet_of_one_is_fenced,
            nodes_are_listed_with_what_they_reported,
            numbers_beyond_the_stores_range_match_nothing,
        );
    };
    ($store:expr, $after:expr; $($name:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(store) = $store {
                    let store = std::sync::Arc::new(store);
                    $crate::store::contract::$name(store.clone()).await;
                    $after(&*store).await;
                }
            }
        )*
    };
}
pub(crate) use suite;

/// A registration of a new node.
pub fn new_node() -> RegisterNode {
    RegisterNode {
        node: NodeId::random(),
        control: "ws://10.0.0.7:7900".into(),
        media: vec!["192.0.2.1:50000".parse().unwrap()],
        region: "eu".into(),
        zone: "a".into(),
        labels: BTreeMap::from([("disk".into(), "none".into())]),
        capacity: 100,
        version: "1.2.3".into(),
    }
}

/// A room's name.
pub fn room(name: &str) -> RoomName {
    name.parse().unwrap()
}

async fn live_node(store: &impl Store) -> (NodeId, Epoch) {
    let node = new_node();
    (node.node, store.register(&node, LONG).await.unwrap())
}

async fn place_new(store: &impl Store, name: &RoomName, node: NodeId) -> Assignment {
    match store.place(name, node, MARGIN).await.unwrap() {
        Placed::New(assignment) => assignment,
        other => panic!("{other:?}"),
    }
}

fn owner(assignment: &Assignment) -> CloseRoom {
    CloseRoom {
        node: assignment.node,
        epoch: assignment.epoch,
        generation: assignment.generation,
    }
}

/// All concurrent places of the room, each with one of the candidates, must lead to the assignment that is returned.
async fn agree<S: Store>(store: &Arc<S>, name: &RoomName, candidates: &[NodeId], calls: usize) -> Assignment {
    let mut tasks = JoinSet::new();
    for call in 0..calls {
        let (store, name, candidate) = (store.clone(), name.clone(), candidates[call % candidates.len()]);
        tasks.spawn(async move {
            loop {
                match store.place(&name, candidate, MARGIN).await.unwrap() {
                    Placed::New(assignment) => return (true, assignment),
                    Placed::Existing(assignment) => return (false, assignment),
                    Placed::Refused => {}
                }
            }
        });
    }
    let results = tasks.join_all().await;
    let first = results[0].1.clone();
    assert!(
        results.iter().all(|(_, assignment)| *assignment == first),
        "not all got the same assignment"
    );
    assert_eq!(
        results.iter().filter(|(new, _)| *new).count(),
        1,
        "exactly one call places"
    );
    assert_eq!(store.find(name).await.unwrap(), Some(first.clone()));
    first
}

pub async fn an_unknown_room_is_nowhere<S: Store>(store: Arc<S>) {
    assert_eq!(store.find(&room("daily")).await.unwrap(), None);
    assert_eq!(store.candidates(MARGIN).await.unwrap(), []);
    assert_eq!(store.nodes().await.unwrap(), []);
    assert_eq!(store.overdue().await.unwrap(), 0);
}

pub async fn a_room_is_placed_once_and_found<S: Store>(store: Arc<S>) {
    let (a, epoch) = live_node(&*store).await;
    let (b, _) = live_node(&*store).await;
    let name = room("Raum Å 7");
    let placed = place_new(&*store, &name, a).await;
    let control = "ws://10.0.0.7:7900".to_owned();
    assert_eq!(
        placed,
        Assignment {
            room: name.clone(),
            node: a,
            epoch,
            generation: Generation(1),
            control
        }
    );
    assert_eq!(
        store.place(&name, b, MARGIN).await.unwrap(),
        Placed::Existing(placed.clone())
    );
    assert_eq!(store.find(&name).await.unwrap(), Some(placed));
}

pub async fn a_node_that_is_unknown_or_almost_out_of_lease_gets_no_room<S: Store>(store: Arc<S>) {
    let name = room("daily");
    assert_eq!(
        store.place(&name, NodeId::random(), MARGIN).await.unwrap(),
        Placed::Refused
    );
    let (node, epoch) = live_node(&*store).await;
    assert_eq!(store.place(&name, node, LONG * 2).await.unwrap(), Placed::Refused);
    assert_eq!(store.candidates(LONG * 2).await.unwrap(), []);
    store.release(node, epoch).await.unwrap();
    assert_eq!(store.place(&name, node, MARGIN).await.unwrap(), Placed::Refused);
    assert_eq!(store.candidates(MARGIN).await.unwrap(), []);
    assert_eq!(store.find(&name).await.unwrap(), None);
}

pub async fn a_thousand_concurrent_places_of_one_room_agree<S: Store>(store: Arc<S>) {
    let mut nodes = Vec::new();
    for _ in 0..8 {
        nodes.push(live_node(&*store).await.0);
    }
    let placed = agree(&store, &room("daily"), &nodes, 1000).await;
    assert_eq!(placed.generation, Generation(1));
}

pub async fn concurrent_places_of_many_rooms_agree<S: Store>(store: Arc<S>) {
    let nodes = [
        live_node(&*store).await.0,
        live_node(&*store).await.0,
        live_node(&*store).await.0,
    ];
    let mut rooms = JoinSet::new();
    for n in 0..20 {
        let store = store.clone();
        rooms.spawn(async move { agree(&store, &room(&format!("room {n}")), &nodes, 20).await });
    }
    assert!(
        rooms
            .join_all()
            .await
            .iter()
            .all(|placed| placed.generation == Generation(1))
    );
}

pub async fn a_released_nodes_room_moves_with_the_next_generation<S: Store>(store: Arc<S>) {
    let (a, epoch) = live_node(&*store).await;
    let (b, _) = live_node(&*store).await;
    let name = room("daily");
    place_new(&*store, &name, a).await;
    assert!(store.release(a, epoch).await.unwrap());
    assert!(!store.release(a, epoch).await.unwrap(), "released before");
    assert_eq!(store.find(&name).await.unwrap(), None);
    let moved = place_new(&*store, &name, b).await;
    assert_eq!((moved.node, moved.generation), (b, Generation(2)));
    assert_eq!(store.find(&name).await.unwrap(), Some(moved));
}

pub async fn a_fenced_nodes_room_moves_with_the_next_generation<S: Store>(store: Arc<S>) {
    let (b, _) = live_node(&*store).await;
    let about = new_node();
    let epoch = store.register(&about, LONG).await.unwrap();
    let name = room("daily");
    let placed = place_new(&*store, &name, about.node).await;
    // The shortest lease ends at once, as if the time had passed.
    assert!(
        store
            .renew(about.node, epoch, NodeLoad::default(), Duration::ZERO)
            .await
            .unwrap()
    );
    assert_eq!(fence_until(&*store, &LOOSE, 1).await, [(about.node, epoch)]);
    assert_eq!(store.find(&name).await.unwrap(), None);
    let moved = place_new(&*store, &name, b).await;
    assert_eq!(moved.generation.0, placed.generation.0 + 1);
    let lost = store
        .nodes()
        .await
        .unwrap()
        .into_iter()
        .find(|node| node.node == about.node)
        .unwrap();
    assert_eq!((lost.state, lost.live), (NodeState::Lost, false));
    assert!(lost.epoch > epoch);
}

/// Fences until so many nodes are gone; a loose limit, because a lease of zero still has to be over.
async fn fence_until(store: &impl Store, brake: &Brake, count: usize) -> Vec<(NodeId, Epoch)> {
    let mut fenced = Vec::new();
    tokio::time::timeout(Duration::from_secs(30), async {
        while fenced.len() < count {
            fenced.extend(store.fence_expired(brake).await.unwrap().nodes);
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("nodes with leases that ran out are fenced");
    fenced
}

pub async fn a_node_that_registers_again_loses_its_rooms<S: Store>(store: Arc<S>) {
    let mut about = new_node();
    let first = store.register(&about, LONG).await.unwrap();
    let name = room("daily");
    place_new(&*store, &name, about.node).await;
    about.control = "ws://10.0.0.8:7900".into();
    let second = store.register(&about, LONG).await.unwrap();
    assert!(second > first);
    assert_eq!(store.find(&name).await.unwrap(), None);
    let placed = place_new(&*store, &name, about.node).await;
    assert_eq!((placed.epoch, placed.generation), (second, Generation(2)));
    assert_eq!(placed.control, about.control);
    assert_eq!(store.nodes().await.unwrap().len(), 1);
}

pub async fn a_live_room_is_never_stolen<S: Store>(store: Arc<S>) {
    // In each round the owner goes, in one of the ways that there are, while many take the room over and new nodes
    // appear. Exactly one placement may follow from one death: a stolen room would show as a second one.
    let name = room("daily");
    let (mut owner_node, mut owner_epoch) = live_node(&*store).await;
    let mut current = place_new(&*store, &name, owner_node).await;
    for round in 0..40_u64 {
        let mut candidates = Vec::new();
        for _ in 0..4 {
            candidates.push(live_node(&*store).await);
        }
        let mut tasks = JoinSet::new();
        for call in 0..32_usize {
            let (store, name, known) = (store.clone(), name.clone(), candidates[call % 4]);
            tasks.spawn(async move {
                // Every other call brings a node that did not exist when the rest began.
                let candidate = if call % 2 == 0 { known } else { live_node(&*store).await };
                let mut placed = Vec::new();
                for _ in 0..3 {
                    match store.place(&name, candidate.0, MARGIN).await.unwrap() {
                        Placed::New(assignment) => placed.push((assignment, candidate.1)),
                        Placed::Existing(_) | Placed::Refused => {}
                    }
                }
                placed
            });
        }
        match round % 3 {
            0 => assert!(store.release(owner_node, owner_epoch).await.unwrap()),
            1 => assert!(store.close(&name, &owner(&current)).await.unwrap()),
            _ => {
                let about = RegisterNode {
                    node: owner_node,
                    ..new_node()
                };
                store.register(&about, LONG).await.unwrap();
            }
        }
        let mut placed: Vec<(Assignment, Epoch)> = tasks.join_all().await.into_iter().flatten().collect();
        if placed.is_empty() {
            // All calls came before the owner went.
            placed.push((place_new(&*store, &name, candidates[0].0).await, candidates[0].1));
        }
        let [(winner, epoch)] = placed.as_slice() else {
            panic!("a live room was taken over: {placed:?}")
        };
        assert_eq!(winner.generation.0, current.generation.0 + 1);
        assert_eq!(winner.epoch, *epoch);
        assert_eq!(store.find(&name).await.unwrap().as_ref(), Some(winner));
        (owner_node, owner_epoch) = (winner.node, winner.epoch);
        current = winner.clone();
    }
}

pub async fn a_lease_that_ran_out_does_not_free_a_room_until_it_is_fenced<S: Store>(store: Arc<S>) {
    let (a, epoch) = live_node(&*store).await;
    let (b, _) = live_node(&*store).await;
    let name = room("daily");
    let placed = place_new(&*store, &name, a).await;
    assert!(
        store
            .renew(a, epoch, NodeLoad::default(), Duration::ZERO)
            .await
            .unwrap()
    );
    assert_eq!(
        store.place(&name, b, MARGIN).await.unwrap(),
        Placed::Existing(placed.clone())
    );
    assert_eq!(store.find(&name).await.unwrap(), Some(placed));
    let patient = Brake {
        lease: Duration::ZERO,
        grace: LONG,
    };
    assert_eq!(
        store.fence_expired(&patient).await.unwrap().nodes,
        [],
        "not before the grace is over"
    );
}

pub async fn close_is_a_compare_and_set<S: Store>(store: Arc<S>) {
    let (a, _) = live_node(&*store).await;
    let (b, _) = live_node(&*store).await;
    let name = room("daily");
    let placed = place_new(&*store, &name, a).await;
    let right = owner(&placed);
    assert!(
        !store
            .close(
                &name,
                &CloseRoom {
                    node: b,
                    ..right.clone()
                }
            )
            .await
            .unwrap()
    );
    assert!(
        !store
            .close(
                &name,
                &CloseRoom {
                    epoch: Epoch(right.epoch.0 + 1),
                    ..right.clone()
                }
            )
            .await
            .unwrap()
    );
    assert!(
        !store
            .close(
                &name,
                &CloseRoom {
                    generation: Generation(2),
                    ..right.clone()
                }
            )
            .await
            .unwrap()
    );
    assert!(!store.close(&room("another"), &right).await.unwrap());
    assert_eq!(store.find(&name).await.unwrap(), Some(placed));
    assert!(store.close(&name, &right).await.unwrap());
    assert!(!store.close(&name, &right).await.unwrap(), "closed before");
    assert_eq!(store.find(&name).await.unwrap(), None);
}

pub async fn of_concurrent_closes_one_closes<S: Store>(store: Arc<S>) {
    let (a, _) = live_node(&*store).await;
    let name = room("daily");
    let right = owner(&place_new(&*store, &name, a).await);
    let mut tasks = JoinSet::new();
    for _ in 0..50 {
        let (store, name, right) = (store.clone(), name.clone(), right.clone());
        tasks.spawn(async move { store.close(&name, &right).await.unwrap() });
    }
    assert_eq!(tasks.join_all().await.into_iter().filter(|closed| *closed).count(), 1);
}

pub async fn a_closed_rooms_generation_never_repeats<S: Store>(store: Arc<S>) {
    let nodes = [live_node(&*store).await.0, live_node(&*store).await.0];
    let name = room("daily");
    let mut late = Vec::new();
    for round in 1..=10_u64 {
        let placed = agree(&store, &name, &nodes, 10).await;
        assert_eq!(placed.generation, Generation(round));
        for old in &late {
            assert!(
                !store.close(&name, old).await.unwrap(),
                "a late close hits a room that was opened again"
            );
        }
        assert!(store.close(&name, &owner(&placed)).await.unwrap());
        late.push(owner(&placed));
    }
}

pub async fn epochs_only_grow_and_never_repeat<S: Store>(store: Arc<S>) {
    let about = new_node();
    let mut tasks = JoinSet::new();
    for call in 0..40 {
        let (store, about) = (store.clone(), if call % 2 == 0 { about.clone() } else { new_node() });
        tasks.spawn(async move { store.register(&about, LONG).await.unwrap() });
    }
    let epochs = tasks.join_all().await;
    assert_eq!(epochs.iter().collect::<BTreeSet<_>>().len(), epochs.len());
    let current = store
        .nodes()
        .await
        .unwrap()
        .into_iter()
        .find(|node| node.node == about.node)
        .unwrap()
        .epoch;
    let next = store.register(&about, LONG).await.unwrap();
    assert!(next > current);
    assert!(epochs.iter().all(|epoch| *epoch < next));
}

pub async fn an_old_epoch_cannot_renew_or_release<S: Store>(store: Arc<S>) {
    let about = new_node();
    let old = store.register(&about, LONG).await.unwrap();
    let current = store.register(&about, LONG).await.unwrap();
    assert!(!store.renew(about.node, old, NodeLoad::default(), LONG).await.unwrap());
    assert!(!store.release(about.node, old).await.unwrap());
    assert!(
        !store
            .renew(NodeId::random(), current, NodeLoad::default(), LONG)
            .await
            .unwrap()
    );
    assert!(
        store
            .renew(about.node, current, NodeLoad::default(), LONG)
            .await
            .unwrap()
    );
    assert!(store.release(about.node, current).await.unwrap());
    assert!(
        !store
            .renew(about.node, current, NodeLoad::default(), LONG)
            .await
            .unwrap()
    );
    let after = store.nodes().await.unwrap()[0].epoch;
    assert!(
        !store.renew(about.node, after, NodeLoad::default(), LONG).await.unwrap(),
        "the epoch after a release is nobody's"
    );
}

pub async fn a_lease_that_ran_out_cannot_be_renewed<S: Store>(store: Arc<S>) {
    let about = new_node();
    let epoch = store.register(&about, Duration::ZERO).await.unwrap();
    assert!(!store.renew(about.node, epoch, NodeLoad::default(), LONG).await.unwrap());
    assert!(!store.nodes().await.unwrap()[0].live);
}

pub async fn a_renewed_node_is_not_fenced<S: Store>(store: Arc<S>) {
    let (node, epoch) = live_node(&*store).await;
    assert!(store.renew(node, epoch, NodeLoad::default(), LONG).await.unwrap());
    assert_eq!(store.fence_expired(&LOOSE).await.unwrap().nodes, []);
    assert_eq!(store.overdue().await.unwrap(), 0);
}

/// So many nodes whose leases have run out, and no others.
async fn overdue_nodes(store: &impl Store, count: usize) {
    for _ in 0..count {
        store.register(&new_node(), Duration::ZERO).await.unwrap();
    }
    tokio::time::timeout(Duration::from_secs(30), async {
        while store.overdue().await.unwrap() < count {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("leases of zero run out");
}

pub async fn a_mass_expiry_is_fenced_one_by_one<S: Store>(store: Arc<S>) {
    overdue_nodes(&*store, 10).await;
    assert_eq!(fence_until(&*store, &STRICT, 1).await.len(), 1);
    let fenced = store.fence_expired(&STRICT).await.unwrap();
    assert_eq!((fenced.nodes.len(), fenced.held), (0, 9));
    // With the last fence forgotten, it is the next node's turn.
    let fenced = store.fence_expired(&LOOSE).await.unwrap();
    assert_eq!((fenced.nodes.len(), fenced.held), (1, 8));
}

pub async fn concurrent_fences_do_not_add_up<S: Store>(store: Arc<S>) {
    overdue_nodes(&*store, 10).await;
    let total = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let (store, total) = (store.clone(), total.clone());
        tasks.spawn(async move {
            let mut calls_after = 0;
            while calls_after < 5 {
                calls_after += usize::from(total.load(Ordering::SeqCst) > 0);
                total.fetch_add(
                    store.fence_expired(&STRICT).await.unwrap().nodes.len(),
                    Ordering::SeqCst,
                );
                tokio::task::yield_now().await;
            }
        });
    }
    tokio::time::timeout(Duration::from_secs(30), tasks.join_all())
        .await
        .expect("one node is fenced");
    assert_eq!(total.load(Ordering::SeqCst), 1);
}

pub async fn a_fleet_of_one_is_fenced<S: Store>(store: Arc<S>) {
    overdue_nodes(&*store, 1).await;
    assert_eq!(fence_until(&*store, &LOOSE, 1).await.len(), 1);
    assert_eq!(store.overdue().await.unwrap(), 0);
    assert_eq!(store.fence_expired(&LOOSE).await.unwrap().nodes, []);
}

pub async fn nodes_are_listed_with_what_they_reported<S: Store>(store: Arc<S>) {
    let about = new_node();
    let epoch = store.register(&about, LONG).await.unwrap();
    live_node(&*store).await;
    let load = NodeLoad {
        rooms: 3,
        participants: 7,
        packets_per_second: u64::from(u32::MAX) + 1,
    };
    assert!(store.renew(about.node, epoch, load, LONG).await.unwrap());
    let nodes = store.nodes().await.unwrap();
    assert!(nodes.is_sorted_by_key(|node| node.node));
    let node = nodes.iter().find(|node| node.node == about.node).unwrap();
    assert_eq!(
        (node.epoch, node.state, node.live, node.load),
        (epoch, NodeState::Serving, true, load)
    );
    assert_eq!(
        (&node.control, &node.media, &node.region),
        (&about.control, &about.media, &about.region)
    );
    assert_eq!((node.capacity, &node.version), (about.capacity, &about.version));
    let candidates = store.candidates(MARGIN).await.unwrap();
    let candidate = candidates
        .iter()
        .find(|candidate| candidate.node == about.node)
        .unwrap();
    assert_eq!(
        (candidate.participants, candidate.capacity, candidate.region.as_str()),
        (7, 100, "eu")
    );
}

pub async fn numbers_beyond_the_stores_range_match_nothing<S: Store>(store: Arc<S>) {
    let (node, _) = live_node(&*store).await;
    let beyond = Epoch(u64::MAX);
    assert!(!store.renew(node, beyond, NodeLoad::default(), LONG).await.unwrap());
    assert!(!store.release(node, beyond).await.unwrap());
    let close = CloseRoom {
        node,
        epoch: beyond,
        generation: Generation(u64::MAX),
    };
    assert!(!store.close(&room("daily"), &close).await.unwrap());
}
