//! A node that is to end, and whose rooms are to live on.

use std::time::{Duration, Instant};

use signalbox_protocol::Epoch;
use signalbox_protocol::control::{CloseReason, Command, Event};
use signalbox_protocol::node::DrainState;

use crate::cluster::{Gateway, Node};
use crate::moves;
use crate::orchestrator::{Mode, Orchestrator};

const LEASE: Duration = Duration::from_secs(60);

async fn is_told_that_the_node_is_gone(gateway: &mut Gateway) {
    let (_, event) = gateway.event(|event| matches!(event, Event::Closed { .. })).await;
    let reason = CloseReason::NodeGone;
    assert_eq!(event, Event::Closed { reason });
}

#[tokio::test]
async fn a_drained_node_asks_for_it_and_ends_when_its_rooms_have_moved() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=2"]).await;
    let mut gateway = node.gateway().await;
    let ann = gateway.join(&node, "daily", 1, "ann").await;
    orchestrator.set(Mode::NoDrains);
    orchestrator.set_drain(DrainState::Running, 1, 0);
    node.drain.cancel();
    // One that cannot at present is asked again.
    let log = orchestrator.told("it asks", |log| log.drains.len() >= 2).await;
    orchestrator.set(Mode::Answer);
    assert_eq!((log.drains[0].rate, log.drains[0].deadline_ms), (5.0, Some(30_000)));

    assert_eq!(moves::begin(&node, &moves::order("daily", 1, 2, 60_000)).await, 204);
    orchestrator.set_drain(DrainState::Done, 0, 0);
    gateway.event(|event| matches!(event, Event::Moving { .. })).await;
    assert!(!node.task.is_finished());
    gateway.command("daily", "ann", &ann, Command::Moved).await;
    node.task.await.unwrap().unwrap();
    let log = orchestrator.log();
    assert_eq!((log.released, log.closings.len()), (vec![Epoch(1)], 0));
}

#[tokio::test]
async fn a_node_that_hosts_nothing_asks_for_nothing() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    node.drain.cancel();
    node.task.await.unwrap().unwrap();
    let log = orchestrator.log();
    assert_eq!((log.released, log.drains.len()), (vec![Epoch(1)], 0));
}

#[tokio::test]
async fn a_node_does_not_wait_for_orchestrators_that_do_not_drain_it() {
    let (first, second) = (Orchestrator::start(LEASE).await, Orchestrator::start(LEASE).await);
    let more = format!("--orchestrator={}", second.url);
    let node = Node::start(&first, &[&more, "--shards=1", "--drain-seconds=3600"]).await;
    let mut gateway = node.gateway().await;
    gateway.join(&node, "daily", 1, "ann").await;
    node.drain.cancel();
    is_told_that_the_node_is_gone(&mut gateway).await;
    node.task.await.unwrap().unwrap();
    assert_eq!((first.log().drains.len(), second.log().drains.len()), (1, 1));
}

#[tokio::test]
async fn a_node_does_not_wait_for_rooms_that_nobody_takes_nor_for_a_drain_that_was_ended() {
    for (state, stuck) in [(DrainState::Running, 1), (DrainState::Cancelled, 0)] {
        let orchestrator = Orchestrator::start(LEASE).await;
        let node = Node::start(&orchestrator, &["--shards=1", "--drain-seconds=3600"]).await;
        let mut gateway = node.gateway().await;
        gateway.join(&node, "daily", 1, "ann").await;
        orchestrator.set_drain(state, 1, stuck);
        node.drain.cancel();
        is_told_that_the_node_is_gone(&mut gateway).await;
        node.task.await.unwrap().unwrap();
        assert_eq!(orchestrator.log().released, [Epoch(1)]);
    }
}

#[tokio::test]
async fn a_node_waits_no_longer_than_its_grace_and_not_at_all_when_it_is_told_to_stop() {
    for stops in [false, true] {
        let orchestrator = Orchestrator::start(LEASE).await;
        let grace = if stops {
            "--drain-seconds=3600"
        } else {
            "--drain-seconds=1"
        };
        let node = Node::start(&orchestrator, &["--shards=1", grace]).await;
        let mut gateway = node.gateway().await;
        gateway.join(&node, "daily", 1, "ann").await;
        orchestrator.set_drain(DrainState::Running, 1, 0);
        let began = Instant::now();
        node.drain.cancel();
        orchestrator.told("it asks", |log| !log.drains.is_empty()).await;
        if stops {
            node.shutdown.cancel();
        }
        is_told_that_the_node_is_gone(&mut gateway).await;
        node.task.await.unwrap().unwrap();
        assert!(stops || began.elapsed() >= Duration::from_secs(1));
        assert_eq!(orchestrator.log().released, [Epoch(1)]);
    }
}
