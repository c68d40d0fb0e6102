//! Clients without a peer connection, together with peers and with each other: media and what is said about it.

use std::time::Duration;

use signalbox_protocol::control::{Command, Event};
use signalbox_protocol::room::{Kind, ParticipantState};
use signalbox_protocol::srtp::{SrtpRequest, SrtpSuite, SrtpWanted};

use crate::sfu::client::Received;
use crate::sfu::link::Impairment;
use crate::sfu::world::World;

pub const SECONDS: fn(u64) -> Duration = Duration::from_secs;
pub const OPUS: &str = "audio/opus";
pub const VP8: &str = "video/VP8";
const SUITES: [SrtpSuite; 2] = [SrtpSuite::AesCm128HmacSha1_80, SrtpSuite::AeadAes128Gcm];

/// A stream for everything that there is.
pub fn everything() -> SrtpRequest {
    SrtpRequest {
        receive_present: true,
        ..nothing()
    }
}

/// No stream to receive.
pub fn nothing() -> SrtpRequest {
    SrtpRequest {
        suite: SrtpSuite::default(),
        ssrcs: Vec::new(),
        receive_present: false,
        receive: Vec::new(),
        resume: Vec::new(),
    }
}

pub fn wanted(kind: Kind, codec: Option<&str>) -> SrtpWanted {
    SrtpWanted {
        kind,
        codec: codec.map(str::to_owned),
    }
}

#[test]
fn a_peer_and_a_client_without_one_hear_and_see_each_other() {
    for suite in SUITES {
        let mut world = World::new(1, Impairment::NONE);
        let ann = world.join("ann", true, &["f"], (1, 1));
        let bob = world.join_srtp("bob", &[VP8, OPUS], SrtpRequest { suite, ..everything() });
        world.run_for(SECONDS(5));
        let id = world.srtp[bob].id();
        for (kind, least) in [(Kind::Audio, 200), (Kind::Video, 400)] {
            let to_peer = world.received_of(ann, id.clone(), kind).to_vec();
            let to_srtp = world.srtp[bob].client.receiver(kind).received.clone();
            for packets in [to_peer, to_srtp] {
                assert!(packets.len() > least, "{} packets of {kind:?}", packets.len());
                assert!(
                    packets.windows(2).all(|pair| pair[1].sequence == pair[0].sequence + 1),
                    "no gaps"
                );
                assert!(packets[0].begins_key_frame || kind == Kind::Audio);
            }
        }
        let pictures = &world.srtp[bob].client.receiver(Kind::Video).received;
        let is_continuous = |pair: &[Received]| {
            let (before, after) = (pair[0].picture_id.unwrap(), pair[1].picture_id.unwrap());
            after == before || after == before + 1
        };
        assert!(pictures.windows(2).all(is_continuous));
        let is_told = world.events.iter().any(|(_, event)| {
            matches!(event, Event::ParticipantUpdated { participant }
                if participant.id == id && participant.state == ParticipantState::Active)
        });
        assert!(is_told, "the others are told that bob is there");
        assert_eq!(world.astray, 0);
    }
}

#[test]
fn two_clients_without_a_peer_connection_see_each_other() {
    let mut world = World::new(2, Impairment::NONE);
    let ann = world.join_srtp(
        "ann",
        &[VP8],
        SrtpRequest {
            receive: vec![wanted(Kind::Video, None)],
            ..nothing()
        },
    );
    let bob = world.join_srtp(
        "bob",
        &[VP8],
        SrtpRequest {
            suite: SrtpSuite::AeadAes128Gcm,
            ..everything()
        },
    );
    let carried = world.srtp[bob].client.receivers[0].stream.track.clone();
    assert_eq!(carried, world.srtp[ann].client.senders[0].stream.track);
    world.run_for(SECONDS(3));
    for member in [ann, bob] {
        let received = world.srtp[member].client.receiver(Kind::Video).received.len();
        assert!(received > 200, "{received} packets");
    }
}

#[test]
fn padding_is_not_forwarded() {
    let mut world = World::new(14, Impairment::NONE);
    let ann = world.join_srtp("ann", &[OPUS], nothing());
    let bob = world.join("bob", false, &[], (1, 0));
    world.run_for(SECONDS(1));
    world.srtp[ann].client.is_silent = true;
    world.run_for(Duration::from_millis(100));
    let (id, address) = (world.srtp[ann].id(), world.srtp[ann].client.address);
    let before = world.received_of(bob, id.clone(), Kind::Audio).len();
    // Five bytes of payload and three of padding; then nothing but padding.
    for payload in [&[0xfc, 9, 0, 0, 0, 0, 0, 3][..], &[0, 0, 3]] {
        let sender = &mut world.srtp[ann].client.senders[0];
        let mut plain = vec![0xa0, sender.stream.payload_type];
        plain.extend(sender.sequence.to_be_bytes());
        plain.extend(1_000_000u32.to_be_bytes());
        plain.extend(sender.stream.ssrc.to_be_bytes());
        plain.extend(payload);
        sender.sequence += 1;
        let datagram = sender.raw(&plain);
        world.inject(address, &datagram);
    }
    world.run_for(Duration::from_millis(100));
    let received = world.received_of(bob, id, Kind::Audio);
    assert_eq!(received.len(), before + 1);
    assert_eq!(received[before].layer, 9, "the fourth byte from the end");
}

#[test]
fn a_late_joiner_gets_a_key_frame_from_a_client_without_a_peer_connection() {
    let mut world = World::new(4, Impairment::NONE);
    let ann = world.join_srtp("ann", &[VP8], nothing());
    world.run_for(SECONDS(2));
    assert_eq!(world.srtp[ann].client.senders[0].key_frames_wanted, 0);
    let bob = world.join("bob", false, &[], (0, 1));
    let id = world.srtp[ann].id();
    world.run_until(SECONDS(1), "bob sees ann", |world| {
        !world.received_of(bob, id.clone(), Kind::Video).is_empty()
    });
    assert!(world.srtp[ann].client.senders[0].key_frames_wanted > 0);
    assert!(world.received_of(bob, id.clone(), Kind::Video)[0].begins_key_frame);
}

#[test]
fn a_picture_loss_reaches_the_publisher() {
    let mut world = World::new(5, Impairment::NONE);
    let ann = world.join("ann", false, &["f"], (0, 0));
    let bob = world.join_srtp("bob", &[], everything());
    world.run_for(SECONDS(2));
    let asked_before = world.members[ann].client.key_frames_wanted.len();
    let (now, address) = (world.now, world.srtp[bob].client.address);
    let request = world.srtp[bob].client.receivers[0].picture_loss();
    world.inject(address, &request);
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.members[ann].client.key_frames_wanted.len(), asked_before + 1);
    assert!(world.now > now);
}

#[test]
fn who_cannot_ask_gets_key_frames_ever_less_often() {
    let mut world = World::new(12, Impairment::NONE);
    let ann = world.join("ann", false, &["f"], (0, 0));
    let bob = world.join_srtp("bob", &[], everything());
    world.run_until(SECONDS(5), "ann sends", |world| world.members[ann].client.is_connected);
    world.run_for(SECONDS(1));
    let asked = |world: &World| world.members[ann].client.key_frames_wanted.len();
    // One that has sent RTCP of its own can ask.
    let before = asked(&world);
    world.run_for(SECONDS(30));
    assert_eq!(asked(&world), before);

    let carl = world.join_srtp("carl", &[], everything());
    world.srtp[carl].client.is_quiet = true;
    let now = world.now;
    world.srtp[carl].prove(now);
    // At once; then half a second later, and one, two, four, eight, ten, ten.
    world.run_for(SECONDS(40));
    let frames = &world.srtp[carl].client.receivers[0].received;
    let key_frames: Vec<Duration> = frames
        .iter()
        .filter(|packet| packet.begins_key_frame)
        .map(|packet| packet.at)
        .collect();
    let steps: Vec<f64> = key_frames
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs_f64())
        .collect();
    let expected = [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0];
    assert_eq!(steps.len(), expected.len(), "{steps:?}");
    for (step, expected) in steps.iter().zip(expected) {
        assert!((step - expected).abs() < 0.2, "{steps:?}");
    }
    assert!(world.now > now && world.srtp[bob].client.receivers[0].received.len() > 3_000);
}

#[test]
fn what_does_not_come_is_asked_for_and_forwarded_when_it_does() {
    let mut world = World::new(6, Impairment::NONE);
    let ann = world.join_srtp("ann", &[VP8], nothing());
    let bob = world.join("bob", false, &[], (0, 1));
    world.srtp[ann].client.senders[0]
        .hold_back
        .extend([1_200, 1_205, 1_300]);
    world.run_for(SECONDS(4));
    assert_eq!(
        world.srtp[ann].client.senders[0].missing,
        [1_200, 1_205, 1_300],
        "each is asked for once"
    );
    let mut sequences: Vec<u64> = world
        .received_of(bob, world.srtp[ann].id(), Kind::Video)
        .iter()
        .map(|packet| packet.sequence)
        .collect();
    assert!(sequences.windows(2).any(|pair| pair[1] < pair[0]), "they come late");
    sequences.sort_unstable();
    assert!(
        sequences.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "and none is missing"
    );
}

#[test]
fn what_is_missed_is_sent_again_once_in_a_round_trip() {
    let mut world = World::new(7, Impairment::NONE);
    world.join("ann", false, &["f"], (0, 0));
    let bob = world.join_srtp("bob", &[], everything());
    world.run_for(SECONDS(3));
    let address = world.srtp[bob].client.address;
    let receiver = &mut world.srtp[bob].client.receivers[0];
    let sequences: Vec<u16> = receiver.received.iter().map(|packet| packet.sequence as u16).collect();
    let wanted = [sequences[150], sequences[152]];
    let never_sent = sequences[150].wrapping_add(20_000);
    // Twice in a row, as two datagrams.
    let requests: Vec<Vec<u8>> = (0..2)
        .map(|_| receiver.nack(&[wanted[0], wanted[1], never_sent]))
        .collect();
    for request in requests {
        world.inject(address, &request);
    }
    world.run_for(Duration::from_millis(500));
    let again = |world: &World, sequence: u16| {
        let received = &world.srtp[bob].client.receivers[0].received;
        received
            .iter()
            .filter(|packet| packet.sequence == u64::from(sequence))
            .count()
    };
    for sequence in wanted {
        assert_eq!(again(&world, sequence), 2, "at first, and once more");
    }
    let request = world.srtp[bob].client.receivers[0].nack(&wanted[..1]);
    world.inject(address, &request);
    world.run_for(Duration::from_millis(500));
    assert_eq!(
        again(&world, wanted[0]),
        3,
        "a round trip later it may be asked for again"
    );
}

#[test]
fn both_sides_report_every_second() {
    let mut world = World::new(8, Impairment::NONE);
    let ann = world.join_srtp("ann", &[VP8], nothing());
    let bob = world.join_srtp("bob", &[], everything());
    let report = world.srtp[ann].client.senders[0].sender_report(0x1122_3344_5566_7788);
    let address = world.srtp[ann].client.address;
    world.run_for(Duration::from_millis(500));
    world.inject(address, &report);
    // Never sent, so lost.
    world.srtp[ann].client.senders[0].sequence += 10;
    world.run_for(SECONDS(5));
    let reports = &world.srtp[ann].client.senders[0].reports;
    assert!(
        (5..=15).contains(&reports.len()),
        "{} reports, with those of the requests",
        reports.len()
    );
    let last = reports.last().unwrap();
    assert_eq!(last.ssrc, world.srtp[ann].client.senders[0].stream.ssrc);
    assert_eq!((last.total_lost, last.last_sender_report), (10, 0x3344_5566));
    assert!(reports.iter().any(|report| report.fraction_lost > 0) && last.fraction_lost == 0);
    let seconds = f64::from(last.delay) / 65_536.0;
    assert!((4.0..5.1).contains(&seconds), "{seconds} s since the sender's report");

    let reports = &world.srtp[bob].client.receivers[0].sender_reports;
    assert!((4..=6).contains(&reports.len()), "{} reports", reports.len());
    let (first, last) = (&reports[0], reports.last().unwrap());
    let seconds = (last.ntp_time - first.ntp_time) as f64 / (1u64 << 32) as f64;
    let ticks = f64::from(last.rtp_time.wrapping_sub(first.rtp_time));
    assert!(
        (ticks / seconds - 90_000.0).abs() < 4_500.0,
        "{} ticks a second",
        ticks / seconds
    );
    assert!(last.packet_count > 300 && last.octet_count > 300 * 200);
}

#[test]
fn a_muted_track_is_not_forwarded() {
    let mut world = World::new(9, Impairment::NONE);
    let ann = world.join_srtp("ann", &[VP8], nothing());
    let bob = world.join_srtp("bob", &[], everything());
    world.run_for(SECONDS(1));
    let track = world.srtp[ann].client.senders[0].stream.track.clone().unwrap();
    let mute = |muted| Command::Mute {
        track: track.clone(),
        muted,
    };
    world.command_srtp(ann, mute(true)).unwrap();
    world.run_for(Duration::from_millis(100));
    let before = world.srtp[bob].client.receivers[0].received.len();
    world.run_for(SECONDS(1));
    assert_eq!(world.srtp[bob].client.receivers[0].received.len(), before);
    world.command_srtp(ann, mute(false)).unwrap();
    world.run_for(SECONDS(1));
    let after = &world.srtp[bob].client.receivers[0].received[before..];
    assert!(after.len() > 60 && after[0].begins_key_frame);
}

#[test]
fn a_goodbye_ends_its_stream() {
    let mut world = World::new(10, Impairment::NONE);
    let ann = world.join_srtp("ann", &[VP8, OPUS], nothing());
    let bob = world.join_srtp("bob", &[], everything());
    world.run_for(SECONDS(1));
    let (from, to) = (world.srtp[ann].client.address, world.srtp[bob].client.address);
    let goodbye = world.srtp[ann].client.sender(Kind::Video).goodbye();
    world.inject(from, &goodbye);
    let is_told = world
        .events
        .iter()
        .any(|(_, event)| matches!(event, Event::TrackUnpublished { .. }));
    assert!(is_told);
    let unknown = world.shard.stats().dropped_ssrc;
    world.run_for(SECONDS(1));
    assert!(
        world.shard.stats().dropped_ssrc > unknown + 60,
        "its packets are nobody's"
    );

    let goodbye = world.srtp[bob].client.receiver(Kind::Audio).goodbye();
    world.srtp[bob].client.is_quiet = true;
    world.inject(to, &goodbye);
    world.run_for(Duration::from_millis(100));
    let before = world.srtp[bob].client.receiver(Kind::Audio).received.len();
    assert!(before > 30);
    world.run_for(SECONDS(1));
    assert_eq!(world.srtp[bob].client.receiver(Kind::Audio).received.len(), before);

    // Without signaling, the end of the last stream is how a client leaves.
    world.command_srtp(ann, Command::Detach).unwrap();
    let goodbye = world.srtp[ann].client.sender(Kind::Audio).goodbye();
    world.inject(from, &goodbye);
    assert_eq!(world.shard.stats().participants, 1);
}
