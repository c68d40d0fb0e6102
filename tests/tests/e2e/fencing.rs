//! A node that was only slow.

use std::time::{Duration, Instant};

use e2e::client::{Client, Wish};
use e2e::cluster::token;
use e2e::eventually;
use e2e::processes::{Processes, Shape, database};
use signalbox_protocol::Generation;
use signalbox_protocol::node::NodeState;

/// The orchestrators' default.
const LEASE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stood_still_is_fenced_and_sends_nothing_of_its_old_rooms() {
    let Some(database) = database("fencing").await.unwrap() else {
        return;
    };
    let mut all = Processes::start(&database, &Shape::new(1, 2).orchestrators(2))
        .await
        .unwrap();
    let url = all.gateway(0);
    let map = all.map(0);
    let ann = Client::join(&url, &token("daily", "ann"), &Wish::call("daily", "ann"))
        .await
        .unwrap();
    let bob = Client::join(&url, &token("daily", "bob"), &Wish::watch("daily", "bob"))
        .await
        .unwrap();
    bob.peer.receives(ann.sender, 50).await;
    let slow = ann.joined.media.node;
    let before = map.node(slow).await.unwrap();

    let paused = Instant::now();
    all.node(slow).server.pause().unwrap();
    let fenced = eventually("the node is fenced", async || {
        let node = map.node(slow).await.ok()?;
        (node.epoch > before.epoch).then_some(node)
    })
    .await;
    assert_eq!(fenced.state, NodeState::Lost);
    assert!(paused.elapsed() >= LEASE / 2, "not before its lease was over");
    println!("fenced {:.1?} after it stood still", paused.elapsed());

    let again = eventually("the room is placed elsewhere", async || {
        let wish = Wish::call("daily", "carl");
        Client::join(&url, &token("daily", "carl"), &wish).await.ok()
    })
    .await;
    println!("joined again {:.1?} after it stood still", paused.elapsed());
    assert_ne!(again.joined.media.node, slow);
    assert_eq!(again.joined.media.generation, Generation(2));
    tokio::time::sleep((2 * LEASE).saturating_sub(paused.elapsed())).await;

    // Ann has sent all the while: what waits at the node's socket is what it must not forward.
    let got = bob.peer.state().packets_from(ann.sender);
    let count = |client: &Client| client.peer.state().datagrams[&ann.joined.media.socket_addr()];
    let datagrams = (count(&ann), count(&bob));
    all.node(slow).server.proceed().unwrap();
    eventually("it registers anew", async || {
        let node = map.node(slow).await.ok()?;
        (node.epoch > fenced.epoch && node.live && node.state == NodeState::Serving).then_some(())
    })
    .await;
    let dave = Client::join(&url, &token("daily", "dave"), &Wish::watch("daily", "dave"))
        .await
        .unwrap();
    assert_eq!(dave.joined.media, again.joined.media);
    dave.peer.receives(again.sender, 30).await;
    assert_eq!(
        bob.peer.state().packets_from(ann.sender),
        got,
        "nothing of the old generation was sent"
    );
    assert_eq!((count(&ann), count(&bob)), datagrams, "nor anything else");
    ann.until("ann is told where her media goes", |view| {
        view.media.as_ref() == Some(&again.joined.media)
    })
    .await;
    assert_eq!(ann.view().closed, None, "the stopped node's word counts for nothing");
}
