//! A world for the state machine: orchestrators that answer as they are told, after as long as they are told.

use std::sync::Arc;
use std::time::Duration;

use signalbox_protocol::node::{Registered, Renewed};
use signalbox_protocol::{ClusterId, Epoch};

use super::super::{Action, Answer, Ask, Lost, Note, Promises, Question, Tenure};
use super::Says::*;
use crate::lease::{Boottime, Lease};

pub const LEASE_MS: u64 = 2_000;
pub const HEARTBEAT_MS: u64 = 500;
/// The lease without its margin.
pub const HELD_MS: u64 = 1_800;

/// What an orchestrator says to heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    Confirm,
    Promise,
    Past,
    Over,
    Fail,
    /// Somebody else registers under the node's id all the time.
    Rival,
    /// It hangs; also when it is asked to register.
    Nothing,
}

/// Milliseconds since the world began, as the machine's clock has it.
pub fn at(ms: u64) -> Boottime {
    Boottime::from(Duration::from_millis(ms))
}

pub fn ms(time: Boottime) -> u64 {
    time.since(at(0)).as_millis() as u64
}

pub struct World {
    pub now: Boottime,
    pub lease: Arc<Lease>,
    pub tenure: Tenure,
    pub cluster: ClusterId,
    /// What each says, and after how many milliseconds.
    pub orchestrators: Vec<(Says, u64)>,
    on_the_way: Vec<(Boottime, Ask, Answer)>,
    /// The last epoch that was given out.
    pub epoch: u64,
    /// Every request.
    pub asked: Vec<Ask>,
    /// Everything else that was to be done, and when.
    pub done: Vec<(u64, Action)>,
}

impl World {
    /// A node that registers at 0 ms.
    pub fn new(promises: Promises, orchestrators: &[(Says, u64)]) -> Self {
        let lease = Arc::new(Lease::default());
        Self {
            now: at(0),
            tenure: Tenure::new(Arc::clone(&lease), orchestrators.len(), promises, 1),
            lease,
            cluster: ClusterId::random(),
            orchestrators: orchestrators.to_vec(),
            on_the_way: Vec::new(),
            epoch: 0,
            asked: Vec::new(),
            done: Vec::new(),
        }
    }

    /// Lets the time pass until then, and no further.
    pub fn run_until(&mut self, end: u64) {
        for _ in 0..100_000 {
            while let Some(action) = self.tenure.poll_action(self.now) {
                match action {
                    Action::Ask(ask) => self.ask(ask),
                    action => self.done.push((ms(self.now), action)),
                }
            }
            let answers = self.on_the_way.iter().map(|(arrives, ..)| *arrives);
            let Some(next) = answers.chain(self.tenure.poll_timeout()).min() else {
                return self.now = at(end);
            };
            if next > at(end) {
                return self.now = at(end);
            }
            self.now = self.now.max(next);
            if let Some(index) = self.on_the_way.iter().position(|(arrives, ..)| *arrives <= self.now) {
                let (_, ask, answer) = self.on_the_way.swap_remove(index);
                self.tenure.handle_answer(self.now, &ask, answer);
            }
        }
        panic!("it does not come to rest");
    }

    fn ask(&mut self, ask: Ask) {
        assert_eq!(ask.sent, self.now);
        let (says, after) = self.orchestrators[ask.orchestrator];
        if let Some(answer) = self.answer(&ask, says) {
            self.on_the_way
                .push((self.now.after(Duration::from_millis(after)), ask.clone(), answer));
        }
        self.asked.push(ask);
    }

    pub fn answer(&mut self, ask: &Ask, says: Says) -> Option<Answer> {
        Some(match (&ask.question, says) {
            (_, Nothing) => return None,
            (_, Fail) => Answer::Failed("status 503".to_owned()),
            (Question::Register { .. }, Rival) => {
                self.epoch += 1;
                Answer::Behind(Epoch(self.epoch))
            }
            (Question::Register { after }, _) if after.0 != self.epoch => Answer::Behind(Epoch(self.epoch)),
            (Question::Register { .. }, _) => {
                self.epoch += 1;
                Answer::Registered(Registered {
                    epoch: Epoch(self.epoch),
                    cluster: self.cluster,
                    lease_ms: LEASE_MS,
                    heartbeat_ms: HEARTBEAT_MS,
                })
            }
            (_, Confirm) => Answer::Renewed(renewed(false)),
            (_, Promise) => Answer::Renewed(renewed(true)),
            (_, Past) => Answer::Past,
            (_, Over | Rival) => Answer::Over,
        })
    }

    /// When the node gave up its rooms first, and why.
    pub fn fenced(&self) -> Option<(u64, Lost)> {
        self.done.iter().find_map(|(when, action)| match action {
            Action::Fence { why, .. } => Some((*when, *why)),
            _ => None,
        })
    }

    pub fn notes(&self) -> Vec<&Note> {
        let notes = self.done.iter().filter_map(|(_, action)| match action {
            Action::Note(note) => Some(note),
            _ => None,
        });
        notes.collect()
    }

    /// The heartbeats: when, to whom, and with which number.
    pub fn beats(&self) -> Vec<(u64, usize, u64)> {
        let beats = self.asked.iter().filter_map(|ask| match ask.question {
            Question::Beat { beat, .. } => Some((ms(ask.sent), ask.orchestrator, beat)),
            Question::Register { .. } => None,
        });
        beats.collect()
    }

    pub fn last_ask(&self) -> Ask {
        self.asked.last().unwrap().clone()
    }
}

pub fn renewed(promised: bool) -> Renewed {
    Renewed {
        lease_ms: LEASE_MS,
        promised,
        rooms_wanted: false,
        stale: Vec::new(),
    }
}
