//! The clock by which a peer tells when packets arrived (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1): it has 24 bits of 64 ms, and where it begins
//! does not matter.

/// The unit of the peer's times, in microseconds.
pub const TICK_US: i64 = 250;

/// How far the peer's clock may run away from ours, in microseconds.
const MAX_DRIFT_US: i64 = 60_000_000;

/// What is known of a peer's clock.
#[derive(Debug, Default)]
pub struct PeerClock {
    /// The last reference time that the peer has told, and what it was extended to, in ticks.
    last: Option<(u32, i64)>,
}

impl PeerClock {
    /// What a reference time is in ticks that go on for ever; `ours` is the time by our clock, in microseconds.
    pub fn extend(&mut self, ours: i64, reference: u32) -> i64 {
        let ours = ours / TICK_US;
        // A peer's clock does not run away from ours: one that does has begun anew, or lies.
        let extended = self
            .last
            .map(|(before, extended)| extended + i64::from(reference.wrapping_sub(before) as i32))
            .filter(|extended| (extended - ours).abs() < MAX_DRIFT_US / TICK_US)
            .unwrap_or(ours);
        self.last = Some((reference, extended));
        extended
    }
}
