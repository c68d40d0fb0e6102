//! What hashing gives: shares, and what moves when a node leaves.

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use signalbox_orchestrator::placement::{Candidate, Scored, bounded_rendezvous, hash, rendezvous, track, two_choices};
use signalbox_protocol::NodeId;

use crate::cluster::{index, max_to_mean, nodes, scored};
use crate::{Bar, Row, Scale};

/// The node that leaves: any would do.
const LEAVES: usize = 3;

const SLACK: f64 = 0.25;

fn key(n: u32) -> u64 {
    hash::of_bytes(format!("room-{n}").as_bytes())
}

fn without_one(candidates: &[Candidate]) -> Vec<Candidate> {
    let mut rest = candidates.to_vec();
    rest.remove(LEAVES);
    rest
}

/// How many of the keys are elsewhere, and how many of those had not been on the node that left; as shares of all keys.
fn moved(left: NodeId, before: impl Iterator<Item = NodeId>, after: impl Iterator<Item = NodeId>) -> (f64, f64) {
    let (mut keys, mut moved, mut collateral) = (0_u32, 0_u32, 0_u32);
    for (before, after) in before.zip(after) {
        keys += 1;
        moved += u32::from(before != after);
        collateral += u32::from(before != after && before != left);
    }
    let share = |part: u32| f64::from(part) / f64::from(keys);
    (share(moved), share(collateral))
}

fn by_modulo(candidates: &[Candidate], key: u64) -> NodeId {
    let index = key % candidates.len() as u64;
    candidates[index as usize].node
}

fn by_rendezvous(eligible: &[Scored<'_>], key: u64) -> NodeId {
    rendezvous::choose(eligible, key)
        .expect("there are nodes")
        .candidate
        .node
}

pub fn movement(scale: Scale) -> Vec<Row> {
    let mut rows = Vec::new();
    for (count, keys) in [(10, 1_000_000), (100, scale.pick(1_000_000, 100_000))] {
        let all = nodes(vec![1000; count]);
        let rest = without_one(&all);
        let (left, bar) = (all[LEAVES].node, 1.05 / count as f64);
        let keys = || (0..keys).map(key);

        let (share, _) = moved(
            left,
            keys().map(|key| by_modulo(&all, key)),
            keys().map(|key| by_modulo(&rest, key)),
        );
        rows.push(Row::new(format!("modulo, N = {count}"), share, Bar::None));

        let (before, after) = (scored(&all), scored(&rest));
        let (share, collateral) = moved(
            left,
            keys().map(|key| by_rendezvous(&before, key)),
            keys().map(|key| by_rendezvous(&after, key)),
        );
        rows.push(Row::new(format!("rendezvous, N = {count}"), share, Bar::AtMost(bar)));
        let what = format!("rendezvous, N = {count}, of them not the leaving node's own");
        rows.push(Row::new(what, collateral, Bar::AtMost(0.0)));
    }
    rows
}

pub fn shares(scale: Scale) -> Vec<Row> {
    let keys = scale.pick(1_000_000, 200_000);
    let capacities = [100, 200, 400];
    let candidates = nodes(capacities);
    let eligible = scored(&candidates);
    let mut counts = [0_u32; 3];
    for n in 0..keys {
        counts[index(&candidates, by_rendezvous(&eligible, key(n)))] += 1;
    }
    counts
        .into_iter()
        .zip(capacities)
        .map(|(count, capacity)| {
            let share = f64::from(count) / f64::from(keys);
            let bar = Bar::Within(f64::from(capacity) / 700.0, 0.003);
            Row::new(format!("capacity {capacity}"), share, bar)
        })
        .collect()
}

/// Where rooms go that are placed one by one, each of one participant, and the busiest node's load.
fn by_bounded_rendezvous(candidates: &[Candidate], rooms: u32) -> (Vec<NodeId>, f64) {
    let mut eligible = scored(candidates);
    let mut loads = vec![0; candidates.len()];
    let placed = (0..rooms)
        .map(|n| {
            let chosen = bounded_rendezvous::choose(&eligible, key(n), SLACK, 1.0).expect("there are nodes");
            let index = index(candidates, chosen.candidate.node);
            loads[index] += 1;
            eligible[index].score = f64::from(loads[index]) / f64::from(chosen.candidate.capacity);
            chosen.candidate.node
        })
        .collect();
    (placed, max_to_mean(&loads))
}

pub fn bounded(scale: Scale) -> Vec<Row> {
    let mut rows = Vec::new();
    // The caps bind only while there are few rooms, and then each room that moves moves others. In the end that is one or
    // two rooms a node, however many follow: much of a thousand rooms, nothing of a million. The bar is for a million.
    let million = scale.pick(1_000_000, 100_000);
    for (count, rooms, bar) in [
        (10, 1_000, Bar::None),
        (10, million, Bar::AtMost(0.12)),
        (100, 10_000, Bar::None),
        (100, million, Bar::AtMost(0.012)),
    ] {
        let all = nodes(vec![1_000_000; count]);
        let (before, busiest) = by_bounded_rendezvous(&all, rooms);
        let (after, _) = by_bounded_rendezvous(&without_one(&all), rooms);
        let (share, collateral) = moved(all[LEAVES].node, before.into_iter(), after.into_iter());
        let what = |what| format!("N = {count}, {rooms} rooms: {what}");
        rows.push(Row::new(what("moved"), share, bar));
        rows.push(Row::new(
            what("of them not the leaving node's own"),
            collateral,
            Bar::None,
        ));
        rows.push(Row::new(
            what("busiest node, max/mean"),
            busiest,
            Bar::AtMost(1.0 + SLACK + 0.01),
        ));
    }
    rows
}

pub fn one_address(_: Scale) -> Vec<Row> {
    let mut rng = StdRng::seed_from_u64(10);
    let gateways = nodes([1000; 10]);
    let users: Vec<u128> = (0..2000).map(|_| rng.random()).collect();
    let spread = |mut gateway: Box<dyn FnMut(u128) -> usize>| {
        let mut loads = [0_u32; 10];
        for &user in &users {
            loads[gateway(user)] += 1;
        }
        max_to_mean(&loads)
    };

    let address = hash::of_bytes(b"203.0.113.7");
    let all = scored(&gateways);
    let by_address = spread(Box::new(|_| index(&gateways, by_rendezvous(&all, address))));
    let by_user = spread(Box::new(|user| {
        index(&gateways, by_rendezvous(&all, hash::of_id(user)))
    }));
    let by_choice = sticky(&gateways, &users, &mut rng);
    vec![
        Row::new("hash of the address", by_address, Bar::Within(10.0, 0.0)),
        Row::new("rendezvous on the user's UUID", by_user, Bar::AtMost(1.27)),
        Row::new(
            "two choices at first sight, then the same again",
            by_choice,
            Bar::AtMost(1.02),
        ),
    ]
}

/// Each user comes several times, and is sent where it was at first.
fn sticky(gateways: &[Candidate], users: &[u128], rng: &mut impl Rng) -> f64 {
    let mut eligible = scored(gateways);
    let mut loads = vec![0_u32; gateways.len()];
    let mut sent = std::collections::HashMap::new();
    for user in users.iter().cycle().take(users.len() * 3) {
        let gateway = *sent.entry(user).or_insert_with(|| {
            let chosen = two_choices::choose(&eligible, rng).expect("there are gateways");
            index(gateways, chosen.candidate.node)
        });
        loads[gateway] += 1;
        eligible[gateway].score += 1.0;
    }
    max_to_mean(&loads)
}

pub fn canary(_: Scale) -> Vec<Row> {
    let canaries = (0..100_000)
        .filter(|n| track::is_canary(&format!("user-{n}"), 0.1))
        .count();
    let share = canaries as f64 / 100_000.0;
    vec![Row::new("canary", share, Bar::Within(0.1, 0.003))]
}
