//! The brake on fencing, pure: how many nodes may lose their leases at once.
//!
//! When many leases run out together, the likely cause is not that many machines died but that something between them
//! and the database did, and fencing them all would turn a short outage into the loss of every room. The brake lets
//! single losses through at once and slows mass losses down to one node per lease.

use std::time::Duration;

/// The share of the fleet that may be fenced within one lease. Higher: the loss of a rack is repaired sooner. Lower: an
/// outage of the network costs fewer rooms.
pub const SHARE: f64 = 0.30;

/// When to fence, and how many.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Brake {
    /// How long a lease holds; also the time within which the share is counted.
    pub lease: Duration,
    /// How long after its end a lease may still not be fenced. It covers that clocks run at slightly different speeds:
    /// a node that fences itself must be done before it is fenced.
    pub grace: Duration,
}

/// The fleet as the brake sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fleet {
    /// Nodes that are not lost, and nodes fenced within the last lease.
    pub nodes: usize,
    /// Nodes that are not lost and whose lease has run out, the grace notwithstanding.
    pub overdue: usize,
    /// Nodes fenced within the last lease.
    pub fenced: usize,
}

impl Brake {
    /// How many more nodes may be fenced at this moment. A single node always may, so that a fleet of one, two or three
    /// recovers; when more than [`SHARE`] of the fleet is overdue, it is one node per lease.
    pub fn permits(&self, fleet: Fleet) -> usize {
        // Truncation is meant: 30% of 9 nodes is 2 whole nodes.
        let share = ((fleet.nodes as f64 * SHARE) as usize).max(1);
        if fleet.overdue + fleet.fenced <= share {
            fleet.overdue
        } else if fleet.fenced == 0 {
            1
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRAKE: Brake = Brake {
        lease: Duration::from_secs(2),
        grace: Duration::from_millis(250),
    };

    fn permits(nodes: usize, overdue: usize, fenced: usize) -> usize {
        BRAKE.permits(Fleet { nodes, overdue, fenced })
    }

    #[test]
    fn one_node_of_a_small_fleet_may_always_be_fenced() {
        for nodes in 1..=3 {
            assert_eq!(permits(nodes, 1, 0), 1, "fleet of {nodes}");
        }
    }

    #[test]
    fn a_small_fleet_that_lost_all_but_one_recovers_node_by_node() {
        assert_eq!(permits(3, 2, 0), 1);
        assert_eq!(permits(3, 1, 1), 0);
        assert_eq!(permits(2, 1, 0), 1);
    }

    #[test]
    fn up_to_the_share_is_fenced_at_once() {
        assert_eq!(permits(100, 30, 0), 30);
        assert_eq!(permits(100, 10, 20), 10);
    }

    #[test]
    fn beyond_the_share_it_is_one_per_lease() {
        assert_eq!(permits(100, 31, 0), 1);
        assert_eq!(permits(100, 100, 0), 1);
        assert_eq!(permits(100, 99, 1), 0);
        assert_eq!(permits(100, 11, 20), 0);
    }

    #[test]
    fn nothing_overdue_permits_nothing() {
        assert_eq!(permits(10, 0, 0), 0);
        assert_eq!(permits(0, 0, 0), 0);
    }
}
