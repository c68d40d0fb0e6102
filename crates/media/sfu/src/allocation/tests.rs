//! One subscriber over time.

use super::*;

/// A track in three layers: 150, 500 and 1,700 kbps, of which these arrive.
fn request(name: &str, active: &[u8]) -> Request {
    let rung = |spatial: u8, height: u32, bps| Rung {
        layer: Layer { spatial, temporal: 0 },
        width: height * 16 / 9,
        height,
        fps: 30,
        bps,
        key_bytes: 0,
        is_active: active.contains(&spatial),
    };
    Request {
        track: TrackId::new(name),
        rungs: vec![rung(0, 180, 150_000), rung(1, 360, 500_000), rung(2, 720, 1_700_000)],
        preference: Preference::default(),
        limit: None,
        is_screen: false,
        spoke: None,
        is_muted: false,
        asked: Places::default(),
    }
}

struct Viewer {
    receiver: Receiver,
    now: Instant,
    requests: Vec<Request>,
    reserve: u64,
    /// Pauses and their ends, as they were told.
    told: Vec<(String, bool)>,
}

impl Viewer {
    #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
    fn new(requests: Vec<Request>) -> Self {
        Self {
            receiver: Receiver::default(),
            now: Instant::now(),
            requests,
            reserve: 0,
            told: Vec::new(),
        }
    }

    /// Decides every 100 ms for so long; the spatial layers that it gets in the end.
    fn run(&mut self, millis: u64, kbps: u64) -> Vec<Option<u8>> {
        let end = self.now + Duration::from_millis(millis);
        loop {
            let budget = Budget {
                bps: Some(kbps * 1_000),
                reserve: self.reserve,
                never_pause: false,
            };
            let decision = self.receiver.decide(self.now, budget, &self.requests);
            let told = decision.paused.into_iter();
            self.told
                .extend(told.map(|(track, paused)| (track.as_str().to_owned(), paused)));
            if self.now >= end {
                let targets = decision.targets.into_iter();
                return targets.map(|(_, target)| target.map(|layer| layer.spatial)).collect();
            }
            self.now += Duration::from_millis(100);
        }
    }

    /// The layers that it desires of a track.
    fn desire(&self, name: &str) -> Vec<u8> {
        let desired = self.receiver.desire(&TrackId::new(name)).unwrap();
        (0..8).filter(|spatial| desired.contains(*spatial)).collect()
    }
}

#[test]
fn who_comes_gets_the_lowest_at_once_and_more_as_soon_as_there_is_room() {
    let mut viewer = Viewer::new(vec![request("a", &[0, 1, 2])]);
    assert_eq!(viewer.run(0, 300), [Some(0)]);
    assert_eq!(viewer.run(400, 300), [Some(0)]);
    assert_eq!(viewer.run(100, 2_500), [Some(2)]);
}

#[test]
fn a_fall_acts_at_once_and_a_rise_after_it_was_there_for_a_while() {
    let mut viewer = Viewer::new(vec![request("a", &[0, 1, 2])]);
    viewer.run(30_000, 3_000);
    assert_eq!(viewer.run(0, 400), [Some(0)]);
    viewer.run(30_000, 400);
    assert_eq!(viewer.run(500, 3_000), [Some(0)]);
    assert_eq!(viewer.run(300, 3_000), [Some(2)]);
}

#[test]
fn pauses_are_told_when_they_begin_and_when_they_end() {
    let mut viewer = Viewer::new(vec![request("a", &[0, 1, 2]), request("b", &[0, 1, 2])]);
    viewer.run(6_000, 400);
    assert!(viewer.told.is_empty());
    assert_eq!(viewer.run(1_000, 200), [Some(0), None]);
    let paused: Vec<&TrackId> = viewer.receiver.paused().collect();
    assert_eq!(paused, [&TrackId::new("b")]);
    viewer.run(10_000, 310);
    assert_eq!(viewer.told, [("b".to_owned(), true)], "it needs a margin to go on");
    assert_eq!(viewer.run(1_000, 400), [Some(0), Some(0)]);
    assert_eq!(viewer.told, [("b".to_owned(), true), ("b".to_owned(), false)]);
}

#[test]
fn what_is_hidden_is_no_pause_and_what_is_shown_again_needs_not_wait() {
    let mut viewer = Viewer::new(vec![request("a", &[0, 1, 2])]);
    viewer.run(30_000, 3_000);
    viewer.requests[0].preference.enabled = false;
    assert_eq!(viewer.run(5_000, 3_000), [None]);
    assert!(viewer.desire("a").is_empty());
    viewer.requests[0].preference.enabled = true;
    assert_eq!(viewer.run(0, 3_000), [Some(2)]);
    assert!(viewer.told.is_empty());
}

#[test]
fn a_larger_window_needs_not_wait() {
    let mut viewer = Viewer::new(vec![request("a", &[0, 1, 2])]);
    (
        viewer.requests[0].preference.width,
        viewer.requests[0].preference.height,
    ) = (320, 180);
    assert_eq!(viewer.run(30_000, 3_000), [Some(0)]);
    (
        viewer.requests[0].preference.width,
        viewer.requests[0].preference.height,
    ) = (1280, 720);
    assert_eq!(viewer.run(0, 3_000), [Some(2)]);
}

#[test]
fn before_anything_arrives_the_target_is_what_would_be_received() {
    let mut viewer = Viewer::new(vec![request("a", &[])]);
    assert_eq!(viewer.run(0, 700), [Some(1)]);
    viewer.requests[0].rungs.clear();
    assert_eq!(viewer.run(0, 700), [Some(u8::MAX)], "whatever comes");
    assert_eq!(viewer.desire("a").len(), 8);
    assert!(viewer.told.is_empty());
}

#[test]
fn a_layer_that_its_publisher_has_turned_off_is_desired_if_it_would_fit() {
    let mut viewer = Viewer::new(vec![request("a", &[0])]);
    viewer.run(6_000, 3_000);
    assert_eq!(viewer.desire("a"), [0, 2]);
    viewer.run(1_000, 600);
    assert_eq!(viewer.desire("a"), [0, 1]);
    viewer.run(1_000, 100);
    assert!(viewer.desire("a").is_empty(), "not even the lowest fits");
    viewer.run(1_000, 3_000);
    viewer.requests[0]
        .rungs
        .iter_mut()
        .for_each(|rung| rung.is_active = true);
    assert_eq!(
        viewer.run(0, 3_000),
        [Some(2)],
        "when it comes, there has been room for long"
    );
}

#[test]
fn no_room_is_kept_for_what_was_asked_for_and_does_not_come() {
    let mut viewer = Viewer::new(vec![request("a", &[0]), request("b", &[0])]);
    viewer.requests[0].preference.priority = 1;
    viewer.run(1_000, 1_200);
    assert_eq!([viewer.desire("a"), viewer.desire("b")], [[0, 1], [0, 1]]);
    viewer.run(1_000, 800);
    assert_eq!([viewer.desire("a"), viewer.desire("b")], [vec![0, 1], vec![0]]);
    viewer.requests[0].asked = Places::ALL;
    viewer.run(1_000, 800);
    assert_eq!([viewer.desire("a"), viewer.desire("b")], [[0, 1], [0, 1]]);
}

#[test]
fn what_lasts_counts_against_the_quality_of_the_connection() {
    let mut viewer = Viewer::new(vec![request("a", &[0, 1, 2])]);
    viewer.run(10_000, 3_000);
    assert_eq!(viewer.receiver.shortfall(viewer.now), Shortfall::None);
    viewer.run(4_900, 700);
    assert_eq!(
        viewer.receiver.shortfall(viewer.now),
        Shortfall::None,
        "one layer less is nothing"
    );
    viewer.run(4_900, 300);
    assert_eq!(
        viewer.receiver.shortfall(viewer.now),
        Shortfall::None,
        "it has not lasted"
    );
    viewer.run(200, 300);
    assert_eq!(viewer.receiver.shortfall(viewer.now), Shortfall::Little);
    viewer.run(6_200, 100);
    assert_eq!(viewer.receiver.shortfall(viewer.now), Shortfall::Nothing);
    viewer.run(2_000, 3_000);
    assert_eq!(viewer.receiver.shortfall(viewer.now), Shortfall::None);
}

#[test]
fn a_muted_track_needs_no_room_and_one_that_is_gone_is_forgotten() {
    let mut viewer = Viewer::new(vec![request("a", &[0, 1, 2]), request("b", &[0, 1, 2])]);
    viewer.run(3_000, 650);
    viewer.requests[0].is_muted = true;
    assert_eq!(viewer.run(1_000, 650), [Some(1)]);
    viewer.run(1_000, 100);
    assert_eq!(viewer.receiver.paused().count(), 1);
    viewer.requests.clear();
    viewer.run(0, 100);
    assert_eq!(viewer.receiver.paused().count(), 0);
}

#[test]
fn a_burst_of_repair_pauses_nothing_and_what_lasts_is_reserved_for() {
    let mut viewer = Viewer::new(vec![request("a", &[0, 1, 2])]);
    viewer.run(10_000, 700);
    viewer.reserve = 600_000;
    assert_eq!(viewer.run(2_900, 700), [Some(1)]);
    viewer.reserve = 0;
    assert_eq!(viewer.run(100, 700), [Some(1)]);
    viewer.reserve = 250_000;
    assert_eq!(viewer.run(3_200, 700), [Some(0)]);
    viewer.reserve = 600_000;
    assert_eq!(viewer.run(10_000, 700), [Some(0)], "half of it at most");
    viewer.reserve = 0;
    assert_eq!(viewer.run(2_000, 700), [Some(1)]);
}

#[test]
fn what_is_in_between_is_not_desired_until_there_is_no_room_for_the_best() {
    let mut viewer = Viewer::new(vec![request("a", &[0, 1, 2])]);
    viewer.run(6_000, 3_000);
    assert_eq!(viewer.desire("a"), [2]);
    viewer.requests[0] = request("a", &[0, 2]);
    assert_eq!(viewer.run(1_000, 800), [Some(0)]);
    assert_eq!(viewer.desire("a"), [0, 1], "what it gets until the other comes, too");
    viewer.requests[0] = request("a", &[0, 1, 2]);
    assert_eq!(viewer.run(1_000, 800), [Some(1)]);
    assert_eq!(viewer.desire("a"), [1]);
}

#[test]
fn what_is_larger_than_wanted_is_desired_until_what_is_wanted_comes() {
    let mut viewer = Viewer::new(vec![request("a", &[2])]);
    viewer.requests[0].preference.quality = Some(Quality::Medium);
    assert_eq!(viewer.run(6_000, 3_000), [Some(2)]);
    assert_eq!(viewer.desire("a"), [1, 2]);
    viewer.requests[0].rungs[1].is_active = true;
    assert_eq!(viewer.run(1_000, 3_000), [Some(1)]);
    assert_eq!(viewer.desire("a"), [1]);
}
