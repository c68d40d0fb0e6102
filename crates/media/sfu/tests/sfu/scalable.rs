//! Streams with layers: made as publishers make them, and looked at as decoders do.

use std::collections::BTreeMap;
use std::sync::Arc;

use signalbox_sfu::layers::bits::BitWriter;
use signalbox_sfu::layers::dependency::{self, Structure};
use signalbox_sfu::layers::vp9;
use signalbox_sfu::vp8;
use str0m::format::Codec;
use str0m::rtp::{Extension, ExtensionMap, ExtensionSerializer, ExtensionValues};

const URI: &str = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";

/// Packets of each frame.
const PARTS: u8 = 2;

/// How a stream is made. All have three temporal layers in the order 0 2 1 2, but H.264, which has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    H264,
    Vp8,
    /// Three spatial layers, payload descriptors.
    Vp9,
    /// Three spatial layers, dependency descriptors, in AV1.
    Av1,
    /// The same in VP9; higher layers need lower ones in key pictures only.
    Vp9KeyOnly,
    /// One spatial layer, dependency descriptors.
    Av1Simulcast,
}

impl Scheme {
    pub fn codec(self) -> Codec {
        match self {
            Self::H264 => Codec::H264,
            Self::Vp8 => Codec::Vp8,
            Self::Vp9 | Self::Vp9KeyOnly => Codec::Vp9,
            Self::Av1 | Self::Av1Simulcast => Codec::Av1,
        }
    }

    pub fn spatial_layers(self) -> u8 {
        match self {
            Self::H264 | Self::Vp8 | Self::Av1Simulcast => 1,
            Self::Vp9 | Self::Av1 | Self::Vp9KeyOnly => 3,
        }
    }

    fn is_described(self) -> bool {
        matches!(self, Self::Av1 | Self::Vp9KeyOnly | Self::Av1Simulcast)
    }

    /// Layer, letters for the decode targets, and references of each template.
    fn templates(self) -> &'static [(u8, u8, &'static str, &'static [u32])] {
        match self {
            Self::Av1Simulcast => &[
                (0, 0, "SSS", &[]),
                (0, 0, "SSS", &[4]),
                (0, 1, "-DS", &[2]),
                (0, 2, "--D", &[1]),
            ],
            Self::Vp9KeyOnly => &[
                (0, 0, "SSSSSSSSS", &[]),
                (0, 0, "SSS------", &[12]),
                (0, 1, "-DS------", &[6]),
                (0, 2, "--D------", &[3]),
                (1, 0, "---SSSSSS", &[1]),
                (1, 0, "---SSS---", &[12]),
                (1, 1, "----DS---", &[6]),
                (1, 2, "-----D---", &[3]),
                (2, 0, "------SSS", &[1]),
                (2, 0, "------SSS", &[12]),
                (2, 1, "-------DS", &[6]),
                (2, 2, "--------D", &[3]),
            ],
            _ => &[
                (0, 0, "SSSSSSSSS", &[]),
                (0, 0, "SSSRRRRRR", &[12]),
                (0, 1, "-DS-RR-RR", &[6]),
                (0, 2, "--D--R--R", &[3]),
                (1, 0, "---SSSSSS", &[1]),
                (1, 0, "---SSSRRR", &[12, 1]),
                (1, 1, "----DS-RR", &[6, 1]),
                (1, 2, "-----D--R", &[3, 1]),
                (2, 0, "------SSS", &[1]),
                (2, 0, "------SSS", &[12, 1]),
                (2, 1, "-------DS", &[6, 1]),
                (2, 2, "--------D", &[3, 1]),
            ],
        }
    }
}

/// One encoder.
pub struct Source {
    scheme: Scheme,
    /// Which encoder it is, in what it sends.
    incarnation: u8,
    picture: u32,
    since_key: u32,
    /// Bytes that each packet has more.
    pub padding: usize,
}

/// A packet to be sent.
pub struct Made {
    pub payload: Vec<u8>,
    pub dependency: Option<Vec<u8>>,
    pub marker: bool,
}

impl Source {
    pub fn new(scheme: Scheme, incarnation: u8) -> Self {
        Self {
            scheme,
            incarnation,
            picture: 0,
            since_key: 0,
            padding: 0,
        }
    }

    /// The packets of the next picture.
    pub fn picture(&mut self, needs_key: bool) -> Vec<Made> {
        if needs_key {
            self.since_key = 0;
        }
        let mut packets = Vec::new();
        for spatial in 0..self.scheme.spatial_layers() {
            for part in 0..PARTS {
                packets.push(self.packet(spatial, part));
            }
        }
        self.picture += 1;
        self.since_key += 1;
        packets
    }

    fn packet(&self, spatial: u8, part: u8) -> Made {
        let layers = self.scheme.spatial_layers();
        let number = self.picture * u32::from(layers) + u32::from(spatial);
        let temporal = if self.scheme == Scheme::H264 {
            0
        } else {
            [0, 2, 1, 2][self.since_key as usize % 4]
        };
        let (is_first, is_last, is_key) = (part == 0, part + 1 == PARTS, self.since_key == 0);
        let [id_high, id_low] = (self.picture as u16 | 0x8000).to_be_bytes();
        let tl0 = (self.picture / 4) as u8;
        let mut payload = match self.scheme {
            Scheme::H264 => vec![if is_key { [0x67, 0x65][usize::from(part)] } else { 0x61 }],
            Scheme::Vp8 => {
                let is_synced = matches!(self.since_key % 4, 1 | 2);
                let layer = temporal << 6 | u8::from(is_synced) << 5;
                vec![
                    0x80 | u8::from(is_first) << 4,
                    0xe0,
                    id_high,
                    id_low,
                    tl0,
                    layer,
                    u8::from(!is_key),
                ]
            }
            Scheme::Vp9 | Scheme::Vp9KeyOnly => {
                let flags = 0xa0 | u8::from(!is_key) << 6 | u8::from(is_first) << 3 | u8::from(is_last) << 2;
                let layer = temporal << 5 | u8::from(temporal == 0) << 4 | spatial << 1 | u8::from(spatial > 0);
                vec![flags, id_high, id_low, layer, tl0]
            }
            Scheme::Av1 | Scheme::Av1Simulcast => vec![0x10 | u8::from(is_key && is_first) << 3],
        };
        payload.resize(payload.len() + 100 + self.padding, 0);
        payload.push(self.incarnation);
        payload.extend(&number.to_be_bytes()[1..]);
        payload.extend([spatial, temporal, u8::from(is_key), part]);
        Made {
            payload,
            dependency: self
                .scheme
                .is_described()
                .then(|| self.descriptor(spatial, number, is_first, is_last)),
            marker: is_last && spatial + 1 == layers,
        }
    }

    fn descriptor(&self, spatial: u8, number: u32, is_first: bool, is_last: bool) -> Vec<u8> {
        let in_layer = match self.since_key {
            0 => 0,
            picture => [1, 3, 2, 3][picture as usize % 4],
        };
        // Each encoder counts from elsewhere.
        let number = (number as u16).wrapping_add(u16::from(self.incarnation).wrapping_mul(10_000));
        let mut writer = BitWriter::default();
        writer.put(u32::from(is_first) << 1 | u32::from(is_last), 2);
        writer.put(u32::from(spatial * 4 + in_layer), 6);
        writer.put(u32::from(number), 16);
        if self.since_key == 0 && spatial == 0 && is_first {
            let templates = self.scheme.templates();
            writer.put(0b1_0000, 5);
            writer.put(0, 6);
            writer.put(templates[0].2.len() as u32 - 1, 5);
            for pair in templates.windows(2) {
                let next = if pair[1].0 > pair[0].0 {
                    2
                } else {
                    u32::from(pair[1].1 - pair[0].1)
                };
                writer.put(next, 2);
            }
            writer.put(3, 2);
            for letter in templates.iter().flat_map(|template| template.2.bytes()) {
                writer.put(b"-DSR".iter().position(|known| *known == letter).unwrap() as u32, 2);
            }
            for template in templates {
                template
                    .3
                    .iter()
                    .for_each(|reference| writer.put(0b1_0000 | (reference - 1), 5));
                writer.put(0, 1);
            }
            // No chains: 0 of up to nine, or of up to three; no sizes.
            writer.put(0, if templates[0].2.len() == 9 { 3 } else { 1 });
            if templates[0].2.len() == 3 {
                writer.put(0, 1);
            }
            writer.put(0, 1);
        }
        writer.into_bytes()
    }
}

/// A packet that a receiver got, whole.
#[derive(Debug, Clone)]
pub struct Whole {
    pub sequence: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub payload: Vec<u8>,
    pub dependency: Option<Arc<[u8]>>,
}

/// A frame that a receiver got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame {
    pub incarnation: u8,
    pub number: u32,
    pub spatial: u8,
    pub temporal: u8,
    pub is_key: bool,
    pub timestamp: u32,
}

/// The encoder and the number of the frame that a packet is of.
fn origin(packet: &Whole) -> (u8, u32) {
    let [.., incarnation, high, mid, low, _, _, _, _] = packet.payload[..] else {
        panic!("{packet:?}");
    };
    (incarnation, u32::from_be_bytes([0, high, mid, low]))
}

/// Looks at all that came as a decoder does, and returns the frames.
pub fn decode(scheme: Scheme, packets: &[Whole]) -> Vec<Frame> {
    let mut packets: Vec<&Whole> = packets.iter().collect();
    packets.sort_by_key(|packet| packet.sequence);
    let mut parts: BTreeMap<(u8, u32), Vec<u8>> = BTreeMap::new();
    let mut frames: Vec<Frame> = Vec::new();
    for packet in &packets {
        let (incarnation, number) = origin(packet);
        let [.., spatial, temporal, is_key, part] = packet.payload[..] else {
            panic!("{packet:?}");
        };
        if part == 0 {
            let (is_key, timestamp) = (is_key == 1, packet.timestamp);
            frames.push(Frame {
                incarnation,
                number,
                spatial,
                temporal,
                is_key,
                timestamp,
            });
        }
        parts.entry((incarnation, number)).or_default().push(part);
    }
    // The last frame may still be under way.
    let last = *frames.last().unwrap();
    frames.retain(|frame| frame.timestamp != last.timestamp);
    packets.retain(|packet| packet.timestamp != last.timestamp);
    for pair in packets.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence + 1, "no gap and nothing twice");
        let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        assert!(step < 90_000, "time goes forward: {pair:?}");
        // A key frame of another encoder may come in the middle of what was sent.
        let is_switch = origin(pair[0]).0 != origin(pair[1]).0;
        assert!(
            pair[0].marker == (step != 0) || is_switch,
            "what ends a picture says so: {pair:?}"
        );
    }
    for (index, frame) in frames.iter().enumerate() {
        let is_whole = parts[&(frame.incarnation, frame.number)] == [0, 1];
        let is_cut_off = frames
            .get(index + 1)
            .is_some_and(|next| next.is_key && next.incarnation != frame.incarnation);
        assert!(is_whole || is_cut_off, "whole: {frame:?}");
        for needed in needs(scheme, frame, &frames) {
            let is_there = frames
                .iter()
                .any(|other| other.incarnation == frame.incarnation && other.number == needed);
            assert!(is_there, "{frame:?} needs {needed}");
        }
    }
    numbers_go_on(scheme, &packets);
    frames
}

/// The frames that one needs.
fn needs(scheme: Scheme, frame: &Frame, frames: &[Frame]) -> Vec<u32> {
    let layers = u32::from(scheme.spatial_layers());
    let mut needed = Vec::new();
    if !frame.is_key {
        // Its place among the four is that since the last key frame, which was sent.
        let is_key =
            |other: &&Frame| other.incarnation == frame.incarnation && other.is_key && other.number <= frame.number;
        let key = frames.iter().rev().find(is_key).expect("a key frame came before");
        let since = (frame.number / layers) - (key.number / layers);
        let before: &[u32] = match (scheme, since % 4) {
            (Scheme::H264, _) => &[1],
            (_, 0) => &[4],
            (_, 2) => &[2],
            (Scheme::Vp8 | Scheme::Vp9, 3) => &[1, 2],
            _ => &[1],
        };
        needed.extend(before.iter().map(|pictures| frame.number - pictures * layers));
    }
    if frame.spatial > 0 && (frame.is_key || scheme != Scheme::Vp9KeyOnly) {
        needed.push(frame.number - 1);
    }
    needed
}

/// Picture ids, and the numbers in descriptors, go on; what a descriptor says that a frame needs was there.
fn numbers_go_on(scheme: Scheme, packets: &[&Whole]) {
    let id = |packet: &Whole| match scheme {
        Scheme::Vp8 => vp8::Descriptor::parse(&packet.payload).unwrap().pictures.id,
        Scheme::Vp9 | Scheme::Vp9KeyOnly => vp9::Descriptor::parse(&packet.payload).unwrap().pictures.id,
        _ => None,
    };
    for pair in packets.windows(2) {
        if let (Some(before), Some(after)) = (id(pair[0]), id(pair[1])) {
            let step = after.wrapping_sub(before) & 0x7fff;
            assert_eq!(
                step == 0,
                pair[0].timestamp == pair[1].timestamp,
                "one id for a picture: {pair:?}"
            );
            // In VP9 a picture that is left out is one: later ones say how far back those are that they need.
            assert!(step <= if scheme == Scheme::Vp8 { 1 } else { 4 }, "{step}: {pair:?}");
        }
    }
    let mut known: Option<Arc<Structure>> = None;
    let (mut newest, mut sent) = (None, 0_u128);
    for packet in packets {
        let Some(bytes) = &packet.dependency else {
            assert!(!scheme.is_described());
            continue;
        };
        let descriptor = dependency::read(bytes, [known.as_ref(), None]).expect("a structure came before");
        known = Some(descriptor.structure.clone());
        if !descriptor.starts_frame {
            continue;
        }
        let step = newest.map_or(1, |newest| descriptor.number.wrapping_sub(newest));
        assert!((1..200).contains(&step), "frame numbers go forward: {step}");
        // Bit 0 is the frame before this one.
        let before = if newest.is_some() {
            (sent << 1 | 1).checked_shl(u32::from(step) - 1).unwrap_or(0)
        } else {
            0
        };
        assert!(descriptor.references.are_in(before), "{}", descriptor.number);
        (newest, sent) = (Some(descriptor.number), before);
    }
}

/// The header extensions of a client that describes dependencies.
pub fn extensions() -> ExtensionMap {
    let mut extensions = ExtensionMap::standard();
    extensions.set(9, Extension::with_serializer(URI, Serializer));
    extensions
}

/// A packet's descriptor.
#[derive(Debug, Clone)]
pub struct Descriptor(pub Arc<[u8]>);

#[derive(Debug)]
struct Serializer;

impl ExtensionSerializer for Serializer {
    fn write_to(&self, buffer: &mut [u8], values: &ExtensionValues) -> usize {
        let Some(Descriptor(bytes)) = values.user_values.get::<Descriptor>() else {
            return 0;
        };
        buffer[..bytes.len()].copy_from_slice(bytes);
        bytes.len()
    }

    fn parse_value(&self, buffer: &[u8], values: &mut ExtensionValues) -> bool {
        values.user_values.set(Descriptor(buffer.into()));
        true
    }

    fn is_video(&self) -> bool {
        true
    }

    fn is_audio(&self) -> bool {
        false
    }

    fn requires_two_byte_form(&self, values: &ExtensionValues) -> bool {
        values
            .user_values
            .get::<Descriptor>()
            .is_some_and(|descriptor| descriptor.0.len() > 16)
    }
}
