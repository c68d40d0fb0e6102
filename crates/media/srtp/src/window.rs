//! Which packet indices were taken before (RFC 3711 section 3.3.2), and which index a packet has of which only the low 16 bits are
//! known (section 3.3.1).

/// The last `(WORDS − 1) · 64` indices up to the highest one that was taken. What is older counts as taken.
///
/// The bits are a ring (RFC 6479), so that moving on clears words and shifts nothing.
#[derive(Debug, Clone)]
pub struct Window<const WORDS: usize> {
    highest: Option<u64>,
    taken: [u64; WORDS],
}

/// 1,024 packets: a second of video at 10 Mbit/s. Higher: packets that come later than that are taken. Lower: more memory is saved
/// than is worth it.
pub type RtpWindow = Window<17>;

/// 64 packets, the least that RFC 3711 allows: RTCP is sparse.
pub type RtcpWindow = Window<2>;

impl<const WORDS: usize> Default for Window<WORDS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const WORDS: usize> Window<WORDS> {
    /// Nothing was taken yet.
    pub fn new() -> Self {
        Self {
            highest: None,
            taken: [0; WORDS],
        }
    }

    /// The highest index that was taken.
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Whether an index may be taken: it was not yet, and is not too old to tell.
    pub fn is_new(&self, index: u64) -> bool {
        match self.highest {
            Some(highest) if index <= highest => {
                highest - index < (WORDS as u64 - 1) * 64 && self.taken[Self::word(index)] & Self::bit(index) == 0
            }
            _ => true,
        }
    }

    /// Takes an index that is new. Returns whether it is the highest so far. To be called for authentic packets only.
    pub fn take(&mut self, index: u64) -> bool {
        let is_highest = self.highest.is_none_or(|highest| index > highest);
        if is_highest {
            // The words that the ring has not reached before, or only laps ago.
            let word = index / 64;
            let reached = self.highest.map_or(0, |highest| highest / 64 + 1);
            for word in reached.max(word.saturating_sub(WORDS as u64 - 1))..=word {
                self.taken[Self::word(word * 64)] = 0;
            }
            self.highest = Some(index);
        }
        self.taken[Self::word(index)] |= Self::bit(index);
        is_highest
    }

    fn word(index: u64) -> usize {
        (index / 64 % WORDS as u64) as usize
    }

    fn bit(index: u64) -> u64 {
        1 << (index % 64)
    }
}

/// The index nearest to the highest one that has these low bits (RFC 3711 section 3.3.1).
pub fn nearest(highest: u64, low: u16) -> u64 {
    let step = low.wrapping_sub(highest as u16) as i16;
    // Before the first rollover, there is nothing behind 0.
    highest
        .checked_add_signed(step.into())
        .unwrap_or_else(|| (highest & !0xffff) | u64::from(low))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn an_index_is_new_once_and_only_within_the_window() {
        let mut rng = StdRng::seed_from_u64(5);
        let (mut window, mut taken, mut highest) = (RtpWindow::new(), BTreeSet::new(), 0u64);
        for round in 0..200_000 {
            let index = match rng.random_range(0..100) {
                0 => highest + rng.random_range(0..5_000),
                1..50 => highest + 1,
                _ => highest.saturating_sub(rng.random_range(0..1_200)),
            };
            let expected = round == 0 || index > highest || (highest - index < 1_024 && !taken.contains(&index));
            assert_eq!(window.is_new(index), expected, "{index} at {highest}");
            if expected {
                assert_eq!(window.take(index), round == 0 || index > highest);
                taken.insert(index);
                highest = highest.max(index);
            }
        }
    }

    #[test]
    fn the_nearest_index_follows_rollovers_both_ways() {
        assert_eq!(nearest(10, 11), 11);
        assert_eq!(nearest(10, 9), 9);
        assert_eq!(nearest(65_535, 0), 65_536);
        assert_eq!(nearest(65_536, 65_535), 65_535);
        assert_eq!(nearest(3 * 65_536 + 60_000, 100), 4 * 65_536 + 100);
        assert_eq!(nearest(4 * 65_536 + 100, 60_000), 3 * 65_536 + 60_000);
        assert_eq!(
            nearest(5, 65_000),
            65_000,
            "nothing is behind the first packet's rollover"
        );
    }
}
