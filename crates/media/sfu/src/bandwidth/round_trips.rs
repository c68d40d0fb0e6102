//! How long a packet and the feedback about it are on their way: what is longer than the shortest of late waits in a queue.

use std::time::{Duration, Instant};

use super::REST;

/// For how long a short round trip is remembered.
const MEMORY: Duration = Duration::from_secs(10);

/// The last and the shortest round trip that feedback has told, and when.
#[derive(Debug, Default)]
pub struct RoundTrips {
    last: Option<(Duration, Instant)>,
    shortest: Option<(Duration, Instant)>,
}

impl RoundTrips {
    /// There is feedback, and the newest packet that it is about was sent then.
    pub fn told(&mut self, now: Instant, sent: Instant) {
        let round_trip = now.saturating_duration_since(sent);
        self.last = Some((round_trip, now));
        let is_shortest = self
            .shortest
            .is_none_or(|(shortest, at)| round_trip <= shortest || now.saturating_duration_since(at) > MEMORY);
        if is_shortest {
            self.shortest = Some((round_trip, now));
        }
    }

    /// The last one, if there was any.
    pub fn last(&self) -> Option<Duration> {
        self.last.map(|(round_trip, _)| round_trip)
    }

    /// Whether the last one is so much longer than the shortest, and not long ago.
    pub fn is_longer_by(&self, now: Instant, time: Duration) -> bool {
        let (Some((round_trip, at)), Some((shortest, _))) = (self.last, self.shortest) else {
            return false;
        };
        round_trip > shortest + time && now.saturating_duration_since(at) < REST
    }
}
