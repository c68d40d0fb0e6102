//! What comes of clients' connections, for whoever compares this node with others: ICE and DTLS come up or do not, and last or are lost.
//!
//! Each connection counts once as one that came up, and once as one that failed, at most. What a client may well have wanted does not count: that it left
//! before, or went without a word. Nor do connections that came from another node, of which some cannot go on by their clients' nature, and streams
//! without a peer connection.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use signalbox_protocol::control::Transports;
use signalbox_protocol::{Identity, RoomName};

use crate::connections::{Entry, Key};
use crate::participant::{Participant, Presence};
use crate::room::{Context, Room};

/// How long ICE and DTLS may take to come up. Higher: slow networks are no failures; beyond the time after which absent participants are removed, hardly
/// anything is. Lower: failures are known sooner.
pub const CONNECT: Duration = Duration::from_secs(10);

/// For how long nothing may be heard of a connection whose client's signaling is there. ICE checks consent every 5 seconds (RFC 7675 section 5.1), so
/// this is three lost checks. Higher: short outages of a client's network are no failures. Lower: failures are known sooner.
pub const SILENCE: Duration = Duration::from_secs(15);

/// For how long somebody whose connection failed does not count again in the same room: who tries again and again behind a firewall is one
/// failure, not many. Higher: the reverse of lower. Lower: single users weigh more.
pub const REPEAT: Duration = Duration::from_secs(600);

/// Of how many that is remembered. Higher: more memory (some 40 bytes each). Lower: when many fail, some count twice.
const MAX_REMEMBERED: usize = 10_000;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// It is to come up, since then.
    Awaited(Instant),
    /// It did.
    Up,
    /// It did not, or was lost.
    Failed,
}

/// Who failed of late.
#[derive(Debug, Default)]
pub struct Failing(HashMap<u64, Instant>);

impl Failing {
    /// Whether this failure counts.
    fn counts(&mut self, now: Instant, room: &RoomName, identity: &Identity) -> bool {
        let mut hasher = DefaultHasher::new();
        (room.as_str(), identity.as_str()).hash(&mut hasher);
        let key = hasher.finish();
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < REPEAT;
        if self.0.get(&key).is_some_and(is_recent) {
            return false;
        }
        if self.0.len() >= MAX_REMEMBERED {
            self.0.retain(|_, at| is_recent(at));
            if self.0.len() >= MAX_REMEMBERED {
                self.0.clear();
            }
        }
        self.0.insert(key, now);
        true
    }
}

impl Room {
    /// A connection came up.
    pub fn course_came_up(&self, cx: &mut Context, key: Key, participant: &Participant) {
        if !is_compared(participant) {
            return;
        }
        if let Some(entry) = cx.connections.polled(key)
            && matches!(entry.course, Course::Awaited(_))
        {
            entry.course = Course::Up;
            cx.stats.connections_up += 1;
        }
    }

    /// A connection cannot go on.
    pub fn course_failed(&self, cx: &mut Context, now: Instant, key: Key, participant: &Participant) {
        if is_compared(participant)
            && let Some(entry) = cx.connections.polled(key)
            && entry.course != Course::Failed
        {
            entry.course = Course::Failed;
            if cx.failing.counts(now, &self.name, &participant.info.identity) {
                cx.stats.connections_failed += 1;
            }
        }
    }

    /// Looks for connections that have not come up in time, or are silent for too long.
    pub fn tend_courses(&self, cx: &mut Context, now: Instant) {
        for participant in self.participants.values() {
            for key in participant.connections() {
                let is_over = |entry: &Entry| match entry.course {
                    Course::Awaited(since) => now.saturating_duration_since(since) >= CONNECT,
                    Course::Up => {
                        let heard = entry.last_heard;
                        participant.is_attached
                            && heard.is_some_and(|heard| now.saturating_duration_since(heard) >= SILENCE)
                    }
                    Course::Failed => false,
                };
                if cx.connections.get(key).is_some_and(is_over) {
                    self.course_failed(cx, now, key, participant);
                }
            }
        }
    }
}

/// A client that has yet to answer the node's own offer, which players ask for without need, is not there either.
fn is_compared(participant: &Participant) -> bool {
    let answers_an_offer = participant.offers_once && participant.last_offer.is_none();
    participant.transports != Transports::Srtp
        && participant.presence == Presence::Here
        && !participant.is_resumed
        && !answers_an_offer
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
mod tests {
    use super::*;

    #[test]
    fn who_fails_again_and_again_counts_once_in_a_while() {
        let (mut failing, began) = (Failing::default(), Instant::now());
        let (daily, weekly): (RoomName, RoomName) = ("daily".parse().unwrap(), "weekly".parse().unwrap());
        let ann: Identity = "ann".parse().unwrap();
        assert!(failing.counts(began, &daily, &ann));
        for seconds in 1..10 {
            assert!(!failing.counts(began + Duration::from_secs(seconds * 60), &daily, &ann));
        }
        assert!(failing.counts(began, &weekly, &ann), "elsewhere");
        assert!(failing.counts(began, &daily, &"bob".parse().unwrap()), "somebody else");
        assert!(failing.counts(began + REPEAT, &daily, &ann));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut failing, now) = (Failing::default(), Instant::now());
        let room: RoomName = "daily".parse().unwrap();
        for n in 0..2 * MAX_REMEMBERED {
            failing.counts(now, &room, &n.to_string().parse().unwrap());
        }
        assert!(failing.0.len() <= MAX_REMEMBERED);
    }
}
