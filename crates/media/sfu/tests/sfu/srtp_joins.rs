//! What a join without a peer connection may ask for, and what is refused.

use signalbox_protocol::TrackId;
use signalbox_protocol::control::{Command, Join, RefusalReason, Transports};
use signalbox_protocol::room::{Grants, Kind};
use signalbox_protocol::srtp::{SrtpKey, SrtpRequest, SrtpResume, SrtpSuite};

use crate::sfu::link::Impairment;
use crate::sfu::srtp::{OPUS, SECONDS, VP8, everything, nothing, wanted};
use crate::sfu::world::{World, publication};

fn resume(world: &World, member: usize) -> Vec<SrtpResume> {
    let published = &world.srtp[member].joined.srtp.as_ref().unwrap().publish;
    let streams = published.iter().map(|stream| SrtpResume {
        ssrc: stream.ssrc,
        payload_type: stream.payload_type,
        key: stream.key.clone(),
        track: stream.track.clone().unwrap(),
    });
    streams.collect()
}

#[test]
fn a_join_that_cannot_be_met_says_why_and_changes_nothing() {
    let mut world = World::new(1, Impairment::NONE);
    let ann = world.join_srtp(
        "ann",
        &[VP8],
        SrtpRequest {
            ssrcs: vec![Some(7)],
            ..nothing()
        },
    );
    world.run_for(SECONDS(1));
    let (events, before) = (world.events.len(), world.shard.stats());
    let ssrcs = |ssrcs: &[Option<u32>]| SrtpRequest {
        ssrcs: ssrcs.to_vec(),
        ..nothing()
    };
    let receive = |wanted| SrtpRequest {
        receive: wanted,
        ..nothing()
    };
    let resumed = |change: &dyn Fn(&mut SrtpResume)| {
        let mut streams = resume(&world, ann);
        streams[0].ssrc = 99;
        streams[0].track = TrackId::new("TR_Vfree");
        change(&mut streams[0]);
        SrtpRequest {
            resume: streams,
            ..nothing()
        }
    };
    let cases: Vec<(&[&str], SrtpRequest, &str)> = vec![
        (&["video/H265"], nothing(), "not known"),
        (&["audio/VP8"], nothing(), "not known"),
        (&[VP8], ssrcs(&[Some(7)]), "in use"),
        (&[VP8, OPUS], ssrcs(&[Some(8), Some(8)]), "Two tracks"),
        (&[VP8], ssrcs(&[None, Some(8)]), "more `ssrcs`"),
        (&[], receive(vec![wanted(Kind::Video, Some("audio/opus"))]), "not known"),
        (&[], receive(vec![wanted(Kind::Video, None); 129]), "at most 128"),
        (&[VP8, OPUS], resumed(&|_| {}), "each track"),
        (&[VP8], resumed(&|stream| stream.ssrc = 7), "in use"),
        (&[VP8], resumed(&|stream| stream.key = SrtpKey("AAAA".into())), "key"),
        (&[VP8], resumed(&|stream| stream.payload_type = 72), "Payload type"),
        (
            &[VP8],
            resumed(&|stream| stream.track = resume(&world, ann)[0].track.clone()),
            "somebody else",
        ),
    ];
    for (publish, request, why) in cases {
        let refusal = world.try_join_srtp("bob", publish, request).unwrap_err();
        assert_eq!(refusal.reason, RefusalReason::Invalid, "{why}");
        assert!(refusal.detail.contains(why), "{why}: {}", refusal.detail);
    }
    let refused = |change: &dyn Fn(&mut Join)| {
        let mut join = World::request("bob");
        join.transports = Transports::Srtp;
        join.srtp = Some(nothing());
        join.publish = vec![publication(0, VP8)];
        change(&mut join);
        join
    };
    let cases = [
        (refused(&|join| join.srtp = None), RefusalReason::Invalid),
        (refused(&|join| join.offer = Some("v=0".into())), RefusalReason::Invalid),
        (refused(&|join| join.publish[0].codec = None), RefusalReason::Invalid),
        (
            refused(&|join| join.publish = vec![publication(0, VP8); 17]),
            RefusalReason::Full,
        ),
        (
            refused(&|join| {
                join.grants = Grants {
                    publish: false,
                    ..Grants::default()
                };
            }),
            RefusalReason::NotPermitted,
        ),
    ];
    for (join, reason) in cases {
        let refusal = world.admit(join).unwrap_err();
        assert_eq!(refusal.reason, reason, "{}", refusal.detail);
    }
    assert_eq!(world.events.len(), events, "nobody was told");
    assert_eq!(world.shard.stats(), before);
    assert!(
        world
            .try_join_srtp(
                "bob",
                &[VP8],
                SrtpRequest {
                    ssrcs: vec![Some(8)],
                    ..nothing()
                }
            )
            .is_ok()
    );
}

#[test]
fn what_needs_a_peer_connection_is_refused_to_a_client_without_one() {
    let mut world = World::new(2, Impairment::NONE);
    let ann = world.join_srtp("ann", &[VP8], nothing());
    let offer = Command::Offer { sdp: "v=0\r\n".into() };
    let publish = Command::Publish(Box::new(publication(5, OPUS)));
    for command in [offer, publish] {
        let refusal = world.command_srtp(ann, command).unwrap_err();
        assert_eq!(refusal.reason, RefusalReason::Invalid);
        assert!(refusal.detail.contains("join"), "{}", refusal.detail);
    }
}

#[test]
fn the_same_identity_may_have_its_ssrc_again() {
    let mut world = World::new(3, Impairment::NONE);
    let request = SrtpRequest {
        ssrcs: vec![Some(7)],
        ..nothing()
    };
    let first = world.join_srtp("ann", &[VP8], request.clone());
    world.run_for(SECONDS(1));
    world.srtp[first].is_gone = true;
    let second = world.join_srtp("ann", &[VP8], request);
    let bob = world.join_srtp("bob", &[], everything());
    world.run_for(SECONDS(1));
    assert!(world.srtp[bob].client.receivers[0].received.len() > 50);
    assert_ne!(
        world.srtp[first].client.senders[0].stream.key,
        world.srtp[second].client.senders[0].stream.key
    );
    assert_eq!(world.shard.stats().participants, 2);
}

#[test]
fn each_stream_has_keys_of_its_own() {
    let mut world = World::new(4, Impairment::NONE);
    world.join_srtp("ann", &[VP8, OPUS], nothing());
    let bob = world.join_srtp("bob", &[VP8], everything());
    let session = world.srtp[bob].joined.srtp.clone().unwrap();
    assert_eq!(
        (session.publish.len(), session.receive.len(), session.idle_ms),
        (1, 2, 60_000)
    );
    let streams = || session.publish.iter().chain(&session.receive);
    let mut keys: Vec<String> = streams()
        .flat_map(|stream| [stream.key.0.clone(), stream.feedback_key.0.clone()])
        .collect();
    let mut ssrcs: Vec<u32> = streams()
        .flat_map(|stream| [stream.ssrc, stream.feedback_ssrc])
        .collect();
    for count in [&mut keys.len(), &mut ssrcs.len()] {
        assert_eq!(*count, 6);
    }
    keys.sort_unstable();
    keys.dedup();
    ssrcs.sort_unstable();
    ssrcs.dedup();
    assert_eq!((keys.len(), ssrcs.len()), (6, 6));
    let mids: Vec<&str> = streams().map(|stream| stream.mid.as_str()).collect();
    assert_eq!(mids, ["0", "1", "2"]);
}

#[test]
fn a_stream_goes_on_at_another_node_after_its_sequence_numbers_have_rolled_over() {
    for suite in [SrtpSuite::AesCm128HmacSha1_80, SrtpSuite::AeadAes128Gcm] {
        let mut old = World::new(5, Impairment::NONE);
        let ann = old.join_srtp("ann", &[VP8], SrtpRequest { suite, ..nothing() });
        old.run_for(SECONDS(1));
        let sender = &mut old.srtp[ann].client.senders[0];
        let early = sender.packet(96, 0, false, vec![0x10, 1]);
        for rollover in 0..200 {
            for sequence in [0x4000, 0x8000, 0xc000, 0] {
                sender.sequence = sequence;
                sender.packet(96, rollover, false, vec![0x10, 1]);
            }
        }

        let mut new = World::new(6, Impairment::NONE);
        let request = SrtpRequest {
            suite,
            resume: resume(&old, ann),
            ..nothing()
        };
        let joined = new.try_join_srtp("ann", &[VP8], request).unwrap();
        let resumed = &joined.srtp.as_ref().unwrap().publish[0];
        let before = &old.srtp[ann].joined.srtp.as_ref().unwrap().publish[0];
        assert_eq!(
            (resumed.ssrc, &resumed.key, &resumed.track),
            (before.ssrc, &before.key, &before.track)
        );
        assert_ne!(
            resumed.feedback_key, before.feedback_key,
            "the node's keys are never used twice"
        );
        let resumed = new.add_srtp("ann", joined);
        // The client that has sent all that goes on; what it hears is under the new key.
        let mut sender = old.srtp.remove(ann).client.senders.remove(0);
        sender.go_on(&new.srtp[resumed].client.senders[0]);
        new.srtp[resumed].client.senders[0] = sender;
        // Somebody has kept a packet of long ago, and is first.
        new.inject(([203, 0, 113, 1], 9).into(), &early);
        let bob = new.join_srtp("bob", &[], everything());
        new.run_for(SECONDS(2));
        let received = &new.srtp[bob].client.receivers[0].received;
        assert!(received.len() > 120, "{} packets", received.len());
        assert!(
            new.srtp[resumed].client.senders[0].key_frames_wanted > 0,
            "the node knows where to ask"
        );
    }
}
