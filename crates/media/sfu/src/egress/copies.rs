//! Second copies of what is sent again, for peers on a path that loses packets without being full. If what is sent again is lost too, a receiver
//! notices only after as long as it takes the round trip for, which without reports of senders is 100 ms in libwebrtc; and its picture stands still.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long after the first the second copy is sent. Higher: it comes later, if it is the one that arrives. Lower: losses in bursts take both.
const DELAY: Duration = Duration::from_millis(10);

/// So many wait at most; the budget for what is sent again bounds them as well.
const MAX_WAITING: usize = 256;

/// What is to be sent once more.
#[derive(Debug, Default)]
pub struct Copies(VecDeque<(Instant, usize, u64)>);

impl Copies {
    /// A packet of a stream is sent again, and is to be so once more in a moment. `false`: too many are.
    pub fn add(&mut self, now: Instant, stream: usize, sequence: u64) -> bool {
        let has_room = self.0.len() < MAX_WAITING;
        if has_room {
            self.0.push_back((now + DELAY, stream, sequence));
        }
        has_room
    }

    /// The next one that is due: the stream and the number.
    pub fn next(&mut self, now: Instant) -> Option<(usize, u64)> {
        let (_, stream, sequence) = self.0.pop_front_if(|(due, ..)| *due <= now)?;
        Some((stream, sequence))
    }

    /// Forgets those of a stream.
    pub fn drop_stream(&mut self, stream: usize) {
        self.0.retain(|(_, of, _)| *of != stream);
    }

    /// When the next one is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.0.front().map(|(due, ..)| *due)
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;

    #[test]
    fn each_comes_once_in_its_time_and_they_are_bounded() {
        let (now, mut copies) = (Instant::now(), Copies::default());
        assert!(copies.add(now, 0, 7) && copies.add(now, 1, 8));
        assert_eq!(copies.next(now), None);
        let due = copies.next_due().unwrap();
        copies.drop_stream(0);
        assert_eq!((copies.next(due), copies.next(due)), (Some((1, 8)), None));
        let taken = (0..2_000).filter(|sequence| copies.add(now, 0, *sequence)).count();
        assert_eq!(taken, MAX_WAITING);
    }
}
