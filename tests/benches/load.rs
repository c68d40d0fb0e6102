//! What forwarding takes, measured from outside: a media node on the first core, everything else and the load tool on the second. `tests/bench load` runs it.
//!
//! Arguments are the names of parts; none: all but the soak.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use e2e::cluster::{KEY, KEY_SECRET};
use e2e::processes::{Processes, Shape, command, database};
use nix::unistd::Pid;
use serde_json::Value;

/// The cores.
const SERVER: &str = "0";
const TOOL: &str = "1";

/// What is measured, and what it may be at most.
struct Part {
    name: &'static str,
    title: &'static str,
    /// The tool's flags.
    load: &'static str,
    bars: &'static [Bar],
}

/// The most that a figure may be.
enum Bar {
    /// The processor time of a packet, in parts of what it takes to encrypt it and send it in runs of 8.
    OfRuns(f64),
    /// The same of what it takes to send it alone.
    OfAlone(f64),
    /// The share that is lost.
    Loss(f64),
    /// Until the server has let somebody in, in milliseconds, for 99 of 100.
    Join(f64),
    /// Memory, in KiB for each participant.
    Memory(f64),
}

const PARTS: [Part; 6] = [
    Part {
        name: "stage",
        title: "1 at 720p → 50",
        load: "--video-publishers 1 --subscribers 50 --size 720p --duration 20s",
        bars: &[Bar::OfRuns(2.5), Bar::Loss(0.0), Bar::Memory(150.0)],
    },
    Part {
        name: "meeting",
        title: "10 at 360p × 10",
        load: "--video-publishers 10 --subscribers 10 --size 360p --duration 20s",
        bars: &[Bar::OfAlone(2.0), Bar::Loss(0.0)],
    },
    Part {
        name: "radio",
        title: "4 speakers → 200",
        load: "--publishers 4 --subscribers 200 --duration 20s --ramp 50",
        bars: &[Bar::OfAlone(2.0), Bar::Loss(0.0), Bar::Memory(150.0)],
    },
    Part {
        name: "audience",
        title: "1 at 720p → 200",
        load: "--video-publishers 1 --subscribers 200 --size 720p --duration 20s --ramp 50",
        bars: &[Bar::OfRuns(2.5), Bar::Loss(0.0)],
    },
    Part {
        name: "rush",
        title: "500 join, 50 a second",
        load: "--rooms 50 --publishers 2 --subscribers 8 --ramp 50 --duration 10s",
        bars: &[Bar::Join(300.0), Bar::Loss(0.0)],
    },
    Part {
        name: "soak",
        title: "20 minutes",
        load: "--rooms 4 --publishers 2 --video-publishers 1 --subscribers 8 --size 360p --duration 20m",
        bars: &[Bar::Loss(0.0)],
    },
];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    println!(
        "| what | participants | packets/s | µs each | × floor | lost | delay p50, p99 | join p99 | KiB each | bars |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---|");
    let mut missed = 0;
    for part in PARTS {
        let is_wanted = match wanted.is_empty() {
            true => part.name != "soak",
            false => wanted.iter().any(|name| name == part.name),
        };
        if !is_wanted {
            continue;
        }
        let Some(database) = database("load").await? else {
            return Ok(());
        };
        let shape = Shape::new(1, 1);
        let all = Processes::start(&database, &shape).await?;
        let node = all.nodes[0].server.worker()?;
        pin(node, SERVER)?;
        let figures = load(&all.gateway(0), part.load, node)?;
        missed += part.show(&figures);
    }
    ensure!(missed == 0, "{missed} bars are missed");
    Ok(())
}

/// Keeps all threads of a process on a core.
fn pin(process: Pid, core: &str) -> anyhow::Result<()> {
    let process = process.to_string();
    let mut taskset = Command::new("taskset");
    let taskset = taskset.args(["--all-tasks", "--cpu-list", "--pid", core, &process]);
    let pinned = taskset.stdout(Stdio::null()).status().context("taskset")?;
    ensure!(pinned.success(), "taskset ended with {pinned}");
    Ok(())
}

/// Runs the tool on its core; its figures.
fn load(gateway: &str, flags: &str, node: Pid) -> anyhow::Result<Value> {
    let node = node.to_string();
    let mut arguments = vec!["load", "--url", gateway, "--api-key", KEY, "--api-secret", KEY_SECRET];
    arguments.extend(["--server-pid", &node, "--floor", "--json", "--max-loss", "100"]);
    arguments.extend(flags.split(' '));
    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    let tool = command("signalbox", &arguments, "")?;
    let mut pinned = Command::new("taskset");
    pinned
        .args(["--cpu-list", TOOL])
        .arg(tool.get_program())
        .args(tool.get_args());
    let output = pinned.stderr(Stdio::inherit()).output().context("taskset")?;
    serde_json::from_slice(&output.stdout).context("the tool printed no figures")
}

impl Part {
    /// Prints a row. Returns how many bars it misses.
    fn show(&self, figures: &Value) -> usize {
        let number = |path: &str| {
            let found = path.split('.').fold(figures, |within, name| &within[name]);
            found.as_f64().unwrap_or(f64::NAN)
        };
        let each = number("server.microseconds_per_packet");
        let of = |floor: &str| each / number(floor);
        let mut missed = 0;
        let bars = self.bars.iter().map(|bar| {
            let (what, is, most) = match bar {
                Bar::OfRuns(most) => ("× runs", of("floor.in_runs"), most),
                Bar::OfAlone(most) => ("× alone", of("floor.alone"), most),
                Bar::Loss(most) => ("lost", number("loss"), most),
                Bar::Join(most) => ("join", number("join.p99"), most),
                Bar::Memory(most) => ("KiB", number("server.kib_per_participant"), most),
            };
            let holds = is <= *most;
            missed += usize::from(!holds);
            format!("{what} ≤ {most}: {}", if holds { "yes" } else { "NO" })
        });
        let bars: Vec<String> = bars.collect();
        println!(
            "| {} | {} | {:.0} | {each:.2} | {:.1} runs, {:.1} alone | {:.4}% | {:.1}, {:.1} ms | {:.0} ms | {:.0} | {} |",
            self.title,
            number("stayed"),
            number("packets_received") / number("seconds"),
            of("floor.in_runs"),
            of("floor.alone"),
            number("loss") * 100.0,
            number("delay.p50"),
            number("delay.p99"),
            number("join.p99"),
            number("server.kib_per_participant"),
            bars.join(", "),
        );
        missed
    }
}
