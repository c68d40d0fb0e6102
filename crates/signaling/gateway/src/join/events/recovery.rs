//! Where a stream's participant is after its link broke or its room moved.
//!
//! Owns what happens to a participant that is not found again: whoever can put one back into its room elsewhere does it here.

use std::time::Duration;

use signalbox_protocol::control::{CloseReason, Joined, Snapshot};
use signalbox_protocol::room::MediaAddress;
use tokio::time::Instant;

use super::resumption::Resumption;

use crate::problem::ApiError;
use crate::rooms::Admitted;
use crate::session::Session;
use crate::state::State;

/// How long a client that can be resumed elsewhere is tried to be. Longer than a lease and a fence take. Higher: it is there again after longer
/// outages. Lower: it learns sooner that it is not.
const RESUME_PATIENCE: Duration = Duration::from_secs(20);

/// The pause between tries.
const PAUSE: Duration = Duration::from_millis(250);

/// What came of looking for a participant.
#[expect(clippy::large_enum_variant, reason = "taken apart at once, never stored")]
pub(super) enum Found {
    /// It is in the room.
    Here {
        /// Its new session.
        session: Session,
        /// How all is.
        snapshot: Snapshot,
        /// Where its media goes from now on, if it went elsewhere before.
        moved: Option<MediaAddress>,
    },
    /// It was put back into the room, at another node.
    Resumed(Box<Joined>, Session),
    /// It is no longer in the room. Where the room is now, if it lost it by a move.
    Gone(CloseReason, Option<MediaAddress>),
    /// Nobody can say.
    Unreachable,
}

/// Looks for the participant of a session whose media went to `before`. While its node cannot be reached, a client that can be resumed
/// elsewhere is looked for until the node is known to be lost.
pub(super) async fn find_again(
    state: &State,
    lost: &Session,
    before: Option<MediaAddress>,
    resumption: Option<&Resumption>,
) -> Found {
    let give_up = Instant::now() + RESUME_PATIENCE;
    loop {
        let attached = state
            .rooms()
            .attach(&lost.room, &lost.participant, &lost.identity)
            .await;
        match attached {
            Ok((session, snapshot)) => {
                return Found::Here {
                    moved: moved(before, snapshot.media),
                    session,
                    snapshot,
                };
            }
            Err(ApiError::NoParticipant(_)) => return put_back(state, lost, resumption).await,
            Err(_) if resumption.is_none() || Instant::now() >= give_up => return Found::Unreachable,
            // Each try has its own retries and pauses; this one is for tries that fail at once.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// The node that had the participant is gone, and its rooms are free: puts it back where its room is placed now, if it can be, and
/// otherwise says where that is.
pub(super) async fn put_back(state: &State, lost: &Session, resumption: Option<&Resumption>) -> Found {
    let reason = CloseReason::NodeGone;
    let give_up = Instant::now() + RESUME_PATIENCE;
    if let Some(resumption) = resumption {
        loop {
            match state.rooms().join(resumption.join(lost)).await {
                Ok(Admitted {
                    joined,
                    session: Some(session),
                }) => return Found::Resumed(Box::new(joined), session),
                Ok(Admitted { session: None, .. }) => return Found::Gone(reason, None),
                Err(error) if error.retry_after().is_some() && Instant::now() < give_up => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    tracing::warn!(room = %lost.room, %error, "a participant cannot be put back into its room");
                    return Found::Gone(reason, None);
                }
            }
        }
    }
    let opened = state.rooms().open(&lost.room, &lost.identity).await;
    Found::Gone(reason, opened.ok().map(|(media, _)| media))
}

fn moved(before: Option<MediaAddress>, now: Option<MediaAddress>) -> Option<MediaAddress> {
    now.filter(|now| before.is_some_and(|before| before != *now))
}

#[cfg(test)]
mod tests {
    use signalbox_protocol::{Generation, NodeId};

    use super::*;

    #[test]
    fn only_another_address_or_generation_is_a_move() {
        let at = |port, generation| MediaAddress {
            ip: "192.0.2.1".parse().unwrap(),
            port,
            node: NodeId(Default::default()),
            generation: Generation(generation),
        };
        assert_eq!(moved(Some(at(1, 1)), Some(at(1, 1))), None);
        assert_eq!(moved(Some(at(1, 1)), Some(at(2, 1))), Some(at(2, 1)));
        assert_eq!(moved(Some(at(1, 1)), Some(at(1, 2))), Some(at(1, 2)));
        assert_eq!(moved(None, Some(at(1, 1))), None);
        assert_eq!(moved(Some(at(1, 1)), None), None);
    }
}
