//! What follows from a gateway's complaint about a node: the orchestrator looks for itself, and gives it no rooms for a while
//! if there is something to the complaint.
//!
//! Owns the rule, and how often one node can be complained about to an effect. The bound over the fleet is the store's.

use std::time::Duration;

use signalbox_protocol::node::{Complaint, NodeState, ReportNode, Verdict};
use signalbox_protocol::{Epoch, NodeId};
use tokio::time::{Instant, timeout};

use crate::store::Store;
use crate::turns::Turns;
use crate::{Error, Service};

/// The most of the nodes that may be ejected at the same time, as a share; one always may. Higher: a defect of many nodes
/// costs fewer joins. Lower: a defect of gateways, which blame the nodes, costs less of the fleet.
pub const MAX_EJECTED: f64 = 0.10;

/// For how long a verdict counts. Higher: a storm of complaints costs less. Lower: what changed is seen sooner.
pub const FRESH: Duration = Duration::from_secs(1);

/// How long a complaint waits while another one about the same node is looked into, before it is answered as in an outage.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was said of nodes lately.
#[derive(Debug)]
pub struct Health {
    ejection: Duration,
    nodes: Turns<(NodeId, Epoch), Said>,
}

#[derive(Debug)]
struct Said {
    at: Instant,
    complaint: Complaint,
    verdict: Verdict,
}

impl Health {
    /// Ejects nodes for `ejection` the first time.
    pub fn new(ejection: Duration) -> Self {
        Self {
            ejection,
            nodes: Turns::default(),
        }
    }
}

impl<S: Store> Service<S> {
    /// Looks into a complaint about the node; none: there is no such node. Of any number of complaints about one node, one is
    /// looked into at a time, and its verdict counts for [`FRESH`].
    pub async fn look_into(&self, node: NodeId, report: ReportNode) -> Result<Option<Verdict>, Error> {
        let turn = self.health.nodes.of((node, report.epoch));
        let mut said = timeout(PATIENCE, turn.lock()).await.map_err(|_| Error::Unanswered)?;
        if let Some(said) = said.as_ref()
            && said.at.elapsed() < FRESH
            && said.complaint == report.complaint
        {
            return Ok(Some(said.verdict));
        }
        let nodes = self.store.nodes().await?;
        let Some(view) = nodes.into_iter().find(|view| view.node == node) else {
            return Ok(None);
        };
        let mut verdict = Verdict {
            answers: false,
            ejected: view.ejected_ms > 0,
        };
        if view.state != NodeState::Lost && view.epoch == report.epoch {
            verdict.answers = self.prober.holds(node, report.epoch, &view.control).await;
            if !verdict.answers || report.complaint == Complaint::JoinsFail {
                let ejection = self.health.ejection;
                verdict.ejected = self.store.eject(node, report.epoch, ejection, MAX_EJECTED).await?;
            }
            tracing::warn!(
                %node,
                epoch = %report.epoch,
                complaint = ?report.complaint,
                answers = verdict.answers,
                ejected = verdict.ejected,
                "a gateway complained about a node"
            );
        }
        *said = Some(Said {
            at: Instant::now(),
            complaint: report.complaint,
            verdict,
        });
        Ok(Some(verdict))
    }
}
