//! The places of packets that are missing: which numbers are kept for them, and which have to be filled with empty packets since they will
//! not come.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::track::selection::Cut;

/// Packets that may be missing at a time. Higher: packets can come later after heavy loss. Lower: less memory for each receiver.
const MAX_MISSING: u64 = 1_024;

/// Runs of missing packets that are kept.
const MAX_RUNS: usize = 64;

/// How long a missing packet is waited for; whoever sent it has given up by then. Higher: receivers ask for what nobody has. Lower: what
/// is repaired slowly comes in vain.
const PATIENCE: Duration = Duration::from_secs(2);

/// Empty packets that may be sent at once. One more is earned with each packet that is sent, so that a source that leaves out numbers
/// cannot make us send more packets than it sends twice.
const MAX_EMPTY: u32 = 512;

/// A run of packets that are missing.
#[derive(Debug, Clone, Copy)]
pub struct Gap {
    /// The source's number of the first.
    pub first: u64,
    /// The source's number of the last.
    pub last: u64,
    /// The number that the first has for the receiver; the others follow it.
    pub sequence: u64,
    /// The timestamp, for the receiver, of the source's packet before them.
    pub timestamp: u32,
    /// How their picture ids are moved.
    pub picture_offset: u16,
    /// Since when.
    pub since: Instant,
    /// What was sent of the source then.
    pub cut: Cut,
}

/// One packet of a gap.
pub struct Late {
    /// The number that it has for the receiver.
    pub sequence: u64,
    /// How its picture id is moved.
    pub picture_offset: u16,
}

/// All gaps of a stream, oldest first.
#[derive(Debug, Clone)]
pub struct Gaps {
    runs: VecDeque<Gap>,
    missing: u64,
    /// First number, how many, and timestamp of empty packets that are to be sent.
    empty: VecDeque<(u64, u64, u32)>,
    allowance: u32,
}

impl Default for Gaps {
    fn default() -> Self {
        Self {
            runs: VecDeque::new(),
            missing: 0,
            empty: VecDeque::new(),
            allowance: MAX_EMPTY,
        }
    }
}

impl Gaps {
    /// A packet was sent.
    pub fn earn(&mut self) {
        self.allowance = (self.allowance + 1).min(MAX_EMPTY);
    }

    /// Packets are missing, which come after all that are known.
    pub fn open(&mut self, gap: Gap) {
        self.missing += gap.last - gap.first + 1;
        self.runs.push_back(gap);
        while self.missing > MAX_MISSING || self.runs.len() > MAX_RUNS {
            self.give_up_oldest();
        }
    }

    /// What was sent of the source when a packet was to come, if it is missing.
    pub fn cut(&self, source: u64) -> Option<Cut> {
        self.runs.get(self.find(source)?).map(|gap| gap.cut)
    }

    fn find(&self, source: u64) -> Option<usize> {
        self.runs
            .iter()
            .rposition(|gap| (gap.first..=gap.last).contains(&source))
    }

    /// A packet that was missing is there, with this timestamp for the receiver.
    pub fn take(&mut self, source: u64, timestamp: u32) -> Option<Late> {
        let index = self.find(source)?;
        let gap = *self.runs.get(index)?;
        self.missing -= 1;
        let sequence = gap.sequence + (source - gap.first);
        let before = Gap {
            last: source.wrapping_sub(1),
            ..gap
        };
        let after = Gap {
            first: source + 1,
            sequence: sequence + 1,
            timestamp,
            ..gap
        };
        match (source > gap.first, source < gap.last) {
            (false, false) => {
                self.runs.remove(index);
            }
            (true, false) => self.replace(index, before),
            (false, true) => self.replace(index, after),
            (true, true) => {
                self.replace(index, before);
                self.runs.insert(index + 1, after);
            }
        }
        Some(Late {
            sequence,
            picture_offset: gap.picture_offset,
        })
    }

    fn replace(&mut self, index: usize, gap: Gap) {
        if let Some(place) = self.runs.get_mut(index) {
            *place = gap;
        }
    }

    /// A number that has to be filled.
    pub fn close(&mut self, sequence: u64, timestamp: u32) {
        self.empty.push_back((sequence, 1, timestamp));
    }

    /// Nothing that is missing can come any more.
    pub fn give_up(&mut self) {
        while !self.runs.is_empty() {
            self.give_up_oldest();
        }
    }

    /// Gives up what has been missing for too long.
    pub fn forget(&mut self, now: Instant) {
        while let Some(oldest) = self.runs.front()
            && now.saturating_duration_since(oldest.since) > PATIENCE
        {
            self.give_up_oldest();
        }
    }

    fn give_up_oldest(&mut self) {
        if let Some(gap) = self.runs.pop_front() {
            let count = gap.last - gap.first + 1;
            self.missing -= count;
            self.empty.push_back((gap.sequence, count, gap.timestamp));
        }
    }

    /// The numbers that are kept for packets that may come.
    #[cfg(test)]
    pub fn open_numbers(&self) -> std::collections::BTreeSet<u64> {
        let numbers = |gap: &Gap| gap.sequence..=gap.sequence + (gap.last - gap.first);
        self.runs.iter().flat_map(numbers).collect()
    }

    /// The sequence number and timestamp of an empty packet that has to be sent.
    pub fn next_empty(&mut self) -> Option<(u64, u32)> {
        if self.allowance == 0 {
            // The receiver will have to find out by itself.
            self.empty.clear();
            return None;
        }
        let (sequence, count, timestamp) = self.empty.pop_front()?;
        if count > 1 {
            self.empty.push_front((sequence + 1, count - 1, timestamp));
        }
        self.allowance -= 1;
        Some((sequence, timestamp))
    }
}
