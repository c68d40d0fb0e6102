use std::collections::BTreeSet;

use rand::RngExt;
use signalbox_protocol::node::{Renewed, RoomDigest};
use signalbox_protocol::{ClusterId, Epoch, Generation};

use super::*;
use world::Says::*;
use world::{HEARTBEAT_MS, HELD_MS, LEASE_MS, Says, World, at, ms, renewed};

mod world;

#[test]
fn what_orchestrators_say_decides_whether_and_when_the_node_fences_itself() {
    let out = Some((HELD_MS, Lost::Expired));
    let over = |ms| Some((ms, Lost::Over));
    // What each says for ever after the registration; when the node fences itself in the first ten seconds with one promise
    // sufficing, and with all needed.
    let table: [(&[Says], _, _); 18] = [
        (&[Confirm], None, None),
        (&[Promise], None, None),
        (&[Past], out, out),
        (&[Fail], out, out),
        (&[Nothing], out, out),
        (&[Over], over(500), over(500)),
        (&[Fail, Confirm], None, None),
        (&[Nothing, Confirm], None, None),
        (&[Promise, Confirm], None, None),
        (&[Past, Confirm], None, None),
        (&[Promise, Promise], None, None),
        (&[Promise, Fail], None, out),
        (&[Nothing, Promise], None, out),
        (&[Promise, Past], None, out),
        (&[Promise, Over], over(500), over(500)),
        (&[Nothing, Over], over(750), over(750)),
        (&[Nothing, Nothing, Fail, Nothing, Confirm], None, None),
        (&[Promise, Promise, Nothing], None, out),
    ];
    for (says, with_one, with_all) in table {
        for (promises, expected) in [(Promises::One, with_one), (Promises::All, with_all)] {
            let mut world = World::new(promises, &vec![(Confirm, 0); says.len()]);
            world.run_until(0);
            for (orchestrator, says) in world.orchestrators.iter_mut().zip(says) {
                orchestrator.0 = *says;
            }
            world.run_until(10_000);
            assert_eq!(world.fenced(), expected, "{says:?} with {promises:?}");
        }
    }
}

#[test]
fn a_lease_counts_from_when_the_confirmed_heartbeat_was_sent() {
    let mut world = World::new(Promises::One, &[(Confirm, 300)]);
    world.run_until(800);
    assert_eq!(world.beats(), [(500, 0, 1)]);
    assert_eq!(world.lease.deadline(), Some(at(500 + HELD_MS)));
    // And the next one is not put off by the time that the answer took.
    world.run_until(1_000);
    assert_eq!(world.beats(), [(500, 0, 1), (1_000, 0, 2)]);
}

#[test]
fn one_promise_counts_from_its_own_request_and_all_promises_from_the_first_one() {
    for (promises, expected) in [(Promises::One, 700), (Promises::All, 500)] {
        let mut world = World::new(promises, &[(Confirm, 0), (Confirm, 0)]);
        world.run_until(0);
        world.orchestrators = vec![(Promise, 200), (Promise, 20)];
        world.run_until(719);
        assert_eq!(world.beats(), [(500, 0, 1), (700, 1, 2)]);
        world.run_until(720);
        assert_eq!(world.lease.deadline(), Some(at(expected + HELD_MS)), "{promises:?}");
        assert_eq!(world.notes().last(), Some(&&Note::Promised));
    }
}

#[test]
fn a_promise_that_arrives_twice_is_one_promise() {
    let mut world = World::new(Promises::All, &[(Confirm, 0), (Confirm, 0)]);
    world.run_until(0);
    world.orchestrators = vec![(Nothing, 0), (Nothing, 0)];
    world.run_until(500);
    for _ in 0..2 {
        let ask = world.last_ask();
        world
            .tenure
            .handle_answer(world.now, &ask, Answer::Renewed(renewed(true)));
    }
    assert_eq!(world.lease.deadline(), Some(at(HELD_MS)));
}

#[test]
fn promises_of_different_rounds_do_not_add_up() {
    let mut world = World::new(Promises::All, &[(Confirm, 0), (Confirm, 0)]);
    world.run_until(0);
    world.orchestrators = vec![(Promise, 0), (Fail, 0)];
    world.run_until(999);
    world.orchestrators = vec![(Fail, 0), (Promise, 0)];
    world.run_until(1_000);
    assert_eq!(world.lease.deadline(), Some(at(HELD_MS)));
    let Some(Note::Missed(why)) = world.notes().last() else {
        panic!("not missed: {:?}", world.notes());
    };
    assert!(why.contains("1 of 2"), "{why}");
}

#[test]
fn a_hung_orchestrator_is_passed_over_after_its_head_start_and_asked_last_from_then_on() {
    let mut world = World::new(Promises::One, &[(Confirm, 0); 3]);
    world.run_until(0);
    world.orchestrators[0] = (Nothing, 0);
    world.run_until(2_000);
    let head_start = LEASE_MS / 4 / 3;
    assert_eq!(
        world.beats(),
        [
            (500, 0, 1),
            (500 + head_start, 1, 2),
            (1_000, 1, 3),
            (1_500, 1, 4),
            (2_000, 1, 5)
        ]
    );
}

#[test]
fn a_round_has_asked_everyone_well_within_a_lease() {
    for orchestrators in [1, 2, 3, 8, 100] {
        let mut world = World::new(Promises::One, &vec![(Confirm, 0); orchestrators]);
        world.run_until(0);
        world.orchestrators = vec![(Nothing, 0); orchestrators];
        world.run_until(500 + LEASE_MS / 4);
        let asked: BTreeSet<usize> = world
            .beats()
            .into_iter()
            .map(|(_, orchestrator, _)| orchestrator)
            .collect();
        assert_eq!(asked.len(), orchestrators);
        world.run_until(500 + LEASE_MS / 4 + LEASE_MS / 3);
        assert!(matches!(world.notes().last(), Some(Note::Missed(_))), "{orchestrators}");
    }
}

#[test]
fn a_confirmation_after_the_deadline_renews_nothing() {
    let mut world = World::new(Promises::One, &[(Confirm, 0)]);
    world.run_until(0);
    world.orchestrators[0] = (Nothing, 0);
    world.run_until(HELD_MS - 1);
    let ask = world.last_ask();
    // The machine was suspended: nothing was polled meanwhile.
    world.now = at(HELD_MS + 1);
    world
        .tenure
        .handle_answer(world.now, &ask, Answer::Renewed(renewed(false)));
    assert_eq!(world.lease.held(world.now), None);
    world.run_until(HELD_MS + 1);
    assert_eq!(world.fenced(), Some((HELD_MS + 1, Lost::Expired)));
    assert_eq!(world.last_ask().question, Question::Register { after: Epoch(1) });
}

#[test]
fn a_node_whose_epoch_is_over_fences_before_it_registers_anew() {
    let mut world = World::new(Promises::One, &[(Confirm, 0)]);
    world.run_until(499);
    world.tenure.poll_action(at(500));
    let ask = Ask {
        round: world.last_ask().round + 1,
        sent: at(500),
        question: Question::Register { after: Epoch(1) },
        ..world.last_ask()
    };
    // Not an answer to what was asked.
    world.tenure.handle_answer(at(500), &ask, Answer::Over);
    assert!(world.lease.held(at(500)).is_some());
    let ask = Ask {
        question: Question::Beat {
            epoch: Epoch(1),
            beat: 1,
            rooms: false,
        },
        ..ask
    };
    world.tenure.handle_answer(at(501), &ask, Answer::Over);
    assert_eq!(world.lease.held(at(501)), None);
    let why = Lost::Over;
    assert_eq!(
        world.tenure.poll_action(at(501)),
        Some(Action::Fence { epoch: Epoch(1), why })
    );
    // Closing the rooms took a while: what is granted counts from afterwards.
    match world.tenure.poll_action(at(550)) {
        Some(Action::Ask(ask)) => {
            let question = Question::Register { after: Epoch(1) };
            assert_eq!((ask.question, ask.sent), (question, at(550)));
        }
        other => panic!("no registration: {other:?}"),
    }
}

#[test]
fn the_end_of_an_earlier_epoch_is_not_that_of_the_present_one() {
    let mut world = World::new(Promises::One, &[(Confirm, 0), (Confirm, 0)]);
    world.run_until(0);
    world.orchestrators = vec![(Nothing, 0), (Over, 0)];
    world.run_until(750);
    let hangs = world.asked[1].clone();
    assert_eq!((hangs.orchestrator, ms(hangs.sent)), (0, 500));
    // Who said so answers, so it is asked for the next one.
    assert_eq!(world.lease.epoch(world.now), Some(Epoch(2)));
    world.run_until(1_249);
    world.orchestrators[1] = (Nothing, 0);
    world.run_until(1_251);
    world.tenure.handle_answer(world.now, &hangs, Answer::Over);
    assert_eq!(world.lease.epoch(world.now), Some(Epoch(2)));
}

#[test]
fn a_promise_that_was_asked_for_in_an_earlier_round_does_not_count() {
    let mut world = World::new(Promises::All, &[(Confirm, 0), (Confirm, 0)]);
    world.run_until(0);
    world.orchestrators = vec![(Nothing, 0), (Nothing, 0)];
    world.run_until(1_750);
    let asked: Vec<(usize, u64)> = world.asked.iter().map(|ask| (ask.orchestrator, ask.round)).collect();
    assert_eq!(asked, [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3)]);
    for ask in [world.asked[1].clone(), world.asked[4].clone()] {
        world
            .tenure
            .handle_answer(world.now, &ask, Answer::Renewed(renewed(true)));
    }
    assert_eq!(world.lease.deadline(), Some(at(HELD_MS)));
}

#[test]
fn rooms_are_named_when_they_were_asked_for_until_a_heartbeat_with_them_is_confirmed() {
    let mut world = World::new(Promises::One, &[(Nothing, 0)]);
    world.orchestrators[0] = (Confirm, 0);
    world.run_until(0);
    world.orchestrators[0] = (Nothing, 0);
    let named = |world: &World| matches!(world.last_ask().question, Question::Beat { rooms: true, .. });
    let answer = |promised, rooms_wanted| {
        Answer::Renewed(Renewed {
            rooms_wanted,
            ..renewed(promised)
        })
    };
    let script = [
        (answer(false, false), false),
        (answer(false, true), true),
        (answer(true, false), true),
        (Answer::Past, true),
        (answer(false, true), true),
        (answer(false, false), false),
    ];
    let mut now = 500;
    for (answer, named_next) in script {
        world.run_until(now);
        let ask = world.last_ask();
        assert_eq!(ask.sent, at(now));
        world.tenure.handle_answer(world.now, &ask, answer.clone());
        now += HEARTBEAT_MS;
        world.run_until(now);
        assert_eq!(named(&world), named_next, "after {answer:?}");
    }
}

#[test]
fn stale_rooms_are_to_be_closed_whoever_says_so() {
    let mut world = World::new(Promises::One, &[(Confirm, 0)]);
    world.run_until(0);
    world.orchestrators[0] = (Nothing, 0);
    world.run_until(500);
    let stale = vec![RoomDigest {
        room: "daily".parse().unwrap(),
        generation: Generation(2),
    }];
    let answer = Renewed {
        stale: stale.clone(),
        ..renewed(false)
    };
    world
        .tenure
        .handle_answer(at(500), &world.last_ask(), Answer::Renewed(answer));
    world.run_until(500);
    assert!(world.done.contains(&(500, Action::Close(stale))));
}

#[test]
fn registration_goes_round_the_orchestrators_at_once_and_then_backs_off() {
    let mut world = World::new(Promises::One, &[(Fail, 0), (Fail, 0)]);
    world.run_until(0);
    let asked: Vec<usize> = world.asked.iter().map(|ask| ask.orchestrator).collect();
    assert_eq!(asked, [0, 1]);
    world.run_until(60_000);
    // 100 ms, doubling up to 5 s, each from its upper half on.
    let rounds = world.asked.len() / 2;
    assert!((17..=31).contains(&rounds), "{rounds}");
    world.orchestrators[1] = (Confirm, 0);
    world.run_until(66_000);
    assert_eq!(world.lease.epoch(world.now), Some(Epoch(1)));
    // Who gave the epoch is asked to renew it.
    assert_eq!(world.last_ask().orchestrator, 1);
}

#[test]
fn a_registration_that_hangs_is_left_and_its_late_answer_ignored() {
    let mut world = World::new(Promises::One, &[(Nothing, 0), (Confirm, 0)]);
    let registered = |world: &mut World, ask: &Ask| world.answer(ask, Confirm).unwrap();
    world.run_until(2_000);
    assert_eq!(world.lease.epoch(world.now), Some(Epoch(1)));
    let ask = world.asked[0].clone();
    let late = registered(&mut world, &ask);
    world.tenure.handle_answer(world.now, &ask, late);
    assert_eq!(world.lease.epoch(world.now), Some(Epoch(1)));
}

#[test]
fn a_lease_that_ran_out_on_the_way_is_not_begun() {
    let mut world = World::new(Promises::One, &[(Confirm, HELD_MS)]);
    world.run_until(HELD_MS);
    assert_eq!(world.lease.deadline(), None);
    assert!(matches!(world.notes()[..], [Note::NotRegistered(_)]));
}

#[test]
fn an_epoch_that_is_no_later_than_the_last_one_is_not_begun() {
    let mut world = World::new(Promises::One, &[(Confirm, 0)]);
    world.run_until(0);
    world.orchestrators[0] = (Over, 0);
    world.epoch = 0;
    world.run_until(500);
    assert_eq!(world.lease.epoch(world.now), None);
    // The next one is.
    world.orchestrators[0] = (Confirm, 0);
    world.run_until(1_000);
    assert_eq!(world.lease.epoch(world.now), Some(Epoch(2)));
    // In another cluster epochs are others.
    world.orchestrators[0] = (Over, 0);
    world.cluster = ClusterId::random();
    world.epoch = 0;
    world.run_until(1_500);
    assert_eq!(world.lease.epoch(world.now), Some(Epoch(1)));
}

#[test]
fn a_node_that_is_refused_gives_up() {
    let mut world = World::new(Promises::One, &[(Nothing, 0), (Confirm, 0)]);
    world.run_until(0);
    let why = "The address is private.".to_owned();
    world
        .tenure
        .handle_answer(at(5), &world.last_ask(), Answer::Refused(why.clone()));
    assert_eq!(world.tenure.poll_action(at(5)), Some(Action::GiveUp(why)));
    assert_eq!(world.tenure.poll_action(at(9_999)), None);
    assert_eq!(world.tenure.poll_timeout(), None);
}

/// Any answers in any order, at any time: what must hold all the same.
#[test]
fn whatever_is_answered_an_epoch_ends_once_and_is_never_held_longer_than_was_granted() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = rng.random_range(1..=4);
        let promises = [Promises::One, Promises::All][rng.random_range(0..2)];
        let mut world = World::new(promises, &vec![(Confirm, 0); count]);
        let mut seen = Vec::new();
        for step in 1..600 {
            if rng.random_bool(0.2) {
                let says = [Confirm, Promise, Promise, Past, Over, Fail, Nothing][rng.random_range(0..7)];
                let index = rng.random_range(0..count);
                world.orchestrators[index] = (says, rng.random_range(0..1_500));
            }
            world.run_until(step * 50);
            let held = world.lease.epoch(world.now);
            if held != seen.last().copied().flatten() {
                assert!(
                    held.is_none() || !seen.contains(&held),
                    "seed {seed}: {held:?} is held again"
                );
                seen.push(held);
            }
            // The last request is the latest that anything can have been granted from.
            if let (Some(deadline), Some(last)) = (world.lease.deadline(), world.asked.last()) {
                let latest = last.sent.after(Duration::from_millis(HELD_MS));
                assert!(deadline <= latest, "seed {seed}: held until {deadline:?}");
            }
        }
        assert!(seen.len() > 1, "seed {seed}: nothing happened");
        let mut last = (Epoch(0), 0);
        for ask in &world.asked {
            if let Question::Beat { epoch, beat, .. } = ask.question {
                assert!((epoch, beat) > last, "seed {seed}: {beat} of {epoch} after {last:?}");
                last = (epoch, beat);
            }
        }
    }
}

#[test]
fn a_node_that_is_told_another_epoch_registers_after_it_at_once() {
    let mut world = World::new(Promises::One, &[(Confirm, 0), (Confirm, 0)]);
    // It has run before, and does not know.
    world.epoch = 7;
    world.run_until(0);
    let asked: Vec<_> = world
        .asked
        .iter()
        .map(|ask| (ask.orchestrator, &ask.question))
        .collect();
    let after = |epoch| Question::Register { after: Epoch(epoch) };
    assert_eq!(asked, [(0, &after(0)), (0, &after(7))]);
    assert_eq!(world.lease.epoch(world.now), Some(Epoch(8)));
    // What it held is what it registers after next.
    world.orchestrators[0] = (Over, 0);
    world.run_until(500);
    assert_eq!(world.last_ask().question, after(8));
}

#[test]
fn a_node_whose_epoch_moves_each_time_waits_before_it_tries_again() {
    let mut world = World::new(Promises::One, &[(Confirm, 0)]);
    world.run_until(0);
    let asks = |world: &World| world.asked.len();
    let before = asks(&world);
    world.orchestrators[0] = (Rival, 0);
    world.run_until(510);
    assert_eq!(
        asks(&world) - before,
        5,
        "a heartbeat, four registrations, and then it waits"
    );
    assert!(matches!(world.notes().last(), Some(Note::NotRegistered(why)) if why.contains("--node-id")));
}
