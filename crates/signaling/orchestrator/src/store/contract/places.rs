//! Placing and finding.

use super::*;
use signalbox_protocol::Generation;

pub async fn an_unknown_room_is_nowhere<S: Store>(store: Arc<S>) {
    live_node(&*store).await;
    assert_eq!(store.find(&room("daily")).await.unwrap(), None);
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
    for candidate in [a, b, NodeId::random()] {
        let again = place(&*store, &name, candidate).await;
        assert_eq!(again, Placed::Existing(placed.clone()));
    }
    assert_eq!(store.find(&name).await.unwrap(), Some(placed));
}

pub async fn a_node_that_is_unknown_lost_or_almost_out_of_lease_gets_no_room<S: Store>(store: Arc<S>) {
    let name = room("daily");
    assert_eq!(place(&*store, &name, NodeId::random()).await, Placed::Refused);
    let (node, epoch) = live_node(&*store).await;
    let almost_out = store.place(proposal(&name, node), LONG * 2).await.unwrap();
    assert_eq!(almost_out, Placed::Refused);
    assert!(store.release(node, epoch).await.unwrap());
    assert_eq!(place(&*store, &name, node).await, Placed::Refused);
    assert_eq!(store.find(&name).await.unwrap(), None);
}

pub async fn a_thousand_concurrent_places_of_one_room_agree<S: Store>(store: Arc<S>) {
    let nodes = live_nodes::<8>(&*store).await;
    let placed = agree(&store, &room("daily"), &nodes, 1000).await;
    assert_eq!(placed.generation, Generation(1));
}

pub async fn concurrent_places_of_many_rooms_agree<S: Store>(store: Arc<S>) {
    let nodes = live_nodes::<3>(&*store).await;
    let rooms = (0..20).map(|n| {
        let store = store.clone();
        async move { agree(&store, &room(&format!("room {n}")), &nodes, 20).await }
    });
    for placed in at_once(rooms).await {
        assert_eq!(placed.generation, Generation(1));
    }
}
