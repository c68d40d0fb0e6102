//! Region first: who stands where the room is wanted, and where it goes when that region is full.

use std::iter;

use signalbox_protocol::history::Filter;

use super::{Field, Scored, Settings};

/// Takes out everyone who stands outside of the first of these that has room: the region that was asked for, those near
/// it in the order of [`Settings::near`], all others together. Takes out no one when none has: a room in a full region
/// is better than no room.
pub fn keep(field: &mut Field<'_>, asked: &str, settings: &Settings) {
    let near = settings.near.get(asked).map_or(&[][..], Vec::as_slice);
    let first = iter::once(asked)
        .chain(near.iter().map(String::as_str))
        .find(|region| field.eligible.iter().any(|scored| has_room(scored, region, settings)));
    if let Some(region) = first {
        return field.keep(Filter::Region, |scored| scored.candidate.region == region);
    }
    let elsewhere = |scored: &Scored<'_>| {
        let region = &scored.candidate.region;
        region != asked && !near.contains(region)
    };
    let spacious = |scored: &Scored<'_>| scored.score < settings.spill_over;
    if field
        .eligible
        .iter()
        .any(|scored| elsewhere(scored) && spacious(scored))
    {
        field.keep(Filter::Region, elsewhere);
    }
}

/// Whether the candidate shows that `region` has room: it stands there, and is below [`Settings::spill_over`].
pub fn has_room(scored: &Scored<'_>, region: &str, settings: &Settings) -> bool {
    scored.score < settings.spill_over && scored.candidate.region == region
}
