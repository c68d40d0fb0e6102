//! Rooms that are handed to another node.

use std::time::Duration;

use signalbox_protocol::control::{
    ChannelInfo, CloseReason, Command, Event, NodeFrame, Outcome, RefusalReason, Request, Resume, Resumption, Target,
};
use signalbox_protocol::node::{HostedRoom, HostedRooms, MoveRoom};
use signalbox_protocol::placement::Placement;
use signalbox_protocol::room::{Grants, ParticipantInfo, ParticipantState, RoomInfo};
use signalbox_protocol::tunnel::{Token, Tunnel};
use signalbox_protocol::{Epoch, Generation, NodeId, ParticipantId};

use crate::cluster::{Gateway, Node, Place, SECRET};
use crate::orchestrator::Orchestrator;

const LEASE: Duration = Duration::from_secs(60);

/// Longer than any test takes.
const LONG_MS: u64 = 250_000;

pub fn order(room: &str, from: u64, to: u64, within_ms: u64) -> MoveRoom {
    MoveRoom {
        generation: Generation(from),
        to: Placement {
            room: room.parse().unwrap(),
            node: NodeId::random(),
            control: "ws://10.0.0.7:7900".to_owned(),
            epoch: Epoch(9),
            generation: Generation(to),
            ticket: "a ticket for the other node".to_owned(),
            ticket_seconds: 30,
            by_canary_share: false,
        },
        within_ms,
    }
}

async fn send(node: &Place, secret: &str, body: String) -> u16 {
    let url = format!("http://{}/v1/moves", node.control);
    let request = reqwest::Client::new().post(url).bearer_auth(secret).body(body);
    request.send().await.unwrap().status().as_u16()
}

pub async fn begin(node: &Place, order: &MoveRoom) -> u16 {
    send(node, SECRET, serde_json::to_string(order).unwrap()).await
}

async fn hosted(node: &Node) -> Vec<HostedRoom> {
    let url = format!("http://{}/v1/rooms", node.control);
    let request = reqwest::Client::new().get(url).bearer_auth(SECRET);
    let answer: HostedRooms = request.send().await.unwrap().json().await.unwrap();
    let mut rooms = answer.rooms;
    rooms.sort_by(|one, other| one.room.as_str().cmp(other.room.as_str()));
    rooms
}

fn room(name: &str, generation: u64, participants: u32, moving: bool) -> HostedRoom {
    HostedRoom {
        room: name.parse().unwrap(),
        generation: Generation(generation),
        participants,
        moving,
    }
}

async fn refusal(gateway: &mut Gateway, request: Request) -> RefusalReason {
    match gateway.ask(request).await {
        Outcome::Refused(refusal) => refusal.reason,
        Outcome::Ok(reply) => panic!("not refused: {reply:?}"),
    }
}

fn is_moving(event: &Event) -> bool {
    matches!(event, Event::Moving { .. })
}

fn is_closed(event: &Event) -> bool {
    matches!(event, Event::Closed { .. })
}

#[tokio::test]
async fn an_orchestrator_is_told_which_rooms_there_are_and_how_many_are_in_each() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=2"]).await;
    assert_eq!(node.get("/v1/rooms").await.0, 401);
    assert_eq!(hosted(&node).await, []);
    let mut gateway = node.gateway().await;
    for (name, identity) in [("daily", "ann"), ("daily", "bob"), ("weekly", "carl")] {
        gateway.join(&node, name, 3, identity).await;
    }
    assert_eq!(begin(&node, &order("weekly", 3, 4, LONG_MS)).await, 204);
    let rooms = [room("daily", 3, 2, false), room("weekly", 3, 1, true)];
    assert_eq!(hosted(&node).await, rooms);
}

#[tokio::test]
async fn a_moving_room_sends_its_participants_on_admits_nobody_and_ends_with_the_last() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=2", "--empty-room-seconds=0"]).await;
    let (mut one, mut two) = (node.gateway().await, node.gateway().await);
    let ann = one.join(&node, "daily", 1, "ann").await;
    let bob = two.join(&node, "daily", 1, "bob").await;

    let order = order("daily", 1, 2, LONG_MS);
    assert_eq!(begin(&node, &order).await, 204);
    for (gateway, participant) in [(&mut one, &ann), (&mut two, &bob)] {
        match gateway.event(is_moving).await {
            (told, Event::Moving { to, within_ms }) => {
                assert_eq!((told, *to), (vec![participant.clone()], order.to.clone()));
                // The shard's time is that at which its turn began, which may be before the order.
                assert!((LONG_MS / 2..=LONG_MS + 1_000).contains(&within_ms), "{within_ms}");
            }
            other => panic!("{other:?}"),
        }
    }
    let late = node.join("daily", 1, "carl");
    assert_eq!(refusal(&mut one, late).await, RefusalReason::Ticket);
    // It is served as before: also when an orchestrator says that it is not this node's, which it does not claim.
    orchestrator.answer_once(true, &[("daily", 1)]);
    orchestrator
        .told("a heartbeat names the rooms, none", |log| {
            log.heartbeats.iter().any(|beat| beat.rooms.as_deref() == Some(&[]))
        })
        .await;
    let outcome = one.command("daily", "ann", &ann, Command::Attach).await;
    assert!(matches!(outcome, Outcome::Ok(_)), "{outcome:?}");

    one.command("daily", "ann", &ann, Command::Moved).await;
    assert_eq!(hosted(&node).await, [room("daily", 1, 1, true)]);
    two.command("daily", "bob", &bob, Command::Moved).await;
    node.metric("signalbox_media_rooms_moved_total", |count| count == 1.0)
        .await;
    node.metric("signalbox_media_left_behind_total", |count| count == 0.0)
        .await;
    assert_eq!(hosted(&node).await, []);
    let late = node.join("daily", 1, "carl");
    assert_eq!(refusal(&mut one, late).await, RefusalReason::Ticket);
    node.metric("signalbox_media_rooms_closed_total", |count| count == 0.0)
        .await;
}

#[tokio::test]
async fn a_room_that_is_called_stale_a_moment_before_it_is_to_move_moves() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    let mut gateway = node.gateway().await;
    gateway.join(&node, "daily", 1, "ann").await;
    gateway.join(&node, "weekly", 1, "bob").await;
    orchestrator.answer_once(false, &[("daily", 1), ("weekly", 1)]);
    let is_marked = async { while matches!(gateway.ask(node.join("daily", 1, "late")).await, Outcome::Ok(_)) {} };
    tokio::time::timeout(LEASE, is_marked).await.unwrap();
    assert_eq!(begin(&node, &order("daily", 1, 2, LONG_MS)).await, 204);
    gateway.event(is_moving).await;
    // The one that does not move ends.
    node.metric("signalbox_media_stale_rooms_closed_total", |count| count == 1.0)
        .await;
    assert!(
        hosted(&node)
            .await
            .iter()
            .all(|hosted| hosted.room.as_str() == "daily" && hosted.moving)
    );
}

#[tokio::test]
async fn who_does_not_go_in_time_is_told_that_the_node_is_gone() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    let mut gateway = node.gateway().await;
    let ann = gateway.join(&node, "daily", 1, "ann").await;
    assert_eq!(begin(&node, &order("daily", 1, 2, 300)).await, 204);
    gateway.event(is_moving).await;
    let (to, event) = gateway.event(is_closed).await;
    let reason = CloseReason::NodeGone;
    assert_eq!((to, event), (vec![ann], Event::Closed { reason }));
    node.metric("signalbox_media_left_behind_total", |count| count == 1.0)
        .await;
    assert_eq!(hosted(&node).await, []);
    // The room is another node's: there was nothing to agree on.
    assert_eq!(orchestrator.log().closings.len(), 0);
}

#[tokio::test]
async fn a_moving_room_that_nobody_is_in_ends_at_once() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    let mut gateway = node.gateway().await;
    let open = Request::Open {
        ticket: node.ticket("daily", 1),
        room: "daily".parse().unwrap(),
    };
    assert!(matches!(gateway.ask(open).await, Outcome::Ok(_)));
    assert_eq!(begin(&node, &order("daily", 1, 2, LONG_MS)).await, 204);
    assert_eq!(hosted(&node).await, []);
    assert_eq!(orchestrator.log().closings.len(), 0);
}

#[tokio::test]
async fn a_gateway_that_attaches_a_participant_of_a_moving_room_is_told_as_well() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    let mut first = node.gateway().await;
    let ann = first.join(&node, "daily", 1, "ann").await;
    let order = order("daily", 1, 2, LONG_MS);
    assert_eq!(begin(&node, &order).await, 204);
    drop(first);
    let mut second = node.gateway().await;
    second.command("daily", "ann", &ann, Command::Attach).await;
    match second.event(is_moving).await {
        (told, Event::Moving { to, .. }) => assert_eq!((told, *to), (vec![ann], order.to)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_room_whose_target_is_lost_moves_to_the_next_and_not_back_to_an_earlier_one() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    let mut gateway = node.gateway().await;
    gateway.join(&node, "daily", 1, "ann").await;
    let (first, second) = (order("daily", 1, 2, 1_000), order("daily", 1, 3, LONG_MS));
    for order in [&first, &first, &second] {
        assert_eq!(begin(&node, order).await, 204);
        let (_, event) = gateway.event(is_moving).await;
        assert!(
            matches!(&event, Event::Moving { to, .. } if **to == order.to),
            "{event:?}"
        );
    }
    assert_eq!(begin(&node, &first).await, 409);
}

#[tokio::test]
async fn a_room_that_comes_back_in_a_later_generation_ends_the_one_that_moves() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=2"]).await;
    let mut gateway = node.gateway().await;
    let ann = gateway.join(&node, "daily", 1, "ann").await;
    assert_eq!(begin(&node, &order("daily", 1, 2, LONG_MS)).await, 204);
    gateway.join(&node, "daily", 3, "bob").await;
    let (to, event) = gateway.event(is_closed).await;
    let reason = CloseReason::NodeGone;
    assert_eq!((to, event), (vec![ann], Event::Closed { reason }));
    assert_eq!(hosted(&node).await, [room("daily", 3, 1, false)]);
}

#[tokio::test]
async fn an_order_that_is_not_for_this_node_or_makes_no_sense_is_refused() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    let mut gateway = node.gateway().await;
    gateway.join(&node, "daily", 2, "ann").await;
    let body = serde_json::to_string(&order("daily", 2, 3, LONG_MS)).unwrap();
    assert_eq!(send(&node, "the cluster secret of others", body).await, 401);
    for elsewhere in [
        order("weekly", 2, 3, 0),
        order("daily", 1, 3, 0),
        order("daily", 3, 4, 0),
    ] {
        assert_eq!(begin(&node, &elsewhere).await, 404);
    }
    let mut here = order("daily", 2, 3, 0);
    here.to.node = node.id;
    for senseless in [here, order("daily", 2, 2, 0)] {
        assert_eq!(begin(&node, &senseless).await, 400);
    }
    for garbage in ["", "{}", "[", "\u{0}"] {
        assert_eq!(send(&node, SECRET, garbage.to_owned()).await, 400);
    }
    assert_eq!(send(&node, SECRET, " ".repeat(100_000)).await, 413);
    assert_eq!(hosted(&node).await, [room("daily", 2, 1, false)]);
}

/// An offer of a client that sends sound.
const OFFER: &str = "v=0\r
o=- 1 2 IN IP4 127.0.0.1\r
s=-\r
t=0 0\r
a=group:BUNDLE 0\r
m=audio 9 UDP/TLS/RTP/SAVPF 111\r
c=IN IP4 0.0.0.0\r
a=ice-ufrag:client\r
a=ice-pwd:the-password-of-the-client\r
a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r
a=setup:actpass\r
a=mid:0\r
a=sendonly\r
a=msid:- mic\r
a=rtcp-mux\r
a=rtpmap:111 opus/48000/2\r
";

/// A participant that comes from another node, over which its client is reached.
fn comes_over(node: &Place, identity: &str, index: u8) -> Request {
    let Request::Join(mut join) = node.join("daily", 2, identity) else {
        unreachable!("a join");
    };
    let kept = Resumption {
        transports: join.transports,
        auto_subscribe: true,
        never_pause: false,
        tracks: Vec::new(),
        wants: Vec::new(),
        subscriber: None,
        channels: vec![ChannelInfo {
            target: Target::Publisher,
            label: "_reliable".into(),
            id: 0,
        }],
    };
    let tunnel = Tunnel {
        target: Target::Publisher,
        via: "192.0.2.1:5000".parse().unwrap(),
        entrance: None,
        token: Token::new([index; 16]),
        ufrag: format!("node{index}"),
        password: "the-password-of-the-node".into(),
        client_ufrag: "client".into(),
        moves: 1,
        estimate_bps: None,
        sounds: Vec::new(),
    };
    join.resume = Some(Box::new(Resume {
        participant: info(identity),
        kept,
        slots: Vec::new(),
        tunnels: vec![tunnel],
    }));
    Request::Join(join)
}

fn info(identity: &str) -> ParticipantInfo {
    ParticipantInfo {
        id: ParticipantId::new(format!("PA_{identity}")),
        identity: identity.parse().unwrap(),
        name: String::new(),
        metadata: String::new(),
        attributes: Default::default(),
        state: ParticipantState::Active,
        tracks: Vec::new(),
        joined_at_ms: 1,
        version: 1,
        grants: Grants::default(),
        dialect_info: None,
    }
}

#[tokio::test]
async fn who_comes_over_is_answered_when_all_have_come() {
    let orchestrator = Orchestrator::start(LEASE).await;
    let node = Node::start(&orchestrator, &["--shards=1"]).await;
    let mut gateway = node.gateway().await;
    let expect = Request::Expect {
        ticket: node.ticket("daily", 2),
        room: Box::new(RoomInfo {
            name: "daily".parse().unwrap(),
            id: "RM_a".into(),
            generation: Generation(1),
            created_at_ms: 1,
            participants: 2,
            publishers: 0,
            metadata: String::new(),
        }),
        participants: vec![info("ann"), info("bob")],
    };
    assert!(matches!(gateway.ask(expect).await, Outcome::Ok(_)));
    let offer = |identity: &str| Request::Participant {
        room: "daily".parse().unwrap(),
        participant: ParticipantId::new(format!("PA_{identity}")),
        identity: identity.parse().unwrap(),
        command: Command::Offer { sdp: OFFER.to_owned() },
    };
    let asked = [
        comes_over(&node, "ann", 1),
        offer("ann"),
        comes_over(&node, "bob", 2),
        offer("bob"),
    ];
    let mut ids = Vec::new();
    for request in asked {
        ids.push(gateway.send(request, 60_000).await);
    }
    let mut answered = Vec::new();
    while answered.len() < ids.len() {
        if let NodeFrame::Reply { id, result } = gateway.frame().await.unwrap() {
            assert!(matches!(result, Outcome::Ok(_)), "{result:?}");
            answered.push(id);
        }
    }
    // Ann's offer waits for Bob's.
    assert_eq!(answered[..2], [ids[0], ids[2]]);
    assert!(answered[2..].contains(&ids[1]));
}
