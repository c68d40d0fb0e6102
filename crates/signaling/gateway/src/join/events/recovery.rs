//! Where a stream's participant is after its link broke or its room moved.
//!
//! Owns what happens to a participant that is not found again: whoever can put one back into its room elsewhere does it here.

use signalbox_protocol::control::{CloseReason, Snapshot};
use signalbox_protocol::room::MediaAddress;

use crate::problem::ApiError;
use crate::session::Session;
use crate::state::State;

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
    /// It is no longer in the room.
    Gone(CloseReason),
    /// Nobody can say.
    Unreachable,
}

/// Looks for the participant of a session whose media went to `before`.
pub(super) async fn find_again(state: &State, lost: &Session, before: Option<MediaAddress>) -> Found {
    let attached = state
        .rooms()
        .attach(&lost.room, &lost.participant, &lost.identity)
        .await;
    match attached {
        Ok((session, snapshot)) => Found::Here {
            moved: moved(before, snapshot.media),
            session,
            snapshot,
        },
        Err(ApiError::NoParticipant(_)) => Found::Gone(CloseReason::NodeGone),
        Err(_) => Found::Unreachable,
    }
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
