//! The packets that were sent on a stream of late, to be sent again when they are asked for, or to measure with.

use std::time::{Duration, Instant};

/// Packets kept of a stream at most: at 5 Mbit/s about a second's. Higher: more memory for each stream, which holds its payloads that long.
/// Lower: what is asked for late is gone.
const CAPACITY: usize = 512;

/// Room for so many at first; as many again whenever one would take the place of another that is still of use.
const FIRST_CAPACITY: usize = 32;

/// What was sent so long ago is not sent again: no receiver waits for it any more.
const MEMORY: Duration = Duration::from_secs(2);

/// What is kept of a packet: there are hundreds of them for each receiver.
#[derive(Debug)]
struct Kept<P> {
    sequence: u64,
    packet: P,
    /// When it was sent first.
    first: Time,
    /// How many microseconds later it was sent again last.
    again: Option<u32>,
}

/// Microseconds since the first packet of a history.
type Time = u64;

const MEMORY_TIME: Time = MEMORY.as_micros() as u64;

impl<P> Kept<P> {
    /// Whether it is not too old to be sent again.
    fn is_recent(&self, now: Time) -> bool {
        now.saturating_sub(self.first) < MEMORY_TIME
    }
}

/// Why a packet is not sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It was never sent, or too long ago.
    Unknown,
    /// It was sent again so little ago that the receiver cannot miss that yet.
    Recent,
}

/// The last packets of one stream, by their sequence numbers, extended past 16 bits.
#[derive(Debug)]
pub struct History<P> {
    ring: Vec<Option<Kept<P>>>,
    highest: u64,
    /// When the first packet was sent.
    begun: Option<Instant>,
}

impl<P> Default for History<P> {
    fn default() -> Self {
        Self {
            ring: Vec::new(),
            highest: 0,
            begun: None,
        }
    }
}

impl<P> History<P> {
    /// Keeps a packet, in the place of one that was sent long before.
    pub fn keep(&mut self, now: Instant, sequence: u64, packet: P) {
        if self.ring.is_empty() {
            self.ring.resize_with(FIRST_CAPACITY, || None);
        }
        self.begun.get_or_insert(now);
        let now = self.time(now);
        while self.ring.len() < CAPACITY
            && let Some(kept) = self.slot(sequence)
            && kept.sequence != sequence
            && kept.is_recent(now)
        {
            self.grow();
        }
        self.highest = self.highest.max(sequence);
        let place = self.place(sequence);
        if let Some(slot) = self.ring.get_mut(place) {
            *slot = Some(Kept {
                sequence,
                packet,
                first: now,
                again: None,
            });
        }
    }

    /// Makes room for twice as many. None that are kept have the same place afterwards, as none have now.
    fn grow(&mut self) {
        let length = self.ring.len() * 2;
        let kept = std::mem::take(&mut self.ring);
        self.ring.resize_with(length, || None);
        for kept in kept.into_iter().flatten() {
            let place = self.place(kept.sequence);
            if let Some(slot) = self.ring.get_mut(place) {
                *slot = Some(kept);
            }
        }
    }

    fn time(&self, now: Instant) -> Time {
        let passed = self.begun.map(|begun| now.saturating_duration_since(begun));
        passed.unwrap_or_default().as_micros() as u64
    }

    /// Where a packet is; nothing may be kept yet.
    fn place(&self, sequence: u64) -> usize {
        (sequence % self.ring.len().max(1) as u64) as usize
    }

    fn slot(&self, sequence: u64) -> Option<&Kept<P>> {
        self.ring.get(self.place(sequence))?.as_ref()
    }

    /// A packet to be sent again now, unless that was done less than `pause` ago. The first time it does not matter when it was sent: who asks has seen
    /// a later one.
    pub fn again(&mut self, now: Instant, sequence: u64, pause: Duration) -> Result<&P, Missing> {
        let (now, place) = (self.time(now), self.place(sequence));
        let sent = self
            .ring
            .get_mut(place)
            .and_then(Option::as_mut)
            .filter(|sent| sent.sequence == sequence && sent.is_recent(now))
            .ok_or(Missing::Unknown)?;
        // It is recent, so that this fits.
        let since = now.saturating_sub(sent.first) as u32;
        let is_too_soon = |again: u32| u128::from(since.saturating_sub(again)) < pause.as_micros();
        if sent.again.is_some_and(is_too_soon) {
            return Err(Missing::Recent);
        }
        sent.again = Some(since);
        Ok(&sent.packet)
    }

    /// A packet that is kept.
    pub fn get(&self, sequence: u64) -> Option<&P> {
        let sent = self.slot(sequence);
        sent.filter(|sent| sent.sequence == sequence).map(|sent| &sent.packet)
    }

    /// The newest packet of the last few that will do.
    pub fn newest(&self, now: Instant, will_do: impl Fn(&P) -> bool) -> Option<&P> {
        let now = self.time(now);
        (0..8)
            .filter_map(|back| self.highest.checked_sub(back))
            .filter_map(|sequence| self.slot(sequence))
            .find(|sent| will_do(&sent.packet) && sent.is_recent(now))
            .map(|sent| &sent.packet)
    }

    /// Lets go of what is too old to be sent again; the memory of a stream that rests is free again.
    pub fn forget(&mut self, now: Instant) {
        let (now, mut is_empty) = (self.time(now), true);
        for slot in &mut self.ring {
            if slot.as_ref().is_some_and(|sent| !sent.is_recent(now)) {
                *slot = None;
            }
            is_empty &= slot.is_none();
        }
        if is_empty {
            self.ring = Vec::new();
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.ring = Vec::new();
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_sent_again_once_in_a_round_trip_and_not_for_ever() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut history = History::default();
        assert_eq!(history.again(start, 7, ms(50)).unwrap_err(), Missing::Unknown);
        history.keep(start, 7, ());
        assert!(history.again(start + ms(1), 7, ms(50)).is_ok());
        assert_eq!(history.again(start + ms(50), 7, ms(50)).unwrap_err(), Missing::Recent);
        assert!(history.again(start + ms(51), 7, ms(50)).is_ok());
        assert_eq!(history.again(start + ms(100), 7, ms(50)).unwrap_err(), Missing::Recent);
        assert!(history.again(start + ms(101), 7, ms(50)).is_ok());
        assert_eq!(history.again(start + MEMORY, 7, ms(50)).unwrap_err(), Missing::Unknown);
        for sequence in 7..=7 + CAPACITY as u64 {
            history.keep(start, sequence, ());
        }
        assert_eq!(history.again(start + ms(500), 7, ms(50)).unwrap_err(), Missing::Unknown);
    }

    #[test]
    fn a_stream_that_rests_holds_nothing() {
        let start = Instant::now();
        let mut history = History::default();
        history.keep(start, 7, ());
        history.forget(start + MEMORY - Duration::from_millis(1));
        assert_eq!(history.ring.len(), FIRST_CAPACITY);
        history.forget(start + MEMORY);
        assert!(history.ring.is_empty());
    }

    #[test]
    fn it_has_room_for_what_is_of_use_and_for_no_more_than_that() {
        let (start, step) = (Instant::now(), Duration::from_millis(25));
        let mut history = History::default();
        let mut keep = |sequences: std::ops::Range<u64>, step: Duration| {
            for sequence in sequences {
                history.keep(start + step * (sequence - 1_000) as u32, sequence, ());
            }
            history.ring.len()
        };
        // 80 of them in the time that they are kept.
        assert_eq!(keep(1_000..1_400, step), 128);
        assert_eq!(keep(1_400..1_800, step), 128);
        let now = start + step * 799;
        for sequence in 1_721..1_800 {
            assert!(history.get(sequence).is_some(), "{sequence}");
            assert!(history.again(now, sequence, step).is_ok(), "{sequence}");
        }
        assert!(history.get(1_600).is_none());
        // However many come, and however they are numbered.
        for sequence in (0..20_000).map(|number| 2_000 + number * 7) {
            history.keep(now, sequence, ());
        }
        assert_eq!(history.ring.len(), CAPACITY);
    }
}
