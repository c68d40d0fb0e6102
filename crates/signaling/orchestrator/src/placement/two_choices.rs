//! Power of two choices: two nodes at random, the less loaded one of them.
//!
//! Choosing the best of all on reports that are a heartbeat old sends every room of that time to one node. Two random
//! choices come close to the best without that herd.

use rand::{Rng, RngExt};

use super::Scored;

/// The better of two distinct random candidates; the only one if there is one; none if there is none.
pub fn choose<'a>(candidates: &[Scored<'a>], rng: &mut impl Rng) -> Option<Scored<'a>> {
    match candidates {
        [] => None,
        [only] => Some(*only),
        _ => {
            let first = rng.random_range(0..candidates.len());
            // Uniform over the others: the last index stands in for the one already taken.
            let drawn = rng.random_range(0..candidates.len() - 1);
            let second = if drawn == first { candidates.len() - 1 } else { drawn };
            let (first, second) = (*candidates.get(first)?, *candidates.get(second)?);
            Some(if second.score < first.score { second } else { first })
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use signalbox_protocol::NodeId;

    use super::super::Candidate;
    use super::*;

    fn candidates(count: u128) -> Vec<Candidate> {
        let node = |n| NodeId(uuid::Uuid::from_u128(n));
        (0..count)
            .map(|n| Candidate {
                node: node(n),
                region: String::new(),
                capacity: 100,
                participants: 0,
            })
            .collect()
    }

    #[test]
    fn the_most_loaded_node_is_never_chosen() {
        let nodes = candidates(5);
        let scored: Vec<_> = nodes
            .iter()
            .enumerate()
            .map(|(n, candidate)| Scored {
                candidate,
                score: n as f64 / 10.0,
            })
            .collect();
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..1000 {
            assert_ne!(choose(&scored, &mut rng).unwrap().candidate, &nodes[4]);
        }
    }

    #[test]
    fn equal_nodes_are_chosen_equally_often() {
        let nodes = candidates(5);
        let scored: Vec<_> = nodes.iter().map(|candidate| Scored { candidate, score: 0.0 }).collect();
        let mut rng = StdRng::seed_from_u64(2);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..10_000 {
            *counts
                .entry(choose(&scored, &mut rng).unwrap().candidate.node)
                .or_insert(0_u32) += 1;
        }
        assert_eq!(counts.len(), 5);
        assert!(counts.values().all(|count| (1850..=2150).contains(count)), "{counts:?}");
    }

    #[test]
    fn one_candidate_is_taken_and_none_is_none() {
        let nodes = candidates(1);
        let scored = [Scored {
            candidate: &nodes[0],
            score: 5.0,
        }];
        let mut rng = StdRng::seed_from_u64(3);
        assert_eq!(choose(&scored, &mut rng).unwrap().candidate, &nodes[0]);
        assert!(choose(&[], &mut rng).is_none());
    }
}
