//! Why a room is where it is.

use std::time::{SystemTime, UNIX_EPOCH};

use super::*;
use signalbox_protocol::Generation;
use signalbox_protocol::history::{Considered, Drained, Filter, HistoryEntry, RoomEvent};
use signalbox_protocol::node::Asker;
use signalbox_protocol::placement::{RoomState, RoomView};

async fn history(store: &impl Store, name: &RoomName, limit: usize) -> (RoomView, Vec<HistoryEntry>) {
    store.history(name, limit).await.unwrap().expect("it was placed")
}

/// Reasons with something in every field.
fn reasons(node: NodeId) -> Reasons {
    let considered = |score, filtered| Considered {
        node,
        region: "eu-west".into(),
        score,
        filtered,
    };
    Reasons {
        policy: Policy::BoundedRendezvous,
        rule: Some("german".into()),
        region: Some("eu".into()),
        spilled_to: Some("eu-west".into()),
        track: Track::Canary,
        track_fallback: true,
        panic: true,
        candidates: vec![considered(0.125, None), considered(1.333, Some(Filter::AntiAffinity))],
        omitted: 3,
        drained: Some(Drained {
            node,
            asked_by: Asker::Node,
            began_at_ms: 1_700_000_000_000,
        }),
    }
}

pub async fn each_placement_is_told_with_its_reasons<S: Store>(store: Arc<S>) {
    let (a, epoch) = live_node(&*store).await;
    let [b] = live_nodes(&*store).await;
    let name = room("daily");
    let placing = Proposal {
        by: "orchestrator-7".into(),
        reasons: reasons(a),
        ..proposal(&name, a)
    };
    let Placed::New(placed) = store.place(placing, MARGIN).await.unwrap() else {
        panic!("not placed")
    };
    let (view, told) = history(&*store, &name, 10).await;
    let [entry] = told.as_slice() else { panic!("{told:?}") };
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let skew = now_ms.abs_diff(entry.at_ms.into());
    assert!(skew < 24 * 3_600_000, "milliseconds since 1970: {}", entry.at_ms);
    let expected = HistoryEntry {
        event: RoomEvent::Placed,
        at_ms: entry.at_ms,
        generation: Generation(1),
        node: a,
        epoch,
        by: "orchestrator-7".into(),
        reasons: Some(reasons(a)),
    };
    assert_eq!(*entry, expected);
    let expected = RoomView {
        room: name.clone(),
        node: a,
        epoch,
        generation: Generation(1),
        state: RoomState::Open,
        group: None,
        placed_at_ms: view.placed_at_ms,
    };
    assert_eq!(view, expected);
    assert!(view.placed_at_ms.abs_diff(entry.at_ms) < 1000, "the placement's time");

    let handing = Proposal {
        by: "orchestrator-8".into(),
        reasons: reasons(b),
        ..proposal(&name, b)
    };
    let handed = store.hand_off(&owner(&placed), handing, MARGIN).await.unwrap();
    assert!(handed.is_some());
    let (_, told) = history(&*store, &name, 1).await;
    assert_eq!(
        (told[0].event, told[0].by.as_str()),
        (RoomEvent::HandedOff, "orchestrator-8")
    );
    assert_eq!(told[0].reasons, Some(reasons(b)));
}

pub async fn each_event_is_told_newest_first<S: Store>(store: Arc<S>) {
    let (a, a_epoch) = live_node(&*store).await;
    let (b, b_epoch) = live_node(&*store).await;
    let name = room("daily");
    let placed = place_new(&*store, &name, a).await;
    assert!(store.close(&name, &owner(&placed), "closer").await.unwrap());
    let placed = place_new(&*store, &name, a).await;
    let to = proposal(&name, b);
    assert!(store.hand_off(&owner(&placed), to, MARGIN).await.unwrap().is_some());
    assert!(store.release(b, b_epoch).await.unwrap());
    let (view, told) = history(&*store, &name, 10).await;
    assert_eq!(
        (view.state, told.len()),
        (RoomState::Orphaned, 4),
        "no room's history tells of nodes"
    );
    let placed = place_new(&*store, &name, a).await;
    assert!(close(&*store, &placed).await);

    let (view, told) = history(&*store, &name, 10).await;
    assert_eq!((view.state, view.generation), (RoomState::Closed, Generation(4)));
    let short: Vec<_> = told
        .iter()
        .map(|entry| {
            (
                entry.event,
                entry.generation.0,
                entry.node,
                entry.epoch,
                entry.reasons.is_some(),
            )
        })
        .collect();
    let expected = [
        (RoomEvent::Closed, 4, a, a_epoch, false),
        (RoomEvent::TakenOver, 4, a, a_epoch, true),
        (RoomEvent::HandedOff, 3, b, b_epoch, true),
        (RoomEvent::Placed, 2, a, a_epoch, true),
        (RoomEvent::Closed, 1, a, a_epoch, false),
        (RoomEvent::Placed, 1, a, a_epoch, true),
    ];
    assert_eq!(short, expected);
    assert_eq!(told[4].by, "closer");
    assert!(told.is_sorted_by(|newer, older| newer.at_ms >= older.at_ms));
}

pub async fn the_history_is_limited_to_the_newest<S: Store>(store: Arc<S>) {
    let [a] = live_nodes(&*store).await;
    let name = room("daily");
    for _ in 0..5 {
        let placed = place_new(&*store, &name, a).await;
        close(&*store, &placed).await;
    }
    let (_, all) = history(&*store, &name, 100).await;
    assert_eq!(all.len(), 10);
    let (_, newest) = history(&*store, &name, 3).await;
    assert_eq!(newest, all[..3]);
    assert_eq!(history(&*store, &name, 0).await.1, []);
    let (_, other) = {
        place_new(&*store, &room("another"), a).await;
        history(&*store, &room("another"), 100).await
    };
    assert_eq!(other.len(), 1, "only the room's own");
}

pub async fn a_room_that_was_never_placed_has_no_history<S: Store>(store: Arc<S>) {
    let name = room("daily");
    place(&*store, &name, NodeId::random()).await;
    assert_eq!(store.history(&name, 10).await.unwrap(), None);
}

pub async fn what_changes_nothing_is_not_told<S: Store>(store: Arc<S>) {
    let nodes = live_nodes::<2>(&*store).await;
    let name = room("daily");
    let placed = agree(&store, &name, &nodes, 50).await;
    let wrong = CloseRoom {
        generation: Generation(2),
        ..owner(&placed)
    };
    assert!(!store.close(&name, &wrong, BY).await.unwrap());
    let to = proposal(&name, placed.node);
    assert_eq!(store.hand_off(&owner(&placed), to, MARGIN).await.unwrap(), None);
    let (_, told) = history(&*store, &name, 10).await;
    assert_eq!(told.len(), 1, "{told:?}");

    let closes = (0..20).map(|_| {
        let (store, placed) = (store.clone(), placed.clone());
        async move { close(&*store, &placed).await }
    });
    at_once(closes).await;
    assert_eq!(place(&*store, &name, NodeId::random()).await, Placed::Refused);
    let (_, told) = history(&*store, &name, 10).await;
    assert_eq!(told.len(), 2, "{told:?}");
}

pub async fn whoever_finds_a_placement_finds_its_reasons<S: Store>(store: Arc<S>) {
    let [node] = live_nodes(&*store).await;
    let name = room("daily");
    let rounds = 20;
    let reading = {
        let (store, name) = (store.clone(), name.clone());
        tokio::spawn(async move {
            let mut seen = Generation(0);
            while seen < Generation(rounds) {
                if let Some(found) = store.find(&name).await.unwrap() {
                    let (_, told) = history(&*store, &name, 10).await;
                    let entry = told
                        .iter()
                        .find(|entry| entry.generation == found.generation && entry.event == RoomEvent::Placed);
                    assert!(
                        entry.is_some_and(|entry| entry.reasons.is_some()),
                        "{found:?} in {told:?}"
                    );
                    seen = found.generation;
                }
                tokio::task::yield_now().await;
            }
        })
    };
    for round in 1..=rounds {
        let placed = place_new(&*store, &name, node).await;
        if round < rounds {
            close(&*store, &placed).await;
        }
    }
    tokio::time::timeout(Duration::from_secs(30), reading)
        .await
        .expect("the last placement is found")
        .unwrap();
}
