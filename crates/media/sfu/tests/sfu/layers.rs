//! Layers of each codec, from a publisher to its receivers.

use std::collections::BTreeSet;
use std::time::Duration;

use signalbox_protocol::control::{Command, Preference, Quality};
use signalbox_protocol::room::Kind;
use str0m::media::Mid;

use crate::sfu::link::Impairment;
use crate::sfu::scalable::{Frame, Scheme, Whole, decode};
use crate::sfu::world::World;

const SVC: [Scheme; 3] = [Scheme::Vp9, Scheme::Av1, Scheme::Vp9KeyOnly];

/// A publisher of such a stream, and so many receivers.
fn call(seed: u64, scheme: Scheme, rids: &[&str], receivers: usize) -> World {
    let mut world = World::new(seed, Impairment::NONE);
    let ann = world.join("ann", false, rids, (0, 0));
    world.members[ann].client.scheme = Some(scheme);
    world.members[ann].client.codec = Some(scheme.codec());
    for index in 0..receivers {
        world.join(&format!("viewer-{index}"), false, &[], (0, 1));
    }
    world
}

fn want(world: &mut World, member: usize, quality: Quality) {
    let slots = world.slots(member);
    let track = slots.iter().find_map(|slot| slot.track.clone()).unwrap().track;
    let preference = Preference {
        quality: Some(quality),
        ..Preference::default()
    };
    let tracks = vec![track];
    world.command(member, Command::Prefer { tracks, preference }).unwrap();
}

fn received(world: &World, member: usize) -> &[Whole] {
    let slot = world
        .slots(member)
        .into_iter()
        .find(|slot| slot.kind == Kind::Video)
        .unwrap();
    &world.members[member].client.whole[&Mid::from(slot.mid.as_str())]
}

/// The layers of what came in the last half second.
fn lately(frames: &[Frame]) -> BTreeSet<(u8, u8)> {
    let end = frames.last().unwrap().timestamp;
    let late = frames.iter().filter(|frame| end.wrapping_sub(frame.timestamp) < 45_000);
    late.map(|frame| (frame.spatial, frame.temporal)).collect()
}

#[test]
fn each_receiver_of_a_scalable_stream_gets_the_layers_that_it_wants_and_can_decode_them() {
    for scheme in SVC {
        let mut world = call(1, scheme, &["f"], 3);
        world.run_for(Duration::from_secs(2));
        for (member, quality) in [(1, Quality::Low), (2, Quality::Medium), (3, Quality::High)] {
            want(&mut world, member, quality);
        }
        world.run_for(Duration::from_secs(2));
        for (member, top) in [(1, 0), (2, 1), (3, 2)] {
            let frames = decode(scheme, received(&world, member));
            assert!(frames.len() > 60, "{scheme:?}");
            let lowest = if scheme == Scheme::Vp9KeyOnly { top } else { 0 };
            let expected: BTreeSet<(u8, u8)> = (lowest..=top)
                .flat_map(|spatial| (0..3).map(move |temporal| (spatial, temporal)))
                .collect();
            assert_eq!(lately(&frames), expected, "{scheme:?}, receiver {member}");
        }
    }
}

#[test]
fn a_receiver_that_wants_other_layers_again_and_again_sees_one_stream() {
    for (scheme, rids) in [
        (Scheme::Vp9, vec!["f"]),
        (Scheme::Av1, vec!["f"]),
        (Scheme::Vp9KeyOnly, vec!["f"]),
        (Scheme::Vp8, vec!["q", "h", "f"]),
        (Scheme::H264, vec!["q", "h", "f"]),
        (Scheme::Av1Simulcast, vec!["q", "h", "f"]),
    ] {
        let mut world = call(2, scheme, &rids, 1);
        world.run_for(Duration::from_secs(1));
        for quality in [
            Quality::Low,
            Quality::High,
            Quality::Medium,
            Quality::Low,
            Quality::Medium,
            Quality::High,
        ] {
            want(&mut world, 1, quality);
            world.run_for(Duration::from_millis(700));
        }
        let frames = decode(scheme, received(&world, 1));
        let sources: BTreeSet<(u8, u8)> = frames.iter().map(|frame| (frame.incarnation, frame.spatial)).collect();
        assert_eq!(sources.len(), 3, "{scheme:?}");
        let pictures: BTreeSet<u32> = frames.iter().map(|frame| frame.timestamp).collect();
        assert!(pictures.len() > 120, "{scheme:?}: {}", pictures.len());
    }
}

#[test]
fn encoders_that_are_started_anew_go_on_as_the_same_stream() {
    for (scheme, rids) in [
        (Scheme::Vp8, vec!["f"]),
        (Scheme::Vp9, vec!["f"]),
        (Scheme::Av1, vec!["f"]),
        (Scheme::H264, vec!["f"]),
        (Scheme::Av1Simulcast, vec!["q", "h", "f"]),
    ] {
        let mut world = call(3, scheme, &rids, 1);
        world.run_for(Duration::from_secs(2));
        let before = received(&world, 1).len();
        // Neither forward nor back.
        for clock in [2_000_000_000, 90_000 * 1_000, u32::MAX - 90_000 * 500] {
            world.members[0].client.restart_encoders(clock);
            world.run_for(Duration::from_secs(2));
        }
        let packets = received(&world, 1);
        assert!(packets.len() > before * 3, "{scheme:?}: {before} and {}", packets.len());
        let frames = decode(scheme, packets);
        let incarnations: BTreeSet<u8> = frames.iter().map(|frame| frame.incarnation).collect();
        assert!(incarnations.len() >= 4, "{scheme:?}: {incarnations:?}");
    }
}

#[test]
fn a_paused_stream_goes_on_where_it_was() {
    for scheme in [Scheme::Vp8, Scheme::Vp9, Scheme::Av1, Scheme::Vp9KeyOnly, Scheme::H264] {
        let mut world = call(4, scheme, &["f"], 1);
        world.run_for(Duration::from_secs(1));
        let track = world.slots(1)[0].track.clone().unwrap().track;
        for enabled in [false, true] {
            let preference = Preference {
                enabled,
                ..Preference::default()
            };
            let tracks = vec![track.clone()];
            world.command(1, Command::Prefer { tracks, preference }).unwrap();
            world.run_for(Duration::from_millis(900));
        }
        let frames = decode(scheme, received(&world, 1));
        let mut times: Vec<u32> = frames.iter().map(|frame| frame.timestamp).collect();
        times.dedup();
        let longest = times
            .windows(2)
            .map(|pair| pair[1].wrapping_sub(pair[0]))
            .max()
            .unwrap();
        assert!((60_000..100_000).contains(&longest), "{scheme:?}: {longest}");
    }
}

#[test]
fn until_the_key_frame_of_a_lower_layer_comes_fewer_frames_of_the_higher_are_sent() {
    let mut world = World::new(
        5,
        Impairment {
            delay: Duration::from_millis(300),
            ..Impairment::NONE
        },
    );
    let ann = world.join("ann", false, &["q", "h", "f"], (0, 0));
    world.members[ann].client.scheme = Some(Scheme::Vp8);
    world.join("viewer", false, &[], (0, 1));
    world.run_for(Duration::from_secs(10));
    let before = received(&world, 1).len();
    want(&mut world, 1, Quality::Low);
    world.run_for(Duration::from_secs(3));
    let packets = received(&world, 1);
    // What was under way, and what was sent in the round trip that it takes to ask for the key frame.
    let frames = decode(Scheme::Vp8, packets);
    let switch = frames
        .windows(2)
        .rposition(|pair| pair[0].incarnation != pair[1].incarnation)
        .unwrap();
    let asked = packets[before].timestamp.wrapping_add(90_000 * 33 / 100);
    let bridge: Vec<&Frame> = frames[..=switch]
        .iter()
        .filter(|frame| frame.timestamp.wrapping_sub(asked) < 1 << 31)
        .collect();
    assert!((3..10).contains(&bridge.len()), "{}", bridge.len());
    assert!(bridge.iter().all(|frame| frame.temporal == 0), "{bridge:?}");
    assert_eq!(lately(&frames), BTreeSet::from([(0, 0), (0, 1), (0, 2)]));
}

#[test]
fn a_scalable_stream_that_is_cut_since_most_was_lost_begins_anew_with_a_key_frame() {
    let mut world = call(6, Scheme::Vp9, &["f"], 1);
    // 1.8 Mbps in all, a third of it the lowest spatial layer.
    world.members[0].client.padding = 1_000;
    let down = |bps| Impairment {
        capacity: Some(bps),
        ..Impairment::NONE
    };
    world.impair(1, Impairment::NONE, down(3_000_000));
    world.run_for(Duration::from_secs(6));
    assert_eq!(lately(&decode(Scheme::Vp9, received(&world, 1))).len(), 9, "all layers");
    let asked = world.members[0].client.key_frames_wanted.len();
    let before = received(&world, 1).iter().map(|packet| packet.sequence).max().unwrap();
    world.impair(1, Impairment::NONE, down(400_000));
    let begins = |world: &World| {
        let packets = received(world, 1).iter().filter(|packet| packet.sequence > before);
        let mut keys = packets.filter(|packet| packet.payload.ends_with(&[1, 0]));
        keys.next().map(|packet| packet.sequence)
    };
    world.run_until(Duration::from_millis(1_500), "a key frame arrives", |world| {
        begins(world).is_some()
    });
    assert!(
        world.members[0].client.key_frames_wanted.len() > asked,
        "the viewer did not ask for it"
    );
    let first = begins(&world).unwrap();
    let old = |world: &World| {
        received(world, 1)
            .iter()
            .filter(|packet| packet.sequence < first)
            .count()
    };
    let before = old(&world);
    world.run_for(Duration::from_secs(2));
    assert_eq!(old(&world), before, "nothing older is sent again");
    // From there on, all of the lowest layer arrives, and nothing else.
    let mut anew: Vec<Whole> = received(&world, 1).to_vec();
    anew.retain(|packet| packet.sequence >= first);
    let frames = decode(Scheme::Vp9, &anew);
    assert!(frames.len() >= 12, "{}", frames.len());
    assert!(
        lately(&frames).iter().all(|(spatial, _)| *spatial == 0),
        "{:?}",
        lately(&frames)
    );
}
