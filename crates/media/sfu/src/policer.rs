//! Keeps one publisher below its bit rate cap, so that what it sends too much costs nobody else anything.
//!
//! First it is asked: a REMB (draft-alvestrand-rmcat-remb) with the cap, which browsers obey also when they get transport-wide feedback. If
//! it goes on, whole layers are taken out, so that what is left is whole: sound stays longest, then the lowest layer of
//! each picture, and so on upwards. Until that is decided, and for whatever comes in bursts, a token bucket bounds what passes, and sound
//! has the last part of it to itself.

use std::time::{Duration, Instant};

use signalbox_protocol::room::Kind;

use crate::budget::Budget;
use crate::packet::{Mid, Rid};
use crate::track::rank;

/// How long a rate is measured. Higher: bursts matter less. Lower: the room is rid of too much sooner.
const INTERVAL: Duration = Duration::from_secs(1);

/// How many intervals in a row must be over the cap before layers are taken out: one to ask, one to obey.
const PATIENCE: u32 = 2;

/// How long a layer stays out. Higher: pictures change less often. Lower: it is back sooner when there is room for it.
const HOLD: Duration = Duration::from_secs(5);

/// The share of the cap that the layers, with one that was out, must fit in for it to come back, and with which the publisher is asked.
const NEAR: f64 = 0.9;

/// The share of the bucket that is for sound alone.
const SOUND_SHARE: f64 = 0.2;

/// How often a publisher whose layers are out is told, and the log.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// Layers that are told apart; those of more are out while any is.
const MAX_LAYERS: usize = 64;

/// Of one publisher.
#[derive(Debug)]
pub struct Policer {
    cap_bps: u64,
    bucket: Budget,
    layers: Vec<Layer>,
    since: Option<Instant>,
    over: u32,
    told: Option<Instant>,
}

#[derive(Debug)]
struct Layer {
    mid: Mid,
    rid: Option<Rid>,
    /// Sound first, then by the layer's place; what comes first stays longest.
    order: u8,
    bits: u64,
    /// Since when it is out.
    out: Option<Instant>,
}

/// What came of the last interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Review {
    /// Ask the publisher to send no more than the cap.
    pub ask: bool,
    /// Tell it, and the log, that some of it is dropped.
    pub tell: bool,
}

impl Policer {
    /// So many bits per second, of payloads; 0: no cap.
    pub fn new(cap_bps: u64) -> Self {
        Self {
            cap_bps,
            bucket: Budget::new(cap_bps, INTERVAL),
            layers: Vec::new(),
            since: None,
            over: 0,
            told: None,
        }
    }

    /// The cap in bits per second.
    pub fn cap_bps(&self) -> u64 {
        self.cap_bps
    }

    /// Whether a packet is to be forwarded.
    pub fn admit(&mut self, now: Instant, kind: Kind, mid: Mid, rid: Option<Rid>, bytes: usize) -> bool {
        if self.cap_bps == 0 {
            return true;
        }
        self.since.get_or_insert(now);
        let is_full = self.layers.len() >= MAX_LAYERS;
        let (bits, any_out) = (bytes as u64 * 8, self.is_dropping());
        let known = self
            .layers
            .iter()
            .position(|layer| layer.mid == mid && layer.rid == rid);
        match known.and_then(|index| self.layers.get_mut(index)) {
            Some(layer) => {
                layer.bits += bits;
                if layer.out.is_some() {
                    return false;
                }
            }
            None if is_full => {
                return !any_out && self.bucket.take_leaving(now, bits, SOUND_SHARE);
            }
            None => {
                let order = match (kind, rid) {
                    (Kind::Audio, _) => 0,
                    (Kind::Video, None) => 1,
                    (Kind::Video, Some(rid)) => 1 + rank(rid.as_str()),
                };
                self.layers.push(Layer {
                    mid,
                    rid,
                    order,
                    bits,
                    out: None,
                });
            }
        }
        let share = match kind {
            Kind::Audio => 0.0,
            Kind::Video => SOUND_SHARE,
        };
        self.bucket.take_leaving(now, bits, share)
    }

    /// Looks at the interval, if it is over. Call it often.
    pub fn review(&mut self, now: Instant) -> Option<Review> {
        let passed = now.saturating_duration_since(self.since?);
        if passed < INTERVAL {
            return None;
        }
        self.since = Some(now);
        let per_second = |bits: u64| bits as f64 / passed.as_secs_f64();
        let cap = self.cap_bps as f64;
        let total: f64 = self.layers.iter().map(|layer| per_second(layer.bits)).sum();
        self.over = if total > cap { self.over.saturating_add(1) } else { 0 };
        self.layers.sort_by_key(|layer| layer.order);
        let (mut sum, takes_out) = (0.0, self.over >= PATIENCE || self.is_dropping());
        for layer in &mut self.layers {
            sum += per_second(layer.bits);
            let is_held = layer
                .out
                .is_some_and(|since| now.saturating_duration_since(since) < HOLD);
            let allowed = if layer.out.is_some() { cap * NEAR } else { cap };
            // Sound alone is left to the bucket.
            if takes_out && layer.order > 0 && sum > allowed {
                layer.out = Some(now);
            } else if !is_held {
                layer.out = None;
            }
        }
        self.layers
            .retain_mut(|layer| std::mem::take(&mut layer.bits) > 0 || layer.out.is_some());
        let is_news = self
            .told
            .is_none_or(|told| now.saturating_duration_since(told) >= TELL_INTERVAL);
        let tell = self.is_dropping() && is_news;
        if tell {
            self.told = Some(now);
        }
        Some(Review {
            ask: total > cap * NEAR,
            tell,
        })
    }

    /// Whether layers are out.
    pub fn is_dropping(&self) -> bool {
        self.layers.iter().any(|layer| layer.out.is_some())
    }

    /// The layers of pictures that arrive: a REMB is about one of them, and meant for all.
    pub fn pictures(&self) -> impl Iterator<Item = (Mid, Option<Rid>)> {
        let pictures = self.layers.iter().filter(|layer| layer.order > 0);
        pictures.map(|layer| (layer.mid, layer.rid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A publisher on virtual time, in packets of 100 bytes.
    struct Scene {
        policer: Policer,
        now: Instant,
        told: usize,
        asked: usize,
    }

    impl Scene {
        fn new(cap_bps: u64) -> Self {
            #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
            let now = Instant::now();
            Self {
                policer: Policer::new(cap_bps),
                now,
                told: 0,
                asked: 0,
            }
        }

        /// Sends for so long what has these kilobits per second; the share of each that was admitted.
        fn run(&mut self, seconds: u64, streams: &[(Kind, Option<&str>, u64)]) -> Vec<f64> {
            let mut counts = vec![(0, 0); streams.len()];
            for ms in 0..seconds * 1_000 {
                for ((kind, rid, kbps), (sent, admitted)) in streams.iter().zip(&mut counts) {
                    // A packet of 100 bytes is 0.8 kilobits.
                    let due = |ms: u64| ms * kbps / 800;
                    for _ in due(ms)..due(ms + 1) {
                        let mid = Mid::from(if *kind == Kind::Audio { "0" } else { "1" });
                        *sent += 1;
                        *admitted += usize::from(self.policer.admit(self.now, *kind, mid, rid.map(Rid::from), 100));
                    }
                }
                self.now += Duration::from_millis(1);
                let review = self.policer.review(self.now).unwrap_or_default();
                self.told += usize::from(review.tell);
                self.asked += usize::from(review.ask);
            }
            counts
                .iter()
                .map(|(sent, admitted)| *admitted as f64 / *sent as f64)
                .collect()
        }
    }

    const SOUND: (Kind, Option<&str>, u64) = (Kind::Audio, None, 40);

    #[test]
    fn below_the_cap_everything_passes_and_nobody_is_asked() {
        let mut scene = Scene::new(1_000_000);
        assert_eq!(scene.run(30, &[SOUND, (Kind::Video, None, 800)]), [1.0, 1.0]);
        assert_eq!((scene.told, scene.asked), (0, 0));
    }

    #[test]
    fn without_a_cap_everything_passes() {
        assert_eq!(Scene::new(0).run(2, &[(Kind::Video, None, 100_000)]), [1.0]);
    }

    #[test]
    fn the_highest_layers_go_first_and_the_lowest_is_whole() {
        let mut scene = Scene::new(1_000_000);
        let layers = [
            (Kind::Video, Some("f"), 1_700),
            (Kind::Video, Some("h"), 500),
            (Kind::Video, Some("q"), 150),
            SOUND,
        ];
        scene.run(3, &layers);
        assert_eq!(scene.run(60, &layers), [0.0, 1.0, 1.0, 1.0]);
        assert_eq!(scene.told, 2, "once a minute");
    }

    #[test]
    fn at_ten_times_the_cap_sound_passes_whole_from_the_first_moment() {
        let mut scene = Scene::new(1_000_000);
        let streams = [(Kind::Video, None, 10_000), SOUND];
        assert_eq!(scene.run(3, &streams)[1], 1.0);
        assert_eq!(scene.run(10, &streams), [0.0, 1.0]);
    }

    #[test]
    fn what_passes_never_exceeds_the_cap_by_more_than_what_was_saved_in_a_second() {
        for kbps in [1_100, 3_000, 10_000] {
            let mut scene = Scene::new(1_000_000);
            let share = scene.run(2, &[(Kind::Video, None, kbps)])[0];
            let passed = share * kbps as f64 * 2.0;
            assert!(passed <= 3_000.0, "{passed} kbit of {kbps} kbps in 2 s");
        }
    }

    #[test]
    fn one_that_obeys_at_once_loses_no_layer() {
        let mut scene = Scene::new(1_000_000);
        scene.run(1, &[SOUND, (Kind::Video, None, 1_200)]);
        assert_eq!(scene.asked, 1);
        assert_eq!(scene.run(20, &[SOUND, (Kind::Video, None, 900)]), [1.0, 1.0]);
        assert_eq!(scene.told, 0);
    }

    #[test]
    fn a_layer_comes_back_when_there_is_room_for_it_and_not_sooner_than_it_pays() {
        let mut scene = Scene::new(1_000_000);
        scene.run(5, &[(Kind::Video, None, 3_000)]);
        assert!(scene.policer.is_dropping());
        assert_eq!(scene.run(4, &[(Kind::Video, None, 500)]), [0.0]);
        scene.run(3, &[(Kind::Video, None, 500)]);
        assert_eq!(scene.run(10, &[(Kind::Video, None, 500)]), [1.0]);
    }

    #[test]
    fn sound_that_is_over_the_cap_alone_is_bounded_as_well() {
        let mut scene = Scene::new(100_000);
        let share = scene.run(20, &[(Kind::Audio, None, 1_000)])[0];
        assert!((0.09..0.12).contains(&share), "{share}");
    }
}
