//! The process that stands behind a media node's process and lets it run: the same binary, which does nothing else.
//!
//! A node that dies cannot say so, and its rooms would wait for the lease to run out. So the supervisor is told by its worker which epoch it
//! holds ([`encode`]), and when the worker has ended without saying that the epoch is over, it releases it at the
//! orchestrators at once, and starts a fresh worker. The worker's sockets have ended with it: the supervisor holds none of them.
//!
//! - The node's id is the same over its workers, also when none was given.
//! - The worker's standard input is a pipe that is never written to. When the supervisor dies, the pipe ends, and the worker with it.
//! - The worker has a process group of its own: Ctrl-C reaches the supervisor alone, which passes it on once.
//! - A worker that ends in an orderly way, cannot be configured, or does not get as far as registering when it is first started, ends
//!   the supervisor with its exit code. Any other is replaced, with pauses when several in a row do not live long.
//!
//! It must not know what a node does.

use std::ffi::OsString;
use std::future::pending;
use std::io;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signalbox_protocol::node::Release;
use signalbox_protocol::{Epoch, NodeId};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::asks::Asks;
use crate::backoff::Backoff;
use crate::orchestrators::Orchestrators;
use crate::{Config, Error};

/// The program: whatever is on the disk by now, the workers are of the supervisor's version.
const PROGRAM: &str = "/proc/self/exe";

/// How long an orchestrator may take to be told of an epoch's end. Higher: slow ones are waited for. Lower: the fresh worker starts
/// sooner when all are gone.
const RELEASE: Duration = Duration::from_millis(500);

/// How often all orchestrators are told, until one answers, and the pause in between.
const RELEASES: (u32, Duration) = (3, Duration::from_millis(100));

/// A worker that has lived this long is not one of several that die in a row.
const STEADY: Duration = Duration::from_secs(10);

/// The pauses before a worker is replaced that did not live long, from the second in a row: doubling, from the first to the second.
/// Higher: less noise of a node that cannot live. Lower: it is back sooner when it can again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// When a worker is killed that was asked twice to end. What is left of two seconds is for [`HURRIED_RELEASE`].
const KILL: Duration = Duration::from_millis(1_600);

/// How long the release may take then.
const HURRIED_RELEASE: Duration = Duration::from_millis(250);

/// What a worker writes to its standard output when its epoch has changed: a big-endian number, 0 for none.
pub fn encode(epoch: Option<Epoch>) -> [u8; 8] {
    epoch.map_or(0, |epoch| epoch.0).to_be_bytes()
}

/// Runs workers until one ends for good: this program again, with these arguments and a few more. `restart`: a worker that dies is
/// replaced; otherwise its epoch is released all the same.
///
/// # Errors
/// [`Error::Config`], [`Error::HttpClient`], and [`Error::Supervise`] when the first worker cannot be started.
pub async fn run(config: &Config, arguments: Vec<OsString>, restart: bool) -> Result<ExitCode, Error> {
    let node = config.node_id.unwrap_or_else(NodeId::random);
    let orchestrators = Orchestrators::new(config.orchestrators()?, &config.cluster_secret)?;
    let mut extra = vec![OsString::from("--worker")];
    if config.node_id.is_none() {
        extra.extend(["--node-id".into(), node.to_string().into()]);
    }
    let mut asks = Asks::new().map_err(Error::Supervise)?;
    let mut pauses = Pauses::default();
    let mut has_registered = false;
    loop {
        let started = Instant::now();
        let mut worker = match Worker::start(&arguments, &extra) {
            Ok(worker) => worker,
            Err(error) if !has_registered => return Err(Error::Supervise(error)),
            Err(error) => {
                tracing::error!(%error, "the worker cannot be started");
                match pauses.rest(Duration::ZERO, &mut asks).await {
                    true => return Ok(ExitCode::SUCCESS),
                    false => continue,
                }
            }
        };
        let status = worker.until_ended(&mut asks).await.map_err(Error::Supervise)?;
        has_registered |= worker.has_registered;
        if let Some(epoch) = worker.epoch {
            let (times, within) = match asks.count {
                0 | 1 => (RELEASES.0, RELEASE),
                _ => (1, HURRIED_RELEASE),
            };
            release(&orchestrators, node, epoch, times, within).await;
        }
        let is_orderly = matches!(status.code(), Some(0 | 2));
        let is_over = is_orderly || asks.count > 0 || !restart || (status.code().is_some() && !has_registered);
        if !is_orderly {
            tracing::error!(%status, "the worker has ended");
        }
        if is_over {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
        }
        if pauses.rest(started.elapsed(), &mut asks).await {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// A worker's process.
struct Worker {
    child: Child,
    pid: Pid,
    /// Ends when this process does.
    _lifeline: Option<ChildStdin>,
    reports: Option<ChildStdout>,
    /// A report, as far as it has been read.
    partial: ([u8; 8], usize),
    epoch: Option<Epoch>,
    has_registered: bool,
}

impl Worker {
    fn start(arguments: &[OsString], extra: &[OsString]) -> io::Result<Self> {
        let mut command = Command::new(PROGRAM);
        if let Some(name) = std::env::args_os().next() {
            command.arg0(name);
        }
        command
            .args(arguments)
            .args(extra)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        let pid = pid.map(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        tracing::info!(%pid, "the worker is started");
        Ok(Self {
            pid,
            _lifeline: child.stdin.take(),
            reports: child.stdout.take(),
            child,
            partial: ([0; 8], 0),
            epoch: None,
            has_registered: false,
        })
    }

    /// Passes signals on until it has ended.
    async fn until_ended(&mut self, asks: &mut Asks) -> io::Result<ExitStatus> {
        let mut kill_at = None;
        let status = loop {
            tokio::select! {
                status = self.child.wait() => break status?,
                ended = read(&mut self.reports, &mut self.partial) => match ended {
                    Some(report) => self.report(report),
                    None => self.reports = None,
                },
                () = asks.next() => {
                    // Not waited for yet, so the id is still its.
                    let _ = kill(self.pid, Signal::SIGTERM);
                    if asks.count > 1 {
                        kill_at.get_or_insert(Instant::now() + KILL);
                    }
                }
                () = until(kill_at) => {
                    kill_at = None;
                    tracing::error!("the worker does not end; it is killed");
                    self.child.start_kill()?;
                }
            }
        };
        // What it had written before it ended. Nobody else holds the pipe.
        while self.reports.is_some() {
            match timeout(RELEASE, read(&mut self.reports, &mut self.partial)).await {
                Ok(Some(report)) => self.report(report),
                Ok(None) | Err(_) => self.reports = None,
            }
        }
        Ok(status)
    }

    fn report(&mut self, epoch: Option<Epoch>) {
        self.epoch = epoch;
        self.has_registered |= epoch.is_some();
    }
}

/// The next report. None: there will be no more. When it is dropped, nothing is lost.
async fn read(reports: &mut Option<ChildStdout>, partial: &mut ([u8; 8], usize)) -> Option<Option<Epoch>> {
    let Some(pipe) = reports else { return pending().await };
    let (bytes, filled) = partial;
    while *filled < bytes.len() {
        let free = bytes.get_mut(*filled..).unwrap_or_default();
        match pipe.read(free).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => *filled += count,
        }
    }
    *filled = 0;
    let epoch = u64::from_be_bytes(*bytes);
    Some((epoch > 0).then_some(Epoch(epoch)))
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// Ends a dead worker's epoch: all orchestrators are told at the same time, and one answer suffices.
async fn release(orchestrators: &Orchestrators, node: NodeId, epoch: Epoch, times: u32, within: Duration) {
    let began = Instant::now();
    let id = node.to_string();
    let (path, body) = (["v1", "nodes", &id, "release"], Release { epoch });
    for attempt in 0..times {
        if attempt > 0 {
            sleep(RELEASES.1).await;
        }
        let mut calls: FuturesUnordered<_> = (0..orchestrators.len())
            .map(|index| orchestrators.tell_one(index, &path, &body, within))
            .collect();
        while let Some(told) = calls.next().await {
            match told {
                Ok(()) => {
                    let took_ms = began.elapsed().as_millis();
                    return tracing::warn!(%node, %epoch, took_ms, "the dead worker's epoch is released");
                }
                Err(error) => tracing::debug!(%epoch, %error, "an orchestrator could not be told"),
            }
        }
    }
    tracing::error!(%node, %epoch, "no orchestrator could be told that the worker is dead; its rooms are free when the lease runs out");
}

/// How long to wait before a worker is replaced.
#[derive(Debug, Default)]
struct Pauses {
    /// None: the last one lived.
    backoff: Option<Backoff>,
}

impl Pauses {
    /// True: the end was asked for meanwhile.
    async fn rest(&mut self, lived: Duration, asks: &mut Asks) -> bool {
        let pause = self.next(lived);
        if pause > Duration::ZERO {
            let pause_ms = pause.as_millis();
            tracing::warn!(
                pause_ms,
                "workers do not live long; the next one is started after a pause"
            );
        }
        tokio::select! {
            () = asks.next() => true,
            () = sleep(pause) => false,
        }
    }

    fn next(&mut self, lived: Duration) -> Duration {
        if lived >= STEADY {
            self.backoff = None;
        }
        match &mut self.backoff {
            Some(backoff) => backoff.next(&mut rand::rng()),
            none => {
                *none = Some(Backoff::new(PAUSES.0, PAUSES.1));
                Duration::ZERO
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_die_in_a_row_are_replaced_ever_later_and_one_that_lived_at_once() {
        let mut pauses = Pauses::default();
        let mut early = |_| pauses.next(Duration::from_secs(1));
        let waits: Vec<Duration> = (0..10).map(&mut early).collect();
        assert_eq!(waits[0], Duration::ZERO);
        assert!(waits[1] >= PAUSES.0 / 2, "{waits:?}");
        assert!(
            waits[9] >= PAUSES.1 / 2 && waits.iter().all(|wait| *wait <= PAUSES.1),
            "{waits:?}"
        );
        assert_eq!(pauses.next(STEADY), Duration::ZERO);
        assert!(pauses.next(Duration::ZERO) > Duration::ZERO);
    }
}
