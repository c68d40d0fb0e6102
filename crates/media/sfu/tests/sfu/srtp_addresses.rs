//! What an address must prove before anything is sent to it, how long that holds, and what those who prove nothing can do.

use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use signalbox_protocol::control::{CloseReason, Command, Event};
use signalbox_protocol::room::{Kind, ParticipantState};
use signalbox_protocol::srtp::SrtpSuite;
use signalbox_sfu::Limits;

use crate::sfu::link::Impairment;
use crate::sfu::srtp::{OPUS, SECONDS, VP8, everything, nothing};
use crate::sfu::srtp_client::context;
use crate::sfu::world::World;

fn stranger() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], 9))
}

#[test]
fn nothing_is_sent_before_an_address_is_proven() {
    let mut world = World::new(1, Impairment::NONE);
    world.join_srtp("ann", &[VP8], nothing());
    let bob = world.join_srtp("bob", &[], everything());
    world.srtp[bob].client.is_quiet = true;
    world.run_for(SECONDS(2));
    assert!(world.srtp[bob].client.receivers[0].received.is_empty());
    assert_eq!(world.astray, 0);
    // A report in the clear proves nothing.
    let (now, address) = (world.now, world.srtp[bob].client.address);
    let report = world.srtp[bob].client.receivers[0].report_in_the_clear(now);
    world.inject(address, &report);
    world.run_for(SECONDS(1));
    assert!(world.srtp[bob].client.receivers[0].received.is_empty());

    let id = world.srtp[bob].id();
    let is_active = |world: &World| {
        world.events.iter().any(|(_, event)| {
            matches!(event, Event::ParticipantUpdated { participant }
                if participant.id == id && participant.state == ParticipantState::Active)
        })
    };
    assert!(!is_active(&world));
    world.srtp[bob].prove(now);
    world.run_until(
        Duration::from_millis(100),
        "a key frame was asked for at once",
        |world| !world.srtp[bob].client.receivers[0].received.is_empty(),
    );
    world.run_for(SECONDS(2));
    let received = &world.srtp[bob].client.receivers[0].received;
    assert!(
        received.len() > 100 && received[0].begins_key_frame,
        "{} packets",
        received.len()
    );

    assert!(is_active(&world), "the others are told that bob is there");

    // The proof is good once: whoever has seen it cannot have the stream sent elsewhere.
    let replayed = world.shard.stats().dropped_replayed;
    let proof = world.srtp[bob].client.proofs().remove(0);
    world.inject(stranger(), &proof);
    assert_eq!(world.shard.stats().dropped_replayed, replayed + 1);
    world.run_for(SECONDS(1));
    assert_eq!(world.astray, 0);
}

#[test]
fn a_change_of_address_is_followed_and_an_old_packet_does_not_undo_it() {
    let mut world = World::new(2, Impairment::NONE);
    world.join_srtp("ann", &[VP8], nothing());
    let bob = world.join_srtp("bob", &[VP8], everything());
    world.run_for(SECONDS(2));
    let old = world.srtp[bob].client.address;
    // Both were sent before the change, and arrive after it.
    let (now, client) = (world.now, &mut world.srtp[bob].client);
    let media = client.senders[0].packet(96, 0, false, vec![0x10, 1]);
    let report = client.receivers[0].report(now);
    world.srtp[bob].client.address = SocketAddr::from(([198, 51, 100, 1], 7_777));
    // Not when a report is due, which would make good at once what an old one has done.
    world.run_for(Duration::from_millis(1_300));
    let (astray, received) = (world.astray, world.srtp[bob].client.receivers[0].received.len());
    world.inject(old, &media);
    world.inject(old, &report);
    world.run_for(SECONDS(2));
    assert_eq!(world.astray, astray, "nothing goes to the old address any more");
    assert!(world.srtp[bob].client.receivers[0].received.len() > received + 120);
    assert!(
        world.srtp[bob].client.senders[0].reports.len() > 3,
        "reports go to the new one"
    );
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
fn a_receiver_is_held_by_reports_in_the_clear_and_stops_without_any() {
    let mut world = World::new(6, Impairment::NONE);
    world.join_srtp("ann", &[OPUS], nothing());
    // What it sends keeps it in the room.
    let bob = world.join_srtp("bob", &[OPUS], everything());
    world.run_for(SECONDS(2));
    world.command_srtp(bob, Command::Detach).unwrap();
    world.srtp[bob].client.is_quiet = true;
    let idle = Limits::default().srtp_idle;
    // Some clients cannot encrypt their reports, and send them from another port.
    let other_port = SocketAddr::new(world.srtp[bob].client.address.ip(), 9_999);
    let report_from = |world: &mut World, source: SocketAddr| {
        let now = world.now;
        let report = world.srtp[bob].client.receivers[0].report_in_the_clear(now);
        world.inject(source, &report);
    };
    let receives = |world: &mut World| {
        let before = world.srtp[bob].client.receivers[0].received.len();
        world.run_for(SECONDS(1));
        world.srtp[bob].client.receivers[0].received.len() > before + 40
    };
    for _ in 0..3 {
        world.run_for(idle - SECONDS(5));
        report_from(&mut world, other_port);
    }
    assert!(receives(&mut world), "the reports hold it");
    world.run_for(idle - SECONDS(10));
    report_from(&mut world, stranger());
    assert!(receives(&mut world));
    world.run_for(SECONDS(10));
    assert!(!receives(&mut world), "another host's reports do not");
    assert_eq!(world.shard.stats().participants, 2);
    world.srtp[bob].client.is_quiet = false;
    world.run_for(SECONDS(1));
    assert!(receives(&mut world), "it may prove itself again");
    assert_eq!(world.astray, 0);
}

#[test]
fn signaling_holds_a_receiver_that_sends_nothing() {
    let mut world = World::new(9, Impairment::NONE);
    world.join_srtp("ann", &[OPUS], nothing());
    let bob = world.join_srtp("bob", &[], everything());
    world.srtp[bob].client.is_quiet = true;
    let now = world.now;
    world.srtp[bob].prove(now);
    world.run_for(Limits::default().srtp_idle * 3);
    let before = world.srtp[bob].client.receivers[0].received.len();
    assert!(before > 8_000, "{before} packets in three minutes");
    world.command_srtp(bob, Command::Detach).unwrap();
    world.run_for(Limits::default().srtp_idle + SECONDS(1));
    assert_eq!(world.shard.stats().participants, 1);
}

#[test]
fn who_says_nothing_ends_after_the_stated_time_and_its_packets_are_nobodys() {
    let mut world = World::new(7, Impairment::NONE);
    let ann = world.join_srtp("ann", &[OPUS], nothing());
    let bob = world.join_srtp("bob", &[OPUS], everything());
    let idle = Limits::default().srtp_idle;
    for member in [ann, bob] {
        world.command_srtp(member, Command::Detach).unwrap();
    }
    // One is heard for a while, one never.
    world.srtp[bob].is_gone = true;
    world.run_for(SECONDS(30));
    world.srtp[ann].client.is_silent = true;
    world.run_for(idle - SECONDS(31));
    assert_eq!(world.shard.stats().participants, 2);
    world.run_for(SECONDS(2));
    assert_eq!(
        world.shard.stats().participants,
        1,
        "it had that long for its first packet"
    );
    world.run_for(SECONDS(28));
    assert_eq!(world.shard.stats().participants, 1);
    world.run_for(SECONDS(2));
    assert_eq!(world.shard.stats().participants, 0);
    let unknown = world.shard.stats().dropped_ssrc;
    world.srtp[ann].client.is_silent = false;
    world.run_for(SECONDS(1));
    assert!(world.shard.stats().dropped_ssrc > unknown + 40);
}

#[test]
fn a_removed_participants_packets_are_nobodys() {
    let mut world = World::new(8, Impairment::NONE);
    let ann = world.join_srtp("ann", &[OPUS], everything());
    let bob = world.join_srtp("bob", &[], everything());
    world.run_for(SECONDS(1));
    world.command_srtp(ann, Command::Leave).unwrap();
    let closed = world.events.iter().any(|(to, event)| {
        *to == [world.srtp[ann].id()]
            && *event
                == Event::Closed {
                    reason: CloseReason::Left,
                }
    });
    assert!(closed);
    world.run_for(Duration::from_millis(100));
    let (before, received) = (
        world.shard.stats(),
        world.srtp[bob].client.receiver(Kind::Audio).received.len(),
    );
    world.run_for(SECONDS(1));
    let after = world.shard.stats();
    assert!(after.dropped_ssrc - before.dropped_ssrc > 40);
    assert_eq!(after.dropped_unauthentic, before.dropped_unauthentic);
    assert_eq!(world.srtp[bob].client.receiver(Kind::Audio).received.len(), received);
    world.command_srtp(bob, Command::Leave).unwrap();
    let before = world.shard.stats().dropped_ssrc;
    let (now, address) = (world.now, world.srtp[bob].client.address);
    let receiver = world.srtp[bob].client.receiver(Kind::Audio);
    let reports = [receiver.report(now), receiver.report_in_the_clear(now)];
    for report in &reports {
        world.inject(address, report);
    }
    assert_eq!(world.shard.stats().dropped_ssrc, before + 2);
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

#[test]
fn nobody_is_asked_at_an_address_that_has_long_been_silent() {
    let mut world = World::new(12, Impairment::NONE);
    let ann = world.join_srtp("ann", &[VP8], nothing());
    let bob = world.join("bob", false, &[], (0, 1));
    world.run_for(SECONDS(2));
    let mid = world.slots(bob)[0].mid.clone();
    let asked = |world: &mut World| {
        let before = world.srtp[ann].client.senders[0].key_frames_wanted;
        world.members[bob].client.want_key_frame(mid.as_str().into());
        world.run_for(SECONDS(1));
        world.srtp[ann].client.senders[0].key_frames_wanted > before
    };
    assert!(asked(&mut world));
    world.srtp[ann].client.is_silent = true;
    world.run_for(Limits::default().srtp_idle - SECONDS(5));
    assert!(asked(&mut world));
    world.run_for(SECONDS(6));
    assert!(!asked(&mut world));
    world.srtp[ann].client.is_silent = false;
    world.run_for(SECONDS(1));
    assert!(asked(&mut world));
}
