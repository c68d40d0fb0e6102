//! One layer of several goes to each receiver, as one stream.

use std::time::Duration;

use signalbox_protocol::TrackId;
use signalbox_protocol::control::{Command, Preference, Quality};
use signalbox_protocol::room::Kind;

use crate::sfu::link::Impairment;
use crate::sfu::world::World;

fn call(seed: u64) -> (World, usize, usize, TrackId) {
    let mut world = World::new(seed, Impairment::NONE);
    let ann = world.join("ann", false, &["q", "h", "f"], (0, 0));
    let bob = world.join("bob", false, &[], (1, 1));
    world.run_for(Duration::from_secs(3));
    let track = world
        .slots(bob)
        .iter()
        .find_map(|slot| slot.track.clone())
        .unwrap()
        .track;
    (world, ann, bob, track)
}

fn quality(quality: Quality) -> Preference {
    Preference {
        quality: Some(quality),
        ..Preference::default()
    }
}

#[test]
fn a_layer_switch_keeps_numbers_times_and_picture_ids_continuous() {
    let (mut world, ann, bob, track) = call(1);
    for (wanted, layer) in [(Quality::Low, 0), (Quality::High, 2), (Quality::Medium, 1)] {
        world
            .command(
                bob,
                Command::Prefer {
                    tracks: vec![track.clone()],
                    preference: quality(wanted),
                },
            )
            .unwrap();
        world.run_for(Duration::from_secs(1));
        let last = *world.received(bob, ann, Kind::Video).last().unwrap();
        assert_eq!(last.layer, layer, "{wanted:?}");
    }
    let video = world.received(bob, ann, Kind::Video);
    let switches = video.windows(2).filter(|pair| pair[0].layer != pair[1].layer).count();
    assert!((3..=5).contains(&switches), "one layer at a time: {switches} switches");
    assert!(video[0].begins_key_frame);
    for pair in video.windows(2) {
        assert!(
            pair[0].layer == pair[1].layer || pair[1].begins_key_frame,
            "a layer begins with a key frame: {pair:?}"
        );
        assert_eq!(pair[1].sequence, pair[0].sequence + 1);
        let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        assert!(step < 20_000, "{pair:?}");
        let (before, after) = (pair[0].picture_id.unwrap(), pair[1].picture_id.unwrap());
        assert!(after.wrapping_sub(before) & 0x7fff <= 1, "{pair:?}");
    }
}

#[test]
fn when_a_layer_stops_the_best_of_the_others_is_sent() {
    let (mut world, ann, bob, _) = call(2);
    assert_eq!(world.received(bob, ann, Kind::Video).last().unwrap().layer, 2);
    world.members[ann].client.pause_layer("f", true);
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.received(bob, ann, Kind::Video).last().unwrap().layer, 1);
    world.members[ann].client.pause_layer("f", false);
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.received(bob, ann, Kind::Video).last().unwrap().layer, 2);
}

#[test]
fn a_paused_track_is_not_sent() {
    let (mut world, ann, bob, track) = call(3);
    let preference = Preference {
        enabled: false,
        ..Preference::default()
    };
    world
        .command(
            bob,
            Command::Prefer {
                tracks: vec![track],
                preference,
            },
        )
        .unwrap();
    world.run_for(Duration::from_millis(100));
    let count = world.received(bob, ann, Kind::Video).len();
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.received(bob, ann, Kind::Video).len(), count);
}
