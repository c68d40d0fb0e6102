//! Rooms that must not be on one node.

use super::*;

fn grouped(room: &RoomName, candidate: NodeId, group: Option<&str>, avoid: &[&str]) -> Proposal {
    Proposal {
        group: group.map(Into::into),
        avoid: avoid.iter().copied().map(Into::into).collect(),
        ..proposal(room, candidate)
    }
}

/// Whether the room is given to the node by this call.
async fn takes(store: &impl Store, name: &str, node: NodeId, group: Option<&str>, avoid: &[&str]) -> bool {
    let proposal = grouped(&room(name), node, group, avoid);
    match store.place(proposal, MARGIN).await.unwrap() {
        Placed::New(assignment) => {
            assert_eq!(assignment.node, node);
            true
        }
        Placed::Existing(other) => panic!("{other:?}"),
        Placed::Refused => false,
    }
}

async fn occupied(store: &impl Store, group: Option<&str>, avoid: &[&str]) -> BTreeSet<NodeId> {
    let avoid: Vec<String> = avoid.iter().copied().map(Into::into).collect();
    store.occupied(group, &avoid).await.unwrap()
}

pub async fn rooms_that_avoid_a_group_are_kept_apart_in_either_direction<S: Store>(store: Arc<S>) {
    let [a, b] = live_nodes(&*store).await;
    assert!(takes(&*store, "red 1", a, Some("red"), &["blue", "green"]).await);
    // The one that is there avoids the new one's group.
    assert_eq!(occupied(&*store, Some("blue"), &[]).await, BTreeSet::from([a]));
    assert!(!takes(&*store, "blue 1", a, Some("blue"), &[]).await);
    assert!(takes(&*store, "blue 1", b, Some("blue"), &[]).await);
    // The new one avoids the group of the one that is there.
    assert_eq!(occupied(&*store, None, &["red"]).await, BTreeSet::from([a]));
    assert!(!takes(&*store, "shy", a, None, &["red", "yellow"]).await);
    assert!(takes(&*store, "shy", b, None, &["red", "yellow"]).await);
    // Neither.
    assert_eq!(occupied(&*store, Some("red"), &["yellow"]).await, BTreeSet::from([b]));
    assert!(takes(&*store, "red 2", a, Some("red"), &["yellow"]).await);
    assert!(takes(&*store, "plain", a, None, &[]).await);
}

pub async fn a_group_that_avoids_itself_is_spread<S: Store>(store: Arc<S>) {
    let [a, b] = live_nodes(&*store).await;
    assert!(takes(&*store, "one", a, Some("match"), &["match"]).await);
    assert!(!takes(&*store, "two", a, Some("match"), &["match"]).await);
    assert!(takes(&*store, "two", b, Some("match"), &["match"]).await);
    let all = occupied(&*store, Some("match"), &["match"]).await;
    assert_eq!(all, BTreeSet::from([a, b]));
}

pub async fn a_room_that_is_not_open_is_not_avoided<S: Store>(store: Arc<S>) {
    let about = new_node();
    let a = about.node;
    register(&*store, &about, LONG).await;
    assert!(takes(&*store, "one", a, Some("match"), &["match"]).await);
    let one = store.find(&room("one")).await.unwrap().unwrap();
    assert!(close(&*store, &one).await);
    assert_eq!(occupied(&*store, Some("match"), &[]).await, BTreeSet::new());
    assert!(takes(&*store, "two", a, Some("match"), &["match"]).await);
    // With the epoch all of its rooms are over.
    register(&*store, &about, LONG).await;
    assert_eq!(occupied(&*store, Some("match"), &[]).await, BTreeSet::new());
    assert!(takes(&*store, "three", a, Some("match"), &["match"]).await);
    // A room does not avoid its own former placement.
    register(&*store, &about, LONG).await;
    assert!(takes(&*store, "three", a, Some("match"), &["match"]).await);
}

pub async fn the_latest_placement_says_what_is_avoided<S: Store>(store: Arc<S>) {
    let [a] = live_nodes(&*store).await;
    assert!(takes(&*store, "one", a, Some("red"), &["blue"]).await);
    // Who only joins changes nothing.
    let joins = grouped(&room("one"), a, Some("blue"), &["red"]);
    assert!(matches!(store.place(joins, MARGIN).await.unwrap(), Placed::Existing(_)));
    assert_eq!(occupied(&*store, Some("blue"), &[]).await, BTreeSet::from([a]));
    let one = store.find(&room("one")).await.unwrap().unwrap();
    assert!(close(&*store, &one).await);
    assert!(takes(&*store, "one", a, Some("green"), &[]).await);
    assert_eq!(occupied(&*store, Some("blue"), &["red"]).await, BTreeSet::new());
    assert_eq!(occupied(&*store, None, &["green"]).await, BTreeSet::from([a]));
    let (view, _) = store.history(&room("one"), 1).await.unwrap().unwrap();
    assert_eq!(view.group.as_deref(), Some("green"));
}

pub async fn nothing_is_occupied_for_a_room_without_groups<S: Store>(store: Arc<S>) {
    let [a] = live_nodes(&*store).await;
    assert!(takes(&*store, "plain", a, None, &[]).await);
    assert!(takes(&*store, "red", a, Some("red"), &["blue"]).await);
    assert_eq!(occupied(&*store, None, &[]).await, BTreeSet::new());
    assert_eq!(occupied(&*store, Some("red"), &[]).await, BTreeSet::new());
    assert!(takes(&*store, "another", a, None, &[]).await);
}

pub async fn concurrent_places_of_rooms_that_avoid_each_other_are_kept_apart<S: Store>(store: Arc<S>) {
    // Only one of the two names the other, so the two calls have no group in common.
    let pairs = [
        (None, vec!["b"], Some("b"), vec![]),
        (Some("a"), vec![], None, vec!["a"]),
    ];
    for round in 0..40 {
        let [node] = live_nodes(&*store).await;
        let (group, avoid, other_group, other_avoid) = &pairs[round % 2];
        let proposals = [
            grouped(&room(&format!("first {round}")), node, *group, avoid),
            grouped(&room(&format!("second {round}")), node, *other_group, other_avoid),
        ];
        let calls = proposals.into_iter().cycle().take(8).map(|proposal| {
            let store = store.clone();
            async move {
                match store.place(proposal, MARGIN).await.unwrap() {
                    Placed::New(assignment) | Placed::Existing(assignment) => Some(assignment.room),
                    Placed::Refused => None,
                }
            }
        });
        let there: BTreeSet<RoomName> = at_once(calls).await.into_iter().flatten().collect();
        assert_eq!(there.len(), 1, "round {round}: {there:?}");
    }
}

pub async fn concurrent_places_of_a_group_that_avoids_itself_fill_each_node_once<S: Store>(store: Arc<S>) {
    let nodes = live_nodes::<4>(&*store).await;
    for round in 0..5 {
        let group = format!("match {round}");
        let calls = (0..40).map(|call| {
            let (store, group) = (store.clone(), group.clone());
            let name = room(&format!("{group} room {call}"));
            async move {
                let proposal = grouped(&name, nodes[call % 4], Some(&group), &[&group]);
                match store.place(proposal, MARGIN).await.unwrap() {
                    Placed::New(assignment) => Some(assignment.node),
                    Placed::Existing(other) => panic!("{other:?}"),
                    Placed::Refused => None,
                }
            }
        });
        let mut taken: Vec<NodeId> = at_once(calls).await.into_iter().flatten().collect();
        taken.sort();
        assert!(taken.is_sorted_by(|a, b| a < b), "a node has two: {taken:?}");
        assert_eq!(taken.len(), 4, "of calls for a free node one succeeds");
    }
}

pub async fn a_hand_off_and_a_place_at_once_are_kept_apart<S: Store>(store: Arc<S>) {
    for round in 0..20 {
        let [from, to] = live_nodes(&*store).await;
        let group = format!("match {round}");
        let (one, two) = (room(&format!("one {round}")), room(&format!("two {round}")));
        let one = grouped(&one, from, Some(&group), &[&group]);
        let Placed::New(placed) = store.place(one, MARGIN).await.unwrap() else {
            panic!("not placed")
        };
        let handing = {
            let (store, to) = (store.clone(), proposal(&placed.room, to));
            tokio::spawn(async move { store.hand_off(&owner(&placed), to, MARGIN).await.unwrap() })
        };
        let two = grouped(&two, to, Some(&group), &[&group]);
        let placed = store.place(two, MARGIN).await.unwrap();
        let (placed, handed) = (matches!(placed, Placed::New(_)), handing.await.unwrap().is_some());
        assert!(placed != handed, "round {round}: placed {placed}, handed off {handed}");
    }
}
