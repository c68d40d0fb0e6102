//! A stream's participant whose node is lost, or hands its room over: until it is known what becomes of it, and until it is connected again.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::metrics::MoveKind;
use crate::moves::leaving::Leaving;
use crate::moves::take_up::{Loss, Lost, Recovered};
use crate::session::Session;
use crate::state::State;

/// How long a client may take to come to the node that took it up after a loss, before that counts as failed. Nothing else follows from it.
pub(super) const CONNECT_PATIENCE: Duration = Duration::from_secs(30);

/// A participant that is looked for, or taken up elsewhere.
pub(super) struct Moving {
    work: BoxFuture<'static, Recovered>,
    /// Of a room that is handed over: how long its node goes on to serve the participant.
    pub(super) served_until: Option<Instant>,
}

/// A participant that was taken up elsewhere, until it is connected there.
pub(super) struct Moved {
    pub(super) kind: MoveKind,
    pub(super) leaving: Leaving,
}

impl Moving {
    /// Begins to look for a session's participant.
    pub(super) fn start(state: &State, session: &Session, loss: Loss, served_until: Option<Instant>) -> Option<Self> {
        let (lost, state) = (Lost::of(session)?, state.clone());
        let work = async move { state.rooms().recover(lost, loss, true).await }.boxed();
        Some(Self { work, served_until })
    }

    pub(super) fn kind(&self) -> MoveKind {
        match self.served_until {
            Some(_) => MoveKind::Planned,
            None => MoveKind::Crash,
        }
    }
}

/// What came of looking for the participant. Cancelling it loses nothing.
pub(super) async fn found(moving: &mut Option<Moving>) -> Recovered {
    match moving {
        Some(moving) => moving.work.as_mut().await,
        None => std::future::pending().await,
    }
}

/// When the old node lets go before the client is connected at the new one. Cancelling it loses nothing.
pub(super) async fn overdue(moved: &mut Option<Moved>) {
    match moved {
        Some(moved) => moved.leaving.ended().await,
        None => std::future::pending().await,
    }
}
