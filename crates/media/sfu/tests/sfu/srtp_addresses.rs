//! What an address must prove before anything is sent to it, and how long that holds.

use std::net::SocketAddr;
use std::time::Duration;

use signalbox_protocol::control::{CloseReason, Command, Event};
use signalbox_protocol::room::{Kind, ParticipantState};
use signalbox_sfu::Limits;

use crate::sfu::link::Impairment;
use crate::sfu::srtp::{OPUS, SECONDS, VP8, everything, nothing};
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
