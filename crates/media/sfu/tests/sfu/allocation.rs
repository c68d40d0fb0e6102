//! What subscribers want decides what publishers are asked for, and what the network takes decides what subscribers get.

use std::time::Duration;

use signalbox_protocol::control::{Command, Event, Join, ParticipantLimits, Preference, Quality, SubscriptionFault};
use signalbox_protocol::room::Kind;
use signalbox_protocol::{ParticipantId, TrackId};

use Quality::{High, Low, Medium};

use crate::sfu::link::Impairment;
use crate::sfu::one_offer::only_h264;
use crate::sfu::world::World;

const SECOND: Duration = Duration::from_secs(1);

/// Ann publishes three layers, and the others watch.
fn call(seed: u64, viewers: usize) -> (World, TrackId) {
    let mut world = World::new(seed, Impairment::NONE);
    world.join("ann", false, &["q", "h", "f"], (0, 0));
    for index in 1..=viewers {
        world.join(&format!("viewer-{index}"), false, &[], (0, 1));
    }
    world.connect();
    world.run_for(2 * SECOND);
    let track = world.slots(1)[0].track.clone().unwrap().track;
    (world, track)
}

fn quality(quality: Quality) -> Preference {
    Preference {
        quality: Some(quality),
        ..Preference::default()
    }
}

fn hidden() -> Preference {
    Preference {
        enabled: false,
        ..Preference::default()
    }
}

fn prefer(world: &mut World, viewer: usize, track: &TrackId, preference: Preference) {
    let tracks = vec![track.clone()];
    world.command(viewer, Command::Prefer { tracks, preference }).unwrap();
}

/// What ann was told, each time.
fn asked(world: &World) -> Vec<Vec<Quality>> {
    let ann = world.id(0);
    let asked = world.events.iter().filter_map(|(to, event)| match event {
        Event::EncodingsWanted { codecs, .. } => {
            assert_eq!(to, std::slice::from_ref(&ann), "nobody else is told");
            assert_eq!(codecs.len(), 1);
            Some(codecs[0].layers.clone())
        }
        _ => None,
    });
    asked.collect()
}

fn layer(world: &World, viewer: usize) -> u8 {
    world.received(viewer, 0, Kind::Video).last().unwrap().layer
}

#[test]
fn a_publisher_is_asked_for_what_somebody_watches_and_no_more() {
    let (mut world, track) = call(1, 3);
    prefer(&mut world, 1, &track, quality(Low));
    prefer(&mut world, 2, &track, hidden());
    prefer(&mut world, 3, &track, quality(Medium));
    world.run_for(4 * SECOND);
    assert!(asked(&world).is_empty(), "not at once");
    world.run_for(2 * SECOND);
    assert_eq!(asked(&world), [[Low, Medium]]);
    prefer(&mut world, 3, &track, hidden());
    world.run_for(6 * SECOND);
    prefer(&mut world, 1, &track, hidden());
    world.run_for(6 * SECOND);
    assert_eq!(asked(&world), [vec![Low, Medium], vec![Low], vec![]]);
}

#[test]
fn a_layer_between_two_that_are_watched_is_not_asked_for() {
    let (mut world, track) = call(8, 3);
    prefer(&mut world, 1, &track, quality(Low));
    prefer(&mut world, 3, &track, hidden());
    world.run_for(7 * SECOND);
    assert_eq!(asked(&world), [[Low, High]]);
    world.members[0].client.pause_layer("h", true);
    world.run_for(5 * SECOND);
    assert_eq!([layer(&world, 1), layer(&world, 2)], [0, 2]);
    // Whoever watches it gets it, and until then the one below.
    prefer(&mut world, 3, &track, quality(Medium));
    assert_eq!(asked(&world), [vec![Low, High], vec![Low, Medium, High]]);
    world.members[0].client.pause_layer("h", false);
    world.run_for(2 * SECOND);
    assert_eq!([layer(&world, 1), layer(&world, 2), layer(&world, 3)], [0, 2, 1]);
    prefer(&mut world, 1, &track, hidden());
    prefer(&mut world, 3, &track, hidden());
    world.run_for(7 * SECOND);
    assert_eq!(asked(&world).last(), Some(&vec![High]));
}

#[test]
fn what_is_shown_again_is_asked_for_at_once_and_begins_with_a_key_frame() {
    let (mut world, track) = call(2, 1);
    prefer(&mut world, 1, &track, hidden());
    world.run_for(6 * SECOND);
    assert_eq!(asked(&world).last(), Some(&vec![]));
    for rid in ["q", "h", "f"] {
        world.members[0].client.pause_layer(rid, true);
    }
    world.run_for(3 * SECOND);
    let before = world.received(1, 0, Kind::Video).len();
    prefer(&mut world, 1, &track, Preference::default());
    assert!(asked(&world).last().unwrap().contains(&High), "at once");
    for rid in ["q", "h", "f"] {
        world.members[0].client.pause_layer(rid, false);
    }
    world.run_for(SECOND);
    let video = &world.received(1, 0, Kind::Video)[before..];
    assert!(video[0].begins_key_frame);
    assert_eq!(video.last().unwrap().layer, 2);
}

#[test]
fn a_layer_that_is_turned_off_because_nobody_watches_it_comes_back_when_somebody_does() {
    let (mut world, track) = call(3, 1);
    prefer(&mut world, 1, &track, quality(Low));
    world.run_for(6 * SECOND);
    assert_eq!(asked(&world).last(), Some(&vec![Low]));
    world.members[0].client.pause_layer("h", true);
    world.members[0].client.pause_layer("f", true);
    world.run_for(10 * SECOND);
    assert_eq!(layer(&world, 1), 0);
    prefer(&mut world, 1, &track, quality(High));
    assert_eq!(asked(&world).last(), Some(&vec![Low, High]));
    world.members[0].client.pause_layer("h", false);
    world.members[0].client.pause_layer("f", false);
    world.run_for(SECOND);
    assert_eq!(layer(&world, 1), 2);
}

#[test]
fn who_leaves_or_unsubscribes_watches_nothing() {
    let (mut world, track) = call(4, 2);
    let tracks = vec![track];
    let unsubscribe = Command::Subscribe {
        tracks,
        subscribed: false,
    };
    world.command(1, unsubscribe).unwrap();
    world.command(2, Command::Leave).unwrap();
    world.run_for(6 * SECOND);
    assert_eq!(asked(&world).last(), Some(&vec![]));
    world.join("late", false, &[], (0, 1));
    assert_eq!(asked(&world).last(), Some(&vec![High]));
}

#[test]
fn a_publisher_that_attaches_again_is_told_again() {
    let (mut world, track) = call(5, 1);
    prefer(&mut world, 1, &track, quality(Low));
    world.run_for(6 * SECOND);
    world.events.clear();
    world.command(0, Command::Attach).unwrap();
    assert_eq!(asked(&world), [[Low]]);
}

#[test]
fn nobody_gets_more_than_its_token_allows() {
    let mut world = World::new(6, Impairment::NONE);
    world.join("ann", false, &["q", "h", "f"], (0, 0));
    let mut client = world.new_client();
    let limits = ParticipantLimits {
        receive_quality: Some(Medium),
        ..ParticipantLimits::default()
    };
    let join = Join {
        offer: Some(client.offer(false, &[], (0, 1))),
        limits,
        ..World::request("bob")
    };
    let joined = world.admit(join).unwrap();
    client.answer(joined.answer.as_deref().unwrap());
    let bob = world.add("bob", client, joined);
    world.connect();
    world.run_for(3 * SECOND);
    let track = world.slots(bob)[0].track.clone().unwrap().track;
    prefer(&mut world, bob, &track, quality(High));
    world.run_for(3 * SECOND);
    let video = world.received(bob, 0, Kind::Video);
    assert_eq!(video.iter().map(|packet| packet.layer).max(), Some(1));
}

/// Whom was told that a track is in no codec that it can take.
fn undecodable(world: &World) -> Vec<ParticipantId> {
    let told = world.events.iter().filter_map(|(to, event)| match event {
        Event::SubscriptionFailed { reason, .. } => {
            assert_eq!(*reason, SubscriptionFault::Codec);
            Some(to.clone())
        }
        _ => None,
    });
    told.flatten().collect()
}

#[test]
fn who_can_decode_none_of_a_tracks_codecs_is_told_once() {
    let (mut world, _) = call(7, 1);
    let mut client = only_h264(&world);
    let offer = client.offer(false, &[], (0, 1));
    let joined = world.try_join("bob", Some(offer)).unwrap();
    client.answer(joined.answer.as_deref().unwrap());
    let bob = world.add("bob", client, joined);
    assert_eq!(undecodable(&world), [world.id(bob)]);
    world.join("carl", false, &["f"], (0, 1));
    world.join("dora", true, &[], (0, 0));
    world.run_for(2 * SECOND);
    let both = [world.id(bob), world.id(bob)];
    assert_eq!(undecodable(&world), both, "ann's track and carl's, once each");
    world.events.clear();
    world.command(bob, Command::Attach).unwrap();
    assert_eq!(undecodable(&world), both, "whatever was said before may have been lost");
}
