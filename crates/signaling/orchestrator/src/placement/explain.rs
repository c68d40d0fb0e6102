//! What is written down about a choice.

use std::cmp::Ordering;
use std::ptr;

use signalbox_protocol::history::{Considered, Filter, MAX_CANDIDATES};

use super::{Candidate, Field, Scored};

/// Everyone who was considered, and how many more there were: the chosen one, the others by score, those that were filtered
/// out; at most [`MAX_CANDIDATES`]. `score` is for the last, which have none yet.
pub fn explain(
    mut field: Field<'_>,
    chosen: Option<Scored<'_>>,
    score: impl Fn(&Candidate) -> f64,
) -> (Vec<Considered>, u32) {
    let total = field.eligible.len() + field.filtered.len();
    let is_chosen = |scored: &Scored<'_>| chosen.is_some_and(|chosen| ptr::eq(chosen.candidate, scored.candidate));
    let order = |left: &Scored<'_>, right: &Scored<'_>| -> Ordering {
        is_chosen(right)
            .cmp(&is_chosen(left))
            .then_with(|| left.score.total_cmp(&right.score))
            .then_with(|| left.candidate.node.cmp(&right.candidate.node))
    };
    // Sorting thousands of nodes to write down a few would take longer than choosing.
    if field.eligible.len() > MAX_CANDIDATES {
        field.eligible.select_nth_unstable_by(MAX_CANDIDATES, order);
        field.eligible.truncate(MAX_CANDIDATES);
    }
    field.eligible.sort_unstable_by(order);

    let eligible = field
        .eligible
        .iter()
        .map(|scored| considered(scored.candidate, scored.score, None));
    let filtered = field
        .filtered
        .iter()
        .map(|&(candidate, filter)| considered(candidate, score(candidate), Some(filter)));
    let listed: Vec<Considered> = eligible.chain(filtered).take(MAX_CANDIDATES).collect();
    let omitted = u32::try_from(total - listed.len()).unwrap_or(u32::MAX);
    (listed, omitted)
}

fn considered(candidate: &Candidate, score: f64, filtered: Option<Filter>) -> Considered {
    Considered {
        node: candidate.node,
        region: candidate.region.clone(),
        score: (score * 1000.0).round() / 1000.0,
        filtered,
    }
}
