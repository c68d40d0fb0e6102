//! One operating-system thread for each shard: its socket, its commands, its timers, around one [`Host`].
//!
//! A turn reads some batches, runs some commands, does what is due, and sends what came of it. Each part is bounded, so that none
//! starves another. All datagrams of a batch are handled before the core's output is taken: that is what makes runs of one
//! destination, which leave in one system call. The thread sleeps when a turn found nothing more to do.
//!
//! The core isolates a fault in one connection from the others. A panic that gets as far as this thread is a fault in the node
//! itself: the process ends, so that its rooms are placed elsewhere instead of hanging here.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use signalbox_protocol::control::Refusal;
use signalbox_sfu::{Shard, ShardConfig, ShardStats};
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::counters::Counters;
use crate::host::Host;
use crate::latency::Latency;
use crate::lease::{Boottime, Lease, Term};
use crate::link::overloaded;
use crate::media_socket::{MediaSocket, Received, SocketStats};
use crate::rooms::Rooms;
use crate::send_run::SendRun;
use crate::shard_command::ShardCommand;

/// How many commands wait for a shard. Higher: longer queues before gateways are told to wait. Lower: bursts are refused.
const COMMAND_QUEUE: usize = 1_024;

/// How many batches of datagrams are read in a turn. Higher: fewer looks at the other work. Lower: more overhead under load.
const BATCHES_PER_TURN: usize = 4;

/// How many commands are run in a turn. A join costs about as much as forwarding some hundred packets.
const COMMANDS_PER_TURN: usize = 16;

/// How old a report may be that others see, unless commands have changed something. Higher: less work under load. Lower: fresher figures.
const REPORT_AGE: Duration = Duration::from_millis(100);

/// How long a thread rests whose socket is at fault, so that it does not spin.
const FAULT_REST: Duration = Duration::from_millis(10);

/// What a shard counts.
#[derive(Debug, Clone, Copy, Default)]
pub struct ShardReport {
    /// The core.
    pub core: ShardStats,
    /// The socket.
    pub socket: SocketStats,
    /// How long datagrams were here.
    pub latency: Latency,
}

/// What a shard's thread is made from.
pub struct ShardSetup {
    /// Its place among the node's shards.
    pub index: usize,
    /// How many shards the node has.
    pub shards: usize,
    /// Its bound socket.
    pub socket: UdpSocket,
    /// For the core.
    pub config: ShardConfig,
    /// The node's rooms.
    pub rooms: Arc<Rooms>,
    /// The node's lease.
    pub lease: Arc<Lease>,
    /// The node's counters.
    pub counters: Arc<Counters>,
    /// Ends the thread.
    pub stop: CancellationToken,
}

/// A running shard.
pub struct ShardHandle {
    commands: mpsc::Sender<ShardCommand>,
    report: Arc<Mutex<ShardReport>>,
}

impl ShardHandle {
    /// Gives a command without waiting.
    ///
    /// # Errors
    /// `Overloaded` when the queue is full.
    pub fn give(&self, command: ShardCommand) -> Result<(), Refusal> {
        self.commands
            .try_send(command)
            .map_err(|_| overloaded("The room's shard has too much to do"))
    }

    /// Waits for a free place in the queue, for commands that must not be lost. False: the thread has ended.
    pub async fn send(&self, command: ShardCommand) -> bool {
        self.commands.send(command).await.is_ok()
    }

    /// The counters, at most some 100 ms old; after a command as they are.
    pub fn report(&self) -> ShardReport {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a shard's thread.
///
/// # Errors
/// When there can be no thread, or it cannot use its socket.
pub fn spawn(setup: ShardSetup) -> io::Result<(ShardHandle, JoinHandle<()>)> {
    let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
    let report = Arc::new(Mutex::new(ShardReport::default()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let socket = {
        let _entered = runtime.enter();
        MediaSocket::new(setup.socket)?
    };
    let shared = Arc::clone(&report);
    let thread = std::thread::Builder::new()
        .name(format!("shard-{}", setup.index))
        .spawn(move || {
            let _guard = AbortOnPanic;
            if setup.shards > 1 {
                pin(setup.index, setup.shards);
            }
            let core = Shard::new(setup.config, Instant::now());
            let worker = Worker {
                way_out: WayOut {
                    socket,
                    run: SendRun::default(),
                    term: None,
                },
                commands: receiver,
                host: Host::new(core, setup.rooms, setup.lease, setup.counters),
                report: shared,
                stop: setup.stop,
                report_due: None,
                latency: Latency::default(),
            };
            runtime.block_on(worker.work());
        })?;
    Ok((ShardHandle { commands, report }, thread))
}

/// Ends the process when the thread unwinds; the panic's message has been printed by then.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a shard's thread has panicked; the node ends");
            std::process::abort();
        }
    }
}

/// Keeps the thread on one processor core, so that its caches stay warm. Without it the shard only runs slower.
fn pin(index: usize, shards: usize) {
    let this_thread = Pid::from_raw(0);
    let pinned = sched_getaffinity(this_thread).and_then(|allowed| {
        let cores: Vec<usize> = (0..CpuSet::count())
            .filter(|&core| allowed.is_set(core).unwrap_or(false))
            .collect();
        match cores.get(index) {
            // Two shards on one core would do worse than the scheduler.
            Some(&core) if cores.len() >= shards => {
                let mut only = CpuSet::new();
                only.set(core)?;
                sched_setaffinity(this_thread, &only)
            }
            _ => Ok(()),
        }
    });
    if let Err(error) = pinned {
        tracing::debug!(shard = index, %error, "the shard's thread is not pinned to a core");
    }
}

struct Worker {
    way_out: WayOut,
    commands: mpsc::Receiver<ShardCommand>,
    host: Host,
    report: Arc<Mutex<ShardReport>>,
    stop: CancellationToken,
    /// When the last turns' figures are to be shown; none: they are.
    report_due: Option<Instant>,
    latency: Latency,
}

/// What a turn has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    More,
    SocketFailed,
    Ended,
}

impl Worker {
    async fn work(mut self) {
        let mut next = None;
        loop {
            match self.turn(next.take()) {
                Left::Ended => return,
                _ if self.stop.is_cancelled() => return,
                // Lets the runtime look for what has arrived.
                Left::More => tokio::task::yield_now().await,
                Left::SocketFailed => sleep(FAULT_REST).await,
                Left::Nothing => {
                    let due = self.host.poll_timeout().into_iter().chain(self.report_due).min();
                    tokio::select! {
                        ready = self.way_out.socket.readable() => if ready.is_err() { return },
                        command = self.commands.recv() => match command {
                            Some(command) => next = Some(command),
                            None => return,
                        },
                        () = wait_until(due) => {}
                        () = self.stop.cancelled() => return,
                    }
                }
            }
        }
    }

    /// `first` is a command that was taken from the queue already.
    fn turn(&mut self, first: Option<ShardCommand>) -> Left {
        let now = Instant::now();
        let mut left = Left::Nothing;
        let before = self.way_out.socket.stats().received;

        self.follow_lease(now);
        for batch in 0..BATCHES_PER_TURN {
            let host = &mut self.host;
            match (self.way_out.socket).receive(|source, datagram| host.handle_datagram(now, source, datagram)) {
                Received::Some => {
                    host.drain(now, &mut |to, datagram| self.way_out.queue(to, datagram));
                    if batch + 1 == BATCHES_PER_TURN {
                        left = Left::More;
                    }
                }
                Received::Empty => break,
                Received::Failed => {
                    left = Left::SocketFailed;
                    break;
                }
            }
        }

        let mut command = first;
        let mut commanded = false;
        for _ in 0..COMMANDS_PER_TURN {
            let next = match command.take() {
                Some(command) => Ok(command),
                None => self.commands.try_recv(),
            };
            match next {
                Ok(command) => {
                    // The process may have been stopped since the turn began, and a reply is not a packet, which is held up at the end.
                    self.follow_lease(now);
                    let out = &mut |to, datagram: &[u8]| self.way_out.queue(to, datagram);
                    self.host.handle_command(now, command, out);
                    commanded = true;
                }
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    left = Left::Ended;
                    break;
                }
            }
        }
        if left == Left::Nothing && !self.commands.is_empty() {
            left = Left::More;
        }
        if self.host.poll_timeout().is_some_and(|due| due <= now) {
            let out = &mut |to, datagram: &[u8]| self.way_out.queue(to, datagram);
            self.host.handle_timeout(now, out);
        }
        self.way_out.flush();
        let received = self.way_out.socket.stats().received - before;
        if received > 0 {
            self.latency.add(received, now.elapsed());
        }
        if commanded || self.report_due.is_some_and(|due| due <= now) {
            self.publish();
            self.report_due = None;
        } else {
            self.report_due.get_or_insert(now + REPORT_AGE);
        }
        left
    }

    /// Ends the rooms of an epoch that is over. What they have to say at last leaves under their own term, and so not at all when it has
    /// ended without the node's doing.
    fn follow_lease(&mut self, now: Instant) {
        let out = &mut |to, datagram: &[u8]| self.way_out.queue(to, datagram);
        let term = self.host.handle_lease(now, Boottime::now(), out);
        self.way_out.flush();
        self.way_out.term = term;
    }

    fn publish(&self) {
        let report = ShardReport {
            core: self.host.stats(),
            socket: self.way_out.socket.stats(),
            latency: self.latency,
        };
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = report;
    }
}

/// What leaves the shard.
struct WayOut {
    socket: MediaSocket,
    run: SendRun,
    /// Of the epoch that the shard's rooms belong to: when it ends, nothing leaves. None: there are no rooms.
    term: Option<Arc<Term>>,
}

impl WayOut {
    fn queue(&mut self, to: SocketAddr, datagram: &[u8]) {
        if !self.run.push(to, datagram, self.socket.max_segments()) {
            self.flush();
            // The run is empty now: it takes anything.
            self.run.push(to, datagram, self.socket.max_segments());
        }
    }

    fn flush(&mut self) {
        let (socket, term) = (&mut self.socket, self.term.as_ref());
        let may_send = || term.is_some_and(|term| term.holds(Boottime::now()));
        self.run.take(|run| socket.send(run, may_send));
    }
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use signalbox_protocol::{ClusterId, Epoch};

    use super::*;
    use crate::lease::Held;
    use crate::media_socket::bind_media;

    #[tokio::test]
    async fn what_was_queued_while_the_lease_held_does_not_leave_after_it() {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let (lease, now) = (Lease::default(), Boottime::now());
        let grant = |epoch| {
            let held = Held {
                epoch: Epoch(epoch),
                cluster: ClusterId::random(),
            };
            assert!(lease.grant(held, now.after(Duration::from_secs(600)), now));
        };
        grant(1);
        let mut out = WayOut {
            socket: MediaSocket::new(bind_media(local, 1).unwrap().remove(0)).unwrap(),
            run: SendRun::default(),
            term: lease.term(now),
        };
        let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
        out.queue(nobody, b"in time");
        out.flush();
        out.queue(nobody, b"too late");
        grant(2);
        out.flush();
        let stats = out.socket.stats();
        assert_eq!((stats.sent, stats.send_refused), (1, 1));
    }
}
