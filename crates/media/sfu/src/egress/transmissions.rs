//! Which packets of pictures went under which transport-wide numbers, so that feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1) says
//! what has been lost, of what was sent again as well. A request for it (RFC 4585 section 6.2.1) may be lost too, and receivers repeat it only after as long as
//! they take the round trip for: without reports of senders libwebrtc takes 100 ms.

use std::collections::VecDeque;

/// Numbers remembered: a second's of a fast path, of which feedback comes ten times a second. Higher: more memory for each receiver. Lower: feedback
/// over a long fast path is about what is forgotten.
const CAPACITY: usize = 1_024;

/// One packet's way to the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmission {
    /// The stream.
    pub stream: u16,
    /// The low bits of the packet's number there, whichever stream carried it. They are enough: a stream's last thousand numbers differ in them.
    pub sequence: u16,
    /// It was not the first one.
    is_again: bool,
    has_arrived: bool,
}

/// What was sent of late.
#[derive(Debug, Default)]
pub struct Transmissions {
    /// By transport-wide number; none: it was something else.
    sent: VecDeque<Option<Transmission>>,
    /// The number behind the last one.
    end: u64,
}

impl Transmissions {
    /// A packet of a stream is sent, for the first time or again.
    pub fn sent(&mut self, number: u64, stream: usize, sequence: u64, is_again: bool) {
        let left_out = number.saturating_sub(self.end);
        if left_out > CAPACITY as u64 || number < self.end {
            self.sent.clear();
        } else {
            (0..left_out).for_each(|_| self.push(None));
        }
        self.end = number;
        self.push(Some(Transmission {
            stream: stream as u16,
            sequence: sequence as u16,
            is_again,
            has_arrived: false,
        }));
    }

    fn push(&mut self, sent: Option<Transmission>) {
        if self.sent.len() >= CAPACITY {
            self.sent.pop_front();
        }
        self.sent.push_back(sent);
        self.end += 1;
    }

    /// The receiver tells of a number. Returns what has to be sent again: it is lost, and nothing else is on its way that would do.
    pub fn told(&mut self, number: u64, has_arrived: bool) -> Option<Transmission> {
        let first = self.end - self.sent.len() as u64;
        let place = usize::try_from(number.checked_sub(first)?).ok()?;
        let told = self.sent.get_mut(place)?.as_mut()?;
        told.has_arrived |= has_arrived && told.is_again;
        let told = *told;
        if has_arrived {
            return None;
        }
        let is_same = |sent: &Transmission| (sent.stream, sent.sequence) == (told.stream, told.sequence);
        let mut others = self
            .sent
            .iter()
            .enumerate()
            .filter_map(|(place, sent)| Some((place, sent.as_ref()?)));
        let will_do = others.any(|(other, sent)| is_same(sent) && (other > place || sent.has_arrived));
        (!will_do).then_some(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent() -> Transmissions {
        let mut transmissions = Transmissions::default();
        for place in 0..10 {
            transmissions.sent(70_000 + place, 2, 500 + place, false);
        }
        transmissions
    }

    fn lost(transmissions: &mut Transmissions, number: u64) -> Option<u16> {
        transmissions.told(number, false).map(|lost| {
            assert_eq!(lost.stream, 2);
            lost.sequence
        })
    }

    #[test]
    fn what_is_lost_is_sent_again_unless_that_is_on_its_way() {
        let mut transmissions = sent();
        assert_eq!(transmissions.told(70_003, true), None);
        assert_eq!(lost(&mut transmissions, 70_004), Some(504));
        // Sound takes numbers as well.
        transmissions.sent(70_015, 2, 504, true);
        assert_eq!(lost(&mut transmissions, 70_004), None, "it was sent again");
        assert_eq!(lost(&mut transmissions, 70_012), None);
        assert_eq!(lost(&mut transmissions, 70_015), Some(504), "that was lost too");
    }

    #[test]
    fn of_two_copies_one_is_enough() {
        for (arrived, other) in [(70_010, 70_011), (70_011, 70_010)] {
            let mut transmissions = sent();
            transmissions.sent(70_010, 2, 504, true);
            transmissions.sent(70_011, 2, 504, true);
            assert_eq!(transmissions.told(arrived, true), None);
            assert_eq!(lost(&mut transmissions, other), None);
        }
    }

    #[test]
    fn what_is_forgotten_is_not_sent_again() {
        let mut transmissions = sent();
        assert_eq!(lost(&mut transmissions, 69_999), None);
        assert_eq!(lost(&mut transmissions, 70_010), None);
        for number in 0..CAPACITY as u64 {
            transmissions.sent(70_010 + number, 3, number, false);
        }
        assert_eq!(lost(&mut transmissions, 70_004), None);
        assert_eq!(transmissions.sent.len(), CAPACITY);
        // The numbers go on behind what the receiver has seen elsewhere.
        transmissions.sent(90_000, 2, 7, false);
        assert_eq!(transmissions.sent.len(), 1);
        assert_eq!(lost(&mut transmissions, 90_000), Some(7));
    }
}
