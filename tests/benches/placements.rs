//! Placements per second through the orchestrators' HTTP, with 1, 2 and 8 processes over one PostgreSQL. The clients run on the same
//! machine and take their share of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::fake_node::FakeNode;
use e2e::map::Map;
use e2e::processes::{Processes, Shape, database};
use signalbox_protocol::RoomName;

/// How many clients ask at once, each for one room after the other.
const CLIENTS: usize = 128;

/// How long each figure is measured.
const SPAN: Duration = Duration::from_secs(5);

/// How many rooms are known already.
const KNOWN: usize = 1_000;

/// What was measured.
struct Figure {
    per_second: f64,
    median: Duration,
    slowest_of_100: Duration,
}

/// Asks for the rooms that `room` names for their numbers.
async fn measure(maps: &[Map], room: fn(usize) -> String) -> Figure {
    let next = Arc::new(AtomicUsize::new(0));
    let begin = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (map, next) = (maps[client % maps.len()].clone(), next.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                while begin.elapsed() < SPAN {
                    let room: RoomName = room(next.fetch_add(1, Ordering::Relaxed)).parse().expect("a name");
                    let asked = Instant::now();
                    map.place(&room).await.expect("it is placed");
                    times.push(asked.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await.expect("no client panics"));
    }
    let span = begin.elapsed();
    times.sort();
    Figure {
        per_second: times.len() as f64 / span.as_secs_f64(),
        median: times[times.len() / 2],
        slowest_of_100: times[times.len() * 99 / 100],
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    println!("{CLIENTS} clients for {} s a figure", SPAN.as_secs());
    println!("| orchestrators | rooms | placements/s | median | 99% within |");
    println!("|---|---|---|---|---|");
    for orchestrators in [1, 2, 8] {
        let Some(database) = database("placements").await? else {
            return Ok(());
        };
        // Leases are not what this is about, and all of it on one machine takes the nodes' processor time.
        let shape = Shape::new(0, 0).orchestrators(orchestrators).orchestrator_flags(&[
            "--lease-ms",
            "60000",
            "--heartbeat-ms",
            "1000",
        ]);
        let all = Processes::start(&database, &shape).await?;
        let _nodes = FakeNode::start_many(100, &all.orchestrator_urls()).await;
        let maps: Vec<Map> = (0..orchestrators).map(|index| all.map(index)).collect();
        let known = |number| format!("new-{}", number % KNOWN);
        for (what, figure) in [
            ("new", measure(&maps, |number| format!("new-{number}")).await),
            ("known", measure(&maps, known).await),
        ] {
            println!(
                "| {orchestrators} | {what} | {:.0} | {:.1} ms | {:.1} ms |",
                figure.per_second,
                figure.median.as_secs_f64() * 1e3,
                figure.slowest_of_100.as_secs_f64() * 1e3,
            );
        }
    }
    Ok(())
}
