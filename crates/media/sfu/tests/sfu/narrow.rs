//! Viewers whose network does not take everything: who gets what of it, and what everyone is told.

use std::time::{Duration, Instant};

use signalbox_protocol::TrackId;
use signalbox_protocol::control::{Command, Event, Join, ParticipantLimits, Preference, Quality};
use signalbox_protocol::room::{ConnectionQuality, Kind};

use crate::sfu::camera::Encoder;
use crate::sfu::link::Impairment;
use crate::sfu::scenario::LAYER_BPS;
use crate::sfu::world::{World, room};

const SECOND: Duration = Duration::from_secs(1);

/// A few publishers of three layers each, and the last one, who watches all of them.
struct Call {
    world: World,
    viewer: usize,
    tracks: Vec<TrackId>,
}

impl Call {
    fn new(seed: u64, publishers: usize, kbps: Option<u64>, join: impl FnOnce(Join) -> Join) -> Self {
        Self::with_sound(seed, publishers, kbps, join, false)
    }

    fn with_sound(
        seed: u64,
        publishers: usize,
        kbps: Option<u64>,
        join: impl FnOnce(Join) -> Join,
        has_sound: bool,
    ) -> Self {
        let mut world = World::new(seed, Impairment::NONE);
        for publisher in 0..publishers {
            world.join(&format!("publisher-{publisher}"), has_sound, &["q", "h", "f"], (0, 0));
            let encoders = LAYER_BPS.iter().zip(0..);
            world.members[publisher].client.encoders = encoders.map(|(bps, layer)| Encoder::new(layer, *bps)).collect();
        }
        let mut client = world.new_client();
        let sound = if has_sound { publishers } else { 0 };
        let offer = client.offer(false, &[], (sound, publishers));
        let request = join(Join {
            offer: Some(offer),
            ..World::request("viewer")
        });
        let joined = world.admit(request).unwrap();
        client.answer(joined.answer.as_deref().unwrap());
        let viewer = world.add("viewer", client, joined);
        world.connect();
        let slots = world.slots(viewer);
        let of = |publisher: usize| {
            let video = slots.iter().filter(|slot| slot.kind == Kind::Video);
            let carried = video.filter_map(|slot| slot.track.clone());
            let mut carried = carried.filter(|carried| carried.participant == world.id(publisher));
            carried.next().unwrap().track
        };
        let tracks = (0..publishers).map(of).collect();
        let mut call = Self { world, viewer, tracks };
        call.set_capacity(kbps);
        call
    }

    fn set_capacity(&mut self, kbps: Option<u64>) {
        let down = Impairment {
            capacity: kbps.map(|kbps| kbps * 1_000),
            ..Impairment::NONE
        };
        self.world.impair(self.viewer, Impairment::NONE, down);
    }

    fn run(&mut self, seconds: u32) {
        self.world.run_for(seconds * SECOND);
    }

    /// The highest layer of each publisher that arrives in the next second.
    fn layers(&mut self) -> Vec<Option<u8>> {
        let count = |call: &Self, publisher| call.world.received(call.viewer, publisher, Kind::Video).len();
        let before: Vec<usize> = (0..self.tracks.len()).map(|publisher| count(self, publisher)).collect();
        self.run(1);
        let layers = before.into_iter().enumerate().map(|(publisher, before)| {
            let received = self.world.received(self.viewer, publisher, Kind::Video);
            received[before..].iter().map(|packet| packet.layer).max()
        });
        layers.collect()
    }

    /// Runs until it holds.
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = self.world.now + 30 * SECOND;
        while !holds(self) {
            assert!(self.world.now < end, "not within 30 s: {what}");
            self.world.run_for(SECOND / 10);
        }
    }

    /// Runs until the last that has arrived of each publisher is of this layer.
    fn until_shown(&mut self, layers: &[u8]) {
        self.until(&format!("{layers:?}"), |call| {
            let mut publishers = layers.iter().enumerate();
            publishers.all(|(publisher, layer)| {
                let last = call.world.received(call.viewer, publisher, Kind::Video).last();
                last.is_some_and(|packet| packet.layer == *layer)
            })
        });
    }

    fn prefer(&mut self, publisher: usize, preference: Preference) {
        let tracks = vec![self.tracks[publisher].clone()];
        self.world
            .command(self.viewer, Command::Prefer { tracks, preference })
            .unwrap();
    }

    /// The tracks that are paused, by what the viewer was told.
    fn paused(&self) -> Vec<usize> {
        let mut paused = Vec::new();
        for (to, event) in &self.world.events {
            let Event::StreamStates { streams } = event else {
                continue;
            };
            assert_eq!(*to, [self.world.id(self.viewer)], "nobody else is told");
            for stream in streams {
                let publisher = self.tracks.iter().position(|track| *track == stream.track).unwrap();
                assert_eq!(stream.participant, self.world.id(publisher));
                assert_eq!(paused.contains(&publisher), !stream.paused, "only what changed is told");
                paused.retain(|paused| *paused != publisher);
                if stream.paused {
                    paused.push(publisher);
                }
            }
        }
        paused
    }

    fn quality(&self) -> Option<ConnectionQuality> {
        let id = self.world.id(self.viewer);
        let mut told = self.world.events.iter().rev().filter_map(|(_, event)| match event {
            Event::Quality { participants } => participants.iter().find(|told| told.participant == id),
            _ => None,
        });
        told.next().map(|told| told.quality)
    }

    /// What the first publisher was asked for last.
    fn asked(&self) -> Option<Vec<Quality>> {
        self.asked_of(0)
    }

    fn asked_of(&self, publisher: usize) -> Option<Vec<Quality>> {
        let mut asked = self.world.events.iter().rev().filter_map(|(_, event)| match event {
            Event::EncodingsWanted { codecs, track } if *track == self.tracks[publisher] => {
                Some(codecs[0].layers.clone())
            }
            _ => None,
        });
        asked.next()
    }

    /// Runs until it holds; when that was, to the step.
    fn when(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Instant {
        let end = self.world.now + 10 * SECOND;
        while !holds(self) {
            assert!(self.world.now < end, "not within 10 s: {what}");
            self.world.run_for(SECOND / 1_000);
        }
        self.world.now
    }
}

fn priority(priority: u32) -> Preference {
    Preference {
        priority,
        ..Preference::default()
    }
}

#[test]
fn the_picture_that_matters_more_gains_first() {
    let mut call = Call::new(1, 2, Some(640), |join| join);
    call.prefer(1, priority(1));
    call.until_shown(&[0, 1]);
    call.prefer(1, priority(0));
    call.prefer(0, priority(1));
    call.until_shown(&[1, 0]);
    assert!(call.paused().is_empty());
}

#[test]
fn what_is_shown_small_leaves_its_room_to_what_is_shown_large() {
    let mut call = Call::new(2, 2, Some(3_000), |join| join);
    let quality = |quality| Preference {
        quality: Some(quality),
        ..Preference::default()
    };
    call.prefer(0, quality(Quality::Low));
    call.until_shown(&[0, 2]);
}

#[test]
fn what_does_not_fit_is_paused_and_told_and_goes_on_when_there_is_room() {
    let mut call = Call::new(3, 2, Some(3_000), |join| join);
    call.prefer(0, priority(1));
    call.run(6);
    call.set_capacity(Some(100));
    call.until("the second is paused, nothing of it arrives, and it shows", |call| {
        let last = call.world.received(call.viewer, 1, Kind::Video).last().unwrap().at;
        let now = call.world.now - call.world.members[call.viewer].client.started;
        call.paused() == [1] && now - last > SECOND && call.quality() == Some(ConnectionQuality::Poor)
    });
    // Who attaches again is told again.
    call.world.events.clear();
    call.world.command(call.viewer, Command::Attach).unwrap();
    assert_eq!(call.paused(), [1]);
    call.set_capacity(Some(6_000));
    call.until_shown(&[2, 2]);
    assert!(call.paused().is_empty());
}

#[test]
fn who_is_never_to_be_paused_gets_a_little_of_everything() {
    let mut call = Call::new(4, 2, Some(3_000), |join| Join {
        never_pause: true,
        ..join
    });
    call.run(6);
    call.set_capacity(Some(100));
    call.run(15);
    assert!(call.paused().is_empty());
    let layers = call.layers();
    assert!(layers.iter().all(|layer| *layer == Some(0)), "{layers:?}");
}

#[test]
fn a_network_that_is_narrow_from_the_start_is_not_crowded() {
    let mut call = Call::new(8, 2, Some(100), |join| Join {
        never_pause: true,
        ..join
    });
    call.run(5);
    for _ in 0..10 {
        call.run(1);
        let estimate = call.world.shard.estimate(&room(), &call.world.id(call.viewer));
        assert!(estimate <= Some(150_000), "{estimate:?}");
    }
}

#[test]
fn who_was_paused_sees_a_picture_soon_after_the_network_is_good_again() {
    let bad = Impairment {
        loss: 0.6,
        ..Impairment::NONE
    };
    let narrow = Impairment {
        capacity: Some(20_000),
        ..Impairment::NONE
    };
    for (seed, down) in [(9, bad), (10, narrow)] {
        let mut call = Call::new(seed, 1, Some(3_000), |join| join);
        call.run(4);
        call.world.impair(call.viewer, Impairment::NONE, down);
        call.run(20);
        call.set_capacity(Some(3_000));
        let before = call.world.now;
        call.until_shown(&[2]);
        assert!(call.paused().is_empty());
        let took = call.world.now - before;
        assert!(took < 10 * SECOND, "{took:?}, {down:?}");
    }
}

#[test]
fn the_key_frame_of_a_larger_picture_is_not_taken_for_a_narrow_network() {
    let mut call = Call::new(7, 1, Some(3_000), |join| join);
    let quality = |quality| Preference {
        quality: Some(quality),
        ..Preference::default()
    };
    call.prefer(0, quality(Quality::Low));
    call.run(5);
    call.prefer(0, quality(Quality::High));
    call.until_shown(&[2]);
    for _ in 0..40 {
        call.world.run_for(SECOND / 10);
        let estimate = call.world.shard.estimate(&room(), &call.world.id(call.viewer));
        assert!(estimate >= Some(1_500_000), "{estimate:?}");
    }
}

#[test]
fn a_layer_that_nobody_has_room_for_is_not_asked_for_until_somebody_has() {
    let mut call = Call::new(5, 1, Some(300), |join| join);
    call.until("the lowest is asked for", |call| {
        call.asked() == Some(vec![Quality::Low])
    });
    for rid in ["h", "f"] {
        call.world.members[0].client.pause_layer(rid, true);
    }
    call.run(5);
    assert_eq!(call.layers(), [Some(0)]);
    call.set_capacity(Some(3_000));
    call.until("the best is asked for", |call| {
        call.asked().is_some_and(|asked| asked.contains(&Quality::High))
    });
    for rid in ["h", "f"] {
        call.world.members[0].client.pause_layer(rid, false);
    }
    call.until_shown(&[2]);
}

#[test]
fn a_token_bounds_what_is_received_in_all() {
    let limits = ParticipantLimits {
        receive_bps: Some(450_000),
        ..ParticipantLimits::default()
    };
    let mut call = Call::new(6, 2, None, |join| Join { limits, ..join });
    call.run(5);
    for _ in 0..5 {
        assert_eq!(call.layers(), [Some(0), Some(0)]);
    }
    assert!(call.paused().is_empty());
}

#[test]
fn a_fall_of_the_estimate_acts_before_the_next_look_at_everyone() {
    for step in 0..6 {
        let mut call = Call::new(10, 1, Some(4_000), |join| join);
        call.until("the best alone is asked for", |call| {
            call.asked() == Some(vec![Quality::High])
        });
        call.world.run_for(Duration::from_millis(step * 57));
        call.set_capacity(Some(450));
        let viewer = call.world.id(call.viewer);
        let fell = call.when("the estimate falls", |call| {
            call.world
                .shard
                .estimate(&room(), &viewer)
                .is_some_and(|bps| bps < 600_000)
        });
        let acted = call.when("another layer is asked for", |call| {
            call.asked() != Some(vec![Quality::High])
        });
        assert!(acted - fell <= Duration::from_millis(50), "{:?} later", acted - fell);
    }
}

#[test]
fn who_takes_the_floor_is_seen_better_at_once() {
    for step in 0..4 {
        let limits = ParticipantLimits {
            receive_bps: Some(640_000),
            ..ParticipantLimits::default()
        };
        let mut call = Call::with_sound(20, 2, None, |join| Join { limits, ..join }, true);
        let speaks = |call: &mut Call, speaker: usize| {
            for publisher in 0..2 {
                let level = if publisher == speaker { -20 } else { -90 };
                call.world.members[publisher].client.audio_level = Some(level);
            }
        };
        speaks(&mut call, 0);
        call.until("the speaker is seen better", |call| {
            let asked = [call.asked_of(0), call.asked_of(1)];
            asked[0]
                .as_ref()
                .is_some_and(|layers| layers.contains(&Quality::Medium))
                && asked[1] == Some(vec![Quality::Low])
        });
        call.world.run_for(Duration::from_millis(step * 77));
        speaks(&mut call, 1);
        call.world
            .events
            .retain(|(_, event)| !matches!(event, Event::Speakers { .. }));
        let second = call.world.id(1);
        let told = call.when("the second has the floor", |call| {
            call.world.events.iter().any(|(_, event)| match event {
                Event::Speakers { speakers } => speakers.iter().any(|one| one.dominant && one.participant == second),
                _ => false,
            })
        });
        let acted = call.when("the second is to be seen better", |call| {
            call.asked_of(1).is_some_and(|layers| layers.contains(&Quality::Medium))
        });
        assert!(acted - told <= Duration::from_millis(5), "{:?} later", acted - told);
    }
}
