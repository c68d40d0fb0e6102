//! Smooth weighted round robin, as in nginx: in turn, by capacity, without runs on the big nodes.
//!
//! It looks at no load, so that it is right only where rooms are alike and live equally long.

use std::collections::HashMap;

use signalbox_protocol::NodeId;

use super::{Candidate, Scored};

/// Whose turn it is.
#[derive(Debug, Default)]
pub struct RoundRobin {
    turns: HashMap<NodeId, Turn>,
    choices: u64,
}

#[derive(Debug, Default)]
struct Turn {
    /// What it has to its credit: it gains its weight at each choice that it takes part in, and whoever is chosen pays all
    /// that was gained. The sum over all nodes is always 0.
    credit: i64,
    /// The choice at which it was last among the candidates.
    seen: u64,
}

impl RoundRobin {
    /// Whose turn it is among those that are eligible; the weights are the capacities. None if nobody is.
    ///
    /// Candidates that are not eligible keep their credit for a request that suits them; who is no candidate any more is
    /// forgotten.
    pub fn choose<'a>(&mut self, candidates: &[Candidate], eligible: &[Scored<'a>]) -> Option<Scored<'a>> {
        self.choices += 1;
        for candidate in candidates {
            self.turns.entry(candidate.node).or_default().seen = self.choices;
        }
        self.turns.retain(|_, turn| turn.seen == self.choices);

        let mut gained = 0;
        let mut best: Option<(Scored<'a>, i64)> = None;
        for &scored in eligible {
            let weight = i64::from(scored.candidate.capacity);
            let turn = self.turns.entry(scored.candidate.node).or_default();
            turn.credit += weight;
            gained += weight;
            if best.is_none_or(|(_, most)| turn.credit > most) {
                best = Some((scored, turn.credit));
            }
        }
        let (chosen, _) = best?;
        self.turns.entry(chosen.candidate.node).or_default().credit -= gained;
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::tests::{candidate, node, scored};

    fn turns(round_robin: &mut RoundRobin, candidates: &[Candidate], count: usize) -> String {
        (0..count)
            .map(|_| round_robin.choose(candidates, &scored(candidates)).unwrap())
            .map(|chosen| char::from(b'a' + chosen.candidate.node.0.as_u128() as u8))
            .collect()
    }

    #[test]
    fn weights_of_five_one_and_one_take_turns_as_in_nginx() {
        let candidates = [candidate(0, 0, 5), candidate(1, 0, 1), candidate(2, 0, 1)];
        let mut round_robin = RoundRobin::default();
        assert_eq!(turns(&mut round_robin, &candidates, 21), "aabacaa".repeat(3));
    }

    #[test]
    fn every_cycle_is_exact() {
        let weights = [7, 3, 11, 2, 1];
        let candidates: Vec<_> = (0..).zip(weights).map(|(n, weight)| candidate(n, 0, weight)).collect();
        let mut round_robin = RoundRobin::default();
        for _ in 0..10 {
            let cycle = turns(&mut round_robin, &candidates, 24);
            let counts = ['a', 'b', 'c', 'd', 'e'].map(|node| cycle.matches(node).count() as u32);
            assert_eq!(counts, weights);
        }
    }

    #[test]
    fn a_node_that_vanished_is_forgotten_and_one_that_does_not_suit_is_not() {
        let candidates = [candidate(0, 0, 1), candidate(1, 0, 1), candidate(2, 0, 1)];
        let mut round_robin = RoundRobin::default();
        assert_eq!(turns(&mut round_robin, &candidates, 1), "a");
        // It is b's turn, but only c suits.
        let only_c = &scored(&candidates)[2..];
        let chosen = round_robin.choose(&candidates, only_c).unwrap();
        assert_eq!(chosen.candidate.node, node(2));
        assert_eq!(turns(&mut round_robin, &candidates, 1), "b");

        turns(&mut round_robin, &candidates[..1], 1);
        assert_eq!(round_robin.turns.len(), 1);
    }

    #[test]
    fn no_node_no_turn() {
        let candidates = [candidate(0, 0, 1)];
        assert_eq!(RoundRobin::default().choose(&candidates, &[]), None);
    }
}
