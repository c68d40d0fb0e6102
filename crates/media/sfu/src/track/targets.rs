//! Which layer each subscriber of a track is to get, and the key frames that it takes to get there.

use std::time::Instant;

use signalbox_protocol::ParticipantId;
use signalbox_protocol::room::Kind;

use super::subscription::Wanted;
use super::{Encoding, Track};
use crate::allocator::{Layer, Rung};
use crate::connections::Connections;

impl Track {
    /// The layers that there are for a subscriber, of the encoding that it gets, ascending.
    pub fn ladder(&self, now: Instant, subscriber: &ParticipantId) -> Vec<Rung> {
        self.encoding_of(subscriber)
            .map(|encoding| encoding.ladder(now, &self.info))
            .unwrap_or_default()
    }

    /// What a subscriber gets from now on; none: nothing. Asks for a key frame if it needs one. The highest temporal layer that there is
    /// stands for all that will come.
    pub fn set_target(
        &mut self,
        now: Instant,
        subscriber: &ParticipantId,
        target: Option<Layer>,
        connections: &mut Connections,
    ) {
        let ladder = self.ladder(now, subscriber);
        let Some(subscription) = self
            .subscriptions
            .iter_mut()
            .find(|found| found.subscriber == *subscriber)
        else {
            return;
        };
        let Some(encoding) = self.encodings.get(subscription.encoding) else {
            return;
        };
        let wanted = target.map(|target| wanted(encoding, &ladder, target));
        let before = subscription.set_target(wanted);
        if subscription.restart_if_swamped(now, before, connections) || wanted != before {
            self.request_awaited(now, connections);
        }
    }

    /// What a subscriber gets at present; none: nothing.
    pub fn current(&self, now: Instant, subscriber: &ParticipantId) -> Option<Layer> {
        let subscription = self.share(subscriber)?;
        let (current, encoding) = (
            subscription.current.as_ref()?,
            self.encodings.get(subscription.encoding)?,
        );
        let layer = current.selection.cut().layer;
        let top = encoding.top(now, current.stream);
        Some(Layer {
            spatial: if encoding.is_simulcast() {
                current.stream as u8
            } else {
                layer.spatial.min(top.spatial)
            },
            temporal: layer.temporal.min(top.temporal),
        })
    }

    /// Asks for the key frames that subscribers wait for.
    pub fn request_awaited(&mut self, now: Instant, connections: &mut Connections) {
        if self.is_unsettled {
            self.settle(connections);
        }
        let mut awaited = Vec::new();
        for (place, encoding) in self.encodings.iter().enumerate() {
            for (index, stream) in encoding.streams.iter().enumerate() {
                let top = encoding.top(now, index);
                let mut takers = self.subscriptions.iter_mut().filter(|found| found.encoding == place);
                if takers.any(|taker| taker.has_receiver(connections) && taker.awaits(now, index, stream, top)) {
                    awaited.push((place, index));
                }
            }
        }
        for stream in awaited {
            self.request_key_frame(now, stream, connections);
        }
    }

    /// A subscriber has lost its picture.
    pub fn key_frame_wanted(&mut self, now: Instant, subscriber: &ParticipantId, connections: &mut Connections) {
        let Some(subscription) = self.share(subscriber) else {
            return;
        };
        let Some(current) = &subscription.current else {
            return;
        };
        let place = (subscription.encoding, current.stream);
        let round_trip = connections
            .get(subscription.connection)
            .and_then(|entry| entry.transport.report().rtt);
        let encoding = self.encodings.get_mut(place.0);
        if let Some(stream) = encoding.and_then(|encoding| encoding.streams.get_mut(place.1)) {
            stream.key_frames.want(now, round_trip.unwrap_or_default());
            if stream.key_frames.is_wanted() {
                self.request_key_frame(now, place, connections);
            }
        }
    }

    pub(super) fn request_key_frame(
        &mut self,
        now: Instant,
        (encoding, stream): (usize, usize),
        connections: &mut Connections,
    ) {
        let is_muted = self.info.muted || self.info.kind != Kind::Video;
        let is_muted = is_muted || self.quiet_until.is_some_and(|until| now < until);
        let Some(encoding) = self.encodings.get_mut(encoding).filter(|_| !is_muted) else {
            return;
        };
        let (source, mid) = (encoding.source, encoding.mid);
        let Some(stream) = encoding.streams.get_mut(stream) else {
            return;
        };
        if !stream.key_frames.is_time(now) {
            return;
        }
        let Some(entry) = connections.change(source).filter(|entry| entry.hears(mid)) else {
            return;
        };
        stream.key_frames.asked(now);
        entry.transport.request_key_frame(now, mid, stream.rid);
    }
}

/// Where the layer is that a subscriber is to get.
fn wanted(encoding: &Encoding, ladder: &[Rung], target: Layer) -> Wanted {
    let top = ladder.last().map_or(0, |rung| rung.layer.spatial);
    let mut layer = Layer {
        spatial: target.spatial.min(top),
        ..target
    };
    let of_spatial = ladder.iter().filter(|rung| rung.layer.spatial == layer.spatial);
    let highest = of_spatial.map(|rung| rung.layer.temporal).max().unwrap_or_default();
    if layer.temporal >= highest {
        layer.temporal = u8::MAX;
    }
    let (stream, layer) = encoding.locate(layer);
    Wanted { stream, layer }
}
