//! One run of a simulation, and many.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use signalbox_media::tenure::Promises;
use signalbox_protocol::RoomName;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::faults::{self, Faults, TROUBLE};
use crate::gateway::Joined;
use crate::invariants::Invariants;
use crate::world::World;
use crate::{GATEWAYS, NODES, ROOMS};

/// How long after everything was mended joins must work again: the lease, the fence, and who waits longest for a next try.
const RECOVERED: Duration = Duration::from_secs(15);

/// How often the invariants are looked at.
const STEP: Duration = Duration::from_millis(10);

/// What happened in a run, for comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    pub joins: u64,
    pub failed: u64,
    pub trace: u64,
}

/// Tries `SIGNALBOX_SIMULATION_SEEDS` seeds, or `count`; or only `SIGNALBOX_SIMULATION_SEED`.
///
/// # Panics
/// When one fails: with what failed, and how to replay it.
pub fn seeds(count: u64, run: impl Fn(u64) -> Result<Summary, String> + Sync) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, end) = match number("SIGNALBOX_SIMULATION_SEED") {
        Some(seed) => (seed, seed + 1),
        None => (0, number("SIGNALBOX_SIMULATION_SEEDS").unwrap_or(count)),
    };
    let next = AtomicU64::new(first);
    let failures = std::sync::Mutex::new(Vec::new());
    let joins = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    match run(seed) {
                        Ok(summary) => drop(joins.fetch_add(summary.joins, Ordering::Relaxed)),
                        Err(what) => failures.lock().expect("not poisoned").push((seed, what)),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("not poisoned");
    println!("{} seeds, {} joins", end - first, joins.into_inner());
    let test = std::thread::current();
    let name = test.name().unwrap_or_default();
    let text: Vec<String> = failures
        .iter()
        .map(|(seed, what)| {
            format!(
                "seed {seed}: {what}\n  replay: SIGNALBOX_SIMULATION_SEED={seed} cargo test -p e2e --test simulation {name} -- --nocapture"
            )
        })
        .collect();
    assert!(failures.is_empty(), "{}", text.join("\n"));
}

/// One run.
///
/// # Errors
/// What did not hold, and when.
pub fn run(seed: u64, faults: Faults, promises: Promises) -> Result<Summary, String> {
    on_paused_clock(simulate(seed, faults, promises))
}

/// Runs something to its end in one thread, on a clock that goes on when there is nothing else to do.
pub fn on_paused_clock<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(what)
}

async fn simulate(seed: u64, faults: Faults, promises: Promises) -> Result<Summary, String> {
    let world = World::new(seed, promises, GATEWAYS);
    let (joined, mut joins) = mpsc::channel(1024);
    for index in 0..GATEWAYS {
        tokio::spawn(visitors(
            world.clone(),
            index,
            seed + 100 + index as u64,
            joined.clone(),
        ));
    }
    drop(joined);
    tokio::spawn(faults::run(world.clone(), faults));
    tokio::spawn(leaving(world.clone(), seed + 200));

    let mut invariants = Invariants::default();
    let mut summary = Summary {
        joins: 0,
        failed: 0,
        trace: 0,
    };
    let fails = |world: &World, what: String| format!("at {:?}: {what}", world.elapsed());
    let mut step = Instant::now();
    let end = TROUBLE + RECOVERED * if faults == Faults::Drains { 3 } else { 2 };
    while world.elapsed() < end {
        step += STEP;
        sleep_until(step).await;
        if world.take_lost_writes() {
            invariants.writes_were_lost();
        }
        while let Ok(join) = joins.try_recv() {
            let Join { room, result, at } = join;
            // Without the epoch: the memory store's begin with the date.
            let place = result
                .as_ref()
                .map(|joined| (world.index_of(joined.node), joined.generation));
            world.note(|| format!("join of {room}, begun at {at:?}: {place:?}"));
            match result {
                Some(joined) => {
                    summary.joins += 1;
                    invariants.joined(&joined).map_err(|what| fails(&world, what))?;
                }
                None => {
                    summary.failed += 1;
                    // Begun after all was well again.
                    if at > TROUBLE + RECOVERED {
                        return Err(fails(
                            &world,
                            format!("a join of {room} at {at:?} failed although all is well"),
                        ));
                    }
                }
            }
        }
        invariants.check(&world).await.map_err(|what| fails(&world, what))?;
    }
    invariants
        .check_histories(&world)
        .await
        .map_err(|what| fails(&world, what))?;
    if faults == Faults::Drains {
        invariants
            .check_drained(&world, faults::DRAINED)
            .await
            .map_err(|what| fails(&world, what))?;
    }
    if summary.joins == 0 {
        return Err("nobody came in".to_owned());
    }
    summary.trace = world.trace();
    Ok(summary)
}

struct Join {
    room: RoomName,
    result: Option<Joined>,
    /// When it began.
    at: Duration,
}

/// People come, in their own time.
async fn visitors(world: World, gateway: usize, seed: u64, joined: mpsc::Sender<Join>) {
    let mut rng = StdRng::seed_from_u64(seed);
    loop {
        sleep(Duration::from_millis(rng.random_range(5..250))).await;
        let room: RoomName = format!("room-{}", rng.random_range(0..ROOMS)).parse().expect("a name");
        let (world, joined) = (world.clone(), joined.clone());
        tokio::spawn(async move {
            let at = world.elapsed();
            let result = match world.gateway(gateway) {
                Some(gateway) => gateway.join(&world, room.clone()).await,
                None => None,
            };
            // The simulation is over when nobody listens any more.
            let _ = joined.send(Join { room, result, at }).await;
        });
    }
}

/// And go, so that rooms close.
async fn leaving(world: World, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    loop {
        sleep(Duration::from_millis(rng.random_range(100..1500))).await;
        let (index, choice) = (rng.random_range(0..NODES), rng.random_range(0..ROOMS));
        if let Some(node) = world.node(index).filter(|_| !world.is_frozen(index)) {
            tokio::spawn(node.empty_one(world.clone(), choice));
        }
    }
}
