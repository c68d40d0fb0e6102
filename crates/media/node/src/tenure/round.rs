//! One round of heartbeats: who has been asked, who is to be asked next, and what the promises are worth when nobody confirmed.
//!
//! It must not know the lease: it collects deadlines, and [`super::Tenure`] says whether they count.

use std::time::Duration;

use super::{Note, Promises};
use crate::lease::Boottime;

/// Asks each orchestrator once, in order. The next one's turn comes when all those asked have answered without confirming, or
/// when the last one asked has used up its head start.
#[derive(Debug)]
pub(super) struct Round {
    first: usize,
    orchestrators: usize,
    head_start: Duration,
    /// How many have been asked.
    asked: usize,
    /// Those that have not answered yet, and when their answers are given up.
    pending: Vec<(usize, Boottime)>,
    /// When the next one is asked at the latest.
    next: Boottime,
    /// Who has promised, and the deadline that it gives.
    promised: Vec<(usize, Boottime)>,
    /// Why the last failure was one.
    failure: Option<String>,
    open: bool,
}

impl Round {
    /// A round that begins now, with the orchestrator `first`.
    pub(super) fn new(first: usize, orchestrators: usize, head_start: Duration, now: Boottime) -> Self {
        Self {
            first,
            orchestrators,
            head_start,
            asked: 0,
            pending: Vec::new(),
            next: now,
            promised: Vec::new(),
            failure: None,
            open: true,
        }
    }

    /// A round in which nothing is left to do.
    pub(super) fn over() -> Self {
        Self {
            open: false,
            ..Self::new(0, 0, Duration::ZERO, Boottime::from(Duration::ZERO))
        }
    }

    /// Whether it has yet to end.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// When something is to be done if no answer comes; none: nothing.
    pub(super) fn poll_timeout(&self) -> Option<Boottime> {
        if !self.open {
            return None;
        }
        let next = (self.asked < self.orchestrators).then_some(self.next);
        let given_up = self.pending.iter().map(|&(_, until)| until);
        // When neither is left it is to be concluded at once.
        Some(given_up.chain(next).min().unwrap_or(self.next))
    }

    /// Gives up the answers whose time is over.
    pub(super) fn expire(&mut self, now: Boottime) {
        let before = self.pending.len();
        self.pending.retain(|&(_, until)| now < until);
        if self.pending.len() < before {
            self.failure = Some("no answer in time".to_owned());
        }
    }

    /// The orchestrator to ask now, whose answer is waited for so long.
    pub(super) fn poll_next(&mut self, now: Boottime, within: Duration) -> Option<usize> {
        let turn = self.pending.is_empty() || self.next <= now;
        if !self.open || !turn || self.asked == self.orchestrators {
            return None;
        }
        let orchestrator = (self.first + self.asked) % self.orchestrators;
        self.asked += 1;
        self.next = now.after(self.head_start);
        self.pending.push((orchestrator, now.after(within)));
        Some(orchestrator)
    }

    /// A promise that holds until `deadline`. Answers the deadline that the promises so far give the node.
    pub(super) fn handle_promise(
        &mut self,
        orchestrator: usize,
        deadline: Boottime,
        promises: Promises,
    ) -> Option<Boottime> {
        self.answered(orchestrator);
        // An answer that a network delivers twice is one promise.
        if self.promised.iter().all(|&(known, _)| known != orchestrator) {
            self.promised.push((orchestrator, deadline));
        }
        match promises {
            Promises::One => Some(deadline),
            Promises::All if self.promised.len() < self.orchestrators => None,
            Promises::All => self.promised.iter().map(|&(_, deadline)| deadline).min(),
        }
    }

    /// A later heartbeat came first.
    pub(super) fn handle_past(&mut self, orchestrator: usize) {
        self.answered(orchestrator);
    }

    /// No answer that is of use.
    pub(super) fn handle_failure(&mut self, orchestrator: usize, why: String) {
        self.answered(orchestrator);
        self.failure = Some(why);
    }

    /// Ends the round if all have been asked and none is waited for, and says what came of it, unless nothing can be said.
    pub(super) fn conclude(&mut self, promises: Promises) -> Option<Note> {
        if !self.open || self.asked < self.orchestrators || !self.pending.is_empty() {
            return None;
        }
        self.open = false;
        let (promised, all) = (self.promised.len(), self.orchestrators);
        match (promises, promised) {
            (Promises::One, 1..) => Some(Note::Promised),
            (Promises::All, _) if promised == all => Some(Note::Promised),
            (Promises::All, 1..) => Some(Note::Missed(format!(
                "only {promised} of {all} orchestrators promise to wait while the database is away"
            ))),
            (_, _) => self.failure.take().map(Note::Missed),
        }
    }

    fn answered(&mut self, orchestrator: usize) {
        self.pending.retain(|&(pending, _)| pending != orchestrator);
    }
}
