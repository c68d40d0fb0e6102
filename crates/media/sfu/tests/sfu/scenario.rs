//! One publisher of sound and three simulcast layers, one viewer behind a bad network, and what the viewer got over time. The tests assert
//! it, the benchmark prints it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use signalbox_protocol::control::{Event, Quality};
use signalbox_protocol::room::Kind;

use crate::sfu::camera::Encoder;
use crate::sfu::link::Impairment;
use crate::sfu::screen::{Screen, Shown};
use crate::sfu::world::{World, room};

/// What the publisher's layers take, in bits per second of payload.
pub const LAYER_BPS: [u64; 3] = [150_000, 500_000, 1_700_000];

/// How often a curve has a point.
pub const SAMPLE: Duration = Duration::from_millis(250);

/// A part of a scenario.
#[derive(Clone, Copy)]
pub struct Phase {
    pub lasts: Duration,
    /// From the node to the viewer.
    pub down: Impairment,
    /// From the viewer to the node.
    pub up: Impairment,
    /// From the publisher to the node.
    pub publisher: Impairment,
}

impl Phase {
    pub fn new(seconds: u64, down: Impairment, up: Impairment) -> Self {
        Self {
            lasts: Duration::from_secs(seconds),
            down,
            up,
            publisher: Impairment::NONE,
        }
    }
}

/// What was the case at a time, and in the [`SAMPLE`] before it.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// Since the network became bad.
    pub at: Duration,
    /// What the node sent to the viewer, in bits per second, all headers included.
    pub sent_bps: f64,
    /// What the viewer's link carried.
    pub capacity: Option<u64>,
    /// What the node believes that it carries.
    pub estimate: Option<u64>,
    /// Spatial and temporal layer of the frames that were shown.
    pub layer: Option<(u8, u8)>,
    /// Frames that were shown.
    pub frames: usize,
    /// Packets that found the queue full.
    pub overflowed: u64,
}

/// How long an encoder takes to begin or to end, once its publisher was told.
const ENCODER: Duration = Duration::from_millis(200);

pub struct Run {
    pub name: &'static str,
    pub world: World,
    pub begun: Instant,
    pub curve: Vec<Point>,
    pub publisher: usize,
    pub viewer: usize,
    /// Whether the publisher sends only what it is asked for; how much it was told, and what it will do about that and when.
    follows: bool,
    told: usize,
    orders: VecDeque<(Instant, Vec<Quality>)>,
    /// The layers that it sends.
    pub sends: Vec<Quality>,
}

/// Runs it with a publisher that sends all of its layers, whatever it is asked for.
pub fn run(name: &'static str, seed: u64, phases: &[Phase]) -> Run {
    run_with(name, seed, phases, false)
}

/// Runs it with a publisher that sends what it is asked for.
pub fn run_following(name: &'static str, seed: u64, phases: &[Phase]) -> Run {
    run_with(name, seed, phases, true)
}

fn run_with(name: &'static str, seed: u64, phases: &[Phase], follows: bool) -> Run {
    let mut world = World::new(seed, Impairment::NONE);
    let publisher = world.join("ann", true, &["q", "h", "f"], (0, 0));
    let encoders = LAYER_BPS.iter().zip(0..);
    world.members[publisher].client.encoders = encoders.map(|(bps, layer)| Encoder::new(layer, *bps)).collect();
    let viewer = world.join("bob", false, &[], (1, 1));
    world.members[viewer].client.is_watching = true;
    world.connect();
    let mut run = Run {
        name,
        begun: world.now,
        world,
        curve: Vec::new(),
        publisher,
        viewer,
        follows,
        told: 0,
        orders: VecDeque::new(),
        sends: vec![Quality::Low, Quality::Medium, Quality::High],
    };
    for phase in phases {
        run.world.impair(run.viewer, phase.up, phase.down);
        run.world.impair(run.publisher, phase.publisher, Impairment::NONE);
        let end = run.world.now + phase.lasts;
        while run.world.now < end {
            run.sample(phase.down.capacity);
        }
    }
    run
}

impl Run {
    fn sample(&mut self, capacity: Option<u64>) {
        let (before, shown) = (self.world.down(self.viewer), self.shown().len());
        let from = self.world.now;
        let end = from + SAMPLE;
        while self.world.now < end {
            self.world
                .run_for((end - self.world.now).min(Duration::from_millis(10)));
            if self.follows {
                self.follow();
            }
        }
        let counts = self.world.down(self.viewer);
        let shown = &self.shown()[shown..];
        let point = Point {
            at: self.world.now - self.begun,
            sent_bps: (counts.offered_bytes - before.offered_bytes) as f64 * 8.0
                / (self.world.now - from).as_secs_f64(),
            capacity,
            estimate: self.world.shard.estimate(&room(), &self.world.id(self.viewer)),
            layer: shown.iter().map(|frame| (frame.layer, frame.temporal)).max(),
            frames: shown.len(),
            overflowed: counts.overflowed - before.overflowed,
        };
        self.curve.push(point);
    }

    /// What the publisher was asked for takes effect after a while.
    fn follow(&mut self) {
        let now = self.world.now;
        for (_, event) in &self.world.events[self.told..] {
            if let Event::EncodingsWanted { codecs, .. } = event {
                self.orders.push_back((now + ENCODER, codecs[0].layers.clone()));
            }
        }
        self.told = self.world.events.len();
        while let Some((_, layers)) = self.orders.pop_front_if(|(at, _)| *at <= now) {
            let rids = [(Quality::Low, "q"), (Quality::Medium, "h"), (Quality::High, "f")];
            for (quality, rid) in rids {
                let client = &mut self.world.members[self.publisher].client;
                client.pause_layer(rid, !layers.contains(&quality));
            }
            self.sends = layers;
        }
    }

    /// The viewer's screen, once something has arrived.
    pub fn screen(&self) -> Option<&Screen> {
        self.world.members[self.viewer].client.screens.values().next()
    }

    /// The frames that the viewer has seen.
    pub fn shown(&self) -> &[Shown] {
        self.screen().map_or(&[], |screen| &screen.shown)
    }

    /// What was sent from one time to another, in bits per second.
    pub fn sent_bps(&self, from: Duration, to: Duration) -> f64 {
        let points: Vec<f64> = self.between(from, to).map(|point| point.sent_bps).collect();
        points.iter().sum::<f64>() / points.len() as f64
    }

    pub fn between(&self, from: Duration, to: Duration) -> impl Iterator<Item = &Point> {
        self.curve
            .iter()
            .filter(move |point| point.at > from && point.at <= to + Duration::from_millis(1))
    }

    /// When a layer was shown first after a time, since then.
    pub fn shows_layer_after(&self, layer: u8, from: Duration) -> Option<Duration> {
        let from = self.begun + from;
        let mut shown = self.shown().iter();
        shown
            .find(|frame| frame.at >= from && frame.layer == layer)
            .map(|frame| frame.at - from)
    }

    /// The gaps between frames that are longer than this: when each began, and how long it was.
    pub fn freezes(&self, longer: Duration) -> Vec<(Duration, Duration)> {
        let mut freezes = Vec::new();
        let mut last = self.begun;
        let ends = self.shown().iter().map(|frame| frame.at).chain([self.world.now]);
        for at in ends.filter(|at| *at >= self.begun) {
            if at - last > longer && last != self.begun {
                freezes.push((last - self.begun, at - last));
            }
            last = at;
        }
        freezes
    }

    /// The share of the video's packets that arrived in the end, those of the last second left out: they may be under way.
    pub fn arrived(&self) -> f64 {
        let sequences = self.screen().map(|screen| screen.sequences.keys().copied());
        let sequences: Vec<u64> = sequences.into_iter().flatten().collect();
        let settled = &sequences[..sequences.len().saturating_sub(250)];
        match (settled.first(), settled.last()) {
            (Some(first), Some(last)) => settled.len() as f64 / (last - first + 1) as f64,
            _ => 0.0,
        }
    }

    /// How many packets of sound arrived in a second of a time, of the 50 that were sent.
    pub fn sound(&self, from: Duration, to: Duration) -> f64 {
        let since = self.begun - self.world.members[self.viewer].client.started;
        let packets = self.world.received(self.viewer, self.publisher, Kind::Audio).iter();
        let in_time = packets.filter(|packet| packet.at > since + from && packet.at <= since + to);
        in_time.count() as f64 / (to - from).as_secs_f64()
    }
}
