//! Calls that come at the same time go to the database as one statement.
//!
//! What a small statement costs is mostly the way there and back and its commit, so the calls that come while a statement
//! is under way wait for it and share the next one, as transactions share a flush of the log ("group commit"). A call that
//! comes alone does not wait: nothing is delayed in the hope of more.
//!
//! Owns the queue and who gets which answer. It must not know what the statements say: that is a [`Job`].

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::connections::timed_out;
use crate::Error;

/// A kind of call that can be carried out for many at once.
pub trait Job: Send + Sync + 'static {
    /// What a call asks.
    type Request: Debug + Send + Sync + 'static;
    /// What it is answered.
    type Answer: Debug + Send + Sync + 'static;
    /// What it is about.
    type Key: Ord + ?Sized;

    /// What the calls are, in the plural, for the error when too many wait.
    const NAME: &'static str;
    /// The most statements at the same time. Higher: one begins while another waits for the disk. Lower: larger batches,
    /// which cost less for each call.
    const AT_ONCE: usize;
    /// The most calls in one statement. Higher: less work for each call under load. Lower: one statement takes less long.
    const MOST: usize;
    /// The most calls that wait; further ones fail as if the database were away. Higher: longer bursts are ridden out.
    /// Lower: less waiting in vain, since callers give up after a while.
    const QUEUE: usize;

    /// What the request is about. A statement has one request for each key, and rows are locked in the order of keys.
    fn key(request: &Self::Request) -> &Self::Key;

    /// Carries out the requests, which are ordered by key, no key twice; answers each, in the same order.
    fn run(&self, requests: &[Self::Request]) -> impl Future<Output = Result<Vec<Self::Answer>, Error>> + Send;

    /// What the answer to `first` says to another request of the same key that waited with it; none: that one has to be
    /// asked for itself.
    fn shared(first: &Self::Request, answer: &Self::Answer, other: &Self::Request) -> Option<Self::Answer>;
}

/// Gathers calls of one kind.
#[derive(Debug)]
pub struct Batcher<J: Job>(Arc<Shared<J>>);

#[derive(Debug)]
struct Shared<J: Job> {
    job: J,
    patience: Duration,
    state: Mutex<State<J>>,
}

#[derive(Debug)]
struct State<J: Job> {
    queue: VecDeque<Waiting<J>>,
    workers: usize,
}

#[derive(Debug)]
struct Waiting<J: Job> {
    request: J::Request,
    caller: oneshot::Sender<Result<J::Answer, Error>>,
}

impl<J: Job> Batcher<J> {
    /// Nothing waits yet. No call takes longer than `patience`.
    pub fn new(job: J, patience: Duration) -> Self {
        let state = State {
            queue: VecDeque::new(),
            workers: 0,
        };
        Self(Arc::new(Shared {
            job,
            patience,
            state: Mutex::new(state),
        }))
    }

    /// Carries out the request, together with others. Dropping the call does not disturb theirs.
    ///
    /// Fails with [`Error::Unavailable`] also when too many wait, or when it waited for too long.
    pub async fn call(&self, request: J::Request) -> Result<J::Answer, Error> {
        let (caller, answer) = oneshot::channel();
        let worker = {
            let mut state = self.0.lock();
            if state.queue.len() >= J::QUEUE {
                return Err(unavailable(format!("{} {} wait for it already", J::QUEUE, J::NAME)));
            }
            state.queue.push_back(Waiting { request, caller });
            let wanted = state.workers < J::AT_ONCE;
            state.workers += usize::from(wanted);
            wanted
        };
        if worker {
            // A task of its own: the others' answers do not depend on this caller's patience.
            let shared = self.0.clone();
            tokio::spawn(Worker { shared, retired: false }.run());
        }
        match tokio::time::timeout(self.0.patience, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(sqlx::Error::WorkerCrashed.into()),
            Err(_) => Err(timed_out("the database is too busy")),
        }
    }
}

impl<J: Job> Shared<J> {
    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn carry_out(&self, batch: Batch<J>) {
        let answers = match self.job.run(&batch.requests).await {
            Err(error) if !error.is_outage() && batch.requests.len() > 1 => self.one_by_one(&batch.requests).await,
            Err(error) if batch.requests.len() > 1 => batch.requests.iter().map(|_| Err(copy(&error))).collect(),
            Err(error) => vec![Err(error)],
            Ok(answers) => answers.into_iter().map(Ok).collect(),
        };
        let mut again = Vec::new();
        for (index, waiting) in batch.others {
            let answer = match answers.get(index) {
                Some(Ok(answer)) => J::shared(&batch.requests[index], answer, &waiting.request).map(Ok),
                Some(Err(error)) if error.is_outage() => Some(Err(copy(error))),
                // What was wrong with that request need not be wrong with this one.
                _ => None,
            };
            match answer {
                Some(answer) => drop(waiting.caller.send(answer)),
                None => again.push(waiting),
            }
        }
        if !again.is_empty() {
            let mut state = self.lock();
            again
                .into_iter()
                .rev()
                .for_each(|waiting| state.queue.push_front(waiting));
        }
        // Whoever has gone away does not need it.
        for (caller, answer) in batch.callers.into_iter().zip(answers) {
            drop(caller.send(answer));
        }
    }

    /// When the database refuses a statement because of one request, only that one is to fail.
    async fn one_by_one(&self, requests: &[J::Request]) -> Vec<Result<J::Answer, Error>> {
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let answer = self.job.run(std::slice::from_ref(request)).await;
            answers.push(answer.and_then(|mut one| one.pop().ok_or_else(|| sqlx::Error::RowNotFound.into())));
        }
        answers
    }
}

/// What goes into one statement, and who waits for it.
struct Batch<J: Job> {
    requests: Vec<J::Request>,
    callers: Vec<oneshot::Sender<Result<J::Answer, Error>>>,
    /// Those of the same key as the request with this index.
    others: Vec<(usize, Waiting<J>)>,
}

impl<J: Job> Batch<J> {
    fn new(mut waiting: Vec<Waiting<J>>) -> Self {
        waiting.sort_by(|a, b| J::key(&a.request).cmp(J::key(&b.request)));
        let mut batch = Self {
            requests: Vec::with_capacity(waiting.len()),
            callers: Vec::with_capacity(waiting.len()),
            others: Vec::new(),
        };
        for waiting in waiting {
            let last = batch.requests.last();
            if last.is_some_and(|last| J::key(last) == J::key(&waiting.request)) {
                batch.others.push((batch.requests.len() - 1, waiting));
            } else {
                batch.requests.push(waiting.request);
                batch.callers.push(waiting.caller);
            }
        }
        batch
    }
}

/// Carries out batches until nothing waits.
struct Worker<J: Job> {
    shared: Arc<Shared<J>>,
    retired: bool,
}

impl<J: Job> Worker<J> {
    async fn run(mut self) {
        while let Some(batch) = self.next() {
            self.shared.carry_out(batch).await;
        }
    }

    /// None: nothing waits, and this worker does not count any more. Both in one step, or a call that came in between
    /// would wait for ever.
    fn next(&mut self) -> Option<Batch<J>> {
        let mut state = self.shared.lock();
        let mut waiting = Vec::new();
        while waiting.len() < J::MOST
            && let Some(next) = state.queue.pop_front()
        {
            if !next.caller.is_closed() {
                waiting.push(next);
            }
        }
        if waiting.is_empty() {
            state.workers -= 1;
            self.retired = true;
            return None;
        }
        Some(Batch::new(waiting))
    }
}

impl<J: Job> Drop for Worker<J> {
    /// Its task panicked, or the runtime ends: whoever waits only for this worker is told.
    fn drop(&mut self) {
        if self.retired {
            return;
        }
        let mut state = self.shared.lock();
        state.workers -= 1;
        if state.workers == 0 {
            state.queue.clear();
        }
    }
}

/// The same error for one more caller, as far as it can be copied.
fn copy(error: &Error) -> Error {
    match error {
        Error::NotReady => Error::NotReady,
        Error::Unavailable(source) => unavailable(source.to_string()),
        other => unavailable(other.to_string()),
    }
}

fn unavailable(why: String) -> Error {
    Error::Unavailable(Box::new(sqlx::Error::Io(io::Error::other(why))))
}
