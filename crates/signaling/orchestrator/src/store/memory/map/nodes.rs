//! Nodes: their leases, states and ejections.

use std::time::Duration;

use signalbox_protocol::node::{NodeLoad, NodeState, NodeView, RegisterNode};
use signalbox_protocol::{Epoch, NodeId};
use tokio::time::Instant;

use super::{Map, age, left};
use crate::placement::Candidate;
use crate::store::{Registration, Renewal};

/// An ejection grows with each one until it is so many times as long.
const MAX_EJECTIONS: u32 = 10;

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub about: RegisterNode,
    pub epoch: Epoch,
    /// When the epoch became the current one: since then whatever was assigned to an earlier one is dead.
    pub epoch_since: Instant,
    pub state: NodeState,
    beat: u64,
    load: NodeLoad,
    pub renewed_at: Instant,
    pub lease_until: Instant,
    pub fenced_at: Option<Instant>,
    ejected_until: Option<Instant>,
    ejections: u32,
}

impl Node {
    pub fn takes_rooms(&self, now: Instant, margin: Duration) -> bool {
        self.state == NodeState::Serving && self.lease_holds(now, margin)
    }

    fn lease_holds(&self, now: Instant, margin: Duration) -> bool {
        left(self.lease_until, now) > margin
    }

    pub fn is_overdue(&self, now: Instant, grace: Duration) -> bool {
        self.state != NodeState::Lost && age(self.lease_until, now) > grace
    }

    fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| until > now)
    }

    /// Whether the node holds this epoch.
    pub fn is_current(&self, epoch: Epoch) -> bool {
        self.epoch == epoch && self.state != NodeState::Lost
    }
}

impl Map {
    pub fn register(&mut self, about: &RegisterNode, lease: Duration, now: Instant) -> Registration {
        let known = self.nodes.get(&about.node);
        let (last, fenced_at) = known.map_or((about.after, None), |node| (node.epoch, node.fenced_at));
        if last != about.after {
            return Registration::Behind(last);
        }
        let epoch = self.next_epoch(last);
        self.nodes.insert(
            about.node,
            Node {
                about: about.clone(),
                epoch,
                epoch_since: now,
                state: NodeState::Serving,
                beat: 0,
                load: NodeLoad::default(),
                renewed_at: now,
                lease_until: now + lease,
                fenced_at,
                ejected_until: None,
                ejections: 0,
            },
        );
        Registration::Held(epoch)
    }

    pub fn renew(
        &mut self,
        node: NodeId,
        epoch: Epoch,
        beat: u64,
        load: NodeLoad,
        lease: Duration,
        now: Instant,
    ) -> Renewal {
        // What the database cannot hold nobody has ever been given.
        if i64::try_from(epoch.0).is_err() || i64::try_from(beat).is_err() {
            return Renewal::Over;
        }
        let Some(node) = self
            .nodes
            .get_mut(&node)
            .filter(|node| node.state != NodeState::Lost && node.epoch <= epoch)
        else {
            return Renewal::Over;
        };
        if node.epoch == epoch && beat <= node.beat {
            return Renewal::Past;
        }
        if node.epoch != epoch {
            (node.epoch, node.epoch_since) = (epoch, now);
        }
        node.beat = beat;
        node.load = load;
        node.renewed_at = now;
        node.lease_until = now + lease;
        self.last_epoch = self.last_epoch.max(epoch.0);
        Renewal::Renewed
    }

    pub fn release(&mut self, node: NodeId, epoch: Epoch, now: Instant) -> bool {
        if !self.nodes.get(&node).is_some_and(|node| node.is_current(epoch)) {
            return false;
        }
        self.end_drain_of_released(node, epoch, now);
        self.end(node, epoch, now);
        true
    }

    /// Moves the epoch on.
    pub(super) fn end(&mut self, node: NodeId, epoch: Epoch, now: Instant) {
        let next = self.next_epoch(epoch);
        if let Some(node) = self.nodes.get_mut(&node) {
            (node.epoch, node.epoch_since) = (next, now);
            node.state = NodeState::Lost;
        }
    }

    pub fn set_state(&mut self, node: NodeId, state: NodeState) -> Option<NodeState> {
        let node = self.nodes.get_mut(&node)?;
        if node.state != NodeState::Lost && state != NodeState::Lost {
            node.state = state;
        }
        Some(node.state)
    }

    pub fn eject(&mut self, id: NodeId, epoch: Epoch, base: Duration, share: f64, now: Instant) -> bool {
        let present = self.nodes.values().filter(|node| node.state != NodeState::Lost);
        let (count, ejected) = present.fold((0_usize, 0_usize), |(count, ejected), node| {
            (count + 1, ejected + usize::from(node.is_ejected(now)))
        });
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.is_current(epoch)) else {
            return false;
        };
        if node.is_ejected(now) {
            return true;
        }
        // Truncation is meant: 10% of 19 nodes is one whole node.
        if ejected >= ((count as f64 * share) as usize).max(1) {
            return false;
        }
        node.ejections = (node.ejections + 1).min(MAX_EJECTIONS);
        node.ejected_until = Some(now + base.saturating_mul(node.ejections));
        true
    }

    pub fn candidates(&self, margin: Duration, now: Instant) -> Vec<Candidate> {
        let present = self.nodes.iter().filter(|(_, node)| node.state != NodeState::Lost);
        let candidate = |(id, node): (&NodeId, &Node)| Candidate {
            node: *id,
            state: node.state,
            lease_holds: node.lease_holds(now, margin),
            ejected: node.is_ejected(now),
            region: node.about.region.clone(),
            zone: node.about.zone.clone(),
            labels: node.about.labels.clone(),
            track: node.about.track,
            version: node.about.version.clone(),
            capacity: node.about.capacity,
            participants: node.load.participants,
        };
        present.map(candidate).collect()
    }

    pub fn nodes(&self, now: Instant) -> Vec<NodeView> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let view = |(id, node): (&NodeId, &Node)| NodeView {
            node: *id,
            epoch: node.epoch,
            state: node.state,
            live: node.state != NodeState::Lost && node.lease_holds(now, Duration::ZERO),
            control: node.about.control.clone(),
            media: node.about.media.clone(),
            region: node.about.region.clone(),
            zone: node.about.zone.clone(),
            labels: node.about.labels.clone(),
            track: node.about.track,
            capacity: node.about.capacity,
            load: node.load,
            version: node.about.version.clone(),
            lease_age_ms: millis(age(node.renewed_at, now)),
            ejected_ms: node.ejected_until.map_or(0, |until| millis(left(until, now))),
        };
        self.nodes.iter().map(view).collect()
    }
}
