//! How well everyone's connection does, as everyone is told.

use std::time::Duration;

use signalbox_protocol::ParticipantId;
use signalbox_protocol::control::{Command, Event, Reply};
use signalbox_protocol::room::ConnectionQuality;

use crate::sfu::link::Impairment;
use crate::sfu::srtp::{OPUS, VP8, everything};
use crate::sfu::world::World;

/// What a member was told last of another.
fn told(world: &World, member: usize, of: usize) -> Option<ConnectionQuality> {
    told_of(world, member, world.id(of))
}

/// The same of anyone.
fn told_of(world: &World, member: usize, of: ParticipantId) -> Option<ConnectionQuality> {
    let id = world.id(member);
    let qualities = world.events.iter().filter_map(|(to, event)| match event {
        Event::Quality { participants } if to.contains(&id) => Some(participants),
        _ => None,
    });
    let mut last = None;
    for told in qualities.flatten().filter(|told| told.participant == of) {
        last = Some(told.quality);
    }
    last
}

fn times(world: &World) -> usize {
    let qualities = world.events.iter();
    qualities
        .filter(|(_, event)| matches!(event, Event::Quality { .. }))
        .count()
}

#[test]
fn a_good_connection_is_told_once_and_a_newcomer_finds_it_in_its_snapshot() {
    let mut world = World::new(1, Impairment::NONE);
    let ann = world.join("ann", true, &["f"], (1, 1));
    let bob = world.join("bob", true, &[], (1, 1));
    world.connect();
    world.run_for(Duration::from_secs(5));
    assert_eq!(told(&world, bob, ann), Some(ConnectionQuality::Excellent));
    let before = times(&world);
    world.run_for(Duration::from_secs(10));
    assert_eq!(times(&world), before, "told again though nothing changed");
    let Reply::Snapshot(snapshot) = world.command(bob, Command::Attach).unwrap() else {
        panic!("no snapshot");
    };
    let mut whose: Vec<ParticipantId> = snapshot.qualities.into_iter().map(|one| one.participant).collect();
    whose.sort();
    let mut both = vec![world.id(ann), world.id(bob)];
    both.sort();
    assert_eq!(whose, both);
}

#[test]
fn a_lossy_connection_is_poor_and_one_that_is_heard_is_never_lost() {
    let impairment = Impairment {
        loss: 0.2,
        ..Impairment::NONE
    };
    let mut world = World::new(2, impairment);
    let ann = world.join("ann", true, &["f"], (1, 1));
    let bob = world.join("bob", false, &[], (1, 1));
    world.connect();
    world.run_until(Duration::from_secs(20), "ann's connection is poor", |world| {
        told(world, bob, ann) == Some(ConnectionQuality::Poor)
    });
    world.run_for(Duration::from_secs(20));
    let id = world.id(ann);
    let lost = world.events.iter().any(|(_, event)| {
        matches!(event, Event::Quality { participants } if participants.iter()
            .any(|one| one.participant == id && one.quality == ConnectionQuality::Lost))
    });
    assert!(!lost);
}

#[test]
fn who_falls_silent_is_lost_and_comes_back() {
    let mut world = World::new(3, Impairment::NONE);
    let ann = world.join("ann", true, &[], (0, 0));
    let bob = world.join("bob", true, &[], (1, 0));
    world.connect();
    world.run_for(Duration::from_secs(3));
    world.members[ann].is_gone = true;
    world.run_until(Duration::from_secs(15), "ann is lost", |world| {
        told(world, bob, ann) == Some(ConnectionQuality::Lost)
    });
    world.members[ann].is_gone = false;
    world.run_until(Duration::from_secs(15), "ann is back", |world| {
        told(world, bob, ann) < Some(ConnectionQuality::Lost)
    });
}

#[test]
fn a_client_without_a_peer_connection_is_rated_by_what_it_sends_and_by_what_it_reports() {
    let impairment = Impairment {
        loss: 0.2,
        ..Impairment::NONE
    };
    for (impairment, reported, expected) in [
        (Impairment::NONE, 0, ConnectionQuality::Excellent),
        (Impairment::NONE, 64, ConnectionQuality::Poor),
        (impairment, 0, ConnectionQuality::Poor),
    ] {
        let mut world = World::new(4, impairment);
        let bob = world.join("bob", true, &["f"], (1, 1));
        let carl = world.join_srtp("carl", &[VP8, OPUS], everything());
        for receiver in &mut world.srtp[carl].client.receivers {
            receiver.fraction_lost = reported;
        }
        let id = world.srtp[carl].id();
        world.run_until(Duration::from_secs(20), "carl is rated", |world| {
            told_of(world, bob, id.clone()) == Some(expected)
        });
        world.run_for(Duration::from_secs(10));
        assert_eq!(told_of(&world, bob, id), Some(expected), "and stays so");
    }
}
