//! Which participants have a feed at this gateway.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use signalbox_protocol::ParticipantId;

use super::feed::{Feed, Reader};
use crate::join::Member;

/// The feeds of this gateway's event streams, by participant.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<HashMap<ParticipantId, Arc<Feed>>>);

impl Streams {
    /// A reader of a participant's feed that goes on after the message with this id. None if that cannot be done here without a gap.
    pub(super) fn resume(&self, member: &Member, last_id: &str) -> Option<Reader> {
        let feed = self.feeds().get(&member.participant).cloned()?;
        let is_own = feed.room == member.room && feed.identity == member.identity;
        is_own.then(|| feed.resume(last_id)).flatten()
    }

    /// Enters a feed, in place of the one that the participant had.
    pub(super) fn enter(&self, feed: &Arc<Feed>) {
        self.feeds().insert(feed.participant.clone(), Arc::clone(feed));
    }

    /// Forgets a feed, unless another one has taken its place.
    pub(super) fn remove(&self, feed: &Arc<Feed>) {
        let mut feeds = self.feeds();
        if feeds
            .get(&feed.participant)
            .is_some_and(|entered| Arc::ptr_eq(entered, feed))
        {
            feeds.remove(&feed.participant);
        }
    }

    fn feeds(&self) -> MutexGuard<'_, HashMap<ParticipantId, Arc<Feed>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
