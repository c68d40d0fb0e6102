//! How long a choice takes.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use signalbox_orchestrator::placement::{Candidate, Chooser, Settings};
use signalbox_protocol::placement::{PlaceRoom, Policy};

use crate::cluster::{nodes, seen};
use crate::{Bar, Row, Scale};

const CHOICES: usize = 201;

pub fn speed(scale: Scale) -> Vec<Row> {
    let mut rows = Vec::new();
    if !scale.full {
        return rows;
    }
    for count in [100, 8000] {
        let candidates = fleet(count);
        let anywhere = PlaceRoom::new("room".parse().expect("a name"));
        for policy in Policy::ALL {
            let request = PlaceRoom {
                policy: Some(policy),
                ..anywhere.clone()
            };
            let bar = match policy {
                Policy::TwoChoices => Bar::AtMost(1000.0),
                _ => Bar::None,
            };
            rows.push(Row::new(
                format!("{policy}, {count} nodes"),
                median(&candidates, &request),
                bar,
            ));
        }
        let request = PlaceRoom {
            region: Some("eu".into()),
            labels: BTreeMap::from([("disk".into(), "nvme".into())]),
            min_version: Some("1.4".into()),
            ..anywhere
        };
        let what = format!("two-choices, {count} nodes, by region, label and version");
        rows.push(Row::new(what, median(&candidates, &request), Bar::AtMost(1000.0)));
    }
    rows
}

fn fleet(count: usize) -> Vec<Candidate> {
    let mut rng = StdRng::seed_from_u64(8);
    let mut candidates = nodes(vec![2000; count]);
    for candidate in &mut candidates {
        candidate.region = ["eu", "us", "ap", "sa"][rng.random_range(0..4)].into();
        candidate.labels = [("disk", "nvme"), ("network", "25g")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        candidate.participants = rng.random_range(0..1500);
    }
    candidates
}

/// In microseconds; while as many rooms are in flight as 500 joins/s make.
fn median(candidates: &[Candidate], request: &PlaceRoom) -> f64 {
    let mut rng = StdRng::seed_from_u64(9);
    let mut chooser = Chooser::new(Settings::default());
    for _ in 0..2500 {
        chooser.placed(candidates[rng.random_range(0..candidates.len())].node, Duration::ZERO);
    }
    let mut times: Vec<Duration> = (0..CHOICES)
        .map(|_| {
            let started = Instant::now();
            black_box(chooser.choose(request, &seen(candidates, 4, Duration::ZERO), &mut rng));
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[CHOICES / 2].as_secs_f64() * 1e6
}
