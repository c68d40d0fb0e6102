//! Who is expected of a room that was lost with its node, and what is refused.

use std::time::Duration;

use signalbox_protocol::control::{
    Command, Event, Join, Preference, RefusalReason, Reply, Resume, RoomCommand, Transports, Wanted,
};
use signalbox_protocol::room::Kind;
use signalbox_protocol::srtp::{SrtpRequest, SrtpResume};
use signalbox_protocol::{ParticipantId, TrackId};
use signalbox_sfu::Limits;

use crate::sfu::dual;
use crate::sfu::link::Impairment;
use crate::sfu::moves::{Known, expect, kept, lose_node, news, resume, two};
use crate::sfu::srtp::everything;
use crate::sfu::world::{World, publication, room};

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// Who was told that somebody joined or left, by identity.
fn comings(world: &World) -> Vec<(bool, String)> {
    let told = news(world).into_iter().filter_map(|event| match event {
        Event::ParticipantJoined { participant } => Some((true, participant.identity.to_string())),
        Event::ParticipantLeft { participant } => Some((false, participant.identity.to_string())),
        _ => None,
    });
    told.collect()
}

#[test]
fn who_is_not_taken_up_in_time_leaves_and_who_is_stays_though_no_media_has_come() {
    let (mut world, _, known, [ann, _]) = two(411);
    known.expect(&mut world).unwrap();
    world.admit(ann).unwrap();
    world.run_for(Limits::default().departure - SECONDS(1));
    assert_eq!(comings(&world), []);
    let find = RoomCommand::Find {
        participant: "bob".into(),
    };
    let now = world.now;
    assert!(world.shard.handle_room_command(now, &room(), find).is_ok());
    world.run_for(SECONDS(5));
    assert_eq!(comings(&world), [(false, "bob".to_owned())]);
    assert_eq!(world.shard.stats().participants, 1);
    // A gateway that comes late brings nobody back.
    known.expect(&mut world).unwrap();
    assert_eq!(world.shard.stats().participants, 1);
}

#[test]
fn a_fresh_join_takes_the_place_of_who_is_expected() {
    let (mut world, [_, bob], known, [ann, of_bob]) = two(412);
    known.expect(&mut world).unwrap();
    world.admit(ann).unwrap();
    let joined = world.admit(dual::request("bob")).unwrap();
    assert_ne!(joined.snapshot.participant.id, world.id(bob.publisher));
    let mut told = comings(&world);
    told.sort();
    assert_eq!(told, [(false, "bob".to_owned()), (true, "bob".to_owned())]);
    let refusal = world.admit(of_bob).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::NoParticipant, "he has joined anew");
    assert_eq!(world.shard.stats().participants, 2);
}

#[test]
fn expecting_and_taking_up_again_does_no_harm_even_when_there_is_no_more_room() {
    let (mut world, [ann, bob], known, joins) = two(413);
    let limits = Limits {
        participants: 2,
        ..Limits::default()
    };
    lose_node(&mut world, limits);
    let mut offers = Vec::new();
    for _ in 0..3 {
        known.expect(&mut world).unwrap();
        for join in joins.clone() {
            world.admit(join).unwrap();
        }
        offers.push([ann, bob].map(|dual| dual::last_offer(&world, &world.id(dual.publisher)).unwrap()));
    }
    assert_eq!(news(&world), Vec::<&Event>::new());
    assert!(
        offers.iter().all(|again| *again == offers[0]),
        "the same offer once more"
    );
    let refusal = world.admit(dual::request("cleo")).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::Full);
}

#[test]
fn of_what_two_gateways_know_the_newer_counts() {
    let (mut world, [_, bob], mut known, [ann, of_bob]) = two(414);
    let (mut outdated, bob) = (known.participants.clone(), world.id(bob.publisher));
    outdated.retain(|one| one.id == bob);
    outdated[0].name = "before".into();
    outdated[0].version -= 1;
    expect(&mut world, known.room.clone(), outdated).unwrap();
    for one in known.participants.iter_mut().filter(|one| one.id == bob) {
        one.name = "after".into();
    }
    known.expect(&mut world).unwrap();
    world.admit(ann).unwrap();
    let shown = Known::of(&mut world).participants;
    assert_eq!(shown.iter().find(|one| one.id == bob).unwrap().name, "after");
    // His own gateway knows less than the others.
    let mut of_bob = of_bob;
    kept(&mut of_bob).participant.name = "before".into();
    kept(&mut of_bob).participant.version -= 2;
    let joined = world.admit(of_bob).unwrap();
    assert_eq!(joined.snapshot.participant.name, "after");
    assert_eq!(news(&world), Vec::<&Event>::new());
}

#[test]
fn what_cannot_be_taken_up_is_refused_with_a_sentence_and_changes_nothing() {
    let (mut world, [ann, bob], known, [of_ann, of_bob]) = two(415);
    known.expect(&mut world).unwrap();
    world.admit(of_ann.clone()).unwrap();
    let before = (
        Known::of(&mut world).participants,
        world.shard.stats(),
        world.events.len(),
    );
    let camera = kept(&mut of_ann.clone()).participant.tracks[0].id.clone();
    let changed = |change: &dyn Fn(&mut Join)| {
        let mut join = of_bob.clone();
        change(&mut join);
        join
    };
    let cases = [
        changed(&|join| kept(join).kept.subscriber.as_mut().unwrap().answer = "hello".into()),
        changed(&|join| kept(join).kept.subscriber.as_mut().unwrap().answer.clear()),
        changed(&|join| kept(join).kept.subscriber.as_mut().unwrap().offer.clear()),
        changed(&|join| {
            let answer = &mut kept(join).kept.subscriber.as_mut().unwrap().answer;
            *answer = answer.replace("a=ice-ufrag", "a=x");
        }),
        changed(&|join| kept(join).participant.id = ParticipantId::new("")),
        changed(&|join| kept(join).participant.id = ParticipantId::new("P".repeat(65))),
        changed(&|join| kept(join).participant.identity = "cleo".parse().unwrap()),
        changed(&|join| kept(join).participant.tracks[0].id = camera.clone()),
        changed(&|join| {
            let track = kept(join).participant.tracks[0].clone();
            let tracks = (0..17).map(|index| {
                let mut track = track.clone();
                track.id = TrackId::new(format!("TR_{index}"));
                track
            });
            kept(join).participant.tracks = tracks.collect();
        }),
        changed(&|join| kept(join).participant.metadata = "m".repeat(64 * 1024 + 1)),
        changed(&|join| kept(join).kept.channels[0].id = u16::MAX),
        changed(&|join| {
            let channels = &mut kept(join).kept.channels;
            *channels = (0..17).map(|_| channels[0].clone()).collect();
        }),
        changed(&|join| {
            let said = kept(join).kept.tracks[0].clone();
            kept(join).kept.tracks = vec![said; 97];
        }),
        changed(&|join| {
            let wanted = Wanted {
                track: TrackId::new("TR_x"),
                subscribed: None,
                preference: Preference::default(),
            };
            kept(join).kept.wants = vec![wanted; 4_097];
        }),
        changed(&|join| {
            let agreed = kept(join).kept.subscriber.as_mut().unwrap();
            agreed.answer.push_str(&"m=audio 0 X 111\r\n".repeat(8_193));
        }),
    ];
    for (index, join) in cases.into_iter().enumerate() {
        let refusal = world.admit(join).expect_err(&index.to_string());
        assert!(refusal.detail.ends_with('.'), "{index}: {refusal:?}");
    }
    let mut twice = known.participants.clone();
    twice.push(twice[0].clone());
    let mut long = known.room.clone();
    long.metadata = "m".repeat(64 * 1024 + 1);
    for (room, participants) in [(known.room.clone(), twice), (long, Vec::new())] {
        assert!(
            expect(&mut world, room, participants)
                .unwrap_err()
                .detail
                .ends_with('.')
        );
    }
    let after = (
        Known::of(&mut world).participants,
        world.shard.stats(),
        world.events.len(),
    );
    assert_eq!(after, before);
    // It can still be taken up.
    world.admit(of_bob).unwrap();
    let ids = [ann, bob].map(|dual| world.id(dual.publisher));
    assert!(
        Known::of(&mut world)
            .participants
            .iter()
            .all(|one| ids.contains(&one.id))
    );
}

#[test]
fn slots_go_on_carrying_what_they_did() {
    let mut world = World::new(416, Impairment::NONE);
    let ann = world.join("ann", true, &["f"], (0, 0));
    let cleo = world.join("cleo", true, &["f"], (0, 0));
    let bob = world.join("bob", false, &[], (3, 3));
    world.connect();
    world.run_for(SECONDS(1));
    let known = Known::of(&mut world);
    let mut joins = [cleo, ann, bob].map(|member| resume(&mut world, member));
    let slots = kept(&mut joins[2]).slots.clone();
    assert_eq!(slots.iter().filter(|slot| slot.track.is_some()).count(), 4);
    // Not the order in which they would be filled.
    let mut swapped = slots.clone();
    let videos: Vec<usize> = (0..slots.len())
        .filter(|index| slots[*index].kind == Kind::Video && slots[*index].track.is_some())
        .collect();
    (swapped[videos[0]].track, swapped[videos[1]].track) =
        (slots[videos[1]].track.clone(), slots[videos[0]].track.clone());
    kept(&mut joins[2]).slots = swapped.clone();
    lose_node(&mut world, Limits::default());
    known.expect(&mut world).unwrap();
    for join in joins {
        world.admit(join).unwrap();
    }
    let offer = world.members[bob].client.restart_ice();
    dual::offer_on(&mut world, bob, offer);
    let Ok(Reply::Snapshot(snapshot)) = world.command(bob, Command::Attach) else {
        panic!();
    };
    let mut after = snapshot.slots;
    after.sort_by(|one, other| one.mid.cmp(&other.mid));
    swapped.sort_by(|one, other| one.mid.cmp(&other.mid));
    assert_eq!(after, swapped);
    assert_eq!(news(&world), Vec::<&Event>::new());
}

#[test]
fn a_client_without_a_connection_goes_on_under_its_id_with_its_streams() {
    let mut world = World::new(417, Impairment::NONE);
    let camera = world.join_srtp("camera", &["video/VP8"], everything());
    let id = world.srtp[camera].id();
    world.run_for(SECONDS(1));
    let known = Known::of(&mut world);
    let Ok(Reply::Snapshot(snapshot)) = world.command_srtp(camera, Command::Attach) else {
        panic!();
    };
    let published = &snapshot.srtp.as_ref().unwrap().publish[0];
    let streams = SrtpRequest {
        resume: vec![SrtpResume {
            ssrc: published.ssrc,
            payload_type: published.payload_type,
            key: published.key.clone(),
            track: published.track.clone().unwrap(),
        }],
        ..everything()
    };
    lose_node(&mut world, Limits::default());
    known.expect(&mut world).unwrap();
    let bob = world.join("bob", false, &[], (1, 1));
    let before = world.events.len();
    let joined = world
        .admit(Join {
            transports: Transports::Srtp,
            publish: vec![publication(0, "video/VP8")],
            srtp: Some(streams),
            resume: Some(Box::new(Resume {
                participant: snapshot.participant.clone(),
                kept: *snapshot.resumption.unwrap(),
                slots: snapshot.slots,
                tunnels: Vec::new(),
            })),
            ..World::request("camera")
        })
        .unwrap();
    assert_eq!(joined.snapshot.participant.id, id);
    assert_eq!(
        joined.snapshot.participant.tracks[0].id,
        snapshot.participant.tracks[0].id
    );
    assert_eq!(joined.srtp.as_ref().unwrap().publish[0].ssrc, published.ssrc);
    let told = world.events[before..].iter().map(|(_, event)| event);
    let told: Vec<_> = told
        .filter(|event| matches!(event, Event::TrackPublished { .. } | Event::TrackUnpublished { .. }))
        .collect();
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(comings(&world), []);
    let again = world.add_srtp("camera", joined);
    assert_eq!(world.srtp[again].id(), id);
    world.run_until(SECONDS(5), "Bob sees the camera", |world| {
        world.received_of(bob, id.clone(), Kind::Video).len() > 50
    });
}
