//! Who is still in the running for a room, and who no longer is.

use signalbox_protocol::history::Filter;

use super::{Candidate, Scored};

/// The candidates of one choice.
#[derive(Debug, Default)]
pub struct Field<'a> {
    /// Those that can take the room, in the order in which they came.
    pub eligible: Vec<Scored<'a>>,
    /// Those that cannot. Those that a later stage took out come first: they were closer to having it.
    pub filtered: Vec<(&'a Candidate, Filter)>,
}

impl<'a> Field<'a> {
    /// Takes out everyone else.
    pub fn keep(&mut self, filter: Filter, test: impl Fn(&Scored<'a>) -> bool) {
        let mut filtered = Vec::new();
        self.eligible.retain(|scored| {
            let keep = test(scored);
            if !keep {
                filtered.push((scored.candidate, filter));
            }
            keep
        });
        filtered.append(&mut self.filtered);
        self.filtered = filtered;
    }
}
