//! What holds for any tracks and budgets.

use proptest::prelude::*;

use super::*;

/// A ladder whose rungs cost the more the higher they are, or nearly: encoders do what they like.
fn rungs() -> impl Strategy<Value = Vec<Rung>> {
    (1u8..=3, 1u8..=3, 20_000u64..400_000, any::<u16>()).prop_map(|(spatials, temporals, base, noise)| {
        let mut rungs = Vec::new();
        for spatial in 0..spatials {
            for temporal in 0..temporals {
                let index = u32::from(spatial) * 3 + u32::from(temporal);
                let bps = base * (1 + 3 * u64::from(spatial)) * (2 + u64::from(temporal)) / 3;
                rungs.push(Rung {
                    layer: Layer { spatial, temporal },
                    width: 320 << spatial,
                    height: 180 << spatial,
                    fps: 30 >> (temporals - 1 - temporal),
                    bps: if noise.is_multiple_of(7) {
                        bps / u64::from(spatial + 1)
                    } else {
                        bps
                    },
                    key_bytes: u64::from(spatial) * (bps / 50),
                    is_active: noise >> (index % 16) & 1 == 0 || noise.is_multiple_of(2),
                });
            }
        }
        rungs
    })
}

fn standing() -> impl Strategy<Value = Standing> {
    prop_oneof![
        Just(Standing::New),
        Just(Standing::Paused),
        (0u8..3, 0u8..3).prop_map(|(spatial, temporal)| Standing::Given(Layer { spatial, temporal })),
    ]
}

fn demand() -> impl Strategy<Value = Demand> {
    let quality = || prop::option::of(prop::sample::select(vec![Quality::Low, Quality::Medium, Quality::High]));
    let size = prop::sample::select(vec![(0, 0), (160, 90), (320, 180), (640, 0), (1280, 720), (1920, 1080)]);
    let preference = (prop::bool::weighted(0.9), quality(), size, 0u32..31, 0u32..3).prop_map(
        |(enabled, quality, (width, height), fps, priority)| Preference {
            enabled,
            quality,
            width,
            height,
            fps,
            priority,
        },
    );
    let rest = (
        quality(),
        any::<bool>(),
        prop::option::of(0usize..5),
        standing(),
        any::<bool>(),
    );
    (rungs(), preference, rest).prop_map(
        |(rungs, preference, (limit, is_screen, spoke, standing, may_rise))| Demand {
            rungs,
            preference,
            limit,
            is_screen,
            spoke,
            standing,
            may_rise,
            holds_out: false,
        },
    )
}

fn demands() -> impl Strategy<Value = Vec<Demand>> {
    prop::collection::vec(demand(), 0..8)
}

fn budget(bps: u64) -> Budget {
    Budget {
        bps: Some(bps),
        reserve: 0,
        never_pause: false,
    }
}

/// The demands at the next time: what is given is what they have, and it is time for more.
fn next(demands: &[Demand], allocation: &Allocation) -> Vec<Demand> {
    let pairs = demands.iter().zip(&allocation.shares);
    let next = pairs.map(|(demand, share)| Demand {
        standing: match share.layer {
            Some(layer) => Standing::Given(layer),
            None if share.is_paused() => Standing::Paused,
            None => Standing::New,
        },
        may_rise: true,
        ..demand.clone()
    });
    next.collect()
}

fn bps(demand: &Demand, share: &Share) -> u64 {
    let rung = demand.rungs.iter().find(|rung| Some(rung.layer) == share.layer);
    rung.map_or(0, |rung| rung.bps)
}

proptest! {
    #[test]
    fn the_budget_is_never_exceeded(demands in demands(), bps_in_all in 0u64..8_000_000, reserve in 0u64..500_000) {
        let budget = Budget { bps: Some(bps_in_all), reserve, never_pause: false };
        let found = allocate(budget, &demands, Among::Active);
        let sent: u64 = demands.iter().zip(&found.shares).map(|(demand, share)| bps(demand, share)).sum();
        prop_assert_eq!(sent, found.used);
        prop_assert!(sent <= bps_in_all.saturating_sub(reserve));
        prop_assert!(found.used + reserve <= found.wanted);
    }

    #[test]
    fn who_is_never_paused_exceeds_the_budget_by_nothing_but_lowest_rungs(demands in demands(), bps in 0u64..2_000_000) {
        let found = allocate(Budget { never_pause: true, ..budget(bps) }, &demands, Among::Active);
        prop_assert!(!found.shares.iter().any(|share| share.is_paused()));
        let lowest = allocate(Budget { never_pause: true, ..budget(0) }, &demands, Among::Active);
        prop_assert!(found.used <= bps.max(lowest.used));
    }

    #[test]
    fn nothing_is_given_that_is_not_there_or_not_wanted(demands in demands(), bps in 0u64..8_000_000) {
        let found = allocate(budget(bps), &demands, Among::Active);
        for (demand, share) in demands.iter().zip(&found.shares) {
            prop_assert!(share.layer <= share.ideal);
            if let Some(layer) = share.layer {
                prop_assert!(demand.preference.enabled);
                prop_assert!(demand.rungs.iter().any(|rung| rung.layer == layer && rung.is_active));
            }
        }
    }

    #[test]
    fn nobody_waits_while_another_has_more_than_its_lowest_and_could_make_room(
        demands in demands(),
        bps in 0u64..8_000_000,
    ) {
        // As long as all are new, so that nobody has to wait for its time or a margin.
        let demands: Vec<Demand> = demands
            .into_iter()
            .map(|demand| Demand { standing: Standing::New, may_rise: true, ..demand })
            .collect();
        let found = allocate(budget(bps), &demands, Among::Active);
        let lowest: Vec<u64> = demands
            .iter()
            .map(|demand| path::path(demand, Among::Active).first().map_or(0, |step| step.bps))
            .collect();
        let served: u64 = found.shares.iter().zip(&lowest).filter(|(share, _)| share.layer.is_some()).map(|(_, bps)| bps).sum();
        for (share, lowest) in found.shares.iter().zip(&lowest) {
            prop_assert!(!share.is_paused() || served + lowest > bps);
        }
    }

    #[test]
    fn a_larger_budget_is_never_to_everyones_disadvantage(
        demands in demands(),
        less in 0u64..8_000_000,
        more in 0u64..2_000_000,
    ) {
        let small = allocate(budget(less), &demands, Among::Active).shares;
        let large = allocate(budget(less + more), &demands, Among::Active).shares;
        let is_some_better = large.iter().zip(&small).any(|(large, small)| large.layer > small.layer);
        prop_assert!(is_some_better || large == small);
        if let ([small], [large]) = (small.as_slice(), large.as_slice()) {
            prop_assert!(large.layer >= small.layer);
        }
    }

    #[test]
    fn the_answer_given_back_is_the_answer(demands in demands(), bps in 0u64..8_000_000) {
        let found = allocate(budget(bps), &demands, Among::Active);
        // What had to wait for its time may now rise; all others stay.
        let settled = allocate(budget(bps), &next(&demands, &found), Among::Active);
        let again = allocate(budget(bps), &next(&demands, &settled), Among::Active);
        prop_assert_eq!(&settled.shares, &again.shares);
    }

    #[test]
    fn an_estimate_that_wavers_by_5_percent_settles(
        mut demands in demands(),
        bps in 0u64..8_000_000,
        noise in prop::collection::vec(950u64..=1_050, 20),
    ) {
        let steps: usize = demands.iter().map(|demand| demand.rungs.len() + 1).sum();
        for index in 0..4 * steps {
            let permille = if index % 2 == 0 { 950 } else { 1_050 };
            let found = allocate(budget(bps * permille / 1_000), &demands, Among::Active);
            demands = next(&demands, &found);
        }
        let settled = allocate(budget(bps), &demands, Among::Active).shares;
        for permille in noise {
            let found = allocate(budget(bps * permille / 1_000), &demands, Among::Active);
            prop_assert_eq!(&found.shares, &settled);
            demands = next(&demands, &found);
        }
    }
}
