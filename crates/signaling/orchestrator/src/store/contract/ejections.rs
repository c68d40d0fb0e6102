//! Nodes on which joins fail.

use super::*;
use signalbox_protocol::node::NodeState;

const HOUR: Duration = Duration::from_secs(3600);

async fn ejected_for(store: &impl Store, node: NodeId) -> Duration {
    Duration::from_millis(node_view(store, node).await.ejected_ms)
}

async fn ejected(store: &impl Store) -> BTreeSet<NodeId> {
    let candidates = store.candidates(MARGIN).await.unwrap();
    let ejected = candidates.into_iter().filter(|candidate| candidate.ejected);
    ejected.map(|candidate| candidate.node).collect()
}

/// Ejects for no time at all, which counts but is over at once.
async fn eject_briefly(store: &impl Store, node: NodeId, epoch: Epoch) {
    store.eject(node, epoch, Duration::ZERO, 1.0).await.unwrap();
    until("it is over", async || !ejected(store).await.contains(&node)).await;
}

pub async fn an_ejected_node_is_marked_until_the_time_is_over<S: Store>(store: Arc<S>) {
    let (node, epoch) = live_node(&*store).await;
    live_node(&*store).await;
    eject_briefly(&*store, node, epoch).await;
    assert_eq!(ejected_for(&*store, node).await, Duration::ZERO);
    assert!(store.eject(node, epoch, HOUR, 0.0).await.unwrap());
    assert_eq!(ejected(&*store).await, BTreeSet::from([node]));
    let view = node_view(&*store, node).await;
    assert_eq!((view.state, view.live, view.epoch), (NodeState::Serving, true, epoch));
    // Ejection advises who chooses; when all are ejected, somebody has to be chosen all the same.
    place_new(&*store, &room("daily"), node).await;
    assert_eq!(renew(&*store, node, epoch, 1, LONG).await, Renewal::Renewed);
    assert_eq!(ejected(&*store).await, BTreeSet::from([node]));
}

pub async fn an_ejection_grows_with_each_one_up_to_ten_times<S: Store>(store: Arc<S>) {
    let (node, epoch) = live_node(&*store).await;
    for briefly in 0..2 {
        eject_briefly(&*store, node, epoch).await;
        assert!(ejected(&*store).await.is_empty(), "{briefly}");
    }
    assert!(store.eject(node, epoch, HOUR, 1.0).await.unwrap());
    let third = ejected_for(&*store, node).await;
    assert!(third > HOUR * 2 && third <= HOUR * 3, "{third:?}");
    // Who is ejected is not ejected again.
    assert!(store.eject(node, epoch, HOUR, 1.0).await.unwrap());
    assert!(ejected_for(&*store, node).await <= third);

    let (node, epoch) = live_node(&*store).await;
    for _ in 0..15 {
        eject_briefly(&*store, node, epoch).await;
    }
    assert!(store.eject(node, epoch, HOUR, 1.0).await.unwrap());
    let last = ejected_for(&*store, node).await;
    assert!(last > HOUR * 9 && last <= HOUR * 10, "{last:?}");
}

pub async fn a_registration_begins_the_ejections_anew<S: Store>(store: Arc<S>) {
    let about = new_node();
    let epoch = register(&*store, &about, LONG).await;
    eject_briefly(&*store, about.node, epoch).await;
    assert!(store.eject(about.node, epoch, HOUR, 1.0).await.unwrap());
    let epoch = register(&*store, &about, LONG).await;
    assert_eq!(ejected_for(&*store, about.node).await, Duration::ZERO);
    assert_eq!(ejected(&*store).await, BTreeSet::new());
    assert!(store.eject(about.node, epoch, HOUR, 1.0).await.unwrap());
    assert!(ejected_for(&*store, about.node).await <= HOUR, "the first one again");
}

pub async fn only_a_current_epoch_is_ejected<S: Store>(store: Arc<S>) {
    let about = new_node();
    let node = about.node;
    let old = register(&*store, &about, LONG).await;
    let epoch = register(&*store, &about, LONG).await;
    assert!(!store.eject(node, old, HOUR, 1.0).await.unwrap());
    assert!(!store.eject(node, Epoch(epoch.0 + 1), HOUR, 1.0).await.unwrap());
    assert!(!store.eject(NodeId::random(), epoch, HOUR, 1.0).await.unwrap());
    assert_eq!(ejected_for(&*store, node).await, Duration::ZERO);
    assert!(store.release(node, epoch).await.unwrap());
    let after = node_view(&*store, node).await.epoch;
    assert!(!store.eject(node, after, HOUR, 1.0).await.unwrap(), "it is lost");
}

pub async fn a_share_of_the_nodes_is_ejected_and_one_always_may_be<S: Store>(store: Arc<S>) {
    let mut nodes = vec![live_node(&*store).await];
    assert!(
        store.eject(nodes[0].0, nodes[0].1, HOUR, 0.0).await.unwrap(),
        "the only one"
    );
    for _ in 0..9 {
        nodes.push(live_node(&*store).await);
    }
    // 29% of ten nodes are two whole ones.
    let mut answers = Vec::new();
    for (node, epoch) in &nodes {
        answers.push(store.eject(*node, *epoch, HOUR, 0.29).await.unwrap());
    }
    assert_eq!(answers.iter().filter(|ejected| **ejected).count(), 2);
    assert!(answers[0] && answers[1]);
    assert_eq!(ejected(&*store).await, BTreeSet::from([nodes[0].0, nodes[1].0]));
    // When one is over, it is the next one's turn.
    let about = RegisterNode {
        node: nodes[0].0,
        ..new_node()
    };
    register(&*store, &about, LONG).await;
    assert!(store.eject(nodes[2].0, nodes[2].1, HOUR, 0.29).await.unwrap());
}

pub async fn lost_nodes_do_not_count_towards_the_share<S: Store>(store: Arc<S>) {
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(live_node(&*store).await);
    }
    let (gone, gone_epoch) = nodes[0];
    assert!(store.eject(gone, gone_epoch, HOUR, 0.5).await.unwrap());
    assert!(store.release(gone, gone_epoch).await.unwrap());
    // Half of the three that are left is one.
    assert!(store.eject(nodes[1].0, nodes[1].1, HOUR, 0.5).await.unwrap());
    assert!(!store.eject(nodes[2].0, nodes[2].1, HOUR, 0.5).await.unwrap());
}

pub async fn concurrent_ejections_do_not_exceed_the_share<S: Store>(store: Arc<S>) {
    let mut nodes = Vec::new();
    for _ in 0..20 {
        nodes.push(live_node(&*store).await);
    }
    let calls = nodes.into_iter().map(|(node, epoch)| {
        let store = store.clone();
        async move { store.eject(node, epoch, HOUR, 0.1).await.unwrap() }
    });
    let answers = at_once(calls).await;
    assert_eq!(answers.into_iter().filter(|ejected| *ejected).count(), 2);
    assert_eq!(ejected(&*store).await.len(), 2);
}
