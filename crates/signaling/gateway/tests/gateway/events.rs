//! A participant's event stream.

use std::time::{Duration, Instant};

use futures_util::SinkExt;
use reqwest::Method;
use serde_json::{Value, json};
use signalbox_protocol::TrackId;
use signalbox_protocol::control::{CloseReason, Command, Event, RefusalReason};
use tokio_tungstenite::tungstenite::Message;

use crate::cluster::{Cluster, close_code, eventually, next_json, problem};
use crate::fake_node::{UNKNOWN, participant};

/// A message, after a look at its id.
fn without_id(mut message: Value) -> Value {
    let id = message.as_object_mut().unwrap().remove("id").unwrap();
    assert!(!id.as_str().unwrap().is_empty());
    message
}

#[tokio::test]
async fn events_arrive_in_order_after_a_snapshot_and_end_with_closed() {
    let cluster = Cluster::start().await;
    let (mut socket, first) = cluster.events("PA_1").await;
    assert_eq!(first["type"], "snapshot");
    assert_eq!(first["participant"]["id"], "PA_1");
    for field in ["room", "participants", "speakers", "slots"] {
        assert!(!first[field].is_null(), "{field}");
    }
    let bob = participant("PA_9", "bob", "Bob");
    let track = TrackId::new("TR_a");
    let (participant, muted) = (bob.clone(), true);
    cluster.node.push(
        "PA_1",
        Event::ParticipantJoined {
            participant: bob.clone(),
        },
    );
    let published = Event::TrackPublished {
        participant: bob.clone(),
        track: track.clone(),
    };
    cluster.node.push("PA_1", published);
    cluster.node.push(
        "PA_1",
        Event::TrackMuted {
            participant,
            track,
            muted,
        },
    );
    cluster.node.push("PA_2", Event::SlotsWanted { audio: 9, video: 9 });
    cluster.node.push("PA_1", Event::SlotsWanted { audio: 0, video: 1 });
    cluster.node.push("PA_1", Event::ParticipantLeft { participant: bob });
    let reason = CloseReason::RoomClosed;
    cluster.node.push("PA_1", Event::Closed { reason });
    let joined = next_json(&mut socket).await;
    assert_eq!(
        (&joined["type"], &joined["participant"]["identity"]),
        (&json!("joined"), &json!("bob"))
    );
    let published = next_json(&mut socket).await;
    assert_eq!(
        (&published["type"], &published["track"]),
        (&json!("published"), &json!("TR_a"))
    );
    assert_eq!(next_json(&mut socket).await["muted"], true);
    assert_eq!(
        without_id(next_json(&mut socket).await),
        json!({"type": "slots_wanted", "audio": 0, "video": 1})
    );
    assert_eq!(next_json(&mut socket).await["type"], "left");
    assert_eq!(
        without_id(next_json(&mut socket).await),
        json!({"type": "closed", "reason": "room_closed"})
    );
    assert_eq!(close_code(&mut socket).await, 1000);
}

#[tokio::test]
async fn a_stream_that_ends_detaches_the_participant() {
    let cluster = Cluster::start().await;
    let (mut socket, _) = cluster.events("PA_1").await;
    socket.close(None).await.unwrap();
    cluster.node.saw_command("PA_1", Command::Detach).await;
}

#[tokio::test]
async fn a_second_stream_replaces_the_first_without_detaching() {
    let cluster = Cluster::start().await;
    let (mut first, _) = cluster.events("PA_1").await;
    let (mut second, _) = cluster.events("PA_1").await;
    assert_eq!(close_code(&mut first).await, 1008);
    cluster.node.push("PA_1", Event::SlotsWanted { audio: 1, video: 1 });
    assert_eq!(next_json(&mut second).await["type"], "slots_wanted");
    let detached = cluster.node.requests().into_iter().any(|request| {
        matches!(
            request,
            signalbox_protocol::control::Request::Participant {
                command: Command::Detach,
                ..
            }
        )
    });
    assert!(!detached);
}

#[tokio::test]
async fn a_broken_link_is_made_up_for_by_another_snapshot() {
    let cluster = Cluster::start().await;
    let (mut socket, _) = cluster.events("PA_1").await;
    cluster.node.cut();
    assert_eq!(next_json(&mut socket).await["type"], "snapshot");
    cluster.node.push("PA_1", Event::SlotsWanted { audio: 1, video: 1 });
    assert_eq!(next_json(&mut socket).await["type"], "slots_wanted");
    assert_eq!(cluster.metric("node_links_lost_total").await, 1);
}

#[tokio::test]
async fn a_participant_that_is_gone_after_a_broken_link_is_told_so() {
    let cluster = Cluster::start().await;
    let (mut socket, _) = cluster.events("PA_1").await;
    cluster.node.refuse([RefusalReason::NoParticipant; 2]);
    cluster.node.cut();
    assert_eq!(
        without_id(next_json(&mut socket).await),
        json!({"type": "closed", "reason": "node_gone"})
    );
    assert_eq!(close_code(&mut socket).await, 1000);
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_only_its_stream() {
    let cluster = Cluster::start().await;
    let (mut socket, _) = cluster.events("PA_1").await;
    let (mut other, _) = cluster.events("PA_2").await;
    socket.send(Message::text("ignored")).await.unwrap();
    socket.send(Message::text("x".repeat(5000))).await.unwrap();
    assert_eq!(close_code(&mut socket).await, 1008);
    cluster.node.saw_command("PA_1", Command::Detach).await;
    cluster.node.push("PA_2", Event::SlotsWanted { audio: 1, video: 1 });
    assert_eq!(next_json(&mut other).await["type"], "slots_wanted");
}

#[tokio::test]
async fn what_is_wrong_is_an_http_error_before_the_upgrade() {
    let cluster = Cluster::start().await;
    let path = "/v1/rooms/daily/participants/PA_1/events";
    let broken = cluster
        .request(Method::GET, path)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "12");
    let (status, kind, _) = problem(broken.send().await.unwrap()).await;
    assert_eq!((status, kind.as_str()), (426, "upgrade-required"));
    let (status, kind, _) = problem(cluster.bare(Method::GET, path).send().await.unwrap()).await;
    assert_eq!((status, kind.as_str()), (401, "token-missing"));
    assert_eq!(
        problem(cluster.bare(Method::GET, path).send().await.unwrap()).await.0,
        401
    );
    let url = format!(
        "ws://{}/v1/rooms/daily/participants/{UNKNOWN}/events?access_token={}",
        cluster.address,
        crate::cluster::token("daily", "ann")
    );
    match tokio_tungstenite::connect_async(url).await {
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => assert_eq!(response.status(), 404),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_shutdown_sends_streams_away_one_by_one() {
    let mut cluster = Cluster::start_with(&["--drain-seconds", "4"]).await;
    let mut sockets = Vec::new();
    for number in 1..=24 {
        sockets.push(cluster.events(&format!("PA_{number}")).await.0);
    }
    let begun = Instant::now();
    cluster.shutdown.cancel();
    let closed = futures_util::future::join_all(sockets.into_iter().map(async |mut socket| {
        assert_eq!(close_code(&mut socket).await, 1012);
        begun.elapsed()
    }))
    .await;
    let (first, last) = (closed.iter().min().unwrap(), closed.iter().max().unwrap());
    // All of 24 random moments of 2 seconds within half a second: once in 10^13.
    assert!(*last - *first > Duration::from_millis(500), "{first:?} to {last:?}");
    eventually("the end", &mut cluster.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_shutdown_tells_streams_to_come_back_and_detaches_them() {
    let mut cluster = Cluster::start().await;
    let (mut socket, _) = cluster.events("PA_1").await;
    cluster.shutdown.cancel();
    assert_eq!(close_code(&mut socket).await, 1012);
    cluster.node.saw_command("PA_1", Command::Detach).await;
    eventually("the end", &mut cluster.running).await.unwrap().unwrap();
}
