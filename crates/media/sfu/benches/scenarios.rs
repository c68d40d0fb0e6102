//! What a viewer behind a bad network gets over time, on virtual time: a table for each scenario, and a drawing of it in the target folder.
//!
//! `cargo bench -p signalbox-sfu --bench scenarios`; a number behind `--` is another seed. Nothing is asserted here: the tests of the same
//! scenarios do (`tests/sfu/scenarios.rs`). Under `cargo test` one of them is run, and nothing is drawn.

#[path = "../tests/sfu"]
#[expect(dead_code, reason = "the tests' virtual network, of which this uses a part")]
mod sfu {
    pub mod camera;
    pub mod client;
    pub mod link;
    pub mod networks;
    pub mod scalable;
    pub mod scenario;
    pub mod screen;
    pub mod srtp_client;
    pub mod srtp_streams;
    pub mod world;
}
#[path = "scenarios/drawing.rs"]
mod drawing;

use std::path::PathBuf;
use std::time::Duration;

use sfu::networks;
use sfu::scenario::{Point, Run};

/// Points in a line of the table: a second.
const POINTS_PER_LINE: usize = 4;

/// From here on a gap is told as a freeze.
const FREEZE: Duration = Duration::from_millis(300);

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let is_full = arguments.any(|argument| argument == "--bench");
    let seed = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1);
    if !is_full {
        print(&networks::reordering(seed));
        return Ok(());
    }
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let folder = folder.join("scenarios");
    std::fs::create_dir_all(&folder)?;
    for (name, scenario) in [
        ("capacity-step", networks::capacity_step as fn(u64) -> Run),
        ("random-loss", networks::random_loss),
        ("burst-loss", networks::burst_loss),
        ("publisher-loss", networks::publisher_loss),
        ("reordering", networks::reordering),
    ] {
        let run = scenario(seed);
        print(&run);
        let file = folder.join(format!("{name}.svg"));
        std::fs::write(&file, drawing::draw(&run, FREEZE))?;
        println!("{}\n", file.display());
    }
    Ok(())
}

fn print(run: &Run) {
    println!("{}", run.name);
    println!(
        "{:>5} {:>9} {:>9} {:>9} {:>9} {:>5} {:>9}",
        "s", "kbps", "sent", "estimate", "layer", "fps", "overflow"
    );
    for second in run.curve.chunks(POINTS_PER_LINE) {
        line(second);
    }
    let freezes: Vec<String> = run
        .freezes(FREEZE)
        .iter()
        .map(|(at, length)| format!("{} ms at {:.1} s", length.as_millis(), at.as_secs_f64()))
        .collect();
    let screen = run.screen();
    println!(
        "{:.3}% of the packets arrived; {} key frames asked for; freezes over {} ms: {}",
        100.0 * run.arrived(),
        screen.map_or(0, |screen| screen.key_frames_wanted),
        FREEZE.as_millis(),
        if freezes.is_empty() {
            "none".to_owned()
        } else {
            freezes.join(", ")
        }
    );
}

fn line(second: &[Point]) {
    let kbps = |bps: Option<u64>| bps.map_or("-".to_owned(), |bps| (bps / 1_000).to_string());
    let sent = second.iter().map(|point| point.sent_bps).sum::<f64>() / second.len() as f64;
    let last = &second[second.len() - 1];
    println!(
        "{:5.0} {:>9} {:9.0} {:>9} {:>9} {:5} {:9}",
        last.at.as_secs_f64(),
        kbps(last.capacity),
        sent / 1_000.0,
        kbps(last.estimate),
        last.layer
            .map_or("-".to_owned(), |(spatial, temporal)| format!("S{spatial}T{temporal}")),
        second.iter().map(|point| point.frames).sum::<usize>(),
        second.iter().map(|point| point.overflowed).sum::<u64>(),
    );
}
