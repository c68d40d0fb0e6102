//! Replies and events: which link they reach, and in which order.

use std::time::Duration;

use signalbox_protocol::control::{CloseReason, Command, Event, Outcome, RefusalReason, Reply};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::cluster::Node;
use crate::orchestrator::{Mode, Orchestrator};

const LEASE: Duration = Duration::from_secs(60);

fn joined(event: &Event) -> bool {
    matches!(event, Event::ParticipantJoined { .. })
}

fn closed(event: &Event) -> bool {
    matches!(event, Event::Closed { .. })
}

#[tokio::test]
async fn events_reach_the_link_that_attached_the_participant_and_follow_its_reply() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=2"]).await;
    let (mut one, mut two) = (node.gateway().await, node.gateway().await);
    let ann = one.join(&node, "daily", 1, "ann").await;
    let bob = two.join(&node, "daily", 1, "bob").await;
    assert!(two.events.is_empty(), "an event came before the reply");
    let (to, event) = one.event(joined).await;
    assert_eq!(to, std::slice::from_ref(&ann));
    assert!(matches!(event, Event::ParticipantJoined { participant } if participant.id == bob));
    // Both on one link: one frame for both.
    two.join(&node, "daily", 1, "cat").await;
    let dan = one.join(&node, "daily", 1, "dan").await;
    let (to, _) = two
        .event(|event| matches!(event, Event::ParticipantJoined { participant } if participant.id == dan))
        .await;
    assert_eq!(to.len(), 2);
}

#[tokio::test]
async fn the_last_attachment_wins_and_the_former_link_cannot_end_it() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    let (mut one, mut two) = (node.gateway().await, node.gateway().await);
    let ann = one.join(&node, "daily", 1, "ann").await;
    let outcome = two.command("daily", "ann", &ann, Command::Attach).await;
    assert!(matches!(outcome, Outcome::Ok(Reply::Snapshot(_))), "{outcome:?}");
    let (to, _) = one.event(|event| *event == Event::AttachedElsewhere).await;
    assert_eq!(to, std::slice::from_ref(&ann));
    let outcome = one.command("daily", "ann", &ann, Command::Detach).await;
    assert_eq!(outcome, Outcome::Ok(Reply::Done));
    one.join(&node, "daily", 1, "bob").await;
    let (to, _) = two.event(joined).await;
    assert_eq!(to, [ann]);
}

#[tokio::test]
async fn nobody_attaches_another_identitys_participant() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    let (mut one, mut two) = (node.gateway().await, node.gateway().await);
    let ann = one.join(&node, "daily", 1, "ann").await;
    match two.command("daily", "eve", &ann, Command::Attach).await {
        Outcome::Refused(refusal) => assert_eq!(refusal.reason, RefusalReason::NoParticipant),
        Outcome::Ok(reply) => panic!("not refused: {reply:?}"),
    }
    two.join(&node, "daily", 1, "eve").await;
    let (to, _) = one.event(joined).await;
    assert_eq!(to, [ann]);
}

#[tokio::test]
async fn a_lost_link_leaves_its_participants_without_signaling() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1", "--departure-seconds=0"]).await;
    let (mut one, mut two) = (node.gateway().await, node.gateway().await);
    let ann = one.join(&node, "daily", 1, "ann").await;
    two.join(&node, "daily", 1, "bob").await;
    drop(one);
    let left = |event: &Event| matches!(event, Event::ParticipantLeft { participant } if participant.id == ann);
    two.event(left).await;
}

#[tokio::test]
async fn a_newer_generation_ends_the_older_one() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=2"]).await;
    let (mut one, mut two) = (node.gateway().await, node.gateway().await);
    let ann = one.join(&node, "daily", 1, "ann").await;
    two.join(&node, "daily", 2, "bob").await;
    let (to, event) = one.event(closed).await;
    assert_eq!(to, std::slice::from_ref(&ann));
    assert!(matches!(
        event,
        Event::Closed {
            reason: CloseReason::NodeGone
        }
    ));
    match one.command("daily", "ann", &ann, Command::Attach).await {
        Outcome::Refused(refusal) => assert_eq!(refusal.reason, RefusalReason::NoParticipant),
        Outcome::Ok(reply) => panic!("not refused: {reply:?}"),
    }
}

#[tokio::test]
async fn participants_are_told_when_the_epoch_ends() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=2"]).await;
    let mut gateway = node.gateway().await;
    let ann = gateway.join(&node, "daily", 1, "ann").await;
    orchestrator.set(Mode::Gone);
    let (to, event) = gateway.event(closed).await;
    assert_eq!(to, [ann]);
    assert!(matches!(
        event,
        Event::Closed {
            reason: CloseReason::NodeGone
        }
    ));
}

#[tokio::test]
async fn participants_are_told_when_the_node_stops_before_the_link_is_closed() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=2"]).await;
    let mut gateway = node.gateway().await;
    let ann = gateway.join(&node, "daily", 1, "ann").await;
    node.shutdown.cancel();
    let (to, event) = gateway.event(closed).await;
    assert_eq!(to, [ann]);
    assert!(matches!(
        event,
        Event::Closed {
            reason: CloseReason::NodeGone
        }
    ));
    assert_eq!(gateway.closed().await.expect("a close frame").code, CloseCode::Away);
    node.task.await.unwrap().unwrap();
}
