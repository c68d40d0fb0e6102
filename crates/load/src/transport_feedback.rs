//! Writes transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1): when which packets arrived.

use std::collections::BTreeMap;
use std::time::Instant;

use signalbox_srtp::window::nearest;

/// The unit of the reference time: 64 ms, in units of 250 µs.
const REFERENCE: u64 = 256;

/// Packets that one is about at most, so that it fits into a datagram.
const MAX_COUNT: u64 = 300;

/// What arrived, and was not told of yet.
pub struct TransportFeedback {
    begun: Instant,
    /// When each arrived, in units of 250 µs.
    arrived: BTreeMap<u64, u64>,
    highest: Option<u64>,
    /// The next one that is to be told of.
    next: Option<u64>,
    count: u8,
}

impl TransportFeedback {
    /// One to which nothing has come.
    pub fn new(begun: Instant) -> Self {
        Self {
            begun,
            arrived: BTreeMap::new(),
            highest: None,
            next: None,
            count: 0,
        }
    }

    /// A packet has arrived.
    pub fn arrived(&mut self, now: Instant, number: u16) {
        // It is extended below as well.
        let number = nearest(self.highest.unwrap_or(65_536 + u64::from(number)), number);
        self.highest = self.highest.max(Some(number));
        let next = *self.next.get_or_insert(number);
        // What was said to be missing has come too late.
        if number >= next {
            let ticks = now.saturating_duration_since(self.begun).as_micros() as u64 / 250;
            self.arrived.entry(number).or_insert(ticks);
        }
    }

    /// What is to be told: the feedback control information, behind the two SSRCs.
    pub fn poll(&mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let (Some(next), Some((&last, _))) = (self.next, self.arrived.last_key_value()) {
            let end = (last + 1).min(next + MAX_COUNT);
            let behind = self.arrived.split_off(&end);
            let told = std::mem::replace(&mut self.arrived, behind);
            self.next = Some(end);
            // Nothing of a whole stretch: it is left out, and the next one begins behind it.
            if !told.is_empty() {
                all.push(self.write(next, end, &told));
            }
        }
        all
    }

    fn write(&mut self, first: u64, end: u64, arrived: &BTreeMap<u64, u64>) -> Vec<u8> {
        let reference = arrived.values().min().map_or(0, |ticks| ticks / REFERENCE);
        let mut bytes = (first as u16).to_be_bytes().to_vec();
        bytes.extend(((end - first) as u16).to_be_bytes());
        bytes.extend(&(reference as u32).to_be_bytes()[1..]);
        bytes.push(self.count);
        self.count = self.count.wrapping_add(1);
        let (mut before, mut steps) = (reference * REFERENCE, Vec::new());
        let numbers: Vec<u64> = (first..end).collect();
        for chunk in numbers.chunks(7) {
            // A status vector of seven symbols of two bits.
            let mut word = 0xc000u16;
            for (place, number) in chunk.iter().enumerate() {
                let Some(ticks) = arrived.get(number) else {
                    continue;
                };
                let step = *ticks as i64 - before as i64;
                before = *ticks;
                let symbol = match u8::try_from(step) {
                    Ok(step) => {
                        steps.push(step);
                        1
                    }
                    Err(_) => {
                        steps.extend((step.clamp(i16::MIN.into(), i16::MAX.into()) as i16).to_be_bytes());
                        2
                    }
                };
                word |= symbol << (12 - 2 * place);
            }
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(steps);
        // RTCP counts in words of 32 bits.
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_arrival_is_told_of_once_with_its_time() {
        let begun = Instant::now();
        let mut feedback = TransportFeedback::new(begun);
        for (number, ms) in [(65_534u16, 70u64), (65_535, 71), (1, 72), (0, 73)] {
            feedback.arrived(begun + Duration::from_millis(ms), number);
        }
        let told = feedback.poll();
        // From 65,534 on four; 64 ms; the first of them; all arrived, the last but one with a step back: 24, 4, 8 and −4 quarters of a millisecond.
        let expected = [
            0xff,
            0xfe,
            0,
            4,
            0,
            0,
            1,
            0,
            0b1101_0101,
            0b1000_0000,
            24,
            4,
            8,
            0xff,
            0xfc,
            0,
        ];
        assert_eq!(told, [expected]);
        assert!(feedback.poll().is_empty());
        feedback.arrived(begun + Duration::from_millis(80), 3);
        let told = feedback.poll();
        assert_eq!((told.len(), &told[0][..4]), (1, &[0, 2, 0, 2][..]), "two is missing");
    }
}
