//! What one participant may use, and what it costs the others when it uses more.

use std::time::Duration;

use signalbox_protocol::control::{Command, Event, ParticipantLimits, RefusalReason, Reply};
use signalbox_protocol::room::Kind;
use signalbox_sfu::Limits;

use crate::sfu::client::Received;
use crate::sfu::link::Impairment;
use crate::sfu::srtp::everything;
use crate::sfu::world::{World, publication};

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// Ann publishes sound and these layers, of about 154 kbps each, under limits of her own; Bob watches, and Cleo publishes as well.
fn room(seed: u64, limits: Limits, own: ParticipantLimits, layers: &[&str]) -> World {
    let mut world = World::with_limits(seed, Impairment::NONE, limits);
    let mut ann = world.new_client();
    let offer = ann.offer(true, layers, (0, 0));
    let mut request = World::request("ann");
    (request.offer, request.limits) = (Some(offer), own);
    let joined = world.admit(request).unwrap();
    ann.answer(joined.answer.as_deref().unwrap());
    world.add("ann", ann, joined);
    world.join("bob", false, &[], (2, 2));
    world.join("cleo", true, &["f"], (0, 0));
    world.connect();
    world
}

fn bps(limit: u64) -> ParticipantLimits {
    ParticipantLimits {
        publish_bps: Some(limit),
        ..ParticipantLimits::default()
    }
}

/// What Bob receives of somebody within a time.
fn received(world: &mut World, of: usize, kind: Kind, time: Duration) -> Vec<Received> {
    let before = world.received(1, of, kind).len();
    world.run_for(time);
    world.received(1, of, kind)[before..].to_vec()
}

fn times_told(world: &World, member: usize) -> usize {
    let id = world.id(member);
    let told = |(to, event): &&(Vec<_>, Event)| matches!(event, Event::PublishLimited { .. }) && *to == [id.clone()];
    world.events.iter().filter(told).count()
}

/// A stream that lacks nothing.
fn is_whole(packets: &[Received], at_least: usize) -> bool {
    packets.len() >= at_least && packets.windows(2).all(|pair| pair[1].sequence == pair[0].sequence + 1)
}

#[test]
fn a_publisher_at_ten_times_its_cap_keeps_its_sound_and_the_others_notice_nothing() {
    let mut world = room(91, Limits::default(), bps(150_000), &["f"]);
    // 3 packets of 1,100 bytes and more 30 times a second: 800 kbps; and ten times that with what comes below.
    world.members[0].client.padding = 900;
    world.run_for(SECONDS(4));
    let of_ann = received(&mut world, 0, Kind::Video, SECONDS(5));
    assert!(
        of_ann.is_empty(),
        "{} packets of a picture that is over the cap",
        of_ann.len()
    );
    let sound = received(&mut world, 0, Kind::Audio, SECONDS(5));
    assert!(is_whole(&sound, 245), "{} packets of sound", sound.len());
    let stats = world.shard.stats();
    assert!(stats.dropped_bitrate > 500);
    for (kind, at_least) in [(Kind::Audio, 245), (Kind::Video, 440)] {
        let of_cleo = received(&mut world, 2, kind, SECONDS(5));
        assert!(is_whole(&of_cleo, at_least), "{kind:?}: {} packets", of_cleo.len());
    }
    assert_eq!((times_told(&world, 0), times_told(&world, 2)), (1, 0));
}

#[test]
fn the_others_are_unaffected_by_a_publisher_at_ten_times_the_nodes_cap() {
    let limits = Limits {
        publish_bps: 200_000,
        ..Limits::default()
    };
    // Three layers of 870 kbps.
    let mut world = room(92, limits, ParticipantLimits::default(), &["q", "h", "f"]);
    world.members[0].client.padding = 1_000;
    for time in [4, 6] {
        let before = world.received(1, 2, Kind::Audio).len();
        let video = received(&mut world, 2, Kind::Video, SECONDS(time));
        assert!(
            is_whole(&video, 85 * time as usize),
            "{} packets in {time} s",
            video.len()
        );
        assert!(is_whole(
            &world.received(1, 2, Kind::Audio)[before..],
            48 * time as usize
        ));
    }
    assert!(is_whole(&received(&mut world, 0, Kind::Audio, SECONDS(3)), 145));
    assert_eq!(times_told(&world, 0), 1);
}

#[test]
fn the_highest_layers_are_taken_out_and_the_lowest_is_seen() {
    let mut world = room(93, Limits::default(), bps(250_000), &["q", "h", "f"]);
    world.run_for(SECONDS(5));
    let seen = received(&mut world, 0, Kind::Video, SECONDS(5));
    assert!(is_whole(&seen, 440), "{} packets", seen.len());
    assert!(seen.iter().all(|packet| packet.layer == 0), "of the lowest layer");
    // When the publisher sends less, the rest is seen again.
    world.members[0].client.pause_layer("f", true);
    world.members[0].client.pause_layer("q", true);
    world.run_for(SECONDS(9));
    let seen = received(&mut world, 0, Kind::Video, SECONDS(2));
    assert!(
        seen.len() > 160 && seen.iter().all(|packet| packet.layer == 1),
        "{} packets",
        seen.len()
    );
}

#[test]
fn a_publisher_near_its_cap_is_asked_to_send_no_more_and_one_far_below_is_not() {
    let mut world = room(94, Limits::default(), bps(165_000), &["f"]);
    world.run_for(SECONDS(5));
    assert_eq!(world.shard.stats().dropped_bitrate, 0);
    let asked = &world.members[0].client.asked_bps;
    assert!(
        !asked.is_empty() && asked.iter().all(|bps| (160_000..=165_000).contains(bps)),
        "{asked:?}"
    );
    assert!(world.members[2].client.asked_bps.is_empty());
    assert_eq!(times_told(&world, 0), 0);
}

#[test]
fn the_lower_of_the_nodes_and_the_tokens_cap_counts() {
    let limits = Limits {
        publish_bps: 20_000,
        ..Limits::default()
    };
    let mut world = room(95, limits, bps(10_000_000), &["f"]);
    world.run_for(SECONDS(5));
    assert!(world.shard.stats().dropped_bitrate > 0);
}

#[test]
fn a_token_bounds_how_many_tracks_are_published() {
    let own = ParticipantLimits {
        tracks: Some(1),
        ..ParticipantLimits::default()
    };
    let mut world = World::new(96, Impairment::NONE);
    let mut request = World::request("ann");
    request.limits = own;
    request.publish = vec![publication(0, "audio/opus"), publication(1, "video/VP8")];
    assert_eq!(world.admit(request.clone()).unwrap_err().reason, RefusalReason::Full);
    // What the offer sends beyond it is not published.
    let mut client = world.new_client();
    let offer = client.offer(true, &["f"], (0, 0));
    (request.publish, request.offer) = (Vec::new(), Some(offer));
    let joined = world.admit(request).unwrap();
    assert_eq!(joined.snapshot.participant.tracks.len(), 1);
    client.answer(joined.answer.as_deref().unwrap());
    let ann = world.add("ann", client, joined);
    let again = world.command(ann, Command::Publish(Box::new(publication(2, "video/VP8"))));
    assert_eq!(again.unwrap_err().reason, RefusalReason::Full);
    // Another one may publish what it likes.
    let bob = world.join("bob", false, &[], (1, 0));
    for index in 0..3 {
        let reply = world.command(bob, Command::Publish(Box::new(publication(index, "video/VP8"))));
        assert!(matches!(reply, Ok(Reply::Published { .. })));
    }
}

#[test]
fn a_flood_from_a_participants_address_is_dropped_before_it_is_decrypted_and_costs_only_itself() {
    let limits = Limits {
        packets_per_second: 500,
        ..Limits::default()
    };
    let mut world = room(97, limits, ParticipantLimits::default(), &["f"]);
    world.run_for(SECONDS(2));
    let before = world.shard.stats();
    assert_eq!(before.dropped_flood, 0, "a call stays below it");
    let source = world.members[0].client.address;
    let mut rtp = vec![0_u8; 1_000];
    rtp[0] = 0x80;
    rtp[1] = 96;
    for _ in 0..40 {
        for _ in 0..250 {
            world.inject(source, &rtp);
        }
        world.run_for(Duration::from_millis(50));
    }
    let dropped = world.shard.stats().dropped_flood - before.dropped_flood;
    assert!(dropped > 8_000, "{dropped} of 10,000");
    for (kind, at_least) in [(Kind::Audio, 145), (Kind::Video, 260)] {
        let of_cleo = received(&mut world, 2, kind, SECONDS(3));
        assert!(is_whole(&of_cleo, at_least), "{kind:?}: {} packets", of_cleo.len());
    }
    // It is still there, and heard again.
    assert!(received(&mut world, 0, Kind::Audio, SECONDS(3)).len() > 140);
}

#[test]
fn a_flood_from_a_proven_stream_is_dropped_and_one_from_elsewhere_does_not_use_up_what_is_the_clients() {
    let limits = Limits {
        packets_per_second: 200,
        ..Limits::default()
    };
    let mut world = World::with_limits(98, Impairment::NONE, limits);
    let ann = world.join_srtp("ann", &["audio/opus"], everything());
    let bob = world.join("bob", false, &[], (1, 0));
    world.run_for(SECONDS(2));
    let (source, ssrc) = (
        world.srtp[ann].client.address,
        world.srtp[ann].joined.srtp.as_ref().unwrap().publish[0].ssrc,
    );
    let mut rtp = vec![0x80, 111, 0, 1, 0, 0, 0, 1];
    rtp.extend(ssrc.to_be_bytes());
    rtp.extend([0; 200]);
    for _ in 0..1_000 {
        world.inject("10.9.9.9:9".parse().unwrap(), &rtp);
    }
    assert_eq!(world.shard.stats().dropped_flood, 0);
    for _ in 0..1_000 {
        world.inject(source, &rtp);
    }
    assert!(world.shard.stats().dropped_flood > 700);
    world.run_for(SECONDS(2));
    let before = world.received_of(bob, world.srtp[ann].id(), Kind::Audio).len();
    world.run_for(SECONDS(2));
    let heard = world.received_of(bob, world.srtp[ann].id(), Kind::Audio).len() - before;
    assert!(heard > 90, "{heard} packets");
}
