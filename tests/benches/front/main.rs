//! What a gateway stands as the door of everything else, measured from outside against its bars. `tests/bench front` runs it.
//!
//! The gateway has the first core, with one worker thread; whatever else there is, clients included, has the second; the clients of `overload` have the first. Arguments are the names of parts; none: all.

mod balance;
mod certificates;
mod clients;
mod findings;
mod http2;
mod idle;
mod overload;
mod slow;
mod system;
mod tls;

use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use self::findings::Findings;

/// How long one part may take.
const LIMIT: Duration = Duration::from_secs(180);

const PARTS: [&str; 7] = ["balance", "idle", "slow", "overload", "certificates", "http2", "tls"];

fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    // Whoever is started from here inherits both.
    stay_on(Pid::this(), 1)?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            ended = all(&wanted) => ended,
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
            _ = terminated.recv() => Err(anyhow::anyhow!("told to end")),
        }
    });
    // What testssl.sh is still doing ends by itself.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn all(wanted: &[String]) -> anyhow::Result<()> {
    let is_wanted = |name: &&&str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == *name);
    let mut missed = 0;
    println!("{}", Findings::HEAD);
    for part in PARTS.iter().filter(is_wanted) {
        let found = tokio::time::timeout(LIMIT, measure(part));
        let found = found
            .await
            .with_context(|| format!("{part} takes longer than {LIMIT:?}"))??;
        missed += found.show(part);
    }
    ensure!(missed == 0, "{missed} bars are missed");
    Ok(())
}

async fn measure(part: &str) -> anyhow::Result<Findings> {
    match part {
        "balance" => balance::measure().await,
        "idle" => idle::measure().await,
        "slow" => slow::measure().await,
        "overload" => overload::measure().await,
        "certificates" => certificates::measure().await,
        "http2" => http2::measure().await,
        _ => tls::measure().await,
    }
}

/// Keeps a process, and whatever it starts from now on, on a core.
fn stay_on(process: Pid, core: usize) -> anyhow::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    sched_setaffinity(process, &cores).context("this needs two cores")
}
