//! The canary share, and what is counted under it.

use super::*;
use crate::store::canary::{CanaryState, KEPT_CHANGES, NodeOutcomes, ShareChange};
use signalbox_protocol::canary::{ChangedBy, Outcomes, Tally};

fn change(after: u64, from: f64, to: f64) -> ShareChange<'static> {
    ShareChange {
        after,
        from,
        to,
        by: ChangedBy::Operator,
        why: "a new version",
    }
}

fn outcomes(n: u64) -> Outcomes {
    Outcomes {
        joins: Tally { ok: n, failed: n + 1 },
        connections: Tally {
            ok: n + 2,
            failed: n + 3,
        },
    }
}

async fn node_of(store: &impl Store, track: Track) -> NodeId {
    let about = RegisterNode { track, ..new_node() };
    register(store, &about, LONG).await;
    about.node
}

async fn note(store: &impl Store, node: NodeId, outcomes: Outcomes) {
    store.note_outcomes(&[NodeOutcomes { node, outcomes }]).await.unwrap();
}

pub async fn a_share_that_was_never_set_is_none<S: Store>(store: Arc<S>) {
    assert_eq!(store.canary(LONG).await.unwrap(), CanaryState::default());
    assert_eq!(store.canary_history(10).await.unwrap(), []);
}

pub async fn a_change_of_the_share_is_kept_with_its_reasons<S: Store>(store: Arc<S>) {
    assert!(store.set_canary(&change(0, 0.0, 0.1)).await.unwrap());
    let rollback = ShareChange {
        by: ChangedBy::Rollback,
        why: "joins fail: 7 of 9",
        ..change(1, 0.1, 0.0)
    };
    assert!(store.set_canary(&rollback).await.unwrap());
    let state = store.canary(LONG).await.unwrap();
    let last = state.last.unwrap();
    assert_eq!((state.version, last.from, last.to), (2, 0.1, 0.0));
    assert_eq!(
        (last.by, last.why.as_str()),
        (ChangedBy::Rollback, "joins fail: 7 of 9")
    );
    let history = store.canary_history(10).await.unwrap();
    assert_eq!(history.len(), 2);
    assert_eq!(history[0], last);
    assert_eq!(
        (history[1].from, history[1].to, history[1].by),
        (0.0, 0.1, ChangedBy::Operator)
    );
    assert!(history[1].at_ms > 0 && history[1].at_ms <= history[0].at_ms);
    assert_eq!(store.canary_history(1).await.unwrap(), history[..1]);
}

pub async fn a_change_of_the_share_is_a_compare_and_set<S: Store>(store: Arc<S>) {
    assert!(!store.set_canary(&change(1, 0.0, 0.5)).await.unwrap());
    assert!(store.set_canary(&change(0, 0.0, 0.1)).await.unwrap());
    for after in [0, 2, u64::MAX] {
        assert!(!store.set_canary(&change(after, 0.1, 0.5)).await.unwrap(), "{after}");
    }
    let state = store.canary(LONG).await.unwrap();
    assert_eq!((state.version, state.last.unwrap().to), (1, 0.1));
    assert_eq!(store.canary_history(10).await.unwrap().len(), 1);
}

pub async fn of_concurrent_changes_of_the_share_one_succeeds<S: Store>(store: Arc<S>) {
    for version in 0..10 {
        let calls = (0..8).map(|n| {
            let store = store.clone();
            async move {
                store
                    .set_canary(&change(version, 0.0, f64::from(n) / 10.0))
                    .await
                    .unwrap()
            }
        });
        let done = at_once(calls).await;
        assert_eq!(done.into_iter().filter(|done| *done).count(), 1);
        assert_eq!(store.canary(LONG).await.unwrap().version, version + 1);
    }
    assert_eq!(store.canary_history(100).await.unwrap().len(), 10);
}

pub async fn the_changes_of_the_share_are_bounded<S: Store>(store: Arc<S>) {
    for version in 0..KEPT_CHANGES + 5 {
        assert!(store.set_canary(&change(version, 0.0, 0.1)).await.unwrap());
    }
    assert_eq!(store.canary_history(1000).await.unwrap().len() as u64, KEPT_CHANGES);
    assert_eq!(store.canary(LONG).await.unwrap().version, KEPT_CHANGES + 5);
    assert!(
        !store.set_canary(&change(3, 0.0, 0.1)).await.unwrap(),
        "what was forgotten"
    );
}

pub async fn outcomes_count_for_their_nodes_track<S: Store>(store: Arc<S>) {
    let (stable, canary) = (
        node_of(&*store, Track::Stable).await,
        node_of(&*store, Track::Canary).await,
    );
    let other = node_of(&*store, Track::Canary).await;
    let nodes = [(stable, 10), (canary, 20), (other, 30), (NodeId::random(), 40)];
    let noted = nodes.map(|(node, n)| NodeOutcomes {
        node,
        outcomes: outcomes(n),
    });
    store.note_outcomes(&noted).await.unwrap();
    note(&*store, canary, outcomes(0)).await;
    store.note_outcomes(&[]).await.unwrap();
    let state = store.canary(LONG).await.unwrap();
    assert_eq!(state.stable, outcomes(10));
    assert_eq!(state.canary, outcomes(20).plus(outcomes(30)).plus(outcomes(0)));
}

pub async fn a_lost_nodes_outcomes_still_count<S: Store>(store: Arc<S>) {
    let about = RegisterNode {
        track: Track::Canary,
        ..new_node()
    };
    let epoch = register(&*store, &about, LONG).await;
    assert!(store.release(about.node, epoch).await.unwrap());
    note(&*store, about.node, outcomes(5)).await;
    assert_eq!(store.canary(LONG).await.unwrap().canary, outcomes(5));
}

pub async fn outcomes_count_for_the_share_that_they_came_under<S: Store>(store: Arc<S>) {
    let node = node_of(&*store, Track::Stable).await;
    note(&*store, node, outcomes(10)).await;
    assert!(store.set_canary(&change(0, 0.0, 0.1)).await.unwrap());
    assert_eq!(store.canary(LONG).await.unwrap().stable, Outcomes::default());
    note(&*store, node, outcomes(20)).await;
    assert_eq!(store.canary(LONG).await.unwrap().stable, outcomes(20));
}

pub async fn outcomes_of_concurrent_calls_add_up<S: Store>(store: Arc<S>) {
    let (stable, canary) = (
        node_of(&*store, Track::Stable).await,
        node_of(&*store, Track::Canary).await,
    );
    let one = Outcomes {
        joins: Tally { ok: 1, failed: 0 },
        ..Outcomes::default()
    };
    let calls = (0..100).map(|n| {
        let store = store.clone();
        // In either order: calls that wait for each other would not end.
        let nodes = if n % 2 == 0 { [stable, canary] } else { [canary, stable] };
        let noted = nodes.map(|node| NodeOutcomes { node, outcomes: one });
        async move { store.note_outcomes(&noted).await.unwrap() }
    });
    at_once(calls).await;
    let state = store.canary(LONG).await.unwrap();
    assert_eq!((state.stable.joins.ok, state.canary.joins.ok), (100, 100));
}

pub async fn outcomes_outside_of_the_window_do_not_count_and_old_ones_are_removed<S: Store>(store: Arc<S>) {
    let node = node_of(&*store, Track::Canary).await;
    note(&*store, node, outcomes(10)).await;
    assert_eq!(store.canary(Duration::ZERO).await.unwrap().canary, Outcomes::default());
    assert_eq!(store.forget_outcomes(LONG).await.unwrap(), 0);
    assert_eq!(store.canary(LONG).await.unwrap().canary, outcomes(10));
    // The stretch began before it was counted in, unless the clock stands at its very beginning.
    until("the stretch is older than nothing", async || {
        store.forget_outcomes(Duration::ZERO).await.unwrap() == 1
    })
    .await;
    assert_eq!(store.canary(LONG).await.unwrap().canary, Outcomes::default());
}
