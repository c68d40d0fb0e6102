use super::*;

const PACKET: Duration = Duration::from_millis(20);

struct Scene {
    loudest: Loudest,
    now: Instant,
    /// Who is forwarded, as the changes said.
    forwarded: Vec<String>,
    changes: usize,
}

impl Scene {
    /// A room with these tracks.
    fn new(places: usize, tracks: &[&str]) -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
        let now = Instant::now();
        let mut scene = Self {
            loudest: Loudest::new(places),
            now,
            forwarded: Vec::new(),
            changes: 0,
        };
        for name in tracks {
            scene.publish(name, false);
        }
        scene
    }

    fn publish(&mut self, name: &str, is_always_steady: bool) {
        if self.loudest.insert(self.now, &id(name), is_always_steady) {
            self.forwarded.push(name.to_owned());
        }
    }

    fn packet(&mut self, name: &str, level: Option<i8>) {
        for (track, is_forwarded) in self.loudest.observe(self.now, &id(name), level) {
            self.changes += 1;
            self.forwarded.retain(|other| other != track.as_str());
            if is_forwarded {
                self.forwarded.push(track.as_str().to_owned());
            }
        }
    }

    /// Lets so much time pass, in which these are so loud.
    fn run(&mut self, ms: u64, sounds: &[(&str, Option<i8>)]) {
        for _ in 0..ms / 20 {
            for (name, level) in sounds {
                self.packet(name, *level);
            }
            self.now += PACKET;
        }
    }

    fn has(&self, name: &str) -> bool {
        self.forwarded.iter().any(|other| other == name)
    }
}

fn id(name: &str) -> TrackId {
    TrackId::new(name)
}

const SPEECH: Option<i8> = Some(-25);
const QUIET: Option<i8> = Some(-80);

#[test]
fn a_room_with_no_more_microphones_than_places_is_not_touched() {
    let mut scene = Scene::new(3, &["a", "b", "c"]);
    scene.run(10_000, &[("a", SPEECH), ("b", QUIET), ("c", None)]);
    assert_eq!((scene.forwarded.len(), scene.changes), (3, 0));
}

#[test]
fn without_a_limit_everything_is_forwarded() {
    let names: Vec<String> = (0..100).map(|index| index.to_string()).collect();
    let mut scene = Scene::new(0, &names.iter().map(String::as_str).collect::<Vec<_>>());
    scene.run(1_000, &[("1", SPEECH), ("99", QUIET)]);
    assert_eq!((scene.forwarded.len(), scene.changes), (100, 0));
}

#[test]
fn who_begins_to_speak_is_forwarded_from_that_packet_on() {
    let mut scene = Scene::new(2, &["a", "b", "c"]);
    scene.run(5_100, &[("a", SPEECH), ("b", QUIET), ("c", QUIET)]);
    assert!(scene.has("a") && scene.has("b") && !scene.has("c"));
    scene.packet("c", SPEECH);
    assert!(scene.has("c") && scene.has("a"), "the silent one has made room");
    assert!(!scene.has("b"));
}

#[test]
fn the_one_that_has_been_silent_longest_makes_room() {
    let mut scene = Scene::new(3, &["a", "b", "c", "d"]);
    for name in ["b", "c", "a"] {
        scene.run(500, &[(name, SPEECH)]);
    }
    scene.run(6_000, &[("a", QUIET), ("b", QUIET), ("c", QUIET), ("d", QUIET)]);
    scene.run(200, &[("d", SPEECH)]);
    assert!(scene.has("d") && !scene.has("b"), "{:?}", scene.forwarded);
}

#[test]
fn who_is_speaking_is_not_cut_for_one_who_is_a_little_louder() {
    let mut scene = Scene::new(2, &["a", "b", "c"]);
    scene.run(3_000, &[("a", Some(-30)), ("b", Some(-30)), ("c", QUIET)]);
    scene.run(3_000, &[("a", Some(-30)), ("b", Some(-30)), ("c", Some(-23))]);
    assert!(scene.has("a") && scene.has("b"));
    assert_eq!(scene.changes, 0);
}

#[test]
fn a_pause_of_two_seconds_does_not_cost_the_place() {
    let mut scene = Scene::new(2, &["a", "b", "c"]);
    scene.run(3_000, &[("a", SPEECH), ("b", SPEECH)]);
    scene.run(2_000, &[("a", SPEECH), ("b", QUIET), ("c", SPEECH)]);
    assert!(scene.has("b"));
    scene.run(1_000, &[("a", SPEECH), ("b", QUIET), ("c", SPEECH)]);
    assert!(!scene.has("b") && scene.has("c"), "after it the place is free");
}

#[test]
fn when_all_speak_one_who_is_much_louder_takes_the_place_of_the_quietest_and_a_click_does_not() {
    let mut scene = Scene::new(2, &["a", "b", "c"]);
    scene.run(3_000, &[("a", Some(-28)), ("b", Some(-40)), ("c", QUIET)]);
    scene.run(40, &[("a", Some(-28)), ("b", Some(-40)), ("c", Some(-5))]);
    assert!(!scene.has("c"), "two packets are a click");
    scene.run(1_000, &[("a", Some(-28)), ("b", Some(-40)), ("c", Some(-15))]);
    assert!(scene.has("a") && scene.has("c") && !scene.has("b"));
}

#[test]
fn many_who_speak_at_once_do_not_change_places_all_the_time() {
    let mut scene = Scene::new(3, &["a", "b", "c", "d", "e", "f"]);
    let mut seed = 1_u32;
    for _ in 0..500 {
        for name in ["a", "b", "c", "d", "e", "f"] {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            scene.packet(name, Some(-36 + (seed >> 16) as i8 % 12));
        }
        scene.now += PACKET;
    }
    assert_eq!(scene.forwarded.len(), 3);
    assert!(scene.changes <= 6, "{} changes in 10 s", scene.changes);
}

#[test]
fn tracks_without_levels_are_forwarded_up_to_a_bound_and_cost_nobody_else_a_place() {
    let mut scene = Scene::new(2, &["a", "b"]);
    for name in ["w", "x", "y"] {
        scene.publish(name, false);
    }
    let all = [("a", SPEECH), ("b", SPEECH), ("w", None), ("x", None), ("y", None)];
    scene.run(4_000, &all);
    assert!(scene.has("a") && scene.has("b") && scene.has("w") && scene.has("x"));
    assert!(!scene.has("y"), "all places of that sort are taken");
    // One of them sends no more.
    scene.run(4_000, &[("a", SPEECH), ("b", SPEECH), ("w", None), ("y", None)]);
    assert!(scene.has("y") && !scene.has("x"));
}

#[test]
fn a_screens_sound_is_forwarded_while_it_is_quiet() {
    let mut scene = Scene::new(1, &["a"]);
    scene.publish("film", true);
    scene.publish("b", false);
    scene.run(5_000, &[("a", QUIET), ("film", QUIET), ("b", SPEECH)]);
    assert!(scene.has("film") && scene.has("b"));
}

#[test]
fn a_place_is_free_when_its_track_is_muted_or_gone_or_sends_no_more() {
    let mut scene = Scene::new(1, &["a", "b"]);
    scene.run(100, &[("a", SPEECH)]);
    scene.loudest.muted(&id("a"));
    scene.forwarded.clear();
    scene.packet("b", QUIET);
    assert!(scene.has("b"), "even for one that is silent");
    scene.loudest.remove(&id("b"));
    scene.forwarded.clear();
    scene.packet("a", QUIET);
    assert!(scene.has("a"));
    scene.publish("c", false);
    scene.now += RELEASE;
    scene.packet("c", QUIET);
    assert!(scene.has("c") && !scene.has("a"));
}

#[test]
fn what_one_packet_costs_does_not_grow_with_the_room() {
    // Everybody shouts. Whoever found no place searches again only after a while.
    let mut scene = Scene::new(4, &[]);
    let names: Vec<String> = (0..1_000).map(|index| format!("{index:04}")).collect();
    for name in &names {
        scene.publish(name, false);
    }
    for _ in 0..50 {
        for name in &names {
            scene.packet(name, SPEECH);
        }
        scene.now += PACKET;
    }
    assert_eq!(scene.forwarded.len(), 4);
    let waiting = scene
        .loudest
        .tracks
        .values()
        .filter(|sound| sound.next_try.is_some_and(|(next, _)| next > scene.now));
    assert!(waiting.count() > 500);
}
