//! Bounds what packets that are not authentic can cost: after too many in a second, a stream's packets are only looked at when they
//! come from the address that it has proven.

use std::time::{Duration, Instant};

/// Packets of one stream that may fail within [`PERIOD`] before the rest is dropped unchecked. Higher: a flood costs more, up to this
/// many checks. Lower: a stream whose address is not known yet is hidden by fewer forged packets.
pub const MAX_FAILURES: u32 = 32;

/// See [`MAX_FAILURES`].
pub const PERIOD: Duration = Duration::from_secs(1);

/// One stream's failures.
#[derive(Debug, Default)]
pub struct Guard {
    since: Option<Instant>,
    failures: u32,
}

impl Guard {
    /// Whether a packet is to be dropped unchecked.
    pub fn refuses(&self, now: Instant, is_from_proven_address: bool) -> bool {
        !is_from_proven_address && self.failures >= MAX_FAILURES && self.is_running(now)
    }

    /// A packet was not authentic.
    pub fn failed(&mut self, now: Instant) {
        if !self.is_running(now) {
            self.since = Some(now);
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
    }

    fn is_running(&self, now: Instant) -> bool {
        self.since
            .is_some_and(|since| now.saturating_duration_since(since) < PERIOD)
    }
}
