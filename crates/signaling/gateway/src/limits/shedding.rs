//! Turns: so many requests at once, and as many again may wait for a moment. Whoever would have to wait longer is told at once, while there is still time to
//! go elsewhere; work that nobody waits for any more is never begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a turn is waited for. Higher: short bursts are absorbed. Lower: whoever cannot be served knows sooner.
const PATIENCE: Duration = Duration::from_millis(100);

/// A turn, until it is dropped.
pub(crate) type Turn = OwnedSemaphorePermit;

/// A kind of requests.
#[derive(Debug)]
pub(super) struct Lane {
    turns: Arc<Semaphore>,
    at_once: usize,
    waiting: AtomicUsize,
}

impl Lane {
    pub(super) fn new(at_once: usize) -> Self {
        let at_once = at_once.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            turns: Arc::new(Semaphore::new(at_once)),
            at_once,
            waiting: AtomicUsize::new(0),
        }
    }

    /// A turn, for as long as it is held; none: there is too much to do.
    pub(super) async fn turn(&self) -> Option<Turn> {
        if let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() {
            return Some(turn);
        }
        let waiting = Waiting::begin(&self.waiting);
        if waiting.before >= self.at_once {
            return None;
        }
        let turn = Arc::clone(&self.turns).acquire_owned();
        tokio::time::timeout(PATIENCE, turn).await.ok()?.ok()
    }
}

/// Somebody who waits, until they do not any more, for whatever reason.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        let before = count.fetch_add(1, Ordering::AcqRel);
        Self { count, before }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_turn_of_who_is_done() {
        let lane = Lane::new(1);
        let first = lane.turn().await;
        let mut second = Box::pin(lane.turn());
        assert!(poll!(&mut second).is_pending());
        drop(first);
        assert!(second.await.is_some());
        assert_eq!(lane.waiting.load(Ordering::Acquire), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_long_and_not_many_wait() {
        let lane = Lane::new(2);
        let held = [lane.turn().await, lane.turn().await];
        assert!(held.iter().all(Option::is_some));
        let begun = Instant::now();
        let waiting = futures_util::future::join(lane.turn(), lane.turn());
        let mut waiting = Box::pin(waiting);
        assert!(poll!(&mut waiting).is_pending());
        assert!(lane.turn().await.is_none(), "too many wait already");
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let (first, second) = waiting.await;
        assert!(first.is_none() && second.is_none());
        assert_eq!(begun.elapsed(), PATIENCE);
        assert_eq!(lane.waiting.load(Ordering::Acquire), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_waits_no_longer() {
        let lane = Lane::new(1);
        let _held = lane.turn().await;
        let mut gone = Box::pin(lane.turn());
        assert!(poll!(&mut gone).is_pending());
        drop(gone);
        assert_eq!(lane.waiting.load(Ordering::Acquire), 0);
    }
}
