//! A published track and its subscriptions: which packets go to whom, as which layer, with which numbers.
//!
//! A track does not know where its packets come from: whoever has them calls [`Track::take`], be it this shard's publisher or, one
//! day, a relay from another shard; and then [`Track::forward_next`] until everybody has them.

mod burst;
pub mod encoding;
mod key_frames;
mod meter;
pub mod selection;
pub mod subscription;
mod targets;

use std::time::Instant;

use signalbox_protocol::control::{Preference, SaidTrack};
use signalbox_protocol::room::{Kind, PublishTrack, TrackInfo};
use signalbox_protocol::{ParticipantId, TrackId};

use crate::bridge::Sound;
use crate::codec::Codec;
use crate::connection::SentStream;
use crate::connections::{Connections, Key, NONE};
use crate::layers::Frame;
use crate::packet::{MediaPacket, Mid, Rid};
use crate::rewrite::{Begun, Fields, Rewriter};

use burst::{Arrived, Burst};
use encoding::Arrival;
pub use encoding::Encoding;
pub use subscription::Subscription;
use subscription::{Outcome, Wanted};

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

    /// Takes a packet that arrived on a connection, for [`Track::forward_next`]. Returns to how many subscribers earlier ones have gone, if they had to go first.
    pub fn take(&mut self, now: Instant, source: Key, packet: MediaPacket, connections: &mut Connections) -> u64 {
        let Some(index) = self.encoding_on(source, packet.mid) else {
            return 0;
        };
        let forwarded = if self.burst.is_empty() || self.continues(index, &packet) {
            0
        } else {
            self.forward_all(now, connections)
        };
        let Some(encoding) = self.encodings.get_mut(index) else {
            return forwarded;
        };
        self.is_unsettled |= encoding.codec.replace(packet.codec) != Some(packet.codec);
        let Some((place, is_new)) = encoding.stream(packet.rid) else {
            return forwarded;
        };
        let is_first = encoding.streams.len() == 1;
        let Some(stream) = encoding.streams.get_mut(place) else {
            return forwarded;
        };
        let was_active = stream.is_active(now);
        let is_restarted = match stream.arrive(now, &packet) {
            Arrival::Stray => return forwarded,
            Arrival::Expected => false,
            Arrival::Restarted => {
                self.next_source = self.next_source.wrapping_add(1);
                stream.source = self.next_source;
                true
            }
        };
        // Where the stream is has to be known all the while, so that it goes on from there.
        if self.info.muted || !self.is_selected {
            stream.forget_kept(packet.sequence);
            return forwarded;
        }
        let frame = stream.reader.read(&packet);
        if frame.as_ref().is_some_and(|frame| frame.is_key) {
            stream.key_frames.came(now);
        }
        let is_new_layer = frame
            .as_ref()
            .is_some_and(|frame| stream.measure(now, frame, packet.payload.len()));
        let arrived = Arrived {
            fields: fields(&packet, frame.as_ref()),
            stream: place,
            source: stream.source,
            may_begin: stream.may_begin_at(packet.sequence),
            packet,
            frame,
            is_awaited: false,
            is_waited_for: false,
        };
        if is_new || is_restarted {
            for subscription in self.subscriptions.iter_mut().filter(|found| found.encoding == index) {
                // Whoever waits for the first one that comes waits for this.
                if is_new && !is_first {
                    subscription.shift(place);
                }
                // What the source was before has no more frames to offer.
                if is_restarted
                    && let Some(current) = &subscription.current
                    && current.stream == place
                {
                    subscription.current = None;
                }
            }
        }
        if self.is_unsettled {
            self.settle(connections);
        }
        if is_new || is_new_layer || !was_active {
            self.has_news = true;
        }
        self.burst.encoding = index;
        self.burst.arrived.push(arrived);
        forwarded
    }

    /// Whether a packet follows what has not been forwarded yet, and changes nothing but that it is one more.
    fn continues(&self, index: usize, packet: &MediaPacket) -> bool {
        let encoding = self
            .encodings
            .get(index)
            .filter(|_| self.burst.takes(index) && !self.is_unsettled);
        encoding.is_some_and(|encoding| {
            let mut streams = encoding.streams.iter();
            let stream = streams.find(|stream| stream.rid == packet.rid);
            encoding.codec == Some(packet.codec) && stream.is_some_and(|stream| stream.is_followed_by(packet))
        })
    }

    /// Whether it has packets that not everybody has who is to have them.
    pub fn has_burst(&self) -> bool {
        !self.burst.is_empty()
    }

    /// Gives what has come to the next subscriber that gets any of it. Returns how many packets that were; none: everybody has them.
    pub fn forward_next(&mut self, now: Instant, connections: &mut Connections) -> Option<u64> {
        if self.burst.is_empty() {
            return None;
        }
        let mut burst = std::mem::take(&mut self.burst);
        let encoding = self.encodings.get(burst.encoding);
        let (mut forwarded, mut is_done) = (0, false);
        while forwarded == 0 && !is_done {
            let next = burst.next(self.subscriptions.len());
            let Some(subscription) = next.and_then(|place| self.subscriptions.get_mut(place)) else {
                is_done = true;
                continue;
            };
            if subscription.encoding != burst.encoding {
                continue;
            }
            for arrived in &mut burst.arrived {
                let outcome = subscription.forward(now, arrived, connections);
                arrived.note(outcome);
                forwarded += u64::from(matches!(outcome, Outcome::Sent | Outcome::Begun));
                if outcome != Outcome::Begun {
                    continue;
                }
                let stream = encoding.and_then(|encoding| encoding.streams.get(arrived.stream));
                let newer = stream.map(|stream| stream.newer(arrived.packet.sequence));
                for (packet, frame) in newer.into_iter().flatten() {
                    let newer = Arrived {
                        fields: fields(&packet, Some(&frame)),
                        packet,
                        frame: Some(frame),
                        ..*arrived
                    };
                    forwarded += u64::from(subscription.forward(now, &newer, connections) == Outcome::Sent);
                }
            }
        }
        if is_done {
            self.forwarded(now, &burst, connections);
            burst.clear();
        }
        self.burst = burst;
        (forwarded > 0).then_some(forwarded)
    }

    fn forward_all(&mut self, now: Instant, connections: &mut Connections) -> u64 {
        std::iter::from_fn(|| self.forward_next(now, connections)).sum()
    }

    /// Everybody has what was to be had of a burst: keeps it for those who wait for a key frame, and asks for one.
    fn forwarded(&mut self, now: Instant, burst: &Burst, connections: &mut Connections) {
        let mut awaited = 0u32;
        for arrived in &burst.arrived {
            let encoding = self.encodings.get_mut(burst.encoding);
            let Some(stream) = encoding.and_then(|encoding| encoding.streams.get_mut(arrived.stream)) else {
                continue;
            };
            let is_awaited = if arrived.is_waited_for {
                stream.keep(&arrived.packet, arrived.frame.as_ref());
                arrived.is_awaited
            } else {
                stream.forget_kept(arrived.packet.sequence);
                stream.key_frames.is_wanted()
            };
            let bit = 1 << arrived.stream;
            awaited = if is_awaited { awaited | bit } else { awaited & !bit };
        }
        for stream in (0..u32::BITS as usize).filter(|stream| awaited & 1 << stream != 0) {
            self.request_key_frame(now, (burst.encoding, stream), connections);
        }
    }

    /// The same with sound that another node has of its publisher, who has yet to come from there or has gone there.
    pub fn forward_from_elsewhere(&mut self, now: Instant, sound: Sound, connections: &mut Connections) -> u64 {
        let Some(encoding) = self.encodings.first() else {
            return 0;
        };
        let (source, stream) = (encoding.source, encoding.streams.first());
        let packet = sound.into_packet(now, encoding.mid, stream.and_then(encoding::Stream::highest));
        self.take(now, source, packet, connections) + self.forward_all(now, connections)
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

fn fields(packet: &MediaPacket, frame: Option<&Frame>) -> Fields {
    Fields {
        sequence: packet.sequence,
        timestamp: packet.timestamp,
        marker: packet.marker,
        clock_rate: packet.clock_rate,
        pictures: frame.map(|frame| frame.pictures).unwrap_or_default(),
        frame_number: frame.and_then(|frame| Some(frame.descriptor()?.number)),
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
