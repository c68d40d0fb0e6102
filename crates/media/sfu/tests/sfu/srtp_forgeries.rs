//! What those can do who have no key, and those who misuse theirs.

use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use signalbox_protocol::srtp::SrtpSuite;

use crate::sfu::link::Impairment;
use crate::sfu::srtp::{OPUS, SECONDS, VP8, everything, nothing};
use crate::sfu::srtp_streams::context;
use crate::sfu::world::World;

fn stranger() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], 9))
}

#[test]
fn what_is_not_authentic_or_not_new_is_counted_and_dropped() {
    let mut world = World::new(3, Impairment::NONE);
    let ann = world.join_srtp("ann", &[OPUS], nothing());
    let bob = world.join_srtp("bob", &[], everything());
    world.run_for(SECONDS(1));
    world.srtp[ann].client.is_silent = true;
    world.run_for(Duration::from_millis(200));
    let (before, received) = (world.shard.stats(), world.srtp[bob].client.receivers[0].received.len());
    let address = world.srtp[ann].client.address;
    let sender = &mut world.srtp[ann].client.senders[0];
    let stream = sender.stream.clone();
    let good = sender.packet(stream.payload_type, 1, false, vec![1, 2, 3]);
    let wrong_type = sender.packet(stream.payload_type + 1, 2, false, vec![1, 2, 3]);
    let report = sender.sender_report(1);
    let mut changed = sender.packet(stream.payload_type, 3, false, vec![1, 2, 3]);
    let end = changed.len() - 1;
    changed[end] ^= 1;
    // Authentic in itself, but with another stream's key.
    let fresh = sender.packet(stream.payload_type, 4, false, vec![1, 2, 3]);
    let plain = context(stream.suite, &stream.key).decrypt_rtp(&fresh).unwrap();
    let other_key = world.srtp[bob].client.receivers[0].stream.key.clone();
    let wrong_key = context(stream.suite, &other_key).encrypt_rtp(&plain).unwrap();
    for datagram in [&good, &good, &report, &report] {
        world.inject(address, datagram);
    }
    let (now, to) = (world.now, world.srtp[bob].client.address);
    let heard = world.srtp[bob].client.receivers[0].report(now);
    for _ in 0..2 {
        world.inject(to, &heard);
    }
    for datagram in [&changed[..], &wrong_key[..], &good[..20]] {
        world.inject(address, datagram);
    }
    world.inject(address, &wrong_type);
    let mut nobodys = good.clone();
    nobodys[8] ^= 1;
    world.inject(stranger(), &nobodys);
    world.run_for(Duration::from_millis(200));
    let after = world.shard.stats();
    assert_eq!(
        after.dropped_replayed - before.dropped_replayed,
        4,
        "the cut packet has a known number"
    );
    assert_eq!(after.dropped_unauthentic - before.dropped_unauthentic, 2);
    assert_eq!(after.dropped_payload_type - before.dropped_payload_type, 1);
    assert_eq!(after.dropped_ssrc - before.dropped_ssrc, 1);
    assert_eq!(world.srtp[bob].client.receivers[0].received.len(), received + 1);
    assert_eq!(world.astray, 0);
}

#[test]
fn a_flood_of_forgeries_is_looked_at_within_a_bound_and_hurts_nobody() {
    for suite in [SrtpSuite::AesCm128HmacSha1_80, SrtpSuite::AeadAes128Gcm] {
        let mut world = World::new(4, Impairment::NONE);
        let ann = world.join_srtp(
            "ann",
            &[VP8],
            signalbox_protocol::srtp::SrtpRequest { suite, ..nothing() },
        );
        let bob = world.join_srtp("bob", &[], everything());
        world.run_for(SECONDS(2));
        let ssrc = world.srtp[ann].client.senders[0].stream.ssrc;
        let feedback = world.srtp[bob].client.receivers[0].stream.feedback_ssrc;
        let mut media = vec![0x80, 96, 0, 0, 0, 0, 0, 0];
        media.extend(ssrc.to_be_bytes());
        media.extend([7; 500]);
        let mut report = vec![0x80, 201, 0, 1];
        report.extend(feedback.to_be_bytes());
        report.extend([0xff; 40]);
        for forged in [&mut media, &mut report] {
            let before = world.shard.stats();
            for number in 0..1_000u16 {
                // Numbers that were never taken.
                let at = if forged[1] == 96 { 2 } else { forged.len() - 14 };
                forged[at..at + 2].copy_from_slice(&(0xa000 + number).to_be_bytes());
                world.inject(stranger(), forged);
            }
            let after = world.shard.stats();
            assert_eq!(after.dropped_unauthentic - before.dropped_unauthentic, 32);
            assert_eq!(after.dropped_limited - before.dropped_limited, 968);
            // The client itself goes on, from where it was proven.
            let (now, received) = (world.now, world.srtp[bob].client.receivers[0].received.len());
            world.run_for(Duration::from_millis(900));
            assert!(world.srtp[bob].client.receivers[0].received.len() > received + 70);
            // When the second is over, others are looked at again.
            world.run_for(Duration::from_millis(200));
            assert!(world.now > now + SECONDS(1));
            let before = world.shard.stats();
            world.inject(stranger(), forged);
            assert_eq!(world.shard.stats().dropped_unauthentic - before.dropped_unauthentic, 1);
        }
        assert_eq!(world.astray, 0);
    }
}

#[test]
fn a_forged_first_packet_does_not_hide_the_stream() {
    let mut world = World::new(5, Impairment::NONE);
    let ann = world.join_srtp("ann", &[OPUS], nothing());
    let bob = world.join_srtp("bob", &[], everything());
    let mut forged = world.srtp[ann].client.senders[0].packet(111, 0, false, vec![1; 20]);
    forged[2..4].copy_from_slice(&40_000u16.to_be_bytes());
    world.inject(stranger(), &forged);
    world.run_for(SECONDS(1));
    assert_eq!(world.shard.stats().dropped_unauthentic, 1);
    assert!(world.srtp[bob].client.receivers[0].received.len() > 40);
}

#[test]
fn garbage_of_known_ssrcs_harms_nobody() {
    let mut world = World::new(10, Impairment::NONE);
    let ann = world.join_srtp("ann", &[VP8], nothing());
    let bob = world.join_srtp("bob", &[], everything());
    world.run_for(SECONDS(1));
    let (from, to) = (world.srtp[ann].client.address, world.srtp[bob].client.address);
    let received = &world.srtp[bob].client.receivers[0].stream;
    let ssrcs = [
        world.srtp[ann].client.senders[0].stream.ssrc,
        received.ssrc,
        received.feedback_ssrc,
    ];
    let mut rng = StdRng::seed_from_u64(10);
    for round in 0..30_000 {
        let mut datagram = vec![0; rng.random_range(12..160)];
        rng.fill(&mut datagram[..]);
        datagram[0] = 0x80 | datagram[0] & 0x3f;
        let is_rtcp = round % 2 == 0;
        datagram[1] = if is_rtcp { 192 + datagram[1] % 32 } else { 96 };
        let at = if is_rtcp { 4 } else { 8 };
        datagram[at..at + 4].copy_from_slice(&ssrcs[round % ssrcs.len()].to_be_bytes());
        let source = [from, to, stranger()][rng.random_range(0..3)];
        world.inject(source, &datagram);
    }
    assert_eq!(world.astray, 0);
    let before = world.srtp[bob].client.receivers[0].received.len();
    world.run_for(SECONDS(2));
    assert!(world.srtp[bob].client.receivers[0].received.len() > before + 120);
}

#[test]
fn a_client_that_misuses_its_keys_harms_nobody_else() {
    let mut world = World::new(11, Impairment::NONE);
    let ann = world.join("ann", false, &["f"], (0, 1));
    let bob = world.join_srtp("bob", &[VP8], everything());
    let carl = world.join_srtp("carl", &[], everything());
    world.run_for(SECONDS(1));
    world.srtp[bob].client.is_silent = true;
    world.run_for(Duration::from_millis(100));
    let address = world.srtp[bob].client.address;
    let mut rng = StdRng::seed_from_u64(11);
    for round in 0..2_000u32 {
        let client = &mut world.srtp[bob].client;
        // Payloads that are empty, cut within a descriptor, or longer than the padding that they claim.
        let sender = &mut client.senders[0];
        let mut payload = vec![0; rng.random_range(0..9)];
        rng.fill(&mut payload[..]);
        let mut plain = vec![0x80 | (round as u8 & 1) << 5, 0x80 | sender.stream.payload_type];
        sender.sequence = sender.sequence.wrapping_add(rng.random_range(1..40));
        plain.extend(sender.sequence.to_be_bytes());
        plain.extend(rng.random::<u32>().to_be_bytes());
        plain.extend(sender.stream.ssrc.to_be_bytes());
        plain.extend(&payload);
        let media = sender.raw(&plain);
        // RTCP of every type and count, with a body that means nothing.
        let (sends, hears) = (sender.stream.ssrc, client.receivers[0].stream.feedback_ssrc);
        let mut body = vec![0u8; rng.random_range(0..8) * 4];
        rng.fill(&mut body[..]);
        let mut plain = |ssrc: u32| {
            let mut plain = vec![0x80 | rng.random_range(0..32u8), 200 + rng.random_range(0..8u8)];
            plain.extend((1 + body.len() as u16 / 4).to_be_bytes());
            plain.extend(ssrc.to_be_bytes());
            plain.extend(&body);
            plain
        };
        let (from_sender, from_receiver) = (plain(sends), plain(hears));
        let reports = [
            client.senders[0].raw_rtcp(&from_sender),
            client.receivers[0].raw_rtcp(&from_receiver),
        ];
        for (datagram, plain) in reports.iter().zip([&from_sender, &from_receiver]) {
            // A goodbye would end the stream.
            if plain[1] != 203 {
                world.inject(address, datagram);
            }
        }
        world.inject(address, &media);
        world.run_for(Duration::from_millis(1));
    }
    let of_ann = world.members[ann].joined.snapshot.participant.tracks[0].id.clone();
    let received = |world: &World| {
        let receivers = &world.srtp[carl].client.receivers;
        let from_ann = receivers
            .iter()
            .find(|receiver| receiver.stream.track.as_ref() == Some(&of_ann));
        from_ann.unwrap().received.len()
    };
    let before = received(&world);
    world.run_for(SECONDS(2));
    assert!(received(&world) > before + 120);
    let stats = world.shard.stats();
    assert_eq!((stats.failed_connections, stats.participants, world.astray), (0, 3, 0));
    assert!(
        stats.dropped_replayed + stats.dropped_unauthentic == 0,
        "all of it was authentic"
    );
}
