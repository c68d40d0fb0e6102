//! Seeded runs over virtual time: the properties hold for every seed, and a failure names its own.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn breakers(upstreams: &Upstreams) -> Vec<BreakerState> {
    upstreams.views().map(|view| view.breaker).collect()
}

/// Makes the breaker of each of `these` open at `now`, by requests that only go there.
fn break_all(upstreams: &mut Upstreams, these: &[usize], now: Duration) {
    let mut rng = StdRng::seed_from_u64(0);
    for &index in these {
        for _ in 0..FAILURES {
            let attempt = upstreams.first(Some(index), now, &mut rng).unwrap();
            assert_eq!(attempt.upstream(), index);
            upstreams.finish(attempt, Outcome::Failure, now);
        }
    }
}

#[test]
fn without_orchestrators_there_is_nobody_to_ask() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut upstreams = Upstreams::new(0);
    assert!(upstreams.first(None, Duration::ZERO, &mut rng).is_none());
    assert_eq!(
        upstreams.retry(&[], None, Duration::ZERO, &mut rng).unwrap_err(),
        NoRetry::AllTried
    );
}

#[test]
fn requests_are_spread_evenly() {
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut upstreams = Upstreams::new(8);
        let mut under_way: Vec<(Duration, Attempt)> = Vec::new();
        let mut now = Duration::ZERO;
        for _ in 0..20_000 {
            now += Duration::from_micros(rng.random_range(0..400));
            while let Some(done) = under_way.iter().position(|(ends, _)| *ends <= now) {
                let (_, attempt) = under_way.swap_remove(done);
                upstreams.finish(attempt, Outcome::Success, now);
            }
            let attempt = upstreams.first(None, now, &mut rng).unwrap();
            under_way.push((now + millis(rng.random_range(1..10)), attempt));
        }
        let most = upstreams.views().map(|view| view.requests).max().unwrap();
        let ratio = most as f64 / (20_000.0 / 8.0);
        assert!(ratio < 1.05, "max/mean {ratio} with seed {seed}");
    }
}

#[test]
fn one_that_hangs_is_avoided_before_its_first_timeout() {
    let mut rng = StdRng::seed_from_u64(3);
    let mut upstreams = Upstreams::new(3);
    let mut hanging = Vec::new();
    for round in 0..1000 {
        let now = millis(round);
        let attempt = upstreams.first(None, now, &mut rng).unwrap();
        if attempt.upstream() == 1 {
            hanging.push(attempt);
        } else {
            upstreams.finish(attempt, Outcome::Success, now);
        }
    }
    assert!(hanging.len() <= 2, "{}", hanging.len());
}

#[test]
fn a_retry_goes_to_one_that_was_not_tried() {
    let mut rng = StdRng::seed_from_u64(4);
    let mut upstreams = Upstreams::new(3);
    let mut tried = Vec::new();
    let mut attempt = upstreams.first(None, Duration::ZERO, &mut rng).unwrap();
    loop {
        tried.push(attempt.upstream());
        upstreams.finish(attempt, Outcome::Failure, Duration::ZERO);
        match upstreams.retry(&tried, None, Duration::ZERO, &mut rng) {
            Ok(next) => attempt = next,
            Err(reason) => {
                assert_eq!(reason, NoRetry::AllTried);
                break;
            }
        }
    }
    tried.sort_unstable();
    assert_eq!(tried, [0, 1, 2]);
    let views: Vec<UpstreamView> = upstreams.views().collect();
    assert_eq!(views.iter().map(|view| view.retries).sum::<u64>(), 2);
    assert!(views.iter().all(|view| view.failures == 1 && view.in_flight == 0));
}

#[test]
fn without_budget_there_is_no_retry() {
    let mut rng = StdRng::seed_from_u64(5);
    let mut upstreams = Upstreams::new(2);
    let now = Duration::ZERO;
    let mut granted = 0;
    for _ in 0..100 {
        match upstreams.retry(&[], None, now, &mut rng) {
            Ok(attempt) => {
                granted += 1;
                upstreams.finish(attempt, Outcome::Success, now);
            }
            Err(reason) => assert_eq!(reason, NoRetry::Budget),
        }
    }
    assert_eq!(granted, 30);
    assert_eq!(upstreams.budget_exhausted(), 70);
}

#[test]
fn an_open_one_gets_a_single_trial_and_then_everything_again() {
    let mut rng = StdRng::seed_from_u64(6);
    let mut upstreams = Upstreams::new(2);
    break_all(&mut upstreams, &[0], Duration::ZERO);
    assert_eq!(breakers(&upstreams), [BreakerState::Open, BreakerState::Closed]);
    for _ in 0..100 {
        let attempt = upstreams.first(None, OPEN_FOR / 2, &mut rng).unwrap();
        assert_eq!(attempt.upstream(), 1);
        upstreams.finish(attempt, Outcome::Success, OPEN_FOR / 2);
    }
    let trial = upstreams.first(None, OPEN_FOR, &mut rng).unwrap();
    assert!(trial.is_trial() && trial.upstream() == 0);
    for _ in 0..100 {
        let attempt = upstreams.first(None, OPEN_FOR, &mut rng).unwrap();
        assert_eq!(attempt.upstream(), 1);
        upstreams.finish(attempt, Outcome::Success, OPEN_FOR);
    }
    assert_eq!(
        upstreams.finish(trial, Outcome::Success, OPEN_FOR),
        Some(BreakerState::Closed)
    );
    let before = upstreams.views().next().unwrap().requests;
    for _ in 0..100 {
        let attempt = upstreams.first(None, OPEN_FOR, &mut rng).unwrap();
        upstreams.finish(attempt, Outcome::Success, OPEN_FOR);
    }
    assert!(upstreams.views().next().unwrap().requests > before + 20);
}

#[test]
fn when_all_are_open_the_one_whose_failure_is_longest_ago_is_asked() {
    let mut rng = StdRng::seed_from_u64(7);
    let mut upstreams = Upstreams::new(3);
    for (at, index) in [(1, 2), (2, 0), (3, 1)] {
        break_all(&mut upstreams, &[index], millis(at));
    }
    assert!(upstreams.nobody_serves(millis(4)));
    for expected in [2, 0, 1, 2] {
        let now = millis(10 + upstreams.views().map(|view| view.requests).sum::<u64>());
        let attempt = upstreams.first(None, now, &mut rng).unwrap();
        assert_eq!((attempt.upstream(), attempt.is_trial()), (expected, false));
        upstreams.finish(attempt, Outcome::Failure, now);
    }
    let attempt = upstreams.first(None, millis(100), &mut rng).unwrap();
    upstreams.finish(attempt, Outcome::Success, millis(100));
    assert!(
        !upstreams.nobody_serves(millis(100)),
        "an answer closes a breaker at once"
    );
}

#[test]
fn a_preferred_one_is_asked_if_it_can_be_trusted_and_on_a_retry_in_any_case() {
    let mut rng = StdRng::seed_from_u64(8);
    let now = Duration::ZERO;
    let mut upstreams = Upstreams::new(3);
    for _ in 0..20 {
        let attempt = upstreams.first(Some(2), now, &mut rng).unwrap();
        assert_eq!(attempt.upstream(), 2);
        upstreams.finish(attempt, Outcome::Success, now);
    }
    break_all(&mut upstreams, &[2], now);
    for _ in 0..20 {
        let attempt = upstreams.first(Some(2), now, &mut rng).unwrap();
        assert_ne!(attempt.upstream(), 2);
        upstreams.finish(attempt, Outcome::Abandoned, now);
    }
    let attempt = upstreams.retry(&[0], Some(2), now, &mut rng).unwrap();
    assert_eq!(attempt.upstream(), 2);
    upstreams.finish(attempt, Outcome::Failure, now);
    let attempt = upstreams.retry(&[0, 2], Some(2), now, &mut rng).unwrap();
    assert_eq!(attempt.upstream(), 1);
    upstreams.finish(attempt, Outcome::Success, now);
    break_all(&mut upstreams, &[0, 1], now);
    let attempt = upstreams.first(Some(2), now, &mut rng).unwrap();
    assert_eq!(attempt.upstream(), 2, "when nobody serves, it is the best guess");
    upstreams.finish(attempt, Outcome::Success, now);
    assert!(
        upstreams.first(Some(99), now, &mut rng).is_some(),
        "an index that does not exist is no preference"
    );
}

/// Orchestrators that fail and recover at random, under a steady stream of requests with retries.
#[test]
fn whatever_fails_an_open_one_gets_its_trials_only_and_retries_stay_in_their_budget() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = rng.random_range(1..6);
        let mut upstreams = Upstreams::new(count);
        let mut healthy = vec![true; count];
        let mut under_way: Vec<(Duration, Attempt, Vec<usize>)> = Vec::new();
        let mut now = Duration::ZERO;
        let (mut requests, mut retries, mut trials) = (0_u32, 0_u32, 0_u32);
        for _ in 0..3000 {
            now += millis(rng.random_range(0..40));
            if rng.random_bool(0.01) {
                let flips = rng.random_range(0..count);
                healthy[flips] = !healthy[flips];
            }
            while let Some(done) = under_way.iter().position(|(ends, ..)| *ends <= now) {
                let (_, attempt, mut tried) = under_way.swap_remove(done);
                let index = attempt.upstream();
                let outcome = match (rng.random_bool(0.02), healthy[index]) {
                    (true, _) => Outcome::Abandoned,
                    (false, true) => Outcome::Success,
                    (false, false) => Outcome::Failure,
                };
                let before = breakers(&upstreams)[index];
                let changed = upstreams.finish(attempt, outcome, now);
                let after = breakers(&upstreams)[index];
                if outcome == Outcome::Success {
                    assert_eq!(after, BreakerState::Closed, "seed {seed}");
                }
                let closedness = [before, after].map(|state| state == BreakerState::Closed);
                assert_eq!(changed.is_some(), closedness[0] != closedness[1], "seed {seed}");
                tried.push(index);
                if outcome == Outcome::Failure {
                    let closed_before = breakers(&upstreams);
                    match upstreams.retry(&tried, None, now, &mut rng) {
                        Ok(retry) => {
                            retries += 1;
                            assert!(!tried.contains(&retry.upstream()), "seed {seed}");
                            check(&closed_before, &retry, &tried, seed);
                            trials += u32::from(retry.is_trial());
                            under_way.push((now + millis(rng.random_range(1..300)), retry, tried));
                        }
                        Err(NoRetry::AllTried) => assert_eq!(tried.len(), count, "seed {seed}"),
                        Err(NoRetry::Budget) => {}
                    }
                }
            }
            let closed_before = breakers(&upstreams);
            let attempt = upstreams.first(None, now, &mut rng).unwrap();
            requests += 1;
            check(&closed_before, &attempt, &[], seed);
            trials += u32::from(attempt.is_trial());
            under_way.push((now + millis(rng.random_range(1..300)), attempt, Vec::new()));
            let in_flight: u32 = upstreams.views().map(|view| view.in_flight).sum();
            assert_eq!(in_flight as usize, under_way.len(), "seed {seed}");
            let trials_under_way = |index| {
                under_way
                    .iter()
                    .filter(|(_, a, _)| a.trial && a.upstream == index)
                    .count()
            };
            assert!((0..count).all(|index| trials_under_way(index) <= 1), "seed {seed}");
        }
        let allowed = 30.0 + 0.2 * f64::from(requests) + 3.0 * now.as_secs_f64();
        assert!(f64::from(retries) <= allowed, "seed {seed}");

        // All recover: after the longest pause and one round of trials everyone serves again.
        for (_, attempt, _) in under_way.drain(..) {
            upstreams.finish(attempt, Outcome::Abandoned, now);
        }
        now += OPEN_AT_MOST;
        for _ in 0..count {
            let attempt = upstreams.first(None, now, &mut rng).unwrap();
            upstreams.finish(attempt, Outcome::Success, now);
        }
        assert!(
            breakers(&upstreams).iter().all(|state| *state == BreakerState::Closed),
            "seed {seed}, {trials} trials"
        );
    }
}

/// One that is not closed is only chosen for a trial, or when all that are left are not closed.
fn check(before: &[BreakerState], attempt: &Attempt, tried: &[usize], seed: u64) {
    let any_closed = (0..before.len()).any(|index| !tried.contains(&index) && before[index] == BreakerState::Closed);
    if any_closed && before[attempt.upstream()] != BreakerState::Closed {
        assert!(attempt.is_trial(), "seed {seed}: {before:?} {attempt:?}");
        assert_eq!(before[attempt.upstream()], BreakerState::Open, "seed {seed}");
    }
}
