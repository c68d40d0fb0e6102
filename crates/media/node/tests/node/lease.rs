//! The lease: what the node tells the orchestrator, and what it does when it hears nothing.

use std::time::Duration;

use signalbox_protocol::control::{Outcome, RefusalReason, Request};
use signalbox_protocol::{Epoch, Generation};

use crate::cluster::{Gateway, Mode, Node, Orchestrator, sign};

const LEASE: Duration = Duration::from_secs(60);

async fn open(node: &Node, gateway: &mut Gateway, epoch: u64, generation: u64) -> Result<(), RefusalReason> {
    let mut claims = node.claims("daily", generation);
    claims.epoch = Epoch(epoch);
    let request = Request::Open {
        ticket: sign(&claims, crate::cluster::SECRET),
        room: claims.room,
    };
    match gateway.ask(request).await {
        Outcome::Ok(_) => Ok(()),
        Outcome::Refused(refusal) => Err(refusal.reason),
    }
}

#[tokio::test]
async fn a_node_announces_itself_and_its_rooms() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let more = [
        "--shards=2",
        "--region=north",
        "--label=disk=fast",
        "--capacity=7",
        "--media-ip=192.0.2.1",
    ];
    let node = Node::start(&orchestrator, &more).await;
    let mut gateway = node.gateway().await;
    open(&node, &mut gateway, 1, 3).await.unwrap();
    let log = orchestrator
        .told("the room is in a heartbeat", |log| {
            log.heartbeats.last().is_some_and(|beat| !beat.rooms.is_empty())
        })
        .await;
    let (announced, _) = &log.registrations[0];
    assert_eq!(announced.control, format!("ws://{}", node.control));
    assert_eq!(announced.region, "north");
    assert_eq!(announced.labels["disk"], "fast");
    assert_eq!(announced.capacity, 7);
    let told: Vec<String> = announced.media.iter().map(ToString::to_string).collect();
    let bound: Vec<String> = node
        .media
        .iter()
        .map(|local| format!("192.0.2.1:{}", local.port()))
        .collect();
    assert_eq!(told, bound);
    let beat = log.heartbeats.last().unwrap();
    assert_eq!(beat.epoch, Epoch(1));
    assert_eq!(beat.rooms[0].room.as_str(), "daily");
    assert_eq!(beat.rooms[0].generation, Generation(3));
}

#[tokio::test]
async fn an_ended_epoch_closes_the_rooms_and_begins_a_new_one() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=2"]).await;
    let mut gateway = node.gateway().await;
    open(&node, &mut gateway, 1, 1).await.unwrap();
    orchestrator.set(Mode::Gone);
    orchestrator
        .told("a heartbeat of the new epoch without rooms", |log| {
            log.heartbeats
                .last()
                .is_some_and(|beat| beat.epoch == Epoch(2) && beat.rooms.is_empty())
        })
        .await;
    assert_eq!(open(&node, &mut gateway, 1, 1).await, Err(RefusalReason::Ticket));
    open(&node, &mut gateway, 2, 2).await.unwrap();
    node.metric("signalbox_media_fenced_total", |count| count == 1.0).await;
}

#[tokio::test]
async fn a_node_that_cannot_renew_its_lease_stops_hosting_and_comes_back_with_a_new_epoch() {
    let orchestrator = Orchestrator::start(Duration::from_secs(2)).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    let mut gateway = node.gateway().await;
    open(&node, &mut gateway, 1, 1).await.unwrap();
    orchestrator.set(Mode::Silent);
    node.until("/readyz", |status, _| status == 503).await;
    node.metric("signalbox_media_fenced_total", |count| count == 1.0).await;
    assert_eq!(open(&node, &mut gateway, 1, 1).await, Err(RefusalReason::Ticket));
    assert_eq!(node.get("/livez").await.0, 200);
    orchestrator.set(Mode::Answer);
    orchestrator
        .told("a heartbeat of a later epoch", |log| {
            log.heartbeats.last().is_some_and(|beat| beat.epoch > Epoch(1))
        })
        .await;
    node.until("/readyz", |status, _| status == 200).await;
}

#[tokio::test]
async fn a_dead_orchestrator_is_passed_over() {
    let alive = Orchestrator::start(LEASE).await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead_url = format!("--orchestrator=http://{}", dead.local_addr().unwrap());
    drop(dead);
    let node = Node::start(&alive, &[&dead_url, "--shards=1"]).await;
    alive
        .told("heartbeats reach the one that lives", |log| log.heartbeats.len() >= 3)
        .await;
    node.shutdown.cancel();
    node.task.await.unwrap().unwrap();
    alive.told("the farewell too", |log| log.released == [Epoch(1)]).await;
}

#[tokio::test]
async fn a_stopping_node_releases_its_epoch() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=2"]).await;
    node.shutdown.cancel();
    node.task.await.unwrap().unwrap();
    orchestrator
        .told("the farewell", |log| log.released == [Epoch(1)])
        .await;
}

#[tokio::test]
async fn a_stopping_node_does_not_wait_for_an_orchestrator_that_is_gone() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    orchestrator.set(Mode::Silent);
    node.shutdown.cancel();
    node.task.await.unwrap().unwrap();
}
