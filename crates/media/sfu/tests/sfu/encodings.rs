//! A track in a second codec, for those who can decode no other.

use std::time::Duration;

use signalbox_protocol::TrackId;
use signalbox_protocol::control::{Command, Event, Join, Quality, RefusalReason, Reply};
use signalbox_protocol::room::{Kind, PublishTrack};
use str0m::format::Codec;
use str0m::media::Mid;

use crate::sfu::link::Impairment;
use crate::sfu::one_offer::only_h264;
use crate::sfu::world::{World, publication};

/// Ann publishes VP8 and could fall back to H.264; Bob can decode anything, Eve H.264 alone.
struct Call {
    world: World,
    ann: usize,
    bob: usize,
    eve: usize,
    track: TrackId,
}

fn call(seed: u64) -> Call {
    let mut world = World::new(seed, Impairment::NONE);
    let mut client = world.new_client();
    let offer = client.offer(false, &["f"], (0, 0));
    let camera = PublishTrack {
        cid: "cam".into(),
        backup_codec: Some("video/h264".into()),
        ..publication(0, "video/vp8")
    };
    let joined = world
        .admit(Join {
            offer: Some(offer),
            publish: vec![camera],
            ..World::request("ann")
        })
        .unwrap();
    client.answer(joined.answer.as_deref().unwrap());
    let track = joined.snapshot.participant.tracks[0].id.clone();
    let ann = world.add("ann", client, joined);
    let bob = world.join("bob", false, &[], (0, 1));
    let mut client = only_h264(&world);
    let offer = client.offer(false, &[], (0, 1));
    let joined = world.try_join("eve", Some(offer)).unwrap();
    client.answer(joined.answer.as_deref().unwrap());
    let eve = world.add("eve", client, joined);
    world.run_for(Duration::from_secs(2));
    Call {
        world,
        ann,
        bob,
        eve,
        track,
    }
}

fn encoding(of: &TrackId, codec: &str, cid: &str) -> Command {
    Command::Publish(Box::new(PublishTrack {
        cid: cid.into(),
        encoding_of: Some(of.clone()),
        ..publication(1, codec)
    }))
}

impl Call {
    fn pictures(&self, member: usize) -> usize {
        self.world.received(member, self.ann, Kind::Video).len()
    }

    /// How many packets a member receives in a second.
    fn rate(&mut self, member: usize) -> usize {
        let before = self.pictures(member);
        self.world.run_for(Duration::from_secs(1));
        self.pictures(member) - before
    }

    fn offer(&mut self, sdp: String) -> String {
        let Ok(Reply::Answer { sdp }) = self.world.command(self.ann, Command::Offer { sdp }) else {
            panic!("the offer is answered");
        };
        self.world.members[self.ann].client.answer(&sdp);
        sdp
    }

    /// Publishes the second encoding; its m-line and the answer to it.
    fn fall_back(&mut self) -> (Mid, String) {
        let Ok(Reply::Published { track }) = self
            .world
            .command(self.ann, encoding(&self.track, "video/h264", "second"))
        else {
            panic!("the encoding is announced");
        };
        assert_eq!(track.id, self.track, "it is no track of its own");
        let offer = self.world.members[self.ann].client.offer_another("second", Codec::H264);
        let answer = self.offer(offer);
        (*self.world.members[self.ann].client.sending().last().unwrap(), answer)
    }
}

/// The name of the first codec of the last m-line.
fn first_codec(sdp: &str) -> &str {
    let line = sdp.lines().rfind(|line| line.starts_with("m=")).unwrap();
    let kind = line.split(' ').nth(3).unwrap();
    let (_, described) = sdp.split_once(&format!("a=rtpmap:{kind} ")).unwrap();
    described.split('/').next().unwrap()
}

#[test]
fn who_can_decode_only_the_second_codec_gets_that() {
    let mut call = call(1);
    let (bob, eve) = (call.bob, call.eve);
    assert!(call.rate(bob) > 80);
    assert_eq!(call.rate(eve), 0, "there is nothing for her yet");
    let slots = call.world.slots(eve);
    assert!(
        slots.iter().any(|slot| slot.track.is_some()),
        "but a slot waits for it: {slots:?}"
    );

    let (line, answer) = call.fall_back();
    assert_eq!(first_codec(&answer), "H264");
    assert!(call.rate(eve) > 80);
    assert!(call.rate(bob) > 80);

    // Without it, she gets nothing, and nobody else is disturbed.
    let offer = call.world.members[call.ann].client.offer_less(line);
    call.offer(offer);
    call.world.run_for(Duration::from_millis(200));
    assert_eq!(call.rate(eve), 0);
    assert!(call.rate(bob) > 80);
}

#[test]
fn with_the_first_encoding_the_track_ends() {
    let mut call = call(2);
    call.fall_back();
    let eve = call.eve;
    assert!(call.rate(eve) > 80);
    let first = call.world.members[call.ann].client.sending()[0];
    let offer = call.world.members[call.ann].client.offer_less(first);
    call.offer(offer);
    // What still comes in the second codec is a picture of its own.
    let carried = |slot: &signalbox_protocol::room::Slot| slot.track.as_ref().map(|carried| carried.track.clone());
    let slots = call.world.slots(eve);
    assert!(
        slots.iter().all(|slot| carried(slot) != Some(call.track.clone())),
        "{slots:?}"
    );
}

#[test]
fn an_encoding_that_cannot_be_is_refused() {
    let mut call = call(3);
    let (ann, bob, track) = (call.ann, call.bob, call.track.clone());
    let mut refused = |member, command| match call.world.command(member, command) {
        Err(refusal) => refusal.reason,
        Ok(reply) => panic!("{reply:?}"),
    };
    assert_eq!(
        refused(bob, encoding(&track, "video/h264", "x")),
        RefusalReason::NoTrack
    );
    let unknown = TrackId::new("TR_unknown");
    assert_eq!(
        refused(ann, encoding(&unknown, "video/h264", "x")),
        RefusalReason::NoTrack
    );
    for codec in ["video/h266", "audio/opus", ""] {
        assert_eq!(
            refused(ann, encoding(&track, codec, "x")),
            RefusalReason::Invalid,
            "{codec}"
        );
    }
    // Said twice is said once; a third codec is too many.
    for _ in 0..2 {
        assert!(call.world.command(ann, encoding(&track, "video/h264", "x")).is_ok());
    }
    let third = call.world.command(ann, encoding(&track, "video/AV1", "y"));
    assert_eq!(third.unwrap_err().reason, RefusalReason::Full);
}

#[test]
fn an_announced_encoding_goes_with_its_track() {
    let mut call = call(4);
    let (ann, track) = (call.ann, call.track.clone());
    assert!(
        call.world
            .command(ann, encoding(&track, "video/h264", "second"))
            .is_ok()
    );
    let muted = true;
    assert!(
        call.world
            .command(
                ann,
                Command::Mute {
                    track: track.clone(),
                    muted
                }
            )
            .is_ok()
    );
    let bob = call.bob;
    call.world.run_for(Duration::from_millis(200));
    assert_eq!(call.rate(bob), 0, "the track itself was muted");
    assert!(
        call.world
            .command(ann, Command::Unpublish { track: track.clone() })
            .is_ok()
    );
    let offer = call.world.members[ann].client.offer_another("second", Codec::H264);
    call.offer(offer);
    // What comes now is a picture of its own.
    call.world.run_for(Duration::from_secs(1));
    let carried: Vec<_> = call
        .world
        .slots(bob)
        .into_iter()
        .filter_map(|slot| slot.track)
        .collect();
    assert!(carried.iter().all(|slot| slot.track != track), "{carried:?}");
}

/// What ann was asked for last, of the first and the second codec.
fn asked(world: &World) -> Option<[(String, Vec<Quality>); 2]> {
    let events = world.events.iter().rev();
    let mut asked = events.filter_map(|(_, event)| match event {
        Event::EncodingsWanted { codecs, .. } => {
            Some(codecs.iter().map(|one| (one.mime_type.clone(), one.layers.clone())))
        }
        _ => None,
    });
    asked
        .next()
        .map(|codecs| codecs.collect::<Vec<_>>().try_into().unwrap())
}

#[test]
fn a_second_codec_is_asked_for_as_long_as_somebody_needs_it() {
    let mut call = call(6);
    let both = |first: &[Quality], second: &[Quality]| {
        let named = |mime_type: &str, layers: &[Quality]| (mime_type.to_owned(), layers.to_vec());
        Some([named("video/VP8", first), named("video/H264", second)])
    };
    // Neither has layers, so that all are the same.
    let all = [Quality::Low, Quality::Medium, Quality::High];
    assert_eq!(asked(&call.world), both(&all, &all));
    let failed = |world: &World| {
        let mut events = world.events.iter();
        events.any(|(_, event)| matches!(event, Event::SubscriptionFailed { .. }))
    };
    assert!(!failed(&call.world), "eve can be helped");
    call.world.command(call.eve, Command::Leave).unwrap();
    call.world.run_for(Duration::from_secs(6));
    assert_eq!(asked(&call.world), both(&all, &[]));
    call.world.command(call.bob, Command::Leave).unwrap();
    call.world.run_for(Duration::from_secs(6));
    assert_eq!(asked(&call.world), both(&[], &[]));
}
