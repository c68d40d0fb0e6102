//! Which node should take a new room: the policy, pure.
//!
//! Owns the scores, the hard filters and the choice. It must not know where candidates come from, what time it is, or
//! what the map says: candidates, ages and the random number generator are arguments, so that the same input always
//! gives the same choice. What it chooses is a proposal; only [`crate::store::Store::place`] decides.
//!
//! Each policy is a file below this one that picks among scored candidates.

pub mod in_flight;
pub mod region;
pub mod two_choices;

use std::time::Duration;

use rand::Rng;
use signalbox_protocol::NodeId;

pub use in_flight::InFlight;

/// How many participants a room is expected to have in the end. Higher: new rooms spread wider while they are still
/// empty. Lower: a burst of new rooms piles onto the node that was idle when it began.
pub const EXPECTED_PARTICIPANTS: f64 = 4.0;

/// A node that may take a room: serving, its lease long enough.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Who.
    pub node: NodeId,
    /// Where it stands; may be empty.
    pub region: String,
    /// How many participants it takes.
    pub capacity: u32,
    /// How many it has by its last report.
    pub participants: u32,
}

/// A candidate with its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored<'a> {
    /// The candidate.
    pub candidate: &'a Candidate,
    /// The share of its capacity that is, or soon will be, in use. Lower is better; over 1 means that it is expected to
    /// be full.
    pub score: f64,
}

/// The node for a new room, or none if no candidate has capacity left. `now` is the time on the caller's own clock, the
/// one that [`InFlight::note`] was told.
pub fn choose(
    candidates: &[Candidate],
    region: Option<&str>,
    in_flight: &InFlight,
    now: Duration,
    rng: &mut impl Rng,
) -> Option<NodeId> {
    let scored: Vec<Scored<'_>> = candidates
        .iter()
        .filter(|candidate| candidate.participants < candidate.capacity)
        .map(|candidate| Scored {
            candidate,
            score: score(candidate, in_flight, now),
        })
        .collect();
    let eligible = region::prefer(scored, region);
    two_choices::choose(&eligible, rng).map(|chosen| chosen.candidate.node)
}

fn score(candidate: &Candidate, in_flight: &InFlight, now: Duration) -> f64 {
    let expected = in_flight.rooms(candidate.node, now) * EXPECTED_PARTICIPANTS;
    (f64::from(candidate.participants) + expected) / f64::from(candidate.capacity.max(1))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn node(n: u128) -> NodeId {
        NodeId(uuid::Uuid::from_u128(n))
    }

    fn candidate(n: u128, region: &str, participants: u32, capacity: u32) -> Candidate {
        Candidate {
            node: node(n),
            region: region.into(),
            capacity,
            participants,
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_choices() {
        let candidates: Vec<_> = (0..20).map(|n| candidate(n, "", 3, 100)).collect();
        let run = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            let in_flight = InFlight::default();
            (0..50)
                .map(|_| choose(&candidates, None, &in_flight, Duration::ZERO, &mut rng))
                .collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn nobody_is_chosen_when_all_are_full_or_there_is_none() {
        let mut rng = StdRng::seed_from_u64(1);
        let in_flight = InFlight::default();
        let full = [candidate(1, "", 10, 10), candidate(2, "", 0, 0)];
        assert_eq!(choose(&full, None, &in_flight, Duration::ZERO, &mut rng), None);
        assert_eq!(choose(&[], Some("eu"), &in_flight, Duration::ZERO, &mut rng), None);
    }

    #[test]
    fn a_full_node_is_passed_over() {
        let mut rng = StdRng::seed_from_u64(2);
        let in_flight = InFlight::default();
        let candidates = [
            candidate(1, "", 10, 10),
            candidate(2, "", 9, 10),
            candidate(3, "", 10, 10),
        ];
        for _ in 0..100 {
            assert_eq!(
                choose(&candidates, None, &in_flight, Duration::ZERO, &mut rng),
                Some(node(2))
            );
        }
    }

    #[test]
    fn a_burst_on_stale_reports_spreads_over_the_nodes() {
        let candidates: Vec<_> = (0..10).map(|n| candidate(n, "", 0, 1000)).collect();
        let mut rng = StdRng::seed_from_u64(3);
        let mut in_flight = InFlight::default();
        let mut taken = std::collections::BTreeMap::new();
        for placement in 0..1000_u32 {
            let now = Duration::from_millis(u64::from(placement));
            let chosen = choose(&candidates, None, &in_flight, now, &mut rng).unwrap();
            in_flight.note(chosen, now);
            *taken.entry(chosen).or_insert(0_u32) += 1;
        }
        // The mean is 100. Without the rooms in flight every report says zero, and the choice is merely random: about
        // 125.
        let most = taken.values().max().copied().unwrap();
        assert!(most <= 105, "the busiest node of ten got {most} of 1000 rooms");
    }

    #[test]
    fn a_bigger_node_takes_more() {
        let candidates = [candidate(1, "", 0, 1000), candidate(2, "", 0, 3000)];
        let mut rng = StdRng::seed_from_u64(4);
        let mut in_flight = InFlight::default();
        let mut big = 0;
        for _ in 0..400 {
            let chosen = choose(&candidates, None, &in_flight, Duration::ZERO, &mut rng).unwrap();
            in_flight.note(chosen, Duration::ZERO);
            big += u32::from(chosen == node(2));
        }
        assert!(
            (290..=310).contains(&big),
            "{big} of 400 on the node with three quarters of the capacity"
        );
    }
}
