//! Region first: a filter before the choice.

use super::Scored;

/// The score from which a region counts as full and its rooms spill over. Higher: rooms stay near for longer. Lower:
/// more headroom for the rooms that are already there to grow.
pub const FULL: f64 = 0.8;

/// Those candidates that stand in `region` and have room to spare; all candidates if there are none, or no region is
/// asked for.
pub fn prefer<'a>(scored: Vec<Scored<'a>>, region: Option<&str>) -> Vec<Scored<'a>> {
    let Some(region) = region else { return scored };
    let near: Vec<Scored<'a>> = scored
        .iter()
        .copied()
        .filter(|s| s.candidate.region == region && s.score < FULL)
        .collect();
    if near.is_empty() { scored } else { near }
}

#[cfg(test)]
mod tests {
    use signalbox_protocol::NodeId;

    use super::super::Candidate;
    use super::*;

    fn candidate(n: u128, region: &str) -> Candidate {
        Candidate {
            node: NodeId(uuid::Uuid::from_u128(n)),
            region: region.into(),
            capacity: 100,
            participants: 0,
        }
    }

    #[test]
    fn the_region_is_preferred_until_it_is_full_and_then_spills_over() {
        let (eu, us) = (candidate(1, "eu"), candidate(2, "us"));
        let with = |eu_score| {
            vec![
                Scored {
                    candidate: &eu,
                    score: eu_score,
                },
                Scored {
                    candidate: &us,
                    score: 0.1,
                },
            ]
        };
        assert_eq!(prefer(with(0.5), Some("eu")).len(), 1);
        assert_eq!(prefer(with(0.5), Some("eu"))[0].candidate, &eu);
        assert_eq!(prefer(with(0.8), Some("eu")).len(), 2);
        assert_eq!(prefer(with(0.5), Some("mars")).len(), 2);
        assert_eq!(prefer(with(0.5), None).len(), 2);
    }
}
