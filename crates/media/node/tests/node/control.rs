//! The control listener: who gets a link, and what ends one.

use std::time::Duration;

use futures_util::SinkExt;
use signalbox_protocol::control::{Command, MAX_FRAME_BYTES, Outcome, RefusalReason, Request};
use signalbox_protocol::node::EpochHeld;
use signalbox_protocol::{Epoch, ParticipantId};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::cluster::{Node, PATIENCE, SECRET};
use crate::orchestrator::{Mode, Orchestrator};

const LEASE: Duration = Duration::from_secs(60);

fn to_nobody() -> Request {
    Request::Participant {
        room: "nowhere".parse().unwrap(),
        participant: ParticipantId::new("PA_nobody"),
        identity: "nobody".parse().unwrap(),
        command: Command::Attach,
    }
}

fn reason(outcome: Outcome) -> RefusalReason {
    match outcome {
        Outcome::Refused(refusal) => refusal.reason,
        Outcome::Ok(reply) => panic!("not refused: {reply:?}"),
    }
}

#[tokio::test]
async fn a_link_without_the_cluster_secret_is_refused_before_the_upgrade() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    for secret in [None, Some(""), Some("the cluster secret of others")] {
        match node.connect(secret).await {
            Err(tungstenite::Error::Http(response)) => assert_eq!(response.status(), 401),
            other => panic!("not refused: {:?}", other.map(|_| ())),
        }
    }
    let plain = reqwest::get(format!("http://{}/v1/control", node.control))
        .await
        .unwrap();
    assert_eq!(plain.status(), 401);
    assert_eq!(plain.headers()["content-type"], "application/problem+json");
    node.metric("signalbox_media_unauthorized_links_total", |count| count == 4.0)
        .await;
}

#[tokio::test]
async fn probes_and_metrics_need_no_secret_and_unknown_routes_are_problems() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=2"]).await;
    assert_eq!(node.get("/livez").await.0, 200);
    assert_eq!(node.get("/readyz").await.0, 200);
    let (status, text) = node.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("signalbox_media_participants{shard=\"1\"} 0\n"), "{text}");
    let (status, text) = node.get("/nothing").await;
    assert_eq!(status, 404);
    assert!(text.contains("urn:signalbox:problem:not-found"), "{text}");
}

#[tokio::test]
async fn who_has_the_secret_is_told_which_epoch_the_node_holds_at_this_moment() {
    let orchestrator = Orchestrator::start(Duration::from_secs(2)).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    for wrong in ["", "the cluster secret of others"] {
        assert_eq!(node.epoch(wrong).await, Err(401));
    }
    assert_eq!(node.get("/v1/epoch").await.0, 401);
    let holds = |epoch| Ok(EpochHeld { node: node.id, epoch });
    assert_eq!(node.epoch(SECRET).await, holds(Some(Epoch(1))));
    orchestrator.set(Mode::Silent);
    node.until("/readyz", |status, _| status == 503).await;
    assert_eq!(node.epoch(SECRET).await, holds(None));
}

#[tokio::test]
async fn a_garbage_frame_closes_the_link_with_a_reason() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    for (garbage, code) in [
        (Message::text("{"), CloseCode::Invalid),
        (Message::text("[]"), CloseCode::Invalid),
        (Message::binary(vec![0xff; 10]), CloseCode::Unsupported),
    ] {
        let mut gateway = node.gateway().await;
        gateway.socket.send(garbage).await.unwrap();
        let close = gateway.closed().await.expect("a close frame");
        assert_eq!(close.code, code);
        assert!(!close.reason.is_empty());
    }
    // The others are not concerned.
    let mut gateway = node.gateway().await;
    assert_eq!(reason(gateway.ask(to_nobody()).await), RefusalReason::NoParticipant);
    node.metric("signalbox_media_links_closed_total{reason=\"garbage\"}", |count| {
        count == 3.0
    })
    .await;
}

#[tokio::test]
async fn a_frame_over_the_cap_ends_the_link() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    let mut gateway = node.gateway().await;
    // The node may be gone before all of it is written.
    let _ = gateway
        .socket
        .send(Message::text("x".repeat(MAX_FRAME_BYTES + 1)))
        .await;
    if let Some(close) = gateway.closed().await {
        assert_eq!(close.code, CloseCode::Size);
    }
    assert_eq!(node.get("/livez").await.0, 200);
}

#[tokio::test]
async fn a_request_that_is_not_known_is_refused_by_itself() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    let mut gateway = node.gateway().await;
    let unknown = r#"{"id":77,"deadline_ms":1000,"request":{"type":"teleport"}}"#;
    gateway.socket.send(Message::text(unknown)).await.unwrap();
    assert_eq!(reason(gateway.reply(77).await), RefusalReason::Invalid);
    assert_eq!(reason(gateway.ask(to_nobody()).await), RefusalReason::NoParticipant);
}

#[tokio::test]
async fn a_request_whose_time_is_over_is_refused() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    let mut gateway = node.gateway().await;
    let open = Request::Open {
        ticket: node.ticket("daily", 1),
        room: "daily".parse().unwrap(),
    };
    let id = gateway.send(open, 0).await;
    assert_eq!(reason(gateway.reply(id).await), RefusalReason::Overloaded);
}

#[tokio::test]
async fn a_gateway_that_does_not_read_loses_its_link_and_no_other() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    let mut other = node.gateway().await;
    let mut slow = node.gateway().await;
    // Each refusal is longer than the request: what the kernel buffers between the two is filled in the end.
    let flood = async {
        let frame = serde_json::json!({"id": 1, "x": "", "request": {"type": "y".repeat(600)}}).to_string();
        while slow.socket.send(Message::text(frame.clone())).await.is_ok() {}
    };
    tokio::time::timeout(PATIENCE, flood).await.expect("the link is closed");
    node.metric("signalbox_media_links_closed_total{reason=\"slow\"}", |count| {
        count == 1.0
    })
    .await;
    assert_eq!(reason(other.ask(to_nobody()).await), RefusalReason::NoParticipant);
}

#[tokio::test]
async fn a_stopping_node_says_goodbye_to_its_gateways() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    let mut gateway = node.gateway().await;
    assert_eq!(reason(gateway.ask(to_nobody()).await), RefusalReason::NoParticipant);
    node.shutdown.cancel();
    let close = gateway.closed().await.expect("a close frame");
    assert_eq!(close.code, CloseCode::Away);
    node.task.await.unwrap().unwrap();
}
