//! Power of two choices: two nodes at random, the less loaded one of them.
//!
//! Choosing the best of all on reports that are a heartbeat old sends every room of that time to one node. Two random
//! choices come close to the best without that herd.

use rand::{Rng, RngExt};

use super::Scored;

/// The better of two distinct random candidates; the only one if there is one; none if there is none.
pub fn choose<'a>(eligible: &[Scored<'a>], rng: &mut impl Rng) -> Option<Scored<'a>> {
    match eligible {
        [] => None,
        [only] => Some(*only),
        _ => {
            let first = rng.random_range(0..eligible.len());
            // Uniform over the others: the last index stands in for the one already taken.
            let drawn = rng.random_range(0..eligible.len() - 1);
            let second = if drawn == first { eligible.len() - 1 } else { drawn };
            let (first, second) = (*eligible.get(first)?, *eligible.get(second)?);
            Some(if second.score < first.score { second } else { first })
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::placement::tests::{candidate, scored};

    #[test]
    fn every_pair_is_equally_likely_and_the_better_wins() {
        // Of n nodes the k-th best, from 0, is the better one in n − 1 − k of the pairs.
        let candidates: Vec<_> = (0..5).map(|n| candidate(n, n as u32, 10)).collect();
        let mut rng = StdRng::seed_from_u64(1);
        let mut wins = [0; 5];
        for _ in 0..10_000 {
            let chosen = choose(&scored(&candidates), &mut rng).unwrap();
            wins[chosen.candidate.node.0.as_u128() as usize] += 1;
        }
        for (won, expected) in wins.into_iter().zip([4000_i32, 3000, 2000, 1000, 0]) {
            assert!((won - expected).abs() < 200, "{wins:?}");
        }
    }
}
