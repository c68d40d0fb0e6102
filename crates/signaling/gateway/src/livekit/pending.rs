//! The requests of one client that the node has yet to answer.
//!
//! They are sent in the order of the client's messages, without waiting for each other's replies: an offer is of no use
//! before the tracks that it carries are announced, and a dozen candidates must not take a dozen round trips.

use std::collections::BTreeMap;
use std::future::{pending, poll_fn, ready};
use std::task::Poll;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use signalbox_protocol::control::{Command, Reply};

use super::requests::Answer;
use crate::problem::ApiError;
use crate::session::Session;

/// How many requests of one client may be under way before no more of its messages are read. Higher: a flood of one
/// client weighs more on the node. Lower: a burst waits for round trips.
pub(super) const MAX_UNDER_WAY: usize = 32;

/// A request and how to answer it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    /// What the node is asked.
    pub(super) command: Command,
    /// What the client is told then.
    pub(super) answer: Answer,
    /// How often it was under way before, on links that broke.
    pub(super) failed: u32,
    /// When it was asked first, among all of the client's requests; 0: not yet.
    pub(super) number: u64,
}

impl From<(Command, Answer)> for Asked {
    fn from((command, answer): (Command, Answer)) -> Self {
        Self {
            command,
            answer,
            failed: 0,
            number: 0,
        }
    }
}

type Done = (u64, Result<Reply, ApiError>);

/// See the module.
#[derive(Default)]
pub(super) struct Pending {
    next: u64,
    under_way: BTreeMap<u64, Asked>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
}

impl Pending {
    /// Whether more of the client's messages may be read.
    pub(super) fn has_room(&self) -> bool {
        self.under_way.len() < MAX_UNDER_WAY
    }

    /// Gives a request that has to wait its place among the others.
    pub(super) fn number(&mut self, mut asked: Asked) -> Asked {
        self.next += 1;
        asked.number = self.next;
        asked
    }

    /// Sends a request, or queues it behind those that wait to be sent.
    pub(super) async fn start(&mut self, session: &Session, mut asked: Asked) {
        self.next += 1;
        let id = self.next;
        if asked.number == 0 {
            asked.number = id;
        }
        let asking = session.command(asked.command.clone());
        self.under_way.insert(id, asked);
        let mut asking = async move { (id, asking.await) }.boxed();
        // The first poll puts it into the link's queue; the set below polls in no particular order.
        let first = poll_fn(|context| Poll::Ready(asking.as_mut().poll(context))).await;
        self.running.push(match first {
            Poll::Ready(done) => ready(done).boxed(),
            Poll::Pending => asking,
        });
    }

    /// The next reply, in any order. Cancelling it loses nothing.
    pub(super) async fn next(&mut self) -> (Asked, Result<Reply, ApiError>) {
        while let Some((id, result)) = self.running.next().await {
            if let Some(asked) = self.under_way.remove(&id) {
                return (asked, result);
            }
        }
        pending().await
    }

    /// Gives all requests up; returns them in their order.
    pub(super) fn take_all(&mut self) -> Vec<Asked> {
        self.running.clear();
        std::mem::take(&mut self.under_way).into_values().collect()
    }
}
