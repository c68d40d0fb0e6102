//! The time of day as RTCP tells it, from a clock that only runs on.

use std::time::{Duration, Instant};

/// Seconds from 1900, where NTP counts from, to 1970 (RFC 868).
const NTP_EPOCH: u64 = 2_208_988_800;

/// What time it is at which `now`.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    unix: Duration,
}

impl Clock {
    /// A clock that shows so many milliseconds since 1970 at `started`.
    pub fn new(started: Instant, unix_ms: u64) -> Self {
        Self {
            started,
            unix: Duration::from_millis(unix_ms),
        }
    }

    /// An NTP timestamp: seconds since 1900, 32 bits of them and 32 of fractions (RFC 3550 section 4).
    pub fn ntp(&self, now: Instant) -> u64 {
        to_ntp(self.unix + now.saturating_duration_since(self.started))
    }
}

/// The NTP timestamp of so long after 1970; it wraps around in 2036.
pub fn to_ntp(since_1970: Duration) -> u64 {
    let fraction = (u64::from(since_1970.subsec_nanos()) << 32) / 1_000_000_000;
    (since_1970.as_secs().wrapping_add(NTP_EPOCH) << 32) | fraction
}

/// The middle 32 bits of an NTP timestamp, in 1/65,536 s (RFC 3550 section 6.4.1).
pub fn short(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// An NTP timestamp as the header extension `abs-send-time` writes it: 24 bits, of which 18 are fractions of a second.
pub fn abs_send_time(ntp: u64) -> u32 {
    (ntp >> 14) as u32 & 0x00ff_ffff
}

/// A time in 1/65,536 s.
pub fn to_short(time: Duration) -> u32 {
    (time.as_micros() * 65_536 / 1_000_000).min(u128::from(u32::MAX)) as u32
}

/// A time from 1/65,536 s.
pub fn from_short(time: u32) -> Duration {
    Duration::from_micros(u64::from(time) * 1_000_000 / 65_536)
}
