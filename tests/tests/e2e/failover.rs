//! A standby takes PostgreSQL's place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use e2e::eventually;
use e2e::fake_node::FakeNode;
use e2e::map::{Map, NotPlaced, Place, place};
use e2e::postgres::{Durability, Postgres, Replication};
use e2e::processes::{Processes, Shape};
use signalbox_protocol::RoomName;
use signalbox_protocol::placement::RoomState;

/// How many rooms are placed before the standby is cut off, and how many after.
const ROOMS: usize = 50;

/// Places rooms, has their nodes host them, and notes where they are.
async fn place_rooms(map: &Map, nodes: &[FakeNode], name: &str, places: &mut BTreeMap<RoomName, Place>) {
    for index in 0..ROOMS {
        let room: RoomName = format!("{name}-{index}").parse().unwrap();
        let placement = map.place(&room).await.unwrap();
        let node = nodes.iter().find(|node| node.id == placement.node).unwrap();
        node.host(room.clone(), placement.generation);
        places.insert(room, place(&placement));
    }
}

/// The open rooms of the map.
async fn open_rooms(map: &Map) -> Option<BTreeMap<RoomName, Place>> {
    let rooms = map.rooms().await.ok()?.into_iter();
    let open = rooms.filter(|room| room.state == RoomState::Open);
    Some(
        open.map(|room| (room.room, (room.node, room.epoch, room.generation)))
            .collect(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lagging_standby_has_lost_the_nodes_restore() {
    let Some(mut primary) = Postgres::start(Durability::Relaxed).await.unwrap() else {
        return;
    };
    let mut standby = primary.standby(Replication::Asynchronous).await.unwrap();
    let shape = Shape::new(0, 0).orchestrators(2);
    let all = Processes::start(&primary.url(), &shape).await.unwrap();
    let nodes = FakeNode::start_many(4, &all.orchestrator_urls()).await;
    let (map, other) = (all.map(0), all.map(1));
    let mut places = BTreeMap::new();
    place_rooms(&map, &nodes, "kept", &mut places).await;
    let received = async || (standby.query("SELECT count(*) FROM room").ok()? == ROOMS.to_string()).then_some(());
    eventually("the standby has the rooms", received).await;

    standby.cut_off().await.unwrap();
    // The standby knows this node by an older epoch.
    let restarted = &nodes[0];
    let lost: Vec<RoomName> = restarted.view().rooms.into_keys().collect();
    places.retain(|room, _| !lost.contains(room));
    restarted.restart();
    restarted
        .until("registered again", |view| {
            view.registrations == 2 && view.epoch.is_some()
        })
        .await;
    place_rooms(&other, &nodes, "lost", &mut places).await;
    let epochs = map.epochs().await.unwrap();

    primary.kill().await.unwrap();
    standby.replace(primary).await.unwrap();
    let rows = standby
        .query("SELECT count(*) FROM room WHERE room_id LIKE 'lost-%'")
        .unwrap();
    println!("the standby had {rows} of {ROOMS} rooms that were placed after it was cut off");

    eventually("the map is as before", async || {
        let rooms = open_rooms(&map).await?;
        places
            .iter()
            .all(|(room, place)| rooms.get(room) == Some(place))
            .then_some(())
    })
    .await;
    assert_eq!(map.epochs().await.unwrap(), epochs, "no node was fenced");
    for node in &nodes {
        let view = node.view();
        assert_eq!((view.fenced, view.expired), (0, 0), "{view:?}");
        assert_eq!(view.stale, [], "nobody was told to close a room of its own");
    }
    let hosted = nodes.iter().flat_map(|node| {
        let view = node.view();
        let epoch = view.epoch.unwrap();
        view.rooms
            .into_iter()
            .map(move |(room, generation)| (room, (node.id, epoch, generation)))
    });
    assert_eq!(
        hosted.collect::<BTreeMap<_, _>>(),
        places,
        "the nodes host what they did"
    );
    for (room, place) in &places {
        for map in [&map, &other] {
            assert_eq!(e2e::map::place(&map.place(room).await.unwrap()), *place, "{room}");
        }
    }
    // An epoch that was handed out a second time would make dead assignments live.
    let newcomer = FakeNode::start(&all.orchestrator_urls()).await;
    assert!(epochs.values().all(|epoch| newcomer.view().epoch.unwrap() > *epoch));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_with_a_synchronous_standby() {
    let Some(mut primary) = Postgres::start(Durability::Relaxed).await.unwrap() else {
        return;
    };
    let mut standby = primary.standby(Replication::Synchronous).await.unwrap();
    let shape = Shape::new(0, 0).orchestrators(2);
    let all = Processes::start(&primary.url(), &shape).await.unwrap();
    // They host nothing, so that nothing can be restored by their digests.
    let _nodes = FakeNode::start_many(4, &all.orchestrator_urls()).await;
    let (map, done) = (all.map(0), Arc::new(AtomicBool::new(false)));
    let placing = {
        let (map, done) = (all.map(1), done.clone());
        tokio::spawn(async move {
            let mut acknowledged = BTreeMap::new();
            for index in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let room: RoomName = format!("room-{index}").parse().unwrap();
                match map.place(&room).await {
                    Ok(placement) => drop(acknowledged.insert(room, place(&placement))),
                    Err(NotPlaced::Later(_)) => {}
                    Err(NotPlaced::Failed(why)) => panic!("{why}"),
                }
            }
            acknowledged
        })
    };
    eventually("some rooms are placed", async || {
        (map.rooms().await.ok()?.len() >= ROOMS).then_some(())
    })
    .await;
    primary.kill().await.unwrap();
    standby.replace(primary).await.unwrap();
    eventually("a new room works again", async || {
        map.place(&"after".parse().unwrap()).await.ok()
    })
    .await;
    done.store(true, Ordering::Relaxed);
    let acknowledged = placing.await.unwrap();
    let rooms = open_rooms(&map).await.unwrap();
    for (room, place) in &acknowledged {
        assert_eq!(rooms.get(room), Some(place), "{room}");
    }
    println!("{} acknowledged placements are as they were", acknowledged.len());
}
