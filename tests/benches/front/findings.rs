//! What a part has found, as rows of a table.

use std::fmt::Display;
use std::time::Duration;

/// Rows, in the order in which they were found.
#[derive(Debug, Default)]
pub struct Findings(Vec<Row>);

#[derive(Debug)]
struct Row {
    what: String,
    is: String,
    /// What it has to be, and whether it is that; none: it is only told.
    bar: Option<(String, bool)>,
}

impl Findings {
    /// The table's head.
    pub const HEAD: &str = "| part | what | measured | bar | held |\n|---|---|---:|---:|---|";

    /// Something to know.
    pub fn tell(&mut self, what: impl Display, is: impl Display) {
        self.add(what, is, None);
    }

    /// Something that has to be so.
    pub fn check(&mut self, what: impl Display, is: impl Display, bar: impl Display, holds: bool) {
        self.add(what, is, Some((bar.to_string(), holds)));
    }

    fn add(&mut self, what: impl Display, is: impl Display, bar: Option<(String, bool)>) {
        let (what, is) = (what.to_string(), is.to_string());
        self.0.push(Row { what, is, bar });
    }

    /// Prints them. Returns how many bars are missed.
    pub fn show(&self, part: &str) -> usize {
        for Row { what, is, bar } in &self.0 {
            let (bar, held) = match bar {
                None => ("", ""),
                Some((bar, true)) => (bar.as_str(), "yes"),
                Some((bar, false)) => (bar.as_str(), "NO"),
            };
            println!("| {part} | {what} | {is} | {bar} | {held} |");
        }
        let missed = |row: &&Row| row.bar.as_ref().is_some_and(|(_, holds)| !holds);
        self.0.iter().filter(missed).count()
    }
}

/// What so many of a hundred are below; `NaN` of none.
pub fn percentile(times: &[Duration], percent: f64) -> f64 {
    let mut times = times.to_vec();
    times.sort();
    let rank = (times.len() as f64 * percent / 100.0).ceil() as usize;
    let found = times.get(rank.clamp(1, times.len().max(1)) - 1);
    found.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

/// In milliseconds, as tables have it.
pub fn ms(milliseconds: f64) -> String {
    format!("{milliseconds:.1} ms")
}
