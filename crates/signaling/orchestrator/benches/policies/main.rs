//! The table of the placement policies: what each does with many rooms, beside what it should do.
//!
//! ```text
//! cargo bench -p signalbox-orchestrator --bench policies            # everything
//! cargo bench -p signalbox-orchestrator --bench policies -- herd    # scenarios whose name contains `herd`
//! ```
//!
//! Exits with 1 if a figure misses its bar. All but `speed` is seeded, and gives the same figures on every machine. Without
//! cargo's `--bench`, as under `cargo test`, there are fewer keys and no timings.

mod cluster;
mod filling;
mod hashing;
mod herd;
mod speed;

use std::process::ExitCode;

/// How much work to do.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    full: bool,
}

impl Scale {
    /// One number for the printed table, another for a build without optimisation.
    pub fn pick<T>(self, full: T, quick: T) -> T {
        if self.full { full } else { quick }
    }
}

/// What a figure must be.
#[derive(Debug, Clone, Copy)]
pub enum Bar {
    /// It is shown beside the others.
    None,
    /// No more than this.
    AtMost(f64),
    /// This, with at most that difference.
    Within(f64, f64),
}

/// One line of the table.
#[derive(Debug)]
pub struct Row {
    what: String,
    figure: f64,
    bar: Bar,
}

impl Row {
    /// A line.
    pub fn new(what: impl Into<String>, figure: f64, bar: Bar) -> Self {
        let what = what.into();
        Self { what, figure, bar }
    }

    fn holds(&self) -> bool {
        match self.bar {
            Bar::None => true,
            Bar::AtMost(most) => self.figure <= most,
            Bar::Within(expected, difference) => (self.figure - expected).abs() <= difference,
        }
    }

    fn print(&self) {
        let bar = match self.bar {
            Bar::None => String::new(),
            Bar::AtMost(most) => format!("≤ {}", figure(most)),
            Bar::Within(expected, difference) => format!("{} ± {}", figure(expected), figure(difference)),
        };
        let verdict = if self.holds() { "" } else { "MISSED" };
        println!("  {:<64} {:>10}  {bar:<18} {verdict}", self.what, figure(self.figure));
    }
}

fn figure(number: f64) -> String {
    let text = format!("{number:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

type Scenario = fn(Scale) -> Vec<Row>;

const SCENARIOS: [(&str, &str, Scenario); 9] = [
    (
        "movement",
        "share of keys that move when one of N nodes leaves; equal nodes",
        hashing::movement,
    ),
    ("shares", "share of keys by capacity 1:2:4, rendezvous", hashing::shares),
    (
        "bounded",
        "share of rooms that move when one of N nodes leaves; bounded rendezvous, one by one, slack 0.25",
        hashing::bounded,
    ),
    (
        "herd",
        "max/mean of 100 nodes, 20 orchestrators, reports every 5 s, 500 joins/s",
        herd::herd,
    ),
    (
        "address",
        "max/mean of 10 gateways, 2,000 users behind one address",
        hashing::one_address,
    ),
    ("canary", "share of 100,000 users, for a share of 0.1", hashing::canary),
    (
        "packing",
        "10 nodes with 5, 10, … 50 rooms of 100; as rooms end others begin",
        filling::packing,
    ),
    (
        "region",
        "3 regions of 10 nodes for 100 rooms each; all rooms ask for the first",
        filling::region,
    ),
    ("speed", "microseconds for a choice, with its reasons", speed::speed),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let scale = Scale {
        full: arguments.iter().any(|argument| argument == "--bench"),
    };
    let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let mut missed = 0;
    for (name, title, scenario) in SCENARIOS {
        if !names.is_empty() && !names.iter().any(|wanted| name.contains(wanted.as_str())) {
            continue;
        }
        println!("\n{name}: {title}");
        for row in scenario(scale) {
            row.print();
            missed += usize::from(!row.holds());
        }
    }
    if missed > 0 {
        println!("\n{missed} figures miss their bar");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
