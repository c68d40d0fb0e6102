//! A bad network, seeded: one direction of a link, with a bottleneck and its queue, loss, delay, jitter, duplicates and reordering.
//!
//! It has no clock and no socket: the core's tests run it on virtual time, the UDP proxy on the machine's. What is lost, held back and
//! doubled depends on the seed and on how many datagrams there were before, not on when they came.
//!
//! A datagram goes through [`Impairment::loss`] and [`Impairment::burst`] first, then through the bottleneck, then through the delay.

mod link;

use std::time::Duration;

pub use link::{Counts, Link};

/// What IPv4 and UDP add to each datagram, in bytes (RFC 791 section 3.1, RFC 768). The bottleneck carries them too.
pub const HEADER_BYTES: usize = 28;

/// What a link does to its datagrams.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Impairment {
    /// The share that is lost, each by itself, 0 to 1.
    pub loss: f64,
    /// Loss that comes in bursts, on top.
    pub burst: Option<Burst>,
    /// The least time that one takes.
    pub delay: Duration,
    /// The most that is added; more than the gap between two datagrams reorders them.
    pub jitter: Duration,
    /// What the bottleneck carries, in bits per second, [`HEADER_BYTES`] included. None: there is no bottleneck.
    pub capacity: Option<u64>,
    /// How long the bottleneck's queue may become, as the time that it takes to send it. What comes when it is full is lost.
    pub queue: Duration,
    /// The share that arrives twice, 0 to 1.
    pub duplicate: f64,
    /// The share that is held back for [`Impairment::hold`], so that later ones overtake it, 0 to 1.
    pub reorder: f64,
    /// How long those are held back, and how much later than the first the second of two alike arrives.
    pub hold: Duration,
}

impl Impairment {
    /// A good network.
    pub const NONE: Self = Self {
        loss: 0.0,
        burst: None,
        delay: Duration::from_millis(5),
        jitter: Duration::ZERO,
        capacity: None,
        queue: Duration::from_millis(300),
        duplicate: 0.0,
        reorder: 0.0,
        hold: Duration::from_millis(15),
    };
}

/// Loss in bursts, after Gilbert: the link is good or bad, and loses all while it is bad. Each datagram moves it on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Burst {
    /// The share that is lost in the long run, 0 to 1 (exclusive).
    pub share: f64,
    /// How many datagrams in a row are lost on average, at least 1.
    pub length: f64,
}

impl Burst {
    /// The probability that a datagram finds the link turned bad, or good again.
    fn turns(self, is_bad: bool) -> f64 {
        let leave = 1.0 / self.length.max(1.0);
        // In the long run as many bursts begin as end: (1 − share) · enter = share · leave.
        let enter = leave * self.share / (1.0 - self.share);
        if is_bad { leave } else { enter }.clamp(0.0, 1.0)
    }
}
