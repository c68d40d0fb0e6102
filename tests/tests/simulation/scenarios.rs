//! What is lost together, or at a bad time, in a world where all else is well. The seed says how people are spread, and when exactly it happens.

use std::time::Duration;

use axum::http::Method;
use rand::RngExt;
use signalbox_gateway::moves::recovery::{LONGEST_PAUSE, PATIENT_PAUSE};
use signalbox_protocol::RoomName;
use signalbox_protocol::node::{DrainNode, DrainState};
use signalbox_protocol::placement::PlaceRoom;
use tokio::time::sleep;

use crate::NODES;
use crate::network::Host;
use crate::scene::{GATEWAYS, Scene};
use crate::simulation::{Summary, on_paused_clock, seeds};

/// How soon a dead node's rooms are elsewhere: its lease of 2 s, grace and probe, the fencer's next look, the scout's next question.
const FOUND: Duration = Duration::from_millis(3500);

/// How soon after the first of a dead node's rooms the others are elsewhere: another gateway's scout asks within its longest pause. Lower than what
/// rooms would wait without a scout.
const TOGETHER: Duration = LONGEST_PAUSE.saturating_add(Duration::from_millis(150));

/// How soon rooms are placed once the database is back: for one lease nobody is fenced, then as above.
const PLACED: Duration = Duration::from_secs(4);

/// How long all is watched when it should be over.
const AFTER: Duration = Duration::from_secs(3);

fn millis(scene: &mut Scene, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(scene.rng.random_range(range))
}

fn all_have_moved_on(scene: &Scene, rooms: &[RoomName], gateways: &[usize]) -> Result<(), String> {
    rooms.iter().try_for_each(|room| scene.has_moved_on(room, gateways))
}

fn others_have_stayed(scene: &Scene) -> Result<(), String> {
    let others = scene.before.iter().filter(|(_, served)| served.node != scene.doomed);
    others.map(|(room, _)| room).try_for_each(|room| scene.has_stayed(room))
}

#[test]
fn a_dead_nodes_rooms_are_asked_for_until_one_is_elsewhere_and_then_all_follow_at_once() {
    seeds(30, |seed| on_paused_clock(node_dies(seed)));
}

async fn node_dies(seed: u64) -> Result<Summary, String> {
    let mut scene = Scene::begin(seed).await?;
    let rooms = scene.rooms_of(scene.doomed);
    let every: Vec<usize> = (0..GATEWAYS).collect();
    scene.world.kill_node(scene.doomed);
    let first = async |scene: &Scene| {
        let found = rooms.iter().any(|room| scene.has_moved_on(room, &[]).is_ok());
        found.then_some(()).ok_or_else(|| "no room is elsewhere".to_owned())
    };
    scene.until(FOUND, first).await?;
    let all = async |scene: &Scene| all_have_moved_on(scene, &rooms, &every);
    scene.until(TOGETHER, all).await?;
    let stays = |scene: &Scene| all_have_moved_on(scene, &rooms, &every).and_then(|()| others_have_stayed(scene));
    scene.holds(AFTER, stays).await?;
    scene.end().await
}

#[test]
fn a_gateway_dies_with_a_node_and_those_at_other_gateways_are_expected_once_at_the_next() {
    seeds(30, |seed| on_paused_clock(gateway_dies_too(seed)));
}

async fn gateway_dies_too(seed: u64) -> Result<Summary, String> {
    let mut scene = Scene::begin(seed).await?;
    let (gateway, others) = (0, [1, 2]);
    // At the same time, or while it looks for the rooms, or has begun to open them.
    let later = if seed.is_multiple_of(2) {
        Duration::ZERO
    } else {
        millis(&mut scene, 1..3000)
    };
    let rooms = scene.rooms_of(scene.doomed);
    scene.world.kill_node(scene.doomed);
    scene.holds(later, others_have_stayed).await?;
    scene.world.kill_gateway(gateway);
    let has_others =
        |scene: &Scene, room: &RoomName| scene.before[room].people.iter().any(|(at, _)| others.contains(at));
    let theirs: Vec<_> = rooms.iter().filter(|room| has_others(&scene, room)).cloned().collect();
    let survived = async |scene: &Scene| all_have_moved_on(scene, &theirs, &others);
    scene.until(FOUND, survived).await?;
    if later.is_zero() {
        // Nobody is left who wants to know where the rest is.
        let map = scene.map().await;
        for room in rooms.iter().filter(|room| !theirs.contains(room)) {
            let (before, now) = (&scene.before[room], map[room]);
            if now != (before.node, before.generation) || !scene.served(room).is_empty() {
                return Err(format!("{room} was {before:?} and is {now:?}"));
            }
        }
    }
    // The lost gateway's clients come to another one, and find the others where these are.
    for room in &rooms {
        if !scene.join(others[0], room).await {
            return Err(format!("{room} cannot be joined"));
        }
        scene.has_moved_on(room, &others)?;
    }
    scene.world.start_gateway(gateway);
    let stays = |scene: &Scene| all_have_moved_on(scene, &rooms, &others).and_then(|()| others_have_stayed(scene));
    scene.holds(AFTER, stays).await?;
    scene.end().await
}

#[test]
fn a_moves_target_dies_during_the_move_and_nobody_is_let_go_before_being_at_a_third_node() {
    seeds(30, |seed| on_paused_clock(target_dies(seed)));
}

async fn target_dies(seed: u64) -> Result<Summary, String> {
    let mut scene = Scene::begin(seed).await?;
    let left = scene.doomed;
    let rooms = scene.rooms_of(left);
    let id = scene.world.node(left).ok_or("it runs")?.id;
    let how = DrainNode {
        rate: 20.0,
        ..DrainNode::default()
    };
    let path = format!("/v1/nodes/{id}/drain");
    scene.world.send(Method::PUT, Host::Gateway(0), 0, &path, &how).await;
    let target = loop {
        let map = scene.map().await;
        if let Some((node, _)) = rooms.iter().map(|room| map[room]).find(|(node, _)| *node != left) {
            break node;
        }
        sleep(Duration::from_micros(500)).await;
    };
    let later = millis(&mut scene, 0..400);
    sleep(later).await;
    scene.world.kill_node(target);
    let last = (0..NODES)
        .find(|node| ![left, target].contains(node))
        .ok_or("a third one")?;

    let done = async |scene: &Scene| {
        nobody_is_let_go(scene, left)?;
        let map = scene.map().await;
        for (room, before) in &scene.before {
            let served = scene.served(room);
            let is_there = matches!(&served[..], [now] if now.node == last && now.people.is_superset(&before.people)
                && map[room] == (last, now.generation));
            let steps = map[room].1.0 - before.generation.0;
            let expected = match before.node {
                node if node == last => 0..=0,
                node if node == target => 1..=1,
                _ => 1..=2,
            };
            if !is_there || !expected.contains(&steps) {
                return Err(format!("{room} was {before:?} and is {served:?}"));
            }
        }
        Ok(())
    };
    let end = scene.world.elapsed() + FOUND + Duration::from_secs_f64(rooms.len() as f64 / how.rate);
    while let Err(what) = done(&scene).await {
        nobody_is_let_go(&scene, left)?;
        if scene.world.elapsed() > end {
            return Err(format!("at {:?}: {what}", scene.world.elapsed()));
        }
        scene.step().await?;
    }
    let drained = async |scene: &Scene| {
        let state = scene.drain(left).await?;
        let is_done = state == DrainState::Done;
        is_done.then_some(()).ok_or_else(|| format!("the drain is {state:?}"))
    };
    scene.until(AFTER, drained).await?;
    scene.holds(AFTER, |scene| nobody_is_let_go(scene, left)).await?;
    done(&scene).await?;
    scene.end().await
}

/// That whoever a gateway knows to be at a node is there.
fn nobody_is_let_go(scene: &Scene, node: usize) -> Result<(), String> {
    for gateway in (0..GATEWAYS).filter_map(|index| scene.world.gateway(index)) {
        let state = gateway.state();
        for (room, people) in state.sessions.people_at(scene.world.node(node).ok_or("it runs")?.id) {
            let served = scene.served(room);
            if !served
                .iter()
                .any(|now| now.node == node && now.people.is_superset(people))
            {
                let at = scene.world.elapsed();
                return Err(format!(
                    "at {at:?}: {people:?} are let go of {room}, which is {served:?}"
                ));
            }
        }
    }
    Ok(())
}

#[test]
fn nothing_is_placed_while_the_database_is_away_as_a_node_dies_and_all_is_once_it_is_back() {
    seeds(30, |seed| on_paused_clock(database_is_away(seed)));
}

async fn database_is_away(seed: u64) -> Result<Summary, String> {
    let mut scene = Scene::begin(seed).await?;
    let rooms = scene.rooms_of(scene.doomed);
    let every: Vec<usize> = (0..GATEWAYS).collect();
    // Up to where its lease has run out just when the database goes.
    let apart = millis(&mut scene, 0..1800);
    if seed.is_multiple_of(2) {
        scene.world.kill_node(scene.doomed);
        scene.holds(apart, others_have_stayed).await?;
        scene.world.database.stop();
    } else {
        scene.world.database.stop();
        scene.holds(apart, others_have_stayed).await?;
        scene.world.kill_node(scene.doomed);
    }

    let away = millis(&mut scene, 3000..12_000);
    let asked = asked(&scene);
    let waits = |scene: &Scene| {
        let is_nowhere = |room: &RoomName| match &scene.served(room)[..] {
            [] => Ok(()),
            served => Err(format!("{room} is served: {served:?}")),
        };
        rooms.iter().try_for_each(is_nowhere)?;
        others_have_stayed(scene)
    };
    scene.holds(away, waits).await?;
    for (room, place) in scene.map().await {
        let before = &scene.before[&room];
        if place != (before.node, before.generation) {
            return Err(format!("{room} was {before:?} and is {place:?}"));
        }
    }
    let new: RoomName = "new".parse().expect("a name");
    for orchestrator in 0..scene.world.orchestrators() {
        let place = PlaceRoom::new(new.clone());
        let reply = scene
            .world
            .post(Host::Gateway(0), orchestrator, "/v1/placements", &place)
            .await;
        if reply.status() != Some(503) {
            return Err(format!("a new room is answered {:?}", reply.status()));
        }
    }
    few_questions(&scene, &asked, away, rooms.len())?;

    scene.world.database.start();
    let placed = async |scene: &Scene| {
        others_have_stayed(scene)?;
        all_have_moved_on(scene, &rooms, &every)
    };
    scene.until(PLACED, placed).await?;
    let stays = |scene: &Scene| all_have_moved_on(scene, &rooms, &every).and_then(|()| others_have_stayed(scene));
    scene.holds(AFTER, stays).await?;
    if !scene.join(0, &new).await {
        return Err("a new room cannot be joined".to_owned());
    }
    scene.end().await
}

/// How often each gateway has asked.
fn asked(scene: &Scene) -> Vec<u64> {
    let gateways = (0..GATEWAYS).filter_map(|index| scene.world.gateway(index));
    gateways.map(|gateway| gateway.state().asked).collect()
}

/// That no gateway has asked more often than it may, in all this time in which nobody could answer.
fn few_questions(scene: &Scene, before: &[u64], time: Duration, rooms: usize) -> Result<(), String> {
    // The scout's pauses are 150 ms and more once they are at their longest, those of the others three quarters of theirs.
    let scout = time.as_millis() / 150 + 5;
    let others = rooms as u128 * (time.as_millis() / (PATIENT_PAUSE.as_millis() * 3 / 4) + 1);
    let most = scout + others;
    for (now, before) in asked(scene).iter().zip(before) {
        if u128::from(now - before) > most {
            return Err(format!("{} questions in {time:?}, of at most {most}", now - before));
        }
    }
    Ok(())
}
