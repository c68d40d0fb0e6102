//! What this gateway tells the orchestrators about nodes that fail: that one cannot be reached, or that joins on it fail one after another.
//!
//! A report is a complaint, not a verdict: the orchestrator looks for itself. It is sent beside the requests, which do not wait for it. When the
//! orchestrator does not reach the node either, every placement on it is forgotten, so that the joins of its other rooms ask anew at once.
//!
//! Bounded: one report for each node per [`PAUSE`], [`MAX_UNDER_WAY`] at the same time, [`MAX_NODES`] nodes under watch. What is over is not reported; the
//! next failure will be.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use signalbox_protocol::node::{Complaint, ReportNode};
use signalbox_protocol::placement::Placement;
use signalbox_protocol::{Epoch, NodeId};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::orchestrators::Orchestrators;
use crate::placements::Placements;

/// How many joins in a row have to fail on a node before it is reported. Higher: a faulty node gets rooms for longer. Lower: chance alone gets a
/// healthy one reported.
const FAILED_JOINS: u32 = 5;

/// The least time between two reports about a node. Higher: the orchestrators learn later that it still fails. Lower: many gateways load them with
/// what they know.
const PAUSE: Duration = Duration::from_secs(5);

/// How many reports may be under way. Higher: more of them when many nodes fail at once. Lower: less load on orchestrators that are busy
/// with that.
const MAX_UNDER_WAY: usize = 8;

/// How many nodes are watched. Higher: more memory (about 100 bytes each). Lower: some of a larger cluster's nodes are not reported while all fail.
const MAX_NODES: usize = 10_000;

/// Sends reports.
#[derive(Debug)]
pub(crate) struct Reports {
    orchestrators: Arc<Orchestrators>,
    placements: Arc<Placements>,
    metrics: Arc<Metrics>,
    watch: Mutex<Watch>,
    under_way: Mutex<JoinSet<()>>,
}

impl Reports {
    pub(crate) fn new(orchestrators: Arc<Orchestrators>, placements: Arc<Placements>, metrics: Arc<Metrics>) -> Self {
        Self {
            orchestrators,
            placements,
            metrics,
            watch: Mutex::default(),
            under_way: Mutex::default(),
        }
    }

    /// No link to the placement's node can be made.
    pub(crate) fn unreachable(&self, placement: &Placement) {
        self.note(placement, Watch::unreachable);
    }

    /// A join failed on the placement's node, though it was reached.
    pub(crate) fn join_failed(&self, placement: &Placement) {
        self.note(placement, Watch::join_failed);
    }

    /// A join succeeded there.
    pub(crate) fn joined(&self, placement: &Placement) {
        self.watch().joined(placement.node);
    }

    fn note(
        &self,
        placement: &Placement,
        failure: impl FnOnce(&mut Watch, NodeId, Epoch, Instant) -> Option<Complaint>,
    ) {
        let complaint = failure(&mut self.watch(), placement.node, placement.epoch, Instant::now());
        if let Some(complaint) = complaint {
            self.send(placement.node, placement.epoch, complaint);
        }
    }

    fn send(&self, node: NodeId, epoch: Epoch, complaint: Complaint) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        while under_way.try_join_next().is_some() {}
        if under_way.len() >= MAX_UNDER_WAY {
            self.metrics.node_reports_dropped.increment();
            return;
        }
        self.metrics.node_reports.increment();
        let (orchestrators, placements) = (Arc::clone(&self.orchestrators), Arc::clone(&self.placements));
        under_way.spawn(async move {
            let verdict = orchestrators.report(node, &ReportNode { epoch, complaint }).await;
            match verdict {
                Ok(verdict) => {
                    tracing::warn!(%node, ?complaint, answers = verdict.answers, ejected = verdict.ejected, "reported a media node");
                    if !verdict.answers {
                        placements.forget_node(node, epoch);
                    }
                }
                Err(_) => tracing::warn!(%node, ?complaint, "a media node fails, and no orchestrator takes the report"),
            }
        });
    }

    fn watch(&self) -> std::sync::MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The failures of each node, and when it was reported.
#[derive(Debug, Default)]
struct Watch {
    nodes: HashMap<NodeId, Watched>,
}

#[derive(Debug)]
struct Watched {
    epoch: Epoch,
    failed_joins: u32,
    reported_at: Option<Instant>,
}

impl Watch {
    fn unreachable(&mut self, node: NodeId, epoch: Epoch, now: Instant) -> Option<Complaint> {
        self.watched(node, epoch, now)?.report(Complaint::Unreachable, now)
    }

    fn join_failed(&mut self, node: NodeId, epoch: Epoch, now: Instant) -> Option<Complaint> {
        let watched = self.watched(node, epoch, now)?;
        watched.failed_joins = watched.failed_joins.saturating_add(1);
        if watched.failed_joins < FAILED_JOINS {
            return None;
        }
        watched.report(Complaint::JoinsFail, now)
    }

    fn joined(&mut self, node: NodeId) {
        if let Some(watched) = self.nodes.get_mut(&node) {
            watched.failed_joins = 0;
        }
    }

    /// None when too many others are watched.
    fn watched(&mut self, node: NodeId, epoch: Epoch, now: Instant) -> Option<&mut Watched> {
        if self.nodes.len() >= MAX_NODES && !self.nodes.contains_key(&node) {
            self.nodes.retain(|_, watched| watched.was_reported(now));
            if self.nodes.len() >= MAX_NODES {
                return None;
            }
        }
        let fresh = || Watched {
            epoch,
            failed_joins: 0,
            reported_at: None,
        };
        let watched = self.nodes.entry(node).or_insert_with(fresh);
        if watched.epoch != epoch {
            *watched = fresh();
        }
        Some(watched)
    }
}

impl Watched {
    fn was_reported(&self, now: Instant) -> bool {
        self.reported_at.is_some_and(|at| now < at + PAUSE)
    }

    fn report(&mut self, complaint: Complaint, now: Instant) -> Option<Complaint> {
        if self.was_reported(now) {
            return None;
        }
        self.reported_at = Some(now);
        self.failed_joins = 0;
        Some(complaint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch(3);

    #[test]
    fn an_unreachable_node_is_reported_at_once_and_then_only_now_and_then() {
        let mut watch = Watch::default();
        let (node, now) = (NodeId::random(), Instant::now());
        assert_eq!(watch.unreachable(node, EPOCH, now), Some(Complaint::Unreachable));
        assert_eq!(watch.unreachable(node, EPOCH, now + PAUSE / 2), None);
        assert_eq!(
            watch.unreachable(NodeId::random(), EPOCH, now + PAUSE / 2),
            Some(Complaint::Unreachable),
            "another node has nothing to do with it"
        );
        assert_eq!(
            watch.unreachable(node, EPOCH, now + PAUSE),
            Some(Complaint::Unreachable)
        );
    }

    #[test]
    fn only_joins_that_fail_in_a_row_are_reported() {
        let mut watch = Watch::default();
        let (node, now) = (NodeId::random(), Instant::now());
        for _ in 0..3 {
            for _ in 1..FAILED_JOINS {
                assert_eq!(watch.join_failed(node, EPOCH, now), None);
            }
            watch.joined(node);
        }
        for _ in 1..FAILED_JOINS {
            assert_eq!(watch.join_failed(node, EPOCH, now), None);
        }
        assert_eq!(watch.join_failed(node, EPOCH, now), Some(Complaint::JoinsFail));
        for _ in 0..100 {
            assert_eq!(watch.join_failed(node, EPOCH, now), None);
        }
        assert_eq!(watch.join_failed(node, EPOCH, now + PAUSE), Some(Complaint::JoinsFail));
    }

    #[test]
    fn a_new_epoch_begins_anew() {
        let mut watch = Watch::default();
        let (node, now) = (NodeId::random(), Instant::now());
        for _ in 1..FAILED_JOINS {
            watch.join_failed(node, EPOCH, now);
        }
        assert_eq!(watch.join_failed(node, Epoch(4), now), None);
        assert_eq!(watch.unreachable(node, Epoch(4), now), Some(Complaint::Unreachable));
    }

    #[test]
    fn the_number_of_watched_nodes_is_bounded() {
        let mut watch = Watch::default();
        let now = Instant::now();
        for _ in 0..MAX_NODES {
            assert!(watch.unreachable(NodeId::random(), EPOCH, now).is_some());
        }
        assert_eq!(watch.unreachable(NodeId::random(), EPOCH, now), None);
        assert!(watch.unreachable(NodeId::random(), EPOCH, now + PAUSE).is_some());
        assert_eq!(watch.nodes.len(), 1);
    }
}
