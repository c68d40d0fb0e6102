//! Forgetting what is over.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::store::{Purged, Retention};
use signalbox_protocol::Generation;

/// Keeps everything for longer than any test takes.
const KEEP: Retention = Retention {
    rooms: LONG,
    nodes: LONG,
    history: LONG,
};

const NO_ROOMS: Retention = Retention {
    rooms: Duration::ZERO,
    ..KEEP
};

const NO_NODES: Retention = Retention {
    nodes: Duration::ZERO,
    ..KEEP
};

const NO_HISTORY: Retention = Retention {
    history: Duration::ZERO,
    ..KEEP
};

const fn rooms(rooms: u64) -> Purged {
    Purged {
        rooms,
        nodes: 0,
        history: 0,
    }
}

const fn nodes(nodes: u64) -> Purged {
    Purged {
        rooms: 0,
        nodes,
        history: 0,
    }
}

const fn history(history: u64) -> Purged {
    Purged {
        rooms: 0,
        nodes: 0,
        history,
    }
}

/// Waits until the clock has ticked, so that all that was done before is older than a retention of zero.
async fn tick(store: &impl Store) {
    store.look("tick", LONG).await.unwrap();
    until("the clock ticks", async || {
        store.look("tock", Duration::ZERO).await.unwrap().orchestrators == 1
    })
    .await;
}

async fn close_new(store: &impl Store, name: &str, node: NodeId) {
    let placed = place_new(store, &room(name), node).await;
    assert!(close(store, &placed).await);
}

pub async fn closed_rooms_are_purged_up_to_the_limit<S: Store>(store: Arc<S>) {
    let [node] = live_nodes(&*store).await;
    for n in 0..5 {
        close_new(&*store, &format!("room {n}"), node).await;
    }
    assert_eq!(store.purge(&KEEP, 1000).await.unwrap(), Purged::default());
    assert_eq!(store.purge(&NO_ROOMS, 0).await.unwrap(), Purged::default());
    tick(&*store).await;
    for expected in [2, 2, 1, 0] {
        assert_eq!(store.purge(&NO_ROOMS, 2).await.unwrap(), rooms(expected));
    }
    assert_eq!(store.rooms(None, None, 10).await.unwrap(), []);
    assert_eq!(store.history(&room("room 1"), 10).await.unwrap(), None);
    let again = place_new(&*store, &room("room 1"), node).await;
    assert_eq!(again.generation, Generation(1), "as if it had never been");
}

pub async fn orphaned_rooms_are_purged<S: Store>(store: Arc<S>) {
    let about = new_node();
    let [other] = live_nodes(&*store).await;
    for again in [true, false] {
        let epoch = register(&*store, &about, LONG).await;
        place_new(&*store, &room("daily"), about.node).await;
        if again {
            register(&*store, &about, LONG).await;
        } else {
            store.release(about.node, epoch).await.unwrap();
        }
        assert_eq!(store.purge(&KEEP, 1000).await.unwrap(), Purged::default());
        tick(&*store).await;
        assert_eq!(store.purge(&NO_ROOMS, 1000).await.unwrap(), rooms(1));
        assert_eq!(store.rooms(None, None, 10).await.unwrap(), []);
    }
    place_new(&*store, &room("daily"), other).await;
}

pub async fn open_rooms_and_what_is_young_are_never_purged<S: Store>(store: Arc<S>) {
    let [node] = live_nodes(&*store).await;
    let overdue = live_node(&*store).await;
    let placed = place_new(&*store, &room("open"), node).await;
    let dark = place_new(&*store, &room("dark"), overdue.0).await;
    renew(&*store, overdue.0, overdue.1, 1, Duration::ZERO).await;
    until("the lease runs out", async || store.overdue().await.unwrap().len() == 1).await;
    close_new(&*store, "closed", node).await;
    let reopened = place_new(&*store, &room("closed"), node).await;
    tick(&*store).await;
    let nothing = Retention {
        rooms: Duration::ZERO,
        nodes: Duration::ZERO,
        history: LONG,
    };
    assert_eq!(store.purge(&nothing, 1000).await.unwrap(), Purged::default());
    for open in [placed, dark, reopened] {
        assert_eq!(store.find(&open.room).await.unwrap(), Some(open));
    }
}

pub async fn a_lost_node_is_purged_when_no_room_refers_to_it<S: Store>(store: Arc<S>) {
    let (gone, epoch) = live_node(&*store).await;
    let [stays] = live_nodes(&*store).await;
    let name = room("daily");
    let placed = place_new(&*store, &name, gone).await;
    store.release(gone, epoch).await.unwrap();
    tick(&*store).await;
    assert_eq!(store.purge(&KEEP, 1000).await.unwrap(), Purged::default());
    // An orphaned room refers to it.
    assert_eq!(store.purge(&NO_NODES, 1000).await.unwrap(), Purged::default());
    // So does a closed one.
    assert!(close(&*store, &placed).await);
    assert_eq!(store.purge(&NO_NODES, 1000).await.unwrap(), Purged::default());
    place_new(&*store, &name, stays).await;
    assert_eq!(store.purge(&NO_NODES, 0).await.unwrap(), Purged::default());
    tick(&*store).await;
    assert_eq!(store.purge(&NO_NODES, 1000).await.unwrap(), nodes(1));
    let left: Vec<NodeId> = store.nodes().await.unwrap().into_iter().map(|view| view.node).collect();
    assert_eq!(left, [stays]);
}

pub async fn a_purged_nodes_epoch_does_not_come_back<S: Store>(store: Arc<S>) {
    let about = new_node();
    let epoch = register(&*store, &about, LONG).await;
    store.release(about.node, epoch).await.unwrap();
    let ended = node_view(&*store, about.node).await.epoch;
    tick(&*store).await;
    assert_eq!(store.purge(&NO_NODES, 1000).await.unwrap(), nodes(1));
    assert_eq!(renew(&*store, about.node, epoch, 2, LONG).await, Renewal::Over);
    assert!(register(&*store, &about, LONG).await > ended);
}

pub async fn old_entries_of_the_history_are_purged<S: Store>(store: Arc<S>) {
    let [node] = live_nodes(&*store).await;
    let name = room("daily");
    for _ in 0..2 {
        let placed = place_new(&*store, &name, node).await;
        close(&*store, &placed).await;
    }
    let placed = place_new(&*store, &name, node).await;
    assert_eq!(store.purge(&KEEP, 1000).await.unwrap(), Purged::default());
    tick(&*store).await;
    for expected in [2, 2, 1, 0] {
        assert_eq!(store.purge(&NO_HISTORY, 2).await.unwrap(), history(expected));
    }
    let (view, told) = store.history(&name, 10).await.unwrap().expect("the room is not purged");
    assert_eq!((view.generation, told.len()), (placed.generation, 0));
    assert_eq!(store.find(&name).await.unwrap(), Some(placed));
}

pub async fn concurrent_purges_remove_each_room_once<S: Store>(store: Arc<S>) {
    let [node] = live_nodes(&*store).await;
    for n in 0..40 {
        close_new(&*store, &format!("room {n:02}"), node).await;
    }
    tick(&*store).await;
    // Calls that meet may leave rooms to each other, and then to a later call.
    let total = Arc::new(AtomicU64::new(0));
    until("all are purged", async || {
        let purges = (0..8).map(|_| {
            let (store, total) = (store.clone(), total.clone());
            async move { total.fetch_add(store.purge(&NO_ROOMS, 3).await.unwrap().rooms, Ordering::SeqCst) }
        });
        at_once(purges).await;
        store.rooms(None, None, 1).await.unwrap().is_empty()
    })
    .await;
    assert_eq!(total.load(Ordering::SeqCst), 40, "each was counted once");
}
