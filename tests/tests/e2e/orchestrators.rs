//! One of several orchestrators dies, or stands still.

use std::time::{Duration, Instant};

use e2e::load::{Load, Tally};
use e2e::processes::{Processes, Shape, database};

/// How long each state lasts. Longer than a lease, so that nodes that hung on to the one orchestrator would be fenced.
const STATE: Duration = Duration::from_secs(4);

/// How often a join begins.
const TICK: Duration = Duration::from_millis(50);

/// What a join may take when nobody waits for an orchestrator that stands still.
const PROMPT: Duration = Duration::from_secs(1);

/// How many joins may have to wait for it: as many as each gateway needs to find it out, and those that were under way then. A third of
/// all would have to wait for it if it were not avoided.
const MAY_WAIT: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn no_join_fails_when_an_orchestrator_dies_or_stands_still() {
    let Some(database) = database("orchestrators").await.unwrap() else {
        return;
    };
    let mut all = Processes::start(&database, &Shape::new(2, 2).orchestrators(3))
        .await
        .unwrap();
    let epochs = all.map(2).epochs().await.unwrap();
    let gateways = vec![all.gateway(0), all.gateway(1)];
    // New rooms: each join needs an orchestrator.
    let load = Load::start(gateways, TICK, |number| format!("room-{number}"));
    let begin = Instant::now();
    tokio::time::sleep(STATE / 4).await;
    let killed = Instant::now();
    all.orchestrators[0].kill().unwrap();
    tokio::time::sleep(STATE).await;
    let secret = all.secret.clone();
    all.orchestrators[0].start(&secret).unwrap();
    all.map(0).until_nodes(2).await;
    let paused = Instant::now();
    all.orchestrators[1].pause().unwrap();
    tokio::time::sleep(2 * STATE).await;
    let proceeded = Instant::now();
    all.orchestrators[1].proceed().unwrap();
    all.map(1).until_nodes(2).await;
    tokio::time::sleep(STATE / 4).await;
    let end = Instant::now();
    let joins = load.stop().await;

    let phases = [
        ("all run", begin, killed),
        ("one is dead", killed, paused),
        ("one stands still", paused, proceeded),
        ("all run", proceeded, end),
    ];
    for (phase, from, to) in phases {
        println!("{phase:<16} {}", Tally::of(&joins, from, to));
    }
    let tally = Tally::of(&joins, begin, end);
    assert_eq!((tally.refused, tally.failed), (0, 0), "{:?}", tally.failures);
    let waited = joins
        .iter()
        .filter(|join| join.at >= paused && join.took > PROMPT)
        .count();
    println!("{waited} joins had to wait for the one that stands still");
    assert!(
        waited <= MAY_WAIT && waited < tally.joined / 6,
        "{waited} joins waited for it"
    );
    assert_eq!(all.map(2).epochs().await.unwrap(), epochs, "no node was fenced");
}
