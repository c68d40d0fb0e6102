//! The cluster secret is changed while calls go on.

use std::time::{Duration, Instant};

use e2e::client::{Client, Wish};
use e2e::cluster::{CLUSTER_SECRET, token, wait_for_ready};
use e2e::eventually;
use e2e::load::{Outcome, join};
use e2e::map::Map;
use e2e::processes::{Processes, Shape, database};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

const NEW_SECRET: &str = "another-secret-for-tests";

/// What an application may make of a join, with retries over all gateways.
const LIMIT: Duration = Duration::from_secs(10);

/// A call of two, on some node.
struct Call {
    ann: Client,
    bob: Client,
}

impl Call {
    async fn start(gateways: &[String], room: &str) -> Self {
        Self {
            ann: enter(gateways, &Wish::call(room, "ann")).await,
            bob: enter(gateways, &Wish::call(room, "bob")).await,
        }
    }

    async fn flows(&self) {
        self.ann.peer.receives(self.bob.sender, 20).await;
        self.bob.peer.receives(self.ann.sender, 20).await;
    }
}

/// Joins through whichever gateway lets it in.
async fn enter(gateways: &[String], wish: &Wish) -> Client {
    eventually("a join", async || {
        for gateway in gateways {
            if let Ok(client) = Client::join(gateway, &token(&wish.room, &wish.identity), wish).await {
                return Some(client);
            }
        }
        None
    })
    .await
}

/// The least time between two joins. Guests are seen to be gone only after a while, and the nodes must not be full of them.
const APART: Duration = Duration::from_millis(20);

/// Joins without media, one after the other, each tried again through the next gateway; how many it took, and the longest.
async fn join_on(gateways: Vec<String>, stop: CancellationToken) -> (usize, usize, Duration) {
    let http = reqwest::Client::new();
    let (mut joins, mut attempts, mut longest) = (0, 0, Duration::ZERO);
    let mut turns = tokio::time::interval(APART);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.is_cancelled() {
        turns.tick().await;
        let begin = Instant::now();
        let room = format!("room-{joins}");
        loop {
            let attempt = join(&http, &gateways[attempts % gateways.len()], &room, "guest").await;
            attempts += 1;
            match attempt.outcome {
                Outcome::Joined(_) => break,
                outcome => assert!(
                    begin.elapsed() < LIMIT,
                    "a join after {joins} others fails for {LIMIT:?}: {outcome:?}"
                ),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        joins += 1;
        longest = longest.max(begin.elapsed());
    }
    (joins, attempts, longest)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_secret_is_changed_in_three_steps_without_an_interruption() {
    let Some(database) = database("rotation").await.unwrap() else {
        return;
    };
    let mut all = Processes::start(&database, &Shape::new(2, 2).orchestrators(2))
        .await
        .unwrap();
    let gateways = vec![all.gateway(0), all.gateway(1)];
    let stop = CancellationToken::new();
    let joins = tokio::spawn(join_on(gateways.clone(), stop.clone()));
    let mut call = Call::start(&gateways, "call").await;
    call.flows().await;

    let steps = [
        format!("{CLUSTER_SECRET},{NEW_SECRET}"),
        format!("{NEW_SECRET},{CLUSTER_SECRET}"),
        NEW_SECRET.to_owned(),
    ];
    for secrets in steps {
        let current = secrets.split(',').next().unwrap().to_owned();
        for server in &mut all.orchestrators {
            server.terminate().await.unwrap();
            server.start(&secrets).unwrap();
            Map::new(&server.url(), &current).until_nodes(2).await;
            call.flows().await;
        }
        for gateway in &mut all.gateways {
            gateway.server.terminate().await.unwrap();
            gateway.server.start(&secrets).unwrap();
            wait_for_ready(&gateway.server.url()).await.unwrap();
            call.flows().await;
        }
        let map = Map::new(&all.orchestrators[0].url(), &current);
        for node in &mut all.nodes {
            let epoch = map.node(node.id).await.unwrap().epoch;
            node.server.terminate().await.unwrap();
            if call.ann.joined.media.node == node.id {
                // A node that goes takes its calls with it: they go on elsewhere.
                call = Call::start(&gateways, "call").await;
            }
            call.flows().await;
            node.server.start(&secrets).unwrap();
            eventually("the node is back", async || {
                let view = map.node(node.id).await.ok()?;
                (view.live && view.epoch > epoch).then_some(())
            })
            .await;
        }
    }
    stop.cancel();
    let (joins, attempts, longest) = joins.await.unwrap();
    println!("{joins} joins in {attempts} attempts; the longest took {longest:.1?}");
    let old = Map::new(&all.orchestrators[0].url(), CLUSTER_SECRET);
    assert!(old.nodes().await.is_err(), "the old secret opens nothing any more");
    assert!(Map::new(&all.orchestrators[0].url(), NEW_SECRET).nodes().await.is_ok());
}
