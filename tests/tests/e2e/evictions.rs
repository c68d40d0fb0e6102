//! One identity is in a room once.

use e2e::client::{Client, Wish};
use e2e::cluster::{Cluster, token};

#[tokio::test(flavor = "multi_thread")]
async fn the_same_identity_evicts_the_first() {
    let mut cluster = Cluster::start(1).await;
    cluster.add_gateway().await.unwrap();
    let bob = cluster.join(&Wish::watch("daily", "bob")).await;
    let first = cluster.join(&Wish::call("daily", "ann")).await;
    bob.peer.receives(first.sender, 20).await;
    let url = cluster.gateways[1].url.clone();
    let wish = Wish::call("daily", "ann");
    let second = Client::join(&url, &token("daily", "ann"), &wish).await.unwrap();
    first
        .until("the first is told why", |view| {
            view.closed.as_deref() == Some("duplicate_identity")
        })
        .await;
    first
        .until("and its stream is closed", |view| view.socket_closed.is_some())
        .await;
    bob.until("the second is there, the first is not", |view| {
        view.participants.contains_key(&second.joined.participant.id)
            && !view.participants.contains_key(&first.joined.participant.id)
    })
    .await;
    bob.peer.receives(second.sender, 60).await;
    assert!(first.leave().await.is_err(), "the first can do nothing any more");
    assert!(bob.view().who("ann").is_some());
}
