//! Which encodings of a track its publisher should send: exactly those that somebody receives, or would if they came.
//!
//! More is asked for at once. Less, only when it has been enough for a while: a viewer that resizes its window, or whose network has a
//! weak moment, is not to wait for an encoder.
//!
//! Nothing is kept in reserve for a network that falls. What stops the picture then is that the queue in the network is full and a key frame
//! has to get through, not that an encoder has to start: the scenarios show no longer standstill for a publisher that needs 200 ms to
//! begin the lower layer than for one that sends it all the time, and less of what is sent for nobody.

mod places;
mod room;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use signalbox_protocol::control::{CodecWanted, Quality};

pub use places::{Places, name, names};

/// How long less has to be enough. Higher: publishers send longer what nobody watches. Lower: they turn layers off and on again.
const LOWER_AFTER: Duration = Duration::from_secs(5);

/// A layer that was asked for so long ago and does not arrive is not going to: its publisher has no room for it either.
const HOPELESS_AFTER: Duration = Duration::from_secs(3);

/// All names of layers, lowest first.
const QUALITIES: [Quality; 3] = [Quality::Low, Quality::Medium, Quality::High];

/// What the publisher of a track was told of each of its codecs. Until it is told otherwise it sends all that it can in the first of
/// them, and nothing in the others.
#[derive(Debug, Default)]
pub struct Wanted {
    codecs: Vec<Asked>,
}

#[derive(Debug)]
struct Asked {
    mime_type: String,
    layers: [LayerAsked; QUALITIES.len()],
}

#[derive(Debug)]
struct LayerAsked {
    quality: Quality,
    is_wanted: bool,
    /// Since when it is.
    since: Instant,
    /// Since when nobody has received it, as long as its publisher has not been told.
    idle_since: Option<Instant>,
}

impl Wanted {
    /// What is received in each of the track's codecs, the first one first. Returns whether the publisher is to be told.
    pub fn update(&mut self, now: Instant, received: &[(&str, BTreeSet<Quality>)]) -> bool {
        let mut is_news = false;
        self.codecs
            .retain(|asked| received.iter().any(|(mime_type, _)| asked.mime_type == *mime_type));
        for (index, (mime_type, layers)) in received.iter().enumerate() {
            let known = self.codecs.iter_mut().find(|asked| asked.mime_type == *mime_type);
            match known {
                Some(asked) => is_news |= asked.update(now, layers),
                None => {
                    let mut asked = Asked::new(now, mime_type, index == 0);
                    is_news |= asked.update(now, layers);
                    self.codecs.push(asked);
                }
            }
        }
        is_news
    }

    /// As its publisher was told last.
    pub fn told(&self) -> Vec<CodecWanted> {
        let told = self.codecs.iter().map(|asked| CodecWanted {
            mime_type: asked.mime_type.clone(),
            layers: asked.wanted().map(|layer| layer.quality).collect(),
        });
        told.collect()
    }

    /// The layers that were asked for in a codec so long ago that they would be there if they came.
    pub fn asked(&self, now: Instant, mime_type: &str) -> BTreeSet<Quality> {
        let codec = self.codecs.iter().find(|asked| asked.mime_type == mime_type);
        let wanted = codec.into_iter().flat_map(Asked::wanted);
        wanted
            .filter(|layer| now.saturating_duration_since(layer.since) >= HOPELESS_AFTER)
            .map(|layer| layer.quality)
            .collect()
    }
}

impl Asked {
    fn new(now: Instant, mime_type: &str, is_wanted: bool) -> Self {
        Self {
            mime_type: mime_type.to_owned(),
            layers: QUALITIES.map(|quality| LayerAsked {
                quality,
                is_wanted,
                since: now,
                idle_since: None,
            }),
        }
    }

    fn wanted(&self) -> impl Iterator<Item = &LayerAsked> {
        self.layers.iter().filter(|layer| layer.is_wanted)
    }

    fn update(&mut self, now: Instant, received: &BTreeSet<Quality>) -> bool {
        let mut is_news = false;
        for layer in &mut self.layers {
            is_news |= layer.update(now, received.contains(&layer.quality));
        }
        is_news
    }
}

impl LayerAsked {
    fn update(&mut self, now: Instant, is_received: bool) -> bool {
        if is_received == self.is_wanted {
            self.idle_since = None;
            return false;
        }
        if !is_received {
            let since = *self.idle_since.get_or_insert(now);
            if now.saturating_duration_since(since) < LOWER_AFTER {
                return false;
            }
        }
        self.is_wanted = is_received;
        self.since = now;
        self.idle_since = None;
        true
    }
}

#[cfg(test)]
mod tests {
    use Quality::{High, Low, Medium};

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
    fn start() -> Instant {
        Instant::now()
    }

    fn set(layers: &[Quality]) -> BTreeSet<Quality> {
        layers.iter().copied().collect()
    }

    #[test]
    fn more_is_asked_for_at_once_and_less_after_a_while_layer_by_layer() {
        // Seconds, what is received, and what the publisher is told then, if anything.
        type Row<'a> = (u64, &'a [Quality], Option<&'a [Quality]>);
        let table: &[Row] = &[
            (0, &[Low, Medium, High], None),
            (1, &[Low, High], None),
            (5, &[Low, High], None),
            (6, &[Low, High], Some(&[Low, High])),
            (7, &[Low, Medium], Some(&[Low, Medium, High])),
            (8, &[], None),
            (11, &[Low], None),
            (12, &[Low], Some(&[Low, Medium])),
            (13, &[Low], Some(&[Low])),
            (14, &[], None),
            (16, &[Low], None),
            (19, &[], None),
            (23, &[], None),
            (24, &[], Some(&[])),
            (90, &[], None),
            (91, &[High], Some(&[High])),
        ];
        let (begin, mut wanted) = (start(), Wanted::default());
        for (seconds, received, expected) in table {
            let now = begin + Duration::from_secs(*seconds);
            let is_news = wanted.update(now, &[("video/VP8", set(received))]);
            let told = is_news.then(|| wanted.told().remove(0).layers);
            assert_eq!(told.as_deref(), *expected, "after {seconds} s");
        }
    }

    #[test]
    fn a_backup_codec_is_asked_for_when_somebody_needs_it() {
        let (now, mut wanted) = (start(), Wanted::default());
        let all = set(&QUALITIES);
        assert!(!wanted.update(now, &[("video/VP9", all.clone()), ("video/VP8", set(&[]))]));
        assert!(wanted.update(now, &[("video/VP9", all), ("video/VP8", set(&[Low]))]));
        let told = wanted.told().into_iter().map(|one| (one.mime_type, one.layers));
        let expected = [
            ("video/VP9".to_owned(), QUALITIES.to_vec()),
            ("video/VP8".to_owned(), vec![Low]),
        ];
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_was_asked_for_and_does_not_come_is_given_up_on() {
        let (begin, mut wanted) = (start(), Wanted::default());
        let after = |seconds| begin + Duration::from_secs(seconds);
        wanted.update(begin, &[("video/VP8", set(&[Low, High]))]);
        assert_eq!(wanted.asked(after(2), "video/VP8"), set(&[]));
        assert_eq!(wanted.asked(after(3), "video/VP8"), set(&QUALITIES));
        wanted.update(after(5), &[("video/VP8", set(&[Low, High]))]);
        wanted.update(after(9), &[("video/VP8", set(&[Low, High]))]);
        wanted.update(after(10), &[("video/VP8", set(&[Low, High]))]);
        wanted.update(after(12), &[("video/VP8", set(&QUALITIES))]);
        assert_eq!(
            wanted.asked(after(14), "video/VP8"),
            set(&[Low, High]),
            "the middle one was just asked for"
        );
        assert_eq!(wanted.asked(after(15), "video/VP8"), set(&QUALITIES));
        assert_eq!(wanted.asked(after(15), "video/AV1"), set(&[]));
    }
}
