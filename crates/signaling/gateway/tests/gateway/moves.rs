//! Rooms whose node is lost, or hands them over, as event streams see it.

use std::time::Duration;

use serde_json::{Value, json};
use signalbox_protocol::control::{
    CloseReason, Command, Event, Join, RefusalReason, Request, Resumption, ResumptionChange, Target, Transports, Wanted,
};
use signalbox_protocol::room::{Kind, Slot};
use signalbox_protocol::{ParticipantId, TrackId};

use crate::cluster::{Cluster, close_code, eventually, next_json};
use crate::fake_node::{FakeNode, participant};

fn resumption() -> Resumption {
    Resumption {
        transports: Transports::Single,
        auto_subscribe: true,
        never_pause: false,
        tracks: Vec::new(),
        wants: Vec::new(),
        subscriber: None,
        channels: Vec::new(),
    }
}

async fn cluster() -> Cluster {
    let cluster = Cluster::start().await;
    cluster.node.keep(resumption());
    cluster
}

/// Another node, on which all rooms are from now on.
async fn next_node(cluster: &Cluster) -> FakeNode {
    let node = FakeNode::start().await;
    node.keep(resumption());
    cluster.orchestrator.re_place(node.control());
    node.host_generation(cluster.orchestrator.placement("daily").generation);
    node
}

fn joins(node: &FakeNode) -> Vec<Join> {
    let requests = node.requests().into_iter();
    let joins = requests.filter_map(|request| match request {
        Request::Join(join) => Some(*join),
        _ => None,
    });
    joins.collect()
}

/// Who was expected, each time.
fn expected(node: &FakeNode) -> Vec<Vec<String>> {
    let requests = node.requests().into_iter();
    let expected = requests.filter_map(|request| match request {
        Request::Expect { participants, .. } => {
            let mut ids: Vec<_> = participants.iter().map(|one| one.id.to_string()).collect();
            ids.sort();
            Some(ids)
        }
        _ => None,
    });
    expected.collect()
}

/// Time enough for what should not come: some round trips through gateway and node.
async fn settle(cluster: &Cluster) {
    for _ in 0..10 {
        cluster.metric("joins_total").await;
    }
}

fn is_command(request: &Request, wanted: &Command) -> bool {
    matches!(request, Request::Participant { command, .. } if command == wanted)
}

async fn told_to_move(stream: &mut crate::cluster::Socket) -> Value {
    let snapshot = next_json(stream).await;
    assert_eq!(snapshot["type"], "snapshot", "{snapshot}");
    let moved = next_json(stream).await;
    assert_eq!(moved["type"], "moved", "{moved}");
    assert_eq!(moved.get("location"), None);
    moved
}

#[tokio::test]
async fn a_room_whose_node_is_lost_goes_on_at_the_next_with_everyone_who_was_in_it() {
    let cluster = cluster().await;
    let (mut ann, _) = cluster.events("PA_1").await;
    let (mut too, _) = cluster.events("PA_2").await;
    let bob = participant("PA_bob", "bob", "Bob");
    cluster.node.push("PA_1", Event::ParticipantJoined { participant: bob });
    assert_eq!(next_json(&mut ann).await["type"], "joined");
    let carl = participant("PA_carl", "carl", "Carl");
    for event in [
        Event::ParticipantJoined {
            participant: carl.clone(),
        },
        Event::ParticipantLeft { participant: carl },
    ] {
        cluster.node.push("PA_1", event);
        next_json(&mut ann).await;
    }
    let wants = vec![Wanted {
        track: TrackId::new("TR_b"),
        subscribed: Some(false),
        preference: Default::default(),
    }];
    let change = ResumptionChange::Wants { wants: wants.clone() };
    cluster.node.push("PA_1", Event::Resumable { change });
    let slots = vec![Slot {
        mid: "1".into(),
        kind: Kind::Video,
        track: None,
    }];
    cluster.node.push("PA_1", Event::Slots { slots: slots.clone() });
    assert_eq!(next_json(&mut ann).await["type"], "slots");

    let next = next_node(&cluster).await;
    cluster.node.cut();
    assert_eq!(told_to_move(&mut ann).await.get("keeps_ice"), None);
    told_to_move(&mut too).await;
    assert_eq!(expected(&next), [["PA_1", "PA_2", "PA_bob"]], "once, and all of them");
    let mut joins = joins(&next);
    joins.sort_by_key(|join| join.resume.as_ref().map(|resume| resume.participant.id.clone()));
    let [ann_again, too_again] = joins.as_slice() else {
        panic!("{joins:?}");
    };
    assert!(ann_again.attach && too_again.attach);
    let resume = ann_again.resume.as_ref().unwrap();
    assert_eq!((&resume.kept.wants, &resume.slots), (&wants, &slots));
    assert_eq!(ann_again.transports, Transports::Single);
    // The streams go on.
    next.push("PA_1", Event::SlotsWanted { audio: 1, video: 0 });
    assert_eq!(next_json(&mut ann).await["type"], "slots_wanted");
}

#[tokio::test]
async fn a_node_that_is_silent_for_a_moment_loses_nothing() {
    let cluster = cluster().await;
    let (mut ann, _) = cluster.events("PA_1").await;
    let asked = cluster.orchestrator.asked();
    cluster.node.freeze(true);
    eventually("a question", async {
        while cluster.orchestrator.asked() == asked {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    cluster.node.freeze(false);
    cluster.node.push("PA_1", Event::SlotsWanted { audio: 1, video: 0 });
    assert_eq!(next_json(&mut ann).await["type"], "slots_wanted");
    let list = |request: &Request| matches!(request, Request::Administer { .. });
    cluster.node.saw(list).await;
    settle(&cluster).await;
    cluster.node.push("PA_1", Event::SlotsWanted { audio: 2, video: 0 });
    assert_eq!(next_json(&mut ann).await["type"], "slots_wanted");
    assert_eq!(cluster.node.links(), 1);
    assert!(expected(&cluster.node).is_empty());
    let attached = cluster.node.requests().into_iter();
    assert_eq!(
        attached.filter(|request| is_command(request, &Command::Attach)).count(),
        1
    );
}

#[tokio::test]
async fn a_node_that_stays_silent_is_left_as_soon_as_its_rooms_are_elsewhere() {
    let cluster = cluster().await;
    let (mut ann, _) = cluster.events("PA_1").await;
    cluster.node.freeze(true);
    let next = next_node(&cluster).await;
    told_to_move(&mut ann).await;
    assert_eq!(joins(&next).len(), 1);
    // What it says when it is back concerns nobody.
    cluster.node.push("PA_1", Event::SlotsWanted { audio: 1, video: 0 });
    cluster.node.freeze(false);
    next.push("PA_1", Event::SlotsWanted { audio: 2, video: 0 });
    assert_eq!(next_json(&mut ann).await["audio"], 2);
}

#[tokio::test]
async fn rooms_are_asked_for_until_they_are_elsewhere() {
    let cluster = cluster().await;
    let (mut ann, _) = cluster.events("PA_1").await;
    let asked = cluster.orchestrator.asked();
    // The room's node is gone, and the map does not know it yet.
    cluster.node.lose_rooms();
    cluster.node.cut();
    eventually("some questions", async {
        while cluster.orchestrator.asked() < asked + 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let next = next_node(&cluster).await;
    told_to_move(&mut ann).await;
    assert_eq!(joins(&next).len(), 1);
}

#[tokio::test]
async fn a_room_that_is_handed_over_is_served_by_its_old_node_until_its_clients_are_connected_at_the_new_one() {
    let cluster = cluster().await;
    let (mut ann, _) = cluster.events("PA_1").await;
    let next = next_node(&cluster).await;
    let to = Box::new(cluster.orchestrator.placement("daily"));
    let within_ms = 60_000;
    cluster.node.push("PA_1", Event::Moving { to, within_ms });
    assert_eq!(told_to_move(&mut ann).await["keeps_ice"], true);
    let [join] = <[Join; 1]>::try_from(joins(&next)).unwrap();
    assert_eq!(join.ticket, "ticket of the hand-over");
    // The node before tells what the next one tells as well.
    cluster.node.push("PA_1", Event::SlotsWanted { audio: 1, video: 0 });
    next.push("PA_1", Event::SlotsWanted { audio: 2, video: 0 });
    assert_eq!(next_json(&mut ann).await["audio"], 2);
    let is_parting = |request: &Request| {
        is_command(request, &Command::Moved)
            || is_command(request, &Command::Detach)
            || is_command(request, &Command::Leave)
    };
    assert!(!cluster.node.requests().iter().any(is_parting));
    let target = Target::Publisher;
    next.push("PA_1", Event::Connected { target });
    cluster.node.saw_command("PA_1", Command::Moved).await;
    assert_eq!(cluster.node.requests().iter().filter(|one| is_parting(one)).count(), 1);
    assert_eq!(
        cluster
            .metric("moves_total{kind=\"planned\",outcome=\"in_place\"}")
            .await,
        1
    );
}

#[tokio::test]
async fn an_old_node_is_told_that_a_client_is_gone_when_its_time_is_over() {
    let cluster = cluster().await;
    let (mut ann, _) = cluster.events("PA_1").await;
    let _next = next_node(&cluster).await;
    let to = Box::new(cluster.orchestrator.placement("daily"));
    cluster.node.push("PA_1", Event::Moving { to, within_ms: 300 });
    told_to_move(&mut ann).await;
    cluster.node.saw_command("PA_1", Command::Moved).await;
    assert_eq!(
        cluster.metric("moves_total{kind=\"planned\",outcome=\"failed\"}").await,
        1
    );
}

#[tokio::test]
async fn a_room_whose_new_node_fails_goes_to_the_one_that_the_map_names_then() {
    let cluster = cluster().await;
    let (mut ann, _) = cluster.events("PA_1").await;
    let target = next_node(&cluster).await;
    let to = Box::new(cluster.orchestrator.placement("daily"));
    target.refuse([RefusalReason::Ticket; 1000]);
    let last = next_node(&cluster).await;
    cluster.node.push("PA_1", Event::Moving { to, within_ms: 60_000 });
    told_to_move(&mut ann).await;
    assert_eq!((joins(&target).len(), joins(&last).len()), (0, 1));
}

#[tokio::test]
async fn a_room_that_is_handed_over_is_opened_once_however_many_are_in_it() {
    let cluster = cluster().await;
    let (mut ann, _) = cluster.events("PA_1").await;
    let (mut too, _) = cluster.events("PA_2").await;
    let next = next_node(&cluster).await;
    next.hold();
    for id in ["PA_1", "PA_2"] {
        let to = Box::new(cluster.orchestrator.placement("daily"));
        cluster.node.push(id, Event::Moving { to, within_ms: 60_000 });
    }
    next.saw(|request| matches!(request, Request::Expect { .. })).await;
    settle(&cluster).await;
    next.release();
    told_to_move(&mut ann).await;
    told_to_move(&mut too).await;
    assert_eq!(expected(&next), [["PA_1", "PA_2"]]);
}

#[tokio::test]
async fn a_room_whose_new_node_takes_nobody_up_moves_on() {
    let cluster = cluster().await;
    let (mut ann, _) = cluster.events("PA_1").await;
    let second = next_node(&cluster).await;
    second.refuse_joins(true);
    cluster.node.cut();
    second.saw(|request| matches!(request, Request::Join(_))).await;
    let third = next_node(&cluster).await;
    told_to_move(&mut ann).await;
    assert_eq!((expected(&third).len(), joins(&third).len()), (1, 1));
}

#[tokio::test]
async fn a_node_that_takes_somebody_up_only_later_is_asked_again() {
    let cluster = cluster().await;
    let (mut ann, _) = cluster.events("PA_1").await;
    let second = next_node(&cluster).await;
    second.refuse_joins(true);
    cluster.node.cut();
    second.saw(|request| matches!(request, Request::Join(_))).await;
    second.refuse_joins(false);
    told_to_move(&mut ann).await;
}

#[tokio::test]
async fn a_room_whose_new_node_is_lost_in_its_turn_moves_on() {
    let cluster = cluster().await;
    let (mut ann, _) = cluster.events("PA_1").await;
    let second = next_node(&cluster).await;
    cluster.node.cut();
    told_to_move(&mut ann).await;
    let third = next_node(&cluster).await;
    second.cut();
    told_to_move(&mut ann).await;
    assert_eq!((joins(&second).len(), joins(&third).len()), (1, 1));
}

#[tokio::test]
async fn who_cannot_be_taken_up_is_told_where_its_room_is() {
    let cluster = Cluster::start().await;
    let (mut ann, _) = cluster.events("PA_1").await;
    let next = next_node(&cluster).await;
    cluster.node.cut();
    assert_eq!(next_json(&mut ann).await["type"], "moved");
    let closed = next_json(&mut ann).await;
    assert_eq!(
        (&closed["type"], &closed["reason"]),
        (&json!("closed"), &json!("node_gone"))
    );
    assert_eq!(close_code(&mut ann).await, 1000);
    assert!(joins(&next).is_empty());
    assert_eq!(
        cluster.metric("moves_total{kind=\"crash\",outcome=\"rejoined\"}").await,
        1
    );
}

#[tokio::test]
async fn who_was_removed_is_not_expected_at_the_next_node() {
    let cluster = cluster().await;
    let (mut ann, _) = cluster.events("PA_1").await;
    let (mut too, _) = cluster.events("PA_2").await;
    let reason = CloseReason::Removed;
    cluster.node.push("PA_2", Event::Closed { reason });
    assert_eq!(next_json(&mut too).await["type"], "closed");
    let next = next_node(&cluster).await;
    cluster.node.cut();
    told_to_move(&mut ann).await;
    assert_eq!(expected(&next), [["PA_1"]]);
    let ids = joins(&next).into_iter().map(|join| join.resume.unwrap().participant.id);
    assert_eq!(ids.collect::<Vec<_>>(), [ParticipantId::new("PA_1")]);
}
