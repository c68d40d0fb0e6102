//! The link to a node under faults.

use reqwest::Method;
use signalbox_protocol::control::{Command, Event, MAX_FRAME_BYTES, Request};

use crate::cluster::{Cluster, JOIN, OFFER, next_json};

#[tokio::test]
async fn a_request_on_a_link_that_breaks_is_sent_again() {
    let cluster = Cluster::start().await;
    cluster.join().await;
    cluster.node.hold();
    let is_second = |request: &Request| matches!(request, Request::Join(join) if join.name == "again");
    let body = OFFER.replace('}', r#","name":"again"}"#);
    let joining = cluster.send_json(Method::POST, JOIN, &body);
    let breaking = async {
        cluster.node.saw(is_second).await;
        cluster.node.cut();
        cluster.node.release();
    };
    let (response, ()) = tokio::join!(joining, breaking);
    assert_eq!(response.status(), 201);
    assert_eq!(cluster.node.links(), 2);
}

#[tokio::test]
async fn a_garbage_frame_ends_the_link_and_nothing_else() {
    let cluster = Cluster::start().await;
    let (mut socket, _) = cluster.events("PA_1").await;
    cluster.node.push_text("{\"type\":\"nonsense\"}");
    assert_eq!(next_json(&mut socket).await["type"], "snapshot");
    cluster.join().await;
}

#[tokio::test]
async fn a_frame_over_the_cap_ends_the_link_and_nothing_else() {
    let cluster = Cluster::start().await;
    let (mut socket, _) = cluster.events("PA_1").await;
    cluster.node.push_text(&" ".repeat(MAX_FRAME_BYTES + 1));
    assert_eq!(next_json(&mut socket).await["type"], "snapshot");
    cluster.join().await;
}

#[tokio::test]
async fn a_reply_or_an_event_for_nobody_is_dropped() {
    let cluster = Cluster::start().await;
    cluster.join().await;
    cluster
        .node
        .push_text(r#"{"type":"reply","id":999999,"result":{"ok":{"type":"done"}}}"#);
    cluster.node.push("PA_9", Event::SlotsWanted { audio: 1, video: 1 });
    cluster.join().await;
    assert_eq!(cluster.node.links(), 1);
    assert_eq!(cluster.metric("events_dropped_total").await, 1);
}

#[tokio::test]
async fn a_stream_that_does_not_read_is_caught_up_with_a_snapshot() {
    let cluster = Cluster::start().await;
    let (mut slow, _) = cluster.events("PA_1").await;
    // Far more than the socket's buffers and the stream's log hold together.
    let name = "x".repeat(32 * 1024);
    for round in 0..2048 {
        let participant = crate::fake_node::participant("PA_9", "bob", &name);
        cluster.node.push("PA_1", Event::ParticipantUpdated { participant });
        if round % 64 == 0 {
            cluster.join().await;
        }
    }
    cluster.join().await;
    // The node's events are taken in any case; only the client misses some.
    assert_eq!(cluster.metric("sessions_overflowed_total").await, 0);
    while next_json(&mut slow).await["type"] != "snapshot" {}
    let attached = |request: &&Request| {
        matches!(
            request,
            Request::Participant {
                command: Command::Attach,
                ..
            }
        )
    };
    assert!(cluster.node.requests().iter().filter(attached).count() >= 2);
}
