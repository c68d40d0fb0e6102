//! What enters a room, and what does not.

use super::*;

fn name(text: &str) -> RoomName {
    text.parse().unwrap()
}

fn enter(rooms: &Rooms, room: &str, generation: u64, now: Instant) -> Result<usize, RefusalReason> {
    let mut at = usize::MAX;
    rooms
        .enter(
            &name(room),
            Generation(generation),
            now,
            |_| 0,
            |shard| {
                at = shard;
                Ok(())
            },
        )
        .map(|()| at)
        .map_err(|refusal| refusal.reason)
}

#[test]
fn a_room_opens_on_the_least_loaded_shard_and_stays_there() {
    let rooms = Rooms::new(3, 100);
    let now = Instant::now();
    let load = |shard: usize| [5, 1, 9].get(shard).copied().unwrap_or_default();
    for _ in 0..3 {
        let mut at = None;
        rooms
            .enter(&name("a"), Generation(1), now, load, |shard| {
                at = Some(shard);
                Ok(())
            })
            .unwrap();
        assert_eq!(at, Some(1));
    }
}

#[test]
fn rooms_opened_at_once_spread_over_the_shards() {
    let rooms = Rooms::new(3, 100);
    let now = Instant::now();
    let mut shards: Vec<usize> = ["a", "b", "c"].map(|room| enter(&rooms, room, 1, now).unwrap()).into();
    shards.sort_unstable();
    assert_eq!(shards, [0, 1, 2]);
}

#[test]
fn only_the_open_generation_admits() {
    let rooms = Rooms::new(1, 100);
    let now = Instant::now();
    enter(&rooms, "a", 2, now).unwrap();
    assert_eq!(enter(&rooms, "a", 1, now), Err(RefusalReason::Ticket));
    enter(&rooms, "a", 3, now).unwrap();
    assert_eq!(enter(&rooms, "a", 2, now), Err(RefusalReason::Ticket));
    assert!(rooms.hosts(&name("a"), Generation(3)));
    assert_eq!(rooms.len(), 1);
}

#[test]
fn a_closing_room_refuses_and_a_closed_generation_never_opens_again() {
    let rooms = Rooms::new(1, 100);
    let now = Instant::now();
    enter(&rooms, "a", 1, now).unwrap();
    rooms.mark_empty(&name("a"), Generation(1));
    assert_eq!(enter(&rooms, "a", 1, now), Err(RefusalReason::Closing));
    rooms.closed(&name("a"), Generation(1), now);
    assert_eq!(enter(&rooms, "a", 1, now), Err(RefusalReason::Ticket));
    enter(&rooms, "a", 2, now).unwrap();
}

#[test]
fn a_room_that_was_entered_before_it_was_marked_goes_on() {
    let rooms = Rooms::new(1, 100);
    let now = Instant::now();
    enter(&rooms, "a", 1, now).unwrap();
    rooms.mark_empty(&name("a"), Generation(1));
    rooms.unmark_empty(&name("a"), Generation(1));
    enter(&rooms, "a", 1, now).unwrap();
}

#[test]
fn a_closed_generation_is_remembered_until_its_time_and_counted_from_its_last_closing() {
    let rooms = Rooms::new(1, 100);
    let start = Instant::now();
    enter(&rooms, "a", 1, start).unwrap();
    rooms.closed(&name("a"), Generation(1), start);
    let later = start + CLOSED_MEMORY / 2;
    rooms.closed(&name("a"), Generation(2), later);
    assert_eq!(enter(&rooms, "a", 2, start + CLOSED_MEMORY), Err(RefusalReason::Ticket));
    enter(&rooms, "a", 2, later + CLOSED_MEMORY).unwrap();
    assert!(rooms.table().closed.is_empty());
    assert!(rooms.table().closed_by_age.is_empty());
}

#[test]
fn no_room_opens_while_the_memory_of_closed_ones_is_full() {
    let mut rooms = Rooms::new(1, 100);
    rooms.max_closed = 1;
    let now = Instant::now();
    enter(&rooms, "b", 1, now).unwrap();
    rooms.closed(&name("a"), Generation(1), now);
    assert_eq!(enter(&rooms, "c", 1, now), Err(RefusalReason::Full));
    enter(&rooms, "b", 1, now).unwrap();
    enter(&rooms, "c", 1, now + CLOSED_MEMORY).unwrap();
}

#[test]
fn the_number_of_rooms_is_bounded() {
    let rooms = Rooms::new(1, 1);
    let now = Instant::now();
    enter(&rooms, "a", 1, now).unwrap();
    assert_eq!(enter(&rooms, "b", 1, now), Err(RefusalReason::Full));
    enter(&rooms, "a", 2, now).unwrap();
}

#[test]
fn a_request_that_was_not_handed_over_changes_nothing() {
    let rooms = Rooms::new(1, 100);
    let now = Instant::now();
    let refuse = |_| Err(Refusal::new(RefusalReason::Overloaded, ""));
    enter(&rooms, "a", 1, now).unwrap();
    rooms.enter(&name("a"), Generation(2), now, |_| 0, refuse).unwrap_err();
    rooms.enter(&name("b"), Generation(2), now, |_| 0, refuse).unwrap_err();
    assert!(rooms.hosts(&name("a"), Generation(1)));
    assert_eq!(rooms.len(), 1);
    enter(&rooms, "a", 1, now).unwrap();
}

#[test]
fn fencing_forgets_the_rooms_but_not_what_was_closed() {
    let rooms = Rooms::new(1, 100);
    let now = Instant::now();
    enter(&rooms, "a", 1, now).unwrap();
    enter(&rooms, "b", 1, now).unwrap();
    rooms.closed(&name("b"), Generation(1), now);
    rooms.fence();
    assert_eq!(rooms.digests(), []);
    assert_eq!(enter(&rooms, "b", 1, now), Err(RefusalReason::Ticket));
}

#[tokio::test]
async fn a_ticket_for_a_closed_generation_is_looked_into_once() {
    let rooms = Rooms::new(1, 100);
    let now = Instant::now();
    enter(&rooms, "a", 2, now).unwrap();
    rooms.closed(&name("a"), Generation(2), now);
    for generation in [2, 2, 1] {
        assert_eq!(enter(&rooms, "a", generation, now), Err(RefusalReason::Ticket));
    }
    assert_eq!(rooms.next_doubted().await, (name("a"), Generation(2)));
    assert_eq!(rooms.next_doubted().await, (name("a"), Generation(1)));
    assert!(rooms.table().doubted.is_empty());
    enter(&rooms, "a", 3, now).unwrap();
    assert!(rooms.table().doubted.is_empty());
}

#[test]
fn a_stale_generation_is_ended_once_and_never_opens_again() {
    let rooms = Rooms::new(1, 100);
    let now = Instant::now();
    enter(&rooms, "a", 2, now).unwrap();
    assert_eq!(rooms.mark_stale(&name("a"), Generation(1)), None);
    assert_eq!(rooms.mark_stale(&name("b"), Generation(2)), None);
    enter(&rooms, "a", 2, now).unwrap();
    // Also when it is about to be closed as empty, or found not to be empty after all.
    rooms.mark_empty(&name("a"), Generation(2));
    assert_eq!(rooms.mark_stale(&name("a"), Generation(2)), Some(0));
    assert_eq!(rooms.mark_stale(&name("a"), Generation(2)), None);
    rooms.unmark_empty(&name("a"), Generation(2));
    assert_eq!(enter(&rooms, "a", 2, now), Err(RefusalReason::Ticket));
    rooms.closed(&name("a"), Generation(2), now);
    assert_eq!(enter(&rooms, "a", 2, now), Err(RefusalReason::Ticket));
    enter(&rooms, "a", 3, now).unwrap();
}

#[tokio::test]
async fn a_moving_room_admits_nobody_is_not_named_and_ends_without_an_agreement() {
    let rooms = Rooms::new(1, 100);
    let now = Instant::now();
    let begin = |generation, to| {
        let hand_over = |_| Ok(());
        rooms.begin_move(&name("a"), Generation(generation), Generation(to), hand_over)
    };
    assert_eq!(begin(2, 3), Err(Unmoved::NotHosted));
    enter(&rooms, "a", 2, now).unwrap();
    assert_eq!(begin(1, 3), Err(Unmoved::NotHosted));
    let busy = |_| Err(Refusal::new(RefusalReason::Overloaded, ""));
    let moved = rooms.begin_move(&name("a"), Generation(2), Generation(3), busy);
    assert_eq!(moved, Err(Unmoved::Busy));
    enter(&rooms, "a", 2, now).unwrap();

    assert_eq!(begin(2, 3), Ok(()));
    assert_eq!(enter(&rooms, "a", 2, now), Err(RefusalReason::Ticket));
    assert_eq!(rooms.digests(), []);
    assert!(rooms.list().iter().all(|listed| listed.moving));
    assert_eq!(rooms.mark_stale(&name("a"), Generation(2)), None);
    rooms.mark_empty(&name("a"), Generation(2));
    rooms.unmark_empty(&name("a"), Generation(2));
    assert_eq!(enter(&rooms, "a", 2, now), Err(RefusalReason::Ticket));
    assert!(rooms.table().emptied.is_empty());
    // The target has died, and the room was handed to a third node.
    assert_eq!(begin(2, 4), Ok(()));
    assert_eq!(begin(2, 3), Err(Unmoved::Overtaken));

    rooms.closed(&name("a"), Generation(2), now);
    rooms.until_empty().await;
    assert_eq!(enter(&rooms, "a", 2, now), Err(RefusalReason::Ticket));
}

#[test]
fn a_room_that_is_called_stale_before_its_order_to_move_comes_moves() {
    let rooms = Rooms::new(1, 100);
    let now = Instant::now();
    enter(&rooms, "a", 1, now).unwrap();
    assert_eq!(rooms.mark_stale(&name("a"), Generation(1)), Some(0));
    assert!(rooms.is_stale(&name("a"), Generation(1)));
    let moved = rooms.begin_move(&name("a"), Generation(1), Generation(2), |_| Ok(()));
    assert_eq!((moved, rooms.is_stale(&name("a"), Generation(1))), (Ok(()), false));
}

#[test]
fn a_room_that_comes_back_while_it_moves_away_is_open_again() {
    let rooms = Rooms::new(1, 100);
    let now = Instant::now();
    enter(&rooms, "a", 1, now).unwrap();
    rooms
        .begin_move(&name("a"), Generation(1), Generation(2), |_| Ok(()))
        .unwrap();
    enter(&rooms, "a", 3, now).unwrap();
    assert_eq!(rooms.digests().len(), 1);
    rooms.closed(&name("a"), Generation(1), now);
    enter(&rooms, "a", 3, now).unwrap();
}

#[test]
fn closed_generations_are_those_of_one_cluster() {
    let rooms = Rooms::new(1, 100);
    let now = Instant::now();
    let (first, second) = (ClusterId::random(), ClusterId::random());
    rooms.set_cluster(first);
    enter(&rooms, "a", 1, now).unwrap();
    rooms.closed(&name("a"), Generation(1), now);
    rooms.set_cluster(first);
    assert_eq!(enter(&rooms, "a", 1, now), Err(RefusalReason::Ticket));
    rooms.set_cluster(second);
    enter(&rooms, "a", 1, now).unwrap();
}

#[tokio::test]
async fn an_emptied_room_is_reported_once() {
    let rooms = Rooms::new(1, 100);
    enter(&rooms, "a", 1, Instant::now()).unwrap();
    rooms.mark_empty(&name("a"), Generation(2));
    rooms.mark_empty(&name("a"), Generation(1));
    rooms.mark_empty(&name("a"), Generation(1));
    assert_eq!(rooms.next_emptied().await.room, name("a"));
    assert!(rooms.table().emptied.is_empty());
}

#[test]
fn a_stopping_node_lets_nobody_in() {
    let rooms = Rooms::new(1, 100);
    rooms.stop();
    assert_eq!(enter(&rooms, "a", 1, Instant::now()), Err(RefusalReason::Full));
}
