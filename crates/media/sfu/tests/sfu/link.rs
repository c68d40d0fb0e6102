//! A virtual link: seeded loss, delay and reordering.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What a link does to its datagrams.
#[derive(Debug, Clone, Copy)]
pub struct Impairment {
    /// The share that is lost, 0 to 1.
    pub loss: f64,
    /// The least time that one takes.
    pub delay: Duration,
    /// The most that is added; more than the gap between two datagrams reorders them.
    pub jitter: Duration,
}

impl Impairment {
    /// A good network.
    pub const NONE: Self = Self {
        loss: 0.0,
        delay: Duration::from_millis(5),
        jitter: Duration::ZERO,
    };
}

/// One direction of a link.
pub struct Link {
    impairment: Impairment,
    rng: StdRng,
    under_way: BTreeMap<(Instant, u64), Vec<u8>>,
    sent: u64,
}

impl Link {
    pub fn new(impairment: Impairment, seed: u64) -> Self {
        Self {
            impairment,
            rng: StdRng::seed_from_u64(seed),
            under_way: BTreeMap::new(),
            sent: 0,
        }
    }

    /// Begins anew; what is under way still arrives.
    pub fn restart(&mut self, impairment: Impairment, seed: u64) {
        self.impairment = impairment;
        self.rng = StdRng::seed_from_u64(seed);
    }

    pub fn send(&mut self, now: Instant, datagram: Vec<u8>) {
        // Both draws are made for every datagram, so that a run does not depend on what was lost before.
        let is_lost = self.rng.random_bool(self.impairment.loss);
        let jitter = self.impairment.jitter.mul_f64(self.rng.random_range(0.0..1.0));
        self.sent += 1;
        if !is_lost {
            self.under_way
                .insert((now + self.impairment.delay + jitter, self.sent), datagram);
        }
    }

    pub fn next_arrival(&self) -> Option<Instant> {
        self.under_way.keys().next().map(|(at, _)| *at)
    }

    pub fn receive(&mut self, now: Instant) -> Option<Vec<u8>> {
        let key = *self.under_way.keys().next().filter(|(at, _)| *at <= now)?;
        self.under_way.remove(&key)
    }
}
