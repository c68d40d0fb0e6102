//! Synthetic media, and the ledger of what arrived.
//!
//! Each packet carries a [`Mark`]: who sent it, on which layer, in which frame. So a receiver can tell not only that something
//! arrived, but that it is what should have arrived. The VP8 payloads have valid descriptors (RFC 7741) and frame headers
//! (RFC 6386 section 9.1); what follows is filler, which no forwarder looks at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use str0m::media::{Mid, Rid};
use str0m::rtp::Vp8Descriptor;

/// Where a packet comes from, written into its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The sender's number.
    pub sender: u32,
    /// Which simulcast layer, lowest 0; of audio 0.
    pub layer: u8,
    /// Which frame of that layer.
    pub frame: u32,
}

const MAGIC: [u8; 4] = *b"mark";
const MARK_BYTES: usize = 13;

impl Mark {
    fn write(self, payload: &mut Vec<u8>) {
        payload.extend_from_slice(&MAGIC);
        payload.extend_from_slice(&self.sender.to_be_bytes());
        payload.push(self.layer);
        payload.extend_from_slice(&self.frame.to_be_bytes());
    }

    /// Finds the mark in a payload. It stands behind headers of different lengths.
    pub fn find(payload: &[u8]) -> Option<Self> {
        let at = payload
            .windows(MAGIC.len())
            .take(40)
            .position(|window| window == MAGIC)?;
        let bytes = payload.get(at..at + MARK_BYTES)?;
        Some(Self {
            sender: u32::from_be_bytes(bytes[4..8].try_into().ok()?),
            layer: bytes[8],
            frame: u32::from_be_bytes(bytes[9..13].try_into().ok()?),
        })
    }
}

/// Sound or picture to send.
#[derive(Debug, Clone)]
pub struct Source {
    /// The m-line to send on.
    pub mid: Mid,
    /// Who sends.
    pub sender: u32,
    /// Its encodings: one, or the simulcast layers, lowest first.
    pub layers: Vec<Layer>,
    /// Opus, not VP8.
    pub audio: bool,
    /// When the next frame is due.
    pub due: Instant,
    frame: u32,
    next_level: i8,
}

/// One encoding of a [`Source`].
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its RID; none: the only one.
    pub rid: Option<Rid>,
    /// Packets in a frame.
    packets: usize,
    /// Bytes in a packet's payload.
    bytes: usize,
    sequence: u64,
    timestamp: u32,
    picture_id: u16,
    tl0: u8,
    key_wanted: bool,
}

/// A packet to send.
#[derive(Debug)]
pub struct OutPacket {
    /// Extended sequence number, below 65,536 at first.
    pub sequence: u64,
    /// RTP timestamp.
    pub timestamp: u32,
    /// The last of its frame.
    pub marker: bool,
    /// Audio level in -dBov for audio.
    pub level: Option<i8>,
    /// The payload.
    pub payload: Vec<u8>,
}

const AUDIO_FRAME: Duration = Duration::from_millis(20);
const VIDEO_FRAME: Duration = Duration::from_millis(33);

impl Source {
    /// A microphone.
    pub fn audio(mid: Mid, sender: u32, now: Instant) -> Self {
        Self {
            mid,
            sender,
            layers: vec![Layer::new(None, 1, 90)],
            audio: true,
            due: now,
            frame: 0,
            next_level: -20,
        }
    }

    /// A camera; without RIDs a single encoding.
    pub fn video(mid: Mid, sender: u32, rids: &[&str], now: Instant) -> Self {
        let sizes = [(1, 300), (2, 700), (3, 1100)];
        let layers = match rids {
            [] => vec![Layer::new(None, 2, 900)],
            rids => rids
                .iter()
                .zip(sizes)
                .map(|(rid, (packets, bytes))| Layer::new(Some(Rid::from(*rid)), packets, bytes))
                .collect(),
        };
        Self {
            mid,
            sender,
            layers,
            audio: false,
            due: now,
            frame: 0,
            next_level: 0,
        }
    }

    /// A receiver asks for a key frame of one layer, or of the only one.
    pub fn want_key_frame(&mut self, rid: Option<Rid>) {
        for layer in &mut self.layers {
            if rid.is_none() || layer.rid == rid {
                layer.key_wanted = true;
            }
        }
    }

    /// The packets of the frame that is due now, one list for each layer; sets when the next is due.
    pub fn next_frame(&mut self, now: Instant) -> Vec<(Option<Rid>, Vec<OutPacket>)> {
        let interval = if self.audio { AUDIO_FRAME } else { VIDEO_FRAME };
        // A machine that is too busy skips frames, as an encoder does, rather than sending them in a burst.
        self.due = (self.due + interval).max(now);
        self.frame += 1;
        let (audio, sender, frame, level) = (self.audio, self.sender, self.frame, self.next_level);
        self.layers
            .iter_mut()
            .enumerate()
            .map(|(index, layer)| {
                let mark = Mark {
                    sender,
                    layer: u8::try_from(index).unwrap_or(u8::MAX),
                    frame,
                };
                (
                    layer.rid,
                    if audio {
                        layer.opus(mark, level)
                    } else {
                        layer.vp8(mark)
                    },
                )
            })
            .collect()
    }
}

impl Layer {
    fn new(rid: Option<Rid>, packets: usize, bytes: usize) -> Self {
        // Real encoders begin anywhere; a forwarder that relied on a common start would be wrong.
        Self {
            rid,
            packets,
            bytes,
            sequence: rand::random_range(1..60_000),
            timestamp: rand::random(),
            picture_id: rand::random_range(0..1 << 15),
            tl0: rand::random(),
            key_wanted: true,
        }
    }

    fn opus(&mut self, mark: Mark, level: i8) -> Vec<OutPacket> {
        // TOC byte: CELT, full band, 20 ms, mono, one frame (RFC 6716 section 3.1).
        let mut payload = vec![0xf8];
        mark.write(&mut payload);
        payload.resize(self.bytes, 0x55);
        vec![self.packet(payload, false, Some(level), 960)]
    }

    fn vp8(&mut self, mark: Mark) -> Vec<OutPacket> {
        let key = std::mem::take(&mut self.key_wanted);
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        self.tl0 = self.tl0.wrapping_add(1);
        let [high, low] = self.picture_id.to_be_bytes();
        (0..self.packets)
            .map(|index| {
                let start = if index == 0 { 0x10 } else { 0 };
                // X and perhaps S; then I, L and T; the 15-bit picture id; TL0PICIDX; TID 0.
                let mut payload = vec![0x80 | start, 0xe0, 0x80 | high, low, self.tl0, 0];
                if index == 0 {
                    // The frame tag: bit 0 clear for a key frame, bit 4 for one that is shown.
                    payload.extend_from_slice(&[if key { 0x10 } else { 0x11 }, 0x02, 0x00]);
                    if key {
                        payload.extend_from_slice(&[0x9d, 0x01, 0x2a, 0x80, 0x02, 0xe0, 0x01]);
                    }
                }
                mark.write(&mut payload);
                payload.resize(self.bytes, 0xaa);
                let last = index + 1 == self.packets;
                self.packet(payload, last, None, if last { 3_000 } else { 0 })
            })
            .collect()
    }

    fn packet(&mut self, payload: Vec<u8>, marker: bool, level: Option<i8>, advance: u32) -> OutPacket {
        let packet = OutPacket {
            sequence: self.sequence,
            timestamp: self.timestamp,
            marker,
            level,
            payload,
        };
        self.sequence += 1;
        self.timestamp = self.timestamp.wrapping_add(advance);
        packet
    }
}

/// A packet that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Extended RTP timestamp.
    pub time: u64,
    /// Who sent it, on which layer.
    pub mark: Mark,
    /// The first packet of a VP8 key frame.
    pub key: bool,
    /// VP8 picture id.
    pub picture_id: Option<u16>,
    /// VP8 TL0PICIDX.
    pub tl0: Option<u8>,
}

/// How many packets of a stream are kept in full; the counters go on.
const LEDGER: usize = 50_000;

/// Everything that arrived on one m-line, by extended sequence number.
#[derive(Clone, Default)]
pub struct Ledger {
    /// Packets.
    pub packets: u64,
    /// Bytes of payload.
    pub bytes: u64,
    /// Packets with a payload that no [`Source`] made.
    pub unmarked: u64,
    /// Key frames begun.
    pub key_frames: u64,
    /// Packets of each sender and layer.
    pub from: BTreeMap<(u32, u8), u64>,
    /// SSRCs seen.
    pub ssrcs: BTreeSet<u32>,
    arrived: BTreeMap<u64, Arrived>,
}

impl fmt::Debug for Ledger {
    /// In short: failing tests print it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("packets", &self.packets)
            .field("unmarked", &self.unmarked)
            .field("key_frames", &self.key_frames)
            .field("from", &self.from)
            .field("ssrcs", &self.ssrcs)
            .field("gaps", &self.gaps())
            .field("latest", &self.latest())
            .finish_non_exhaustive()
    }
}

impl Ledger {
    /// An empty one.
    pub const fn new() -> Self {
        Self {
            packets: 0,
            bytes: 0,
            unmarked: 0,
            key_frames: 0,
            from: BTreeMap::new(),
            ssrcs: BTreeSet::new(),
            arrived: BTreeMap::new(),
        }
    }

    /// Notes a packet.
    pub fn enter(&mut self, sequence: u64, time: u64, ssrc: u32, audio: bool, payload: &[u8]) {
        self.packets += 1;
        self.bytes += payload.len() as u64;
        self.ssrcs.insert(ssrc);
        let Some(mark) = Mark::find(payload) else {
            self.unmarked += 1;
            return;
        };
        *self.from.entry((mark.sender, mark.layer)).or_default() += 1;
        let descriptor = if audio {
            None
        } else {
            Vp8Descriptor::parse(payload).ok()
        };
        let key = descriptor.is_some_and(|descriptor| descriptor.starts_keyframe(payload));
        self.key_frames += u64::from(key);
        if self.arrived.len() < LEDGER {
            let arrived = Arrived {
                time,
                mark,
                key,
                picture_id: descriptor.and_then(|descriptor| descriptor.picture_id()),
                tl0: descriptor.and_then(|descriptor| descriptor.tl0_pic_idx()),
            };
            self.arrived.insert(sequence, arrived);
        }
    }

    /// Packets of one sender, all layers.
    pub fn packets_from(&self, sender: u32) -> u64 {
        self.from
            .iter()
            .filter(|((from, _), _)| *from == sender)
            .map(|(_, packets)| packets)
            .sum()
    }

    /// Packets of one sender's layer.
    pub fn packets_of(&self, sender: u32, layer: u8) -> u64 {
        self.from.get(&(sender, layer)).copied().unwrap_or_default()
    }

    /// What arrived, in the order of the sequence numbers.
    pub fn in_order(&self) -> impl Iterator<Item = (u64, Arrived)> + '_ {
        self.arrived.iter().map(|(sequence, arrived)| (*sequence, *arrived))
    }

    /// The layer of the packet with the highest sequence number.
    pub fn latest(&self) -> Option<Arrived> {
        self.arrived.last_key_value().map(|(_, arrived)| *arrived)
    }

    /// Sequence numbers between the first and the last that never arrived.
    pub fn gaps(&self) -> u64 {
        match (self.arrived.first_key_value(), self.arrived.last_key_value()) {
            (Some((first, _)), Some((last, _))) => last - first + 1 - self.arrived.len() as u64,
            _ => 0,
        }
    }

    /// Steps from one packet to the next, in the order of sequence numbers, at which the timestamp goes back, or forward by more
    /// than `limit` ticks.
    pub fn time_jumps(&self, limit: u64) -> Vec<(Arrived, Arrived)> {
        let packets: Vec<_> = self.arrived.values().copied().collect();
        packets
            .windows(2)
            .filter(|pair| pair[1].time < pair[0].time || pair[1].time - pair[0].time > limit)
            .map(|pair| (pair[0], pair[1]))
            .collect()
    }

    /// Frames (by timestamp) whose picture id is not the one after that of the frame before.
    pub fn picture_id_jumps(&self) -> Vec<(Arrived, Arrived)> {
        let packets: Vec<_> = self.arrived.values().copied().collect();
        packets
            .windows(2)
            .filter(|pair| {
                let step = u16::from(pair[1].time != pair[0].time);
                match (pair[0].picture_id, pair[1].picture_id) {
                    (Some(before), Some(after)) => after != (before + step) & 0x7fff,
                    _ => true,
                }
            })
            .map(|pair| (pair[0], pair[1]))
            .collect()
    }

    /// Places in the order of sequence numbers at which another sender or layer begins: the packet before and the first one after.
    pub fn switches(&self) -> Vec<(Arrived, Arrived)> {
        let packets: Vec<_> = self.arrived.values().copied().collect();
        packets
            .windows(2)
            .filter(|pair| (pair[0].mark.sender, pair[0].mark.layer) != (pair[1].mark.sender, pair[1].mark.layer))
            .map(|pair| (pair[0], pair[1]))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(frames: usize) -> Ledger {
        let now = Instant::now();
        let mut source = Source::video(Mid::from("0"), 7, &[], now);
        let mut ledger = Ledger::default();
        for _ in 0..frames {
            for (_, packets) in source.next_frame(now) {
                for packet in packets {
                    ledger.enter(packet.sequence, u64::from(packet.timestamp), 1, false, &packet.payload);
                }
            }
        }
        ledger
    }

    #[test]
    fn what_a_camera_sends_is_consistent() {
        let ledger = ledger(10);
        assert_eq!((ledger.packets, ledger.packets_of(7, 0), ledger.unmarked), (20, 20, 0));
        assert_eq!(ledger.key_frames, 1);
        assert_eq!(ledger.gaps(), 0);
        assert!(ledger.time_jumps(3_000).is_empty());
        assert!(ledger.picture_id_jumps().is_empty());
        assert!(ledger.switches().is_empty());
    }

    #[test]
    fn a_lost_frame_is_seen() {
        let mut ledger = ledger(10);
        let middle: Vec<u64> = ledger.arrived.keys().copied().skip(8).take(2).collect();
        ledger.arrived.retain(|sequence, _| !middle.contains(sequence));
        assert_eq!(ledger.gaps(), 2);
        assert_eq!(ledger.picture_id_jumps().len(), 1);
        assert_eq!(ledger.time_jumps(3_000).len(), 1);
    }
}
