//! Registering, renewing and releasing: who holds which epoch.

use super::*;
use crate::store::Registration;
use signalbox_protocol::Generation;
use signalbox_protocol::node::NodeState;

pub async fn a_node_that_registers_again_loses_its_rooms<S: Store>(store: Arc<S>) {
    let mut about = new_node();
    let first = register(&*store, &about, LONG).await;
    let name = room("daily");
    place_new(&*store, &name, about.node).await;
    about.control = "ws://10.0.0.8:7900".into();
    let second = register(&*store, &about, LONG).await;
    assert!(second > first);
    assert_eq!(store.find(&name).await.unwrap(), None);
    let placed = place_new(&*store, &name, about.node).await;
    assert_eq!((placed.epoch, placed.generation), (second, Generation(2)));
    assert_eq!(placed.control, about.control);
    assert_eq!(store.nodes().await.unwrap().len(), 1);
}

pub async fn epochs_only_grow_and_never_repeat<S: Store>(store: Arc<S>) {
    let about = new_node();
    let calls = (0..40).map(|call| {
        let (store, about) = (store.clone(), if call % 2 == 0 { about.clone() } else { new_node() });
        async move { register(&*store, &about, LONG).await }
    });
    let epochs = at_once(calls).await;
    assert_eq!(epochs.iter().collect::<BTreeSet<_>>().len(), epochs.len());
    let current = node_view(&*store, about.node).await.epoch;
    let next = register(&*store, &about, LONG).await;
    assert!(next > current);
    assert!(epochs.iter().all(|epoch| *epoch < next));
    assert!(store.release(about.node, next).await.unwrap());
    assert!(node_view(&*store, about.node).await.epoch > next);
}

pub async fn of_concurrent_registrations_the_greatest_epoch_holds_the_lease<S: Store>(store: Arc<S>) {
    let about = new_node();
    for _ in 0..10 {
        let calls = (0..10).map(|_| {
            let (store, about) = (store.clone(), about.clone());
            async move { register(&*store, &about, LONG).await }
        });
        let mut epochs = at_once(calls).await;
        epochs.sort();
        let greatest = epochs.pop().unwrap();
        assert_eq!(node_view(&*store, about.node).await.epoch, greatest);
        assert_eq!(renew(&*store, about.node, greatest, 1, LONG).await, Renewal::Renewed);
        for epoch in epochs {
            assert_eq!(renew(&*store, about.node, epoch, 1, LONG).await, Renewal::Over);
        }
    }
}

pub async fn a_registration_after_another_epoch_than_the_nodes_changes_nothing<S: Store>(store: Arc<S>) {
    let first = new_node();
    let old = register(&*store, &first, LONG).await;
    let current = register(&*store, &first, LONG).await;
    let placed = place_new(&*store, &room("daily"), first.node).await;
    for after in [Epoch(0), old, Epoch(u64::MAX)] {
        let late = RegisterNode {
            after,
            control: "ws://10.0.0.8:7900".into(),
            ..first.clone()
        };
        let outcome = store.register(&late, LONG).await.unwrap();
        assert_eq!(outcome.held(), None, "{after}");
        if after != Epoch(u64::MAX) {
            assert_eq!(outcome, Registration::Behind(current));
        }
    }
    assert_eq!(
        store.find(&placed.room).await.unwrap(),
        Some(placed),
        "its rooms are its own"
    );
    let view = node_view(&*store, first.node).await;
    assert_eq!((view.epoch, view.control), (current, first.control.clone()));
    assert!(store.release(first.node, current).await.unwrap());
    let again = RegisterNode {
        after: current,
        ..first.clone()
    };
    let ended = node_view(&*store, first.node).await.epoch;
    let outcome = store.register(&again, LONG).await.unwrap();
    assert_eq!(outcome, Registration::Behind(ended), "a release moves the epoch too");
}

pub async fn of_concurrent_registrations_after_one_epoch_one_holds_the_lease<S: Store>(store: Arc<S>) {
    let mut about = new_node();
    for _ in 0..10 {
        let calls = (0..10).map(|_| {
            let (store, about) = (store.clone(), about.clone());
            async move { store.register(&about, LONG).await.unwrap() }
        });
        let outcomes = at_once(calls).await;
        let held: Vec<Epoch> = outcomes.iter().filter_map(|outcome| outcome.held()).collect();
        let [epoch] = held.as_slice() else {
            panic!("not one: {outcomes:?}")
        };
        assert_eq!(node_view(&*store, about.node).await.epoch, *epoch);
        about.after = *epoch;
    }
}

pub async fn a_node_that_the_map_has_lost_registers_after_the_epoch_that_it_knows<S: Store>(store: Arc<S>) {
    let about = RegisterNode {
        after: Epoch(1_000),
        ..new_node()
    };
    let epoch = store.register(&about, LONG).await.unwrap().held();
    assert!(epoch.is_some_and(|epoch| epoch > about.after), "{epoch:?}");
}

pub async fn an_old_epoch_cannot_renew_or_release<S: Store>(store: Arc<S>) {
    let about = new_node();
    let node = about.node;
    let old = register(&*store, &about, LONG).await;
    let current = register(&*store, &about, LONG).await;
    assert_eq!(renew(&*store, node, old, 1, LONG).await, Renewal::Over);
    assert!(!store.release(node, old).await.unwrap());
    assert_eq!(renew(&*store, NodeId::random(), current, 1, LONG).await, Renewal::Over);
    assert!(!store.release(NodeId::random(), current).await.unwrap());
    assert_eq!(renew(&*store, node, current, 1, LONG).await, Renewal::Renewed);
    assert!(store.release(node, current).await.unwrap());
    assert_eq!(renew(&*store, node, current, 2, LONG).await, Renewal::Over);
    let after = node_view(&*store, node).await.epoch;
    let answer = renew(&*store, node, after, 1, LONG).await;
    assert_eq!(answer, Renewal::Over, "the epoch after a release is nobody's");
    assert!(!store.release(node, after).await.unwrap());
}

pub async fn a_lease_that_ran_out_can_be_renewed_until_it_is_fenced<S: Store>(store: Arc<S>) {
    let about = new_node();
    let epoch = register(&*store, &about, LONG).await;
    let placed = place_new(&*store, &room("daily"), about.node).await;
    assert_eq!(
        renew(&*store, about.node, epoch, 1, Duration::ZERO).await,
        Renewal::Renewed
    );
    until("the lease runs out", async || {
        !node_view(&*store, about.node).await.live
    })
    .await;
    assert_eq!(renew(&*store, about.node, epoch, 2, LONG).await, Renewal::Renewed);
    assert!(node_view(&*store, about.node).await.live);
    assert_eq!(
        store.find(&placed.room).await.unwrap(),
        Some(placed),
        "its rooms are its own"
    );
    renew(&*store, about.node, epoch, 3, Duration::ZERO).await;
    fence_until(&*store, &LOOSE, 1).await;
    assert_eq!(renew(&*store, about.node, epoch, 4, LONG).await, Renewal::Over);
}

pub async fn a_heartbeat_from_the_past_changes_nothing<S: Store>(store: Arc<S>) {
    let about = new_node();
    let node = about.node;
    let epoch = register(&*store, &about, LONG).await;
    let busy = NodeLoad {
        rooms: 1,
        participants: 2,
        packets_per_second: 3,
        cpu_percent: 4,
    };
    let answer = store.renew(node, epoch, 7, busy, LONG).await.unwrap();
    assert_eq!(answer, Renewal::Renewed);
    for beat in [7, 6, 1] {
        assert_eq!(
            renew(&*store, node, epoch, beat, Duration::ZERO).await,
            Renewal::Past,
            "{beat}"
        );
    }
    let view = node_view(&*store, node).await;
    assert_eq!((view.live, view.load), (true, busy));
    assert_eq!(store.overdue().await.unwrap(), []);
    assert_eq!(renew(&*store, node, epoch, 8, LONG).await, Renewal::Renewed);
    assert_eq!(node_view(&*store, node).await.load, NodeLoad::default());
    // The next epoch counts from the beginning.
    let next = register(&*store, &about, LONG).await;
    assert_eq!(renew(&*store, node, next, 1, LONG).await, Renewal::Renewed);
    assert_eq!(
        renew(&*store, node, epoch, 9, LONG).await,
        Renewal::Over,
        "rather than past"
    );
}

pub async fn of_heartbeats_that_overtake_each_other_the_latest_counts<S: Store>(store: Arc<S>) {
    let (node, epoch) = live_node(&*store).await;
    let beats = (1..=50_u32).map(|beat| {
        let store = store.clone();
        async move {
            let load = NodeLoad {
                rooms: beat,
                ..NodeLoad::default()
            };
            store.renew(node, epoch, beat.into(), load, LONG).await.unwrap()
        }
    });
    let answers = at_once(beats).await;
    assert!(!answers.contains(&Renewal::Over));
    assert_eq!(node_view(&*store, node).await.load.rooms, 50);
}

/// An epoch that the map has not handed out yet, as if it had forgotten that it had.
fn forgotten(epoch: Epoch) -> Epoch {
    Epoch(epoch.0 + 3)
}

pub async fn an_epoch_that_the_map_has_lost_is_adopted<S: Store>(store: Arc<S>) {
    let (node, known) = live_node(&*store).await;
    renew(&*store, node, known, 9, Duration::ZERO).await;
    let placed = place_new(&*store, &room("daily"), live_node(&*store).await.0).await;
    let later = forgotten(known);
    assert_eq!(renew(&*store, node, later, 2, LONG).await, Renewal::Renewed);
    let view = node_view(&*store, node).await;
    assert_eq!((view.epoch, view.live, view.state), (later, true, NodeState::Serving));
    assert_eq!(renew(&*store, node, later, 2, LONG).await, Renewal::Past);
    assert_eq!(renew(&*store, node, known, 10, LONG).await, Renewal::Over);
    assert_eq!(store.find(&placed.room).await.unwrap(), Some(placed), "another node's");
    let placed = place_new(&*store, &room("weekly"), node).await;
    assert_eq!(placed.epoch, later);
}

pub async fn an_adopted_epoch_ends_the_one_before<S: Store>(store: Arc<S>) {
    let (node, known) = live_node(&*store).await;
    let placed = place_new(&*store, &room("daily"), node).await;
    assert_eq!(renew(&*store, node, forgotten(known), 1, LONG).await, Renewal::Renewed);
    assert_eq!(store.find(&placed.room).await.unwrap(), None);
    assert!(!store.release(node, known).await.unwrap());
    let next = place_new(&*store, &placed.room, live_node(&*store).await.0).await;
    assert_eq!(next.generation, Generation(2));
}

pub async fn an_epoch_that_was_adopted_never_repeats<S: Store>(store: Arc<S>) {
    let about = new_node();
    let known = register(&*store, &about, LONG).await;
    let later = forgotten(known);
    assert_eq!(renew(&*store, about.node, later, 1, LONG).await, Renewal::Renewed);
    for _ in 0..5 {
        let (_, epoch) = live_node(&*store).await;
        assert!(epoch > later, "{epoch:?} may have been another node's");
    }
    assert!(register(&*store, &about, LONG).await > later);
}

pub async fn a_lost_node_adopts_no_epoch<S: Store>(store: Arc<S>) {
    let (node, epoch) = live_node(&*store).await;
    assert!(store.release(node, epoch).await.unwrap());
    let ended = node_view(&*store, node).await.epoch;
    assert_eq!(renew(&*store, node, forgotten(ended), 1, LONG).await, Renewal::Over);
    let view = node_view(&*store, node).await;
    assert_eq!((view.epoch, view.state, view.live), (ended, NodeState::Lost, false));
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

pub async fn of_concurrent_releases_one_ends_the_epoch<S: Store>(store: Arc<S>) {
    let (node, epoch) = live_node(&*store).await;
    let calls = (0..20).map(|_| {
        let store = store.clone();
        async move { store.release(node, epoch).await.unwrap() }
    });
    let released = at_once(calls).await;
    assert_eq!(released.into_iter().filter(|released| *released).count(), 1);
}

pub async fn numbers_beyond_the_stores_range_match_nothing<S: Store>(store: Arc<S>) {
    let [node, other] = live_nodes(&*store).await;
    let beyond = Epoch(u64::MAX);
    assert_eq!(renew(&*store, node, beyond, 1, LONG).await, Renewal::Over);
    assert!(!store.release(node, beyond).await.unwrap());
    assert!(!store.eject(node, beyond, LONG, 1.0).await.unwrap());
    let placed = place_new(&*store, &room("daily"), node).await;
    let wrong = CloseRoom {
        node,
        epoch: beyond,
        generation: Generation(u64::MAX),
    };
    assert!(!store.close(&placed.room, &wrong, BY).await.unwrap());
    let handed = store.hand_off(&wrong, proposal(&placed.room, other), MARGIN).await;
    assert_eq!(handed.unwrap(), None);
    assert_eq!(store.find(&placed.room).await.unwrap(), Some(placed));
}
