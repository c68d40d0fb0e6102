//! The codecs that pass through, and what the forwarder must see in their payloads: where a key frame begins.
//!
//! Only descriptors are read, never the picture. End-to-end encrypted payloads keep theirs in the clear.

use signalbox_protocol::room::Kind;

pub use crate::connection::PayloadFormat;
use crate::vp8;

/// A codec that passes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// RFC 7587.
    Opus,
    /// RFC 7741.
    Vp8,
    /// RFC 6184.
    H264,
    /// RFC 9628.
    Vp9,
    /// AV1 RTP payload format, version 1.0.
    Av1,
}

impl Codec {
    /// The media type, such as `video/VP8`.
    pub fn mime_type(self) -> &'static str {
        match self {
            Codec::Opus => "audio/opus",
            Codec::Vp8 => "video/VP8",
            Codec::H264 => "video/H264",
            Codec::Vp9 => "video/VP9",
            Codec::Av1 => "video/AV1",
        }
    }

    /// The codec of a media type, in any case.
    pub fn from_mime_type(mime_type: &str) -> Option<Self> {
        [Codec::Opus, Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1]
            .into_iter()
            .find(|codec| codec.mime_type().eq_ignore_ascii_case(mime_type))
    }

    /// Its kind.
    pub fn kind(self) -> Kind {
        match self {
            Codec::Opus => Kind::Audio,
            Codec::Vp8 | Codec::H264 | Codec::Vp9 | Codec::Av1 => Kind::Video,
        }
    }

    /// RTP clock ticks per second.
    pub fn clock_rate(self) -> u32 {
        match self.kind() {
            Kind::Audio => 48_000,
            Kind::Video => 90_000,
        }
    }

    /// Whether a receiver can begin with this payload: the first packet of a key frame, or any packet of audio.
    pub fn starts_key_frame(self, payload: &[u8]) -> bool {
        match self {
            Codec::Opus => true,
            Codec::Vp8 => {
                vp8::Descriptor::parse(payload).is_some_and(|descriptor| descriptor.starts_key_frame(payload))
            }
            Codec::H264 => h264_key_frame(payload),
            Codec::Vp9 => vp9_key_frame(payload),
            Codec::Av1 => av1_key_frame(payload),
        }
    }
}

/// A sequence parameter set, alone or in an aggregation, or the first fragment of an IDR picture or parameter set.
fn h264_key_frame(payload: &[u8]) -> bool {
    const IDR: u8 = 5;
    const SPS: u8 = 7;
    const STAP_A: u8 = 24;
    const FU_A: u8 = 28;
    let Some((first, mut rest)) = payload.split_first() else {
        return false;
    };
    match first & 0x1f {
        IDR | SPS => true,
        FU_A => rest
            .first()
            .is_some_and(|header| header & 0x80 != 0 && matches!(header & 0x1f, IDR | SPS)),
        STAP_A => {
            while let Some((head, tail)) = rest.split_first_chunk::<2>() {
                let length = usize::from(u16::from_be_bytes(*head));
                let Some(unit) = tail.get(..length) else {
                    return false;
                };
                if unit.first().is_some_and(|header| matches!(header & 0x1f, IDR | SPS)) {
                    return true;
                }
                rest = tail.get(length..).unwrap_or_default();
            }
            false
        }
        _ => false,
    }
}

/// Not inter-picture predicted, start of a frame, and of the lowest spatial layer.
fn vp9_key_frame(payload: &[u8]) -> bool {
    let Some(&first) = payload.first() else {
        return false;
    };
    let (picture_id, predicted, layers, begins) = (
        first & 0x80 != 0,
        first & 0x40 != 0,
        first & 0x20 != 0,
        first & 0x08 != 0,
    );
    if predicted || !begins {
        return false;
    }
    if !layers {
        return true;
    }
    let mut at = 1;
    if picture_id {
        let Some(byte) = payload.get(at) else {
            return false;
        };
        at += if byte & 0x80 != 0 { 2 } else { 1 };
    }
    payload.get(at).is_some_and(|byte| (byte >> 1) & 0x07 == 0)
}

/// The aggregation header's N bit: the first packet of a coded video sequence.
fn av1_key_frame(payload: &[u8]) -> bool {
    payload.first().is_some_and(|header| header & 0x08 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_frame_is_seen_in_each_codec() {
        // VP8: start of partition 0, then a frame header whose lowest bit is 0.
        assert!(Codec::Vp8.starts_key_frame(&[0x10, 0x00]));
        assert!(!Codec::Vp8.starts_key_frame(&[0x10, 0x01]));
        assert!(!Codec::Vp8.starts_key_frame(&[0x00, 0x00]));
        // H.264: an SPS, an SPS in a STAP-A, the first fragment of an IDR picture, a later one, a delta picture.
        assert!(Codec::H264.starts_key_frame(&[0x67, 1, 2]));
        assert!(Codec::H264.starts_key_frame(&[0x78, 0, 1, 0x09, 0, 2, 0x67, 1]));
        assert!(Codec::H264.starts_key_frame(&[0x7c, 0x85]));
        assert!(!Codec::H264.starts_key_frame(&[0x7c, 0x05]));
        assert!(!Codec::H264.starts_key_frame(&[0x61]));
        // VP9: flexible mode off, beginning, not predicted; then with layers.
        assert!(Codec::Vp9.starts_key_frame(&[0x88, 0x01]));
        assert!(!Codec::Vp9.starts_key_frame(&[0xc8, 0x01]));
        assert!(Codec::Vp9.starts_key_frame(&[0xa8, 0x81, 0x02, 0x00]));
        assert!(!Codec::Vp9.starts_key_frame(&[0xa8, 0x81, 0x02, 0x02]));
        // AV1: the N bit.
        assert!(Codec::Av1.starts_key_frame(&[0x18]));
        assert!(!Codec::Av1.starts_key_frame(&[0x10]));
    }

    #[test]
    fn no_truncated_payload_is_read_past_its_end() {
        for codec in [Codec::Opus, Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1] {
            for first in 0..=255u8 {
                for rest in [&[][..], &[0xff], &[0xff, 0xff], &[0xff, 0xff, 0xff], &[0, 9, 1]] {
                    let mut payload = vec![first];
                    payload.extend(rest);
                    codec.starts_key_frame(&payload);
                }
            }
            codec.starts_key_frame(&[]);
        }
    }
}
