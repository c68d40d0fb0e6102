//! The least loaded node of all.
//!
//! Right for one orchestrator, whose rooms in flight tell it what the reports do not. Several of them see the same idle
//! node at the same time and send it all their rooms until the next report: then two choices do better.

use rand::{Rng, RngExt};

use super::Scored;

/// The candidate with the lowest score; among equals a random one, so that orchestrators that all see an idle cluster do
/// not begin with the same node. None if there is none.
pub fn choose<'a>(eligible: &[Scored<'a>], rng: &mut impl Rng) -> Option<Scored<'a>> {
    let least = eligible.iter().map(|scored| scored.score).min_by(f64::total_cmp)?;
    let equals = || eligible.iter().filter(|scored| scored.score.total_cmp(&least).is_eq());
    let turn = rng.random_range(0..equals().count());
    equals().nth(turn).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::placement::tests::{candidate, node, scored};

    #[test]
    fn the_least_loaded_is_chosen_and_equals_at_random() {
        let candidates = [candidate(1, 3, 10), candidate(2, 2, 10), candidate(3, 4, 20)];
        let mut rng = StdRng::seed_from_u64(1);
        let chosen: BTreeSet<_> = (0..100)
            .map(|_| choose(&scored(&candidates), &mut rng).unwrap().candidate.node)
            .collect();
        assert_eq!(chosen, BTreeSet::from([node(2), node(3)]));
        assert_eq!(choose(&[], &mut rng), None);
    }
}
