//! Budgets, what is wanted, and what becomes of it, in rows.

use super::*;

/// A camera in three layers: 180p at 150 kbps (q), 360p at 500 kbps (h), 720p at 1,700 kbps (f).
fn camera() -> Demand {
    let rung = |spatial, height: u32, bps: u64| Rung {
        layer: Layer { spatial, temporal: 0 },
        width: height * 16 / 9,
        height,
        fps: 30,
        bps: bps * 1_000,
        key_bytes: 0,
        is_active: true,
    };
    Demand {
        rungs: vec![rung(0, 180, 150), rung(1, 360, 500), rung(2, 720, 1_700)],
        preference: Preference::default(),
        limit: None,
        is_screen: false,
        spoke: None,
        standing: Standing::New,
        may_rise: true,
        holds_out: false,
    }
}

/// The same with three temporal layers each, of 7, 15 and 30 pictures per second, which cost 60%, 80% and all of it.
fn temporal() -> Demand {
    let rungs = camera().rungs.into_iter().flat_map(|rung| {
        [(0, 7, 60), (1, 15, 80), (2, 30, 100)].map(|(temporal, fps, percent)| Rung {
            layer: Layer { temporal, ..rung.layer },
            fps,
            bps: rung.bps * percent / 100,
            ..rung
        })
    });
    Demand {
        rungs: rungs.collect(),
        ..camera()
    }
}

impl Demand {
    fn shown(mut self, width: u32, height: u32) -> Self {
        (self.preference.width, self.preference.height) = (width, height);
        self
    }

    fn quality(mut self, quality: Quality) -> Self {
        self.preference.quality = Some(quality);
        self
    }

    fn priority(mut self, priority: u32) -> Self {
        self.preference.priority = priority;
        self
    }

    fn fps(mut self, fps: u32) -> Self {
        self.preference.fps = fps;
        self
    }

    fn hidden(mut self) -> Self {
        self.preference.enabled = false;
        self
    }

    fn limited(mut self, limit: Quality) -> Self {
        self.limit = Some(limit);
        self
    }

    fn screen(mut self) -> Self {
        self.is_screen = true;
        self
    }

    fn spoke(mut self, rank: usize) -> Self {
        self.spoke = Some(rank);
        self
    }

    fn paused(mut self) -> Self {
        self.standing = Standing::Paused;
        self
    }

    fn has(mut self, spatial: u8) -> Self {
        self.standing = Standing::Given(Layer { spatial, temporal: 0 });
        self
    }

    fn waits(mut self) -> Self {
        self.may_rise = false;
        self
    }

    fn only(mut self, active: &[u8]) -> Self {
        for rung in &mut self.rungs {
            rung.is_active = active.contains(&rung.layer.spatial);
        }
        self
    }
}

/// `q`, `h`, `f` with the temporal layer behind it if there are several; `-`: paused; `.`: nothing to give.
fn text(allocation: &Allocation, demands: &[Demand]) -> String {
    let words = allocation
        .shares
        .iter()
        .zip(demands)
        .map(|(share, demand)| match share.layer {
            None if share.is_paused() => "-".to_owned(),
            None => ".".to_owned(),
            Some(layer) => {
                let name = ["q", "h", "f"][usize::from(layer.spatial)];
                let has_temporal = demand.rungs.iter().any(|rung| rung.layer.temporal > 0);
                if has_temporal {
                    format!("{name}{}", layer.temporal)
                } else {
                    name.to_owned()
                }
            }
        });
    words.collect::<Vec<_>>().join(" ")
}

/// Rows of: what it shows, kilobits per second, what is wanted, what becomes of it.
fn check<const N: usize>(rows: [(&str, u64, Vec<Demand>, &str); N]) {
    for (what, kbps, demands, expected) in rows {
        let budget = Budget {
            bps: Some(kbps * 1_000),
            reserve: 0,
            never_pause: false,
        };
        let found = allocate(budget, &demands, Among::Active);
        assert_eq!(text(&found, &demands), expected, "{what}, {kbps} kbps");
    }
}

#[test]
fn a_single_track_gets_the_best_that_fits() {
    check([
        ("nothing fits", 149, vec![camera()], "-"),
        ("the lowest needs no margin", 150, vec![camera()], "q"),
        ("the next needs a margin", 574, vec![camera()], "q"),
        ("the next needs a margin", 575, vec![camera()], "h"),
        ("the highest", 1_955, vec![camera()], "f"),
        ("no track", 1_000, vec![], ""),
    ]);
    let demands = [camera(), camera(), camera()];
    let unbounded = Budget {
        bps: None,
        reserve: 0,
        never_pause: false,
    };
    assert_eq!(text(&allocate(unbounded, &demands, Among::Active), &demands), "f f f");
}

#[test]
fn everyone_gets_the_lowest_before_anyone_gets_more() {
    let three = || vec![camera(), camera(), camera()];
    check([
        ("two fit", 400, three(), "q q -"),
        ("all fit", 450, three(), "q q q"),
        ("room for one to rise", 920, three(), "h q q"),
        ("room for two", 1_330, three(), "h h q"),
        ("room for all", 1_725, three(), "h h h"),
        ("one to the top", 3_105, three(), "f h h"),
    ]);
}

#[test]
fn the_order_is_priority_then_size_then_speech() {
    let small = || camera().shown(640, 360);
    check([
        (
            "the large one first",
            780,
            vec![small(), camera().shown(1280, 720)],
            "q h",
        ),
        (
            "sizes that are about the same do not count, speech does",
            780,
            vec![camera().shown(660, 380), camera().shown(640, 360).spoke(0)],
            "q h",
        ),
        (
            "who spoke last first",
            780,
            vec![camera().spoke(1), camera().spoke(0)],
            "q h",
        ),
        ("any speech before none", 780, vec![camera(), camera().spoke(7)], "q h"),
        (
            "size before speech",
            780,
            vec![camera().shown(1280, 720), small().spoke(0)],
            "h q",
        ),
        (
            "priority before size",
            780,
            vec![camera().shown(1280, 720), small().priority(3)],
            "q h",
        ),
        (
            "1 is before 2, and 0 is last",
            1_000,
            vec![camera(), camera().priority(2), camera().priority(1)],
            "q q h",
        ),
        (
            "the last of the order is paused",
            300,
            vec![camera(), camera().priority(2), camera().priority(1)],
            "- q q",
        ),
        (
            "a priority is served to the top before the next rises",
            2_200,
            vec![camera(), camera().priority(1)],
            "q f",
        ),
        (
            "a shared screen is large",
            780,
            vec![camera().shown(1280, 720).spoke(0), camera().screen().shown(700, 400)],
            "q h",
        ),
    ]);
}

#[test]
fn nothing_is_given_that_is_of_no_use() {
    let mut cheap_middle = camera();
    cheap_middle.rungs[0].bps = 600_000;
    check([
        (
            "the smallest that fills the size",
            9_000,
            vec![camera().shown(300, 150)],
            "q",
        ),
        (
            "one row more than the smallest",
            9_000,
            vec![camera().shown(300, 181)],
            "h",
        ),
        ("larger than all", 9_000, vec![camera().shown(4_000, 3_000)], "f"),
        ("a quality", 9_000, vec![camera().quality(Quality::Medium)], "h"),
        (
            "a quality counts, and a size beside it does not",
            9_000,
            vec![camera().quality(Quality::High).shown(100, 100)],
            "f",
        ),
        (
            "the subscriber's limit, whatever it wants",
            9_000,
            vec![camera().quality(Quality::High).limited(Quality::Low)],
            "q",
        ),
        ("hidden", 9_000, vec![camera().hidden()], "."),
        ("no packets yet", 9_000, vec![camera().only(&[])], "."),
        ("the best that is sent", 9_000, vec![camera().only(&[0, 1])], "h"),
        (
            "more than what is of use is better than nothing",
            9_000,
            vec![camera().quality(Quality::Low).only(&[1, 2])],
            "h",
        ),
        (
            "if it fits",
            499,
            vec![camera().quality(Quality::Low).only(&[1, 2])],
            "-",
        ),
        (
            "what costs more than something better is passed over",
            550,
            vec![cheap_middle],
            "h",
        ),
        (
            "what is of no use to one is there for another",
            2_200,
            vec![camera().shown(300, 150), camera()],
            "q f",
        ),
    ]);
}

#[test]
fn temporal_layers_are_steps_between() {
    check([
        ("slow", 100, vec![temporal()], "q0"),
        ("faster", 138, vec![temporal()], "q1"),
        ("small and smooth before large and jerky", 400, vec![temporal()], "q2"),
        ("large, and smooth enough", 460, vec![temporal()], "h1"),
        ("all", 1_955, vec![temporal()], "f2"),
        (
            "no more pictures than are of use",
            9_000,
            vec![temporal().fps(15)],
            "f1",
        ),
        (
            "what was meant as 8 is measured as 7",
            9_000,
            vec![temporal().fps(7)],
            "f0",
        ),
        ("between two: the upper", 9_000, vec![temporal().fps(20)], "f2"),
        (
            "a shared screen is sharp before it is smooth",
            1_200,
            vec![temporal().screen()],
            "f0",
        ),
        ("and smooth after", 1_600, vec![temporal().screen()], "f1"),
        (
            "all are smooth before one is large",
            360,
            vec![temporal(), temporal()],
            "q2 q2",
        ),
    ]);
}

#[test]
fn a_picture_becomes_larger_only_if_its_key_picture_gets_through_soon() {
    // 30 kB in 300 ms are 800 kbps.
    let keyed = || {
        let mut demand = camera().only(&[0, 1]);
        demand.rungs[1].key_bytes = 30_000;
        demand
    };
    check([
        ("too narrow for it", 799, vec![keyed().has(0)], "q"),
        ("wide enough", 800, vec![keyed().has(0)], "h"),
        ("it is there already", 500, vec![keyed().has(1)], "h"),
        ("a screen is to be read", 600, vec![keyed().has(0).screen()], "h"),
        ("the lowest is no larger picture", 200, vec![keyed().only(&[1])], "-"),
        ("the lowest is no larger picture", 500, vec![keyed().only(&[1])], "h"),
    ]);
}

#[test]
fn the_key_picture_of_a_larger_picture_is_waited_for_once() {
    // 30 kB in 300 ms are 800 kbps, which the layer above does not need again, whatever is said of its own.
    let keyed = |standing| {
        let mut demand = temporal().only(&[0, 1]);
        for (rung, key_bytes) in demand.rungs.iter_mut().skip(3).zip([20_000, 30_000, 45_000]) {
            rung.key_bytes = key_bytes;
        }
        let budget = Budget {
            bps: Some(900_000),
            reserve: 0,
            never_pause: false,
        };
        allocate(budget, &[Demand { standing, ..demand }], Among::Active).shares
    };
    let climbed = keyed(Standing::New);
    assert_eq!(climbed, keyed(Standing::Given(climbed[0].layer.unwrap())));
    assert_eq!(climbed[0].layer, climbed[0].ideal);
}

#[test]
fn what_a_track_has_it_keeps_while_it_fits() {
    check([
        ("kept without a margin", 1_700, vec![camera().has(2)], "f"),
        ("given up at once", 1_699, vec![camera().has(2)], "h"),
        (
            "kept by the one that has it",
            650,
            vec![camera(), camera().has(1)],
            "q h",
        ),
        (
            "more has to wait for its time",
            9_000,
            vec![camera().has(0).waits()],
            "q",
        ),
        (
            "it has to wait, and another does not",
            9_000,
            vec![camera().has(0).waits(), camera()],
            "q f",
        ),
        (
            "after a pause there has to be a margin",
            172,
            vec![camera().paused()],
            "-",
        ),
        (
            "after a pause there has to be a margin",
            173,
            vec![camera().paused()],
            "q",
        ),
        (
            "after a pause it has to be its time",
            9_000,
            vec![camera().paused().waits()],
            "-",
        ),
        (
            "the first takes back what the second has",
            780,
            vec![camera().priority(1).has(0), camera().priority(2).has(1)],
            "h q",
        ),
        (
            "one that is new is served before one that has more than the lowest",
            700,
            vec![camera().has(1), camera()],
            "h q",
        ),
        (
            "one that is new is served before one that has more than the lowest",
            620,
            vec![camera().has(1), camera()],
            "q q",
        ),
    ]);
}

#[test]
fn sound_and_repair_are_reserved_for() {
    let budget = |kbps: u64| Budget {
        bps: Some(kbps * 1_000),
        reserve: 100_000,
        never_pause: false,
    };
    let found = |kbps| text(&allocate(budget(kbps), &[camera()], Among::Active), &[camera()]);
    assert_eq!(
        [found(50), found(249), found(250), found(674), found(675)],
        ["-", "-", "q", "q", "h"]
    );
}

#[test]
fn it_says_what_would_be_of_use_and_what_the_next_step_needs() {
    let budget = |kbps: u64| Budget {
        bps: Some(kbps * 1_000),
        reserve: 50_000,
        never_pause: false,
    };
    let demands = [camera(), camera().shown(600, 300), camera().hidden()];
    let found = allocate(budget(400), &demands, Among::Active);
    assert_eq!((found.used, found.wanted), (300_000, 2_250_000));
    assert_eq!(found.next, Some(650_000 * 115 / 100 + 50_000));
    let next = found.next.unwrap() / 1_000 + 1;
    assert_eq!(
        text(&allocate(budget(next), &demands, Among::Active), &demands),
        "h q ."
    );
    assert_eq!(allocate(budget(9_000), &demands, Among::Active).next, None);
}

#[test]
fn what_could_be_sent_is_told_beside_what_is_sent() {
    let demands = [camera().only(&[0])];
    let budget = |kbps: u64| Budget {
        bps: Some(kbps * 1_000),
        reserve: 0,
        never_pause: false,
    };
    let found = |kbps, among| text(&allocate(budget(kbps), &demands, among), &demands);
    assert_eq!(found(9_000, Among::Active), "q");
    assert_eq!(found(9_000, Among::All), "f");
    assert_eq!(found(600, Among::All), "h");
    let nobody_sends = [camera().only(&[])];
    let found = allocate(budget(600), &nobody_sends, Among::All);
    assert_eq!(text(&found, &nobody_sends), "h");
}

#[test]
fn who_is_never_to_be_paused_gets_the_lowest_of_all_and_no_more_than_fits() {
    let demands = [camera(), camera().paused().waits(), camera()];
    let found = |kbps: u64| {
        let budget = Budget {
            bps: Some(kbps * 1_000),
            reserve: 0,
            never_pause: true,
        };
        text(&allocate(budget, &demands, Among::Active), &demands)
    };
    assert_eq!([found(10), found(450), found(920)], ["q q q", "q q q", "h q q"]);
}
