//! A published track and its subscriptions: which packets go to whom, as which layer, with which numbers.
//!
//! A track does not know where its packets come from: whoever has them calls [`Track::take`], be it this shard's publisher or, one
//! day, a relay from another shard; and then [`Track::forward_next`] until everybody has them.

mod burst;
pub mod encoding;
mod forwarding;
mod key_frames;
mod meter;
pub mod selection;
pub mod subscription;
mod targets;

use std::time::Instant;

use signalbox_protocol::control::{Preference, SaidTrack};
use signalbox_protocol::room::{Kind, PublishTrack, TrackInfo};
use signalbox_protocol::{ParticipantId, TrackId};

use crate::codec::Codec;
use crate::connection::SentStream;
use crate::connections::{Connections, Key, NONE};
use crate::packet::{Mid, Rid};
use crate::rewrite::{Begun, Rewriter};

use burst::Burst;
pub use encoding::Encoding;
pub use subscription::Subscription;
use subscription::Wanted;

/// The media type of redundant sound (RFC 2198), in which each packet repeats the ones before it.
pub const RED: &str = "audio/red";

/// A published track.
pub struct Track {
    /// As the others see it.
    pub info: TrackInfo,
    /// Whose.
    pub publisher: ParticipantId,
    /// What its publisher has said of it.
    pub said: PublishTrack,
    /// What it has said of its further encodings, with their m-lines.
    pub said_further: Vec<SaidTrack>,
    /// Its publisher is to send redundant sound (RFC 2198) if it can.
    pub is_redundant: bool,
    /// A codec that its publisher can send as well, as soon as it is told to.
    pub backup: Option<Codec>,
    /// The streams that its publisher's gateway was told of last.
    pub told_streams: Vec<(Mid, SentStream)>,
    /// No key frame is asked for until then.
    pub quiet_until: Option<Instant>,
    /// Who gets it.
    pub subscriptions: Vec<Subscription>,
    encodings: Vec<Encoding>,
    /// Encodings have come or gone, or their codecs are known: who gets which is to be decided anew.
    is_unsettled: bool,
    /// Audio: it is one of those that are forwarded.
    is_selected: bool,
    /// The number of the next source.
    next_source: u32,
    has_news: bool,
    /// What has come, and not everybody has.
    burst: Burst,
}

impl Track {
    /// A track without packets or subscribers, and its first encoding.
    pub fn new(info: TrackInfo, publisher: ParticipantId, source: Key, mid: Mid, said: PublishTrack) -> Self {
        let rids = info.layers.iter().map(|layer| Rid::from(layer.rid.as_str()));
        let codec = Codec::from_mime_type(&info.mime_type);
        let encodings = vec![Encoding::new(source, mid, codec, rids)];
        let mut track = Self {
            info,
            publisher,
            said,
            said_further: Vec::new(),
            is_redundant: false,
            backup: None,
            told_streams: Vec::new(),
            quiet_until: None,
            subscriptions: Vec::new(),
            encodings,
            is_unsettled: false,
            is_selected: true,
            next_source: 0,
            has_news: false,
            burst: Burst::default(),
        };
        let said = track.said.clone();
        track.describe(said);
        track
    }

    /// What its publisher says of it.
    pub fn describe(&mut self, said: PublishTrack) {
        let codec = said.codec.as_deref();
        self.is_redundant = codec.is_some_and(|codec| codec.eq_ignore_ascii_case(RED));
        let backup = said.backup_codec.as_deref().and_then(Codec::from_mime_type);
        self.backup = backup.filter(|codec| codec.kind() == said.kind);
        self.said = said;
    }

    /// Its id.
    pub fn id(&self) -> &TrackId {
        &self.info.id
    }

    /// Its encodings; the first is the one that it was published with.
    pub fn encodings(&self) -> &[Encoding] {
        &self.encodings
    }

    /// The codecs that it is or can be received in, best first; none: not known yet.
    pub fn codecs(&self) -> impl Iterator<Item = Option<Codec>> {
        let backup = self
            .backup
            .filter(|backup| self.encodings.iter().all(|encoding| encoding.codec != Some(*backup)));
        let encodings = self.encodings.iter().map(|encoding| encoding.codec);
        encodings.chain(backup.map(Some))
    }

    /// The encoding that arrives on an m-line; 0 is the one that it was published with.
    pub fn encoding_on(&self, source: Key, mid: Mid) -> Option<usize> {
        self.encodings
            .iter()
            .position(|encoding| encoding.source == source && encoding.mid == mid)
    }

    /// Its packets have yet to come, from a client that has not offered here.
    pub fn is_awaited(&self) -> bool {
        self.encodings.iter().any(|encoding| encoding.source == NONE)
    }

    /// The packets that are awaited on an m-line come from this connection. False: none are.
    pub fn adopt(&mut self, source: Key, mid: Mid) -> bool {
        let mut encodings = self.encodings.iter_mut();
        let awaited = encodings.find(|encoding| encoding.source == NONE && encoding.mid == mid);
        let is_found = awaited.is_some();
        if let Some(encoding) = awaited {
            encoding.source = source;
        }
        is_found
    }

    /// All that is awaited comes from this connection, on this m-line.
    pub fn move_to(&mut self, source: Key, mid: Mid) {
        self.encodings.truncate(1);
        if let Some(encoding) = self.encodings.first_mut() {
            (encoding.source, encoding.mid) = (source, mid);
        }
        self.info.mid = mid.as_str().to_owned();
    }

    /// Its streams are those that came of it at another node: of those a key frame can be asked for before anything has come.
    pub fn know_streams(&mut self, known: Vec<(Mid, SentStream)>) {
        for (mid, (rid, ..)) in &known {
            if let Some(encoding) = self.encodings.iter_mut().find(|encoding| encoding.mid == *mid) {
                let known = encoding.stream(*rid);
                if let Some(stream) = known.and_then(|(place, _)| encoding.streams.get_mut(place)) {
                    stream.key_frames.go_on_from_elsewhere();
                }
            }
        }
        self.told_streams = known;
    }

    /// Nothing more comes from its publisher here.
    pub fn lose_source(&mut self) {
        for encoding in &mut self.encodings {
            encoding.source = NONE;
        }
    }

    /// The encoding that a subscriber gets.
    pub fn encoding_of(&self, subscriber: &ParticipantId) -> Option<&Encoding> {
        self.encodings.get(self.share(subscriber)?.encoding)
    }

    /// Adds an encoding in another codec, whose simulcast layers are these, lowest first.
    pub fn add_encoding(&mut self, source: Key, mid: Mid, codec: Option<Codec>, rids: impl IntoIterator<Item = Rid>) {
        if self.encoding_on(source, mid).is_none() {
            self.encodings.push(Encoding::new(source, mid, codec, rids));
            self.is_unsettled = true;
            self.has_news = true;
        }
    }

    /// Removes an encoding. Who got it gets another one.
    pub fn remove_encoding(&mut self, source: Key, mid: Mid) {
        let Some(removed) = self.encoding_on(source, mid) else {
            return;
        };
        self.encodings.remove(removed);
        self.burst.encoding_left(removed);
        self.said_further.retain(|further| further.mid != mid.as_str());
        for subscription in &mut self.subscriptions {
            if subscription.encoding == removed {
                subscription.current = None;
                subscription.encoding = 0;
            } else if subscription.encoding > removed {
                // The same one as before, in another place.
                subscription.encoding -= 1;
            }
        }
        self.is_unsettled = true;
        self.has_news = true;
    }

    /// Gives everyone the first encoding that it can decode.
    fn settle(&mut self, connections: &Connections) {
        self.is_unsettled = false;
        for subscription in &mut self.subscriptions {
            let mut encodings = self.encodings.iter();
            let best = encodings.position(|encoding| subscription.can_take(encoding.codec, connections));
            subscription.set_encoding(best.unwrap_or_default());
        }
    }

    /// Whether layers have come since this was asked last: what everyone should get is to be decided anew.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// Where a subscriber gets it on a connection, and how the numbers are moved there; none: it does not, or it is not under way.
    pub fn begun(&self, connection: Key, subscriber: &ParticipantId) -> Option<(Mid, Begun)> {
        let share = self.share(subscriber).filter(|share| share.connection == connection)?;
        Some((share.mid, share.rewriter.begun()?))
    }

    /// Adds a subscriber and asks for a key frame for it.
    pub fn subscribe(&mut self, now: Instant, subscription: Subscription, connections: &mut Connections) {
        self.subscriptions.push(subscription);
        self.settle(connections);
        self.choose_sound();
        self.request_awaited(now, connections);
    }

    /// Removes a subscriber; what its m-line's stream goes on with.
    pub fn unsubscribe(&mut self, subscriber: &ParticipantId) -> Option<Rewriter> {
        let index = self
            .subscriptions
            .iter()
            .position(|subscription| subscription.subscriber == *subscriber)?;
        let mut rewriter = self.subscriptions.remove(index).rewriter;
        self.burst.subscriber_left(index);
        rewriter.release();
        Some(rewriter)
    }

    /// Changes how a subscriber wants it.
    pub fn prefer(
        &mut self,
        now: Instant,
        subscriber: &ParticipantId,
        preference: Preference,
        connections: &mut Connections,
    ) {
        if let Some(subscription) = self.subscription(subscriber) {
            subscription.preference = preference;
            self.choose_sound();
            self.request_awaited(now, connections);
        }
    }

    /// A subscriber's share.
    pub fn subscription(&mut self, subscriber: &ParticipantId) -> Option<&mut Subscription> {
        self.subscriptions
            .iter_mut()
            .find(|subscription| subscription.subscriber == *subscriber)
    }

    /// Whether a participant is subscribed to it.
    pub fn is_subscribed(&self, subscriber: &ParticipantId) -> bool {
        self.share(subscriber).is_some()
    }

    fn share(&self, subscriber: &ParticipantId) -> Option<&Subscription> {
        self.subscriptions
            .iter()
            .find(|subscription| subscription.subscriber == *subscriber)
    }

    /// Mutes or unmutes. After unmuting, every receiver begins with a key frame.
    pub fn set_muted(&mut self, now: Instant, muted: bool, connections: &mut Connections) {
        self.info.muted = muted;
        self.stop();
        if !muted {
            self.request_awaited(now, connections);
        }
    }

    /// Audio: whether it is among those that are forwarded. When it is again, its receivers' streams go on where they were.
    pub fn set_selected(&mut self, is_selected: bool) {
        if std::mem::replace(&mut self.is_selected, is_selected) != is_selected {
            self.stop();
        }
    }

    fn stop(&mut self) {
        self.burst.clear();
        for subscription in &mut self.subscriptions {
            subscription.current = None;
        }
    }

    /// Sound has no layers: whoever wants it gets it.
    fn choose_sound(&mut self) {
        if self.info.kind == Kind::Audio {
            for subscription in &mut self.subscriptions {
                let is_wanted = subscription.preference.enabled;
                let layer = selection::ALL;
                subscription.set_target(is_wanted.then_some(Wanted { stream: 0, layer }));
            }
        }
    }
}

/// Where a simulcast layer stands by its usual name, lowest first.
pub fn rank(rid: &str) -> u8 {
    match rid {
        "q" | "l" | "low" | "0" => 0,
        "h" | "m" | "mid" | "1" => 1,
        _ => 2,
    }
}
