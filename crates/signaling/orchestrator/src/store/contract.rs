//! What every store must do: the promises of [`Store`], as tests that run on any of them.
//!
//! `suite!(store, after)` makes one test of each function below: the first expression makes an empty store, or `None`
//! to skip; the second is a function that is given the store after the test.
//!
//! No test waits for time to pass. A lease of zero is over at once, a [`LONG`] one outlasts every test, and what a
//! clock has to tick for is asked until it is so.

pub mod canary;
pub mod chaos;
pub mod closes;
pub mod drains;
pub mod ejections;
pub mod fences;
pub mod groups;
pub mod hand_offs;
pub mod history;
pub mod leases;
pub mod linearizable;
pub mod lists;
pub mod places;
pub mod purges;
pub mod restores;
pub mod states;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use signalbox_protocol::history::Reasons;
use signalbox_protocol::node::{NodeLoad, NodeView, RegisterNode};
use signalbox_protocol::placement::{CloseRoom, Policy, Track};
use signalbox_protocol::{Epoch, NodeId, RoomName};
use tokio::task::JoinSet;

use super::{Assignment, Placed, Proposal, Renewal, Store};
use crate::brake::Brake;
use crate::placement::Wish;

/// Long enough that no lease runs out within a test.
pub const LONG: Duration = Duration::from_secs(600);

/// A margin that a [`LONG`] lease always leaves.
pub const MARGIN: Duration = Duration::from_secs(1);

/// A brake that has no grace and forgets at once, so that a lease of zero can be fenced.
pub const LOOSE: Brake = Brake {
    lease: Duration::ZERO,
    grace: Duration::ZERO,
};

/// Who acts, for the history.
const BY: &str = "orchestrator-1";

/// The list of the tests. A file's functions take an `Arc` of an empty store.
macro_rules! suite {
    ($store:expr, $after:expr) => {
        $crate::store::contract::suite!($store, $after;
            canary {
                a_share_that_was_never_set_is_none,
                a_change_of_the_share_is_kept_with_its_reasons,
                a_change_of_the_share_is_a_compare_and_set,
                of_concurrent_changes_of_the_share_one_succeeds,
                the_changes_of_the_share_are_bounded,
                outcomes_count_for_their_nodes_track,
                a_lost_nodes_outcomes_still_count,
                outcomes_count_for_the_share_that_they_came_under,
                outcomes_of_concurrent_calls_add_up,
                outcomes_outside_of_the_window_do_not_count_and_old_ones_are_removed,
            }
            chaos {
                a_live_room_is_never_stolen,
                whatever_happens_each_generation_has_one_owner,
            }
            closes {
                close_is_a_compare_and_set,
                of_concurrent_closes_one_closes,
                a_closed_rooms_generation_never_repeats,
                a_room_of_an_ended_epoch_can_still_be_closed,
            }
            drains {
                a_node_that_was_emptied_and_then_released_is_drained_and_one_with_rooms_is_lost,
                a_drain_counts_what_is_left_and_what_was_moved,
                a_drain_keeps_who_asked_for_it_first_and_when,
                a_drain_is_carried_on_by_one_at_a_time,
                what_was_measured_of_a_drain_is_kept_for_whoever_asks_until_it_ends,
                a_drain_that_ended_is_carried_on_by_nobody,
                a_cancelled_drains_node_serves_again,
                a_lost_nodes_drain_is_lost_and_none_begins,
            }
            ejections {
                an_ejected_node_is_marked_until_the_time_is_over,
                an_ejection_grows_with_each_one_up_to_ten_times,
                a_registration_begins_the_ejections_anew,
                only_a_current_epoch_is_ejected,
                a_share_of_the_nodes_is_ejected_and_one_always_may_be,
                lost_nodes_do_not_count_towards_the_share,
                concurrent_ejections_do_not_exceed_the_share,
            }
            fences {
                a_fenced_nodes_room_moves_with_the_next_generation,
                a_lease_that_ran_out_does_not_free_a_room_until_it_is_fenced,
                a_renewed_node_is_not_fenced,
                the_grace_is_waited_for,
                those_overdue_for_longest_are_told_and_fenced_first,
                at_most_a_thousand_overdue_nodes_are_told,
                a_spared_node_is_not_fenced,
                a_mass_expiry_is_fenced_one_by_one,
                a_node_that_registers_again_still_counts_as_fenced,
                concurrent_fences_do_not_add_up,
                a_fleet_of_one_is_fenced,
                of_a_renewal_and_a_fence_one_happens,
            }
            groups {
                rooms_that_avoid_a_group_are_kept_apart_in_either_direction,
                a_group_that_avoids_itself_is_spread,
                a_room_that_is_not_open_is_not_avoided,
                the_latest_placement_says_what_is_avoided,
                nothing_is_occupied_for_a_room_without_groups,
                concurrent_places_of_rooms_that_avoid_each_other_are_kept_apart,
                concurrent_places_of_a_group_that_avoids_itself_fill_each_node_once,
                a_hand_off_and_a_place_at_once_are_kept_apart,
            }
            hand_offs {
                a_room_is_handed_to_another_node_with_the_next_generation,
                a_hand_off_is_a_compare_and_set,
                a_hand_off_needs_a_live_owner_and_a_node_that_takes_rooms,
                a_hand_off_keeps_the_groups,
                a_room_keeps_what_it_was_placed_with_until_it_is_placed_anew,
                each_of_many_rooms_placed_at_once_keeps_its_own_wish,
                of_concurrent_hand_offs_one_succeeds,
                of_a_close_and_hand_offs_at_once_one_succeeds,
                a_room_that_is_handed_off_is_never_free,
            }
            history {
                each_placement_is_told_with_its_reasons,
                each_event_is_told_newest_first,
                the_history_is_limited_to_the_newest,
                a_room_that_was_never_placed_has_no_history,
                what_changes_nothing_is_not_told,
                whoever_finds_a_placement_finds_its_reasons,
            }
            leases {
                a_node_that_registers_again_loses_its_rooms,
                epochs_only_grow_and_never_repeat,
                of_concurrent_registrations_the_greatest_epoch_holds_the_lease,
                a_registration_after_another_epoch_than_the_nodes_changes_nothing,
                of_concurrent_registrations_after_one_epoch_one_holds_the_lease,
                a_node_that_the_map_has_lost_registers_after_the_epoch_that_it_knows,
                an_old_epoch_cannot_renew_or_release,
                a_lease_that_ran_out_can_be_renewed_until_it_is_fenced,
                a_heartbeat_from_the_past_changes_nothing,
                of_heartbeats_that_overtake_each_other_the_latest_counts,
                an_epoch_that_the_map_has_lost_is_adopted,
                an_adopted_epoch_ends_the_one_before,
                an_epoch_that_was_adopted_never_repeats,
                a_lost_node_adopts_no_epoch,
                a_released_nodes_room_moves_with_the_next_generation,
                of_concurrent_releases_one_ends_the_epoch,
                numbers_beyond_the_stores_range_match_nothing,
            }
            linearizable {
                places_finds_and_closes_are_linearizable,
            }
            lists {
                an_empty_map_lists_nothing,
                nodes_are_listed_with_what_they_reported,
                a_registration_replaces_what_was_known,
                candidates_are_the_nodes_that_are_not_lost,
                rooms_are_listed_page_by_page_ordered_byte_by_byte,
                rooms_are_listed_by_node_and_with_their_state,
                a_look_counts_the_overdue,
                a_look_counts_the_orchestrators_that_have_looked_recently,
                the_incarnation_and_the_cluster_stay,
            }
            places {
                an_unknown_room_is_nowhere,
                a_room_is_placed_once_and_found,
                a_node_that_is_unknown_lost_or_almost_out_of_lease_gets_no_room,
                a_thousand_concurrent_places_of_one_room_agree,
                concurrent_places_of_many_rooms_agree,
            }
            purges {
                closed_rooms_are_purged_up_to_the_limit,
                orphaned_rooms_are_purged,
                open_rooms_and_what_is_young_are_never_purged,
                a_lost_node_is_purged_when_no_room_refers_to_it,
                a_purged_nodes_epoch_does_not_come_back,
                old_entries_of_the_history_are_purged,
                concurrent_purges_remove_each_room_once,
            }
            restores {
                a_room_that_the_map_lost_is_restored,
                the_greater_generation_wins,
                a_room_that_is_not_the_nodes_is_stale,
                only_the_current_epoch_restores,
                of_a_room_that_is_named_twice_the_greater_generation_counts,
                of_concurrent_restores_one_owner_remains,
            }
            states {
                a_draining_node_keeps_its_rooms_and_gets_no_new_ones,
                a_lost_node_stays_lost,
                lost_cannot_be_set,
                a_registration_serves_again,
            }
        );
    };
    ($store:expr, $after:expr; $($file:ident { $($name:ident,)* })*) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(store) = $store {
                    let store = std::sync::Arc::new(store);
                    $crate::store::contract::$file::$name(store.clone()).await;
                    $after(&*store).await;
                }
            }
        )*)*
    };
}
pub(crate) use suite;

/// Registers as a node does, that asks again when it is told another epoch.
pub async fn register(store: &impl Store, about: &RegisterNode, lease: Duration) -> Epoch {
    crate::harness::register_with(store, about, lease).await.unwrap()
}

/// A registration of a new node.
pub fn new_node() -> RegisterNode {
    RegisterNode {
        node: NodeId::random(),
        after: Epoch(0),
        control: "ws://10.0.0.7:7900".into(),
        media: vec!["192.0.2.1:50000".parse().unwrap()],
        region: "eu".into(),
        zone: "a".into(),
        labels: BTreeMap::from([("disk".into(), "none".into())]),
        track: Track::Stable,
        capacity: 100,
        version: "1.2.3".into(),
    }
}

/// A room's name.
pub fn room(name: &str) -> RoomName {
    name.parse().unwrap()
}

/// A proposal without groups.
pub fn proposal(room: &RoomName, candidate: NodeId) -> Proposal {
    Proposal {
        room: room.clone(),
        candidate,
        group: None,
        avoid: Vec::new(),
        wish: Wish::default(),
        by: BY.into(),
        reasons: Reasons {
            policy: Policy::TwoChoices,
            rule: None,
            region: None,
            spilled_to: None,
            track: Track::Stable,
            track_fallback: false,
            panic: false,
            candidates: Vec::new(),
            omitted: 0,
            drained: None,
        },
    }
}

/// Registers a new node with a lease that holds.
async fn live_node(store: &impl Store) -> (NodeId, Epoch) {
    let node = new_node();
    (node.node, register(store, &node, LONG).await)
}

async fn live_nodes<const N: usize>(store: &impl Store) -> [NodeId; N] {
    let mut nodes = [NodeId::random(); N];
    for node in &mut nodes {
        *node = live_node(store).await.0;
    }
    nodes
}

async fn place(store: &impl Store, name: &RoomName, node: NodeId) -> Placed {
    store.place(proposal(name, node), MARGIN).await.unwrap()
}

async fn place_new(store: &impl Store, name: &RoomName, node: NodeId) -> Assignment {
    match place(store, name, node).await {
        Placed::New(assignment) => assignment,
        other => panic!("{other:?}"),
    }
}

async fn close(store: &impl Store, assignment: &Assignment) -> bool {
    store.close(&assignment.room, &owner(assignment), BY).await.unwrap()
}

/// A heartbeat of a node that is idle.
async fn renew(store: &impl Store, node: NodeId, epoch: Epoch, beat: u64, lease: Duration) -> Renewal {
    store
        .renew(node, epoch, beat, NodeLoad::default(), lease)
        .await
        .unwrap()
}

async fn node_view(store: &impl Store, node: NodeId) -> NodeView {
    let nodes = store.nodes().await.unwrap();
    nodes.into_iter().find(|view| view.node == node).expect("it is listed")
}

fn owner(assignment: &Assignment) -> CloseRoom {
    CloseRoom {
        node: assignment.node,
        epoch: assignment.epoch,
        generation: assignment.generation,
    }
}

/// Runs the calls as tasks of their own, and returns what they answered, in any order.
async fn at_once<T: Send + 'static>(
    calls: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    calls.into_iter().collect::<JoinSet<T>>().join_all().await
}

/// Asks until it is so. The limit is loose: it only ends a test that would hang.
async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let asking = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    let limit = Duration::from_secs(30);
    assert!(tokio::time::timeout(limit, asking).await.is_ok(), "not so: {what}");
}

/// Fences until so many nodes are gone, and returns them.
async fn fence_until(store: &impl Store, brake: &Brake, count: usize) -> Vec<(NodeId, Epoch)> {
    let fenced = std::sync::Mutex::new(Vec::new());
    until("nodes whose leases ran out are fenced", async || {
        let more = store.fence_expired(brake, &BTreeSet::new()).await.unwrap().nodes;
        let mut fenced = fenced.lock().unwrap();
        fenced.extend(more);
        fenced.len() >= count
    })
    .await;
    fenced.into_inner().unwrap()
}

/// Registers so many nodes whose leases run out at once, one after the other.
async fn overdue_nodes(store: &impl Store, count: usize) -> Vec<(NodeId, Epoch)> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        let about = new_node();
        nodes.push((about.node, register(store, &about, Duration::ZERO).await));
    }
    until("leases of zero run out", async || {
        store.overdue().await.unwrap().len() >= count.min(1000)
    })
    .await;
    nodes
}

/// All concurrent places of the room, each with one of the candidates, must lead to the assignment that is returned.
async fn agree<S: Store>(store: &Arc<S>, name: &RoomName, candidates: &[NodeId], calls: usize) -> Assignment {
    let call = |call: usize| {
        let (store, name, candidate) = (store.clone(), name.clone(), candidates[call % candidates.len()]);
        async move {
            loop {
                match place(&*store, &name, candidate).await {
                    Placed::New(assignment) => return (true, assignment),
                    Placed::Existing(assignment) => return (false, assignment),
                    Placed::Refused => {}
                }
            }
        }
    };
    let results = at_once((0..calls).map(call)).await;
    let first = results[0].1.clone();
    assert!(
        results.iter().all(|(_, assignment)| *assignment == first),
        "not all got the same assignment"
    );
    let new = results.iter().filter(|(new, _)| *new).count();
    assert_eq!(new, 1, "exactly one call places");
    assert_eq!(store.find(name).await.unwrap(), Some(first.clone()));
    first
}
