//! Fencing: whose lease ran out, and how many of them lose their epochs.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::store::Fenced;
use signalbox_protocol::Generation;
use signalbox_protocol::node::NodeState;

/// A brake whose lease no test outlasts between two calls, but which a server that was just started soon has been up
/// for.
const STRICT: Brake = Brake {
    lease: Duration::from_secs(5),
    grace: Duration::ZERO,
};

const NOBODY: BTreeSet<NodeId> = BTreeSet::new();

pub async fn a_fenced_nodes_room_moves_with_the_next_generation<S: Store>(store: Arc<S>) {
    let (a, epoch) = live_node(&*store).await;
    let (b, _) = live_node(&*store).await;
    let name = room("daily");
    let placed = place_new(&*store, &name, a).await;
    // The shortest lease ends at once, as if the time had passed.
    renew(&*store, a, epoch, 1, Duration::ZERO).await;
    assert_eq!(fence_until(&*store, &LOOSE, 1).await, [(a, epoch)]);
    assert_eq!(store.find(&name).await.unwrap(), None);
    let moved = place_new(&*store, &name, b).await;
    assert_eq!(moved.generation.0, placed.generation.0 + 1);
    let lost = node_view(&*store, a).await;
    assert_eq!((lost.state, lost.live), (NodeState::Lost, false));
    assert!(lost.epoch > epoch);
}

pub async fn a_lease_that_ran_out_does_not_free_a_room_until_it_is_fenced<S: Store>(store: Arc<S>) {
    let (a, epoch) = live_node(&*store).await;
    let (b, _) = live_node(&*store).await;
    let name = room("daily");
    let placed = place_new(&*store, &name, a).await;
    renew(&*store, a, epoch, 1, Duration::ZERO).await;
    until("the lease runs out", async || !node_view(&*store, a).await.live).await;
    assert_eq!(place(&*store, &name, b).await, Placed::Existing(placed.clone()));
    assert_eq!(store.find(&name).await.unwrap(), Some(placed));
    assert_eq!(place(&*store, &room("weekly"), a).await, Placed::Refused);
}

pub async fn a_renewed_node_is_not_fenced<S: Store>(store: Arc<S>) {
    let (node, epoch) = live_node(&*store).await;
    renew(&*store, node, epoch, 1, Duration::ZERO).await;
    until("the lease runs out", async || store.overdue().await.unwrap().len() == 1).await;
    renew(&*store, node, epoch, 2, LONG).await;
    assert_eq!(store.overdue().await.unwrap(), []);
    assert_eq!(store.fence_expired(&LOOSE, &NOBODY).await.unwrap(), Fenced::default());
}

pub async fn the_grace_is_waited_for<S: Store>(store: Arc<S>) {
    let [(node, epoch)] = overdue_nodes(&*store, 1).await[..] else {
        panic!("not one")
    };
    let patient = Brake {
        lease: Duration::ZERO,
        grace: LONG,
    };
    assert_eq!(store.fence_expired(&patient, &NOBODY).await.unwrap(), Fenced::default());
    assert_eq!(renew(&*store, node, epoch, 1, LONG).await, Renewal::Renewed);
}

pub async fn those_overdue_for_longest_are_told_and_fenced_first<S: Store>(store: Arc<S>) {
    live_node(&*store).await;
    let mut nodes = Vec::new();
    for n in 0..5 {
        let mut about = new_node();
        about.control = format!("ws://10.0.0.{n}:7900");
        let epoch = register(&*store, &about, Duration::ZERO).await;
        nodes.push((about.node, epoch, about.control));
    }
    until("leases of zero run out", async || {
        store.overdue().await.unwrap().len() == 5
    })
    .await;
    // Who renews goes to the end.
    let first = nodes.remove(0);
    renew(&*store, first.0, first.1, 1, Duration::ZERO).await;
    nodes.push(first);
    until("leases of zero run out", async || {
        store.overdue().await.unwrap().len() == 5
    })
    .await;

    let overdue = store.overdue().await.unwrap();
    let told: Vec<_> = overdue
        .into_iter()
        .map(|one| (one.node, one.epoch, one.control))
        .collect();
    assert_eq!(told, nodes);
    for (node, epoch, _) in nodes {
        assert_eq!(fence_until(&*store, &LOOSE, 1).await, [(node, epoch)]);
    }
    assert_eq!(store.overdue().await.unwrap(), []);
}

pub async fn at_most_a_thousand_overdue_nodes_are_told<S: Store>(store: Arc<S>) {
    let calls = (0..1001).map(|_| {
        let store = store.clone();
        async move { register(&*store, &new_node(), Duration::ZERO).await }
    });
    at_once(calls).await;
    until("leases of zero run out", async || {
        store.look(BY, LONG).await.unwrap().overdue == 1001
    })
    .await;
    assert_eq!(store.overdue().await.unwrap().len(), 1000);
}

pub async fn a_spared_node_is_not_fenced<S: Store>(store: Arc<S>) {
    live_nodes::<7>(&*store).await;
    let overdue = overdue_nodes(&*store, 3).await;
    let ids: BTreeSet<NodeId> = overdue.iter().map(|(node, _)| *node).collect();
    assert_eq!(store.fence_expired(&LOOSE, &ids).await.unwrap(), Fenced::default());
    let spared = BTreeSet::from([overdue[0].0, overdue[2].0, NodeId::random()]);
    let fenced = store.fence_expired(&LOOSE, &spared).await.unwrap();
    assert_eq!((fenced.nodes, fenced.held), (vec![overdue[1]], 0));
    assert_eq!(store.overdue().await.unwrap().len(), 2);
    let (node, epoch) = overdue[0];
    assert_eq!(renew(&*store, node, epoch, 1, LONG).await, Renewal::Renewed);
}

pub async fn a_mass_expiry_is_fenced_one_by_one<S: Store>(store: Arc<S>) {
    overdue_nodes(&*store, 10).await;
    assert_eq!(fence_until(&*store, &STRICT, 1).await.len(), 1);
    let fenced = store.fence_expired(&STRICT, &NOBODY).await.unwrap();
    assert_eq!((fenced.nodes.len(), fenced.held), (0, 9));
    // With the last fence forgotten, it is the next node's turn.
    let fenced = store.fence_expired(&LOOSE, &NOBODY).await.unwrap();
    assert_eq!((fenced.nodes.len(), fenced.held), (1, 8));
}

pub async fn a_node_that_registers_again_still_counts_as_fenced<S: Store>(store: Arc<S>) {
    overdue_nodes(&*store, 4).await;
    let [(fenced, _)] = fence_until(&*store, &STRICT, 1).await[..] else {
        panic!("not one")
    };
    let about = RegisterNode {
        node: fenced,
        ..new_node()
    };
    register(&*store, &about, LONG).await;
    let next = store.fence_expired(&STRICT, &NOBODY).await.unwrap();
    assert_eq!((next.nodes.len(), next.held), (0, 3));
}

pub async fn concurrent_fences_do_not_add_up<S: Store>(store: Arc<S>) {
    overdue_nodes(&*store, 10).await;
    let total = Arc::new(AtomicUsize::new(0));
    let calls = (0..20).map(|_| {
        let (store, total) = (store.clone(), total.clone());
        async move {
            let mut calls_after = 0;
            while calls_after < 5 {
                calls_after += usize::from(total.load(Ordering::SeqCst) > 0);
                let fenced = store.fence_expired(&STRICT, &NOBODY).await.unwrap().nodes.len();
                total.fetch_add(fenced, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        }
    });
    tokio::time::timeout(Duration::from_secs(30), at_once(calls))
        .await
        .expect("one node is fenced");
    assert_eq!(total.load(Ordering::SeqCst), 1);
}

pub async fn a_fleet_of_one_is_fenced<S: Store>(store: Arc<S>) {
    overdue_nodes(&*store, 1).await;
    assert_eq!(fence_until(&*store, &LOOSE, 1).await.len(), 1);
    assert_eq!(store.overdue().await.unwrap(), []);
    assert_eq!(store.fence_expired(&LOOSE, &NOBODY).await.unwrap(), Fenced::default());
}

pub async fn of_a_renewal_and_a_fence_one_happens<S: Store>(store: Arc<S>) {
    let keeper = live_node(&*store).await.0;
    for round in 0..40 {
        let (node, epoch) = live_node(&*store).await;
        let name = room(&format!("room {round}"));
        let placed = place_new(&*store, &name, node).await;
        renew(&*store, node, epoch, 1, Duration::ZERO).await;
        until("the lease runs out", async || store.overdue().await.unwrap().len() == 1).await;
        let renewing = {
            let store = store.clone();
            tokio::spawn(async move { renew(&*store, node, epoch, 2, LONG).await })
        };
        let fenced = store.fence_expired(&LOOSE, &NOBODY).await.unwrap().nodes;
        let renewal = renewing.await.unwrap();
        let after = store.find(&name).await.unwrap();
        if fenced.is_empty() {
            assert_eq!((renewal, after), (Renewal::Renewed, Some(placed)));
            assert_eq!(
                place(&*store, &name, keeper).await,
                Placed::Existing(store.find(&name).await.unwrap().unwrap())
            );
            assert!(store.release(node, epoch).await.unwrap());
        } else {
            assert_eq!((fenced, renewal, after), (vec![(node, epoch)], Renewal::Over, None));
            assert_eq!(place_new(&*store, &name, keeper).await.generation, Generation(2));
        }
    }
}
