//! Somebody administers a room without being in it.

use std::time::Duration;

use signalbox_protocol::control::{
    CloseReason, Command, Event, ParticipantUpdate, Refusal, RefusalReason, Reply, RoomCommand,
};
use signalbox_protocol::room::{GrantsUpdate, Kind, ParticipantInfo, Source};
use signalbox_protocol::{ParticipantId, TrackId};

use crate::sfu::link::Impairment;
use crate::sfu::world::{World, room};

fn administer(world: &mut World, command: RoomCommand) -> Result<Reply, Refusal> {
    let now = world.now;
    let reply = world.shard.handle_room_command(now, &room(), command);
    world.drain();
    reply
}

fn list(world: &mut World) -> Vec<ParticipantInfo> {
    match administer(world, RoomCommand::List).unwrap() {
        Reply::Room { participants, .. } => participants,
        other => panic!("{other:?}"),
    }
}

fn update(world: &mut World, participant: &str, update: ParticipantUpdate) -> Result<ParticipantInfo, Refusal> {
    let command = RoomCommand::Update {
        participant: participant.into(),
        update: Box::new(update),
    };
    match administer(world, command)? {
        Reply::Participant { participant } => Ok(*participant),
        other => panic!("{other:?}"),
    }
}

fn grants(update: GrantsUpdate) -> ParticipantUpdate {
    ParticipantUpdate {
        grants: Some(update),
        ..ParticipantUpdate::default()
    }
}

fn told(world: &World, member: usize, like: impl Fn(&Event) -> bool) -> bool {
    let id = world.id(member);
    world.events.iter().any(|(to, event)| to.contains(&id) && like(event))
}

/// A publisher and a viewer who sees its picture and hears its sound.
fn call(seed: u64) -> (World, usize, usize) {
    let mut world = World::new(seed, Impairment::NONE);
    let ann = world.join("ann", true, &["f"], (1, 1));
    let bob = world.join("bob", false, &[], (1, 1));
    world.connect();
    world.run_until(Duration::from_secs(5), "bob receives ann", |world| {
        let of = |kind| world.received(bob, ann, kind).len() > 10;
        of(Kind::Audio) && of(Kind::Video)
    });
    (world, ann, bob)
}

fn track(world: &mut World, kind: Kind) -> TrackId {
    let all = list(world);
    let mut tracks = all.iter().flat_map(|participant| &participant.tracks);
    tracks.find(|track| track.kind == kind).unwrap().id.clone()
}

#[test]
fn a_participant_is_found_by_its_id_and_by_its_identity() {
    let mut world = World::new(1, Impairment::NONE);
    let ann = world.join("ann", true, &[], (0, 0));
    let id = world.id(ann);
    for name in [id.as_str(), "ann"] {
        let command = RoomCommand::Find {
            participant: name.into(),
        };
        match administer(&mut world, command).unwrap() {
            Reply::Participant { participant } => assert_eq!((&participant.id, participant.tracks.len()), (&id, 1)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(list(&mut world).len(), 1);
}

#[test]
fn what_is_not_there_is_refused_and_opens_nothing() {
    let mut world = World::new(2, Impairment::NONE);
    assert_eq!(
        administer(&mut world, RoomCommand::List).unwrap_err().reason,
        RefusalReason::NoRoom
    );
    assert_eq!(world.shard.stats().rooms, 0);
    world.join("ann", true, &[], (0, 0));
    for name in ["bob", "", "PA_x", "\n"] {
        let command = RoomCommand::Remove {
            participant: name.into(),
        };
        let refusal = administer(&mut world, command).unwrap_err();
        assert_eq!(refusal.reason, RefusalReason::NoParticipant, "{name:?}");
    }
    let command = RoomCommand::Mute {
        participant: "ann".into(),
        track: TrackId::new("TR_x"),
        muted: true,
    };
    assert_eq!(
        administer(&mut world, command).unwrap_err().reason,
        RefusalReason::NoTrack
    );
}

#[test]
fn new_metadata_of_a_room_is_told_to_everyone_once_and_is_bounded() {
    let mut world = World::new(9, Impairment::NONE);
    let members = ["ann", "bob"].map(|identity| world.join(identity, true, &[], (0, 0)));
    let set = |world: &mut World, metadata: &str| {
        world.events.clear();
        let command = RoomCommand::SetMetadata {
            metadata: metadata.into(),
        };
        match administer(world, command)? {
            Reply::Room { room, .. } => Ok(room.metadata),
            other => panic!("{other:?}"),
        }
    };
    let told_of = |world: &World, member, expected: &str| {
        told(
            world,
            member,
            |event| matches!(event, Event::RoomUpdated { room } if room.metadata == expected),
        )
    };
    let longest = "x".repeat(64 * 1024);
    for metadata in ["topic", &longest, ""] {
        assert_eq!(set(&mut world, metadata).unwrap(), metadata);
        assert!(members.iter().all(|member| told_of(&world, *member, metadata)));
    }
    set(&mut world, "topic").unwrap();
    assert_eq!(set(&mut world, "topic").unwrap(), "topic");
    assert!(
        !members.iter().any(|member| told_of(&world, *member, "topic")),
        "nothing is new"
    );
    let refusal: Refusal = set(&mut world, &format!("{longest}x")).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::Invalid);
    match administer(&mut world, RoomCommand::List).unwrap() {
        Reply::Room { room, .. } => assert_eq!(room.metadata, "topic"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_is_removed_is_told_why_and_the_others_that_it_left() {
    let (mut world, ann, bob) = call(3);
    let command = RoomCommand::Remove {
        participant: "ann".into(),
    };
    assert_eq!(administer(&mut world, command).unwrap(), Reply::Done);
    let reason = CloseReason::Removed;
    assert!(told(&world, ann, |event| *event == Event::Closed { reason }));
    assert!(told(&world, bob, |event| matches!(
        event,
        Event::ParticipantLeft { .. }
    )));
    assert_eq!(list(&mut world).len(), 1);
}

#[test]
fn a_muted_track_is_not_forwarded_and_its_publisher_knows_that_another_did_it() {
    let (mut world, ann, bob) = call(4);
    let video = track(&mut world, Kind::Video);
    let mute = |muted| RoomCommand::Mute {
        participant: "ann".into(),
        track: video.clone(),
        muted,
    };
    administer(&mut world, mute(true)).unwrap();
    let remotely = |event: &Event| matches!(event, Event::MutedRemotely { track } if *track == video);
    assert!(told(&world, ann, remotely) && !told(&world, bob, remotely));
    assert!(told(&world, bob, |event| matches!(
        event,
        Event::TrackMuted { muted: true, .. }
    )));
    // What was on the way when it was muted.
    world.run_for(Duration::from_millis(200));
    let before = world.received(bob, ann, Kind::Video).len();
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.received(bob, ann, Kind::Video).len(), before);
    // One's own muting is no news to oneself.
    let events = world.events.len();
    world
        .command(
            ann,
            Command::Mute {
                track: video.clone(),
                muted: false,
            },
        )
        .unwrap();
    world
        .command(
            ann,
            Command::Mute {
                track: video.clone(),
                muted: true,
            },
        )
        .unwrap();
    assert!(!world.events[events..].iter().any(|(_, event)| remotely(event)));
}

#[test]
fn who_may_not_publish_any_more_is_not_heard_and_can_come_back() {
    let (mut world, ann, bob) = call(5);
    let only_camera = GrantsUpdate {
        sources: Some(vec![Source::Camera]),
        ..GrantsUpdate::default()
    };
    let info = update(&mut world, "ann", grants(only_camera)).unwrap();
    assert_eq!(info.tracks.len(), 1, "the microphone's track ended");
    assert!(told(&world, bob, |event| matches!(
        event,
        Event::TrackUnpublished { .. }
    )));
    let none = GrantsUpdate {
        publish: Some(false),
        ..GrantsUpdate::default()
    };
    let info = update(&mut world, "ann", grants(none)).unwrap();
    assert!(info.tracks.is_empty() && !info.grants.publish);
    assert!(told(
        &world,
        bob,
        |event| matches!(event, Event::ParticipantUpdated { participant }
        if participant.identity.as_str() == "ann" && !participant.grants.publish)
    ));
    world.run_for(Duration::from_millis(200));
    let forwarded = world.shard.stats().forwarded;
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.shard.stats().forwarded, forwarded);
    let slots = world.slots(bob);
    assert!(slots.iter().all(|slot| slot.track.is_none()), "{slots:?}");
    // The client offers anew, and what it sends is published again.
    let all = GrantsUpdate {
        publish: Some(true),
        sources: Some(Vec::new()),
        ..GrantsUpdate::default()
    };
    update(&mut world, "ann", grants(all)).unwrap();
    let sdp = world.members[ann].client.offer(false, &[], (1, 0));
    let Reply::Answer { sdp } = world.command(ann, Command::Offer { sdp }).unwrap() else {
        panic!("no answer");
    };
    world.members[ann].client.answer(&sdp);
    world.run_until(Duration::from_secs(5), "bob receives again", |world| {
        world.shard.stats().forwarded > forwarded + 20
    });
    assert!(world.slots(bob).iter().all(|slot| slot.track.is_some()));
}

#[test]
fn who_may_not_subscribe_any_more_receives_nothing_until_it_may_again() {
    let (mut world, ann, bob) = call(6);
    let subscribe = |subscribe| {
        grants(GrantsUpdate {
            subscribe: Some(subscribe),
            ..GrantsUpdate::default()
        })
    };
    update(&mut world, "bob", subscribe(false)).unwrap();
    world.run_for(Duration::from_millis(200));
    let forwarded = world.shard.stats().forwarded;
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.shard.stats().forwarded, forwarded);
    update(&mut world, "bob", subscribe(true)).unwrap();
    let before = world.received(bob, ann, Kind::Audio).len();
    world.run_until(Duration::from_secs(5), "bob receives again", |world| {
        world.received(bob, ann, Kind::Audio).len() > before + 10
    });
}

#[test]
fn who_is_hidden_leaves_and_joins_for_the_others() {
    let (mut world, ann, bob) = call(7);
    let hidden = |hidden| {
        grants(GrantsUpdate {
            hidden: Some(hidden),
            ..GrantsUpdate::default()
        })
    };
    let events = world.events.len();
    update(&mut world, "ann", hidden(true)).unwrap();
    let left = |event: &Event| matches!(event, Event::ParticipantLeft { .. });
    assert!(told(&world, bob, left) && !told(&world, ann, left));
    let bobs: ParticipantId = world.id(bob);
    let updated = |(to, event): &(Vec<ParticipantId>, Event)| {
        to.contains(&bobs) && matches!(event, Event::ParticipantUpdated { .. })
    };
    assert!(
        !world.events[events..].iter().any(updated),
        "bob was told of who is hidden"
    );
    update(&mut world, "ann", hidden(false)).unwrap();
    let joined = |event: &Event| {
        matches!(event, Event::ParticipantJoined { participant }
            if participant.identity.as_str() == "ann" && participant.tracks.len() == 2)
    };
    assert!(told(&world, bob, joined) && !told(&world, ann, joined));
}

#[test]
fn an_update_that_asks_for_too_much_changes_nothing() {
    let mut world = World::new(8, Impairment::NONE);
    world.join("ann", true, &[], (0, 0));
    let named = |name: &str| ParticipantUpdate {
        name: Some(name.into()),
        ..ParticipantUpdate::default()
    };
    update(&mut world, "ann", named("Ann")).unwrap();
    let attributes = |count: usize| (0..count).map(|key| (key.to_string(), "x".to_owned())).collect();
    for too_much in [
        named(&"x".repeat(257)),
        ParticipantUpdate {
            metadata: Some("x".repeat(64 * 1024 + 1)),
            ..named("Bob")
        },
        ParticipantUpdate {
            attributes: attributes(65),
            ..named("Bob")
        },
    ] {
        let refusal = update(&mut world, "ann", too_much).unwrap_err();
        assert_eq!(refusal.reason, RefusalReason::Invalid);
    }
    let all = list(&mut world);
    assert_eq!((all[0].name.as_str(), all[0].attributes.len()), ("Ann", 0));
    let some = ParticipantUpdate {
        attributes: attributes(64),
        ..ParticipantUpdate::default()
    };
    assert_eq!(update(&mut world, "ann", some).unwrap().attributes.len(), 64);
}
