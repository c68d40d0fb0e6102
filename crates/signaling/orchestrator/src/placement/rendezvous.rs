//! Weighted rendezvous hashing: every key has its own order of the nodes, and takes the first one.
//!
//! Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous" (1996); the weights as in Schindelhauer and
//! Schomaker, "Weighted Distributed Hash Tables" (2005). When a node leaves only its own keys move, in proportion to the
//! others' weights; when one comes it takes only what is now its own.
//!
//! It looks at no load. The map decides where a room is: this only makes a room that was closed likely to return to
//! where it was.

use signalbox_protocol::NodeId;

use super::{Scored, hash};

/// How high `node` stands in the order of `key`, a hash: the highest is first. Over all keys, it is the highest for a share
/// of them that is its share of the weights. More than 0, finite.
pub fn rank(key: u64, node: NodeId, weight: f64) -> f64 {
    let uniform = hash::unit(hash::pair(key, hash::of_id(node.0.as_u128())));
    -weight / uniform.ln()
}

/// The first in the order of `key`, a hash; the weights are the capacities. None if nobody is eligible.
pub fn choose<'a>(eligible: &[Scored<'a>], key: u64) -> Option<Scored<'a>> {
    first(eligible.iter().copied(), key)
}

/// The first of these in the order of `key`.
pub(super) fn first<'a>(eligible: impl Iterator<Item = Scored<'a>>, key: u64) -> Option<Scored<'a>> {
    eligible
        .map(|scored| {
            let weight = f64::from(scored.candidate.capacity);
            (scored, rank(key, scored.candidate.node, weight))
        })
        .max_by(|(_, left), (_, right)| left.total_cmp(right))
        .map(|(scored, _)| scored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::tests::{candidate, scored};

    #[test]
    fn only_the_keys_of_the_node_that_leaves_move() {
        let candidates: Vec<_> = (0..12).map(|n| candidate(n, 0, 10 + n as u32)).collect();
        let all = scored(&candidates);
        let rest = &all[1..];
        for n in 0..2000_u64 {
            let key = hash::of_bytes(&n.to_le_bytes());
            let before = choose(&all, key).unwrap();
            let after = choose(rest, key).unwrap();
            assert!(before == after || before == all[0]);
        }
    }

    #[test]
    fn load_does_not_matter() {
        let idle: Vec<_> = (0..5).map(|n| candidate(n, 0, 10)).collect();
        let busy: Vec<_> = (0..5).map(|n| candidate(n, n as u32, 10)).collect();
        for key in 0..100 {
            let node = |eligible: &[Scored<'_>]| choose(eligible, key).map(|chosen| chosen.candidate.node);
            assert_eq!(node(&scored(&idle)), node(&scored(&busy)));
        }
    }

    #[test]
    fn a_rank_is_a_positive_number_at_the_ends_too() {
        for hash in [0, u64::MAX] {
            let rank = -1.0 / hash::unit(hash).ln();
            assert!(rank > 0.0 && rank.is_finite(), "{rank}");
        }
    }
}
