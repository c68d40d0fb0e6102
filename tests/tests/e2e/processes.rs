//! The real binaries as processes over PostgreSQL, and what happens when some of them die.

use e2e::client::{Client, Wish, join_url};
use e2e::cluster::{token, wait_for_nodes};
use e2e::processes::{Processes, database};
use reqwest::StatusCode;

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
    let mut all = Processes::start(database, 2, 2).await.unwrap();
    let urls: Vec<String> = all.gateways.iter().map(|gateway| gateway.url.clone()).collect();

    let mut ann = join(&urls[0], &Wish::call("daily", "ann")).await;
    let bob = join(&urls[1], &Wish::call("daily", "bob")).await;
    assert_eq!(ann.joined.media, bob.joined.media);
    ann.peer.receives(bob.sender, 60).await;
    bob.peer.receives(ann.sender, 60).await;

    all.gateways.remove(0).process.kill().unwrap();
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

    all.orchestrator.take().unwrap().kill().unwrap();
    bob.peer.receives(ann.sender, 30).await;
    all.start_orchestrator().await.unwrap();
    wait_for_nodes(&all.orchestrator_url(), 2).await.unwrap();
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
    let all = Processes::start(database, 1, 0).await.unwrap();
    let request = reqwest::Client::new().post(join_url(&all.gateways[0].url, "daily"));
    let response = request.bearer_auth(token("daily", "ann")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_is_replaced_and_the_rest_end_when_asked() {
    let Some(database) = database("killed").await.unwrap() else {
        return;
    };
    let mut all = Processes::start(database, 1, 2).await.unwrap();
    let url = all.gateways[0].url.clone();
    let ann = join(&url, &Wish::call("daily", "ann")).await;
    ann.peer.connected().await;
    let nodes = e2e::cluster::nodes(&all.orchestrator_url()).await.unwrap();
    let control = nodes
        .into_iter()
        .find(|node| node.node == ann.joined.media.node)
        .unwrap()
        .control;
    let index = all
        .nodes
        .iter()
        .position(|(_, address)| control.ends_with(&address.to_string()))
        .unwrap();
    all.nodes.remove(index).0.kill().unwrap();

    // Until the dead node's lease is over a join is refused with Retry-After.
    let again = async {
        loop {
            let wish = Wish::call("daily", "ann");
            match Client::join(&url, &token("daily", "ann"), &wish).await {
                Ok(client) => return client,
                Err(error) if error.to_string().contains("503") => {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await
                }
                Err(error) => panic!("{error:#}"),
            }
        }
    };
    let again = tokio::time::timeout(e2e::PATIENCE, again)
        .await
        .expect("the room is placed again");
    assert_ne!(again.joined.media.node, ann.joined.media.node);
    let bob = join(&url, &Wish::watch("daily", "bob")).await;
    bob.peer.receives(again.sender, 30).await;

    all.gateways.remove(0).process.terminate().await.unwrap();
    all.nodes.remove(0).0.terminate().await.unwrap();
    all.orchestrator.take().unwrap().terminate().await.unwrap();
}
