//! Closing: a compare-and-set on the whole assignment.

use super::*;
use signalbox_protocol::Generation;

pub async fn close_is_a_compare_and_set<S: Store>(store: Arc<S>) {
    let [a, b] = live_nodes(&*store).await;
    let name = room("daily");
    let placed = place_new(&*store, &name, a).await;
    let right = owner(&placed);
    for wrong in wrong_owners(&right, b) {
        assert!(!store.close(&name, &wrong, BY).await.unwrap(), "{wrong:?}");
    }
    assert!(!store.close(&room("another"), &right, BY).await.unwrap());
    assert_eq!(store.find(&name).await.unwrap().as_ref(), Some(&placed));
    assert!(close(&*store, &placed).await);
    assert!(!close(&*store, &placed).await, "closed before");
    assert_eq!(store.find(&name).await.unwrap(), None);
}

/// The owner with one of its parts altered.
pub fn wrong_owners(right: &CloseRoom, another: NodeId) -> [CloseRoom; 4] {
    let right = || right.clone();
    [
        CloseRoom {
            node: another,
            ..right()
        },
        CloseRoom {
            epoch: Epoch(right().epoch.0 + 1),
            ..right()
        },
        CloseRoom {
            generation: Generation(right().generation.0 + 1),
            ..right()
        },
        CloseRoom {
            generation: Generation(0),
            ..right()
        },
    ]
}

pub async fn of_concurrent_closes_one_closes<S: Store>(store: Arc<S>) {
    let [node] = live_nodes(&*store).await;
    let placed = place_new(&*store, &room("daily"), node).await;
    let call = |_| {
        let (store, placed) = (store.clone(), placed.clone());
        async move { close(&*store, &placed).await }
    };
    let closed = at_once((0..50).map(call)).await;
    assert_eq!(closed.into_iter().filter(|closed| *closed).count(), 1);
}

pub async fn a_closed_rooms_generation_never_repeats<S: Store>(store: Arc<S>) {
    let nodes = live_nodes::<2>(&*store).await;
    let name = room("daily");
    let mut late = Vec::new();
    for round in 1..=10 {
        let placed = agree(&store, &name, &nodes, 10).await;
        assert_eq!(placed.generation, Generation(round));
        for old in &late {
            assert!(
                !close(&*store, old).await,
                "a late close hits a room that was opened again"
            );
        }
        assert!(close(&*store, &placed).await);
        late.push(placed);
    }
}

pub async fn a_room_of_an_ended_epoch_can_still_be_closed<S: Store>(store: Arc<S>) {
    let (a, epoch) = live_node(&*store).await;
    let (b, _) = live_node(&*store).await;
    let placed = place_new(&*store, &room("daily"), a).await;
    assert!(store.release(a, epoch).await.unwrap());
    assert!(close(&*store, &placed).await);
    let next = place_new(&*store, &placed.room, b).await;
    assert_eq!(next.generation, Generation(2));
    assert!(!close(&*store, &placed).await);
}
