//! Nodes that are emptied.

use std::time::Duration;

use signalbox_protocol::node::{Asker, Drain, DrainNode, DrainState, NodeState};
use signalbox_protocol::{Epoch, NodeId};
use tokio::time::Instant;

use super::{Map, age, left};
use crate::store::{DrainNote, DrainRecord};

#[derive(Debug, Clone)]
pub(super) struct Job {
    epoch: Epoch,
    asked_by: Asker,
    rate: f64,
    deadline: Option<Instant>,
    state: DrainState,
    moved: u64,
    stuck: u64,
    leaving: Option<Duration>,
    moved_at: Option<Instant>,
    began_at: Instant,
    claim: Option<(String, Instant)>,
}

impl Map {
    pub fn begin_drain(&mut self, id: NodeId, how: &DrainNode, now: Instant) -> Option<DrainRecord> {
        let node = self.nodes.get_mut(&id).filter(|node| node.state != NodeState::Lost)?;
        node.state = NodeState::Draining;
        let epoch = node.epoch;
        let before = self.drains.remove(&id);
        let before = before.filter(|job| job.state == DrainState::Running && job.epoch == epoch);
        let job = Job {
            rate: how.rate,
            deadline: how.deadline_ms.map(|ms| now + Duration::from_millis(ms)),
            ..before.unwrap_or(Job {
                epoch,
                asked_by: how.asked_by,
                rate: how.rate,
                deadline: None,
                state: DrainState::Running,
                moved: 0,
                stuck: 0,
                leaving: None,
                moved_at: None,
                began_at: now,
                claim: None,
            })
        };
        self.drains.insert(id, job);
        self.drain(id, now)
    }

    pub fn drain(&self, id: NodeId, now: Instant) -> Option<DrainRecord> {
        let (node, job) = (self.nodes.get(&id)?, self.drains.get(&id)?);
        let is_lost = job.state == DrainState::Running && !node.is_current(job.epoch);
        let rooms = self.rooms.values();
        let rooms_left = rooms.filter(|room| room.node == id && room.epoch == job.epoch && room.closed_at.is_none());
        let rooms_left = rooms_left.count() as u64;
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Some(DrainRecord {
            drain: Drain {
                node: id,
                epoch: job.epoch,
                state: if is_lost { DrainState::Lost } else { job.state },
                rooms: job.moved + rooms_left,
                rooms_left,
                stuck: job.stuck,
                rate: job.rate,
                eta_ms: None,
                deadline_ms: job.deadline.map(|deadline| ms(left(deadline, now))),
                age_ms: ms(age(job.began_at, now)),
                by: job.claim.as_ref().map(|(by, _)| by.clone()).unwrap_or_default(),
            },
            control: node.about.control.clone(),
            asked_by: job.asked_by,
            began_at_ms: self.unix_ms(job.began_at),
            leaving: job.leaving,
            moved_ago: job.moved_at.map(|at| age(at, now)),
        })
    }

    pub fn cancel_drain(&mut self, id: NodeId, now: Instant) -> Option<DrainRecord> {
        if let Some(node) = self.nodes.get_mut(&id)
            && node.state == NodeState::Draining
        {
            node.state = NodeState::Serving;
        }
        if let Some(job) = self.drains.get_mut(&id)
            && job.state == DrainState::Running
        {
            job.state = DrainState::Cancelled;
        }
        self.drain(id, now)
    }

    /// The node is about to release its epoch: it is emptied, or not.
    pub(super) fn end_drain_of_released(&mut self, id: NodeId, epoch: Epoch, now: Instant) {
        let rooms_left = self.drain(id, now).map_or(0, |record| record.drain.rooms_left);
        let job = self.drains.get_mut(&id);
        if let Some(job) = job.filter(|job| job.state == DrainState::Running && job.epoch == epoch) {
            job.state = if rooms_left == 0 {
                DrainState::Done
            } else {
                DrainState::Lost
            };
        }
    }

    pub fn claim_drains(&mut self, orchestrator: &str, time: Duration, now: Instant) -> Vec<DrainRecord> {
        let mut claimed = Vec::new();
        for (node, job) in &mut self.drains {
            let is_free = |(by, until): &(String, Instant)| by == orchestrator || *until < now;
            if job.state == DrainState::Running && job.claim.as_ref().is_none_or(is_free) {
                job.claim = Some((orchestrator.to_owned(), now + time));
                claimed.push(*node);
            }
        }
        claimed.into_iter().filter_map(|node| self.drain(node, now)).collect()
    }

    pub fn note_drain(&mut self, note: &DrainNote<'_>, now: Instant) -> bool {
        let Some(job) = self.drains.get_mut(&note.node) else {
            return false;
        };
        let is_mine = job.claim.as_ref().is_some_and(|(by, _)| by == note.by);
        if !is_mine || job.state != DrainState::Running || job.epoch != note.epoch {
            return false;
        }
        job.moved += note.moved;
        job.moved_at = if note.moved > 0 { Some(now) } else { job.moved_at };
        job.stuck = note.stuck;
        job.leaving = note.leaving.or(job.leaving);
        job.state = note.end.unwrap_or(job.state);
        true
    }
}
