//! What forwarding takes, measured from outside: a media node on the first core, everything else and the load tool on the second. `tests/bench load` runs it.
//!
//! Arguments are the names of parts, also `shards` and `knee`; none: all but the soak.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use e2e::cluster::{KEY, KEY_SECRET};
use e2e::processes::{Processes, Shape, command, database};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
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
    /// The part by which memory changes, while open files stay as many.
    Flat(f64),
    /// Nothing is remembered of those who have left.
    Empty,
    /// The part of the datagrams, joins and all, that are in the node for a millisecond at most.
    Inside(f64),
}

/// Of a node's gauges, what those have who are there.
const LEFT: [&str; 3] = ["rooms{", "participants{", "connections{"];

/// How much more a packet may take with two shards on a core than with one.
const MOST_FOR_SHARDS: f64 = 1.1;

const HEAD: &str = "\
| what | participants | packets/s | µs each | × floor | lost | delay p50, p99 | join p99 | KiB each | bars |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---|";

const PARTS: [Part; 7] = [
    Part {
        name: "light",
        title: "1 at 720p → 5",
        load: "--video-publishers 1 --subscribers 5 --size 720p --duration 20s",
        bars: &[Bar::Inside(0.99), Bar::Loss(0.0)],
    },
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
        title: "20 minutes, 10 a second leave and others join",
        load: "--rooms 4 --publishers 2 --video-publishers 1 --subscribers 15 --size 360p --churn 10 --duration 20m",
        bars: &[Bar::Loss(0.0), Bar::Flat(0.05), Bar::Empty],
    },
];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let is_wanted = |name: &str| match wanted.is_empty() {
        true => name != "soak",
        false => wanted.iter().any(|wanted| wanted == name),
    };
    let mut missed = 0;
    println!("{HEAD}");
    for part in PARTS.iter().filter(|part| is_wanted(part.name)) {
        let Some(all) = start(&[]).await? else {
            return Ok(());
        };
        let figures = load(&all, part.load)?;
        missed += part.show(&figures, &all.nodes[0].server.url()).await?;
    }
    if is_wanted("shards") {
        missed += shards().await?;
    }
    if is_wanted("knee") {
        knee().await?;
    }
    ensure!(missed == 0, "{missed} bars are missed");
    Ok(())
}

/// A cluster whose one node is on its core; none: there is no database.
async fn start(node_flags: &[&str]) -> anyhow::Result<Option<Processes>> {
    let Some(database) = database("load").await? else {
        return Ok(None);
    };
    let all = Processes::start(&database, &Shape::new(1, 1).node_flags(node_flags)).await?;
    pin(all.nodes[0].server.worker()?, SERVER)?;
    Ok(Some(all))
}

/// Two rooms on one port and on two: what a packet takes. Each twice, in turns.
async fn shards() -> anyhow::Result<usize> {
    const LOAD: &str = "--rooms 2 --video-publishers 1 --subscribers 40 --size 720p --duration 20s";
    let mut sums = [0.0; 2];
    for count in [1, 2, 2, 1] {
        let flag = count.to_string();
        let Some(all) = start(&["--shards", &flag]).await? else {
            return Ok(0);
        };
        let figures = load(&all, LOAD)?;
        sums[count - 1] += number(&figures, "server.microseconds_per_packet") / 2.0;
    }
    let ratio = sums[1] / sums[0];
    let holds = ratio <= MOST_FOR_SHARDS;
    println!(
        "\ntwo rooms on one core: {:.2} µs a packet with one shard, {:.2} with two; {ratio:.2} times as much, at most {MOST_FOR_SHARDS}: {}",
        sums[0],
        sums[1],
        if holds { "yes" } else { "NO" }
    );
    Ok(usize::from(!holds))
}

/// One picture to more and more, until something is lost.
async fn knee() -> anyhow::Result<()> {
    println!(
        "\n| 1 at 720p → | packets/s | of all that was sent | µs each | node's core | tool's core | lost | delay p99 |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    for subscribers in [50, 100, 150, 200, 250, 300, 400, 500, 600, 800, 1_000] {
        let Some(all) = start(&[]).await? else {
            return Ok(());
        };
        let flags = format!("--video-publishers 1 --subscribers {subscribers} --size 720p --duration 10s --ramp 50");
        let (begun, before) = (Instant::now(), tool_time()?);
        let figures = load(&all, &flags)?;
        let seconds = number(&figures, "seconds");
        // The tool's own time is known from its start to its end only.
        let tool = (tool_time()? - before).as_secs_f64() / begun.elapsed().as_secs_f64();
        let (node, loss) = (
            number(&figures, "server.cpu_seconds") / seconds,
            number(&figures, "loss"),
        );
        println!(
            "| {subscribers} | {:.0} | {:.1}% | {:.2} | {:.0}% | {:.0}% | {:.4}% | {:.1} ms |",
            number(&figures, "packets_received") / seconds,
            number(&figures, "packets_received") / number(&figures, "packets_sent") / f64::from(subscribers) * 100.0,
            number(&figures, "server.microseconds_per_packet"),
            node * 100.0,
            tool * 100.0,
            loss * 100.0,
            number(&figures, "delay.p99"),
        );
        if loss > 0.001 || number(&figures, "stayed") < number(&figures, "participants") {
            break;
        }
    }
    Ok(())
}

/// The processor time of all tools that have ended.
fn tool_time() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let times = [usage.user_time(), usage.system_time()];
    Ok(times
        .iter()
        .map(|time| Duration::from_micros(time.num_microseconds() as u64))
        .sum())
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
fn load(all: &Processes, flags: &str) -> anyhow::Result<Value> {
    let (gateway, node) = (all.gateway(0), all.nodes[0].server.worker()?.to_string());
    let mut arguments = vec!["load", "--url", &gateway, "--api-key", KEY, "--api-secret", KEY_SECRET];
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

fn number(figures: &Value, path: &str) -> f64 {
    let found = path.split('.').fold(figures, |within, name| &within[name]);
    found.as_f64().unwrap_or(f64::NAN)
}

/// How much the node's memory has changed since a tenth of the time, as a part of it; infinite if it has other open files at the end.
fn change(figures: &Value) -> f64 {
    let samples = figures["server"]["samples"].as_array();
    let samples = samples.map(Vec::as_slice).unwrap_or_default();
    let (Some(begin), Some(end)) = (samples.get(samples.len() / 10), samples.last()) else {
        return f64::NAN;
    };
    if begin["files"] != end["files"] {
        return f64::INFINITY;
    }
    (number(end, "memory_kib") / number(begin, "memory_kib") - 1.0).abs()
}

/// How much the node still remembers of rooms, participants and connections, a minute after all have gone, or as soon as that is nothing.
async fn left(node: &str) -> anyhow::Result<f64> {
    let begun = Instant::now();
    loop {
        let page = reqwest::get(format!("{node}/metrics")).await?.text().await?;
        let gauges = page.lines().filter(|line| {
            let gauge = line.strip_prefix("signalbox_media_");
            gauge.is_some_and(|gauge| LEFT.iter().any(|name| gauge.starts_with(name)))
        });
        let values = gauges.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        let values: Vec<f64> = values.collect();
        ensure!(values.len() >= LEFT.len(), "the node's metrics are others");
        let sum = values.iter().sum();
        if sum == 0.0 || begun.elapsed() > Duration::from_secs(60) {
            return Ok(sum);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The part of a node's datagrams that were in it for a millisecond at most.
async fn inside(node: &str) -> anyhow::Result<f64> {
    let page = reqwest::get(format!("{node}/metrics")).await?.text().await?;
    let count = |bound: &str| {
        let name = format!("signalbox_media_inside_seconds_bucket{{le=\"{bound}\"}} ");
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(&name)?.parse::<f64>().ok());
        value.with_context(|| format!("the node does not count up to {bound} s"))
    };
    Ok(count("0.001")? / count("+Inf")?)
}

impl Part {
    /// Prints a row. Returns how many bars it misses.
    async fn show(&self, figures: &Value, node: &str) -> anyhow::Result<usize> {
        let number = |path: &str| number(figures, path);
        let each = number("server.microseconds_per_packet");
        let of = |floor: &str| each / number(floor);
        let (mut missed, mut bars) = (0, Vec::new());
        for bar in self.bars {
            if let Bar::Inside(least) = bar {
                let inside = inside(node).await?;
                missed += usize::from(inside < *least);
                bars.push(format!(
                    "inside for 1 ms at most {inside:.4} ≥ {least}: {}",
                    if inside < *least { "NO" } else { "yes" }
                ));
                continue;
            }
            let (what, is, most) = match bar {
                Bar::Inside(_) => continue,
                Bar::OfRuns(most) => ("× runs", of("floor.in_runs"), *most),
                Bar::OfAlone(most) => ("× alone", of("floor.alone"), *most),
                Bar::Loss(most) => ("lost", number("loss"), *most),
                Bar::Join(most) => ("join", number("join.p99"), *most),
                Bar::Memory(most) => ("KiB", number("server.kib_per_participant"), *most),
                Bar::Flat(most) => ("memory's change", change(figures), *most),
                Bar::Empty => ("left behind", left(node).await?, 0.0),
            };
            let holds = is <= most;
            missed += usize::from(!holds);
            bars.push(format!("{what} {is:.3} ≤ {most}: {}", if holds { "yes" } else { "NO" }));
        }
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
        Ok(missed)
    }
}
