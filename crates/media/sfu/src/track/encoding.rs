//! What arrives of a track: encodings in one codec each, of which each has one stream for each simulcast layer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use signalbox_protocol::room::TrackInfo;

use crate::allocator::{Layer, Rung};
use crate::codec::Codec;
use crate::connections::Key;
use crate::layers::{Frame, Reader};
use crate::packet::{MediaPacket, Mid, Rid};

use super::key_frames::KeyFrames;
use super::meter::Meter;

/// A stream without a packet for so long is not active: its publisher has turned it off.
const STREAM_TIMEOUT: Duration = Duration::from_millis(1_000);

/// Simulcast layers that are told apart; packets of more are dropped.
const MAX_STREAMS: usize = 4;

/// Sequence numbers that a source may leave out, or go back, before that is taken for a new one (RFC 3550 appendix A.1).
const MAX_STEP: u64 = 3_000;

/// Packets that are kept of a stream while somebody waits for its key frame, whose first packet may be lost and come last. Higher: larger
/// key frames can be begun with so. Lower: less memory.
const MAX_KEPT: usize = 128;

/// Packets in a row that must agree that the source is another one.
const MIN_SEQUENTIAL: u32 = 3;

/// One encoding of a track.
pub struct Encoding {
    /// The connection that its packets arrive on.
    pub source: Key,
    /// The m-line there.
    pub mid: Mid,
    /// Its codec, as soon as it is known.
    pub codec: Option<Codec>,
    /// Its simulcast layers, lowest first; one without a RID if there are none.
    pub streams: Vec<Stream>,
}

/// One incoming stream.
pub struct Stream {
    /// The simulcast layer's id.
    pub rid: Option<Rid>,
    /// What is known from its packets.
    pub reader: Reader,
    /// A number that changes when the publisher starts it anew.
    pub source: u32,
    /// When key frames are asked for.
    pub key_frames: KeyFrames,
    meter: Meter,
    last_packet: Option<Instant>,
    ssrc: Option<u32>,
    /// The SSRC before.
    former_ssrc: Option<u32>,
    highest: Option<u64>,
    /// Packets that came while somebody waited for a key frame, oldest first; the highest number that came and is not among them.
    kept: VecDeque<(Arc<MediaPacket>, Frame)>,
    passed: u64,
    /// SSRC and number of the last packet that did not fit, and how many have followed each other so.
    stray: Option<(u32, u64, u32)>,
}

/// What a packet of a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// One of it.
    Expected,
    /// The first of a publisher's new start.
    Restarted,
    /// Not one of it, or of what it was before it started anew.
    Stray,
}

impl Encoding {
    /// An encoding whose layers have been said to be these, lowest first.
    pub fn new(source: Key, mid: Mid, codec: Option<Codec>, rids: impl IntoIterator<Item = Rid>) -> Self {
        Self {
            source,
            mid,
            codec,
            streams: rids
                .into_iter()
                .take(MAX_STREAMS)
                .map(|rid| Stream::new(Some(rid)))
                .collect(),
        }
    }

    /// Where the stream of a simulcast layer is among the others, and whether it was not there before; none: there are too many.
    pub fn stream(&mut self, rid: Option<Rid>) -> Option<(usize, bool)> {
        if let Some(index) = self.streams.iter().position(|stream| stream.rid == rid) {
            return Some((index, false));
        }
        if self.streams.len() >= MAX_STREAMS {
            return None;
        }
        // A publisher that announced its layers nowhere.
        let rank = |rid: Option<Rid>| super::rank(rid.as_ref().map_or("", Rid::as_str));
        let is_higher = |stream: &Stream| rank(stream.rid) > rank(rid);
        let index = self.streams.iter().position(is_higher).unwrap_or(self.streams.len());
        self.streams.insert(index, Stream::new(rid));
        Some((index, true))
    }

    /// Whether its layers are streams of their own.
    pub fn is_simulcast(&self) -> bool {
        self.streams.len() > 1
    }

    /// The stream that a layer is in, and which layers of that stream are wanted for it.
    pub fn locate(&self, layer: Layer) -> (usize, Layer) {
        if self.is_simulcast() {
            let within = Layer {
                spatial: u8::MAX,
                temporal: layer.temporal,
            };
            (usize::from(layer.spatial), within)
        } else {
            (0, layer)
        }
    }

    /// The highest layer that arrives of a stream.
    pub fn top(&self, now: Instant, stream: usize) -> Layer {
        let rungs = self
            .streams
            .get(stream)
            .map(|stream| stream.meter.rungs(now, &stream.reader));
        let active = rungs.into_iter().flatten().filter(|rung| rung.is_active);
        active.fold(
            Layer {
                spatial: 0,
                temporal: 0,
            },
            |top, rung| Layer {
                spatial: top.spatial.max(rung.layer.spatial),
                temporal: top.temporal.max(rung.layer.temporal),
            },
        )
    }

    /// The highest spatial layer that there is, whether it arrives at present or not.
    pub fn highest(&self, now: Instant, info: &TrackInfo) -> u8 {
        self.ladder(now, info).last().map_or(0, |rung| rung.layer.spatial)
    }

    /// The layers that there are, ascending.
    pub fn ladder(&self, now: Instant, info: &TrackInfo) -> Vec<Rung> {
        let mut rungs = Vec::new();
        for (index, stream) in self.streams.iter().enumerate() {
            let is_active = stream.is_active(now);
            let said = stream
                .rid
                .and_then(|rid| info.layers.iter().find(|layer| layer.rid == rid.as_str()));
            let said_bps = said.map_or(0, |said| u64::from(said.bitrate));
            let measured = stream.meter.rungs(now, &stream.reader);
            let top = measured.iter().map(|rung| rung.layer.spatial).max().unwrap_or_default();
            for mut rung in measured {
                rung.is_active &= is_active;
                let (place, of) = if self.is_simulcast() {
                    (index, self.streams.len() - 1)
                } else {
                    (usize::from(rung.layer.spatial), usize::from(top))
                };
                let is_top = rung.layer.spatial == top;
                if self.is_simulcast() {
                    // All spatial layers of one of several streams go together.
                    if !is_top {
                        continue;
                    }
                    rung.layer.spatial = index as u8;
                }
                if rung.width == 0 {
                    // The usual ladder: each layer has half the size of the next.
                    let halvings = of.saturating_sub(place) as u32;
                    (rung.width, rung.height) = match said {
                        Some(said) if said.width > 0 && self.is_simulcast() => (said.width, said.height),
                        _ => (info.width >> halvings, info.height >> halvings),
                    };
                }
                if rung.bps == 0 {
                    rung.bps = said_bps;
                }
                rungs.push(rung);
            }
        }
        rungs
    }
}

impl Stream {
    fn new(rid: Option<Rid>) -> Self {
        Self {
            rid,
            reader: Reader::default(),
            source: 0,
            key_frames: KeyFrames::default(),
            meter: Meter::default(),
            last_packet: None,
            ssrc: None,
            former_ssrc: None,
            highest: None,
            kept: VecDeque::new(),
            passed: 0,
            stray: None,
        }
    }

    /// Whether packets of it arrive.
    pub fn is_active(&self, now: Instant) -> bool {
        self.last_packet
            .is_some_and(|last| now.saturating_duration_since(last) < STREAM_TIMEOUT)
    }

    /// The highest number that has come; none: nothing has.
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Takes a packet's SSRC and number.
    pub fn arrive(&mut self, now: Instant, packet: &MediaPacket) -> Arrival {
        let is_new = self.ssrc.is_none();
        let is_known = self.ssrc == Some(packet.ssrc);
        let fits = is_known
            && self
                .highest
                .is_none_or(|highest| highest.abs_diff(packet.sequence) <= MAX_STEP);
        if fits {
            self.stray = None;
            self.highest = self.highest.max(Some(packet.sequence));
            self.last_packet = Some(now);
            return Arrival::Expected;
        }
        let never_seen = !is_known && self.former_ssrc != Some(packet.ssrc);
        let count = match self.stray {
            Some((ssrc, last, count)) if ssrc == packet.ssrc && packet.sequence == last.wrapping_add(1) => count + 1,
            _ => 1,
        };
        self.stray = Some((packet.ssrc, packet.sequence, count));
        if !is_new && !never_seen && count < MIN_SEQUENTIAL {
            return Arrival::Stray;
        }
        if !is_known {
            self.former_ssrc = self.ssrc.replace(packet.ssrc);
        }
        self.stray = None;
        self.highest = Some(packet.sequence);
        self.last_packet = Some(now);
        self.reader = Reader::default();
        self.kept.clear();
        self.passed = 0;
        Arrival::Restarted
    }

    /// Whether a packet is the one behind the highest that has come.
    pub fn is_followed_by(&self, packet: &MediaPacket) -> bool {
        self.ssrc == Some(packet.ssrc) && self.highest.is_some_and(|highest| highest + 1 == packet.sequence)
    }

    /// Whether all packets that are newer than one can still be had.
    pub fn may_begin_at(&self, sequence: u64) -> bool {
        sequence >= self.passed
    }

    /// Keeps a packet for those who may begin with one before it, since it has come late.
    pub fn keep(&mut self, packet: &Arc<MediaPacket>, frame: Option<&Frame>) {
        let Some(frame) = frame else {
            return;
        };
        if self.kept.len() >= MAX_KEPT
            && let Some((oldest, _)) = self.kept.pop_front()
        {
            self.passed = self.passed.max(oldest.sequence);
        }
        self.kept.push_back((packet.clone(), frame.clone()));
    }

    /// Nobody waits for a key frame, now that this packet has come: neither it nor those before it can be had again.
    pub fn forget_kept(&mut self, sequence: u64) {
        self.kept.clear();
        self.passed = self.passed.max(sequence);
    }

    /// The packets that are newer than one and have come before it, in their order.
    pub fn newer(&self, sequence: u64) -> Vec<(Arc<MediaPacket>, Frame)> {
        let newer = self.kept.iter().filter(|(packet, _)| packet.sequence > sequence);
        let mut newer: Vec<(Arc<MediaPacket>, Frame)> = newer.cloned().collect();
        newer.sort_by_key(|(packet, _)| packet.sequence);
        newer
    }

    /// Counts a packet that was read. Returns whether its layer was not there before.
    pub fn measure(&mut self, now: Instant, frame: &Frame, bytes: usize) -> bool {
        self.meter.add(now, frame, bytes)
    }
}

#[cfg(test)]
mod tests;
