use super::*;

const PACKET: Duration = Duration::from_millis(20);

/// A room on virtual time: who is how loud, packet by packet.
struct Scene {
    speakers: Speakers,
    now: Instant,
    next_tick: Instant,
    changes: Vec<(Duration, Option<ParticipantId>)>,
    started: Instant,
}

impl Scene {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
        let now = Instant::now();
        Self {
            speakers: Speakers::default(),
            now,
            next_tick: now + INTERVAL,
            changes: Vec::new(),
            started: now,
        }
    }

    /// Lets so much time pass; `level` says how loud each is in each packet, none: no packet.
    fn run(&mut self, time: Duration, mut level: impl FnMut(&str) -> Option<i8>) {
        let end = self.now + time;
        while self.now < end {
            for name in ["ann", "bob", "cleo"] {
                if let Some(dbov) = level(name) {
                    self.speakers.observe(self.now, &who(name), dbov);
                }
            }
            self.now += PACKET;
            if self.now >= self.next_tick {
                self.next_tick += INTERVAL;
                self.speakers.tick(self.now);
                let dominant = self.speakers.dominant().cloned();
                if self.changes.last().map(|(_, last)| last.clone()) != Some(dominant.clone()) {
                    self.changes.push((self.now - self.started, dominant));
                }
            }
        }
    }

    /// One speaks, the others' microphones are open.
    fn speaks(&mut self, speaker: &str, time: Duration) {
        self.run(time, |name| Some(if name == speaker { -22 } else { -70 }));
    }

    fn dominant(&self) -> Option<String> {
        self.speakers.dominant().map(|dominant| dominant.as_str().to_owned())
    }
}

fn who(name: &str) -> ParticipantId {
    ParticipantId::new(name)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Speech: words of 200 to 600 ms with pauses of 60 to 260 ms between them.
struct Speech {
    left: u32,
    speaks: bool,
    seed: u32,
}

impl Speech {
    fn new(seed: u32) -> Self {
        Self {
            left: 0,
            speaks: false,
            seed,
        }
    }

    fn next(&mut self) -> i8 {
        // A linear congruential generator (Numerical Recipes) will do for words.
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let random = self.seed >> 16;
        if self.left == 0 {
            self.speaks = !self.speaks;
            self.left = if self.speaks { 10 + random % 21 } else { 3 + random % 11 };
        }
        self.left -= 1;
        if self.speaks { -30 + (random % 14) as i8 } else { -62 }
    }
}

fn interval(scene: &mut Scene, name: &str, dbov: i8, packets: u32) -> Vec<Speaker> {
    for _ in 0..packets {
        scene.speakers.observe(scene.now, &who(name), dbov);
        scene.now += PACKET;
    }
    scene.speakers.tick(scene.now)
}

#[test]
fn a_voice_is_reported_when_it_begins_and_when_it_ends() {
    let mut scene = Scene::new();
    assert!(interval(&mut scene, "ann", -90, 15).is_empty());
    let begun = interval(&mut scene, "ann", -20, 15);
    assert!(begun[0].active && begun[0].level > 0.0 && !begun[0].dominant);
    assert_eq!(scene.speakers.active().len(), 1);
    let dominant = interval(&mut scene, "ann", -20, 15);
    assert!(dominant[0].dominant, "half a second of voice has the floor");
    assert!(interval(&mut scene, "ann", -20, 15).is_empty(), "nothing new");
    interval(&mut scene, "ann", -90, 15);
    let ended = interval(&mut scene, "ann", -90, 15);
    assert!(!ended[0].active && ended[0].dominant, "who spoke last keeps the floor");
}

#[test]
fn a_click_is_not_a_voice() {
    let mut scene = Scene::new();
    assert!(interval(&mut scene, "ann", -10, 2).is_empty());
}

#[test]
fn a_pause_between_words_does_not_end_speaking() {
    let mut scene = Scene::new();
    interval(&mut scene, "ann", -20, 15);
    interval(&mut scene, "ann", -90, 15);
    assert_eq!(scene.speakers.active().len(), 1);
}

#[test]
fn a_cough_does_not_take_the_floor() {
    let mut scene = Scene::new();
    // Nobody has spoken yet, somebody is speaking, everybody has been silent for long.
    scene.run(ms(340), |name| (name == "bob").then_some(-6));
    scene.run(ms(1_000), |_| Some(-80));
    assert_eq!(scene.dominant(), None);
    scene.speaks("ann", ms(3_000));
    scene.run(ms(340), |name| Some(if name == "cleo" { -80 } else { -12 }));
    assert_eq!(scene.dominant().as_deref(), Some("ann"));
    scene.run(ms(10_000), |_| Some(-80));
    scene.run(ms(340), |name| Some(if name == "bob" { -6 } else { -80 }));
    scene.run(ms(1_000), |_| Some(-80));
    assert_eq!(scene.dominant().as_deref(), Some("ann"));
}

#[test]
fn a_new_speaker_takes_over_within_about_a_second() {
    let mut scene = Scene::new();
    for (index, name) in ["ann", "bob", "cleo", "ann"].into_iter().enumerate() {
        let begun = scene.now - scene.started;
        scene.speaks(name, ms(4_000));
        assert_eq!(
            scene.changes.len(),
            index + usize::from(scene.changes[0].1.is_none()) + 1
        );
        let (at, dominant) = scene.changes.last().unwrap();
        assert_eq!(dominant.as_ref(), Some(&who(name)));
        assert!(*at - begun <= ms(1_200), "{name} after {:?}", *at - begun);
    }
}

#[test]
fn two_who_talk_at_once_do_not_change_places_all_the_time() {
    for seed in 1..=20 {
        let mut scene = Scene::new();
        let (mut ann, mut bob) = (Speech::new(seed), Speech::new(seed + 1_000));
        scene.run(ms(60_000), |name| match name {
            "ann" => Some(ann.next()),
            "bob" => Some(bob.next()),
            _ => Some(-75),
        });
        assert!(scene.changes.len() <= 6, "seed {seed}: {:?}", scene.changes);
    }
}

#[test]
fn one_who_talks_with_pauses_keeps_the_floor_against_noise() {
    let mut scene = Scene::new();
    let mut ann = Speech::new(7);
    // Bob drops something every two seconds.
    let mut packet = 0;
    scene.run(ms(30_000), |name| match name {
        "ann" => Some(ann.next()),
        "bob" => {
            packet += 1;
            Some(if packet % 100 < 8 { -5 } else { -70 })
        }
        _ => None,
    });
    let last = scene.changes.last().unwrap();
    assert_eq!(last.1, Some(who("ann")));
    assert!(last.0 < ms(2_500), "{:?}", scene.changes);
}

#[test]
fn whoever_spoke_last_keeps_the_floor_through_a_long_silence() {
    let mut scene = Scene::new();
    scene.speaks("ann", ms(2_000));
    scene.run(ms(60_000), |_| None);
    assert_eq!(scene.dominant().as_deref(), Some("ann"));
    assert!(scene.speakers.active()[0].dominant, "and a snapshot says so");
}

#[test]
fn who_mutes_or_leaves_loses_the_floor() {
    let mut scene = Scene::new();
    scene.speaks("ann", ms(2_000));
    scene.speakers.muted(&who("ann"));
    assert_eq!(scene.dominant(), None);
    let told = scene.speakers.tick(scene.now);
    assert!(
        told.iter()
            .any(|told| told.participant == who("ann") && !told.active && !told.dominant)
    );
    assert_eq!(scene.speakers.recency(), [who("ann")], "it has spoken nevertheless");
    scene.speaks("bob", ms(2_000));
    scene.speakers.remove(&who("bob"));
    assert_eq!(scene.dominant(), None);
    assert_eq!(scene.speakers.recency(), [who("ann")]);
    scene.speaks("ann", ms(2_000));
    assert_eq!(scene.dominant().as_deref(), Some("ann"), "and can have it again");
}

#[test]
fn when_the_floor_changes_both_are_told_of_and_the_dominant_one_first() {
    let mut scene = Scene::new();
    scene.speaks("ann", ms(2_400));
    let mut told = Vec::new();
    while scene.dominant().as_deref() != Some("bob") {
        for _ in 0..15 {
            scene.speakers.observe(scene.now, &who("bob"), -22);
            scene.now += PACKET;
        }
        told = scene.speakers.tick(scene.now);
    }
    assert_eq!((told[0].participant.as_str(), told[0].dominant), ("bob", true));
    assert!(
        told[1..]
            .iter()
            .any(|told| told.participant == who("ann") && !told.dominant)
    );
}

#[test]
fn who_spoke_last_comes_first_after_the_dominant_one() {
    let mut scene = Scene::new();
    scene.speaks("cleo", ms(2_000));
    scene.speaks("bob", ms(2_000));
    scene.speaks("ann", ms(2_000));
    assert_eq!(scene.speakers.recency(), ["ann", "bob", "cleo"].map(who));
    // A word of somebody else does not take the floor, but is remembered.
    scene.run(ms(300), |name| Some(if name == "cleo" { -20 } else { -80 }));
    scene.run(ms(1_500), |_| Some(-80));
    assert_eq!(scene.speakers.recency(), ["ann", "cleo", "bob"].map(who));
}

#[test]
fn late_packets_and_long_packets_count_like_others() {
    for packet in [10, 20, 60] {
        let mut scene = Scene::new();
        // Every fourth packet comes together with the next.
        for index in 0..(1_500 / packet) {
            let late = if index % 4 == 3 { ms(packet) } else { ms(0) };
            scene.speakers.observe(scene.now + late, &who("ann"), -20);
            scene.now += ms(packet);
        }
        scene.speakers.voices.values_mut().for_each(Voice::tick);
        scene.speakers.choose_dominant(scene.now);
        assert_eq!(scene.dominant().as_deref(), Some("ann"), "packets of {packet} ms");
    }
}
