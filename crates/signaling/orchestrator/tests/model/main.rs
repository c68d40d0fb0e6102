//! The rule of the room map, checked over all interleavings of two nodes, two orchestrators and one room.
//!
//! `state` is what there is, `map` what each statement, message and process does with it, and `properties` what must
//! hold. The tests below explore every state within the bounds, and then do so again with one thing taken away at a
//! time: each of them must lead to a counter-example, or the check could not fail.

mod map;
mod properties;
mod state;
mod symmetry;

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Path};

use map::{Action, Flaw, Map};
use state::State;

/// Explores all states, and prints how many there are.
fn explore(map: Map) -> impl Checker<Map> {
    let (start, described) = (Instant::now(), format!("{map:?}"));
    let checker = map.checker().threads(2).symmetry().spawn_dfs().join();
    let (states, depth, took) = (checker.unique_state_count(), checker.max_depth(), start.elapsed());
    println!("{described}: {states} states, {depth} steps deep, in {took:.1?}");
    checker
}

/// A short way in which this flaw breaks the property.
fn counter_example(flaw: Flaw, property: &'static str) -> Vec<Action> {
    let map = Map {
        flaw: Some(flaw),
        ..Map::default()
    };
    let only = HasDiscoveries::AnyOf([property].into());
    let checker = map.checker().finish_when(only).spawn_bfs().join();
    let path: Path<State, Action> = checker.discovery(property).expect("the flaw shows");
    let actions = path.into_actions();
    println!("{flaw:?}, {} states: {actions:?}", checker.unique_state_count());
    actions
}

/// Where the only such action is on the path.
fn position(path: &[Action], is_it: impl Fn(&Action) -> bool) -> usize {
    let mut found = path.iter().enumerate().filter(|(_, action)| is_it(action));
    let (position, _) = found.next().expect("it is on the path");
    assert!(found.next().is_none(), "only once");
    position
}

#[test]
fn a_room_has_one_owner_through_every_interleaving() {
    explore(Map::default()).assert_properties();
}

#[test]
fn without_hand_offs_no_two_nodes_ever_host_the_room_at_once() {
    let map = Map {
        hand_offs: false,
        max_generation: 4,
        ..Map::default()
    };
    explore(map).assert_properties();
}

#[test]
#[ignore = "takes minutes"]
fn a_room_has_one_owner_within_wider_bounds() {
    let map = Map {
        max_epoch: 4,
        ..Map::default()
    };
    explore(map).assert_properties();
}

#[test]
fn the_naive_predicate_steals_from_an_owner_that_the_statement_does_not_see() {
    let path = counter_example(Flaw::NaivePredicate, properties::NO_LIVE_ROOM_IS_TAKEN);
    // A statement takes its view and waits; a node that is not in that view registers and is given the room; the
    // statement goes on, finds nobody alive in its view, and takes the room.
    let Some(Action::EndStatement { orchestrator: thief }) = path.last() else {
        panic!("the theft comes last: {path:?}")
    };
    let begin = |is: bool| {
        position(
            &path,
            |action| matches!(action, Action::BeginPlace { orchestrator, .. } if (orchestrator == thief) == is),
        )
    };
    let (view, rival) = (begin(true), begin(false));
    let Action::BeginPlace { candidate: owner, .. } = path[rival] else {
        unreachable!()
    };
    let registered = position(&path, |action| *action == Action::Register { node: owner });
    let placed = position(
        &path,
        |action| matches!(action, Action::EndStatement { orchestrator } if orchestrator != thief),
    );
    assert!(view < registered && registered < rival && rival < placed, "{path:?}");
    assert_eq!(placed, path.len() - 2);
}

#[test]
fn a_fence_that_does_not_wait_for_the_node_splits_the_room() {
    let path = counter_example(Flaw::FenceTooEarly, properties::NO_TWO_HOSTS);
    let Action::Fence { node: slow } = path[position(&path, |action| matches!(action, Action::Fence { .. }))] else {
        unreachable!()
    };
    let admits = |action: &Action| matches!(action, Action::Admit { node, .. } if *node == slow);
    assert!(path.iter().any(admits), "the node that was fenced hosts on: {path:?}");
    assert!(!path.contains(&Action::Stop { node: slow }), "{path:?}");
}

#[test]
fn a_node_that_forgets_what_it_closed_splits_the_room() {
    let path = counter_example(Flaw::ForgetsClosedRooms, properties::NO_TWO_HOSTS);
    // A ticket for the generation that was closed arrives late.
    let closed = position(&path, |action| matches!(action, Action::Empty { .. }));
    let late = |action: &Action| matches!(action, Action::Admit { generation: 1, .. });
    assert!(
        path[..closed].iter().any(late) && path[closed..].iter().any(late),
        "{path:?}"
    );
}

#[test]
fn a_late_registration_that_does_not_look_at_the_epoch_splits_the_room() {
    let path = counter_example(Flaw::UnconditionalRegistration, properties::NO_TWO_HOSTS);
    assert!(
        path.iter().any(|action| matches!(action, Action::RegisterLate { .. })),
        "{path:?}"
    );
}
