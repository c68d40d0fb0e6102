//! A published track and its subscriptions: which packets go to whom, as which layer, with which numbers.
//!
//! A track does not know where its packets come from: whoever has them calls [`Track::forward`], be it this shard's publisher or, one
//! day, a relay from another shard.

use std::time::{Duration, Instant};

use signalbox_protocol::control::Preference;
use signalbox_protocol::room::TrackInfo;
use signalbox_protocol::{ParticipantId, TrackId};

use crate::allocator::{self, LayerState};
use crate::codec::{Codec, PayloadFormat};
use crate::connection::{OutgoingStream, PayloadType};
use crate::connections::{Connections, Key};
use crate::packet::{MediaPacket, Mid, Rid};
use crate::rewrite::{Fields, Rewriter};
use crate::vp8;

/// The shortest time between two key-frame requests for a layer. Higher: whoever waits for a picture waits longer. Lower: the
/// publisher spends its bit rate on key frames.
pub const KEY_FRAME_INTERVAL: Duration = Duration::from_millis(300);

/// A layer without a packet for so long is not active: its publisher has turned it off.
const LAYER_TIMEOUT: Duration = Duration::from_millis(1_000);

/// Simulcast layers that are told apart; packets of more are dropped.
const MAX_LAYERS: usize = 4;

/// A published track.
pub struct Track {
    /// As the others see it.
    pub info: TrackInfo,
    /// Whose.
    pub publisher: ParticipantId,
    /// The connection that its packets arrive on.
    pub source: Key,
    /// The m-line there.
    pub mid: Mid,
    /// The publisher's own id of it.
    pub cid: String,
    /// Who gets it.
    pub subscriptions: Vec<Subscription>,
    layers: Vec<Layer>,
    is_selected: bool,
}

struct Layer {
    rid: Option<Rid>,
    last_packet: Option<Instant>,
    last_request: Option<Instant>,
}

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
    stream: OutgoingStream,
    format: Option<(PayloadFormat, Option<PayloadType>)>,
    current: Option<usize>,
    target: Option<usize>,
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
            stream,
            format: None,
            current: None,
            target: None,
        }
    }

    /// Whether a key frame of this layer is to be taken: of the layer that it should get, or, as long as it gets nothing, of any lower
    /// one. The lowest layer's key frame is the smallest and comes first, and a small picture at once is better than a large
    /// one later.
    fn may_begin_with(&self, layer: usize) -> bool {
        match (self.current, self.target) {
            (_, None) => false,
            (None, Some(target)) => layer <= target,
            (Some(_), Some(target)) => layer == target,
        }
    }

    /// Forget what was negotiated: after a renegotiation, payload types may differ.
    pub fn renegotiated(&mut self) {
        self.format = None;
    }
}

impl Track {
    /// A track without packets or subscribers.
    pub fn new(info: TrackInfo, publisher: ParticipantId, source: Key, mid: Mid, cid: String) -> Self {
        let layers = info
            .layers
            .iter()
            .take(MAX_LAYERS)
            .map(|layer| Layer::new(Some(Rid::from(layer.rid.as_str()))));
        let layers = layers.collect();
        Self {
            info,
            publisher,
            source,
            mid,
            cid,
            subscriptions: Vec::new(),
            layers,
            is_selected: true,
        }
    }

    /// Its id.
    pub fn id(&self) -> &TrackId {
        &self.info.id
    }

    /// Gives a packet to everyone who is to have it. Returns to how many.
    pub fn forward(&mut self, now: Instant, packet: &MediaPacket, connections: &mut Connections) -> u64 {
        if self.info.muted || !self.is_selected {
            return 0;
        }
        let Some(layer) = self.layer_of(packet.rid) else {
            return 0;
        };
        let was_active = self.layer_state(now, layer).active;
        self.layers[layer].last_packet = Some(now);
        if !was_active {
            self.choose_layers(now);
        }
        let can_begin = packet.codec.starts_key_frame(&packet.payload);
        let vp8 = (packet.codec == Codec::Vp8)
            .then(|| vp8::Descriptor::parse(&packet.payload))
            .flatten();
        let fields = Fields {
            sequence: packet.sequence,
            timestamp: packet.timestamp,
            marker: packet.marker,
            vp8,
        };
        let (mut forwarded, mut is_awaited) = (0, false);
        for subscription in &mut self.subscriptions {
            if subscription.current != Some(layer) && !subscription.may_begin_with(layer) {
                continue;
            }
            // What is sent before the receiver is there is lost, and a key frame with it.
            if !takes(connections, subscription) {
                continue;
            }
            if subscription.current != Some(layer) && !can_begin {
                is_awaited |= subscription.target == Some(layer);
                continue;
            }
            if subscription.current != Some(layer) {
                subscription.current = Some(layer);
                subscription.rewriter.switch(now, packet.clock_rate, fields);
            }
            let Some(mut rewritten) = subscription.rewriter.rewrite(now, fields) else {
                continue;
            };
            rewritten.dependency.clone_from(&packet.dependency);
            if let Some(entry) = connections.change(subscription.connection) {
                let format = match subscription.format {
                    Some((format, kind)) if format == packet.format => kind,
                    _ => {
                        let kind = entry.transport.payload_type(subscription.mid, packet.format);
                        subscription.format = Some((packet.format, kind));
                        kind
                    }
                };
                if let Some(kind) = format {
                    forwarded += u64::from(entry.transport.write(subscription.stream, kind, packet, &rewritten));
                }
            }
        }
        if is_awaited {
            self.request_key_frame(now, layer, connections);
        }
        forwarded
    }

    fn layer_of(&mut self, rid: Option<Rid>) -> Option<usize> {
        if let Some(index) = self.layers.iter().position(|layer| layer.rid == rid) {
            return Some(index);
        }
        if self.layers.len() >= MAX_LAYERS {
            return None;
        }
        // A publisher that announced its layers nowhere.
        let rank = |rid: Option<Rid>| rank(rid.as_ref().map_or("", Rid::as_str));
        let index = self
            .layers
            .iter()
            .position(|layer| rank(layer.rid) > rank(rid))
            .unwrap_or(self.layers.len());
        self.layers.insert(index, Layer::new(rid));
        for subscription in &mut self.subscriptions {
            let shift = |layer: usize| if layer >= index { layer + 1 } else { layer };
            subscription.current = subscription.current.map(shift);
            subscription.target = subscription.target.map(shift);
        }
        Some(index)
    }

    /// Adds a subscriber and asks for a key frame for it.
    pub fn subscribe(&mut self, now: Instant, subscription: Subscription, connections: &mut Connections) {
        self.subscriptions.push(subscription);
        self.choose_layers(now);
        self.request_awaited(now, connections);
    }

    /// Removes a subscriber; what its m-line's stream goes on with.
    pub fn unsubscribe(&mut self, subscriber: &ParticipantId) -> Option<Rewriter> {
        let index = self
            .subscriptions
            .iter()
            .position(|subscription| subscription.subscriber == *subscriber)?;
        Some(self.subscriptions.swap_remove(index).rewriter)
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
            self.choose_layers(now);
            self.request_awaited(now, connections);
        }
    }

    /// A subscriber's share.
    pub fn subscription(&mut self, subscriber: &ParticipantId) -> Option<&mut Subscription> {
        self.subscriptions
            .iter_mut()
            .find(|subscription| subscription.subscriber == *subscriber)
    }

    /// Mutes or unmutes. After unmuting, every receiver begins with a key frame.
    pub fn set_muted(&mut self, now: Instant, muted: bool, connections: &mut Connections) {
        self.info.muted = muted;
        for subscription in &mut self.subscriptions {
            subscription.current = None;
        }
        if !muted {
            self.request_awaited(now, connections);
        }
    }

    /// Audio: whether it is among those that are forwarded. When it is again, everyone's stream goes on where it had stopped.
    pub fn set_selected(&mut self, is_selected: bool) {
        self.is_selected = is_selected;
        for subscription in &mut self.subscriptions {
            subscription.current = None;
        }
    }

    /// Decides anew which layer each subscriber should get.
    pub fn choose_layers(&mut self, now: Instant) {
        let states: Vec<LayerState> = (0..self.layers.len())
            .map(|index| self.layer_state(now, index))
            .collect();
        for subscription in &mut self.subscriptions {
            subscription.target = allocator::choose(&states, &subscription.preference);
            if subscription.target.is_none() && !subscription.preference.enabled {
                subscription.current = None;
            }
        }
    }

    fn layer_state(&self, now: Instant, index: usize) -> LayerState {
        let layer = &self.layers[index];
        let active = layer
            .last_packet
            .is_some_and(|last| now.saturating_duration_since(last) < LAYER_TIMEOUT);
        let said = layer
            .rid
            .and_then(|rid| self.info.layers.iter().find(|layer| layer.rid == rid.as_str()));
        match said {
            Some(said) if said.width > 0 => LayerState {
                width: said.width,
                height: said.height,
                active,
            },
            // The usual ladder: each layer has half the size of the next.
            _ => {
                let halvings = (self.layers.len() - 1 - index) as u32;
                LayerState {
                    width: self.info.width >> halvings,
                    height: self.info.height >> halvings,
                    active,
                }
            }
        }
    }

    /// Asks for the key frames that subscribers wait for.
    pub fn request_awaited(&mut self, now: Instant, connections: &mut Connections) {
        for layer in 0..self.layers.len() {
            let is_awaited = self.subscriptions.iter().any(|subscription| {
                subscription.target == Some(layer)
                    && subscription.current != Some(layer)
                    && takes(connections, subscription)
            });
            if is_awaited {
                self.request_key_frame(now, layer, connections);
            }
        }
    }

    /// A subscriber has lost its picture.
    pub fn key_frame_wanted(&mut self, now: Instant, subscriber: &ParticipantId, connections: &mut Connections) {
        if let Some(layer) = self
            .subscription(subscriber)
            .and_then(|subscription| subscription.current)
        {
            self.request_key_frame(now, layer, connections);
        }
    }

    fn request_key_frame(&mut self, now: Instant, layer: usize, connections: &mut Connections) {
        let Some(layer) = self
            .layers
            .get_mut(layer)
            .filter(|_| self.info.kind == signalbox_protocol::room::Kind::Video)
        else {
            return;
        };
        let is_recent = layer
            .last_request
            .is_some_and(|last| now.saturating_duration_since(last) < KEY_FRAME_INTERVAL);
        if is_recent || self.info.muted {
            return;
        }
        let Some(entry) = connections.change(self.source).filter(|entry| entry.hears(self.mid)) else {
            return;
        };
        layer.last_request = Some(now);
        entry.transport.request_key_frame(now, self.mid, layer.rid);
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

/// Whether a subscriber's stream has somebody to arrive at.
fn takes(connections: &Connections, subscription: &Subscription) -> bool {
    let entry = connections.get(subscription.connection);
    entry.is_some_and(|entry| entry.takes(subscription.stream))
}

impl Layer {
    fn new(rid: Option<Rid>) -> Self {
        Self {
            rid,
            last_packet: None,
            last_request: None,
        }
    }
}
