//! How what comes of a track goes to its subscribers: packet by packet it is taken, and burst by burst, subscriber after subscriber, it is forwarded.

use std::sync::Arc;
use std::time::Instant;

use crate::bridge::Sound;
use crate::connections::{Connections, Key};
use crate::layers::Frame;
use crate::packet::MediaPacket;
use crate::rewrite::Fields;

use super::Track;
use super::burst::{Arrived, Burst};
use super::encoding::{Arrival, Stream};
use super::subscription::Outcome;

impl Track {
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
            packet: Arc::new(packet),
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
        let packet = sound.into_packet(now, encoding.mid, stream.and_then(Stream::highest));
        self.take(now, source, packet, connections) + self.forward_all(now, connections)
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
