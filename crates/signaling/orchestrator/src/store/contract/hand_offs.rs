//! Moving a room from a live owner: a compare-and-set on the whole assignment.

use super::closes::wrong_owners;
use super::*;
use signalbox_protocol::Generation;
use signalbox_protocol::node::NodeState;

use crate::store::Wanted;

async fn hand_off(store: &impl Store, from: &Assignment, to: NodeId) -> Option<Assignment> {
    let proposal = proposal(&from.room, to);
    store.hand_off(&owner(from), proposal, MARGIN).await.unwrap()
}

pub async fn a_room_is_handed_to_another_node_with_the_next_generation<S: Store>(store: Arc<S>) {
    let (a, _) = live_node(&*store).await;
    let mut about = new_node();
    about.control = "ws://10.0.0.8:7900".into();
    let epoch = register(&*store, &about, LONG).await;
    let name = room("daily");
    let placed = place_new(&*store, &name, a).await;
    let handed = hand_off(&*store, &placed, about.node).await.expect("handed off");
    assert_eq!(
        handed,
        Assignment {
            room: name.clone(),
            node: about.node,
            epoch,
            generation: Generation(2),
            control: about.control
        }
    );
    assert_eq!(store.find(&name).await.unwrap().as_ref(), Some(&handed));
    assert!(!close(&*store, &placed).await, "the former owner has nothing to close");
    let back = hand_off(&*store, &handed, a).await.expect("handed back");
    assert_eq!((back.node, back.generation), (a, Generation(3)));
}

pub async fn a_hand_off_is_a_compare_and_set<S: Store>(store: Arc<S>) {
    let [a, b, c] = live_nodes(&*store).await;
    let name = room("daily");
    let placed = place_new(&*store, &name, a).await;
    for wrong in wrong_owners(&owner(&placed), b) {
        let answer = store.hand_off(&wrong, proposal(&name, c), MARGIN).await.unwrap();
        assert_eq!(answer, None, "{wrong:?}");
    }
    let unknown = store
        .hand_off(&owner(&placed), proposal(&room("another"), c), MARGIN)
        .await
        .unwrap();
    assert_eq!(unknown, None);
    assert_eq!(store.find(&name).await.unwrap().as_ref(), Some(&placed));
    let handed = hand_off(&*store, &placed, c).await.expect("handed off");
    assert_eq!(hand_off(&*store, &placed, b).await, None, "handed off before");
    assert_eq!(store.find(&name).await.unwrap(), Some(handed));
}

pub async fn a_hand_off_needs_a_live_owner_and_a_node_that_takes_rooms<S: Store>(store: Arc<S>) {
    let (a, epoch) = live_node(&*store).await;
    let (gone, gone_epoch) = live_node(&*store).await;
    let [b, draining] = live_nodes(&*store).await;
    assert!(store.release(gone, gone_epoch).await.unwrap());
    store.set_state(draining, NodeState::Draining).await.unwrap();
    let placed = place_new(&*store, &room("daily"), a).await;
    for candidate in [a, gone, draining, NodeId::random()] {
        assert_eq!(hand_off(&*store, &placed, candidate).await, None);
    }
    let almost_out = store
        .hand_off(&owner(&placed), proposal(&placed.room, b), LONG * 2)
        .await
        .unwrap();
    assert_eq!(almost_out, None);
    assert_eq!(store.find(&placed.room).await.unwrap().as_ref(), Some(&placed));

    assert!(close(&*store, &placed).await);
    assert_eq!(hand_off(&*store, &placed, b).await, None, "closed");
    let placed = place_new(&*store, &placed.room, a).await;
    assert!(store.release(a, epoch).await.unwrap());
    assert_eq!(hand_off(&*store, &placed, b).await, None, "dead");
    assert_eq!(place_new(&*store, &placed.room, b).await.generation, Generation(3));
}

pub async fn a_hand_off_keeps_the_groups<S: Store>(store: Arc<S>) {
    let [a, b, c] = live_nodes(&*store).await;
    let grouped = |name: &str, node: NodeId| Proposal {
        group: Some("match".into()),
        avoid: vec!["match".into()],
        ..proposal(&room(name), node)
    };
    let Placed::New(placed) = store.place(grouped("one", a), MARGIN).await.unwrap() else {
        panic!("not placed")
    };
    assert!(matches!(
        store.place(grouped("two", b), MARGIN).await.unwrap(),
        Placed::New(_)
    ));
    // The proposal names no groups; those of the room count.
    assert_eq!(
        hand_off(&*store, &placed, b).await,
        None,
        "it hosts one that the room avoids"
    );
    let handed = hand_off(&*store, &placed, c).await.expect("handed off");
    assert_eq!(handed.node, c);
    let occupied = store.occupied(Some("match"), &[]).await.unwrap();
    assert_eq!(occupied, BTreeSet::from([b, c]));
    let (view, _) = store.history(&placed.room, 1).await.unwrap().unwrap();
    assert_eq!(view.group.as_deref(), Some("match"));
}

fn wish(region: &str) -> Wish {
    Wish {
        region: Some(region.into()),
        labels: BTreeMap::from([("disk".into(), "fast".into())]),
        track: Some(Track::Canary),
        prefer: Some(Track::Stable),
        bucket: Some(4321),
        min_version: Some("1.4".into()),
        policy: Some(Policy::Packing),
    }
}

pub async fn a_room_keeps_what_it_was_placed_with_until_it_is_placed_anew<S: Store>(store: Arc<S>) {
    let [a, b, c] = live_nodes(&*store).await;
    for group in [None, Some("match".to_owned())] {
        let name = room(&format!("group: {group:?}"));
        let placing = Proposal {
            avoid: group.clone().into_iter().collect(),
            group,
            wish: wish("eu"),
            ..proposal(&name, a)
        };
        let expected = Wanted {
            group: placing.group.clone(),
            avoid: placing.avoid.clone(),
            wish: wish("eu"),
        };
        let Placed::New(placed) = store.place(placing, MARGIN).await.unwrap() else {
            panic!("not placed")
        };
        let wanted = async |of: &CloseRoom| store.wanted(&name, of).await.unwrap();
        assert_eq!(wanted(&owner(&placed)).await.as_ref(), Some(&expected));
        for wrong in wrong_owners(&owner(&placed), b) {
            assert_eq!(wanted(&wrong).await, None, "{wrong:?}");
        }
        let unknown = store.wanted(&room("unknown"), &owner(&placed)).await.unwrap();
        assert_eq!(unknown, None);
        // The proposals of hand-offs say nothing.
        let handed = hand_off(&*store, &placed, b).await.expect("handed off");
        assert_eq!(wanted(&owner(&placed)).await, None);
        assert_eq!(wanted(&owner(&handed)).await.as_ref(), Some(&expected));
        let handed = hand_off(&*store, &handed, c).await.expect("handed off");
        assert_eq!(wanted(&owner(&handed)).await.as_ref(), Some(&expected));

        assert!(close(&*store, &handed).await);
        assert_eq!(wanted(&owner(&handed)).await, None, "closed");
        let anew = place_new(&*store, &name, a).await;
        assert_eq!(wanted(&owner(&anew)).await, Some(Wanted::default()));
        assert!(close(&*store, &anew).await);
    }
}

pub async fn each_of_many_rooms_placed_at_once_keeps_its_own_wish<S: Store>(store: Arc<S>) {
    let [node] = live_nodes(&*store).await;
    let of = |number: usize| match number % 3 {
        0 => Wish::default(),
        _ => wish(&format!("region {number}")),
    };
    let calls = (0..200).map(|number| {
        let placing = Proposal {
            wish: of(number),
            ..proposal(&room(&format!("room {number}")), node)
        };
        let store = store.clone();
        async move { (number, store.place(placing, MARGIN).await.unwrap()) }
    });
    for (number, placed) in at_once(calls).await {
        let Placed::New(placed) = placed else {
            panic!("{placed:?}")
        };
        let wanted = store.wanted(&placed.room, &owner(&placed)).await.unwrap();
        assert_eq!(wanted.expect("it is open").wish, of(number));
    }
}

pub async fn of_concurrent_hand_offs_one_succeeds<S: Store>(store: Arc<S>) {
    let nodes = live_nodes::<5>(&*store).await;
    let mut placed = place_new(&*store, &room("daily"), nodes[0]).await;
    for _ in 0..10 {
        let call = |call: usize| {
            let (store, placed) = (store.clone(), placed.clone());
            async move { hand_off(&*store, &placed, nodes[call % 5]).await }
        };
        let handed: Vec<Assignment> = at_once((0..20).map(call)).await.into_iter().flatten().collect();
        let [handed] = handed.as_slice() else {
            panic!("handed off not once: {handed:?}")
        };
        assert_eq!(handed.generation.0, placed.generation.0 + 1);
        assert_eq!(store.find(&placed.room).await.unwrap().as_ref(), Some(handed));
        placed = handed.clone();
    }
}

pub async fn of_a_close_and_hand_offs_at_once_one_succeeds<S: Store>(store: Arc<S>) {
    let nodes = live_nodes::<3>(&*store).await;
    for round in 0..20 {
        let placed = place_new(&*store, &room(&format!("room {round}")), nodes[0]).await;
        let call = |call: usize| {
            let (store, placed) = (store.clone(), placed.clone());
            async move {
                match call % 3 {
                    0 => close(&*store, &placed).await,
                    other => hand_off(&*store, &placed, nodes[other]).await.is_some(),
                }
            }
        };
        let done = at_once((round..round + 6).map(call)).await;
        assert_eq!(done.into_iter().filter(|done| *done).count(), 1);
    }
}

pub async fn a_room_that_is_handed_off_is_never_free<S: Store>(store: Arc<S>) {
    let nodes = live_nodes::<3>(&*store).await;
    let mut placed = place_new(&*store, &room("daily"), nodes[0]).await;
    for round in 1..=20 {
        let next = nodes[round % 3];
        let call = |call: usize| {
            let (store, placed) = (store.clone(), placed.clone());
            async move {
                if call == 4 {
                    return hand_off(&*store, &placed, next).await;
                }
                // A late report that the room is empty, about the generation before: it must not close this one.
                let earlier = CloseRoom {
                    generation: Generation(placed.generation.0 - 1),
                    ..owner(&placed)
                };
                assert!(!store.close(&placed.room, &earlier, BY).await.unwrap());
                for candidate in nodes {
                    let answer = place(&*store, &placed.room, candidate).await;
                    assert!(
                        !matches!(answer, Placed::New(_)),
                        "a live room was taken over: {answer:?}"
                    );
                }
                None
            }
        };
        let mut handed = at_once((0..8).map(call)).await.into_iter().flatten();
        placed = handed.next().expect("handed off");
        assert_eq!(placed.node, next);
    }
    assert_eq!(placed.generation, Generation(21));
}
