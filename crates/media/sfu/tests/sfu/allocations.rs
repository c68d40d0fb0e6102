//! Memory that is allocated for what is forwarded.

use std::time::Duration;

use crate::sfu::link::Impairment;
use crate::sfu::world::{Forwarding, World};

/// Sound and picture of one, to so many others, when all has settled.
fn forwarding(viewers: usize) -> Forwarding {
    let mut world = World::new(900, Impairment::NONE);
    world.join("ann", true, &["f"], (0, 0));
    for viewer in 0..viewers {
        world.join(&format!("viewer-{viewer}"), false, &[], (1, 1));
    }
    world.run_for(Duration::from_secs(10));
    world.forwarding = Some(Forwarding::default());
    world.run_for(Duration::from_secs(5));
    world.forwarding.unwrap()
}

#[test]
fn nothing_is_allocated_for_a_receiver_more() {
    let (few, many) = (forwarding(4), forwarding(40));
    assert!(few.arrived > 500 && many.arrived == few.arrived, "{few:?} {many:?}");
    let more = (many.sent - few.sent, many.allocations.saturating_sub(few.allocations));
    assert!(more.0 > 30 * few.arrived, "{few:?} {many:?}");
    // What is kept for repair still grows now and then.
    assert!(more.1 * 100 < more.0, "{more:?}: {few:?} {many:?}");
    // What arrives is decrypted, once.
    assert!(few.allocations < 30 * few.arrived, "{few:?}");
}
