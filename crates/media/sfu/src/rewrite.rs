//! Makes one continuous stream out of packets of changing sources: sequence numbers, timestamps, VP8 picture ids.
//!
//! A receiver sees one SSRC for as long as an m-line lives, while what is sent on it changes: another simulcast layer, the same track
//! after a pause, another participant's track in the same slot. At each change, [`Rewriter::switch`] anchors the new source behind
//! what was sent last; after that every packet is moved by the same offsets, so that losses and reordering of the source stay
//! visible to the receiver as what they are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::vp8;

/// What a packet's fields become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// The sequence number, extended past 16 bits.
    pub sequence: u64,
    /// The RTP timestamp.
    pub timestamp: u32,
    /// Whether it is the last packet of a frame for this receiver, or the first of a talkspurt.
    pub marker: bool,
    /// The VP8 fields, if the packet has any.
    pub vp8: Option<Vp8Rewritten>,
    /// The dependency descriptor, if the packet has one (AV1 RTP payload format, appendix A).
    pub dependency: Option<Arc<[u8]>>,
}

impl Rewritten {
    /// Writes the fields that are in the payload over a copy of the packet's payload, which stays as long as it was.
    pub fn patch(&self, payload: &mut [u8]) {
        if let Some(fields) = self.vp8 {
            vp8::patch(payload, fields.picture_id, fields.tl0_pic_idx);
        }
    }
}

/// What a VP8 packet's fields become (RFC 7741 section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vp8Rewritten {
    /// The picture id, as wide as it was.
    pub picture_id: Option<u16>,
    /// The running index of base-layer frames.
    pub tl0_pic_idx: Option<u8>,
}

/// What is read of a packet.
#[derive(Debug, Clone, Copy)]
pub struct Fields {
    /// The source's sequence number, extended past 16 bits.
    pub sequence: u64,
    /// The source's RTP timestamp.
    pub timestamp: u32,
    /// The source's marker.
    pub marker: bool,
    /// The source's VP8 descriptor.
    pub vp8: Option<vp8::Descriptor>,
}

/// The state of one outgoing stream.
#[derive(Debug, Clone)]
pub struct Rewriter {
    /// The highest sequence number sent; before the first packet, the one before it.
    sequence: u64,
    /// The timestamp of the newest packet sent, and when it was.
    newest: Option<(u32, Instant)>,
    picture_id: u16,
    tl0_pic_idx: u8,
    /// The source's sequence number where it was anchored; what is older belongs to before the switch.
    floor: u64,
    sequence_offset: i64,
    timestamp_offset: u32,
    picture_id_offset: u16,
    tl0_offset: u8,
}

impl Rewriter {
    /// A new stream. `start` picks where its sequence numbers begin; only its low 15 bits count, so that the first rollover is far
    /// off (RFC 3711 section 3.3.1).
    pub fn new(start: u16) -> Self {
        Self {
            sequence: u64::from(start & 0x7fff),
            newest: None,
            picture_id: 0,
            tl0_pic_idx: 0,
            floor: 0,
            sequence_offset: 0,
            timestamp_offset: 0,
            picture_id_offset: 0,
            tl0_offset: 0,
        }
    }

    /// Anchors a new source, of which this is the first packet to be sent, `clock_rate` ticks per second.
    pub fn switch(&mut self, now: Instant, clock_rate: u32, first: Fields) {
        self.floor = first.sequence;
        self.sequence_offset = (self.sequence + 1).wrapping_sub(first.sequence) as i64;
        self.timestamp_offset = match self.newest {
            None => 0,
            Some((timestamp, sent)) => {
                // At least one frame's worth at 30 per second for video, 20 ms for audio would also do: any forward step that is
                // not larger than the time that passed keeps the receiver's jitter buffer calm.
                let passed = now.saturating_duration_since(sent).max(Duration::from_millis(10));
                let ticks = passed.as_secs_f64() * f64::from(clock_rate);
                timestamp.wrapping_add(ticks as u32).wrapping_sub(first.timestamp)
            }
        };
        if let Some(descriptor) = first.vp8 {
            if let Some(picture_id) = descriptor.picture_id {
                self.picture_id_offset = self.picture_id.wrapping_add(1).wrapping_sub(picture_id);
            }
            if let Some(tl0_pic_idx) = descriptor.tl0_pic_idx {
                self.tl0_offset = self.tl0_pic_idx.wrapping_add(1).wrapping_sub(tl0_pic_idx);
            }
        }
    }

    /// What a packet of the anchored source becomes. `None`: it is older than the switch.
    pub fn rewrite(&mut self, now: Instant, packet: Fields) -> Option<Rewritten> {
        if packet.sequence < self.floor {
            return None;
        }
        let sequence = packet.sequence.wrapping_add_signed(self.sequence_offset);
        let timestamp = packet.timestamp.wrapping_add(self.timestamp_offset);
        let is_newest = sequence > self.sequence;
        let vp8 = packet.vp8.map(|descriptor| {
            let picture_id = descriptor.picture_id.map(|picture_id| {
                let mask = if descriptor.wide_picture_id { 0x7fff } else { 0x7f };
                picture_id.wrapping_add(self.picture_id_offset) & mask
            });
            let tl0_pic_idx = descriptor.tl0_pic_idx.map(|index| index.wrapping_add(self.tl0_offset));
            if is_newest {
                self.picture_id = picture_id.unwrap_or(self.picture_id);
                self.tl0_pic_idx = tl0_pic_idx.unwrap_or(self.tl0_pic_idx);
            }
            Vp8Rewritten {
                picture_id,
                tl0_pic_idx,
            }
        });
        if is_newest {
            self.sequence = sequence;
            self.newest = Some((timestamp, now));
        }
        Some(Rewritten {
            sequence,
            timestamp,
            marker: packet.marker,
            vp8,
            dependency: None,
        })
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use super::*;

    fn vp8(picture_id: u16, tl0: u8) -> Option<vp8::Descriptor> {
        let [high, low] = picture_id.to_be_bytes();
        vp8::Descriptor::parse(&[0x90, 0xe0, 0x80 | high, low, tl0, 0x20, 0])
    }

    fn fields(sequence: u64, timestamp: u32, picture_id: u16, tl0: u8) -> Fields {
        Fields {
            sequence,
            timestamp,
            marker: false,
            vp8: vp8(picture_id, tl0),
        }
    }

    #[test]
    fn a_switch_continues_the_stream() {
        let start = Instant::now();
        let mut rewriter = Rewriter::new(99);
        rewriter.switch(start, 90_000, fields(70_000, 1_000, 0x7fff, 255));
        let first = rewriter.rewrite(start, fields(70_000, 1_000, 0x7fff, 255)).unwrap();
        assert_eq!(first.sequence, 100);
        assert_eq!(first.timestamp, 1_000);
        assert_eq!(
            first.vp8,
            Some(Vp8Rewritten {
                picture_id: Some(1),
                tl0_pic_idx: Some(1)
            })
        );
        let second = rewriter.rewrite(start, fields(70_001, 4_000, 0, 0)).unwrap();
        assert_eq!(second.sequence, 101);
        assert_eq!(
            second.vp8,
            Some(Vp8Rewritten {
                picture_id: Some(2),
                tl0_pic_idx: Some(2)
            })
        );

        // Another layer, 100 ms later, with numbers of its own.
        let later = start + Duration::from_millis(100);
        rewriter.switch(later, 90_000, fields(5, 4_000_000_000, 77, 9));
        let third = rewriter.rewrite(later, fields(5, 4_000_000_000, 77, 9)).unwrap();
        assert_eq!(third.sequence, 102);
        assert_eq!(third.timestamp, 4_000 + 9_000);
        assert_eq!(
            third.vp8,
            Some(Vp8Rewritten {
                picture_id: Some(3),
                tl0_pic_idx: Some(3)
            })
        );
        assert_eq!(
            rewriter.rewrite(later, fields(4, 3_999_997_000, 76, 8)),
            None,
            "older than the switch"
        );
    }

    #[test]
    fn loss_and_reordering_of_the_source_stay_visible() {
        let now = Instant::now();
        let mut rewriter = Rewriter::new(0);
        rewriter.switch(
            now,
            48_000,
            Fields {
                sequence: 10,
                timestamp: 0,
                marker: false,
                vp8: None,
            },
        );
        let sent: Vec<u64> = [10, 12, 11, 15]
            .into_iter()
            .filter_map(|sequence| {
                rewriter.rewrite(
                    now,
                    Fields {
                        sequence,
                        timestamp: 0,
                        marker: false,
                        vp8: None,
                    },
                )
            })
            .map(|rewritten| rewritten.sequence)
            .collect();
        assert_eq!(sent, [1, 3, 2, 6]);
    }

    #[test]
    fn a_timestamp_never_stands_still_at_a_switch() {
        let now = Instant::now();
        let mut rewriter = Rewriter::new(0);
        rewriter.switch(
            now,
            90_000,
            Fields {
                sequence: 1,
                timestamp: 500,
                marker: false,
                vp8: None,
            },
        );
        rewriter.rewrite(
            now,
            Fields {
                sequence: 1,
                timestamp: 500,
                marker: false,
                vp8: None,
            },
        );
        rewriter.switch(
            now,
            90_000,
            Fields {
                sequence: 1,
                timestamp: 7,
                marker: false,
                vp8: None,
            },
        );
        let next = rewriter
            .rewrite(
                now,
                Fields {
                    sequence: 1,
                    timestamp: 7,
                    marker: false,
                    vp8: None,
                },
            )
            .unwrap();
        assert_eq!(next.timestamp, 500 + 900);
    }
}
