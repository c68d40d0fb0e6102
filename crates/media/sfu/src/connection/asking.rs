//! Packets of pictures that have not come although the stack has asked for them: they are asked for again as soon as the answer is overdue.
//!
//! The stack asks at once, and again after the round trip, which only the peer could tell it (RFC 3611 section 4.4), and browsers do not: so it takes
//! 100 ms. Here the round trip is what answers take.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::missing::Missing;

/// How long the first answers are waited for. Higher: what is lost twice at the beginning comes later. Lower: more is asked for twice until the first answer
/// has come over a long path.
const FIRST: Duration = Duration::from_millis(50);

/// A request is never repeated sooner. Higher: what is lost twice comes later. Lower: packets that are only out of order are taken for answers, and those
/// that take longer are asked for twice.
const LEAST: Duration = Duration::from_millis(20);

/// Nor later: then the stack has asked by itself.
const MOST: Duration = Duration::from_millis(300);

/// How much longer than usual an answer may take at least: senders pace what they send again.
const MARGIN: Duration = Duration::from_millis(10);

/// Streams at most. What is lost of more is asked for by the stack alone.
const MAX_STREAMS: usize = 256;

/// What is missing of a connection's incoming pictures.
#[derive(Debug, Default)]
pub struct Asking {
    streams: HashMap<u32, Stream>,
    /// How long an answer takes, and how much that varies (RFC 6298 section 2).
    answers: Option<(Duration, Duration)>,
}

#[derive(Debug, Default)]
struct Stream {
    highest: u64,
    missing: Missing,
}

impl Asking {
    /// A packet of a stream has come, for the first time. Its number is extended past 16 bits. Whether it is an answer: one that is late as it is may be
    /// just out of order.
    pub fn packet(&mut self, now: Instant, ssrc: u32, sequence: u64, is_answer: bool) {
        let patience = self.patience();
        if self.streams.len() >= MAX_STREAMS && !self.streams.contains_key(&ssrc) {
            return;
        }
        let stream = self.streams.entry(ssrc).or_insert_with(|| Stream {
            highest: sequence,
            ..Stream::default()
        });
        let missed = stream.missing.packet(now, sequence, Some(stream.highest), patience);
        stream.highest = stream.highest.max(sequence);
        // If the first request was lost, or its answer, it took longer than the round trip, never less.
        if let Some(took) = missed.filter(|_| is_answer) {
            let (usual, varies) = self.answers.unwrap_or((took, took / 2));
            let off = usual.abs_diff(took);
            self.answers = Some(((usual * 7 + took) / 8, (varies * 3 + off) / 4));
        }
    }

    /// What is to be asked for now: of which stream, and which numbers.
    pub fn next(&mut self, now: Instant) -> Option<(u32, Vec<u16>)> {
        let patience = self.patience();
        self.streams.iter_mut().find_map(|(ssrc, stream)| {
            let is_due = stream.missing.next_due().is_some_and(|due| due <= now);
            let missing = is_due.then(|| stream.missing.due(now, patience))?;
            (!missing.is_empty()).then_some((*ssrc, missing))
        })
    }

    /// When [`Asking::next`] has something.
    pub fn next_due(&self) -> Option<Instant> {
        let streams = self.streams.values();
        streams.filter_map(|stream| stream.missing.next_due()).min()
    }

    fn patience(&self) -> Duration {
        let Some((usual, varies)) = self.answers else {
            return FIRST;
        };
        (usual + (varies * 4).max(MARGIN)).clamp(LEAST, MOST)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// When a packet that never comes is asked for, in milliseconds after it was missed, if others were answered after `takes`.
    fn asked(takes: Duration) -> Vec<u128> {
        let (mut now, mut asking, mut sequence) = (Instant::now(), Asking::default(), 1_000);
        asking.packet(now, 7, sequence, false);
        for _ in 0..20 {
            asking.packet(now, 7, sequence + 2, false);
            asking.packet(now + takes, 7, sequence + 1, true);
            sequence += 2;
            now += Duration::from_secs(1);
            assert_eq!(asking.next(now), None);
        }
        asking.packet(now, 7, sequence + 2, false);
        let missed = now;
        let mut times = Vec::new();
        while let Some(due) = asking.next_due() {
            now = due;
            if let Some((ssrc, numbers)) = asking.next(now) {
                assert_eq!((ssrc, numbers), (7, vec![sequence as u16 + 1]));
                times.push((now - missed).as_millis());
            }
        }
        times
    }

    #[test]
    fn what_is_lost_twice_is_asked_for_again_when_its_answer_is_overdue() {
        assert_eq!(asked(2 * MS), [20, 40, 60]);
        let far = asked(150 * MS);
        assert!((160..=165).contains(&far[0]), "{far:?}");
    }

    #[test]
    fn until_an_answer_has_come_it_is_patient() {
        let (now, mut asking) = (Instant::now(), Asking::default());
        asking.packet(now, 7, 1, false);
        asking.packet(now, 7, 3, false);
        assert_eq!(asking.next_due(), Some(now + FIRST));
        assert_eq!(asking.next(now + FIRST), Some((7, vec![2])));
        let answered = now + FIRST * 3;
        asking.packet(answered, 7, 2, true);
        asking.packet(answered, 7, 5, false);
        assert!(asking.next_due() > Some(answered + FIRST * 3));
    }

    #[test]
    fn what_is_only_out_of_order_is_no_answer() {
        let (now, mut asking) = (Instant::now(), Asking::default());
        for sequence in [1, 3, 2, 5] {
            asking.packet(now, 7, sequence, false);
        }
        assert_eq!(asking.next_due(), Some(now + FIRST));
    }

    #[test]
    fn streams_without_number_are_not_followed() {
        let (now, mut asking) = (Instant::now(), Asking::default());
        for ssrc in 0..2 * MAX_STREAMS as u32 {
            asking.packet(now, ssrc, 1, false);
        }
        assert_eq!(asking.streams.len(), MAX_STREAMS);
    }
}
