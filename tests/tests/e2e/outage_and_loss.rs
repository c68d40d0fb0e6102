//! PostgreSQL is away at the time at which a node dies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use e2e::client::join_url;
use e2e::cluster::token;
use e2e::eventually;
use e2e::map::NotPlaced;
use e2e::postgres::{Durability, Postgres};
use e2e::processes::{Processes, Shape};
use futures_util::StreamExt;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use signalbox_protocol::node::HostedRooms;
use signalbox_protocol::{Generation, NodeId, RoomName};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// How many rooms each node has at least.
const ROOMS: usize = 3;

/// For how long the database is away: twice a lease, and the longest time after it until a dead node is fenced.
const AWAY: Duration = Duration::from_secs(5);

/// How often it is looked at meanwhile.
const TICK: Duration = Duration::from_millis(100);

/// Loose: it only ends a test that would hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who is alone in a room, and has its event stream.
struct Member {
    node: NodeId,
    events: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

async fn join(gateway: &str, room: &RoomName) -> Response {
    let body = json!({"transport": "srtp", "publish": [{"kind": "audio", "codec": "opus"}], "subscribe": false});
    let request = reqwest::Client::new()
        .post(join_url(gateway, room.as_str()))
        .json(&body);
    let request = request.bearer_auth(token(room.as_str(), "one"));
    request.send().await.unwrap()
}

impl Member {
    async fn join(gateway: &str, room: &RoomName) -> Self {
        let joined: Value = join(gateway, room).await.json().await.unwrap();
        let path = joined["events"].as_str().unwrap_or_else(|| panic!("{joined}"));
        let token = token(room.as_str(), "one");
        let url = format!("{}{path}?access_token={token}", gateway.replacen("http", "ws", 1));
        let (events, _) = connect_async(url).await.unwrap();
        let node = serde_json::from_value(joined["media"]["node"].clone()).unwrap();
        let mut member = Self { node, events };
        // From then on the gateway knows who is there.
        assert_eq!(member.next().await, "snapshot");
        member
    }

    /// The type of what it is told next.
    async fn next(&mut self) -> String {
        loop {
            let message = timeout(PATIENCE, self.events.next())
                .await
                .expect("it is told something");
            if let Message::Text(text) = message.expect("the stream goes on").unwrap() {
                let event: Value = serde_json::from_str(&text).unwrap();
                return event["type"].as_str().expect("a type").to_owned();
            }
        }
    }
}

/// The rooms that a node says that it hosts.
async fn hosted(all: &Processes, node: NodeId) -> BTreeMap<RoomName, Generation> {
    let node = all.nodes.iter().find(|known| known.id == node).unwrap();
    let url = format!("{}/v1/rooms", node.server.url());
    let answer = reqwest::Client::new().get(url).bearer_auth(&all.secret).send().await;
    // A node without a worker does not answer, and hosts nothing.
    let Ok(answer) = answer else { return BTreeMap::new() };
    let hosted: HostedRooms = answer.error_for_status().unwrap().json().await.unwrap();
    let rooms = hosted.rooms.into_iter();
    rooms.map(|room| (room.room, room.generation)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_while_the_database_is_away_keeps_its_rooms_from_everyone_until_it_is_back() {
    let Some(mut postgres) = Postgres::start(Durability::Fsync).await.unwrap() else {
        return;
    };
    let shape = Shape::new(1, 2).orchestrators(2);
    let mut all = Processes::start(&postgres.url(), &shape).await.unwrap();
    let gateway = all.gateway(0);
    let [dead, other] = [all.nodes[0].id, all.nodes[1].id];
    let mut members: BTreeMap<RoomName, Member> = BTreeMap::new();
    let on = |members: &BTreeMap<RoomName, Member>, node| -> BTreeSet<RoomName> {
        let there = members.iter().filter(|(_, member)| member.node == node);
        there.map(|(room, _)| room.clone()).collect()
    };
    while on(&members, dead).len() < ROOMS || on(&members, other).len() < ROOMS {
        let room: RoomName = format!("room-{}", members.len()).parse().unwrap();
        let member = Member::join(&gateway, &room).await;
        members.insert(room, member);
    }
    let (lost, kept) = (on(&members, dead), on(&members, other));
    let before: BTreeMap<RoomName, Generation> = [hosted(&all, dead).await, hosted(&all, other).await]
        .into_iter()
        .flatten()
        .collect();
    let theirs = hosted(&all, other).await;

    postgres.kill().await.unwrap();
    // With a supervisor that stands still, as a fresh worker could take the rooms before the other node has renewed its lease.
    all.node(dead).server.pause().unwrap();
    all.node(dead).server.kill_worker().unwrap();
    let killed = Instant::now();
    let mut ticks = interval(TICK);
    let mut number = 0;
    while killed.elapsed() < AWAY {
        ticks.tick().await;
        number += 1;
        assert_eq!(hosted(&all, other).await, theirs, "nothing is placed meanwhile");
        let new: RoomName = format!("new-{number}").parse().unwrap();
        let refused = join(&gateway, &new).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key("retry-after"));
        let refused = all.map(number % 2).place(&new).await;
        assert!(matches!(refused, Err(NotPlaced::Later(_))), "{refused:?}");
    }

    postgres.resume().await.unwrap();
    for room in &lost {
        let member = members.get_mut(room).unwrap();
        // Nobody left, and nothing else was said before.
        assert_eq!([member.next().await, member.next().await], ["snapshot", "moved"]);
    }
    let next = |room: &RoomName| Generation(before[room].0 + u64::from(lost.contains(room)));
    // It may be another orchestrator that has found the database again.
    let rooms = eventually("the map can be read", async || all.map(0).rooms().await.ok()).await;
    for room in rooms.iter().filter(|room| members.contains_key(&room.room)) {
        assert_eq!((room.node, room.generation), (other, next(&room.room)), "{}", room.room);
    }
    let expected: BTreeMap<_, _> = lost.union(&kept).map(|room| (room.clone(), next(room))).collect();
    assert_eq!(hosted(&all, other).await, expected);
    all.node(dead).server.proceed().unwrap();
    eventually("the dead node has a fresh worker", async || {
        all.map(0).node(dead).await.ok().filter(|node| node.live)
    })
    .await;
    assert!(hosted(&all, dead).await.is_empty(), "it hosts none of them");
    assert_eq!(
        all.map(0).rooms().await.unwrap().len(),
        members.len(),
        "no other room is placed"
    );
}
