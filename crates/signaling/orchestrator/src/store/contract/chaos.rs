//! Everything at once.

use std::collections::BTreeMap;
use std::sync::Mutex;

use signalbox_protocol::Generation;
use signalbox_protocol::history::RoomEvent;

use super::*;

pub async fn a_live_room_is_never_stolen<S: Store>(store: Arc<S>) {
    // In each round the owner goes, in one of the ways that there are, while many take the room over and new nodes
    // appear. Exactly one placement may follow from one death: a stolen room would show as a second one.
    let name = room("daily");
    let (mut owner_node, mut owner_epoch) = live_node(&*store).await;
    let mut current = place_new(&*store, &name, owner_node).await;
    for round in 0..40 {
        let mut candidates = Vec::new();
        for _ in 0..4 {
            candidates.push(live_node(&*store).await);
        }
        let takers = (0..32).map(|call| {
            let (store, name, known) = (store.clone(), name.clone(), candidates[call % 4]);
            async move {
                // Every other call brings a node that did not exist when the rest began.
                let candidate = if call % 2 == 0 { known } else { live_node(&*store).await };
                let mut placed = Vec::new();
                for _ in 0..3 {
                    if let Placed::New(assignment) = place(&*store, &name, candidate.0).await {
                        placed.push((assignment, candidate.1));
                    }
                }
                placed
            }
        });
        let takers: JoinSet<_> = takers.collect();
        match round % 4 {
            0 => assert!(store.release(owner_node, owner_epoch).await.unwrap()),
            1 => assert!(close(&*store, &current).await),
            2 => {
                renew(&*store, owner_node, owner_epoch, 1, Duration::ZERO).await;
                fence_until(&*store, &LOOSE, 1).await;
            }
            _ => {
                let about = RegisterNode {
                    node: owner_node,
                    ..new_node()
                };
                register(&*store, &about, LONG).await;
            }
        }
        let mut placed: Vec<(Assignment, Epoch)> = takers.join_all().await.into_iter().flatten().collect();
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

/// Who was given the room, by generation, as the callers were told.
type Told = Mutex<BTreeMap<Generation, Assignment>>;

pub async fn whatever_happens_each_generation_has_one_owner<S: Store>(store: Arc<S>) {
    let name = room("daily");
    let nodes = live_nodes::<3>(&*store).await;
    let told = Arc::new(Told::default());
    let tasks = (0..8_usize).map(|task| {
        let (store, name, told) = (store.clone(), name.clone(), told.clone());
        async move {
            for step in 0..40_usize {
                // Each task goes through the actions and the nodes in an order of its own.
                let candidate = nodes[(task + step) % nodes.len()];
                let new = act(&*store, &name, candidate, task * 5 + step * 7).await;
                if let Some(new) = new {
                    let before = told.lock().unwrap().insert(new.generation, new.clone());
                    assert_eq!(before, None, "{new:?}");
                }
            }
        }
    });
    at_once(tasks).await;
    let told = told.lock().unwrap().clone();
    let last = told.keys().next_back().copied().unwrap_or(Generation(0));
    assert!(last > Generation(10), "the room hardly moved");
    let all: Vec<Generation> = (1..=last.0).map(Generation).collect();
    assert!(told.keys().eq(&all), "generations are missing: {:?}", told.keys());

    let (_, history) = store.history(&name, 30).await.unwrap().expect("it was placed");
    let placements = history.iter().filter(|entry| entry.event != RoomEvent::Closed);
    for entry in placements {
        let assignment = &told[&entry.generation];
        assert_eq!((entry.node, entry.epoch), (assignment.node, assignment.epoch));
    }
}

/// One of the things that happen to a room; a new owner, if there is one by it.
async fn act(store: &impl Store, name: &RoomName, candidate: NodeId, what: usize) -> Option<Assignment> {
    let current = store.find(name).await.unwrap();
    match (what % 6, current) {
        (0, Some(current)) => {
            close(store, &current).await;
            None
        }
        (1, Some(current)) => {
            let to = proposal(name, candidate);
            store.hand_off(&owner(&current), to, MARGIN).await.unwrap()
        }
        (2, Some(current)) => {
            store.release(current.node, current.epoch).await.unwrap();
            None
        }
        (3, _) => {
            let about = RegisterNode {
                node: candidate,
                ..new_node()
            };
            register(store, &about, LONG).await;
            None
        }
        _ => match place(store, name, candidate).await {
            Placed::New(assignment) => Some(assignment),
            Placed::Existing(_) | Placed::Refused => None,
        },
    }
}
