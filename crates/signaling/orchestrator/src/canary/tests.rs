//! An orchestrator that follows the share, and takes it back.

use signalbox_protocol::NodeId;
use signalbox_protocol::canary::Tally;
use signalbox_protocol::node::{Heartbeat, RegisterNode};
use signalbox_protocol::placement::{PlaceRoom, Track};

use super::*;
use crate::harness::{Orchestrator, heartbeat, node, orchestrator, register_with, registration, start};

const LEASE: Duration = Duration::from_secs(3600);

/// An orchestrator with a node of each track.
async fn with_both_tracks(flags: &[&str]) -> Orchestrator {
    let (service, _) = orchestrator(flags);
    start(&service).await;
    for (n, track) in [(1, Track::Stable), (2, Track::Canary)] {
        let about = RegisterNode {
            track,
            ..registration(node(n))
        };
        register_with(service.store(), &about, LEASE).await.unwrap();
    }
    service
}

async fn place(service: &Orchestrator, room: &str) -> NodeId {
    let request = PlaceRoom::new(room.parse().unwrap());
    service.place(&request).await.unwrap().unwrap().node
}

fn tell(service: &Orchestrator, stable: Tally, canary: Tally) {
    let mut tallies = service.canary.tallies();
    tallies.joins(node(1), stable);
    tallies.joins(node(2), canary);
}

fn tally(ok: u64, failed: u64) -> Tally {
    Tally { ok, failed }
}

/// Long enough to have compared.
async fn compared() {
    tokio::time::sleep(COMPARE + LOOK * 3).await;
}

#[tokio::test(start_paused = true)]
async fn the_configured_share_counts_until_one_is_set() {
    let service = with_both_tracks(&["--canary-share", "1"]).await;
    assert_eq!(place(&service, "a").await, node(2));
    service.set_canary_share(0.0, "").await.unwrap();
    assert_eq!(place(&service, "b").await, node(1), "at once, where it was set");
    let last = service.canary.seen().last.unwrap();
    assert_eq!((last.from, last.to, last.by), (1.0, 0.0, ChangedBy::Operator));
}

#[tokio::test(start_paused = true)]
async fn a_share_that_another_orchestrator_set_counts_within_a_second() {
    let service = with_both_tracks(&[]).await;
    assert_eq!(place(&service, "a").await, node(1));
    let change = ShareChange {
        after: 0,
        from: 0.0,
        to: 1.0,
        by: ChangedBy::Operator,
        why: "",
    };
    assert!(service.store().set_canary(&change).await.unwrap());
    tokio::time::sleep(LOOK * 2).await;
    assert_eq!(place(&service, "b").await, node(2));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_a_later_look_has_overtaken_counts_for_nothing() {
    let service = with_both_tracks(&[]).await;
    let (began, old) = (Instant::now(), service.store().canary(WINDOW).await.unwrap());
    tokio::time::advance(Duration::from_millis(1)).await;
    service.set_canary_share(1.0, "").await.unwrap();
    service.follow(began, &old);
    assert_eq!(place(&service, "a").await, node(2));
}

#[tokio::test(start_paused = true)]
async fn a_canary_on_which_joins_fail_loses_its_share() {
    let service = with_both_tracks(&[]).await;
    service.set_canary_share(0.5, "version 2").await.unwrap();
    tell(&service, tally(100, 1), tally(60, 40));
    compared().await;
    let state = service.canary.seen();
    let last = state.last.unwrap();
    assert_eq!((last.from, last.to, last.by), (0.5, 0.0, ChangedBy::Rollback));
    let figures = "of 100 joins on canary nodes 40 failed (40.0%), on stable nodes 1 of 101 (1.0%)";
    assert!(last.why.contains(figures), "{}", last.why);
    assert_eq!(place(&service, "a").await, node(1));
    assert_eq!(service.canary.rollbacks(), 1);
    compared().await;
    assert_eq!(
        (service.canary.seen().version, service.canary.rollbacks()),
        (2, 1),
        "once"
    );
}

#[tokio::test(start_paused = true)]
async fn a_canary_on_which_connections_fail_loses_its_share() {
    let service = with_both_tracks(&[]).await;
    service.set_canary_share(0.5, "").await.unwrap();
    let nodes = service.store().nodes().await.unwrap();
    for (beat, stable, canary) in [(1, tally(0, 0), tally(0, 0)), (2, tally(100, 1), tally(60, 40))] {
        for view in &nodes {
            let connections = if view.track == Track::Stable { stable } else { canary };
            let heartbeat = Heartbeat {
                connections,
                ..heartbeat(view.epoch, beat, None)
            };
            service.beat(view.node, &heartbeat).await.unwrap();
        }
    }
    compared().await;
    let last = service.canary.seen().last.unwrap();
    assert_eq!((last.to, last.by), (0.0, ChangedBy::Rollback));
    assert!(
        last.why.starts_with("of 100 connections on canary nodes 40 failed"),
        "{}",
        last.why
    );
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_does_as_stable_nodes_do_keeps_its_share() {
    let service = with_both_tracks(&[]).await;
    service.set_canary_share(0.5, "").await.unwrap();
    tell(&service, tally(90, 10), tally(85, 15));
    compared().await;
    let state = service.canary.seen();
    assert_eq!((state.version, state.last.unwrap().to), (1, 0.5));
    assert_eq!(state.canary.joins, tally(85, 15));
}

#[tokio::test(start_paused = true)]
async fn what_failed_before_the_share_was_set_is_not_held_against_it() {
    let service = with_both_tracks(&["--canary-share", "0"]).await;
    tell(&service, tally(100, 0), tally(0, 100));
    compared().await;
    service.set_canary_share(0.5, "").await.unwrap();
    compared().await;
    assert_eq!(service.canary.seen().last.unwrap().to, 0.5);
}

#[tokio::test(start_paused = true)]
async fn outcomes_that_the_map_did_not_take_are_not_told_twice() {
    let service = with_both_tracks(&[]).await;
    service.set_canary_share(0.5, "").await.unwrap();
    service.store().mute("note_outcomes");
    tell(&service, tally(10, 0), tally(3, 0));
    tokio::time::sleep(LOOK * 2).await;
    service.store().unmute("note_outcomes");
    tokio::time::sleep(LOOK * 4).await;
    assert_eq!(service.canary.seen().canary.joins, tally(3, 0), "it was carried out");
}

/// Asks for a room as somebody who has been in the share before.
fn known(room: &str, user: &str) -> PlaceRoom {
    PlaceRoom {
        user: Some(user.into()),
        canary_user: true,
        ..PlaceRoom::new(room.parse().unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_in_the_share_before_is_in_every_share_but_none() {
    let service = with_both_tracks(&[]).await;
    for (n, (share, expected)) in [(0.0001, 2), (0.0, 1), (0.5, 2)].into_iter().enumerate() {
        service.set_canary_share(share, "").await.unwrap();
        for user in ["ann", "bob", "carl", "dora"] {
            let request = known(&format!("{user} {n}"), user);
            let placed = service.place(&request).await.unwrap().unwrap().node;
            assert_eq!(placed, node(expected), "{share} {user}");
            assert_eq!(service.placer.is_by_canary_share(&request, placed), expected == 2);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_prefers_canary_nodes_counts_whatever_the_share() {
    let service = with_both_tracks(&[]).await;
    for (room, prefer, expected) in [("a", Track::Canary, 2), ("b", Track::Stable, 1)] {
        service
            .set_canary_share(if expected == 2 { 0.0 } else { 1.0 }, "")
            .await
            .unwrap();
        let request = PlaceRoom {
            prefer: Some(prefer),
            ..known(room, "ann")
        };
        let placed = service.place(&request).await.unwrap().unwrap().node;
        assert_eq!(placed, node(expected));
        assert!(!service.placer.is_by_canary_share(&request, placed), "it was the rule");
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_to_a_room_on_the_other_track_was_not_placed_by_the_share() {
    let service = with_both_tracks(&["--canary-share", "0.5"]).await;
    let everybody: Vec<String> = (0..20).map(|n| format!("user-{n}")).collect();
    for user in &everybody {
        let request = PlaceRoom {
            user: Some(user.clone()),
            ..PlaceRoom::new("daily".parse().unwrap())
        };
        let placed = service.place(&request).await.unwrap().unwrap().node;
        let is_in_share = crate::placement::track::is_canary(user, 0.5);
        let by_share = service.placer.is_by_canary_share(&request, placed);
        assert_eq!(by_share, is_in_share && placed == node(2), "{user}");
    }
}
