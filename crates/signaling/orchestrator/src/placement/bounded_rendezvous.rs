//! Rendezvous hashing with bounded loads: the first node in a room's order that does not have more than its share.
//!
//! Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads" (2016), on the order that rendezvous
//! hashing gives.

use super::{Scored, rendezvous};

/// The first in the order of `key`, a hash, among those that have less than ⌈(1 + `slack`) · L · wᵢ / Σw⌉ rooms: L counts all
/// rooms on the eligible nodes and the new one, and the weights are the capacities. None if nobody is eligible.
///
/// Rooms are counted by their load, in rooms of `expected` participants. Numbers that make no sense, such as 0 for that,
/// give plain rendezvous hashing.
pub fn choose<'a>(eligible: &[Scored<'a>], key: u64, slack: f64, expected: f64) -> Option<Scored<'a>> {
    let weight = |scored: &Scored<'_>| f64::from(scored.candidate.capacity);
    let rooms = |scored: &Scored<'_>| scored.score * weight(scored) / expected;
    let all = eligible.iter().map(rooms).sum::<f64>() + 1.0;
    let weights: f64 = eligible.iter().map(weight).sum();
    let cap = |scored: &Scored<'_>| ((1.0 + slack) * all * weight(scored) / weights).ceil();

    let below = eligible.iter().filter(|scored| rooms(scored) < cap(scored));
    // The caps add up to more than the rooms that are there, so that someone is below one, unless the numbers make no sense.
    rendezvous::first(below.copied(), key).or_else(|| rendezvous::choose(eligible, key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::tests::{candidate, scored};

    #[test]
    fn a_node_with_its_share_is_passed_over_for_the_next_in_order() {
        let mut candidates: Vec<_> = (0..4).map(|n| candidate(n, 40, 100)).collect();
        for key in 0..50 {
            let first = rendezvous::choose(&scored(&candidates), key).unwrap().candidate.node;
            let choose = |candidates: &[_]| {
                let chosen = choose(&scored(candidates), key, 0.25, 4.0).unwrap();
                chosen.candidate.node
            };
            assert_eq!(choose(&candidates), first);
            let at = candidates.iter().position(|c| c.node == first).unwrap();
            // Of 46 rooms with the new one, a quarter more than its share is 14.4: it has 15.
            candidates[at].participants = 60;
            let others: Vec<_> = candidates.iter().filter(|c| c.node != first).cloned().collect();
            let second = rendezvous::choose(&scored(&others), key).unwrap().candidate.node;
            assert_eq!(choose(&candidates), second);
            candidates[at].participants = 40;
        }
    }

    #[test]
    fn somebody_is_chosen_whatever_the_numbers() {
        let candidates = [candidate(0, 99, 100), candidate(1, 3, 4)];
        for slack in [-1.0, 0.0, f64::NAN, f64::INFINITY] {
            for expected in [0.0, 1e-300, 1.0, 1e300] {
                let chosen = choose(&scored(&candidates), 7, slack, expected);
                assert!(chosen.is_some(), "slack {slack}, expected {expected}");
            }
        }
        assert_eq!(choose(&[], 7, 0.25, 4.0), None);
    }
}
