//! The test's figures, that it stays silent for days when both tracks are alike, and that it speaks soon when they are not.

use std::collections::VecDeque;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn tally(failed: u64, all: u64) -> Tally {
    Tally {
        ok: all - failed,
        failed,
    }
}

#[test]
fn its_figures_are_those_of_the_exact_test() {
    // As a sum of fractions of binomial coefficients, exactly.
    for (canary, stable, p) in [
        (tally(3, 4), tally(1, 4), 17.0 / 70.0),
        (tally(10, 12), tally(2, 15), 4.090_575_971_044_405_4e-4),
        (tally(8, 10), tally(0, 90), 2.418_212_112_575_88e-10),
        (tally(20, 100), tally(10, 900), 2.105_391_668_534_846e-14),
        (tally(60, 1_000), tally(200, 9_000), 3.329_912_699_861_717_4e-10),
    ] {
        let found = tail(stable, canary);
        assert!((found / p - 1.0).abs() < 1e-9, "{canary:?} {stable:?}: {found:e}");
    }
}

#[test]
fn whoever_fails_less_or_alike_is_not_worse_however_many_there_are() {
    for (canary, stable) in [
        (tally(0, 1_000_000), tally(500_000, 1_000_000)),
        (tally(10, 100), tally(100, 1_000)),
        (tally(0, 10), tally(0, 10)),
        (tally(u64::MAX / 2, u64::MAX - 1), tally(u64::MAX / 2, u64::MAX - 1)),
    ] {
        assert_eq!(compare(stable, canary).result, Compared::Alike, "{canary:?} {stable:?}");
    }
}

#[test]
fn too_little_is_not_compared() {
    let all_failed = tally(MIN_OUTCOMES - 1, MIN_OUTCOMES - 1);
    let nothing = Comparison {
        result: Compared::TooFew,
        p: None,
    };
    assert_eq!(compare(tally(0, 1_000_000), all_failed), nothing);
    assert_eq!(compare(tally(0, MIN_OUTCOMES - 1), tally(1_000, 1_000)), nothing);
    let enough = tally(MIN_OUTCOMES, MIN_OUTCOMES);
    assert_eq!(compare(tally(0, 1_000), enough).result, Compared::Worse);
}

#[test]
fn a_difference_that_nobody_would_notice_is_none_though_it_is_certain() {
    let found = compare(tally(9_000, 9_000_000), tally(2_000, 1_000_000));
    assert_eq!(found.result, Compared::Alike);
    assert!(found.p.unwrap() < LEVEL);
}

#[test]
fn either_of_joins_and_connections_is_compared_with_its_own() {
    let bad = Outcomes {
        joins: tally(0, 100),
        connections: tally(50, 100),
    };
    let good = Outcomes {
        joins: tally(0, 900),
        connections: tally(9, 900),
    };
    let verdict = verdict(&good, &bad);
    assert_eq!(verdict.joins.result, Compared::Alike);
    assert_eq!(verdict.connections.result, Compared::Worse);
}

proptest! {
    /// A probability, and the smaller the more of the failures are the canary's.
    #[test]
    fn more_failures_are_never_less_striking(
        drawn in 1_u64..500, others in 1_u64..5_000, failed in 0_u64..500, shift in 0_u64..500,
    ) {
        let failed = failed.min(drawn + others);
        let least = failed.saturating_sub(others);
        let most = failed.min(drawn);
        let of = |canary: u64| tail(tally(failed - canary, others), tally(canary, drawn));
        let here = least + shift % (most - least + 1);
        let p = of(here);
        prop_assert!((0.0..=1.0).contains(&p), "{p}");
        if here < most {
            prop_assert!(of(here + 1) <= p * (1.0 + 1e-9));
        }
    }
}

/// A day of joins, some each second, of which a share goes to canary nodes; looked at every five seconds, over ten minutes.
struct Day {
    rng: StdRng,
    per_second: u32,
    share: f64,
    fails: [f64; 2],
    buckets: VecDeque<[Tally; 2]>,
}

impl Day {
    fn new(seed: u64, per_second: u32, share: f64, stable_fails: f64, canary_fails: f64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            per_second,
            share,
            fails: [stable_fails, canary_fails],
            buckets: VecDeque::new(),
        }
    }

    /// So many joins of the canary until it was found to be worse; none: it was not.
    fn run(&mut self) -> Option<u64> {
        let mut canary_joins = 0;
        for second in 0..86_400 {
            if second % 10 == 0 {
                self.buckets.push_back(Default::default());
                if self.buckets.len() > 60 {
                    self.buckets.pop_front();
                }
            }
            for _ in 0..self.per_second {
                let track = usize::from(self.rng.random_bool(self.share));
                canary_joins += track as u64;
                let failed = self.rng.random_bool(self.fails[track]);
                let bucket = &mut self.buckets.back_mut().unwrap()[track];
                *bucket = bucket.plus(tally(u64::from(failed), 1));
            }
            if second % 5 == 4 {
                let sum = |track: usize| {
                    self.buckets
                        .iter()
                        .fold(Tally::default(), |sum, one| sum.plus(one[track]))
                };
                if compare(sum(0), sum(1)).result == Compared::Worse {
                    return Some(canary_joins);
                }
            }
        }
        None
    }
}

#[test]
fn a_day_of_looks_withdraws_nothing_when_both_tracks_are_alike() {
    for (seed, share, fails) in [
        (1, 0.01, 0.05),
        (2, 0.1, 0.01),
        (3, 0.1, 0.2),
        (4, 0.5, 0.05),
        (5, 0.9, 0.5),
    ] {
        assert_eq!(Day::new(seed, 5, share, fails, fails).run(), None, "{share} {fails}");
    }
}

#[test]
fn a_canary_that_fails_one_join_in_five_is_withdrawn_within_some_hundred() {
    for seed in 0..20 {
        for (share, most) in [(0.05, 200), (0.1, 250), (0.5, 450)] {
            let found = Day::new(seed, 20, share, 0.01, 0.2).run();
            assert!(found.is_some_and(|joins| joins <= most), "{share}: {found:?}");
        }
    }
}
