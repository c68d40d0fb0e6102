//! The nodes that rooms may be placed on, read from the map at most a few times a second however many rooms are placed.
//!
//! Owns the copy and its age. What the copy says is a hint: the map itself decides when a room is placed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signalbox_protocol::NodeId;
use signalbox_protocol::placement::Track;
use tokio::sync::Mutex as Turn;
use tokio::time::Instant;

use crate::Error;
use crate::placement::Candidate;
use crate::store::Store;

/// How old the copy may be. Higher: fewer reads of the map. Lower: new nodes, and load that they report, are seen sooner;
/// rooms placed by this orchestrator are counted at once anyway.
pub const FRESH: Duration = Duration::from_millis(200);

/// How old it may be while another request reads the map anew. Higher: no request waits although the map is slow. Lower:
/// fewer rooms are proposed to nodes that have gone.
pub const USABLE: Duration = Duration::from_secs(1);

/// The copy.
#[derive(Debug, Default)]
pub struct Candidates {
    last: Mutex<Last>,
    /// Whoever has it reads the map. A request that is given up while it reads leaves it to the next one.
    turn: Turn<()>,
}

#[derive(Debug, Default)]
struct Last {
    copy: Option<Copy>,
    /// When the map did not answer.
    outage: Option<Instant>,
}

/// The nodes as they were at a time.
#[derive(Debug, Clone)]
pub struct Copy {
    /// Ordered by id.
    pub nodes: Arc<[Candidate]>,
    /// When they were asked for.
    at: Instant,
}

impl Candidates {
    /// The nodes that are not lost, as of at most [`FRESH`] ago, or [`USABLE`] while somebody reads them anew. Of any number
    /// of concurrent calls one reads the map; when it is away, those that waited fail with it instead of trying in turn.
    pub async fn get<S: Store>(&self, store: &S, margin: Duration) -> Result<Copy, Error> {
        let began = Instant::now();
        if let Some(copy) = self.younger_than(FRESH, began) {
            return Ok(copy);
        }
        let _turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(_) => {
                if let Some(copy) = self.younger_than(USABLE, began) {
                    return Ok(copy);
                }
                let turn = self.turn.lock().await;
                if let Some(copy) = self.younger_than(FRESH, Instant::now()) {
                    return Ok(copy);
                }
                if self.last().outage.is_some_and(|outage| outage >= began) {
                    return Err(Error::Unanswered);
                }
                turn
            }
        };
        let at = Instant::now();
        match store.candidates(margin).await {
            Ok(nodes) => {
                let copy = Copy {
                    nodes: nodes.into(),
                    at,
                };
                self.last().copy = Some(copy.clone());
                Ok(copy)
            }
            Err(error) => {
                if error.is_outage() {
                    self.last().outage = Some(Instant::now());
                }
                Err(error)
            }
        }
    }

    /// What this copy says has turned out to be wrong: the next call reads the map anew.
    pub fn invalidate(&self, wrong: &Copy) {
        self.last().copy.take_if(|copy| Arc::ptr_eq(&copy.nodes, &wrong.nodes));
    }

    /// The track of a node, by the copy, however old it is.
    pub fn track_of(&self, node: NodeId) -> Option<Track> {
        let last = self.last();
        let nodes = &last.copy.as_ref()?.nodes;
        let index = nodes.binary_search_by_key(&node, |candidate| candidate.node).ok()?;
        nodes.get(index).map(|candidate| candidate.track)
    }

    fn younger_than(&self, age: Duration, now: Instant) -> Option<Copy> {
        self.last().copy.clone().filter(|copy| now < copy.at + age)
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faulty::FaultyStore;

    const MARGIN: Duration = Duration::from_millis(500);

    #[tokio::test(start_paused = true)]
    async fn of_many_concurrent_calls_one_reads_the_map() {
        let store = FaultyStore::default();
        store.delay(Duration::from_millis(100));
        let candidates = Candidates::default();
        let get = || candidates.get(&store, MARGIN);
        let (a, b, c) = tokio::join!(get(), get(), get());
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
        assert_eq!(store.calls("candidates"), 1);
        tokio::time::advance(FRESH).await;
        // While it is read anew nobody else waits.
        let start = Instant::now();
        let (_, waited) = tokio::join!(get(), async {
            get().await.unwrap();
            start.elapsed()
        });
        assert_eq!((store.calls("candidates"), waited), (2, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_for_a_map_that_is_away_fail_together() {
        let store = FaultyStore::default();
        store.delay(Duration::from_secs(2));
        store.outage(true);
        let candidates = Arc::new(Candidates::default());
        let start = Instant::now();
        let get = || candidates.get(&store, MARGIN);
        let (a, b, c) = tokio::join!(get(), get(), get());
        for failed in [a, b, c] {
            assert!(failed.unwrap_err().is_outage());
        }
        assert_eq!(
            (store.calls("candidates"), start.elapsed()),
            (1, Duration::from_secs(2))
        );
        store.outage(false);
        assert!(get().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_is_given_up_leaves_its_turn_to_the_next() {
        let store = FaultyStore::default();
        store.delay(Duration::from_secs(60));
        let candidates = Candidates::default();
        let given_up = tokio::time::timeout(Duration::from_secs(1), candidates.get(&store, MARGIN)).await;
        assert!(given_up.is_err());
        store.delay(Duration::ZERO);
        assert!(candidates.get(&store, MARGIN).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_copy_that_was_wrong_is_dropped() {
        let store = FaultyStore::default();
        let candidates = Candidates::default();
        let first = candidates.get(&store, MARGIN).await.unwrap();
        candidates.invalidate(&first);
        candidates.get(&store, MARGIN).await.unwrap();
        candidates.invalidate(&first);
        candidates.get(&store, MARGIN).await.unwrap();
        assert_eq!(store.calls("candidates"), 2);
    }
}
