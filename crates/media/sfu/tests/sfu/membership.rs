//! Who is in a room, who is told, and when it ends.

use std::time::Duration;

use signalbox_protocol::control::{CloseReason, Command, Event, RefusalReason};
use signalbox_sfu::Limits;

use crate::sfu::link::Impairment;
use crate::sfu::world::{World, room};

#[test]
fn the_same_identity_replaces_the_first() {
    let mut world = World::new(1, Impairment::NONE);
    let first = world.join("ann", true, &[], (0, 0));
    let first_id = world.id(first);
    let second = world.join("ann", true, &[], (0, 0));
    assert!(world.events.contains(&(
        vec![first_id],
        Event::Closed {
            reason: CloseReason::DuplicateIdentity
        }
    )));
    assert!(world.members[second].joined.snapshot.others.is_empty());
    assert_eq!(world.shard.stats().participants, 1);
}

#[test]
fn whose_nomination_is_lost_is_connected_as_if_it_had_come() {
    let mut world = World::new(9, Impairment::NONE);
    let ann = world.join("ann", true, &[], (0, 0));
    world.members[ann].loses_nominations = true;
    let all = Duration::from_millis(1_500);
    world.run_until(all, "Ann is connected", |world| world.members[ann].client.is_connected);
}

#[test]
fn nothing_is_remembered_of_those_who_have_left() {
    let mut world = World::new(12, Impairment::NONE);
    for _ in 0..3 {
        let members = ["ann", "bob"].map(|name| world.join(name, true, &["f"], (1, 1)));
        world.run_for(Duration::from_secs(2));
        assert!(world.shard.stats().connections >= 2 * 3);
        for member in members {
            let (now, id) = (world.now, world.id(member));
            let identity = world.members[member].identity.parse().unwrap();
            let left = world.shard.handle_command(now, &room(), &id, &identity, Command::Leave);
            left.unwrap();
            world.members[member].is_gone = true;
        }
        world.run_for(Duration::from_secs(1));
        assert_eq!(world.shard.stats().connections, 0);
    }
}

#[test]
fn an_offer_that_cannot_be_used_changes_nothing() {
    let mut world = World::new(2, Impairment::NONE);
    world.join("ann", true, &[], (0, 0));
    let events = world.events.len();
    for offer in [
        "",
        "hello",
        "v=0\r\n",
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n",
    ] {
        let refusal = world.try_join("ann", Some(offer.to_owned())).unwrap_err();
        assert_eq!(refusal.reason, RefusalReason::Sdp, "{offer}");
        assert!(!refusal.detail.is_empty());
    }
    assert_eq!(world.events.len(), events, "nobody was told");
    assert_eq!(world.shard.stats().participants, 1, "the first ann is still there");
}

#[test]
fn another_identity_cannot_speak_for_a_participant() {
    let mut world = World::new(3, Impairment::NONE);
    let ann = world.join("ann", true, &[], (0, 0));
    let (now, id) = (world.now, world.id(ann));
    let mallory = "mallory".parse().unwrap();
    let refusal = world
        .shard
        .handle_command(now, &room(), &id, &mallory, Command::Leave)
        .unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::NoParticipant);
    assert_eq!(world.shard.stats().participants, 1);
}

#[test]
fn who_vanishes_is_removed_and_an_empty_room_is_reported() {
    let mut world = World::new(4, Impairment::NONE);
    let ann = world.join("ann", true, &[], (0, 0));
    world.run_for(Duration::from_secs(2));
    world.members[ann].is_gone = true;
    world.command(ann, Command::Detach).unwrap();
    let limits = Limits::default();
    world.run_for(limits.departure);
    assert_eq!(
        world.shard.stats().participants,
        1,
        "media was heard until a moment ago"
    );
    world.run_for(Duration::from_secs(6));
    assert_eq!(world.shard.stats().participants, 0);
    assert!(world.empty_rooms.is_empty());
    world.run_for(limits.empty_room + Duration::from_secs(1));
    assert_eq!(world.empty_rooms, [room()]);
    let now = world.now;
    world.shard.close_room(now, &room(), CloseReason::RoomClosed);
    assert_eq!(world.shard.stats().rooms, 0);
}

#[test]
fn media_without_signaling_keeps_a_participant() {
    let mut world = World::new(5, Impairment::NONE);
    let ann = world.join("ann", true, &[], (0, 0));
    world.command(ann, Command::Detach).unwrap();
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.shard.stats().participants, 1);
}

#[test]
fn attaching_again_tells_everything() {
    let mut world = World::new(6, Impairment::NONE);
    let ann = world.join("ann", true, &["f"], (2, 2));
    world.command(ann, Command::Detach).unwrap();
    world.join("bob", true, &["f"], (0, 0));
    let carl = world.join("carl", true, &[], (0, 0));
    world.command(carl, Command::Leave).unwrap();
    let events = world.events.len();
    let reply = world.command(ann, Command::Attach).unwrap();
    let signalbox_protocol::control::Reply::Snapshot(snapshot) = reply else {
        panic!("{reply:?}");
    };
    assert_eq!(snapshot.others.len(), 1);
    assert_eq!(snapshot.departed.len(), 1, "who left meanwhile");
    assert_eq!(snapshot.departed[0].identity.as_str(), "carl");
    assert_eq!(snapshot.others[0].tracks.len(), 2);
    assert_eq!(snapshot.slots.iter().filter(|slot| slot.track.is_some()).count(), 2);
    let ann_id = world.id(ann);
    assert!(
        !world.events[..events]
            .iter()
            .any(|(to, _)| to.contains(&ann_id) && world.events.len() > events),
        "nothing was sent while nobody listened"
    );
}
