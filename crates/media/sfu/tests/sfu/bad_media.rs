//! Publishers of what makes no sense: the others in the room do not notice.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use signalbox_protocol::room::Kind;
use str0m::media::Mid;

use crate::sfu::link::Impairment;
use crate::sfu::scalable::{Scheme, Whole, decode};
use crate::sfu::world::World;

const BAD: usize = 0;
const GOOD: usize = 1;
const VIEWER: usize = 2;

/// One who publishes this, one who publishes VP8, and a viewer of both.
fn call(seed: u64, scheme: Scheme) -> World {
    let mut world = World::new(seed, Impairment::NONE);
    for (identity, scheme) in [("bad", scheme), ("good", Scheme::Vp8)] {
        let member = world.join(identity, false, &["f"], (0, 0));
        world.members[member].client.scheme = Some(scheme);
        world.members[member].client.codec = Some(scheme.codec());
    }
    world.join("viewer", false, &[], (0, 2));
    world.run_for(Duration::from_secs(2));
    world
}

fn seen(world: &World, of: usize) -> &[Whole] {
    let publisher = world.id(of);
    let slots = world.slots(VIEWER);
    let is_of = |slot: &&signalbox_protocol::room::Slot| {
        slot.track.as_ref().is_some_and(|track| track.participant == publisher)
    };
    let slot = slots
        .iter()
        .filter(|slot| slot.kind == Kind::Video)
        .find(is_of)
        .unwrap();
    &world.members[VIEWER].client.whole[&Mid::from(slot.mid.as_str())]
}

/// The good publisher's video has come all the while, whole.
fn assert_unaffected(world: &mut World) {
    let before = seen(world, GOOD).len();
    world.run_for(Duration::from_secs(1));
    assert!(seen(world, GOOD).len() > before + 55);
    let frames = decode(Scheme::Vp8, seen(world, GOOD));
    let keys = frames.iter().filter(|frame| frame.is_key).count();
    assert!(keys <= 3, "{keys} key frames");
}

#[test]
fn garbage_for_descriptors_is_dropped_and_the_stream_goes_on() {
    for scheme in [Scheme::Av1, Scheme::Vp9KeyOnly, Scheme::Vp8] {
        let mut world = call(1, scheme);
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..300 {
            let mut bytes = || -> Vec<u8> { (0..random.random_range(1..60)).map(|_| random.random()).collect() };
            let (payload, descriptor) = (bytes(), bytes());
            let now = world.now;
            // Without a structure of its own, which would replace the one that there is.
            let descriptor = [vec![descriptor[0], 0, 0], vec![0x7f; descriptor.len() % 3 + 1]].concat();
            world.members[BAD].client.send_raw(now, None, payload, Some(descriptor));
            world.run_for(Duration::from_millis(5));
        }
        assert_unaffected(&mut world);
        // Its own viewers see it again at the latest with the next key frame.
        let before = seen(&world, BAD).len();
        world.members[BAD].client.restart_encoders(0);
        world.run_for(Duration::from_secs(1));
        assert!(seen(&world, BAD).len() > before + 55, "{scheme:?}");
    }
}

#[test]
fn truncated_payload_descriptors_are_left_out_without_a_gap() {
    for (scheme, payloads) in [
        (
            Scheme::Vp8,
            [vec![0x90], vec![0x90, 0xf0, 0x80], vec![0x90, 0xf0, 0x80, 0x01, 0x02]],
        ),
        (
            Scheme::Vp9,
            [vec![0x8f], vec![0xaf, 0x80, 0x01], vec![0x8a, 0x01, 0xf8, 1]],
        ),
    ] {
        let mut world = call(2, scheme);
        world.run_for(Duration::from_secs(3));
        let keys = |world: &World| {
            decode(scheme, seen(world, BAD))
                .iter()
                .filter(|frame| frame.is_key)
                .count()
        };
        let before = keys(&world);
        for payload in payloads.iter().cycle().take(30) {
            let now = world.now;
            world.members[BAD].client.send_raw(now, None, payload.clone(), None);
            world.run_for(Duration::from_millis(20));
        }
        assert_unaffected(&mut world);
        assert_eq!(keys(&world), before, "{scheme:?}");
    }
}

#[test]
fn an_unknown_payload_type_is_dropped() {
    let mut world = call(3, Scheme::Vp8);
    for index in 0..50 {
        let now = world.now;
        world.members[BAD].client.send_raw(now, Some(77), vec![index; 50], None);
        world.run_for(Duration::from_millis(10));
    }
    assert_unaffected(&mut world);
    let before = seen(&world, BAD).len();
    world.run_for(Duration::from_secs(1));
    assert!(seen(&world, BAD).len() > before + 55);
}

#[test]
fn a_clock_that_jumps_moves_no_receivers_time_back() {
    for scheme in [Scheme::Vp8, Scheme::Vp9, Scheme::H264, Scheme::Av1] {
        let mut world = call(4, scheme);
        for ticks in [1 << 31, 90_000 * 60, 0_u32.wrapping_sub(90_000 * 60), 12_345_678] {
            world.members[BAD].client.set_clock(ticks);
            world.run_for(Duration::from_millis(500));
        }
        assert_unaffected(&mut world);
        let frames = decode(scheme, seen(&world, BAD));
        assert!(frames.len() > 140, "{scheme:?}: {}", frames.len());
    }
}

#[test]
fn two_publishers_with_the_same_ssrc_are_told_apart() {
    let mut world = call(5, Scheme::Vp8);
    for member in [BAD, GOOD] {
        let client = &mut world.members[member].client;
        client.set_video_ssrc(4_711);
        client.restart_encoders(0);
        client.set_video_ssrc(4_711);
    }
    world.run_for(Duration::from_secs(2));
    for member in [BAD, GOOD] {
        let before = seen(&world, member).len();
        world.run_for(Duration::from_secs(1));
        assert!(seen(&world, member).len() > before + 55);
        decode(Scheme::Vp8, seen(&world, member));
    }
}

#[test]
fn an_offer_whose_extension_ids_collide_costs_nobody_else_anything() {
    let mut world = World::new(6, Impairment::NONE);
    let mut client = world.new_client();
    let offer = client.offer(false, &["f"], (0, 1));
    // Each extension has the id of another.
    let collided: String = offer
        .lines()
        .map(|line| match line.strip_prefix("a=extmap:") {
            Some(rest) => format!("a=extmap:3 {}\r\n", rest.split_once(' ').unwrap().1),
            None => format!("{line}\r\n"),
        })
        .collect();
    assert_ne!(collided, offer);
    if let Ok(joined) = world.try_join("bad", Some(collided)) {
        let answer = joined.answer.clone().unwrap();
        client.answer(&answer);
        world.add("bad", client, joined);
    } else {
        world.join("bad", false, &["f"], (0, 0));
    }
    for identity in ["good", "viewer"] {
        let member = world.join(identity, false, if identity == "good" { &["f"] } else { &[] }, (0, 2));
        world.members[member].client.scheme = Some(Scheme::Vp8);
    }
    world.run_for(Duration::from_secs(2));
    assert_unaffected(&mut world);
}

#[test]
fn layers_that_nobody_has_announced_are_taken_up_to_a_bound() {
    let mut world = World::new(7, Impairment::NONE);
    let bad = world.join("bad", false, &["x", "y", "q", "h", "f", "z"], (0, 0));
    let good = world.join("good", false, &["f"], (0, 0));
    for member in [bad, good] {
        world.members[member].client.scheme = Some(Scheme::Vp8);
    }
    world.join("viewer", false, &[], (0, 2));
    world.run_for(Duration::from_secs(3));
    assert_unaffected(&mut world);
    assert!(!decode(Scheme::Vp8, seen(&world, BAD)).is_empty());
}
