//! One subscriber's share of a track: what it should get, what it gets, and with which numbers.

use std::time::{Duration, Instant};

use signalbox_protocol::ParticipantId;
use signalbox_protocol::control::Preference;
use signalbox_protocol::room::Kind;

use crate::allocator::Layer;
use crate::codec::PayloadFormat;
use crate::connections::{Connections, Entry, Key};
use crate::packet::{Mid, OutgoingStream, PayloadType};
use crate::rewrite::{Place, Rewriter};

use super::burst::Arrived;
use super::selection::{ALL, Selection};

/// How long a receiver waits for a point in the stream from which it can have more frames, before a key frame is asked for. Higher: it
/// sees fewer frames for longer. Lower: key frames where the stream would have had such a point anyhow.
const PATIENCE: Duration = Duration::from_secs(2);

/// The lowest temporal layer of a stream.
const SLOWEST: Layer = Layer {
    spatial: u8::MAX,
    temporal: 0,
};

/// A fall of a scalable stream's spatial layer is followed so long by a look at whether its repair holds up what is sent. Higher: more key
/// frames. Lower: an estimate that falls slowly is not seen to the end.
const FALL: Duration = Duration::from_millis(1_000);

/// If one part in so many of what the network takes is repair and sound, most of what was lost is of no use to wait for.
const SWAMPED: u64 = 4;

/// A new stream of pictures begins with so many empty packets. Its receiver asks for nothing again that was before the first packet that arrives: if
/// that were the key frame's second one, it would see nothing until the next key frame. Higher: surer. Lower: fewer packets.
const LEAD_IN: usize = 2;

/// One subscriber's share of a track.
pub struct Subscription {
    /// Who.
    pub subscriber: ParticipantId,
    /// On which connection.
    pub connection: Key,
    /// On which m-line.
    pub mid: Mid,
    /// How it is wanted.
    pub preference: Preference,
    /// The numbers of the m-line's stream; they outlive the subscription.
    pub rewriter: Rewriter,
    /// Which of the track's encodings it gets.
    pub(crate) encoding: usize,
    /// What it should get.
    pub(super) target: Option<Wanted>,
    /// What it gets.
    pub(super) current: Option<Current>,
    stream: OutgoingStream,
    format: Option<(PayloadFormat, Option<PayloadType>)>,
    /// Since when it has waited for more frames.
    behind_since: Option<Instant>,
    /// When it was to get a lower spatial layer of the stream that it gets.
    fell: Option<Instant>,
}

/// What a subscriber should get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Which of the encoding's streams.
    pub stream: usize,
    /// Which layers of that.
    pub layer: Layer,
}

/// What a subscriber gets.
#[derive(Debug, Clone)]
pub struct Current {
    /// Which of the encoding's streams.
    pub stream: usize,
    /// That stream's number.
    pub source: u32,
    /// Which frames of it.
    pub selection: Selection,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was sent.
    Sent,
    /// It was not.
    Left,
    /// It was, as the first of its stream.
    Begun,
    /// It was not, since the subscriber waits for a key frame, and this could have been one.
    Waits,
    /// The same, and it is the stream that it should get.
    Awaits,
}

impl Subscription {
    /// A subscription that waits for its first key frame.
    pub fn new(
        subscriber: ParticipantId,
        connection: Key,
        mid: Mid,
        stream: OutgoingStream,
        preference: Preference,
        rewriter: Rewriter,
    ) -> Self {
        Self {
            subscriber,
            connection,
            mid,
            preference,
            rewriter,
            encoding: 0,
            target: None,
            current: None,
            stream,
            format: None,
            behind_since: None,
            fell: None,
        }
    }

    /// Forget what was negotiated: after a renegotiation, payload types may differ.
    pub fn renegotiated(&mut self) {
        self.format = None;
    }

    /// From now on it gets another encoding.
    pub(super) fn set_encoding(&mut self, encoding: usize) {
        if std::mem::replace(&mut self.encoding, encoding) != encoding {
            self.current = None;
        }
    }

    /// What it should get from now on; what that was until now.
    pub(super) fn set_target(&mut self, target: Option<Wanted>) -> Option<Wanted> {
        if target.is_none() {
            self.current = None;
        }
        std::mem::replace(&mut self.target, target)
    }

    /// Begins anew with a key frame, if what it gets was cut in a stream of which so much was lost that repairing the upper layers would hold
    /// up the lower ones. A receiver shows none of the pictures in between without them.
    pub(super) fn restart_if_swamped(
        &mut self,
        now: Instant,
        before: Option<Wanted>,
        connections: &mut Connections,
    ) -> bool {
        let target = self.target;
        if let (Some(before), Some(after)) = (before, target)
            && before.stream == after.stream
            && before.layer.spatial > after.layer.spatial
        {
            self.fell = Some(now);
        }
        let is_falling = self
            .fell
            .is_some_and(|fell| now.saturating_duration_since(fell) <= FALL);
        let entry = connections.change(self.connection).filter(|_| is_falling);
        let Some(entry) = entry.filter(|entry| is_swamped(now, entry)) else {
            return false;
        };
        entry.transport.forget(self.stream);
        self.fell = None;
        self.current = None;
        true
    }

    /// Another stream has come in before some of those that there were.
    pub(super) fn shift(&mut self, inserted: usize) {
        for stream in [
            self.target.as_mut().map(|target| &mut target.stream),
            self.current.as_mut().map(|current| &mut current.stream),
        ] {
            if let Some(stream) = stream.filter(|stream| **stream >= inserted) {
                *stream += 1;
            }
        }
    }

    /// Whether a key frame of this stream is to be taken: of the one that it should get, or, as long as it gets nothing, of any lower
    /// one. The lowest layer's key frame is the smallest and comes first, and a small picture at once is better than a large
    /// one later.
    fn may_begin_with(&self, stream: usize) -> bool {
        match (&self.current, &self.target) {
            (_, None) => false,
            (None, Some(target)) => stream <= target.stream,
            (Some(_), Some(target)) => stream == target.stream,
        }
    }

    /// Gives it a packet of its encoding, if it is to have it.
    pub(super) fn forward(&mut self, now: Instant, arrived: &Arrived, connections: &mut Connections) -> Outcome {
        let is_current = self
            .current
            .as_ref()
            .is_some_and(|current| current.source == arrived.source);
        if !is_current && !self.may_begin_with(arrived.stream) {
            return Outcome::Left;
        }
        // What is sent before the receiver is there is lost, and a key frame with it.
        if !self.has_receiver(connections) {
            return Outcome::Left;
        }
        let within = match self.target {
            Some(target) if target.stream == arrived.stream => target.layer,
            // It waits for a lower stream's key frame. Until then, fewer frames cost less.
            Some(target) if is_current && target.stream < arrived.stream => SLOWEST,
            _ => ALL,
        };
        if !is_current {
            let Some(frame) = arrived.frame.as_ref().filter(|frame| frame.is_key && arrived.may_begin) else {
                let is_awaited = self.target.is_some_and(|target| target.stream == arrived.stream);
                return if is_awaited { Outcome::Awaits } else { Outcome::Waits };
            };
            let goes_up = self
                .current
                .as_ref()
                .is_some_and(|current| current.stream < arrived.stream);
            if let Some(entry) = connections.change(self.connection).filter(|_| !goes_up)
                && is_swamped(now, entry)
            {
                entry.transport.forget(self.stream);
            }
            self.lead_in(arrived, connections);
            self.rewriter.anchor(now, arrived.source, &arrived.fields);
            self.current = Some(Current {
                stream: arrived.stream,
                source: arrived.source,
                selection: Selection::new(frame, within),
            });
        }
        let Some(Current { selection, .. }) = &mut self.current else {
            return Outcome::Left;
        };
        // What is missing before a packet is of frames that began before it.
        let before = selection.cut();
        let place = self.rewriter.place(arrived.fields.sequence);
        let cut = match (place, &arrived.frame) {
            (Place::Past, _) => return Outcome::Left,
            (Place::Late(cut), _) => cut,
            (Place::New, Some(frame)) => {
                selection.advance(frame, within);
                selection.cut()
            }
            (Place::New, None) => before,
        };
        let Some(frame) = arrived.frame.as_ref().filter(|frame| cut.includes(frame)) else {
            self.rewriter.skip(now, &arrived.fields, before);
            self.fill_gaps(connections);
            return Outcome::Left;
        };
        let Some(mut rewritten) = self.rewriter.send(now, &arrived.fields, before) else {
            return Outcome::Left;
        };
        rewritten.marker |= cut.ends_picture(frame);
        selection.sent(frame);
        if let (Some(descriptor), Some(bytes)) = (frame.descriptor(), &arrived.packet.dependency)
            && selection.is_described()
        {
            let number = self.rewriter.frame_number(descriptor.number);
            let active = selection.active(descriptor).filter(|_| place == Place::New);
            rewritten.dependency = Some(match active {
                None if number == descriptor.number => bytes.clone(),
                active => descriptor.rewritten(bytes, number, active),
            });
        }
        let mut is_sent = false;
        if let Some(entry) = connections.change(self.connection)
            && let Some(kind) = self.payload_type(entry, arrived.packet.format)
        {
            is_sent = entry
                .transport
                .write(now, self.stream, kind, &arrived.packet, &rewritten);
        }
        self.fill_gaps(connections);
        match (is_sent, is_current) {
            (true, true) => Outcome::Sent,
            (true, false) => Outcome::Begun,
            (false, _) => Outcome::Left,
        }
    }

    fn lead_in(&mut self, arrived: &Arrived, connections: &mut Connections) {
        let entry = connections.change(self.connection);
        let entry =
            entry.filter(|entry| arrived.packet.codec.kind() == Kind::Video && entry.transport.peer().is_some());
        let Some(entry) = entry else {
            return;
        };
        let Some(kind) = self.payload_type(entry, arrived.packet.format) else {
            return;
        };
        for (sequence, timestamp) in (0..LEAD_IN).map_while(|_| self.rewriter.lead_in(&arrived.fields)) {
            entry.transport.write_empty(self.stream, kind, sequence, timestamp);
        }
    }

    fn payload_type(&mut self, entry: &Entry, wanted: PayloadFormat) -> Option<PayloadType> {
        match self.format {
            Some((format, kind)) if format == wanted => kind,
            _ => {
                let kind = entry.transport.payload_type(self.mid, wanted);
                self.format = Some((wanted, kind));
                kind
            }
        }
    }

    fn fill_gaps(&mut self, connections: &mut Connections) {
        let Some((_, Some(kind))) = self.format else {
            return;
        };
        while let Some((sequence, timestamp)) = self.rewriter.next_empty() {
            if let Some(entry) = connections.change(self.connection) {
                entry.transport.write_empty(self.stream, kind, sequence, timestamp);
            }
        }
    }

    /// Whether its stream has somebody to arrive at.
    pub(super) fn has_receiver(&self, connections: &Connections) -> bool {
        let entry = connections.get(self.connection);
        entry.is_some_and(|entry| entry.takes(self.stream))
    }

    /// Whether a client can take a codec on its m-line.
    pub(super) fn can_take(&self, codec: Option<crate::codec::Codec>, connections: &Connections) -> bool {
        let entry = connections.get(self.connection);
        entry.is_some_and(|entry| entry.transport.can_take(self.mid, codec))
    }

    /// Whether it needs a key frame of this stream to get what it should, `top` being the highest layer that arrives.
    pub(super) fn awaits(&mut self, now: Instant, index: usize, stream: &super::encoding::Stream, top: Layer) -> bool {
        let Some(target) = self.target.filter(|target| target.stream == index) else {
            return false;
        };
        let Some(current) = self.current.as_ref().filter(|current| current.source == stream.source) else {
            return true;
        };
        let (goal, has) = current.selection.goal(&stream.reader, target.layer, top);
        if goal.spatial != has.spatial {
            return true;
        }
        if goal.temporal <= has.temporal {
            self.behind_since = None;
            return false;
        }
        let since = *self.behind_since.get_or_insert(now);
        now.saturating_duration_since(since) >= PATIENCE
    }
}

/// Whether repair takes so much of what the network takes that it holds up what is new.
fn is_swamped(now: Instant, entry: &Entry) -> bool {
    let estimate = entry.transport.estimate().unwrap_or(u64::MAX);
    entry.transport.overhead(now) >= estimate / SWAMPED
}
