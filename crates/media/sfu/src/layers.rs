//! Which frame of which layer a packet belongs to, and what that frame needs: read once for each packet that arrives, whoever gets it.
//!
//! The dependency descriptor says it for every codec (AV1 RTP payload format, appendix A). Without one, the payload descriptors of VP8
//! (RFC 7741) and VP9 (RFC 9628) do; H.264 then has no layers. Nothing beyond the descriptors and the first bytes of a frame is read, so
//! that end-to-end encrypted payloads are forwarded like any others.

pub mod bits;
pub mod dependency;
pub mod vp9;

use std::sync::Arc;

use crate::codec::Codec;
use crate::packet::MediaPacket;
use crate::vp8;

use dependency::{Descriptor, Structure};

/// The highest spatial layer that is told apart: all that the descriptors can say of one stream.
pub const MAX_SPATIAL: usize = 8;

/// Temporal layers that are told apart.
pub const MAX_TEMPORAL: usize = 8;

/// A packet's place in its stream.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The spatial layer.
    pub spatial: u8,
    /// The temporal layer.
    pub temporal: u8,
    /// The first packet of a frame of a layer.
    pub starts_frame: bool,
    /// The last packet of a frame of a layer. Without layers: nothing says it but the marker.
    pub ends_frame: bool,
    /// The first packet of a picture, which has a frame in each spatial layer.
    pub starts_picture: bool,
    /// A receiver can begin with this packet, and needs nothing before it.
    pub is_key: bool,
    /// The numbers in the payload that a receiver expects to be continuous.
    pub pictures: Pictures,
    /// What else is known of what it needs.
    pub needs: Needs,
}

/// What a frame needs.
#[derive(Debug, Clone)]
pub enum Needs {
    /// Everything before it.
    Everything,
    /// What the descriptor of VP8 says.
    Vp8 {
        /// It needs nothing but frames of the lowest temporal layer (the Y bit).
        is_synced: bool,
    },
    /// What the descriptor of VP9 says.
    Vp9 {
        /// It needs earlier pictures (the P bit), not only lower layers of its own.
        is_predicted: bool,
        /// From this picture on, pictures of higher temporal layers need no earlier one that is above this one's layer (the U bit).
        is_switching_point: bool,
    },
    /// What a dependency descriptor says.
    Described(Box<Descriptor>),
}

/// Numbers in a payload, and where they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pictures {
    /// The picture id, of 7 or 15 bits.
    pub id: Option<u16>,
    /// Whether the picture id has 15 bits.
    pub is_wide: bool,
    /// The running index of base-layer frames, 8 bits.
    pub tl0: Option<u8>,
    /// Whether a receiver takes a missing picture id for a lost frame: what is left out on purpose must not leave one.
    pub is_gapless: bool,
    /// The offset of the picture id, if there is one.
    pub id_at: u8,
    /// The offset of the index, if there is one.
    pub tl0_at: u8,
}

/// What is known of an incoming stream from the packets before.
#[derive(Debug, Default)]
pub struct Reader {
    /// The structure that descriptors refer to, and the one before, for packets that come late.
    structure: Option<Arc<Structure>>,
    former: Option<Arc<Structure>>,
    /// The frame that the structure came with.
    structure_frame: u16,
    /// Decode targets that the publisher sends, one bit each.
    active: u32,
    timestamp: Option<u32>,
    sizes: Vec<(u16, u16)>,
}

impl Reader {
    /// Reads a packet. None: it is of no use to anyone, such as one that is truncated, or that holds nothing but padding.
    pub fn read(&mut self, packet: &MediaPacket) -> Option<Frame> {
        let starts_picture = self.timestamp != Some(packet.timestamp);
        self.timestamp = Some(packet.timestamp);
        if packet.payload.is_empty() {
            return None;
        }
        let mut frame = match packet.codec {
            Codec::Vp8 => self.vp8(packet),
            Codec::Vp9 => self.vp9(packet),
            Codec::Opus | Codec::H264 | Codec::Av1 => Some(Frame {
                spatial: 0,
                temporal: 0,
                starts_frame: starts_picture,
                ends_frame: packet.marker,
                starts_picture,
                is_key: packet.codec.starts_key_frame(&packet.payload),
                pictures: Pictures::default(),
                needs: Needs::Everything,
            }),
        }?;
        frame.starts_picture = frame.starts_frame && (starts_picture || frame.spatial == 0);
        match self.described(packet) {
            Some(descriptor) => {
                frame.spatial = descriptor.spatial;
                frame.temporal = descriptor.temporal;
                frame.starts_frame = descriptor.starts_frame;
                frame.ends_frame = descriptor.ends_frame;
                frame.starts_picture = frame.starts_frame && (starts_picture || frame.spatial == 0);
                frame.is_key = descriptor.is_key();
                frame.needs = Needs::Described(Box::new(descriptor));
            }
            // A stream that has descriptors has one in every packet; receivers can make nothing of one without.
            None if self.structure.is_some() => return None,
            None => {}
        }
        Some(frame)
    }

    /// The sizes of the spatial layers, lowest first, as far as the stream says them.
    pub fn sizes(&self) -> &[(u16, u16)] {
        match &self.structure {
            Some(structure) if !structure.sizes.is_empty() => &structure.sizes,
            _ => &self.sizes,
        }
    }

    /// The structure that descriptors refer to at present.
    pub fn structure(&self) -> Option<&Arc<Structure>> {
        self.structure.as_ref()
    }

    /// Decode targets of the structure that the publisher sends at present, one bit each.
    pub fn active(&self) -> u32 {
        self.active
    }

    fn described(&mut self, packet: &MediaPacket) -> Option<Descriptor> {
        let bytes = packet.dependency.as_deref()?;
        let known = [self.structure.as_ref(), self.former.as_ref()];
        let mut descriptor = dependency::read(bytes, known)?;
        let is_newer = (descriptor.number.wrapping_sub(self.structure_frame) as i16) >= 0;
        if descriptor.is_key() && (self.structure.is_none() || is_newer) {
            if self.structure.as_ref() != Some(&descriptor.structure) {
                self.former = self.structure.replace(descriptor.structure.clone());
            }
            self.structure_frame = descriptor.number;
            self.active = descriptor.structure.all();
        }
        if let Some(active) = descriptor.said_active {
            self.active = active;
        }
        descriptor.active = self.active;
        Some(descriptor)
    }

    fn vp8(&mut self, packet: &MediaPacket) -> Option<Frame> {
        let read = vp8::Descriptor::parse(&packet.payload)?;
        let is_key = read.starts_key_frame(&packet.payload);
        if let Some(size) = is_key.then(|| read.size(&packet.payload)).flatten() {
            self.sizes = vec![size];
        }
        Some(Frame {
            spatial: 0,
            temporal: read.temporal,
            starts_frame: read.starts_frame,
            ends_frame: packet.marker,
            starts_picture: read.starts_frame,
            is_key,
            pictures: read.pictures,
            needs: Needs::Vp8 {
                is_synced: read.is_synced,
            },
        })
    }

    fn vp9(&mut self, packet: &MediaPacket) -> Option<Frame> {
        let read = vp9::Descriptor::parse(&packet.payload)?;
        if !read.sizes.is_empty() {
            self.sizes.clone_from(&read.sizes);
        }
        Some(Frame {
            spatial: read.spatial,
            temporal: read.temporal,
            starts_frame: read.starts_frame,
            ends_frame: read.ends_frame,
            starts_picture: read.starts_frame,
            is_key: read.starts_frame && !read.is_predicted && read.spatial == 0,
            pictures: read.pictures,
            needs: Needs::Vp9 {
                is_predicted: read.is_predicted,
                is_switching_point: read.is_switching_point,
            },
        })
    }
}

impl Frame {
    /// The dependency descriptor, if the stream has one.
    pub fn descriptor(&self) -> Option<&Descriptor> {
        match &self.needs {
            Needs::Described(descriptor) => Some(descriptor),
            Needs::Everything | Needs::Vp8 { .. } | Needs::Vp9 { .. } => None,
        }
    }
}
