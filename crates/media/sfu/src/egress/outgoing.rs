//! A packet that is to be sent, before it is known when. Hundreds of them are kept for each receiver, so that it refers to the publisher's packet, which all
//! receivers share, and has only what is its own.

use std::sync::Arc;

use crate::packet::MediaPacket;
use crate::rewrite::{PicturePatch, Rewritten};

use super::header::Values;
use super::red;

/// A packet, as it is before it is known when it is sent.
#[derive(Clone)]
pub struct Outgoing {
    /// The sequence number, extended past 16 bits.
    pub sequence: u64,
    /// The RTP timestamp.
    pub timestamp: u32,
    /// The RTP marker.
    pub marker: bool,
    /// What the payload is to this receiver.
    pub payload_type: u8,
    /// The publisher's packet; shared with all who get it. None: it is an empty one.
    source: Option<Arc<MediaPacket>>,
    /// Where in the publisher's payload its own begins.
    begin: u16,
    /// What changes in the payload.
    pub pictures: PicturePatch,
    /// The dependency descriptor, if it has one.
    dependency: Option<Arc<[u8]>>,
    /// The payload type of its blocks, if the payload is redundant audio data (RFC 2198).
    pub red: Option<u8>,
}

impl Outgoing {
    /// A forwarded packet.
    pub fn new(payload_type: u8, packet: &Arc<MediaPacket>, rewritten: &Rewritten) -> Self {
        Self {
            sequence: rewritten.sequence,
            timestamp: rewritten.timestamp,
            marker: rewritten.marker,
            payload_type,
            source: Some(packet.clone()),
            begin: 0,
            pictures: rewritten.pictures,
            dependency: rewritten.dependency.clone(),
            red: packet.is_red.then_some(payload_type),
        }
    }

    /// A packet without a payload.
    pub fn empty(payload_type: u8, sequence: u64, timestamp: u32) -> Self {
        Self {
            sequence,
            timestamp,
            marker: false,
            payload_type,
            source: None,
            begin: 0,
            pictures: PicturePatch::default(),
            dependency: None,
            red: None,
        }
    }

    /// The payload, before anything is changed in it.
    pub fn payload(&self) -> &[u8] {
        let payload = self.source.as_ref().map(|source| &*source.payload);
        payload
            .and_then(|payload| payload.get(usize::from(self.begin)..))
            .unwrap_or_default()
    }

    /// What goes into the header's extensions.
    pub fn values(&self) -> Values<'_> {
        let Some(source) = &self.source else {
            return Values::default();
        };
        Values {
            audio_level: source
                .audio_level
                .map(|level| (level, source.voice.unwrap_or_default())),
            rotation: source.rotation,
            playout_delay: source.playout_delay,
            capture_time: source.capture_time,
            dependency: self.dependency.as_deref(),
        }
    }

    /// Leaves of redundant audio data the primary block. `false`: there is none.
    pub fn leave_primary(&mut self) -> bool {
        let primary = red::primary(self.payload()).and_then(|primary| u16::try_from(primary.start).ok());
        self.begin += primary.unwrap_or_default();
        self.red = None;
        primary.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_packet_for_each_receiver_is_small() {
        assert!(size_of::<Outgoing>() <= 64, "{}", size_of::<Outgoing>());
    }
}
