//! How long a drain will go on, as far as can be told. No clock, no I/O.
//!
//! The last room is handed over when all the others were, at the rate; and then it has to leave.

use std::time::Duration;

use signalbox_protocol::node::DrainState;

use super::leaving::FIRST_GUESS;
use crate::store::DrainRecord;

/// None: it does not go on, or nobody takes what is left, so that nobody can tell.
pub fn of(record: &DrainRecord) -> Option<Duration> {
    let drain = &record.drain;
    if drain.state != DrainState::Running || (drain.rooms_left > 0 && drain.stuck >= drain.rooms_left) {
        return None;
    }
    let leaving = record.leaving.unwrap_or(FIRST_GUESS);
    let until_empty = match (drain.rooms_left.checked_sub(1), record.moved_ago) {
        (Some(others), moved_ago) => {
            let seconds = |rooms: f64| Duration::try_from_secs_f64(rooms / drain.rate).unwrap_or(Duration::MAX);
            // The first one of all goes at once.
            let next = moved_ago.map_or(Duration::ZERO, |ago| seconds(1.0).saturating_sub(ago));
            next.saturating_add(seconds(others as f64)).saturating_add(leaving)
        }
        (None, Some(moved_ago)) => leaving.saturating_sub(moved_ago),
        (None, None) => Duration::ZERO,
    };
    // What is left when the deadline comes stays.
    let deadline = drain.deadline_ms.map_or(Duration::MAX, Duration::from_millis);
    Some(until_empty.min(deadline))
}

#[cfg(test)]
mod tests {
    use signalbox_protocol::node::{Asker, Drain};
    use signalbox_protocol::{Epoch, NodeId};

    use super::*;

    fn record(rooms_left: u64, moved_ago_ms: Option<u64>, leaving_ms: Option<u64>) -> DrainRecord {
        DrainRecord {
            drain: Drain {
                node: NodeId::random(),
                epoch: Epoch(1),
                state: DrainState::Running,
                rooms: 50,
                rooms_left,
                stuck: 0,
                rate: 5.0,
                eta_ms: None,
                deadline_ms: None,
                age_ms: 0,
                by: String::new(),
            },
            control: String::new(),
            asked_by: Asker::Operator,
            began_at_ms: 0,
            leaving: leaving_ms.map(Duration::from_millis),
            moved_ago: moved_ago_ms.map(Duration::from_millis),
        }
    }

    fn ms(record: &DrainRecord) -> Option<u128> {
        of(record).map(|eta| eta.as_millis())
    }

    #[test]
    fn the_last_room_has_to_be_handed_over_and_then_to_leave() {
        let guess = FIRST_GUESS.as_millis();
        assert_eq!(
            ms(&record(50, None, None)),
            Some(49 * 200 + guess),
            "the first goes at once"
        );
        assert_eq!(ms(&record(50, None, Some(2400))), Some(49 * 200 + 2400));
        assert_eq!(ms(&record(10, Some(50), Some(2400))), Some(150 + 9 * 200 + 2400));
        assert_eq!(
            ms(&record(10, Some(9_000), Some(2400))),
            Some(9 * 200 + 2400),
            "the next is overdue"
        );
    }

    #[test]
    fn once_all_were_handed_over_the_time_goes_on_to_run_down() {
        assert_eq!(ms(&record(0, Some(400), Some(2400))), Some(2000));
        assert_eq!(ms(&record(0, Some(9000), Some(2400))), Some(0));
        assert_eq!(ms(&record(0, None, Some(2400))), Some(0), "there was nothing to move");
    }

    #[test]
    fn a_drain_goes_on_no_longer_than_its_deadline() {
        let mut record = record(50, None, Some(2400));
        record.drain.deadline_ms = Some(3000);
        assert_eq!(ms(&record), Some(3000));
    }

    #[test]
    fn nobody_can_tell_when_a_room_that_nobody_takes_goes_nor_of_a_drain_that_has_ended() {
        let mut stuck = record(3, Some(400), Some(2400));
        stuck.drain.stuck = 3;
        assert_eq!(of(&stuck), None);
        stuck.drain.stuck = 2;
        assert!(of(&stuck).is_some());
        stuck.drain.state = DrainState::Done;
        assert_eq!(of(&stuck), None);
    }
}
