//! Which track goes out on which stream of a client without a peer connection.

use signalbox_protocol::control::{Command, Event};
use signalbox_protocol::room::Kind;
use signalbox_protocol::srtp::SrtpRequest;

use crate::sfu::link::Impairment;
use crate::sfu::srtp::{SECONDS, VP8, nothing, wanted};
use crate::sfu::world::World;

#[test]
fn a_slot_carries_tracks_of_its_codec_only() {
    let mut world = World::new(3, Impairment::NONE);
    let bob = world.join_srtp(
        "bob",
        &[],
        SrtpRequest {
            receive: vec![
                wanted(Kind::Video, Some("video/h264")),
                wanted(Kind::Video, Some("video/VP8")),
                wanted(Kind::Audio, None),
            ],
            ..nothing()
        },
    );
    let ann = world.join_srtp("ann", &[VP8], nothing());
    let carl = world.join_srtp("carl", &["video/H264"], nothing());
    world.run_for(SECONDS(1));
    let reply = world.command_srtp(bob, Command::Attach).unwrap();
    let signalbox_protocol::control::Reply::Snapshot(snapshot) = reply else {
        panic!("{reply:?}");
    };
    let carried = |mid: &str| {
        let slot = snapshot.slots.iter().find(|slot| slot.mid == mid).unwrap();
        slot.track.as_ref().map(|track| track.participant.clone())
    };
    assert_eq!(carried("0"), Some(world.srtp[carl].id()));
    assert_eq!(carried("1"), Some(world.srtp[ann].id()));
    assert_eq!(carried("2"), None);

    // A second track in VP8 has no slot; nor has one in VP9, although that in H.264 is free.
    world.command_srtp(carl, Command::Leave).unwrap();
    world.srtp[carl].is_gone = true;
    world.join_srtp("dora", &[VP8, "video/VP9"], nothing());
    let id = world.srtp[bob].id();
    let missing = world.events.iter().rev().find_map(|(to, event)| match event {
        Event::SlotsWanted { audio, video } if to.contains(&id) => Some((*audio, *video)),
        _ => None,
    });
    assert_eq!(missing, Some((0, 2)));
}

#[test]
fn a_track_that_changes_its_codec_changes_its_slot() {
    let mut world = World::new(13, Impairment::NONE);
    let ann = world.join("ann", false, &["f"], (0, 0));
    let request = SrtpRequest {
        receive: vec![wanted(Kind::Video, Some(VP8)), wanted(Kind::Video, Some("video/H264"))],
        ..nothing()
    };
    let bob = world.join_srtp("bob", &[], request);
    world.run_for(SECONDS(1));
    assert!(world.srtp[bob].client.receivers[0].received.len() > 50);
    world.members[ann].client.codec = Some(str0m::format::Codec::H264);
    let (id, events) = (world.srtp[bob].id(), world.events.len());
    world.run_for(SECONDS(1));
    let slots: Vec<(String, bool)> = world.events[events..]
        .iter()
        .filter_map(|(to, event)| match event {
            Event::Slots { slots } if to.contains(&id) => Some(slots),
            _ => None,
        })
        .flatten()
        .map(|slot| (slot.mid.clone(), slot.track.is_some()))
        .collect();
    assert_eq!(slots, [("0".to_owned(), false), ("1".to_owned(), true)]);
}

#[test]
fn a_freed_slot_goes_on_with_another_track() {
    let mut world = World::new(11, Impairment::NONE);
    let request = SrtpRequest {
        receive: vec![wanted(Kind::Video, None)],
        ..nothing()
    };
    let bob = world.join_srtp("bob", &[], request);
    let ann = world.join_srtp("ann", &[VP8], nothing());
    world.run_for(SECONDS(2));
    world.join("carl", false, &["f"], (0, 0));
    world.run_for(SECONDS(1));
    world.srtp[ann].is_gone = true;
    world.command_srtp(ann, Command::Leave).unwrap();
    world.run_for(SECONDS(3));
    let received = &world.srtp[bob].client.receivers[0].received;
    assert!(received.len() > 350, "{} packets", received.len());
    for pair in received.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence + 1);
        let step = pair[1].picture_id.unwrap() - pair[0].picture_id.unwrap();
        assert!(step <= 1, "a step of {step} pictures");
    }
    assert_eq!(received.iter().filter(|packet| packet.begins_key_frame).count(), 2);
}
