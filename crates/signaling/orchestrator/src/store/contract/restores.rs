//! Comparing the map with what a node hosts.

use super::*;
use signalbox_protocol::Generation;
use signalbox_protocol::history::RoomEvent;
use signalbox_protocol::node::RoomDigest;

fn digest(name: &str, generation: u64) -> RoomDigest {
    RoomDigest {
        room: room(name),
        generation: Generation(generation),
    }
}

/// What the node must close.
async fn restore(store: &impl Store, (node, epoch): (NodeId, Epoch), rooms: &[RoomDigest]) -> Vec<RoomDigest> {
    store.restore(node, epoch, rooms, BY).await.unwrap()
}

async fn place_of(store: &impl Store, name: &str) -> Option<(NodeId, Epoch, Generation)> {
    let found = store.find(&room(name)).await.unwrap();
    found.map(|found| (found.node, found.epoch, found.generation))
}

pub async fn a_room_that_the_map_lost_is_restored<S: Store>(store: Arc<S>) {
    let node = live_node(&*store).await;
    let placed = place_new(&*store, &room("known"), node.0).await;
    let rooms = [digest("known", 1), digest("daily", 1), digest("weekly", 7)];
    assert_eq!(restore(&*store, node, &rooms).await, []);
    assert_eq!(place_of(&*store, "daily").await, Some((node.0, node.1, Generation(1))));
    let weekly = store.find(&room("weekly")).await.unwrap().unwrap();
    assert_eq!(
        (weekly.node, weekly.epoch, weekly.generation),
        (node.0, node.1, Generation(7))
    );
    assert_eq!(weekly.control, placed.control);
    assert_eq!(store.find(&room("known")).await.unwrap(), Some(placed));

    let (_, history) = store.history(&room("weekly"), 10).await.unwrap().unwrap();
    let [entry] = history.as_slice() else {
        panic!("{history:?}")
    };
    assert_eq!((entry.event, entry.generation), (RoomEvent::Restored, Generation(7)));
    assert_eq!((entry.node, entry.epoch, entry.by.as_str()), (node.0, node.1, BY));
    let (_, history) = store.history(&room("known"), 10).await.unwrap().unwrap();
    assert_eq!(history.len(), 1, "nothing was changed");

    assert_eq!(restore(&*store, node, &rooms).await, [], "again");
    assert!(close(&*store, &weekly).await);
    assert_eq!(
        place_new(&*store, &room("weekly"), node.0).await.generation,
        Generation(8)
    );
    assert_eq!(restore(&*store, node, &[]).await, []);
}

pub async fn the_greater_generation_wins<S: Store>(store: Arc<S>) {
    let (a, b) = (live_node(&*store).await, live_node(&*store).await);
    let open = place_new(&*store, &room("open"), a.0).await;
    let closed = place_new(&*store, &room("closed"), a.0).await;
    assert!(close(&*store, &closed).await);
    assert_eq!(restore(&*store, b, &[digest("open", 2), digest("closed", 3)]).await, []);
    assert_eq!(place_of(&*store, "open").await, Some((b.0, b.1, Generation(2))));
    assert_eq!(place_of(&*store, "closed").await, Some((b.0, b.1, Generation(3))));
    // The former owner learns of it, and cannot close what is not its own any more.
    assert!(!close(&*store, &open).await);
    assert_eq!(restore(&*store, a, &[digest("open", 1)]).await, [digest("open", 1)]);
    assert_eq!(place_of(&*store, "open").await, Some((b.0, b.1, Generation(2))));
}

pub async fn a_room_that_is_not_the_nodes_is_stale<S: Store>(store: Arc<S>) {
    let (a, b) = (live_node(&*store).await, live_node(&*store).await);
    let elsewhere = place_new(&*store, &room("elsewhere"), b.0).await;
    let closed = place_new(&*store, &room("closed"), a.0).await;
    assert!(close(&*store, &closed).await);
    let own = place_new(&*store, &room("own"), a.0).await;
    let rooms = [
        digest("elsewhere", 1),
        digest("closed", 1),
        digest("own", 1),
        digest("beyond the range", u64::MAX),
        digest("below the range", 0),
    ];
    let stale = restore(&*store, a, &rooms).await;
    assert_eq!(as_set(&stale), as_set(&[&rooms[..2], &rooms[3..]].concat()));
    assert_eq!(store.find(&elsewhere.room).await.unwrap(), Some(elsewhere));
    assert_eq!(store.find(&closed.room).await.unwrap(), None);
    assert_eq!(store.find(&room("beyond the range")).await.unwrap(), None);
    assert_eq!(store.find(&room("below the range")).await.unwrap(), None);
    // It may host the former generation of a room that is its own again.
    assert!(close(&*store, &own).await);
    let own = place_new(&*store, &own.room, a.0).await;
    let both = [digest("own", 1), digest("own", 2)];
    assert_eq!(restore(&*store, a, &both).await, [digest("own", 1)]);
    assert_eq!(store.find(&own.room).await.unwrap(), Some(own));
}

fn as_set(digests: &[RoomDigest]) -> BTreeSet<(&RoomName, Generation)> {
    digests.iter().map(|digest| (&digest.room, digest.generation)).collect()
}

pub async fn only_the_current_epoch_restores<S: Store>(store: Arc<S>) {
    let (node, ended) = live_node(&*store).await;
    assert!(store.release(node, ended).await.unwrap());
    let after = node_view(&*store, node).await.epoch;
    let rooms = [digest("daily", 1), digest("weekly", 2)];
    for epoch in [ended, after] {
        let stale = restore(&*store, (node, epoch), &rooms).await;
        assert_eq!(as_set(&stale), as_set(&rooms), "the node is lost");
    }
    let about = RegisterNode { node, ..new_node() };
    let current = register(&*store, &about, LONG).await;
    let place = place_new(&*store, &room("own"), node).await;
    for epoch in [ended, Epoch(current.0 + 5), Epoch(u64::MAX)] {
        let own = [digest("daily", 1), digest("own", 1)];
        let stale = restore(&*store, (node, epoch), &own).await;
        assert_eq!(as_set(&stale), as_set(&own), "{epoch:?}");
    }
    let unknown = (NodeId::random(), current);
    assert_eq!(as_set(&restore(&*store, unknown, &rooms).await), as_set(&rooms));
    assert_eq!(store.find(&room("daily")).await.unwrap(), None);
    assert_eq!(store.find(&place.room).await.unwrap(), Some(place));
    assert_eq!(restore(&*store, (node, current), &rooms).await, []);
}

pub async fn of_a_room_that_is_named_twice_the_greater_generation_counts<S: Store>(store: Arc<S>) {
    let node = live_node(&*store).await;
    let rooms = [
        digest("a", 1),
        digest("a", 2),
        digest("b", 4),
        digest("b", 3),
        digest("c", 1),
        digest("c", 1),
    ];
    let stale = restore(&*store, node, &rooms).await;
    assert_eq!(as_set(&stale), as_set(&[digest("a", 1), digest("b", 3)]));
    for (name, generation) in [("a", 2), ("b", 4), ("c", 1)] {
        let there = (node.0, node.1, Generation(generation));
        assert_eq!(place_of(&*store, name).await, Some(there));
    }
}

pub async fn of_concurrent_restores_one_owner_remains<S: Store>(store: Arc<S>) {
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(live_node(&*store).await);
    }
    for round in 0..20 {
        let name = format!("room {round}");
        // Two say generation 2, two say 3, while another node is given the room.
        let calls = nodes.clone().into_iter().enumerate().map(|(n, node)| {
            let (store, digest) = (store.clone(), digest(&name, 2 + n as u64 % 2));
            async move { restore(&*store, node, &[digest]).await.is_empty() }
        });
        let restoring: JoinSet<bool> = calls.collect();
        place(&*store, &room(&name), nodes[0].0).await;
        restoring.join_all().await;
        let (owner, _, generation) = place_of(&*store, &name).await.expect("it is somewhere");
        assert_eq!(generation, Generation(3));
        let mut accepted = Vec::new();
        for node in &nodes {
            if restore(&*store, *node, &[digest(&name, 3)]).await.is_empty() {
                accepted.push(node.0);
            }
        }
        assert_eq!(accepted, [owner]);
    }
}
