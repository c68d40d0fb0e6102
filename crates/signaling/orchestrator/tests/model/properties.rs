//! What must hold in every state, and what must happen in some.

use stateright::Property;

use crate::map::Map;
use crate::state::{How, Move, State};

pub const ONE_OWNER: &str = "each generation has one owner";
pub const GROWS_BY_ONE: &str = "the generation grows by one";
pub const NO_LIVE_ROOM_IS_TAKEN: &str = "no room is taken from an owner whose epoch is not over";
pub const OWN_GENERATION: &str = "no node hosts another generation than its own";
pub const NO_TWO_HOSTS: &str = "no two nodes host the room at once, but for the two of a hand-off";

/// The invariants, and that the states of interest are reached.
pub fn all(map: &Map) -> Vec<Property<Map>> {
    let mut properties = vec![
        Property::always(ONE_OWNER, |_, state: &State| {
            let same = |a: &Move, b: &Move| a.generation == b.generation && (a.node, a.epoch) != (b.node, b.epoch);
            !pairs(&state.moves).any(|(a, b)| same(a, b))
        }),
        Property::always(GROWS_BY_ONE, |_, state: &State| {
            let generations = state.moves.iter().map(|one| usize::from(one.generation));
            generations.eq(1..=state.moves.len())
        }),
        Property::always(NO_LIVE_ROOM_IS_TAKEN, |_, state: &State| {
            let stolen = How::TakenOver { owner_was_over: false };
            state.moves.iter().all(|one| one.how != stolen)
        }),
        Property::always(OWN_GENERATION, |_, state: &State| {
            hosts(state).all(|(node, generation)| {
                let epoch = state.processes[node].epoch;
                let own = |one: &Move| one.generation == generation && one.node == node && Some(one.epoch) == epoch;
                state.moves.iter().any(own)
            })
        }),
        Property::always(NO_TWO_HOSTS, |_, state: &State| {
            let generations: Vec<_> = hosts(state).map(|(_, generation)| generation).collect();
            pairs(&generations).all(|(a, b)| a != b && state.was_handed_off(*a.min(b)))
        }),
        Property::sometimes(
            "a room is taken over and hosted by its new owner",
            |_, state: &State| {
                hosts(state)
                    .any(|(_, generation)| came_by(state, generation, |how| matches!(how, How::TakenOver { .. })))
            },
        ),
        Property::sometimes("a room that was closed is placed again", |_, state: &State| {
            came_by(state, 2, |how| how == How::Placed)
        }),
        Property::sometimes(
            "the room lives through as many generations as there may be",
            |map: &Map, state: &State| state.moves.len() == usize::from(map.max_generation),
        ),
        Property::sometimes(
            "a room is given to an epoch that has ended meanwhile",
            |_, state: &State| {
                state.room.is_some_and(|room| {
                    let last = state.moves.last().map(|last| last.epoch);
                    !room.closed
                        && state.is_over(room)
                        && last == Some(room.epoch)
                        && state.statements.iter().all(Option::is_none)
                })
            },
        ),
        Property::sometimes(
            "a request to close arrives after the room has moved on",
            |_, state: &State| {
                let generation = state.room.map_or(0, |room| room.generation);
                state.closes.iter().any(|(_, _, late)| *late < generation)
            },
        ),
    ];
    if map.hand_offs {
        properties.extend([
            Property::sometimes(
                "a room is handed off and hosted by both for a while",
                |_, state: &State| hosts(state).count() == 2,
            ),
            Property::sometimes("a room that was handed off is taken over", |_, state: &State| {
                came_by(state, 2, |how| how == How::HandedOff)
                    && came_by(state, 3, |how| matches!(how, How::TakenOver { .. }))
            }),
        ]);
    }
    properties
}

/// The nodes that host the room, and in which generation.
fn hosts(state: &State) -> impl Iterator<Item = (usize, u8)> {
    let processes = state.processes.iter().enumerate();
    processes.filter_map(|(node, process)| Some((node, process.hosts?)))
}

fn came_by(state: &State, generation: u8, is_it: impl Fn(How) -> bool) -> bool {
    let mut moves = state.moves.iter();
    moves.any(|one| one.generation == generation && is_it(one.how))
}

/// Each two of them.
fn pairs<T>(all: &[T]) -> impl Iterator<Item = (&T, &T)> {
    let each = all.iter().enumerate();
    each.flat_map(|(index, one)| all[index + 1..].iter().map(move |other| (one, other)))
}
