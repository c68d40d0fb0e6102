//! The transport-wide sequence numbers of what one connection sends (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 2).
//!
//! Who comes from another node has counted that one's packets. It takes ours for more of the same: if our numbers are behind those, its feedback is about
//! both, and it leaves out what has a number that it has seen. Nobody tells us the last one, which a node that was lost could not: the feedback does.

/// The first number is higher. It is extended below as well: the peer may report on the first ones in an order of its own, or count from another node's
/// last one.
const BELOW: u64 = 65_536;

/// So many numbers are left out behind the last one that the peer has seen: the other node may have sent some more. Higher: feedback that is a few
/// bytes longer, once. Lower: packets that are taken for ones that came before.
const LEFT_OUT: u64 = 1_000;

/// What is further ahead than this is taken for what is behind. Then it takes two steps.
const HALF_TURN: u64 = 32_000;

/// A peer may make us go on from another number so often. One that lies spoils its own estimate, and no more.
const MAX_SKIPS: u32 = 4;

/// The numbers of one connection.
#[derive(Debug)]
pub struct Numbers {
    next: u64,
    skips: u32,
}

impl Numbers {
    /// They begin anywhere: those that another node has used are hardly ever among the first ones.
    pub fn new(random: u16) -> Self {
        Self {
            next: BELOW + u64::from(random),
            skips: 0,
        }
    }

    /// The next packet's number, extended past 16 bits.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// It was sent.
    pub fn used(&mut self) {
        self.next += 1;
    }

    /// The peer has told of packets up to this number, exclusive, of which we have not sent the last ones. Goes on behind them. `false`: it has done so
    /// too often to be believed.
    pub fn go_on_behind(&mut self, end: u64) -> bool {
        // What it said before it saw the first of the new ones is as true.
        if end <= self.next {
            return true;
        }
        if self.skips >= MAX_SKIPS {
            return false;
        }
        self.skips += 1;
        let behind = end + LEFT_OUT;
        self.next = if behind - self.next < HALF_TURN {
            behind
        } else {
            self.next + HALF_TURN / 2
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_go_on_behind_what_the_peer_has_seen_a_few_times() {
        let mut numbers = Numbers::new(7);
        numbers.used();
        assert_eq!(numbers.next(), BELOW + 8);
        assert!(numbers.go_on_behind(BELOW + 8), "that was sent");
        assert_eq!(numbers.next(), BELOW + 8);
        assert!(numbers.go_on_behind(80_000));
        assert_eq!(numbers.next(), 80_000 + LEFT_OUT);
        assert!(numbers.go_on_behind(80_010), "it was on its way");
        assert_eq!(numbers.next(), 80_000 + LEFT_OUT);
        let beyond = |numbers: &mut Numbers| {
            let end = numbers.next() + 1;
            numbers.go_on_behind(end)
        };
        assert!((1..MAX_SKIPS).all(|_| beyond(&mut numbers)));
        let last = numbers.next();
        assert!(!beyond(&mut numbers));
        assert_eq!(numbers.next(), last);
    }
}
