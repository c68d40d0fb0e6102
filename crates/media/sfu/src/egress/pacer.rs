//! When picture packets leave: as fast as the network is believed to take them, with some room for a frame's packets to leave together.
//!
//! What is sent again goes before what is new. Sound does not wait, and is not here.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Outgoing;

/// What may leave at once after a rest. Higher: a frame leaves in fewer runs, and shallow buffers on the path overflow. Lower: more system
/// calls, and a frame arrives later.
const BURST: Duration = Duration::from_millis(40);

/// What may leave at once at least, in bytes: a few packets, however low the rate is.
const MIN_BURST_BYTES: u64 = 6_000;

/// What waits is looked at when so much of the time has passed that a run is worth it. Higher: longer runs, more delay.
const RUN: Duration = Duration::from_millis(5);

/// How long a packet waits at most. Higher: a picture that is late; lower: a large key frame on a slow path never gets through.
const MAX_WAIT: Duration = Duration::from_millis(1_000);

/// How many packets wait at most, those that are sent again aside.
const MAX_QUEUED: usize = 2_000;

/// How many packets wait to be sent again at most.
const MAX_REPAIRS: usize = 1_000;

/// A packet that waits.
pub struct Queued {
    /// Which stream's.
    pub stream: usize,
    /// The packet.
    pub packet: Outgoing,
    /// Since when.
    pub since: Instant,
}

/// What waits, and how much may leave.
pub struct Pacer {
    /// Bytes that may leave; below zero: more have left than may.
    budget: f64,
    /// Bytes per second.
    rate: f64,
    refilled: Option<Instant>,
    repairs: VecDeque<(usize, u64)>,
    queue: VecDeque<Queued>,
}

impl Pacer {
    /// One that has nothing to send, and lets everything through until it knows a rate.
    pub fn new() -> Self {
        Self {
            budget: f64::INFINITY,
            rate: f64::INFINITY,
            refilled: None,
            repairs: VecDeque::new(),
            queue: VecDeque::new(),
        }
    }

    /// Lets time pass at this rate, in bits per second; `u64::MAX`: there is none.
    pub fn refill(&mut self, now: Instant, bps: u64) {
        if bps == u64::MAX {
            (self.rate, self.budget) = (f64::INFINITY, f64::INFINITY);
            return;
        }
        self.rate = bps as f64 / 8.0;
        let most = (self.rate * BURST.as_secs_f64()).max(MIN_BURST_BYTES as f64);
        let passed = self.refilled.map_or(BURST, |then| now.saturating_duration_since(then));
        self.refilled = Some(now);
        self.budget = (self.budget + self.rate * passed.as_secs_f64()).min(most);
    }

    /// Whether a packet that waits may leave, and one that is new need not wait behind others.
    pub fn may_pass(&self) -> bool {
        self.is_open() && self.queue.is_empty() && self.repairs.is_empty()
    }

    /// Whether something may leave.
    pub fn is_open(&self) -> bool {
        self.budget > 0.0
    }

    /// Something has left.
    pub fn spend(&mut self, bytes: usize) {
        self.budget -= bytes as f64;
    }

    /// Lets a packet wait.
    pub fn queue(&mut self, queued: Queued) {
        self.queue.push_back(queued);
    }

    /// Lets a packet that is sent again wait, unless too many do.
    pub fn queue_repair(&mut self, stream: usize, sequence: u64) -> bool {
        let has_room = self.repairs.len() < MAX_REPAIRS;
        if has_room {
            self.repairs.push_back((stream, sequence));
        }
        has_room
    }

    /// The next packet that is sent again.
    pub fn next_repair(&mut self) -> Option<(usize, u64)> {
        self.repairs.pop_front()
    }

    /// The next packet.
    pub fn next(&mut self) -> Option<Queued> {
        self.queue.pop_front()
    }

    /// The stream of a packet that has waited too long, or of the oldest one if there are too many.
    pub fn overdue(&self, now: Instant) -> Option<usize> {
        let oldest = self.queue.front()?;
        let is_late = now.saturating_duration_since(oldest.since) > MAX_WAIT;
        (is_late || self.queue.len() > MAX_QUEUED).then_some(oldest.stream)
    }

    /// Drops what waits of a stream. Returns how many packets.
    pub fn drop_stream(&mut self, stream: usize) -> u64 {
        let before = self.queue.len();
        self.queue.retain(|queued| queued.stream != stream);
        (before - self.queue.len()) as u64
    }

    /// Forgets what of a stream waits to be sent again.
    pub fn drop_repairs(&mut self, stream: usize) {
        self.repairs.retain(|(of, _)| *of != stream);
    }

    /// When something that waits may leave.
    pub fn next_due(&self) -> Option<Instant> {
        if self.queue.is_empty() && self.repairs.is_empty() {
            return None;
        }
        let wanted = self.rate * RUN.as_secs_f64() - self.budget;
        let wait = Duration::from_secs_f64((wanted / self.rate).clamp(0.0, 1.0));
        self.refilled.map(|then| then + wait)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;

    fn queued(stream: usize, sequence: u64, since: Instant) -> Queued {
        Queued {
            stream,
            packet: Outgoing::empty(96, sequence, 0),
            since,
        }
    }

    #[test]
    fn packets_leave_at_the_rate_after_a_burst() {
        let mut now = Instant::now();
        let mut pacer = Pacer::new();
        pacer.refill(now, 4_000_000);
        let mut at_once = 0;
        while pacer.is_open() {
            pacer.spend(1_000);
            at_once += 1;
        }
        assert_eq!(at_once, 20, "40 ms of 4 Mbit/s");
        let (start, mut later) = (now, 0);
        pacer.queue(queued(0, 0, now));
        while now < start + Duration::from_secs(1) {
            now = pacer.next_due().unwrap().max(now + Duration::from_millis(1));
            pacer.refill(now, 4_000_000);
            while pacer.is_open() {
                pacer.spend(1_000);
                later += 1;
            }
        }
        assert!((495..=505).contains(&later), "{later}");
        pacer.next();
        assert_eq!(pacer.next_due(), None, "nothing waits");
    }

    #[test]
    fn what_waits_too_long_goes_with_all_of_its_stream() {
        let now = Instant::now();
        let mut pacer = Pacer::new();
        for sequence in 0..6 {
            pacer.queue(queued((sequence % 2) as usize, sequence, now));
        }
        assert_eq!(pacer.overdue(now + MAX_WAIT), None);
        assert_eq!(pacer.overdue(now + MAX_WAIT + Duration::from_millis(1)), Some(0));
        assert_eq!(pacer.drop_stream(0), 3);
        assert_eq!(pacer.next().map(|queued| queued.stream), Some(1));
        for sequence in 0..=MAX_QUEUED as u64 {
            pacer.queue(queued(2, sequence, now));
        }
        assert_eq!(pacer.overdue(now), Some(1), "the oldest of too many");
    }

    #[test]
    fn repair_is_bounded() {
        let mut pacer = Pacer::new();
        let taken = (0..2_000).filter(|sequence| pacer.queue_repair(0, *sequence)).count();
        assert_eq!(taken, MAX_REPAIRS);
    }
}
