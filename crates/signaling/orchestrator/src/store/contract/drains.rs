//! Emptying nodes: one job for each, which one orchestrator at a time carries on.

use std::time::{SystemTime, UNIX_EPOCH};

use super::*;
use signalbox_protocol::node::{Asker, DrainNode, DrainState, NodeState};

use crate::store::DrainNote;

const CLAIM: Duration = LONG;

fn how(rate: f64) -> DrainNode {
    DrainNode {
        rate,
        ..DrainNode::default()
    }
}

fn note<'a>(node: NodeId, epoch: Epoch, by: &'a str) -> DrainNote<'a> {
    DrainNote {
        node,
        epoch,
        by,
        moved: 0,
        stuck: 0,
        leaving: None,
        end: None,
    }
}

pub async fn a_drain_counts_what_is_left_and_what_was_moved<S: Store>(store: Arc<S>) {
    let (node, epoch) = live_node(&*store).await;
    assert_eq!(store.drain(node).await.unwrap(), None);
    place_new(&*store, &room("a"), node).await;
    let placed = place_new(&*store, &room("b"), node).await;
    let begun = store.begin_drain(node, &how(2.0)).await.unwrap().unwrap().drain;
    assert_eq!((begun.epoch, begun.state), (epoch, DrainState::Running));
    assert_eq!((begun.rooms, begun.rooms_left, begun.rate), (2, 2, 2.0));
    assert_eq!((begun.deadline_ms, begun.by.as_str()), (None, ""));
    assert_eq!(node_view(&*store, node).await.state, NodeState::Draining);
    assert_eq!(place(&*store, &room("c"), node).await, Placed::Refused);

    let [claimed] = store.claim_drains("one", CLAIM).await.unwrap().try_into().unwrap();
    assert_eq!(claimed.control, placed.control);
    let (other, _) = live_node(&*store).await;
    let proposal = proposal(&room("b"), other);
    assert!(
        store
            .hand_off(&owner(&placed), proposal, MARGIN)
            .await
            .unwrap()
            .is_some()
    );
    let moved = DrainNote {
        moved: 1,
        stuck: 1,
        ..note(node, epoch, "one")
    };
    assert_eq!((claimed.leaving, claimed.moved_ago), (None, None));
    assert!(store.note_drain(&moved).await.unwrap());
    let drain = store.drain(node).await.unwrap().unwrap().drain;
    assert_eq!((drain.rooms, drain.rooms_left, drain.stuck), (2, 1, 1));
    assert_eq!(drain.by, "one");

    // Asked for again, it goes on with the new settings.
    let again = DrainNode {
        rate: 9.0,
        deadline_ms: Some(600_000),
        ..DrainNode::default()
    };
    let drain = store.begin_drain(node, &again).await.unwrap().unwrap().drain;
    assert_eq!((drain.rooms, drain.rate, drain.by.as_str()), (2, 9.0, "one"));
    assert!(drain.deadline_ms.is_some_and(|ms| ms > 500_000 && ms <= 600_000));
}

pub async fn what_was_measured_of_a_drain_is_kept_for_whoever_asks_until_it_ends<S: Store>(store: Arc<S>) {
    let (node, epoch) = live_node(&*store).await;
    store.begin_drain(node, &how(1.0)).await.unwrap();
    store.claim_drains("one", CLAIM).await.unwrap();
    let measured = Some(Duration::from_millis(2250));
    let note = |moved, leaving| DrainNote {
        moved,
        leaving,
        ..note(node, epoch, "one")
    };
    let told = async || store.drain(node).await.unwrap().unwrap();
    assert!(store.note_drain(&note(0, measured)).await.unwrap());
    assert_eq!((told().await.leaving, told().await.moved_ago), (measured, None));
    assert!(store.note_drain(&note(1, None)).await.unwrap());
    assert_eq!(told().await.leaving, measured);
    let ago = told().await.moved_ago.expect("a room was moved");
    until("time passes", async || told().await.moved_ago.unwrap() > ago).await;
    // That nothing was moved since changes nothing, nor does it that the drain is asked for again.
    assert!(store.note_drain(&note(0, None)).await.unwrap());
    store.begin_drain(node, &how(2.0)).await.unwrap();
    assert!(told().await.moved_ago > Some(ago));
    assert_eq!(told().await.leaving, measured);

    store.cancel_drain(node).await.unwrap();
    store.begin_drain(node, &how(1.0)).await.unwrap();
    assert_eq!((told().await.leaving, told().await.moved_ago), (None, None));
}

pub async fn a_drain_keeps_who_asked_for_it_first_and_when<S: Store>(store: Arc<S>) {
    let (node, _) = live_node(&*store).await;
    let by = |asked_by| DrainNode {
        asked_by,
        ..DrainNode::default()
    };
    let operators = store.begin_drain(node, &by(Asker::Operator)).await.unwrap().unwrap();
    assert_eq!(operators.asked_by, Asker::Operator);
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    assert!(now_ms.abs_diff(operators.began_at_ms.into()) < 24 * 3_600_000);
    let again = store.begin_drain(node, &by(Asker::Node)).await.unwrap().unwrap();
    assert_eq!(
        (again.asked_by, again.began_at_ms),
        (Asker::Operator, operators.began_at_ms)
    );
    // The next one is another drain.
    store.cancel_drain(node).await.unwrap();
    until("time passes", async || {
        let nodes = store.begin_drain(node, &by(Asker::Node)).await.unwrap().unwrap();
        assert_eq!(nodes.asked_by, Asker::Node);
        let is_later = nodes.began_at_ms > operators.began_at_ms;
        store.cancel_drain(node).await.unwrap();
        is_later
    })
    .await;
}

pub async fn a_drain_is_carried_on_by_one_at_a_time<S: Store>(store: Arc<S>) {
    let (node, epoch) = live_node(&*store).await;
    store.begin_drain(node, &how(1.0)).await.unwrap();
    let mut tasks = JoinSet::new();
    for number in 0..8 {
        let store = Arc::clone(&store);
        tasks.spawn(async move { store.claim_drains(&format!("o{number}"), CLAIM).await.unwrap().len() });
    }
    let claims: usize = tasks.join_all().await.into_iter().sum();
    assert_eq!(claims, 1);
    let by = store.drain(node).await.unwrap().unwrap().drain.by;
    assert!(!store.note_drain(&note(node, epoch, "another")).await.unwrap());
    assert!(store.note_drain(&note(node, epoch, &by)).await.unwrap());
    // Its claim is renewed with no time left, and anybody may have it.
    assert_eq!(store.claim_drains(&by, Duration::ZERO).await.unwrap().len(), 1);
    let takes_over = || async { store.claim_drains("another", CLAIM).await.unwrap().len() == 1 };
    until("the claim is over", takes_over).await;
    assert!(!store.note_drain(&note(node, epoch, &by)).await.unwrap());
}

pub async fn a_drain_that_ended_is_carried_on_by_nobody<S: Store>(store: Arc<S>) {
    for end in [DrainState::Done, DrainState::Expired] {
        let (node, epoch) = live_node(&*store).await;
        store.begin_drain(node, &how(1.0)).await.unwrap();
        store.claim_drains("one", CLAIM).await.unwrap();
        let ends = DrainNote {
            end: Some(end),
            ..note(node, epoch, "one")
        };
        assert!(store.note_drain(&ends).await.unwrap());
        assert!(!store.note_drain(&ends).await.unwrap(), "it has ended");
        assert_eq!(store.drain(node).await.unwrap().unwrap().drain.state, end);
        assert_eq!(node_view(&*store, node).await.state, NodeState::Draining);
    }
    assert!(store.claim_drains("one", CLAIM).await.unwrap().is_empty());
}

pub async fn a_cancelled_drains_node_serves_again<S: Store>(store: Arc<S>) {
    let (node, epoch) = live_node(&*store).await;
    store.begin_drain(node, &how(1.0)).await.unwrap();
    store.claim_drains("one", CLAIM).await.unwrap();
    let cancelled = store.cancel_drain(node).await.unwrap().unwrap().drain;
    assert_eq!(cancelled.state, DrainState::Cancelled);
    assert_eq!(node_view(&*store, node).await.state, NodeState::Serving);
    assert!(!store.note_drain(&note(node, epoch, "one")).await.unwrap());
    place_new(&*store, &room("daily"), node).await;
    let begun = store.begin_drain(node, &how(1.0)).await.unwrap().unwrap().drain;
    assert_eq!((begun.state, begun.rooms), (DrainState::Running, 1));
}

pub async fn a_lost_nodes_drain_is_lost_and_none_begins<S: Store>(store: Arc<S>) {
    let (node, epoch) = live_node(&*store).await;
    place_new(&*store, &room("left behind"), node).await;
    store.begin_drain(node, &how(1.0)).await.unwrap();
    assert!(store.release(node, epoch).await.unwrap());
    assert_eq!(store.drain(node).await.unwrap().unwrap().drain.state, DrainState::Lost);
    assert_eq!(store.begin_drain(node, &how(1.0)).await.unwrap(), None);
    assert_eq!(store.begin_drain(NodeId::random(), &how(1.0)).await.unwrap(), None);
    assert_eq!(store.cancel_drain(NodeId::random()).await.unwrap(), None);
    assert_eq!(node_view(&*store, node).await.state, NodeState::Lost);
}

pub async fn a_node_that_was_emptied_and_then_released_is_drained_and_one_with_rooms_is_lost<S: Store>(store: Arc<S>) {
    for (is_empty, expected) in [(true, DrainState::Done), (false, DrainState::Lost)] {
        let (node, epoch) = live_node(&*store).await;
        let placed = place_new(&*store, &room(&format!("empty: {is_empty}")), node).await;
        store.begin_drain(node, &how(1.0)).await.unwrap().unwrap();
        if is_empty {
            assert!(close(&*store, &placed).await);
        }
        assert!(store.release(node, epoch).await.unwrap());
        let state = async || store.drain(node).await.unwrap().unwrap().drain.state;
        assert_eq!(state().await, expected);
        // What becomes of the room, and of the node, changes nothing any more.
        let (other, _) = live_node(&*store).await;
        place(&*store, &placed.room, other).await;
        assert_eq!(state().await, expected);
        assert!(store.claim_drains("one", CLAIM).await.unwrap().is_empty());
    }
}
