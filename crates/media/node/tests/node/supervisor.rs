//! The real process: a supervisor and its worker.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use signalbox_protocol::Epoch;
use signalbox_protocol::node::DrainState;

use crate::cluster::{PATIENCE, Place, SECRET};
use crate::orchestrator::{Log, Mode, Orchestrator};

const LEASE: Duration = Duration::from_secs(60);

/// A running `signalbox-media`. Dropping it kills the supervisor, and the worker follows.
struct Process {
    child: Child,
    pid: Pid,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(orchestrator: &str, more: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_signalbox-media"))
            .args(["--control-listen=127.0.0.1:0", "--media-bind=127.0.0.1:0", "--shards=1"])
            .args(["--orchestrator", orchestrator])
            .args(more)
            .env("SIGNALBOX_CLUSTER_SECRET", SECRET)
            .env("SIGNALBOX_LOG", "info")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        Self { child, pid }
    }

    /// The process whose parent it is.
    async fn worker(&self) -> Pid {
        let found = async {
            loop {
                if let Some(pid) = child_of(self.pid) {
                    return pid;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("a worker")
    }

    async fn ended(mut self) -> (ExitStatus, String) {
        let child = &mut self.child;
        let status = async {
            loop {
                if let Some(status) = child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let status = tokio::time::timeout(PATIENCE, status).await.expect("it ends");
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (status, text)
    }
}

/// Parent and state of a process that is there.
fn stat(pid: Pid) -> Option<(i32, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.to_owned();
    Some((fields.next()?.parse().ok()?, state))
}

fn child_of(parent: Pid) -> Option<Pid> {
    let entries = fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| Some(Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?)))
        .find(|pid| stat(*pid).is_some_and(|(of, state)| of == parent.as_raw() && state != "Z"))
}

async fn until_gone(pid: Pid) {
    let gone = async {
        while stat(pid).is_some_and(|(_, state)| state != "Z") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("it ends");
}

/// Has registered this often, and renewed its lease since: whoever is to know its epoch knows it.
fn lives(epoch: u64) -> impl Fn(&Log) -> bool {
    move |log| log.heartbeats.last().is_some_and(|beat| beat.epoch == Epoch(epoch))
}

#[tokio::test]
async fn a_killed_workers_epoch_is_released_at_once_and_a_fresh_one_registers_under_the_same_id() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let hung = Orchestrator::start(LEASE).await;
    let urls = format!("{},{}", hung.url, orchestrator.url);
    hung.set(Mode::Silent);
    let process = Process::start(&urls, &[]);
    // The hung one is passed over.
    orchestrator.told("it lives", lives(1)).await;
    let first = process.worker().await;
    let killed = Instant::now();
    kill(first, Signal::SIGKILL).unwrap();
    orchestrator
        .told("the farewell", |log| log.released == [Epoch(1)])
        .await;
    let took = killed.elapsed();
    println!("released {took:.1?} after the kill");
    assert!(took < Duration::from_secs(3), "{took:?}");
    let log = orchestrator.told("the next one lives", lives(2)).await;
    println!("a fresh worker lives {:.1?} after the kill", killed.elapsed());
    assert_eq!(log.registrations[0].0.node, log.registrations[1].0.node);
    assert_ne!(process.worker().await, first);

    kill(process.pid, Signal::SIGTERM).unwrap();
    let (status, _) = process.ended().await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(orchestrator.log().released, [Epoch(1), Epoch(2)]);
}

#[tokio::test]
async fn a_dead_worker_that_is_not_to_be_replaced_ends_the_supervisor_with_a_failure() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let process = Process::start(&orchestrator.url, &["--no-restart"]);
    orchestrator.told("it lives", lives(1)).await;
    kill(process.worker().await, Signal::SIGKILL).unwrap();
    let (status, text) = process.ended().await;
    assert_eq!(status.code(), Some(1), "{text}");
    let log = orchestrator.log();
    assert_eq!((log.released, log.registrations.len()), (vec![Epoch(1)], 1));
}

#[tokio::test]
async fn a_worker_whose_supervisor_is_killed_ends_and_releases_its_epoch() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let process = Process::start(&orchestrator.url, &[]);
    orchestrator.told("it lives", lives(1)).await;
    let worker = process.worker().await;
    kill(process.pid, Signal::SIGKILL).unwrap();
    until_gone(worker).await;
    assert_eq!(orchestrator.log().released, [Epoch(1)]);
}

#[tokio::test]
async fn a_worker_that_hangs_is_killed_for_who_asks_twice_and_its_epoch_released() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let process = Process::start(&orchestrator.url, &[]);
    orchestrator.told("it lives", lives(1)).await;
    kill(process.worker().await, Signal::SIGSTOP).unwrap();
    kill(process.pid, Signal::SIGTERM).unwrap();
    // The kernel makes one of two signals that are not taken yet.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let asked = Instant::now();
    kill(process.pid, Signal::SIGINT).unwrap();
    let (status, _) = process.ended().await;
    println!("ended {:.1?} after the second signal", asked.elapsed());
    assert_eq!(status.code(), Some(1));
    assert!(asked.elapsed() < Duration::from_secs(6));
    assert_eq!(orchestrator.log().released, [Epoch(1)]);
}

#[tokio::test]
async fn an_interrupt_from_the_terminal_reaches_the_supervisor_alone() {
    use std::os::unix::process::CommandExt;

    let orchestrator = Orchestrator::start(LEASE).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_signalbox-media"));
    command
        .args(["--control-listen=127.0.0.1:0", "--media-bind=127.0.0.1:0", "--shards=1"])
        .args(["--orchestrator", &orchestrator.url])
        .env("SIGNALBOX_CLUSTER_SECRET", SECRET)
        .stderr(Stdio::piped())
        .process_group(0);
    let child = command.spawn().unwrap();
    let pid = Pid::from_raw(child.id() as i32);
    let process = Process { child, pid };
    orchestrator.told("it lives", lives(1)).await;
    // Stopped, the supervisor passes nothing on: what the worker gets comes from the terminal.
    let worker = process.worker().await;
    kill(pid, Signal::SIGSTOP).unwrap();
    killpg(pid, Signal::SIGINT).unwrap();
    let beats = orchestrator.log().heartbeats.len();
    orchestrator
        .told("it goes on", |log| log.heartbeats.len() > beats + 3)
        .await;
    kill(pid, Signal::SIGCONT).unwrap();
    let (status, _) = process.ended().await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(stat(worker), None);
    assert_eq!(orchestrator.log().released, [Epoch(1)]);
}

#[tokio::test]
async fn a_process_that_is_asked_to_end_drains_and_asked_again_ends_within_two_seconds() {
    for alone in [false, true] {
        let orchestrator = Orchestrator::start(LEASE).await;
        orchestrator.set_drain(DrainState::Running, 1, 0);
        let flags: &[&str] = if alone { &["--no-supervisor"] } else { &[] };
        let process = Process::start(&orchestrator.url, flags);
        let log = orchestrator.told("it lives", lives(1)).await;
        let (announced, _) = &log.registrations[0];
        let place = Place {
            control: announced.control.strip_prefix("ws://").unwrap().parse().unwrap(),
            id: announced.node,
        };
        let mut gateway = place.gateway().await;
        gateway.join(&place, "daily", 1, "ann").await;

        kill(process.pid, Signal::SIGTERM).unwrap();
        orchestrator.told("it asks", |log| !log.drains.is_empty()).await;
        let beats = orchestrator.log().heartbeats.len();
        orchestrator
            .told("it goes on", |log| log.heartbeats.len() > beats + 3)
            .await;
        let asked = Instant::now();
        kill(process.pid, Signal::SIGTERM).unwrap();
        let (status, _) = process.ended().await;
        println!("ended {:.1?} after the second signal", asked.elapsed());
        assert_eq!(status.code(), Some(0));
        assert!(asked.elapsed() < Duration::from_secs(6));
        assert_eq!(orchestrator.log().released, [Epoch(1)]);
    }
}

#[tokio::test]
async fn what_cannot_be_configured_or_bound_is_one_sentence_and_no_loop() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let bind = format!("--control-listen={address}");
    let cases: [(&[&str], i32, &str); 3] = [
        (&["--media-ip=0.0.0.0"], 2, "clients cannot send media to 0.0.0.0"),
        (&["--orchestrator=ftp://x"], 2, "must be an URL"),
        (&[&bind], 1, "cannot bind the control address"),
    ];
    for (flags, code, sentence) in cases {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_signalbox-media"))
            .args(["--media-bind=127.0.0.1:0", "--shards=1"])
            .args(flags)
            .env("SIGNALBOX_CLUSTER_SECRET", SECRET)
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(PATIENCE, output).await.unwrap().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert_eq!(text.matches(sentence).count(), 1, "{text}");
    }
}

#[tokio::test]
async fn without_a_supervisor_the_process_is_the_node() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let process = Process::start(&orchestrator.url, &["--no-supervisor"]);
    orchestrator.told("it lives", lives(1)).await;
    assert_eq!(child_of(process.pid), None);
    kill(process.pid, Signal::SIGTERM).unwrap();
    let (status, _) = process.ended().await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(orchestrator.log().released, [Epoch(1)]);
}
