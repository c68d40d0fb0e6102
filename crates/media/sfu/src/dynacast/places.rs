//! Sets of spatial layers, and what a publisher calls them.

use std::collections::BTreeSet;

use signalbox_protocol::control::Quality;

use super::QUALITIES;
use crate::track::{Encoding, rank};

/// A set of spatial layers, each by its place among all, 0 to 6; all above count as one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Places(u8);

impl Places {
    /// Whatever there is.
    pub const ALL: Self = Self(u8::MAX);

    fn bit(spatial: u8) -> u8 {
        1 << spatial.min(7)
    }

    /// Adds one.
    pub fn insert(&mut self, spatial: u8) {
        self.0 |= Self::bit(spatial);
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether one is among them.
    pub fn contains(self, spatial: u8) -> bool {
        self.0 & Self::bit(spatial) != 0
    }

    /// The highest.
    fn highest(self) -> Option<u8> {
        self.0.checked_ilog2().map(|highest| highest as u8)
    }
}

/// What is wanted of an encoding whose highest spatial layer is `top`, in the words of its publisher; no encoding: it does not send it yet.
///
/// Streams of their own, as in simulcast, can be sent without each other. In a scalable stream a layer needs all below it, and for one that
/// has no layers it does not matter which of them is said.
pub fn names(encoding: Option<&Encoding>, top: u8, wanted: Places) -> BTreeSet<Quality> {
    match encoding.filter(|encoding| encoding.is_simulcast()) {
        Some(encoding) => (0..=top)
            .filter(|spatial| wanted.contains(*spatial))
            .map(|spatial| name(encoding, top, spatial))
            .collect(),
        None => {
            let highest = wanted.highest().map(|highest| match encoding {
                Some(_) => by_place(highest, top),
                None => Quality::High,
            });
            let needed = QUALITIES.into_iter().filter(|quality| Some(*quality) <= highest);
            needed.collect()
        }
    }
}

/// What a publisher calls a spatial layer. Simulcast layers by their usual names, since there need not be all of them; what has others by
/// its place.
pub fn name(encoding: &Encoding, top: u8, spatial: u8) -> Quality {
    let ranks = encoding
        .streams
        .iter()
        .map(|stream| stream.rid.map(|rid| rank(rid.as_str())));
    let ranks: Vec<Option<u8>> = ranks.collect();
    let are_usual = encoding.is_simulcast() && ranks.is_sorted_by(|lower, higher| lower.is_some() && lower < higher);
    match ranks.get(usize::from(spatial)).copied().flatten().filter(|_| are_usual) {
        Some(rank) => by_place(rank, 2),
        None => by_place(spatial, top),
    }
}

/// The name of a spatial layer among so many that the highest is `top`.
fn by_place(spatial: u8, top: u8) -> Quality {
    match spatial {
        _ if spatial >= top => Quality::High,
        0 => Quality::Low,
        1 => Quality::Medium,
        _ => Quality::High,
    }
}

#[cfg(test)]
mod tests {
    use Quality::{High, Low, Medium};

    use super::*;
    use crate::packet::{Mid, Rid};

    fn encoding(rids: &[&str]) -> Encoding {
        let rids = rids.iter().map(|rid| Rid::from(*rid));
        Encoding::new(0, Mid::from("0"), None, rids)
    }

    fn places(of: &[u8]) -> Places {
        let mut places = Places::default();
        of.iter().for_each(|spatial| places.insert(*spatial));
        places
    }

    fn named(rids: &[&str], top: u8, of: &[u8]) -> Vec<Quality> {
        names(Some(&encoding(rids)), top, places(of)).into_iter().collect()
    }

    #[test]
    fn simulcast_layers_are_named_one_by_one() {
        assert_eq!(named(&["q", "h", "f"], 2, &[0, 2]), [Low, High]);
        assert_eq!(named(&["q", "h", "f"], 2, &[1]), [Medium]);
        assert_eq!(named(&["q", "h", "f"], 2, &[]), []);
        assert_eq!(
            named(&["q", "h"], 1, &[0, 1]),
            [Low, Medium],
            "as their publisher knows them"
        );
        assert_eq!(named(&["h", "f"], 1, &[1]), [High]);
        assert_eq!(named(&["a", "b", "c"], 2, &[0, 2]), [Low, High]);
        assert_eq!(named(&["a", "b"], 1, &[1]), [High]);
        assert_eq!(named(&["a", "b", "c", "d"], 3, &[2]), [High]);
    }

    #[test]
    fn a_layer_of_a_scalable_stream_needs_all_below_it() {
        assert_eq!(named(&[], 2, &[1]), [Low, Medium]);
        assert_eq!(named(&[], 2, &[0, 2]), [Low, Medium, High]);
        assert_eq!(named(&[], 2, &[]), []);
        assert_eq!(
            named(&["f"], 0, &[0]),
            [Low, Medium, High],
            "without layers it is all of it"
        );
    }

    #[test]
    fn whatever_there_is_is_everything() {
        let all = |encoding| names(encoding, 0, Places::ALL).into_iter().collect::<Vec<_>>();
        assert_eq!(all(None), [Low, Medium, High]);
        assert_eq!(all(Some(&encoding(&[]))), [Low, Medium, High]);
        assert_eq!(names(None, 0, Places::default()).len(), 0);
    }
}
