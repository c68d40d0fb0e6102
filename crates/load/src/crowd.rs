//! Who is there, and what came of those who were.

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::participant::{Stay, stay};
use crate::plan::{Member, Role};
use crate::report::Tally;
use crate::shared::Shared;

/// Everybody who was let loose on the server.
pub struct Crowd {
    shared: Arc<Shared>,
    stays: JoinSet<anyhow::Result<Stay>>,
    /// Those who only receive, in the order in which they came, and what makes them leave.
    receivers: VecDeque<(Member, CancellationToken)>,
    newcomers: usize,
    /// What came of those who have left.
    pub tally: Tally,
    /// Why others did not stay: each reason, and how often.
    pub failures: BTreeMap<String, usize>,
}

impl Crowd {
    /// Nobody yet.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            stays: JoinSet::new(),
            receivers: VecDeque::new(),
            newcomers: 0,
            tally: Tally::default(),
            failures: BTreeMap::new(),
        }
    }

    /// Somebody joins.
    pub fn join(&mut self, member: Member) {
        let leave = CancellationToken::new();
        if member.role == Role::Subscriber {
            self.receivers.push_back((member.clone(), leave.clone()));
        }
        self.stays.spawn(stay(Arc::clone(&self.shared), member, leave));
    }

    /// Whoever has received for longest leaves, and somebody new joins the same room.
    pub fn replace(&mut self) {
        let Some((mut member, leave)) = self.receivers.pop_front() else {
            return;
        };
        leave.cancel();
        member.identity = format!("newcomer-{}", self.newcomers);
        self.newcomers += 1;
        self.join(member);
    }

    /// How many have joined in the place of others.
    pub fn newcomers(&self) -> usize {
        self.newcomers
    }

    /// How many are there, or about to be.
    pub fn len(&self) -> usize {
        self.stays.len()
    }

    /// Waits until somebody has left or failed.
    pub async fn ended(&mut self) {
        match self.stays.join_next().await {
            Some(Ok(Ok(stay))) => self.tally.add(&stay),
            Some(failed) => self.failed(&failed),
            None => pending().await,
        }
    }

    /// Waits until all have.
    pub async fn all_ended(&mut self) {
        while !self.stays.is_empty() {
            self.ended().await;
        }
    }

    /// Whoever is still there has not left in time.
    pub fn abandon(&mut self) {
        if !self.stays.is_empty() {
            *self.failures.entry("did not leave in time".to_owned()).or_default() += self.stays.len();
            self.stays.abort_all();
        }
    }

    fn failed(&mut self, ended: &Result<anyhow::Result<Stay>, JoinError>) {
        self.shared.counts.failed.fetch_add(1, Ordering::Relaxed);
        let why = match ended {
            Ok(Ok(_)) => "left early".to_owned(),
            Ok(Err(error)) => format!("{error:#}"),
            Err(error) => error.to_string(),
        };
        *self.failures.entry(why).or_default() += 1;
    }
}
