//! A burst that measures: how far it is, and when its next packet leaves.

use std::time::{Duration, Instant};

use crate::bandwidth::Probe;

/// A probe that is not done by then is given up: what was sent of it tells nothing.
const MAX_DURATION: Duration = Duration::from_millis(500);

/// The probe under way, if there is one.
#[derive(Debug, Default)]
pub struct Probing {
    /// The stream whose packets are sent again to measure, when there is nothing else.
    pub padding_stream: Option<usize>,
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    probe: Probe,
    begun: Instant,
    packets: u32,
    bytes: u64,
}

impl Probing {
    /// Whether a probe may begin: nothing but packets with repair can be padding.
    pub fn is_free(&self) -> bool {
        self.active.is_none() && self.padding_stream.is_some()
    }

    /// Begins a probe.
    pub fn begin(&mut self, now: Instant, probe: Probe) {
        self.active = Some(Active {
            probe,
            begun: now,
            packets: 0,
            bytes: 0,
        });
    }

    /// A packet leaves; which probe it is part of.
    pub fn sent(&mut self, now: Instant, bytes: usize) -> Option<Probe> {
        let active = self.active.as_mut()?;
        let probe = active.probe;
        active.packets += 1;
        active.bytes += bytes as u64;
        let is_done = active.packets >= probe.packets && active.bytes >= probe.bytes;
        if is_done || now.saturating_duration_since(active.begun) > MAX_DURATION {
            self.active = None;
        }
        Some(probe)
    }

    /// Gives the probe up.
    pub fn abandon(&mut self) {
        self.active = None;
    }

    /// Bytes of the probe that have left.
    pub fn bytes(&self) -> Option<u64> {
        self.active.as_ref().map(|active| active.bytes)
    }

    /// Whether the probe's next packet is to leave.
    pub fn is_due(&self, now: Instant) -> bool {
        self.next_due().is_some_and(|due| due <= now)
    }

    /// When the probe's next packet is to leave.
    pub fn next_due(&self) -> Option<Instant> {
        let active = self.active.as_ref()?;
        let seconds = active.bytes as f64 * 8.0 / active.probe.bps.max(1) as f64;
        Some(active.begun + Duration::from_secs_f64(seconds.min(MAX_DURATION.as_secs_f64())))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;

    #[test]
    fn a_probe_leaves_at_its_rate_until_it_is_long_enough() {
        let start = Instant::now();
        let probe = Probe {
            id: 3,
            bps: 8_000_000,
            packets: 5,
            bytes: 15_000,
        };
        let mut probing = Probing::default();
        assert!(!probing.is_free(), "nothing to pad with");
        probing.padding_stream = Some(0);
        assert!(probing.is_free());
        probing.begin(start, probe);
        assert!(probing.is_due(start));
        let mut now = start;
        for packet in 0..15 {
            now = probing.next_due().unwrap();
            assert_eq!(now, start + Duration::from_millis(packet));
            assert_eq!(probing.sent(now, 1_000), Some(probe));
        }
        assert!(probing.is_free());
        assert_eq!(probing.sent(now, 1_000), None);
    }

    #[test]
    fn a_probe_that_takes_too_long_is_over() {
        let start = Instant::now();
        let mut probing = Probing {
            padding_stream: Some(0),
            ..Probing::default()
        };
        let probe = Probe {
            id: 3,
            bps: 1,
            packets: 5,
            bytes: 15_000,
        };
        probing.begin(start, probe);
        probing.sent(start, 1_000);
        assert!(probing.next_due().unwrap() <= start + MAX_DURATION);
        probing.sent(start + MAX_DURATION + Duration::from_millis(1), 1_000);
        assert!(probing.is_free());
    }
}
