//! Makes one continuous stream out of packets of changing sources: sequence numbers, timestamps, picture ids, frame numbers.
//!
//! A receiver sees one SSRC for as long as an m-line lives, while what is sent on it changes: another simulcast layer, fewer frames, the
//! same track after a pause, another participant's track in the same slot. At each change of the source, [`Rewriter::anchor`] puts the
//! new one behind what was sent last; after that every packet is moved by the same offsets. What is left out on purpose
//! ([`Rewriter::skip`]) leaves no gap, since later packets move down. What the source has lost does, so that the receiver knows and
//! asks for it: such gaps are remembered with the numbers that are theirs, until the packet comes late, or turns out to be one that is
//! left out, or cannot come any more: then [`Rewriter::next_empty`] says which number has to be filled with an empty packet.

mod gaps;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::layers::Pictures;
use crate::track::selection::Cut;
use gaps::Gaps;

/// The shortest step of the timestamp at a change of the source. Higher: frames are shown late after it. Lower: two pictures may come
/// at what is almost the same time.
const MIN_STEP: Duration = Duration::from_millis(10);

/// How far back a timestamp may go from one packet to the next: pictures that are sent in another order than they are shown. What is
/// further back is a clock that was set.
const MAX_BACK: Duration = Duration::from_secs(1);

/// How far a timestamp may run ahead of the time that passed, before it is taken for a clock that was set.
const MAX_AHEAD: Duration = Duration::from_secs(10);

/// Numbers in a row that are kept free for packets that may come late. A longer loss is not shown to the receiver: it would ask for
/// more than anybody still has.
const MAX_GAP: u64 = 512;

/// What a packet's fields become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// The sequence number, extended past 16 bits.
    pub sequence: u64,
    /// The RTP timestamp.
    pub timestamp: u32,
    /// Whether it is the last packet of a frame for this receiver, or the first of a talkspurt.
    pub marker: bool,
    /// The numbers in the payload, if it has any.
    pub pictures: PicturePatch,
    /// The dependency descriptor, if the packet has one (AV1 RTP payload format, appendix A).
    pub dependency: Option<Arc<[u8]>>,
}

/// What the numbers of a payload become, and where they are (RFC 7741 section 4.2, RFC 9628 section 4.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PicturePatch {
    /// With the new numbers.
    pictures: Pictures,
}

impl PicturePatch {
    /// The picture id.
    pub fn picture_id(&self) -> Option<u16> {
        self.pictures.id
    }

    /// The running index of base-layer frames.
    pub fn tl0_pic_idx(&self) -> Option<u8> {
        self.pictures.tl0
    }

    /// Writes the numbers into a payload. A picture id stays as wide as it was.
    pub fn apply(&self, payload: &mut [u8]) {
        let at = usize::from(self.pictures.id_at);
        match (self.pictures.id, payload.get_mut(at..)) {
            (Some(id), Some([high, low, ..])) if self.pictures.is_wide => [*high, *low] = (id | 0x8000).to_be_bytes(),
            (Some(id), Some([narrow, ..])) if !self.pictures.is_wide => *narrow = (id & 0x7f) as u8,
            _ => {}
        }
        let at = usize::from(self.pictures.tl0_at);
        if let (Some(tl0), Some(field)) = (self.pictures.tl0, payload.get_mut(at)) {
            *field = tl0;
        }
    }
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
    /// RTP clock ticks per second.
    pub clock_rate: u32,
    /// The source's numbers in the payload.
    pub pictures: Pictures,
    /// The source's frame number, if it has dependency descriptors.
    pub frame_number: Option<u16>,
}

/// Where a packet of the anchored source stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Newer than all before.
    New,
    /// It was missing. With what was sent when that was seen.
    Late(Cut),
    /// It was there before, or is older than the anchor, or its place was given up: there is nothing to be done with it.
    Past,
}

/// The state of one outgoing stream.
#[derive(Debug, Clone)]
pub struct Rewriter {
    /// The highest sequence number used; before the first packet, the one before it.
    sequence: u64,
    /// The timestamp that the newest packet got, or would have got had it not been left out, and when that was.
    newest: Option<(u32, Instant)>,
    picture_id: u16,
    tl0: u8,
    frame_number: Option<u16>,
    anchor: Option<Anchor>,
    /// How the numbers of its first source are moved, if another node has begun with it.
    begun: Option<Begun>,
    gaps: Gaps,
}

/// How a stream's numbers follow from its source's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// What is added to sequence numbers, modulo 2¹⁶.
    pub sequence_offset: u16,
    /// What is added to timestamps.
    pub timestamp_offset: u32,
}

/// A stream whose numbers begin anew after so few more is not gone on with elsewhere: its receiver would have to see that happen (RFC 3711 section 3.3.1).
const NEAR_ROLLOVER: u16 = 0xf000;

/// How the numbers of the present source are moved.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    /// Whose: a number of the caller's.
    source: u32,
    /// The source's sequence number after the highest.
    next: u64,
    /// The source's timestamp in that packet, and when it came.
    timestamp: (u32, Instant),
    /// The source's picture id in that packet, to count the pictures that are left out.
    picture: Option<u16>,
    sequence_offset: i64,
    offsets: Offsets,
}

/// How the other numbers are moved.
#[derive(Debug, Clone, Copy, Default)]
struct Offsets {
    timestamp: u32,
    picture_id: u16,
    tl0: u8,
    frame_number: u16,
}

impl Rewriter {
    /// A new stream. `start` picks where its sequence numbers begin; only its low 15 bits count, so that the first rollover is far
    /// off (RFC 3711 section 3.3.1).
    pub fn new(start: u16) -> Self {
        Self {
            sequence: u64::from(start & 0x7fff),
            newest: None,
            picture_id: 0,
            tl0: 0,
            frame_number: None,
            anchor: None,
            begun: None,
            gaps: Gaps::default(),
        }
    }

    /// A stream that another node has begun: its first source goes on with the numbers that it has.
    pub fn going_on(begun: Begun) -> Self {
        Self {
            begun: Some(begun),
            ..Self::new(0)
        }
    }

    /// What another node has to know to go on with it; none: it sends nothing, or is better begun anew.
    pub fn begun(&self) -> Option<Begun> {
        let anchor = self.anchor.filter(|_| (self.sequence as u16) < NEAR_ROLLOVER)?;
        Some(Begun {
            sequence_offset: anchor.sequence_offset as u16,
            timestamp_offset: anchor.offsets.timestamp,
        })
    }

    /// The source that is sent, or was sent last.
    pub fn source(&self) -> Option<u32> {
        self.anchor.map(|anchor| anchor.source)
    }

    /// The track is not this stream's any more: whatever comes next is another source.
    pub fn release(&mut self) {
        self.gaps.give_up();
        self.anchor = None;
        self.begun = None;
    }

    /// Anchors a source, of which this is the first packet to be sent. The same source as before keeps its timestamps: it was paused.
    pub fn anchor(&mut self, now: Instant, source: u32, first: &Fields) {
        self.gaps.give_up();
        let former = self.anchor.filter(|anchor| anchor.source == source);
        let kept = former.map(|anchor| anchor.offsets.timestamp);
        let is_ahead = |offset: &u32| {
            let timestamp = first.timestamp.wrapping_add(*offset);
            self.newest.is_none_or(|(newest, at)| {
                let is_forward = (timestamp.wrapping_sub(newest) as i32) > 0;
                is_forward && is_plausible(first.clock_rate, newest, timestamp, now, at)
            })
        };
        let mut offsets = Offsets {
            timestamp: kept.filter(is_ahead).unwrap_or_else(|| self.next_offset(now, first)),
            ..Offsets::default()
        };
        if let Some(begun) = self.begun.take() {
            let sequence = (first.sequence as u16).wrapping_add(begun.sequence_offset);
            self.sequence = u64::from(sequence.max(1)) - 1;
            offsets.timestamp = begun.timestamp_offset;
        }
        if let Some(id) = first.pictures.id {
            offsets.picture_id = self.picture_id.wrapping_add(1).wrapping_sub(id);
        }
        if let Some(tl0) = first.pictures.tl0 {
            offsets.tl0 = self.tl0.wrapping_add(1).wrapping_sub(tl0);
        }
        // A first source keeps its numbers, which saves rewriting its descriptors.
        if let (Some(number), Some(newest)) = (first.frame_number, self.frame_number) {
            offsets.frame_number = newest.wrapping_add(1).wrapping_sub(number);
        }
        self.anchor = Some(Anchor {
            source,
            next: first.sequence,
            timestamp: (first.timestamp, now),
            picture: first.pictures.id.map(|id| id.wrapping_sub(1)),
            sequence_offset: (self.sequence + 1).wrapping_sub(first.sequence) as i64,
            offsets,
        });
    }

    /// The number and timestamp of an empty packet to be sent before the first one of a new stream. None: the stream has begun.
    pub fn lead_in(&mut self, first: &Fields) -> Option<(u64, u32)> {
        if self.newest.is_some() {
            return None;
        }
        self.sequence += 1;
        Some((self.sequence, first.timestamp))
    }

    /// The offset that puts a timestamp behind what was sent last, by as much time as has passed.
    fn next_offset(&self, now: Instant, packet: &Fields) -> u32 {
        let Some((timestamp, sent)) = self.newest else {
            return 0;
        };
        let passed = now.saturating_duration_since(sent).max(MIN_STEP);
        timestamp
            .wrapping_add(ticks(passed, packet.clock_rate))
            .wrapping_sub(packet.timestamp)
    }

    /// Where a packet of the anchored source stands.
    pub fn place(&self, sequence: u64) -> Place {
        match &self.anchor {
            Some(anchor) if sequence >= anchor.next => Place::New,
            Some(_) => self.gaps.cut(sequence).map_or(Place::Past, Place::Late),
            None => Place::Past,
        }
    }

    /// What a packet of the anchored source becomes. `cut` is what was sent until then, for the packets that are missing
    /// before it. `None`: its place is past.
    pub fn send(&mut self, now: Instant, packet: &Fields, cut: Cut) -> Option<Rewritten> {
        self.gaps.earn();
        let anchor = self.anchor?;
        if packet.sequence < anchor.next {
            let timestamp = packet.timestamp.wrapping_add(anchor.offsets.timestamp);
            let late = self.gaps.take(packet.sequence, timestamp)?;
            let offsets = Offsets {
                picture_id: late.picture_offset,
                ..anchor.offsets
            };
            let rewritten = offsets.apply(packet, late.sequence);
            self.note_sent(packet, &rewritten, anchor.offsets);
            return Some(rewritten);
        }
        let anchor = self.advance(now, packet, cut)?;
        let sequence = packet.sequence.wrapping_add_signed(anchor.sequence_offset);
        let rewritten = anchor.offsets.apply(packet, sequence);
        self.sequence = sequence;
        self.note_sent(packet, &rewritten, anchor.offsets);
        Some(rewritten)
    }

    /// Notes the newest numbers that were used, for the next source to go on with. Packets that come late may have them.
    fn note_sent(&mut self, packet: &Fields, sent: &Rewritten, offsets: Offsets) {
        let pictures = &sent.pictures.pictures;
        let half = if pictures.is_wide { 0x4000 } else { 0x40 };
        let is_newer = |id: &u16| id.wrapping_sub(self.picture_id) & (2 * half - 1) < half;
        self.picture_id = pictures.id.filter(is_newer).unwrap_or(self.picture_id);
        let is_newer = |tl0: &u8| tl0.wrapping_sub(self.tl0) < 0x80;
        self.tl0 = pictures.tl0.filter(is_newer).unwrap_or(self.tl0);
        let number = packet
            .frame_number
            .map(|number| number.wrapping_add(offsets.frame_number));
        let is_newer = |number: &u16| {
            self.frame_number
                .is_none_or(|newest| number.wrapping_sub(newest) < 0x8000)
        };
        self.frame_number = number.filter(is_newer).or(self.frame_number);
    }

    /// Leaves out a packet of the anchored source.
    pub fn skip(&mut self, now: Instant, packet: &Fields, cut: Cut) {
        let Some(anchor) = self.anchor else {
            return;
        };
        if packet.sequence < anchor.next {
            let timestamp = packet.timestamp.wrapping_add(anchor.offsets.timestamp);
            if let Some(late) = self.gaps.take(packet.sequence, timestamp) {
                self.gaps.close(late.sequence, timestamp);
            }
            return;
        }
        let former = anchor.picture;
        self.advance(now, packet, cut);
        if let Some(anchor) = &mut self.anchor {
            anchor.sequence_offset -= 1;
            // The numbers before it are used up, by packets that may come late.
            self.sequence = packet.sequence.wrapping_add_signed(anchor.sequence_offset);
            if packet.pictures.is_gapless && packet.pictures.id.is_some() && packet.pictures.id != former {
                anchor.offsets.picture_id = anchor.offsets.picture_id.wrapping_sub(1);
            }
        }
    }

    /// Goes on to a packet that is newer than all before: sees what is missing, and whether the source's clock was set.
    fn advance(&mut self, now: Instant, packet: &Fields, cut: Cut) -> Option<Anchor> {
        let missing = packet.sequence - self.anchor?.next;
        let (before, at) = self.anchor?.timestamp;
        let is_set = !is_plausible(packet.clock_rate, before, packet.timestamp, now, at);
        let offset = if is_set {
            Some(self.next_offset(now, packet))
        } else {
            None
        };
        if is_set {
            self.gaps.give_up();
        }
        let anchor = self.anchor.as_mut()?;
        if missing > MAX_GAP || is_set {
            // What is missing has no place here any more.
            anchor.sequence_offset -= missing as i64;
        } else if missing > 0 {
            let first = anchor.next;
            self.gaps.open(gaps::Gap {
                first,
                last: packet.sequence - 1,
                sequence: first.wrapping_add_signed(anchor.sequence_offset),
                timestamp: before.wrapping_add(anchor.offsets.timestamp),
                picture_offset: anchor.offsets.picture_id,
                since: now,
                cut,
            });
        }
        if let Some(offset) = offset {
            anchor.offsets.timestamp = offset;
        }
        anchor.next = packet.sequence + 1;
        anchor.timestamp = (packet.timestamp, now);
        self.newest = Some((packet.timestamp.wrapping_add(anchor.offsets.timestamp), now));
        anchor.picture = packet.pictures.id;
        self.gaps.forget(now);
        self.anchor
    }

    /// The frame number that a packet of the anchored source gets.
    pub fn frame_number(&self, number: u16) -> u16 {
        let offset = self.anchor.map_or(0, |anchor| anchor.offsets.frame_number);
        number.wrapping_add(offset)
    }

    /// The sequence number and timestamp of an empty packet that has to be sent, so that the receiver does not wait for what
    /// cannot come.
    pub fn next_empty(&mut self) -> Option<(u64, u32)> {
        self.gaps.next_empty()
    }
}

impl Offsets {
    fn apply(&self, packet: &Fields, sequence: u64) -> Rewritten {
        let mask = if packet.pictures.is_wide { 0x7fff } else { 0x7f };
        let id = packet.pictures.id.map(|id| id.wrapping_add(self.picture_id) & mask);
        Rewritten {
            sequence,
            timestamp: packet.timestamp.wrapping_add(self.timestamp),
            marker: packet.marker,
            pictures: PicturePatch {
                pictures: Pictures {
                    id,
                    tl0: packet.pictures.tl0.map(|tl0| tl0.wrapping_add(self.tl0)),
                    ..packet.pictures
                },
            },
            dependency: None,
        }
    }
}

/// Whether a clock can have gone from one value to another in the time that has passed.
fn is_plausible(clock_rate: u32, before: u32, after: u32, now: Instant, then: Instant) -> bool {
    let step = i64::from(after.wrapping_sub(before) as i32);
    let ahead = i64::from(ticks(
        now.saturating_duration_since(then).saturating_add(MAX_AHEAD),
        clock_rate,
    ));
    step >= -i64::from(ticks(MAX_BACK, clock_rate)) && step <= ahead
}

fn ticks(time: Duration, clock_rate: u32) -> u32 {
    (time.as_secs_f64() * f64::from(clock_rate)) as u32
}

#[cfg(test)]
mod tests;
