//! How much a connection's network takes: the estimate for what a node sends to one peer, from the peer's transport-wide feedback
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01), and the probes that look for more.
//!
//! Sans-IO, and without packets: its caller tells what leaves and what the peer says, and is told rates.

use std::time::{Duration, Instant};

/// What a packet carries, as far as the estimate cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Sound.
    Audio,
    /// Anything else that is of use: picture, and packets that are sent again.
    Video,
    /// Nothing: it is sent to measure.
    Padding,
}

/// A burst at a rate that may be more than the estimate, to see whether it gets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Which; to be given back with each of its packets.
    pub id: u32,
    /// How fast its packets leave, in bits per second.
    pub bps: u64,
    /// How many packets it has at least.
    pub packets: u32,
    /// How many bytes it has at least.
    pub bytes: u64,
}

/// The estimate of one connection.
pub struct Bandwidth {
    wanted: u64,
}

impl Bandwidth {
    /// An estimate that knows nothing yet.
    pub fn new(_now: Instant) -> Self {
        Self { wanted: 0 }
    }

    /// A packet leaves. `sequence` is its transport-wide sequence number, extended past 16 bits, one higher with each; `bytes` is the
    /// datagram's length; `probe` names the probe that it is part of.
    pub fn sent(&mut self, _now: Instant, _sequence: u64, _bytes: usize, _load: Load, _probe: Option<Probe>) {}

    /// The peer's transport-wide feedback: the packet's feedback control information, behind the two SSRCs. What cannot be read is
    /// ignored, and `false`.
    pub fn feedback(&mut self, _now: Instant, _feedback: &[u8]) -> bool {
        false
    }

    /// The round trip that the last feedback tells, if it tells one.
    pub fn round_trip_of_feedback(&self) -> Option<Duration> {
        None
    }

    /// Whether there is anything to tell by: feedback, an estimate of the peer's, or its reports.
    pub fn is_informed(&self) -> bool {
        false
    }

    /// The peer has reported on one stream: so many of so many packets since its last report were lost. Used as long as there is no
    /// feedback.
    pub fn lost(&mut self, _now: Instant, _lost: u32, _expected: u32) {}

    /// A round trip was measured otherwise than by the feedback.
    pub fn round_trip(&mut self, _now: Instant, _round_trip: Duration) {}

    /// The peer's own estimate of what it can receive, in bits per second (draft-alvestrand-rmcat-remb-03). It bounds.
    pub fn peer_estimate(&mut self, _now: Instant, _bps: u64) {}

    /// How much would be of use at most, in bits per second. Nothing beyond it is looked for.
    pub fn set_wanted(&mut self, _now: Instant, bps: u64) {
        self.wanted = bps;
    }

    /// What may be sent in all, in bits per second.
    pub fn estimate(&self) -> u64 {
        u64::MAX
    }

    /// How fast packets may leave that are there, in bits per second; more than the estimate, so that a frame is not spread over the
    /// time until the next one.
    pub fn pacing(&self) -> u64 {
        u64::MAX
    }

    /// The next probe that is to be sent.
    pub fn next_probe(&mut self, _now: Instant) -> Option<Probe> {
        None
    }

    /// When [`Bandwidth::handle_timeout`] has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        None
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, _now: Instant) {}
}
