//! Where rooms live.

use std::collections::{HashMap, HashSet};

use e2e::client::{Client, Wish, join_url};
use e2e::cluster::{Cluster, token};
use futures_util::future::join_all;
use serde_json::Value;
use signalbox_protocol::room::MediaAddress;

async fn place(gateway: &str, room: &str, identity: &str) -> MediaAddress {
    let request = reqwest::Client::new()
        .post(join_url(gateway, room))
        .bearer_auth(token(room, identity));
    let response = request.send().await.unwrap();
    assert!(response.status().is_success(), "{}", response.text().await.unwrap());
    let body: Value = response.json().await.unwrap();
    serde_json::from_value(body["media"].clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_first_joins_agree() {
    let mut cluster = Cluster::start(2).await;
    cluster.add_gateway().await.unwrap();
    let joins = (0..50).map(|index| {
        let gateway = cluster.gateways[index % 2].url.clone();
        async move { place(&gateway, "daily", &format!("guest-{index}")).await }
    });
    let places: HashSet<_> = join_all(joins)
        .await
        .into_iter()
        .map(|at| (at.socket_addr(), at.node, at.generation))
        .collect();
    assert_eq!(places.len(), 1, "{places:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_spread_over_both_nodes_and_their_participants_meet() {
    let mut cluster = Cluster::start(2).await;
    cluster.add_gateway().await.unwrap();
    let mut rooms: HashMap<_, Vec<String>> = HashMap::new();
    for index in 0..20 {
        let room = format!("room-{index}");
        let first = place(cluster.gateway(), &room, "ann").await;
        let second = place(&cluster.gateways[1].url, &room, "bob").await;
        assert_eq!(first, second, "{room} is in one place, whoever asks");
        rooms.entry(first.node).or_default().push(room);
    }
    assert_eq!(rooms.len(), 2, "20 rooms use both nodes: {rooms:?}");

    for names in rooms.values() {
        let room = names[0].as_str();
        let ann = cluster.join(&Wish::call(room, "ann")).await;
        let bob = Client::join(&cluster.gateways[1].url, &token(room, "bob"), &Wish::call(room, "bob"))
            .await
            .unwrap();
        assert_eq!(ann.joined.media, bob.joined.media);
        ann.peer.receives(bob.sender, 50).await;
        bob.peer.receives(ann.sender, 50).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_of_a_node_that_goes_is_placed_again() {
    let cluster = Cluster::start(2).await;
    let ann = cluster.join(&Wish::call("daily", "ann")).await;
    let node = cluster.map().node(ann.joined.media.node).await.unwrap();
    let control = node.control.trim_start_matches("ws://").to_owned();
    cluster
        .nodes
        .iter()
        .find(|node| node.control.to_string() == control)
        .unwrap()
        .shutdown
        .cancel();
    let before = ann.joined.media.node;
    ann.until("its participants are told where it is", |view| {
        view.media.as_ref().is_some_and(|media| media.node != before)
    })
    .await;
    let again = cluster.join(&Wish::call("daily", "ann")).await;
    let bob = cluster.join(&Wish::watch("daily", "bob")).await;
    assert_ne!(again.joined.media.node, ann.joined.media.node);
    assert!(again.joined.media.generation > ann.joined.media.generation);
    bob.peer.receives(again.sender, 30).await;
}
