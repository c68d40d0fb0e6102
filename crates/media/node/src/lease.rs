//! The node's right to host rooms: the epoch that it was given, and until when.
//!
//! Everyone who is about to act on the node's behalf asks here first: admission before it opens a room, and every shard before it
//! touches a packet. So a node that was stopped, suspended or cut off forwards nothing after its deadline, even when the
//! task that renews the lease has not run yet.
//!
//! A lease that has run out is never renewed: whoever saw it expired may have acted on that. The way back is a new epoch.
//!
//! It must not know what the lease is for, nor how it is renewed: that is for [`crate::tenure`].

use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// The lease, shared by all threads of the node.
#[derive(Debug, Default)]
pub struct Lease {
    held: Mutex<Option<(Held, Boottime)>>,
}

impl Lease {
    /// Begins an epoch. False if its deadline has passed already; then nothing is held.
    pub fn grant(&self, held: Held, deadline: Boottime, now: Boottime) -> bool {
        let mut lease = self.lease();
        *lease = (now < deadline).then_some((held, deadline));
        lease.is_some()
    }

    /// Moves the deadline of an epoch, never back. False if that epoch is not held any more: it was revoked, or it ran out before.
    pub fn renew(&self, epoch: Epoch, deadline: Boottime, now: Boottime) -> bool {
        match self.lease().as_mut() {
            Some((held, until)) if held.epoch == epoch && now < *until => {
                *until = deadline.max(*until);
                true
            }
            _ => false,
        }
    }

    /// Ends the epoch, if there is one.
    pub fn revoke(&self) {
        *self.lease() = None;
    }

    /// What is held at `now`.
    pub fn held(&self, now: Boottime) -> Option<Held> {
        (*self.lease())
            .filter(|&(_, deadline)| now < deadline)
            .map(|(held, _)| held)
    }

    /// The epoch that is held at `now`.
    pub fn epoch(&self, now: Boottime) -> Option<Epoch> {
        self.held(now).map(|held| held.epoch)
    }

    /// When the lease ends, or did end if nobody has revoked it since.
    pub fn deadline(&self) -> Option<Boottime> {
        (*self.lease()).map(|(_, deadline)| deadline)
    }

    /// How long the lease still holds; zero when it does not.
    pub fn remaining(&self, now: Boottime) -> Duration {
        self.deadline().map_or(Duration::ZERO, |deadline| deadline.since(now))
    }

    fn lease(&self) -> MutexGuard<'_, Option<(Held, Boottime)>> {
        // Every critical section leaves the value whole, so a panic elsewhere does not spoil it.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn a_revoked_lease_is_not_renewed() {
        let start = START;
        let lease = Lease::default();
        assert!(lease.grant(epoch(3), start.after(SECOND), start));
        lease.revoke();
        assert!(!lease.renew(Epoch(3), start.after(SECOND), start));
        assert!(!lease.grant(epoch(4), start, start));
    }
}
