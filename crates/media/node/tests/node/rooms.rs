//! Admission: which tickets open and enter a room.

use std::time::Duration;

use signalbox_protocol::control::{Command, Outcome, RefusalReason, Reply, Request, RoomCommand};
use signalbox_protocol::{ClusterId, Epoch, NodeId};

use crate::cluster::{Gateway, Node, SECRET, sign};
use crate::orchestrator::{Mode, Orchestrator};

const LEASE: Duration = Duration::from_secs(60);

async fn open(gateway: &mut Gateway, room: &str, ticket: String) -> Result<(), RefusalReason> {
    let request = Request::Open {
        ticket,
        room: room.parse().unwrap(),
    };
    match gateway.ask(request).await {
        Outcome::Ok(_) => Ok(()),
        Outcome::Refused(refusal) => Err(refusal.reason),
    }
}

#[tokio::test]
async fn a_ticket_that_is_not_for_this_is_refused_as_a_ticket() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    let mut gateway = node.gateway().await;
    let good = node.claims("daily", 1);
    let mut expired = good.clone();
    expired.exp -= 600;
    let mut other_epoch = good.clone();
    other_epoch.epoch = Epoch(2);
    let mut other_node = good.clone();
    other_node.node = NodeId::random();
    let mut other_cluster = good.clone();
    other_cluster.cluster = ClusterId::random();
    let mut other_kind = good.clone();
    other_kind.aud = "something else".into();
    for (what, ticket) in [
        ("forged", sign(&good, "some other secret for signing")),
        ("expired", sign(&expired, SECRET)),
        ("another room's", node.ticket("weekly", 1)),
        ("another epoch's", sign(&other_epoch, SECRET)),
        ("another node's", sign(&other_node, SECRET)),
        ("another cluster's", sign(&other_cluster, SECRET)),
        ("of another kind", sign(&other_kind, SECRET)),
        ("no ticket", "x.y.z".into()),
    ] {
        assert_eq!(
            open(&mut gateway, "daily", ticket).await,
            Err(RefusalReason::Ticket),
            "{what}"
        );
    }
    open(&mut gateway, "daily", sign(&good, SECRET)).await.unwrap();
    node.metric("signalbox_media_refused_requests_total{reason=\"ticket\"}", |count| {
        count == 8.0
    })
    .await;
}

#[tokio::test]
async fn while_the_secret_is_changed_the_old_one_and_the_new_one_are_accepted() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let old = "the secret that is being replaced";
    let node = Node::start_with_secrets(&format!("{SECRET},{old}"), &orchestrator, &["--shards=1"]).await;
    for secret in [SECRET, old] {
        let mut gateway = node.connect(Some(secret)).await.unwrap();
        open(&mut gateway, "daily", sign(&node.claims("daily", 1), secret))
            .await
            .unwrap();
        assert_eq!(node.epoch(secret).await.unwrap().epoch, Some(Epoch(1)));
    }
    let forged = sign(&node.claims("daily", 1), "a secret that never was one");
    let mut gateway = node.gateway().await;
    assert_eq!(open(&mut gateway, "daily", forged).await, Err(RefusalReason::Ticket));
}

#[tokio::test]
async fn a_room_lives_in_one_generation_and_never_goes_back() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=2"]).await;
    let mut gateway = node.gateway().await;
    let mut enter = async |generation| open(&mut gateway, "daily", node.ticket("daily", generation)).await;
    enter(2).await.unwrap();
    enter(2).await.unwrap();
    assert_eq!(enter(1).await, Err(RefusalReason::Ticket));
    enter(3).await.unwrap();
    assert_eq!(enter(2).await, Err(RefusalReason::Ticket));
    enter(3).await.unwrap();
}

#[tokio::test]
async fn an_empty_room_is_closed_for_good_once_the_orchestrator_has_answered() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1", "--empty-room-seconds=0"]).await;
    let mut gateway = node.gateway().await;
    orchestrator.set(Mode::LoseClosings);
    let room = "a b/ü?";
    open(&mut gateway, room, node.ticket(room, 1)).await.unwrap();
    let log = orchestrator
        .told("the closing is asked again", |log| log.closings.len() >= 2)
        .await;
    assert_eq!(log.closings[0].0, room);
    assert_eq!(log.closings[0].1, log.closings[1].1);
    // It has taken effect, which the node cannot know: it must not let anyone in again.
    let outcome = open(&mut gateway, room, node.ticket(room, 1)).await;
    assert_eq!(outcome, Err(RefusalReason::Closing));

    orchestrator.set(Mode::Answer);
    node.metric("signalbox_media_rooms_closed_total", |count| count == 1.0)
        .await;
    let outcome = open(&mut gateway, room, node.ticket(room, 1)).await;
    assert_eq!(outcome, Err(RefusalReason::Ticket));
    open(&mut gateway, room, node.ticket(room, 2)).await.unwrap();
}

#[tokio::test]
async fn a_room_with_a_participant_stays_until_it_leaves() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1", "--empty-room-seconds=0"]).await;
    let mut gateway = node.gateway().await;
    let ann = gateway.join(&node, "daily", 1, "ann").await;
    open(&mut gateway, "other", node.ticket("other", 1)).await.unwrap();
    orchestrator
        .told("the other room is closed", |log| {
            log.closings.iter().any(|(room, _)| room == "other")
        })
        .await;
    gateway.command("daily", "ann", &ann, Command::Leave).await;
    let log = orchestrator
        .told("the room is closed too", |log| {
            log.closings.iter().any(|(room, _)| room == "daily")
        })
        .await;
    assert_eq!(log.closings.first().unwrap().0, "other");
}

#[tokio::test]
async fn a_full_node_refuses_joins() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=2", "--capacity=1"]).await;
    let mut gateway = node.gateway().await;
    gateway.join(&node, "daily", 1, "ann").await;
    node.metric("signalbox_media_participants{shard=\"0\"}", |count| count == 1.0)
        .await;
    for room in ["daily", "weekly"] {
        match gateway.ask(node.join(room, 1, "bob")).await {
            Outcome::Refused(refusal) => assert_eq!(refusal.reason, RefusalReason::Full),
            Outcome::Ok(reply) => panic!("not refused: {reply:?}"),
        }
    }
}

#[tokio::test]
async fn a_room_is_administered_without_a_ticket_and_not_opened_by_it() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=2"]).await;
    let (mut one, mut two) = (node.gateway().await, node.gateway().await);
    let list = || Request::Administer {
        room: "daily".parse().unwrap(),
        command: RoomCommand::List,
    };
    match two.ask(list()).await {
        Outcome::Refused(refusal) => assert_eq!(refusal.reason, RefusalReason::NoRoom),
        Outcome::Ok(reply) => panic!("not refused: {reply:?}"),
    }
    node.metric("signalbox_media_rooms{shard=\"0\"}", |count| count == 0.0)
        .await;
    let ann = one.join(&node, "daily", 1, "ann").await;
    match two.ask(list()).await {
        Outcome::Ok(Reply::Room { room, participants }) => {
            assert_eq!((room.participants, &participants[0].id), (1, &ann));
        }
        other => panic!("{other:?}"),
    }
}
