//! What a node says came of its connections.

use std::time::Duration;

use signalbox_protocol::control::Command;
use signalbox_sfu::Limits;

use crate::sfu::link::Impairment;
use crate::sfu::world::World;

fn counted(world: &World) -> (u64, u64) {
    let stats = world.shard.stats();
    (stats.connections_up, stats.connections_failed)
}

#[test]
fn a_connection_that_comes_up_counts_once() {
    let mut world = World::new(1, Impairment::NONE);
    world.join("ann", true, &[], (0, 0));
    world.join("bob", true, &[], (1, 0));
    world.run_for(Duration::from_secs(60));
    assert_eq!(counted(&world), (2, 0));
}

#[test]
fn a_connection_that_does_not_come_up_in_time_is_a_failure_and_its_client_counts_once() {
    let mut world = World::new(2, Impairment::NONE);
    for _ in 0..3 {
        let ann = world.join("ann", true, &[], (0, 0));
        world.members[ann].is_gone = true;
        world.run_for(Duration::from_secs(12));
    }
    assert_eq!(counted(&world), (0, 1));
    let bob = world.join("bob", true, &[], (0, 0));
    world.members[bob].is_gone = true;
    world.run_for(Duration::from_secs(12));
    assert_eq!(counted(&world), (0, 2), "somebody else");
}

#[test]
fn a_connection_that_goes_silent_while_its_signaling_is_there_is_lost() {
    let mut world = World::new(3, Impairment::NONE);
    let ann = world.join("ann", true, &[], (0, 0));
    world.run_for(Duration::from_secs(2));
    world.members[ann].is_gone = true;
    world.run_for(Duration::from_secs(30));
    assert_eq!(counted(&world), (1, 1));
}

#[test]
fn who_leaves_or_goes_without_a_word_has_not_failed() {
    let mut world = World::new(4, Impairment::NONE);
    let ann = world.join("ann", true, &[], (0, 0));
    let bob = world.join("bob", true, &[], (0, 0));
    world.run_for(Duration::from_secs(2));
    world.command(ann, Command::Leave).unwrap();
    world.command(bob, Command::Detach).unwrap();
    world.members[bob].is_gone = true;
    // Before it could have come up.
    let carl = world.join("carl", true, &[], (0, 0));
    world.members[carl].is_gone = true;
    world.run_for(Duration::from_secs(1));
    world.command(carl, Command::Leave).unwrap();
    world.run_for(Limits::default().departure * 2);
    assert_eq!(world.shard.stats().participants, 0);
    assert_eq!(counted(&world), (2, 0));
}
