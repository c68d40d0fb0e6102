//! What is told about nodes, rooms and the map as a whole.

use super::*;
use signalbox_protocol::Generation;
use signalbox_protocol::node::NodeState;
use signalbox_protocol::placement::{RoomState, RoomView};

pub async fn an_empty_map_lists_nothing<S: Store>(store: Arc<S>) {
    assert_eq!(store.candidates(MARGIN).await.unwrap(), []);
    assert_eq!(store.nodes().await.unwrap(), []);
    assert_eq!(store.rooms(None, None, 10).await.unwrap(), []);
    assert_eq!(store.overdue().await.unwrap(), []);
}

pub async fn nodes_are_listed_with_what_they_reported<S: Store>(store: Arc<S>) {
    let about = RegisterNode {
        track: Track::Canary,
        media: vec![
            "192.0.2.1:50000".parse().unwrap(),
            "[2001:db8::1]:50001".parse().unwrap(),
        ],
        capacity: u32::MAX,
        ..new_node()
    };
    let epoch = register(&*store, &about, LONG).await;
    for _ in 0..5 {
        live_node(&*store).await;
    }
    let view = node_view(&*store, about.node).await;
    assert_eq!(view.load, NodeLoad::default());
    let load = NodeLoad {
        rooms: 3,
        participants: u32::MAX,
        packets_per_second: u64::from(u32::MAX) + 1,
        cpu_percent: 250,
    };
    store.renew(about.node, epoch, 1, load, LONG).await.unwrap();

    let nodes = store.nodes().await.unwrap();
    assert_eq!(nodes.len(), 6);
    assert!(nodes.is_sorted_by(|a, b| a.node < b.node));
    let view = node_view(&*store, about.node).await;
    assert!(view.lease_age_ms < 60_000, "{view:?}");
    assert_eq!(
        view,
        NodeView {
            node: about.node,
            epoch,
            state: NodeState::Serving,
            live: true,
            control: about.control,
            media: about.media,
            region: about.region,
            zone: about.zone,
            labels: about.labels,
            track: about.track,
            capacity: about.capacity,
            load,
            version: about.version,
            lease_age_ms: view.lease_age_ms,
            ejected_ms: 0,
        }
    );
}

pub async fn a_registration_replaces_what_was_known<S: Store>(store: Arc<S>) {
    let first = new_node();
    let epoch = register(&*store, &first, LONG).await;
    let load = NodeLoad {
        rooms: 3,
        ..NodeLoad::default()
    };
    store.renew(first.node, epoch, 1, load, LONG).await.unwrap();
    let second = RegisterNode {
        node: first.node,
        after: Epoch(0),
        control: "ws://10.0.0.8:7900".into(),
        media: vec!["192.0.2.9:1".parse().unwrap()],
        region: String::new(),
        zone: "b".into(),
        labels: BTreeMap::new(),
        track: Track::Canary,
        capacity: 7,
        version: "2.0.0".into(),
    };
    register(&*store, &second, LONG).await;
    let view = node_view(&*store, first.node).await;
    assert_eq!((&view.control, &view.media), (&second.control, &second.media));
    assert_eq!((&view.region, &view.zone), (&second.region, &second.zone));
    assert_eq!((&view.labels, view.track), (&second.labels, second.track));
    assert_eq!((view.capacity, &view.version), (second.capacity, &second.version));
    assert_eq!(view.load, NodeLoad::default(), "of a process that is gone");
}

pub async fn candidates_are_the_nodes_that_are_not_lost<S: Store>(store: Arc<S>) {
    let about = RegisterNode {
        track: Track::Canary,
        ..new_node()
    };
    let epoch = register(&*store, &about, LONG).await;
    let load = NodeLoad {
        participants: 7,
        ..NodeLoad::default()
    };
    store.renew(about.node, epoch, 1, load, LONG).await.unwrap();
    let [draining] = live_nodes(&*store).await;
    store.set_state(draining, NodeState::Draining).await.unwrap();
    let overdue = overdue_nodes(&*store, 1).await[0].0;
    let (lost, lost_epoch) = live_node(&*store).await;
    store.release(lost, lost_epoch).await.unwrap();

    let candidates = store.candidates(MARGIN).await.unwrap();
    assert!(candidates.is_sorted_by(|a, b| a.node < b.node));
    let flags: BTreeMap<NodeId, _> = candidates
        .iter()
        .map(|candidate| {
            (
                candidate.node,
                (candidate.state, candidate.lease_holds, candidate.ejected),
            )
        })
        .collect();
    let expected = BTreeMap::from([
        (about.node, (NodeState::Serving, true, false)),
        (draining, (NodeState::Draining, true, false)),
        (overdue, (NodeState::Serving, false, false)),
    ]);
    assert_eq!(flags, expected);
    let candidate = candidates.into_iter().find(|one| one.node == about.node).unwrap();
    assert_eq!((candidate.participants, candidate.capacity), (7, about.capacity));
    assert_eq!((candidate.region, candidate.zone), (about.region, about.zone));
    assert_eq!((candidate.labels, candidate.track), (about.labels, about.track));
    assert_eq!(candidate.version, about.version);

    let strict = store.candidates(LONG * 2).await.unwrap();
    assert!(strict.iter().all(|candidate| !candidate.lease_holds));
}

pub async fn rooms_are_listed_page_by_page_ordered_byte_by_byte<S: Store>(store: Arc<S>) {
    let [node] = live_nodes(&*store).await;
    // Capitals come before small letters, and an accent after both; a language would have it otherwise.
    let names = ["A", "B", "Z z", "a", "a b", "a-b", "ab", "b", "Å"];
    for name in names.iter().rev() {
        place_new(&*store, &room(name), node).await;
    }
    let mut told = Vec::new();
    let mut pages = Vec::new();
    loop {
        let page = store.rooms(told.last(), None, 4).await.unwrap();
        pages.push(page.len());
        if page.is_empty() {
            break;
        }
        told.extend(page.into_iter().map(|view| view.room));
    }
    assert_eq!(pages, [4, 4, 1, 0]);
    assert_eq!(told, names.map(room));
    assert_eq!(store.rooms(None, None, 0).await.unwrap(), []);
    let from = store.rooms(Some(&room("aa")), None, 10).await.unwrap();
    assert_eq!(from[0].room, room("ab"), "a page may begin after a name that is none");
}

pub async fn rooms_are_listed_by_node_and_with_their_state<S: Store>(store: Arc<S>) {
    let [a] = live_nodes(&*store).await;
    let (b, epoch) = live_node(&*store).await;
    let open = Proposal {
        group: Some("match".into()),
        ..proposal(&room("open"), a)
    };
    assert!(matches!(store.place(open, MARGIN).await.unwrap(), Placed::New(_)));
    let closed = place_new(&*store, &room("closed"), a).await;
    assert!(close(&*store, &closed).await);
    place_new(&*store, &room("orphaned"), b).await;
    store.release(b, epoch).await.unwrap();

    let states =
        |views: &[RoomView]| -> Vec<_> { views.iter().map(|view| (view.room.to_string(), view.state)).collect() };
    let of = |name: &str, state| (name.to_owned(), state);
    let all = store.rooms(None, None, 10).await.unwrap();
    let (closed, open, orphaned) = (
        of("closed", RoomState::Closed),
        of("open", RoomState::Open),
        of("orphaned", RoomState::Orphaned),
    );
    assert_eq!(states(&all), [closed.clone(), open.clone(), orphaned.clone()]);
    assert_eq!(states(&store.rooms(None, Some(a), 10).await.unwrap()), [closed, open]);
    assert_eq!(states(&store.rooms(None, Some(b), 10).await.unwrap()), [orphaned]);
    let after = store.rooms(Some(&room("closed")), Some(a), 10).await.unwrap();
    let [view] = after.as_slice() else { panic!("{after:?}") };
    assert_eq!((view.node, view.generation), (a, Generation(1)));
    assert_eq!(view.group.as_deref(), Some("match"));
    assert_eq!(store.rooms(None, Some(NodeId::random()), 10).await.unwrap(), []);
}

pub async fn a_look_counts_the_overdue<S: Store>(store: Arc<S>) {
    assert_eq!(store.look(BY, LONG).await.unwrap().overdue, 0);
    live_node(&*store).await;
    overdue_nodes(&*store, 3).await;
    assert_eq!(store.look(BY, LONG).await.unwrap().overdue, 3);
    fence_until(&*store, &LOOSE, 1).await;
    assert_eq!(
        store.look(BY, LONG).await.unwrap().overdue,
        2,
        "who is lost is not overdue"
    );
}

pub async fn a_look_counts_the_orchestrators_that_have_looked_recently<S: Store>(store: Arc<S>) {
    let count = async |name: &str, recent| store.look(name, recent).await.unwrap().orchestrators;
    assert_eq!(count("one", LONG).await, 1);
    assert_eq!(count("two", LONG).await, 2);
    assert_eq!(count("one", LONG).await, 2);
    until("only the caller has looked just now", async || {
        count("three", Duration::ZERO).await == 1
    })
    .await;
    assert_eq!(count("three", LONG).await, 3, "each caller says what is recent");
    let looks = (0..20).map(|n| {
        let store = store.clone();
        async move { store.look(&format!("orchestrator {}", n % 10), LONG).await.unwrap() }
    });
    at_once(looks).await;
    assert_eq!(count("one", LONG).await, 13);
}

pub async fn the_incarnation_and_the_cluster_stay<S: Store>(store: Arc<S>) {
    let incarnation = store.look("one", LONG).await.unwrap().incarnation;
    let cluster = store.open().await.unwrap();
    overdue_nodes(&*store, 2).await;
    fence_until(&*store, &LOOSE, 1).await;
    assert_eq!(store.look("two", LONG).await.unwrap().incarnation, incarnation);
    let opens = (0..4).map(|_| {
        let store = store.clone();
        async move { store.open().await.unwrap() }
    });
    for again in at_once(opens).await {
        assert_eq!(again, cluster);
    }
    assert_eq!(store.nodes().await.unwrap().len(), 2, "opening changes nothing");
}
