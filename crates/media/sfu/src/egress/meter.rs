//! How much passes in a second, of late.

use std::time::{Duration, Instant};

/// What passed so long ago counts by 1/e. Higher: steadier. Lower: it follows sooner.
const MEMORY: Duration = Duration::from_secs(1);

/// A rate that forgets.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meter {
    bytes: f64,
    at: Option<Instant>,
}

impl Meter {
    /// So many bytes passed.
    pub fn add(&mut self, now: Instant, bytes: usize) {
        self.bytes = self.remaining(now) + bytes as f64;
        self.at = Some(now);
    }

    /// Bits per second.
    pub fn bps(&self, now: Instant) -> u64 {
        (self.remaining(now) * 8.0 / MEMORY.as_secs_f64()) as u64
    }

    fn remaining(&self, now: Instant) -> f64 {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.bytes * (-passed.as_secs_f64() / MEMORY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_is_measured_and_then_forgotten() {
        let mut now = Instant::now();
        let mut meter = Meter::default();
        assert_eq!(meter.bps(now), 0);
        for _ in 0..500 {
            now += Duration::from_millis(20);
            meter.add(now, 100);
        }
        assert!((39_000..=42_000).contains(&meter.bps(now)), "{}", meter.bps(now));
        assert!(meter.bps(now + Duration::from_secs(5)) < 400);
    }
}
