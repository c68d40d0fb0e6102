//! Big rooms: who is heard.

use std::time::Duration;

use signalbox_protocol::control::{Command, Event};
use signalbox_protocol::room::{Kind, Speaker};
use signalbox_sfu::Limits;

use crate::sfu::link::Impairment;
use crate::sfu::world::World;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// A room with two places, three who can speak, and one who listens: the last member.
fn room(seed: u64) -> (World, usize) {
    let limits = Limits {
        loudest_audio: 2,
        ..Limits::default()
    };
    let mut world = World::with_limits(seed, Impairment::NONE, limits);
    for name in ["ann", "bob", "cleo"] {
        let member = world.join(name, true, &[], (0, 0));
        world.members[member].client.audio_level = Some(-80);
    }
    let listener = world.join("dora", false, &[], (3, 0));
    world.connect();
    (world, listener)
}

fn heard(world: &mut World, listener: usize, time: Duration) -> Vec<usize> {
    let count = |world: &World| [0, 1, 2].map(|of| world.received(listener, of, Kind::Audio).len());
    let before = count(world);
    world.run_for(time);
    let after = count(world);
    before.iter().zip(after).map(|(before, after)| after - before).collect()
}

#[test]
fn of_three_microphones_the_two_loudest_are_forwarded_and_hand_over_without_a_gap() {
    let (mut world, listener) = room(61);
    world.members[0].client.audio_level = Some(-20);
    let first = heard(&mut world, listener, SECONDS(4));
    assert_eq!(first.iter().filter(|count| **count == 0).count(), 1, "{first:?}");
    let silent = first.iter().position(|count| *count == 0).unwrap();
    world.members[silent].client.audio_level = Some(-20);
    let second = heard(&mut world, listener, SECONDS(2));
    assert!(second[silent] > 90, "who speaks is heard at once: {second:?}");
    assert!(second[0] > 90, "and who has spoken all the time still is");
    // Back and forth: every stream stays one stream.
    for member in 0..3 {
        world.members[member].client.audio_level = Some(-80);
    }
    world.run_for(SECONDS(3));
    for _ in 0..3 {
        for speaker in [1, 2] {
            for member in 0..3 {
                world.members[member].client.audio_level = Some(if member == speaker { -20 } else { -80 });
            }
            let counts = heard(&mut world, listener, SECONDS(4));
            assert!(counts[speaker] > 190, "{speaker}: {counts:?}");
        }
    }
    for of in 0..3 {
        let packets = world.received(listener, of, Kind::Audio);
        assert!(
            packets.windows(2).all(|pair| pair[1].sequence == pair[0].sequence + 1),
            "no gaps to be asked for"
        );
        let forward = |pair: &[crate::sfu::client::Received]| pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        assert!(packets.windows(2).all(|pair| (1..48_000 * 30).contains(&forward(pair))));
    }
}

#[test]
fn one_who_unmutes_in_a_full_room_is_heard_when_it_speaks() {
    let (mut world, listener) = room(62);
    world.run_for(SECONDS(3));
    let speaker = 2;
    let id = world.id(speaker);
    let slots = world.slots(listener);
    let of = |slot: &&signalbox_protocol::room::Slot| slot.track.as_ref().is_some_and(|track| track.participant == id);
    let track = slots.iter().find(of).unwrap().track.clone().unwrap().track;
    let mute = |muted| Command::Mute {
        track: track.clone(),
        muted,
    };
    world.members[speaker].client.audio_level = Some(-20);
    world.run_for(SECONDS(2));
    world.command(speaker, mute(true)).unwrap();
    assert_eq!(heard(&mut world, listener, SECONDS(3))[speaker], 0);
    world.command(speaker, mute(false)).unwrap();
    let counts = heard(&mut world, listener, SECONDS(2));
    assert!(counts[speaker] > 90, "{counts:?}");
}

#[test]
fn the_dominant_speaker_is_told_and_loses_the_floor_when_it_mutes() {
    let (mut world, listener) = room(63);
    let dominant = |world: &World| {
        let mut last = None;
        let id = world.id(listener);
        for (to, event) in &world.events {
            if let Event::Speakers { speakers } = event
                && to.contains(&id)
            {
                let is_it = |speaker: &&Speaker| speaker.dominant;
                let ends = speakers
                    .iter()
                    .any(|told| Some(&told.participant) == last.as_ref() && !told.dominant);
                last = speakers
                    .iter()
                    .find(is_it)
                    .map(|told| told.participant.clone())
                    .or(last.filter(|_| !ends));
            }
        }
        last
    };
    for speaker in [0, 1] {
        for member in 0..3 {
            world.members[member].client.audio_level = Some(if member == speaker { -20 } else { -80 });
        }
        world.run_for(SECONDS(3));
        assert_eq!(dominant(&world), Some(world.id(speaker)));
    }
    let slots = world.slots(listener);
    let bob = world.id(1);
    let mut tracks = slots.iter().filter_map(|slot| slot.track.as_ref());
    let track = tracks.find(|track| track.participant == bob).unwrap().track.clone();
    world.members[1].client.audio_level = Some(-80);
    world.command(1, Command::Mute { track, muted: true }).unwrap();
    world.run_for(SECONDS(1));
    assert_eq!(dominant(&world), None);
}
