//! Packets of a track that have come one right after the other, such as those of a picture. Each subscriber gets all of them before the next one gets any: what
//! is known of it is then in the processor's caches for all but the first.

use std::sync::Arc;

use crate::layers::Frame;
use crate::packet::MediaPacket;
use crate::rewrite::Fields;

use super::subscription::Outcome;

/// Packets of a burst at most. Higher: the last subscriber gets the first packet of a long one later. Lower: shorter runs.
pub const MAX_PACKETS: usize = 64;

/// A packet with what was read of it.
pub struct Arrived {
    /// The packet.
    pub packet: Arc<MediaPacket>,
    /// Its place in the stream; none: it is of no use to anyone.
    pub frame: Option<Frame>,
    /// Its numbers.
    pub fields: Fields,
    /// Which of the encoding's streams it is of.
    pub stream: usize,
    /// That stream's number.
    pub source: u32,
    /// All packets of the stream that are newer can still be had: see [`super::encoding::Stream::newer`].
    pub may_begin: bool,
    /// A subscriber waits for a key frame of the stream that it should get.
    pub is_awaited: bool,
    /// A subscriber waits for a key frame, of whichever stream.
    pub is_waited_for: bool,
}

/// What has come, and who has it.
#[derive(Default)]
pub struct Burst {
    /// In the order in which they came.
    pub arrived: Vec<Arrived>,
    /// Which of the track's encodings they are of.
    pub encoding: usize,
    /// How many of the track's subscribers have yet to get it, from the first one on; none: nobody has it.
    left: Option<usize>,
}

impl Arrived {
    /// Notes what became of it for a subscriber.
    pub fn note(&mut self, outcome: Outcome) {
        self.is_awaited |= outcome == Outcome::Awaits;
        self.is_waited_for |= matches!(outcome, Outcome::Awaits | Outcome::Waits);
    }
}

impl Burst {
    /// Nothing has come that not everybody has.
    pub fn is_empty(&self) -> bool {
        self.arrived.is_empty()
    }

    /// Whether one more of an encoding can be part of it.
    pub fn takes(&self, encoding: usize) -> bool {
        self.left.is_none() && self.encoding == encoding && self.arrived.len() < MAX_PACKETS
    }

    /// What is left of it is of no use to anyone.
    pub fn clear(&mut self) {
        self.arrived.clear();
        self.left = None;
    }

    /// The place of the next subscriber among those of the track, of whom there are so many; none: everybody has it. Who came last is first: of its network the
    /// least is known, and what a long burst takes here must not be taken for a queue there.
    pub fn next(&mut self, subscribers: usize) -> Option<usize> {
        let left = self.left.get_or_insert(subscribers);
        *left = left.checked_sub(1)?;
        Some(*left)
    }

    /// The subscriber at this place is not there any more, and those behind it have moved up.
    pub fn subscriber_left(&mut self, place: usize) {
        if let Some(left) = self.left.as_mut().filter(|left| place < **left) {
            *left -= 1;
        }
    }

    /// The encoding at this place is not there any more.
    pub fn encoding_left(&mut self, place: usize) {
        if self.encoding == place {
            self.clear();
        } else if self.encoding > place {
            self.encoding -= 1;
        }
    }
}
