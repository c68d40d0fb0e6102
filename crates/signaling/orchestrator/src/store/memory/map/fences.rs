//! Overdue leases: who looks after them, and who loses their epochs.

use std::collections::BTreeSet;
use std::time::Duration;

use signalbox_protocol::NodeId;
use signalbox_protocol::node::NodeState;
use tokio::time::Instant;

use super::nodes::Node;
use super::{Map, age};
use crate::brake::{Brake, Fleet};
use crate::store::{Fenced, Look, Overdue};

/// The most overdue nodes that are told at once.
const MAX_OVERDUE: usize = 1000;

/// How long an orchestrator that looks no more is remembered.
const LOOKS_KEPT: Duration = Duration::from_secs(3600);

impl Map {
    pub fn look(&mut self, orchestrator: &str, recent: Duration, now: Instant) -> Look {
        self.lookers.retain(|_, seen| age(*seen, now) <= recent.max(LOOKS_KEPT));
        self.lookers.insert(orchestrator.to_owned(), now);
        let overdue = self.nodes.values().filter(|node| node.is_overdue(now, Duration::ZERO));
        let recently = self.lookers.values().filter(|seen| age(**seen, now) <= recent);
        Look {
            overdue: overdue.count(),
            orchestrators: recently.count(),
            incarnation: self.cluster.to_string(),
        }
    }

    fn all_overdue(&self, now: Instant, grace: Duration) -> Vec<Overdue> {
        let overdue = self.nodes.iter().filter(|(_, node)| node.is_overdue(now, grace));
        let mut overdue: Vec<(&NodeId, &Node)> = overdue.collect();
        overdue.sort_by_key(|(_, node)| node.lease_until);
        let as_told = |(id, node): (&NodeId, &Node)| Overdue {
            node: *id,
            epoch: node.epoch,
            control: node.about.control.clone(),
        };
        overdue.into_iter().map(as_told).collect()
    }

    pub fn overdue(&self, now: Instant) -> Vec<Overdue> {
        let mut overdue = self.all_overdue(now, Duration::ZERO);
        overdue.truncate(MAX_OVERDUE);
        overdue
    }

    pub fn fence_expired(&mut self, brake: &Brake, spared: &BTreeSet<NodeId>, now: Instant) -> Fenced {
        let recently = |node: &Node| node.fenced_at.is_some_and(|at| age(at, now) < brake.lease);
        let count = |is: &dyn Fn(&Node) -> bool| self.nodes.values().filter(|node| is(node)).count();
        let fleet = Fleet {
            nodes: count(&|node| node.state != NodeState::Lost || recently(node)),
            overdue: count(&|node| node.is_overdue(now, Duration::ZERO)),
            fenced: count(&recently),
        };
        let mut due = self.all_overdue(now, brake.grace);
        due.retain(|overdue| !spared.contains(&overdue.node));
        let permitted = brake.permits(fleet).min(due.len());
        let held = due.len() - permitted;
        due.truncate(permitted);
        for overdue in &due {
            self.end(overdue.node, overdue.epoch, now);
            if let Some(node) = self.nodes.get_mut(&overdue.node) {
                node.fenced_at = Some(now);
            }
        }
        Fenced {
            nodes: due.into_iter().map(|overdue| (overdue.node, overdue.epoch)).collect(),
            held,
        }
    }
}
