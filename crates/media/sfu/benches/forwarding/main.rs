//! What the core takes to forward a packet, without sockets: one publisher to 50 subscribers, and ten to ten. `cargo bench -p signalbox-sfu --bench forwarding`
//! measures time with criterion; with `--count PUBLISHERS SUBSCRIBERS PICTURES` behind `--` it forwards that and says how much it was, for a profiler that
//! counts what happens below `in_shard`.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

#[path = "../request.rs"]
mod request;
mod stage;

use std::time::Duration;

use criterion::{Criterion, Throughput};
use stage::Stage;

const STAGES: [(usize, usize); 2] = [(1, 50), (10, 10)];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--count") {
        let numbers: Vec<usize> = arguments[at + 1..]
            .iter()
            .filter_map(|number| number.parse().ok())
            .collect();
        let [publishers, subscribers, pictures] = numbers[..] else {
            panic!("--count PUBLISHERS SUBSCRIBERS PICTURES");
        };
        let mut stage = Stage::new(publishers, subscribers);
        let forwarded: u64 = (0..pictures).map(|_| stage.picture()).sum();
        println!("{forwarded}");
        return;
    }
    let is_full = arguments.iter().any(|argument| argument == "--bench");
    let mut criterion = Criterion::default().configure_from_args();
    if is_full {
        criterion = criterion.measurement_time(Duration::from_secs(10));
    }
    let mut group = criterion.benchmark_group("forwarding");
    for (publishers, subscribers) in STAGES {
        let mut stage = Stage::new(publishers, subscribers);
        group.throughput(Throughput::Elements(stage.packets()));
        group.bench_function(format!("{publishers} to {subscribers}"), |bencher| {
            bencher.iter_custom(|pictures| {
                let before = stage.worked();
                let forwarded: u64 = (0..pictures).map(|_| stage.picture()).sum();
                assert!(
                    forwarded * 100 >= stage.packets() * pictures * 95,
                    "{forwarded} packets"
                );
                stage.worked() - before
            });
        });
    }
    group.finish();
    criterion.final_summary();
}
