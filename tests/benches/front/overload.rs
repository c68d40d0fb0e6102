//! What four times as many joins as it can take do to a gateway: how many it still lets in, how fast, and how the rest is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::clients::{Clients, Connection, ask, join, source};
use super::findings::{Findings, ms, percentile};
use super::slow::{offer, steady};
use super::stay_on;
use super::system::System;

/// How many users there are. Who joins again takes its own place, so that the node holds no more of them.
const USERS: usize = 2_000;

/// How many are in a room.
const IN_A_ROOM: usize = 4;

/// From how many addresses they come, each of which may ask 2,000 times a second.
const ADDRESSES: usize = 16;

/// How many clients ask in turns when the capacity is measured; the best of them is it.
const CLOSED: [usize; 3] = [32, 128, 256];

/// How long each.
const CLOSED_SPAN: Duration = Duration::from_secs(6);

/// How many times as much as the capacity is asked, and for how long.
const TIMES: f64 = 4.0;
const OVERLOAD: Duration = Duration::from_secs(20);

/// How long that goes on once before: the memory for as many requests at once as are let in is there from then on, and what grows later has no bound.
const SPELL: Duration = Duration::from_secs(5);

/// How many connections there are from the beginning, so that what grows is not their number.
const CONNECTIONS: usize = 1_500;

/// How many requests may be under way here before the load counts as one that could not be made.
const MOST_UNDER_WAY: usize = 8_000;

/// How long after the end all has to be as before.
const AFTER: Duration = Duration::from_secs(5);

/// How long the low rate is measured before, and again after that.
const CALM: Duration = Duration::from_secs(15);

/// What came of joins.
#[derive(Debug, Default)]
struct Outcomes {
    /// How long those took that were let in, from when they were due.
    joined: Vec<Duration>,
    /// 503 or 429, with a word about when to come again.
    refused: usize,
    /// How long the refused ones took.
    refusals: Vec<Duration>,
    /// Anything else.
    failed: Vec<String>,
    /// How much later than due they were sent.
    late: Vec<Duration>,
}

pub async fn measure() -> anyhow::Result<Findings> {
    let system = System::start(&[]).await?;
    // The node is what bounds the capacity. It is to have as much of its core under four times the load as under one, so the load has the gateway's.
    stay_on(Pid::this(), 0)?;
    let found = overload(&system).await;
    stay_on(Pid::this(), 1)?;
    found
}

async fn overload(system: &System) -> anyhow::Result<Findings> {
    let requests = Requests::new(&offer().await?);
    let calm = steady(&system.clients, requests.offer(), CALM).await;

    let mut peak: f64 = 0.0;
    let mut found = Findings::default();
    found.tell("a join at 20/s before, p50 and p99", calm.times());
    for clients in CLOSED {
        let before = system.processor_seconds()?;
        let outcomes = closed(&system.clients, &requests, clients).await;
        let busy = (system.processor_seconds()? - before) / CLOSED_SPAN.as_secs_f64();
        let rate = outcomes.joined.len() as f64 / CLOSED_SPAN.as_secs_f64();
        peak = peak.max(rate);
        let p99 = ms(percentile(&outcomes.joined, 99.0));
        found.tell(
            format!("{clients} clients in turns: joins/s, p99, of the gateway's core, refused, failed"),
            format!(
                "{rate:.0}, {p99}, {:.0}%, {}, {}",
                busy * 100.0,
                outcomes.refused,
                outcomes.failed.len()
            ),
        );
    }
    let (free, mut freed) = mpsc::unbounded_channel();
    // Each has joined once, so that what grows later is not what a connection has for its first join.
    let warming = futures_util::stream::iter(0..CONNECTIONS).map(async |number| {
        let mut connection = None;
        attempt(&system.clients, number, &mut connection, requests.next())
            .await
            .map_err(anyhow::Error::msg)?;
        anyhow::Ok(connection)
    });
    let mut warming = std::pin::pin!(warming.buffer_unordered(CLOSED[0]));
    while let Some(connection) = warming.next().await {
        if let Some(connection) = connection? {
            free.send(connection)?;
        }
    }
    let fresh = system.memory_kib()?;
    open(&system.clients, &requests, (peak * TIMES, SPELL), (&free, &mut freed)).await;
    let memory_before = system.memory_kib()?;
    let (own, gateway) = (own_seconds()?, system.processor_seconds()?);
    let outcomes = open(
        &system.clients,
        &requests,
        (peak * TIMES, OVERLOAD),
        (&free, &mut freed),
    )
    .await;
    let memory_after = system.memory_kib()?;
    let (own, gateway) = (own_seconds()? - own, system.processor_seconds()? - gateway);
    let connections = system.metric("connections").await?;
    drop((free, freed));
    let seconds = OVERLOAD.as_secs_f64();
    let busy = |seconds_used: f64| format!("{:.0}%", seconds_used / seconds * 100.0);
    tokio::time::sleep(AFTER).await;
    let again = steady(&system.clients, requests.offer(), CALM).await;

    let asked = outcomes.joined.len() + outcomes.refused + outcomes.failed.len();
    let goodput = outcomes.joined.len() as f64 / seconds;
    found.tell(
        "asked per second, and the p99 of how late it was",
        format!(
            "{:.0}, {}",
            asked as f64 / seconds,
            ms(percentile(&outcomes.late, 99.0))
        ),
    );
    found.tell(
        "of their core: the gateway, and the load",
        format!(
            "{}, {}",
            busy(system.processor_seconds()? - gateway),
            busy(own_seconds()? - own)
        ),
    );
    let share = goodput / peak;
    found.check(
        "let in per second, as a part of the capacity",
        format!("{goodput:.0}, {share:.2}"),
        "≥ 0.8",
        share >= 0.8,
    );
    let p99 = percentile(&outcomes.joined, 99.0);
    found.check("p99 of those", ms(p99), "≤ 1000 ms", p99 <= 1_000.0);
    found.tell(
        "refused, and their p99",
        format!("{}, {}", outcomes.refused, ms(percentile(&outcomes.refusals, 99.0))),
    );
    let failed = outcomes.failed.len();
    found.check("neither let in nor told when to come again", failed, "0", failed == 0);
    for failure in outcomes.failed.iter().take(3) {
        found.tell("one of them", failure);
    }
    let grown = memory_after as f64 / memory_before as f64;
    found.tell("connections before and after", format!("{CONNECTIONS}, {connections}"));
    found.check(
        "memory before and after; before the first spell of it",
        format!("{memory_before}, {memory_after} KiB; {fresh} KiB"),
        "≤ 1.1 times",
        grown <= 1.1,
    );
    let ratio = percentile(&again.joined, 99.0) / percentile(&calm.joined, 99.0);
    found.check(
        format!("a join at 20/s, {} s after the end, p50 and p99", AFTER.as_secs()),
        format!("{}, {ratio:.2} times", again.times()),
        "≤ 2 times",
        ratio <= 2.0 && again.failed.is_empty(),
    );
    Ok(found)
}

/// Joins of many users, made in advance.
struct Requests {
    all: Vec<Vec<u8>>,
    next: AtomicUsize,
    offer: String,
}

impl Requests {
    fn new(offer: &str) -> Arc<Self> {
        let one = |user| join(&format!("room-{}", user / IN_A_ROOM), &format!("user-{user}"), offer);
        Arc::new(Self {
            all: (0..USERS).map(one).collect(),
            next: AtomicUsize::new(0),
            offer: offer.to_owned(),
        })
    }

    fn offer(&self) -> &str {
        &self.offer
    }

    fn next(&self) -> &[u8] {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        &self.all[number % USERS]
    }
}

/// Processor time of this process, in seconds.
fn own_seconds() -> anyhow::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok([usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| time.num_microseconds() as f64 / 1e6)
        .sum())
}

/// So many clients that ask again as soon as they are answered.
async fn closed(clients: &Clients, requests: &Arc<Requests>, count: usize) -> Outcomes {
    let begun = Instant::now();
    let mut asking = JoinSet::new();
    for number in 0..count {
        let (clients, requests) = (clients.clone(), Arc::clone(requests));
        asking.spawn(async move {
            let mut outcomes = Outcomes::default();
            let mut connection = None;
            while begun.elapsed() < CLOSED_SPAN {
                let due = Instant::now();
                outcomes.add(attempt(&clients, number, &mut connection, requests.next()).await, due);
            }
            outcomes
        });
    }
    let mut all = Outcomes::default();
    while let Some(Ok(outcomes)) = asking.join_next().await {
        all.joined.extend(outcomes.joined);
        all.refused += outcomes.refused;
        all.failed.extend(outcomes.failed);
    }
    all
}

/// So many a second, whether or not those before have been answered.
async fn open(
    clients: &Clients,
    requests: &Arc<Requests>,
    (rate, span): (f64, Duration),
    (free, freed): (
        &mpsc::UnboundedSender<Connection>,
        &mut mpsc::UnboundedReceiver<Connection>,
    ),
) -> Outcomes {
    let (tell, mut told) = mpsc::unbounded_channel();
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    let mut outcomes = Outcomes::default();
    let (mut begun_so_far, mut under_way) = (0, 0);
    while begun.elapsed() < span {
        ticks.tick().await;
        while let Ok((outcome, due)) = told.try_recv() {
            under_way -= 1;
            outcomes.add(outcome, due);
        }
        let until_now = (begun.elapsed().as_secs_f64() * rate) as usize;
        while begun_so_far < until_now {
            let due = begun + Duration::from_secs_f64(begun_so_far as f64 / rate);
            begun_so_far += 1;
            if under_way >= MOST_UNDER_WAY {
                outcomes.failed.push("too many are under way".to_owned());
                continue;
            }
            under_way += 1;
            outcomes.late.push(due.elapsed());
            let (clients, requests, free, tell) = (clients.clone(), Arc::clone(requests), free.clone(), tell.clone());
            let mut connection = freed.try_recv().ok();
            let number = begun_so_far;
            tokio::spawn(async move {
                let outcome = attempt(&clients, number, &mut connection, requests.next()).await;
                if let Some(connection) = connection {
                    let _ = free.send(connection);
                }
                let _ = tell.send((outcome, due));
            });
        }
    }
    while under_way > 0
        && let Some((outcome, due)) = told.recv().await
    {
        under_way -= 1;
        outcomes.add(outcome, due);
    }
    outcomes
}

/// What came of one: its status, and whether it was said when to come again.
type Outcome = Result<(u16, bool, Instant), String>;

/// Asks on this connection, or on a new one if it is none or was closed in the meantime.
async fn attempt(clients: &Clients, number: usize, connection: &mut Option<Connection>, request: &[u8]) -> Outcome {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => clients
            .connect(source(number % ADDRESSES))
            .await
            .map_err(|error| format!("connecting: {error}"))?,
    };
    let answer = ask(&mut stream, request)
        .await
        .map_err(|error| format!("asking: {error}"))?;
    if !answer.closes {
        *connection = Some(stream);
    }
    Ok((answer.status, answer.says_when, Instant::now()))
}

impl Outcomes {
    fn add(&mut self, outcome: Outcome, due: Instant) {
        match outcome {
            Ok((201, _, at)) => self.joined.push(at - due),
            Ok((503 | 429, true, at)) => {
                self.refused += 1;
                self.refusals.push(at - due);
            }
            Ok((status, ..)) => self.failed.push(status.to_string()),
            Err(error) => self.failed.push(error),
        }
    }
}
