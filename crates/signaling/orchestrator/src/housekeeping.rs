//! The background task that removes what is over from the map.
//!
//! Owns the pace. How long things are kept is configuration, what they are is the store's.

use std::time::Duration;

use rand::{Rng, RngExt};
use tokio_util::sync::CancellationToken;

use crate::canary;
use crate::store::{Purged, Retention, Store};

/// How often it looks, on average: each time between half and one and a half times as long, so that orchestrators that were
/// started together do not do the same work together. Higher: what is over is kept for a little longer. Lower: more
/// statements for nothing.
pub const EVERY: Duration = Duration::from_secs(60);

/// The most of each kind that one step removes. Higher: fewer statements. Lower: each holds fewer rows locked, for less
/// long.
pub const STEP: usize = 1000;

/// How long it rests between two steps, so that placements come first.
pub const REST: Duration = Duration::from_millis(100);

/// The most steps of one round; what is left waits for the next one.
pub const MAX_STEPS: usize = 100;

/// How long outcomes of joins and connections are kept: a bit longer than they count.
pub const KEEP_OUTCOMES: Duration = Duration::from_secs(2 * canary::WINDOW.as_secs());

/// Purges the store now and then, until `shutdown`.
pub async fn run<S: Store>(store: &S, retention: Retention, mut rng: impl Rng, shutdown: CancellationToken) {
    let round = async {
        loop {
            tokio::time::sleep(EVERY.mul_f64(rng.random_range(0.5..1.5))).await;
            purge(store, &retention).await;
            // The fencer logs an outage.
            if let Err(error) = store.forget_outcomes(KEEP_OUTCOMES).await
                && !error.is_outage()
            {
                tracing::error!(%error, "old outcomes of joins cannot be removed");
            }
        }
    };
    shutdown.run_until_cancelled(round).await;
}

async fn purge<S: Store>(store: &S, retention: &Retention) {
    let mut total = Purged::default();
    for _ in 0..MAX_STEPS {
        let purged = match store.purge(retention, STEP).await {
            Ok(purged) => purged,
            // The fencer logs an outage.
            Err(error) if error.is_outage() => break,
            Err(error) => {
                tracing::error!(%error, "what is over cannot be removed from the room map");
                break;
            }
        };
        total.rooms += purged.rooms;
        total.nodes += purged.nodes;
        total.history += purged.history;
        if purged.rooms.max(purged.nodes).max(purged.history) < STEP as u64 {
            break;
        }
        tokio::time::sleep(REST).await;
    }
    if total != Purged::default() {
        tracing::info!(
            rooms = total.rooms,
            nodes = total.nodes,
            history = total.history,
            "removed what is over"
        );
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use signalbox_protocol::placement::CloseRoom;

    use super::*;
    use crate::harness::{node, orchestrator, register, start};

    const KEEP: Retention = Retention {
        rooms: Duration::from_secs(3600),
        nodes: Duration::from_secs(3600),
        history: Duration::from_secs(3600),
    };

    #[tokio::test(start_paused = true)]
    async fn more_than_a_step_of_what_is_over_is_removed_in_steps() {
        let (service, _) = orchestrator(&[]);
        start(&service).await;
        let store = service.store();
        let epoch = register(&service, node(1)).await;
        for n in 0..STEP + 10 {
            let request = signalbox_protocol::placement::PlaceRoom::new(format!("room {n}").parse().unwrap());
            let placed = service.placer.place(store, &request, 1).await.unwrap().unwrap();
            let owner = CloseRoom {
                node: placed.node,
                epoch,
                generation: placed.generation,
            };
            assert!(store.close(&placed.room, &owner, "a").await.unwrap());
        }
        tokio::time::sleep(KEEP.rooms / 2).await;
        purge(store, &KEEP).await;
        assert_eq!(store.rooms(None, None, usize::MAX).await.unwrap().len(), STEP + 10);
        tokio::time::sleep(KEEP.rooms).await;
        let before = store.calls("purge");
        purge(store, &KEEP).await;
        assert!(store.rooms(None, None, usize::MAX).await.unwrap().is_empty());
        assert!(store.calls("purge") - before >= 2);
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_after_an_outage() {
        let store = crate::faulty::FaultyStore::default();
        store.outage(true);
        let shutdown = CancellationToken::new();
        let work = run(&store, KEEP, StdRng::seed_from_u64(1), shutdown.clone());
        let later = async {
            tokio::time::sleep(EVERY * 10).await;
            let tried = store.calls("purge");
            assert!((6..=20).contains(&tried), "{tried}");
            shutdown.cancel();
        };
        tokio::join!(work, later);
    }
}
