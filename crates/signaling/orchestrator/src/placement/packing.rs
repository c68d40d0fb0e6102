//! The fullest node that has room to spare: the emptiest ones run dry, and can be switched off.

use rand::Rng;

use super::{Scored, two_choices};

/// The candidate with the highest score among those that stay at or below `pack_to` with one more room of `expected`
/// participants; among equals the first. When all would be above, two choices among all. None if nobody is eligible.
pub fn choose<'a>(eligible: &[Scored<'a>], pack_to: f64, expected: f64, rng: &mut impl Rng) -> Option<Scored<'a>> {
    eligible
        .iter()
        .filter(|scored| scored.score + expected / f64::from(scored.candidate.capacity) <= pack_to)
        // Of equals, `max_by` takes the last.
        .rev()
        .max_by(|left, right| left.score.total_cmp(&right.score))
        .copied()
        .or_else(|| two_choices::choose(eligible, rng))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::placement::Candidate;
    use crate::placement::tests::{candidate, scored};

    fn chosen(candidates: &[Candidate], seed: u64) -> u128 {
        let mut rng = StdRng::seed_from_u64(seed);
        let chosen = choose(&scored(candidates), 0.65, 5.0, &mut rng).unwrap();
        chosen.candidate.node.0.as_u128()
    }

    #[test]
    fn the_fullest_that_has_room_for_one_more_is_filled_up() {
        let candidates = [candidate(0, 10, 100), candidate(1, 60, 100), candidate(2, 61, 100)];
        assert_eq!(chosen(&candidates, 1), 1);
    }

    #[test]
    fn of_equals_every_orchestrator_takes_the_first() {
        let candidates = [candidate(0, 10, 100), candidate(1, 10, 100), candidate(2, 20, 200)];
        assert!((0..20).all(|seed| chosen(&candidates, seed) == 0));
    }

    #[test]
    fn two_choices_when_none_has_room_to_spare() {
        let candidates = [candidate(0, 70, 100), candidate(1, 90, 100)];
        assert!((0..20).all(|seed| chosen(&candidates, seed) == 0));
    }
}
