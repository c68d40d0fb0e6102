//! The node's right to host rooms: the epoch that it was given, and until when.
//!
//! Everyone who is about to act on the node's behalf asks here first: admission before it opens a room, every shard before it touches a
//! packet, and its socket before each call that sends some ([`Term`]). So a node that was stopped, suspended or cut off forwards nothing after its deadline, even when the
//! task that renews the lease has not run yet.
//!
//! A lease that has run out is never renewed: whoever saw it expired may have acted on that. The way back is a new epoch.
//!
//! It must not know what the lease is for, nor how it is renewed: that is for [`crate::tenure`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use signalbox_protocol::{ClusterId, Epoch};

/// A reading of `CLOCK_BOOTTIME`: unlike `Instant`'s clock it goes on while the machine is suspended, as the lease does.
///
/// Tests and simulations make their own with `Boottime::from`, from the time since any fixed moment. Readings of different clocks
/// must not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boottime(Duration);

impl Boottime {
    /// The present. Should the clock be unreadable it is the end of time, which is past every deadline: the safe side.
    pub fn now() -> Self {
        Self(clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::MAX, Duration::from))
    }

    /// This much later; never later than the end of time.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// How long it is from `earlier` to this; zero if this is the earlier one.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// Nanoseconds since the clock's start, for 584 years.
    fn nanoseconds(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl From<Duration> for Boottime {
    fn from(since_start: Duration) -> Self {
        Self(since_start)
    }
}

/// What a node holds while its lease does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its epoch.
    pub epoch: Epoch,
    /// The cluster that gave it.
    pub cluster: ClusterId,
}

/// One epoch's part of the lease: whether it holds is asked without a lock, before each system call that sends packets. The same epoch is
/// never held again after its term has ended.
#[derive(Debug)]
pub struct Term {
    epoch: Epoch,
    /// In nanoseconds of the lease's clock.
    until: AtomicU64,
}

impl Term {
    /// Whose it is.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether the epoch is held at `now`.
    pub fn holds(&self, now: Boottime) -> bool {
        now.nanoseconds() < self.until.load(Ordering::Acquire)
    }

    fn set(&self, until: Boottime) {
        self.until.store(until.nanoseconds(), Ordering::Release);
    }
}

#[derive(Debug)]
struct Granted {
    held: Held,
    deadline: Boottime,
    term: Arc<Term>,
}

/// The lease, shared by all threads of the node.
#[derive(Debug, Default)]
pub struct Lease {
    granted: Mutex<Option<Granted>>,
}

impl Lease {
    /// Begins an epoch. False if its deadline has passed already; then nothing is held.
    pub fn grant(&self, held: Held, deadline: Boottime, now: Boottime) -> bool {
        self.revoke();
        let mut lease = self.lease();
        *lease = (now < deadline).then(|| Granted {
            held,
            deadline,
            term: Arc::new(Term {
                epoch: held.epoch,
                until: AtomicU64::new(deadline.nanoseconds()),
            }),
        });
        lease.is_some()
    }

    /// Moves the deadline of an epoch, never back. False if that epoch is not held any more: it was revoked, or it ran out before.
    pub fn renew(&self, epoch: Epoch, deadline: Boottime, now: Boottime) -> bool {
        match self.lease().as_mut() {
            Some(granted) if granted.held.epoch == epoch && now < granted.deadline => {
                granted.deadline = deadline.max(granted.deadline);
                granted.term.set(granted.deadline);
                true
            }
            _ => false,
        }
    }

    /// Ends the epoch, if there is one.
    pub fn revoke(&self) {
        if let Some(ended) = self.lease().take() {
            ended.term.set(Boottime(Duration::ZERO));
        }
    }

    /// The term of the epoch that is held at `now`.
    pub fn term(&self, now: Boottime) -> Option<Arc<Term>> {
        let lease = self.lease();
        let granted = lease.as_ref().filter(|granted| now < granted.deadline);
        granted.map(|granted| Arc::clone(&granted.term))
    }

    /// What is held at `now`.
    pub fn held(&self, now: Boottime) -> Option<Held> {
        let lease = self.lease();
        let granted = lease.as_ref().filter(|granted| now < granted.deadline);
        granted.map(|granted| granted.held)
    }

    /// The epoch that is held at `now`.
    pub fn epoch(&self, now: Boottime) -> Option<Epoch> {
        self.held(now).map(|held| held.epoch)
    }

    /// When the lease ends, or did end if nobody has revoked it since.
    pub fn deadline(&self) -> Option<Boottime> {
        self.lease().as_ref().map(|granted| granted.deadline)
    }

    /// How long the lease still holds; zero when it does not.
    pub fn remaining(&self, now: Boottime) -> Duration {
        self.deadline().map_or(Duration::ZERO, |deadline| deadline.since(now))
    }

    fn lease(&self) -> MutexGuard<'_, Option<Granted>> {
        // Every critical section leaves the value whole, so a panic elsewhere does not spoil it.
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const START: Boottime = Boottime(Duration::from_secs(100));

    fn epoch(epoch: u64) -> Held {
        Held {
            epoch: Epoch(epoch),
            cluster: ClusterId::random(),
        }
    }

    #[test]
    fn a_lease_holds_until_its_deadline() {
        let start = START;
        let lease = Lease::default();
        assert_eq!(lease.epoch(start), None);
        assert!(lease.grant(epoch(3), start.after(SECOND), start));
        assert_eq!(lease.epoch(start), Some(Epoch(3)));
        assert_eq!(lease.epoch(start.after(SECOND)), None);
        assert_eq!(lease.remaining(start), SECOND);
    }

    #[test]
    fn an_expired_lease_is_never_renewed() {
        let start = START;
        let lease = Lease::default();
        assert!(lease.grant(epoch(3), start.after(SECOND), start));
        assert!(lease.renew(Epoch(3), start.after(2 * SECOND), start));
        assert!(!lease.renew(Epoch(3), start.after(9 * SECOND), start.after(2 * SECOND)));
        assert_eq!(lease.epoch(start.after(2 * SECOND)), None);
    }

    #[test]
    fn a_late_answer_does_not_move_the_deadline_back() {
        let start = START;
        let lease = Lease::default();
        assert!(lease.grant(epoch(3), start.after(2 * SECOND), start));
        assert!(lease.renew(Epoch(3), start.after(SECOND), start));
        assert_eq!(lease.remaining(start), 2 * SECOND);
    }

    #[test]
    fn a_term_ends_with_its_epoch_and_not_with_the_next() {
        let start = START;
        let lease = Lease::default();
        assert!(lease.term(start).is_none());
        assert!(lease.grant(epoch(3), start.after(SECOND), start));
        let first = lease.term(start).unwrap();
        assert!(first.holds(start) && !first.holds(start.after(SECOND)));
        assert!(lease.renew(Epoch(3), start.after(2 * SECOND), start));
        assert!(first.holds(start.after(SECOND)) && !first.holds(start.after(2 * SECOND)));
        assert!(lease.grant(epoch(4), start.after(9 * SECOND), start));
        let second = lease.term(start).unwrap();
        assert!(!first.holds(start) && second.holds(start));
        lease.revoke();
        assert!(!second.holds(start));
        // A clock that cannot be read says that it is the end of time.
        assert!(lease.grant(epoch(5), Boottime(Duration::MAX), start));
        let endless = lease.term(start).unwrap();
        assert!(endless.holds(start) && !endless.holds(Boottime(Duration::MAX)));
    }

    #[test]
    fn a_revoked_lease_is_not_renewed() {
        let start = START;
        let lease = Lease::default();
        assert!(lease.grant(epoch(3), start.after(SECOND), start));
        lease.revoke();
        assert!(!lease.renew(Epoch(3), start.after(SECOND), start));
        assert!(!lease.grant(epoch(4), start, start));
    }
}
