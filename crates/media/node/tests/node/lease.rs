//! The lease: what the node tells the orchestrator, and what it does when it hears nothing.

use std::time::Duration;

use signalbox_media::Error;
use signalbox_protocol::control::{CloseReason, Command, Event, Outcome, RefusalReason, Request};
use signalbox_protocol::node::RoomDigest;
use signalbox_protocol::placement::Track;
use signalbox_protocol::{Epoch, Generation};

use crate::cluster::{Gateway, Node, PATIENCE, SECRET, sign};
use crate::orchestrator::{BAD_REQUEST, Mode, Orchestrator};

const LEASE: Duration = Duration::from_secs(60);

async fn open(node: &Node, gateway: &mut Gateway, epoch: u64, generation: u64) -> Result<(), RefusalReason> {
    let mut claims = node.claims("daily", generation);
    claims.epoch = Epoch(epoch);
    let request = Request::Open {
        ticket: sign(&claims, SECRET),
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
        "--track=canary",
        "--capacity=7",
        "--media-ip=192.0.2.1",
    ];
    let node = Node::start(&orchestrator, &more).await;
    let mut gateway = node.gateway().await;
    open(&node, &mut gateway, 1, 3).await.unwrap();
    orchestrator.answer_once(true, &[]);
    let log = orchestrator
        .told("a heartbeat names the rooms", |log| {
            log.heartbeats.iter().any(|beat| beat.rooms.is_some())
        })
        .await;
    let (announced, _) = &log.registrations[0];
    assert_eq!(announced.control, format!("ws://{}", node.control));
    assert_eq!(announced.region, "north");
    assert_eq!(announced.labels["disk"], "fast");
    assert_eq!(announced.track, Track::Canary);
    assert_eq!(announced.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(announced.capacity, 7);
    let told: Vec<String> = announced.media.iter().map(ToString::to_string).collect();
    let bound: Vec<String> = node
        .media
        .iter()
        .map(|local| format!("192.0.2.1:{}", local.port()))
        .collect();
    assert_eq!(told, bound);
    let beat = log.heartbeats.iter().find(|beat| beat.rooms.is_some()).unwrap();
    assert_eq!(beat.epoch, Epoch(1));
    let daily = RoomDigest {
        room: "daily".parse().unwrap(),
        generation: Generation(3),
    };
    assert_eq!(beat.rooms, Some(vec![daily]));
    // Nobody asked for them again.
    let log = orchestrator
        .told("more heartbeats", |log| log.heartbeats.len() >= beat.beat as usize + 3)
        .await;
    assert_eq!(log.heartbeats.iter().filter(|beat| beat.rooms.is_some()).count(), 1);
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
                .is_some_and(|beat| beat.epoch == Epoch(2) && beat.load.rooms == 0)
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

#[tokio::test]
async fn promises_keep_a_node_through_an_outage_of_the_database() {
    let orchestrator = Orchestrator::start(Duration::from_secs(4)).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    let mut gateway = node.gateway().await;
    open(&node, &mut gateway, 1, 1).await.unwrap();
    orchestrator.set(Mode::Promise);
    // One comes every 50 ms at most: these take longer than a lease.
    node.metric("signalbox_media_heartbeats_promised_total", |count| count >= 100.0)
        .await;
    open(&node, &mut gateway, 1, 1).await.unwrap();
    assert_eq!(node.epoch(SECRET).await.unwrap().epoch, Some(Epoch(1)));
    let log = orchestrator.log();
    assert_eq!(log.registrations.len(), 1);
    assert!(log.heartbeats.is_sorted_by(|one, next| one.beat < next.beat));
}

#[tokio::test]
async fn with_strict_leases_one_silent_orchestrator_ends_the_rooms_in_an_outage_of_the_database() {
    let lease = Duration::from_secs(2);
    let (first, silent) = (Orchestrator::start(lease).await, Orchestrator::start(lease).await);
    let second = format!("--orchestrator={}", silent.url);
    let node = Node::start(&first, &[&second, "--strict-leases", "--shards=1"]).await;
    let mut gateway = node.gateway().await;
    let ann = gateway.join(&node, "daily", 1, "ann").await;
    silent.set(Mode::Silent);
    first.set(Mode::Promise);
    let (to, event) = gateway.event(|event| matches!(event, Event::Closed { .. })).await;
    let reason = CloseReason::NodeGone;
    assert_eq!((to, event), (vec![ann], Event::Closed { reason }));
    node.metric("signalbox_media_fenced_total", |count| count >= 1.0).await;
}

#[tokio::test]
async fn with_strict_leases_promises_of_all_keep_a_node() {
    let lease = Duration::from_secs(4);
    let (first, second) = (Orchestrator::start(lease).await, Orchestrator::start(lease).await);
    let more = format!("--orchestrator={}", second.url);
    let node = Node::start(&first, &[&more, "--strict-leases", "--shards=1"]).await;
    second.set(Mode::Promise);
    first.set(Mode::Promise);
    node.metric("signalbox_media_heartbeats_promised_total", |count| count >= 100.0)
        .await;
    assert_eq!(node.epoch(SECRET).await.unwrap().epoch, Some(Epoch(1)));
    // Both are asked with numbers of one row.
    let mut beats: Vec<u64> = [first.log(), second.log()]
        .iter()
        .flat_map(|log| log.heartbeats.iter().map(|beat| beat.beat))
        .collect();
    beats.sort_unstable();
    assert!(beats.is_sorted_by(|one, next| one < next), "{beats:?}");
}

#[tokio::test]
async fn a_hung_orchestrator_costs_no_lease() {
    let lease = Duration::from_secs(4);
    let (hung, alive) = (Orchestrator::start(lease).await, Orchestrator::start(lease).await);
    let second = format!("--orchestrator={}", alive.url);
    let node = Node::start(&hung, &[&second, "--shards=1"]).await;
    hung.set(Mode::Silent);
    // They take longer than a lease.
    alive
        .told("heartbeats reach the other one", |log| log.heartbeats.len() >= 100)
        .await;
    assert_eq!(node.epoch(SECRET).await.unwrap().epoch, Some(Epoch(1)));
    assert_eq!(alive.log().registrations.len(), 0);
}

#[tokio::test]
async fn an_overtaken_heartbeat_neither_fails_nor_renews() {
    let orchestrator = Orchestrator::start(Duration::from_secs(2)).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    orchestrator.set(Mode::Past);
    node.metric("signalbox_media_fenced_total", |count| count >= 1.0).await;
    node.metric("signalbox_media_heartbeats_failed_total", |count| count == 0.0)
        .await;
}

#[tokio::test]
async fn stale_rooms_are_closed_in_exactly_their_generation_and_never_open_in_it_again() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=2"]).await;
    let mut gateway = node.gateway().await;
    let ann = gateway.join(&node, "daily", 1, "ann").await;
    let bob = gateway.join(&node, "weekly", 3, "bob").await;
    orchestrator.answer_once(false, &[("weekly", 2), ("weekly", 4), ("nowhere", 1), ("daily", 1)]);
    let (to, event) = gateway.event(|event| matches!(event, Event::Closed { .. })).await;
    let reason = CloseReason::NodeGone;
    assert_eq!((to, event), (vec![ann], Event::Closed { reason }));
    node.metric("signalbox_media_stale_rooms_closed_total", |count| count == 1.0)
        .await;
    assert_eq!(open(&node, &mut gateway, 1, 1).await, Err(RefusalReason::Ticket));
    open(&node, &mut gateway, 1, 2).await.unwrap();
    // The other room's generation is another one.
    let outcome = gateway.command("weekly", "bob", &bob, Command::Attach).await;
    assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_node_that_is_refused_ends_with_the_orchestrators_sentence() {
    let orchestrator = Orchestrator::start(LEASE).await;
    orchestrator.set(Mode::BadRequest);
    let node = Node::launch(SECRET, &orchestrator, &["--shards=1"]).await;
    match node.task.await.unwrap() {
        Err(Error::Refused(why)) => assert_eq!(why, BAD_REQUEST),
        other => panic!("not refused: {other:?}"),
    }
    assert_eq!(orchestrator.log().registrations.len(), 1);

    let process = tokio::process::Command::new(env!("CARGO_BIN_EXE_signalbox-media"))
        .args(["--control-listen=127.0.0.1:0", "--media-bind=127.0.0.1:0", "--shards=1"])
        .args(["--orchestrator", &orchestrator.url])
        .env("SIGNALBOX_CLUSTER_SECRET", SECRET)
        .output();
    let output = tokio::time::timeout(PATIENCE, process).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(BAD_REQUEST), "{text}");
}

#[tokio::test]
async fn a_node_whose_secret_is_not_accepted_yet_keeps_trying() {
    let orchestrator = Orchestrator::start(LEASE).await;
    orchestrator.set(Mode::Unauthorized);
    let node = Node::launch(SECRET, &orchestrator, &["--shards=1"]).await;
    orchestrator
        .told("it tries again", |log| log.registrations.len() >= 3)
        .await;
    orchestrator.set(Mode::Answer);
    node.until("/readyz", |status, _| status == 200).await;
}
