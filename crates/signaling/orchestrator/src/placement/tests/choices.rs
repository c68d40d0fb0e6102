//! Single choices: what each stage lets through, and what is written down about it.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;
use signalbox_protocol::history::Filter;

use super::*;
use crate::placement::{Choice, Chooser, Settings, track};

fn choose_by(settings: Settings, request: &PlaceRoom, situation: &Situation<'_>) -> Choice {
    Chooser::new(settings).choose(request, situation, &mut StdRng::seed_from_u64(1))
}

fn choose(request: &PlaceRoom, candidates: &[Candidate]) -> Choice {
    choose_by(Settings::default(), request, &seen(candidates))
}

fn filter_of(choice: &Choice, of: NodeId) -> Option<Filter> {
    let considered = choice.reasons.candidates.iter().find(|c| c.node == of).unwrap();
    considered.filtered
}

/// Makes a good node one that a filter takes out.
type Spoil = fn(&mut Candidate);

#[test]
fn each_filter_takes_out_a_node_and_says_so() {
    let good = candidate(1, 0, 10);
    let request = PlaceRoom {
        labels: BTreeMap::from([("disk".into(), "nvme".into())]),
        min_version: Some("1.4".into()),
        track: Some(Track::Stable),
        region: Some("eu".into()),
        ..request()
    };
    let good = Candidate {
        labels: request.labels.clone(),
        region: "eu".into(),
        ..good
    };
    let spoil: [(Filter, Spoil); 8] = [
        (Filter::State, |c| c.state = NodeState::Draining),
        (Filter::Lease, |c| c.lease_holds = false),
        (Filter::Ejected, |c| c.ejected = true),
        (Filter::Version, |c| c.version = "1.3.9".into()),
        (Filter::Labels, |c| *c.labels.get_mut("disk").unwrap() = "sata".into()),
        (Filter::Track, |c| c.track = Track::Canary),
        (Filter::Capacity, |c| c.participants = 10),
        (Filter::Region, |c| c.region = "us".into()),
    ];
    for (filter, spoil) in spoil {
        let mut bad = Candidate {
            node: node(2),
            ..good.clone()
        };
        spoil(&mut bad);
        let choice = choose(&request, &[good.clone(), bad]);
        assert_eq!(choice.node, Some(node(1)), "{filter:?}");
        assert_eq!(filter_of(&choice, node(1)), None);
        assert_eq!(filter_of(&choice, node(2)), Some(filter));
    }
}

#[test]
fn a_node_with_a_room_to_avoid_is_passed_over() {
    let candidates = [candidate(1, 0, 10), candidate(2, 9, 10)];
    let occupied = BTreeSet::from([node(1)]);
    let situation = Situation {
        occupied: &occupied,
        ..seen(&candidates)
    };
    let choice = choose_by(Settings::default(), &request(), &situation);
    assert_eq!(choice.node, Some(node(2)));
    assert_eq!(filter_of(&choice, node(1)), Some(Filter::AntiAffinity));
}

#[test]
fn nobody_is_chosen_when_all_are_full_or_there_is_none() {
    assert_eq!(choose(&request(), &[]).node, None);
    let choice = choose(&request(), &[candidate(1, 10, 10), candidate(2, 0, 0)]);
    assert_eq!(choice.node, None);
    assert_eq!(filter_of(&choice, node(1)), Some(Filter::Capacity));
    assert_eq!(filter_of(&choice, node(2)), Some(Filter::Capacity));
}

#[test]
fn ejection_is_ignored_when_more_than_half_are_ejected() {
    let mut candidates: Vec<_> = (1..=4).map(|n| candidate(n, 0, 10)).collect();
    for bad in &mut candidates[..2] {
        bad.ejected = true;
    }
    let half = choose(&request(), &candidates);
    assert!(!half.reasons.panic);
    assert_eq!(filter_of(&half, node(1)), Some(Filter::Ejected));
    candidates[2].ejected = true;
    let more = choose(&request(), &candidates);
    assert!(more.reasons.panic);
    assert_eq!(filter_of(&more, node(1)), None);
}

/// One idle stable node and one idle canary node, and a cluster whose users are all in the canary share.
fn canary() -> ([Candidate; 2], Settings) {
    let canary = Candidate {
        track: Track::Canary,
        ..candidate(2, 0, 10)
    };
    let settings = Settings {
        canary_share: 1.0,
        ..Settings::default()
    };
    ([candidate(1, 0, 10), canary], settings)
}

#[test]
fn the_canary_share_falls_back_to_stable_when_no_canary_can_take_the_room() {
    let (mut candidates, settings) = canary();
    let choice = choose_by(settings.clone(), &request(), &seen(&candidates));
    assert_eq!((choice.node, choice.reasons.track), (Some(node(2)), Track::Canary));
    assert!(!choice.reasons.track_fallback);

    candidates[1].lease_holds = false;
    let choice = choose_by(settings, &request(), &seen(&candidates));
    assert_eq!((choice.node, choice.reasons.track), (Some(node(1)), Track::Canary));
    assert!(choice.reasons.track_fallback);
}

#[test]
fn a_preference_comes_before_the_share_and_falls_back_as_it_does() {
    let (mut candidates, settings) = canary();
    let nobody = Settings {
        canary_share: 0.0,
        ..settings.clone()
    };
    let prefer = |track| PlaceRoom {
        prefer: Some(track),
        ..request()
    };
    let chosen = |settings: &Settings, track, candidates: &[Candidate]| {
        let choice = choose_by(settings.clone(), &prefer(track), &seen(candidates));
        (choice.node, choice.reasons.track_fallback)
    };
    assert_eq!(chosen(&nobody, Track::Canary, &candidates), (Some(node(2)), false));
    assert_eq!(chosen(&settings, Track::Stable, &candidates), (Some(node(1)), false));
    candidates[1].lease_holds = false;
    assert_eq!(chosen(&nobody, Track::Canary, &candidates), (Some(node(1)), true));
}

#[test]
fn the_canary_share_falls_back_rather_than_go_to_another_region() {
    let (mut candidates, settings) = canary();
    candidates[0].region = "eu".into();
    candidates[1].region = "us".into();
    let request = PlaceRoom {
        region: Some("eu".into()),
        ..request()
    };
    let choice = choose_by(settings.clone(), &request, &seen(&candidates));
    assert_eq!((choice.node, choice.reasons.spilled_to), (Some(node(1)), None));
    assert!(choice.reasons.track_fallback);

    // Better far away than nowhere.
    candidates[0].lease_holds = false;
    let choice = choose_by(settings, &request, &seen(&candidates));
    assert_eq!((choice.node, choice.reasons.track_fallback), (Some(node(2)), false));
}

#[test]
fn a_track_that_is_asked_for_never_falls_back() {
    let (mut candidates, settings) = canary();
    let on = |track| PlaceRoom {
        track: Some(track),
        ..request()
    };
    let choice = choose_by(settings.clone(), &on(Track::Stable), &seen(&candidates));
    assert_eq!(choice.node, Some(node(1)));
    for candidate in &mut candidates {
        candidate.track = Track::Stable;
    }
    let choice = choose_by(settings, &on(Track::Canary), &seen(&candidates));
    assert_eq!((choice.node, choice.reasons.track_fallback), (None, false));
    assert_eq!(filter_of(&choice, node(1)), Some(Filter::Track));
}

#[test]
fn who_is_outside_of_the_share_never_gets_the_new_version() {
    let (candidates, _) = canary();
    let choice = choose(&request(), &candidates[1..]);
    assert_eq!(choice.node, None);
    assert_eq!(filter_of(&choice, node(2)), Some(Filter::Track));
}

#[test]
fn the_share_is_by_user_and_only_grows() {
    let of = |user: &str| PlaceRoom {
        user: Some(user.into()),
        ..request()
    };
    let users: Vec<String> = (0..500).map(|n| format!("user-{n}")).collect();
    for user in &users {
        assert_eq!(track::wanted(&of(user), None, 0.0), Track::Stable);
        assert_eq!(track::wanted(&of(user), None, 1.0), Track::Canary);
        assert!(!track::is_canary(user, 0.1) || track::is_canary(user, 0.3));
        let another_room = PlaceRoom {
            room: "weekly".parse().unwrap(),
            ..of(user)
        };
        assert_eq!(
            track::wanted(&of(user), None, 0.3),
            track::wanted(&another_room, None, 0.3)
        );
    }
    // Without a user, by room.
    let canaries = users
        .iter()
        .map(|room| PlaceRoom::new(room.parse().unwrap()))
        .filter(|request| track::wanted(request, None, 0.3) == Track::Canary)
        .count();
    assert!((100..200).contains(&canaries), "{canaries} of 500");
}

#[test]
fn a_room_whose_user_fell_into_the_share_once_does_so_again_when_it_is_moved() {
    let (candidates, all) = canary();
    let share = 0.3;
    let settings = Settings {
        canary_share: share,
        ..all
    };
    let user = |wanted: Track| {
        let is_wanted = |user: &String| track::is_canary(user, share) == (wanted == Track::Canary);
        (0..).map(|n| format!("user-{n}")).find(is_wanted).unwrap()
    };
    for wanted in [Track::Stable, Track::Canary] {
        let situation = Situation {
            bucket: Some(track::bucket(&user(wanted))),
            ..seen(&candidates)
        };
        let choice = choose_by(settings.clone(), &request(), &situation);
        assert_eq!(choice.reasons.track, wanted);
        // The share was taken back since: nobody falls into it.
        let taken_back = Settings {
            canary_share: 0.0,
            ..settings.clone()
        };
        assert_eq!(
            choose_by(taken_back, &request(), &situation).reasons.track,
            Track::Stable
        );
    }
}

/// A node in each of these regions, with this score in percent.
fn regions(loads: &[(&str, u32)]) -> Vec<Candidate> {
    loads
        .iter()
        .zip(1..)
        .map(|(&(region, load), n)| Candidate {
            region: region.into(),
            ..candidate(n, load, 100)
        })
        .collect()
}

#[test]
fn a_room_spills_over_to_the_nearest_region_that_has_room() {
    let settings = Settings {
        near: BTreeMap::from([("eu".into(), vec!["uk".into(), "us".into()])]),
        ..Settings::default()
    };
    let request = PlaceRoom {
        region: Some("eu".into()),
        ..request()
    };
    let chosen = |loads: &[(&str, u32)]| {
        let candidates = regions(loads);
        let of = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            let choice = Chooser::new(settings.clone()).choose(&request, &seen(&candidates), &mut rng);
            let at = candidates.iter().position(|c| Some(c.node) == choice.node).unwrap();
            (candidates[at].region.clone(), choice.reasons.spilled_to)
        };
        assert!((1..20).all(|seed| of(seed) == of(0)), "{loads:?} is left to chance");
        of(0)
    };
    let spilled = |to: &str| (to.to_owned(), Some(to.to_owned()));
    let none = ("eu".to_owned(), None);
    assert_eq!(chosen(&[("eu", 79), ("uk", 0), ("us", 0), ("ap", 0)]), none);
    assert_eq!(chosen(&[("eu", 80), ("uk", 79), ("us", 0), ("ap", 0)]), spilled("uk"));
    assert_eq!(chosen(&[("eu", 80), ("uk", 80), ("us", 79), ("ap", 0)]), spilled("us"));
    // A region that nobody called near comes last.
    assert_eq!(chosen(&[("eu", 80), ("uk", 80), ("us", 80), ("ap", 79)]), spilled("ap"));
    // One without nodes counts as full.
    assert_eq!(chosen(&[("us", 10), ("ap", 0)]), spilled("us"));
    // All are full, but not so full that they could not take the room: the better of two.
    assert_eq!(chosen(&[("eu", 85), ("ap", 90)]), none);
    assert_eq!(chosen(&[("eu", 90), ("ap", 85)]), spilled("ap"));
}

#[test]
fn the_chosen_node_is_listed_first_then_the_others_by_score_then_the_filtered() {
    let mut candidates = regions(&[("eu", 50), ("eu", 10), ("us", 5), ("eu", 30)]);
    candidates[1].participants = 1;
    candidates[1].capacity = 3;
    candidates.push(candidate(5, 100, 100));
    let request = PlaceRoom {
        region: Some("eu".into()),
        ..request()
    };
    let mut seen_first = BTreeSet::new();
    for seed in 0..50 {
        let choice =
            Chooser::new(Settings::default()).choose(&request, &seen(&candidates), &mut StdRng::seed_from_u64(seed));
        let listed: Vec<_> = choice
            .reasons
            .candidates
            .iter()
            .map(|c| (c.node, c.score, c.filtered))
            .collect();
        assert_eq!(listed.len(), 5);
        assert_eq!(Some(listed[0].0), choice.node);
        assert_eq!(listed[3], (node(3), 0.05, Some(Filter::Region)));
        assert_eq!(listed[4], (node(5), 1.0, Some(Filter::Capacity)));
        assert!(listed[1].1 < listed[2].1);
        assert!(listed[..3].contains(&(node(2), 0.333, None)));
        seen_first.insert(listed[0].0);
    }
    // The fullest loses against both others.
    assert_eq!(seen_first, BTreeSet::from([node(2), node(4)]));
}

#[test]
fn of_many_the_best_are_listed() {
    // In an order that is neither that of the scores nor the reverse.
    let candidates: Vec<_> = (0..200).map(|n| candidate(n, (n as u32 * 77) % 200, 1000)).collect();
    let choice = choose(&request(), &candidates);
    let mut listed: Vec<_> = choice.reasons.candidates.iter().map(|c| c.score).collect();
    assert_eq!((listed.len(), choice.reasons.omitted), (32, 168));
    assert_eq!(Some(choice.reasons.candidates[0].node), choice.node);
    let chosen = listed.remove(0);
    let best = (0..200).map(|n| f64::from(n) / 1000.0).filter(|&score| score != chosen);
    assert_eq!(listed, best.take(31).collect::<Vec<_>>());
}

#[test]
fn rooms_in_flight_count_for_every_orchestrator_until_they_show() {
    let candidates = [candidate(1, 0, 100)];
    let score = |orchestrators, seconds| {
        let mut chooser = Chooser::new(Settings::default());
        chooser.placed(node(1), Duration::ZERO);
        let situation = Situation {
            orchestrators,
            now: Duration::from_secs(seconds),
            ..seen(&candidates)
        };
        let choice = chooser.choose(&request(), &situation, &mut StdRng::seed_from_u64(1));
        choice.reasons.candidates[0].score
    };
    assert_eq!(score(1, 0), 0.04);
    assert_eq!(score(5, 0), 0.2);
    assert_eq!(score(5, 4), 0.04);
    assert_eq!(score(5, 5), 0.0);
}

#[test]
fn a_burst_on_stale_reports_spreads_over_the_nodes() {
    let candidates: Vec<_> = (0..10).map(|n| candidate(n, 0, 1000)).collect();
    let mut rng = StdRng::seed_from_u64(3);
    let mut chooser = Chooser::new(Settings::default());
    let mut taken = BTreeMap::new();
    for placement in 0..1000 {
        let now = Duration::from_millis(placement);
        let situation = Situation {
            now,
            ..seen(&candidates)
        };
        let chosen = chooser.choose(&request(), &situation, &mut rng).node.unwrap();
        chooser.placed(chosen, now);
        *taken.entry(chosen).or_insert(0_u32) += 1;
    }
    // The mean is 100. Without the rooms in flight every report says zero, and the choice is merely random: about
    // 125.
    let most = taken.values().max().copied().unwrap();
    assert!(most <= 105, "the busiest node of ten got {most} of 1000 rooms");
}

#[test]
fn a_bigger_node_takes_more() {
    let candidates = [candidate(1, 0, 1000), candidate(2, 0, 3000)];
    let mut rng = StdRng::seed_from_u64(4);
    let mut chooser = Chooser::new(Settings::default());
    let mut big = 0;
    for _ in 0..400 {
        let chosen = chooser.choose(&request(), &seen(&candidates), &mut rng).node.unwrap();
        chooser.placed(chosen, Duration::ZERO);
        big += u32::from(chosen == node(2));
    }
    assert!(
        (290..=310).contains(&big),
        "{big} of 400 on the node with three quarters of the capacity"
    );
}
