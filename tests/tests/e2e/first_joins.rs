//! Many at once ask for a room that nobody has asked for before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use e2e::fake_node::FakeNode;
use e2e::map::{Map, Place, place};
use e2e::processes::{Processes, Shape, database};
use futures_util::StreamExt;
use futures_util::stream::iter;
use signalbox_protocol::{Generation, RoomName};

/// How many orchestrators share the map.
const ORCHESTRATORS: usize = 8;

/// How many placements are under way at once.
const AT_ONCE: usize = 1_000;

/// Places each room so often, all of it concurrently and over all orchestrators, and checks that everyone was told the same.
async fn agree(maps: &[Map], rooms: &[RoomName], joins: usize) -> BTreeMap<RoomName, Place> {
    let requests = (0..joins).flat_map(|join| rooms.iter().enumerate().map(move |(index, room)| (join + index, room)));
    let requests = requests.map(|(number, room)| async move {
        let placement = maps[number % maps.len()].place(room).await;
        (room.clone(), place(&placement.expect("it is placed")))
    });
    let answers: Vec<_> = iter(requests).buffer_unordered(AT_ONCE).collect().await;
    assert_eq!(answers.len(), rooms.len() * joins);
    let mut places: BTreeMap<RoomName, BTreeSet<Place>> = BTreeMap::new();
    for (room, place) in answers {
        places.entry(room).or_default().insert(place);
    }
    let single = |(room, places): (RoomName, BTreeSet<Place>)| {
        assert_eq!(places.len(), 1, "{room} is in one place: {places:?}");
        (room, places.into_iter().next().expect("it is one"))
    };
    places.into_iter().map(single).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn everyone_is_told_the_same_node_and_generation() {
    let Some(database) = database("first_joins").await.unwrap() else {
        return;
    };
    // Leases are not what this is about, and all of it on one machine takes the nodes' processor time.
    let flags = ["--lease-ms", "60000", "--heartbeat-ms", "1000"];
    let shape = Shape::new(0, 0).orchestrators(ORCHESTRATORS).orchestrator_flags(&flags);
    let all = Processes::start(&database, &shape).await.unwrap();
    let _nodes = FakeNode::start_many(8, &all.orchestrator_urls()).await;
    let maps: Vec<Map> = (0..ORCHESTRATORS).map(|index| all.map(index)).collect();

    let repeats = e2e::parameter("SIGNALBOX_TEST_REPEATS", 3);
    let mut known = BTreeMap::new();
    for repeat in 0..repeats {
        let one = [format!("one-{repeat}").parse().unwrap()];
        let begin = Instant::now();
        known.extend(agree(&maps, &one, 1_000).await);
        let single = begin.elapsed();
        let hundred: Vec<RoomName> = (0..100)
            .map(|room| format!("of-100-{repeat}-{room}").parse().unwrap())
            .collect();
        let begin = Instant::now();
        known.extend(agree(&maps, &hundred, 50).await);
        println!(
            "{repeat}: 1000 first joins of a room agree, in {single:.0?}; 100 rooms with 50 joins each agree, in {:.0?}",
            begin.elapsed()
        );
    }
    assert!(known.values().all(|(_, _, generation)| *generation == Generation(1)));
    let listed = maps[0].rooms().await.unwrap();
    let listed: BTreeMap<_, _> = listed
        .into_iter()
        .map(|room| (room.room, (room.node, room.epoch, room.generation)))
        .collect();
    assert_eq!(listed, known, "the map says what everyone was told");
    println!(
        "{repeats} times, {} rooms, over {ORCHESTRATORS} orchestrators",
        known.len()
    );
}
