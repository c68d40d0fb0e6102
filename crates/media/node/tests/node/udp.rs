//! The media port under fire.

use std::time::Duration;

use signalbox_protocol::control::{Outcome, Request};
use tokio::net::UdpSocket;

use crate::cluster::Node;
use crate::orchestrator::Orchestrator;

#[tokio::test]
async fn garbage_and_oversize_datagrams_are_counted_and_harm_nobody() {
    let orchestrator = Orchestrator::start(Duration::from_secs(60)).await;
    let node = Node::start(&orchestrator, &["--shards=2"]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let truncated_stun: &[u8] = &[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42];
    let rtp_of_nobody = [&[0x80, 96][..], &[7; 60]].concat();
    let datagrams: [&[u8]; 7] = [
        b"",
        b"\xff",
        &[0xc8; 1000],
        &[0x80; 1401],
        &[22; 60_000],
        truncated_stun,
        &rtp_of_nobody,
    ];
    for shard in &node.media {
        for datagram in datagrams {
            socket.send_to(datagram, shard).await.unwrap();
        }
    }
    // The empty one has nothing to hand over.
    node.metric("signalbox_media_datagrams_received_total", |count| count == 12.0)
        .await;
    node.metric(
        "signalbox_media_datagrams_dropped_total{reason=\"oversize\"}",
        |count| count == 4.0,
    )
    .await;
    node.metric("signalbox_media_datagrams_dropped_total{reason=\"garbage\"}", |count| {
        count >= 4.0
    })
    .await;
    node.metric(
        "signalbox_media_datagrams_dropped_total{reason=\"unknown_ssrc\"}",
        |count| count >= 2.0,
    )
    .await;
    assert_eq!(node.get("/livez").await.0, 200);
    let mut gateway = node.gateway().await;
    let open = Request::Open {
        ticket: node.ticket("daily", 1),
        room: "daily".parse().unwrap(),
    };
    assert!(matches!(gateway.ask(open).await, Outcome::Ok(_)));
}
