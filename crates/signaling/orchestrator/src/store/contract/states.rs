//! Serving, draining, lost.

use super::*;
use signalbox_protocol::node::NodeState;

pub async fn a_draining_node_keeps_its_rooms_and_gets_no_new_ones<S: Store>(store: Arc<S>) {
    let (node, epoch) = live_node(&*store).await;
    let name = room("daily");
    let placed = place_new(&*store, &name, node).await;
    let state = store.set_state(node, NodeState::Draining).await.unwrap();
    assert_eq!(state, Some(NodeState::Draining));
    assert_eq!(node_view(&*store, node).await.state, NodeState::Draining);
    assert_eq!(store.find(&name).await.unwrap().as_ref(), Some(&placed));
    let joins = place(&*store, &name, node).await;
    assert_eq!(joins, Placed::Existing(placed.clone()));
    assert_eq!(place(&*store, &room("weekly"), node).await, Placed::Refused);

    assert_eq!(renew(&*store, node, epoch, 1, LONG).await, Renewal::Renewed);
    assert_eq!(node_view(&*store, node).await.state, NodeState::Draining);
    assert!(close(&*store, &placed).await);
    assert_eq!(
        place(&*store, &name, node).await,
        Placed::Refused,
        "not even its own again"
    );

    let state = store.set_state(node, NodeState::Serving).await.unwrap();
    assert_eq!(state, Some(NodeState::Serving));
    place_new(&*store, &name, node).await;
}

pub async fn a_lost_node_stays_lost<S: Store>(store: Arc<S>) {
    let (node, epoch) = live_node(&*store).await;
    assert!(store.release(node, epoch).await.unwrap());
    for state in [NodeState::Serving, NodeState::Draining, NodeState::Lost] {
        let after = store.set_state(node, state).await.unwrap();
        assert_eq!(after, Some(NodeState::Lost));
    }
    assert_eq!(place(&*store, &room("daily"), node).await, Placed::Refused);
    let unknown = store.set_state(NodeId::random(), NodeState::Draining).await.unwrap();
    assert_eq!(unknown, None);
}

pub async fn lost_cannot_be_set<S: Store>(store: Arc<S>) {
    let (node, epoch) = live_node(&*store).await;
    for state in [NodeState::Serving, NodeState::Draining] {
        store.set_state(node, state).await.unwrap();
        let after = store.set_state(node, NodeState::Lost).await.unwrap();
        assert_eq!(after, Some(state));
    }
    let view = node_view(&*store, node).await;
    assert_eq!((view.state, view.epoch, view.live), (NodeState::Draining, epoch, true));
}

pub async fn a_registration_serves_again<S: Store>(store: Arc<S>) {
    let about = new_node();
    for drains in [true, false] {
        let epoch = register(&*store, &about, LONG).await;
        if drains {
            store.set_state(about.node, NodeState::Draining).await.unwrap();
        } else {
            assert!(store.release(about.node, epoch).await.unwrap());
        }
        register(&*store, &about, LONG).await;
        assert_eq!(node_view(&*store, about.node).await.state, NodeState::Serving);
    }
    place_new(&*store, &room("daily"), about.node).await;
}
