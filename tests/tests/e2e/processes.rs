//! The real binaries as processes over PostgreSQL, and what happens when some of them die.

use std::time::{Duration, Instant};

use e2e::client::{Client, Wish, join_url};
use e2e::cluster::token;
use e2e::eventually;
use e2e::processes::{Processes, Shape, database};
use reqwest::StatusCode;
use signalbox_protocol::node::NodeState;

async fn join(gateway: &str, wish: &Wish) -> Client {
    Client::join(gateway, &token(&wish.room, &wish.identity), wish)
        .await
        .expect("the join succeeds")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_over_three_tiers_survives_a_gateway_and_an_orchestrator() {
    let Some(database) = database("tiers").await.unwrap() else {
        return;
    };
    let mut all = Processes::start(&database, &Shape::new(2, 2)).await.unwrap();
    let urls = [all.gateway(0), all.gateway(1)];

    let mut ann = join(&urls[0], &Wish::call("daily", "ann")).await;
    let bob = join(&urls[1], &Wish::call("daily", "bob")).await;
    assert_eq!(ann.joined.media, bob.joined.media);
    ann.peer.receives(bob.sender, 60).await;
    bob.peer.receives(ann.sender, 60).await;

    all.gateways[0].server.kill().unwrap();
    ann.until("ann's event stream is cut", |view| view.socket_closed.is_some())
        .await;
    bob.peer.receives(ann.sender, 60).await;
    ann.move_to(&urls[1]).await.unwrap();
    ann.until("a snapshot through the other gateway", |view| {
        view.own.is_some() && view.who("bob").is_some()
    })
    .await;
    let track = ann.view().own.unwrap().tracks[0].id.to_string();
    ann.mute(&track, true).await.unwrap();
    bob.until("an event by way of it", |view| {
        view.who("ann")
            .is_some_and(|ann| ann.tracks.iter().any(|track| track.muted))
    })
    .await;
    ann.mute(&track, false).await.unwrap();

    all.orchestrators[0].kill().unwrap();
    bob.peer.receives(ann.sender, 30).await;
    let secret = all.secret.clone();
    all.orchestrators[0].start(&secret).unwrap();
    all.map(0).until_nodes(2).await;
    let eve = join(&urls[1], &Wish::call("another", "eve")).await;
    let dan = join(&urls[1], &Wish::watch("another", "dan")).await;
    dan.peer.receives(eve.sender, 60).await;
    let carl = join(&urls[1], &Wish::watch("daily", "carl")).await;
    assert_eq!(
        carl.joined.media.node, ann.joined.media.node,
        "the room is where it was"
    );
    carl.peer.receives(bob.sender, 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_node_a_join_is_refused_for_a_while() {
    let Some(database) = database("no_node").await.unwrap() else {
        return;
    };
    let all = Processes::start(&database, &Shape::new(1, 0)).await.unwrap();
    let request = reqwest::Client::new().post(join_url(&all.gateway(0), "daily"));
    let response = request.bearer_auth(token("daily", "ann")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_is_replaced_and_the_rest_end_when_asked() {
    let Some(database) = database("killed").await.unwrap() else {
        return;
    };
    let mut all = Processes::start(&database, &Shape::new(1, 2)).await.unwrap();
    let url = all.gateway(0);
    let ann = join(&url, &Wish::call("daily", "ann")).await;
    ann.peer.connected().await;
    let lost = ann.joined.media.node;
    all.node(lost).server.kill().unwrap();

    // Until the dead node's lease is over a join is refused with Retry-After.
    let again = eventually("the room is placed again", async || {
        let wish = Wish::call("daily", "ann");
        match Client::join(&url, &token("daily", "ann"), &wish).await {
            Ok(client) => Some(client),
            Err(error) if error.to_string().contains("503") => None,
            Err(error) => panic!("{error:#}"),
        }
    })
    .await;
    assert_ne!(again.joined.media.node, lost);
    let bob = join(&url, &Wish::watch("daily", "bob")).await;
    bob.peer.receives(again.sender, 30).await;

    all.gateways[0].server.terminate().await.unwrap();
    all.node(again.joined.media.node).server.terminate().await.unwrap();
    all.orchestrators[0].terminate().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_workers_rooms_are_free_at_once_and_a_fresh_worker_takes_its_place() {
    let Some(database) = database("worker").await.unwrap() else {
        return;
    };
    let mut all = Processes::start(&database, &Shape::new(1, 1).orchestrators(2))
        .await
        .unwrap();
    let (id, map) = (all.nodes[0].id, all.map(0));
    let before = map.node(id).await.unwrap();
    let first = all.nodes[0].server.worker().unwrap();
    let killed = Instant::now();
    all.nodes[0].server.kill_worker().unwrap();
    eventually("its epoch is released", async || {
        (map.node(id).await.ok()?.epoch > before.epoch).then_some(())
    })
    .await;
    let took = killed.elapsed();
    println!("the epoch is released {took:.1?} after the kill");
    // Far shorter than the lease, which would be over in the end.
    assert!(took < Duration::from_millis(1_000), "{took:?}");
    let after = eventually("a fresh worker registers", async || {
        let node = map.node(id).await.ok()?;
        (node.live && node.state == NodeState::Serving).then_some(node)
    })
    .await;
    println!("a fresh worker is registered {:.1?} after the kill", killed.elapsed());
    assert_eq!(after.control, before.control);
    assert_ne!(all.nodes[0].server.worker().unwrap(), first);
    let url = all.gateway(0);
    let ann = eventually("a room is placed on it", async || {
        let wish = Wish::call("daily", "ann");
        Client::join(&url, &token("daily", "ann"), &wish).await.ok()
    })
    .await;
    ann.peer.connected().await;
    all.nodes[0].server.terminate().await.unwrap();
}
