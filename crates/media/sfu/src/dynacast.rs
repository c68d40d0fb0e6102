//! Which encodings of a track its publisher should send: what nobody receives need not be.
//!
//! More is asked for at once. Less, only when it has been enough for a while: a viewer that resizes its window, or whose network has a
//! weak moment, is not to wait for an encoder.

mod room;

use std::time::{Duration, Instant};

use signalbox_protocol::control::{CodecWanted, Quality};

/// How long less has to be enough. Higher: publishers send longer what nobody watches. Lower: they turn layers off and on again.
const LOWER_AFTER: Duration = Duration::from_secs(5);

/// A layer that was asked for so long ago and does not arrive is not going to: its publisher has no room for it either.
const HOPELESS_AFTER: Duration = Duration::from_secs(3);

/// The name of a spatial layer among so many that the highest is `top`.
pub fn quality(spatial: u8, top: u8) -> Quality {
    match spatial {
        _ if spatial >= top => Quality::High,
        0 => Quality::Low,
        1 => Quality::Medium,
        _ => Quality::High,
    }
}

/// What the publisher of a track was told of each of its codecs. Until it is told otherwise it sends all that it can in the first of
/// them, and nothing in the others.
#[derive(Debug, Default)]
pub struct Wanted {
    codecs: Vec<Asked>,
}

#[derive(Debug)]
struct Asked {
    mime_type: String,
    up_to: Option<Quality>,
    since: Instant,
    lower_since: Option<Instant>,
}

impl Wanted {
    /// What is received at best in each of the track's codecs, the first one first. Returns whether the publisher is to be told.
    pub fn update(&mut self, now: Instant, received: &[(&str, Option<Quality>)]) -> bool {
        let mut is_news = false;
        self.codecs
            .retain(|asked| received.iter().any(|(mime_type, _)| asked.mime_type == *mime_type));
        for (index, (mime_type, quality)) in received.iter().enumerate() {
            let known = self.codecs.iter_mut().find(|asked| asked.mime_type == *mime_type);
            match known {
                Some(asked) => is_news |= asked.update(now, *quality),
                None => {
                    let mut asked = Asked {
                        mime_type: (*mime_type).to_owned(),
                        up_to: (index == 0).then_some(Quality::High),
                        since: now,
                        lower_since: None,
                    };
                    is_news |= asked.update(now, *quality);
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
            up_to: asked.up_to,
        });
        told.collect()
    }

    /// The highest spatial layer that was asked for in a codec so long ago that it would be there if it came.
    pub fn asked(&self, now: Instant, mime_type: &str) -> Option<u8> {
        let asked = self.codecs.iter().find(|asked| asked.mime_type == mime_type)?;
        let spatial = match asked.up_to? {
            Quality::Low => 0,
            Quality::Medium => 1,
            Quality::High => u8::MAX,
        };
        (now.saturating_duration_since(asked.since) >= HOPELESS_AFTER).then_some(spatial)
    }
}

impl Asked {
    fn update(&mut self, now: Instant, received: Option<Quality>) -> bool {
        if received == self.up_to {
            self.lower_since = None;
            return false;
        }
        if received < self.up_to {
            let since = *self.lower_since.get_or_insert(now);
            if now.saturating_duration_since(since) < LOWER_AFTER {
                return false;
            }
        }
        self.up_to = received;
        self.since = now;
        self.lower_since = None;
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

    #[test]
    fn more_is_asked_for_at_once_and_less_after_a_while() {
        // Seconds, what is received, and what the publisher is told then, if anything.
        let table = [
            (0, Some(High), None),
            (1, Some(Low), None),
            (5, Some(Low), None),
            (6, Some(Low), Some(Some(Low))),
            (7, Some(Medium), Some(Some(Medium))),
            (8, None, None),
            (12, Some(Low), None),
            (13, Some(Low), Some(Some(Low))),
            (14, None, None),
            (16, Some(Low), None),
            (19, None, None),
            (23, None, None),
            (24, None, Some(None)),
            (90, None, None),
            (91, Some(High), Some(Some(High))),
        ];
        let (begin, mut wanted) = (start(), Wanted::default());
        for (seconds, received, expected) in table {
            let now = begin + Duration::from_secs(seconds);
            let is_news = wanted.update(now, &[("video/VP8", received)]);
            let told = is_news.then(|| wanted.told().remove(0).up_to);
            assert_eq!(told, expected, "after {seconds} s");
        }
    }

    #[test]
    fn a_backup_codec_is_asked_for_when_somebody_needs_it() {
        let (now, mut wanted) = (start(), Wanted::default());
        assert!(!wanted.update(now, &[("video/VP9", Some(High)), ("video/VP8", None)]));
        assert!(wanted.update(now, &[("video/VP9", Some(High)), ("video/VP8", Some(Low))]));
        let told: Vec<_> = wanted
            .told()
            .into_iter()
            .map(|one| (one.mime_type, one.up_to))
            .collect();
        assert_eq!(
            told,
            [
                ("video/VP9".to_owned(), Some(High)),
                ("video/VP8".to_owned(), Some(Low))
            ]
        );
    }

    #[test]
    fn what_was_asked_for_and_does_not_come_is_given_up_on() {
        let (begin, mut wanted) = (start(), Wanted::default());
        wanted.update(begin, &[("video/VP8", Some(High))]);
        assert_eq!(wanted.asked(begin + Duration::from_secs(2), "video/VP8"), None);
        assert_eq!(wanted.asked(begin + Duration::from_secs(3), "video/VP8"), Some(u8::MAX));
        assert_eq!(wanted.asked(begin + Duration::from_secs(3), "video/AV1"), None);
    }

    #[test]
    fn layers_have_the_names_that_publishers_know() {
        let names = [(0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2)].map(|(spatial, top)| quality(spatial, top));
        assert_eq!(names, [High, Low, High, Low, Medium, High]);
    }
}
