//! What clients that send as slowly as they can do to those that do not: the time of honest joins, alone and beside them.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::clients::{Clients, join, source};
use super::findings::{Findings, ms, percentile};
use super::system::System;

/// How many send their heads slowly, and how many their bodies.
const EACH: usize = 1_000;

/// From how many addresses they come.
const ADDRESSES: usize = 20;

/// How many connections the gateway takes from one address here: as many as come from each.
const PER_ADDRESS: usize = 2 * EACH / ADDRESSES;

/// How many joins begin each second.
const RATE: u32 = 20;

/// How long they are measured alone, and beside the slow ones.
const ALONE: Duration = Duration::from_secs(20);
const BESIDE: Duration = Duration::from_secs(60);

/// The most by which the time of 99 of 100 may grow.
const MOST: f64 = 2.0;

/// Whoever is honest.
pub const HONEST: Ipv4Addr = Ipv4Addr::LOCALHOST;

pub async fn measure() -> anyhow::Result<Findings> {
    let limit = PER_ADDRESS.to_string();
    let system = System::start(&["--max-connections-per-address", &limit]).await?;
    let offer = offer().await?;
    // The first have the gateway find the room and its node.
    steady(&system.clients, &offer, Duration::from_secs(3)).await;
    let alone = steady(&system.clients, &offer, ALONE).await;
    let slow = Slow::start(&system.clients);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let beside = steady(&system.clients, &offer, BESIDE).await;
    let (cut_off, open) = (
        slow.cut_off.load(Ordering::Relaxed),
        system.metric("connections").await?,
    );
    let one = from_one_address(&system).await;
    drop(slow);

    let mut found = Findings::default();
    found.tell("a join alone, p50 and p99", alone.times());
    found.tell(format!("connections open beside {} slow ones", 2 * EACH), open);
    found.tell("slow requests cut off meanwhile, whose clients came again", cut_off);
    found.tell("a join beside them, p50 and p99", beside.times());
    let ratio = percentile(&beside.joined, 99.0) / percentile(&alone.joined, 99.0);
    found.check(
        "p99, times as much",
        format!("{ratio:.2}"),
        format!("≤ {MOST}"),
        ratio <= MOST,
    );
    let failed = alone.failed.len() + beside.failed.len();
    found.check("joins that failed", failed, "0", failed == 0);
    for failure in alone.failed.iter().chain(&beside.failed).take(3) {
        found.tell("one of them", failure);
    }
    let holds = one == (PER_ADDRESS, PER_ADDRESS);
    let bar = format!("{PER_ADDRESS} and {PER_ADDRESS}");
    found.check(
        format!("of {} connections from one address: taken, refused", 2 * PER_ADDRESS),
        format!("{} and {}", one.0, one.1),
        bar,
        holds,
    );
    Ok(found)
}

/// The offer of a client with a microphone.
pub async fn offer() -> anyhow::Result<String> {
    let peer = e2e::peer::Peer::new().await?;
    let kind = str0m::media::MediaKind::Audio;
    let direction = str0m::media::Direction::SendOnly;
    let (offer, _) = peer
        .offer(move |api| api.add_media(kind, direction, None, None, None))
        .await?;
    Ok(offer)
}

/// Joins, each over a connection of its own.
#[derive(Debug, Default)]
pub struct Joins {
    /// How long those took that were let in.
    pub joined: Vec<Duration>,
    /// What the others met.
    pub failed: Vec<String>,
}

impl Joins {
    pub fn times(&self) -> String {
        let of = |percent| ms(percentile(&self.joined, percent));
        format!("{}, {} of {}", of(50.0), of(99.0), self.joined.len())
    }
}

/// Joins at a low and steady rate, whether or not those before have ended.
pub async fn steady(clients: &Clients, offer: &str, span: Duration) -> Joins {
    let (begun, offer) = (Instant::now(), Arc::<str>::from(offer));
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
    let mut under_way = JoinSet::new();
    let mut number = 0;
    while begun.elapsed() < span {
        ticks.tick().await;
        number += 1;
        let (clients, offer) = (clients.clone(), Arc::clone(&offer));
        under_way.spawn(async move {
            let request = join(&format!("honest-{}", number % 10), &format!("honest-{number}"), &offer);
            clients.ask_once(HONEST, &request).await
        });
    }
    let mut joins = Joins::default();
    while let Some(Ok(ended)) = under_way.join_next().await {
        match ended {
            Ok((answer, took)) if answer.status == 201 => joins.joined.push(took),
            Ok((answer, _)) => joins.failed.push(answer.status.to_string()),
            Err(error) => joins.failed.push(error.to_string()),
        }
    }
    joins
}

/// Slow clients, until they are dropped.
struct Slow {
    cut_off: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Slow {
    fn start(clients: &Clients) -> Self {
        let cut_off = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for number in 0..2 * EACH {
            let (clients, cut_off) = (clients.clone(), Arc::clone(&cut_off));
            tasks.spawn(async move {
                // Not all in one moment.
                tokio::time::sleep(Duration::from_millis(number as u64)).await;
                loop {
                    send_slowly(&clients, number).await;
                    cut_off.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            });
        }
        Self { cut_off, _tasks: tasks }
    }
}

/// Sends a byte a second, of a head or of a body, until the gateway has enough.
async fn send_slowly(clients: &Clients, number: usize) {
    let (from, is_head) = (source(number % ADDRESSES), number < EACH);
    // Each is somebody else, as one user would be refused before its body is waited for.
    let whole = join("slow", &format!("slow-{number}"), &"v=0\r\n".repeat(100));
    let head = whole
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map_or(0, |end| end + 4);
    let at_once = if is_head { 0 } else { head };
    let sending = async {
        let mut connection = clients.connect(from).await?;
        connection.write_all(whole.get(..at_once).unwrap_or_default()).await?;
        let (mut read, mut write) = tokio::io::split(connection);
        let ended = async {
            let mut answer = [0; 1024];
            while read.read(&mut answer).await.is_ok_and(|read| read > 0) {}
        };
        let rest = async {
            for byte in whole.get(at_once..).unwrap_or_default() {
                tokio::time::sleep(Duration::from_secs(1)).await;
                write.write_all(&[*byte]).await?;
            }
            Ok::<_, std::io::Error>(())
        };
        tokio::select! {
            () = ended => Ok(()),
            sent = rest => sent,
        }
    };
    let _ = sending.await;
}

/// Opens twice as many connections from one address as it may have. How many are taken, and how many refused.
async fn from_one_address(system: &System) -> (usize, usize) {
    let mut held = Vec::new();
    let mut refused = 0;
    for _ in 0..2 * PER_ADDRESS {
        match system.clients.connect(source(ADDRESSES)).await {
            Ok(connection) => held.push(connection),
            Err(_) => refused += 1,
        }
    }
    (held.len(), refused)
}
