//! The VP9 payload descriptor (RFC 9628 section 4.2), as far as a forwarder needs it.

use super::Pictures;

/// What a descriptor says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// The spatial layer (SID); 0 without layers.
    pub spatial: u8,
    /// The temporal layer (TID); 0 without layers.
    pub temporal: u8,
    /// The first packet of a layer's frame (B).
    pub starts_frame: bool,
    /// The last packet of a layer's frame (E).
    pub ends_frame: bool,
    /// Earlier pictures are needed (P).
    pub is_predicted: bool,
    /// A point to switch up to higher temporal layers (U).
    pub is_switching_point: bool,
    /// Picture id and TL0PICIDX.
    pub pictures: Pictures,
    /// The sizes of the spatial layers, lowest first, if it says them.
    pub sizes: Vec<(u16, u16)>,
}

impl Descriptor {
    /// Reads a payload's descriptor; `None` if it is truncated, or nothing follows it.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let mut at = 0;
        let mut take = || {
            let byte = payload.get(at).copied();
            at += 1;
            byte.map(|byte| (byte, (at - 1) as u8))
        };
        let (first, _) = take()?;
        let has = |bit: u8| first & bit != 0;
        let (has_id, is_predicted, has_layers, is_flexible) = (has(0x80), has(0x40), has(0x20), has(0x10));
        let mut descriptor = Self {
            spatial: 0,
            temporal: 0,
            starts_frame: has(0x08),
            ends_frame: has(0x04),
            is_predicted,
            is_switching_point: false,
            pictures: Pictures::default(),
            sizes: Vec::new(),
        };
        if has_id {
            let (high, id_at) = take()?;
            let is_wide = high & 0x80 != 0;
            let id = if is_wide {
                u16::from_be_bytes([high & 0x7f, take()?.0])
            } else {
                u16::from(high)
            };
            descriptor.pictures = Pictures {
                id: Some(id),
                is_wide,
                id_at,
                ..Pictures::default()
            };
        }
        if has_layers {
            let (layers, _) = take()?;
            descriptor.temporal = layers >> 5;
            descriptor.is_switching_point = layers & 0x10 != 0;
            descriptor.spatial = layers >> 1 & 0x07;
            if !is_flexible {
                let (tl0, tl0_at) = take()?;
                descriptor.pictures.tl0 = Some(tl0);
                descriptor.pictures.tl0_at = tl0_at;
            }
        }
        if is_flexible && is_predicted {
            // Up to three references.
            for _ in 0..3 {
                let (reference, _) = take()?;
                if reference & 0x01 == 0 {
                    break;
                }
            }
        }
        if has(0x02) {
            let (structure, _) = take()?;
            let count = (structure >> 5) + 1;
            if structure & 0x10 != 0 {
                for _ in 0..count {
                    let mut number = || Some(u16::from_be_bytes([take()?.0, take()?.0]));
                    descriptor.sizes.push((number()?, number()?));
                }
            }
            if structure & 0x08 != 0 {
                let (pictures, _) = take()?;
                for _ in 0..pictures {
                    let (picture, _) = take()?;
                    for _ in 0..(picture >> 2 & 0x03) {
                        take()?;
                    }
                }
            }
        }
        (at < payload.len()).then_some(descriptor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_picture_of_a_scalable_stream_is_read() {
        // I, L, B, V; wide picture id; TID 0, U, SID 0; TL0PICIDX; two layers with sizes and a group of one picture.
        let payload = [
            0xaa, 0x92, 0x34, 0x10, 0x56, 0x38, 1, 64, 0, 180, 2, 128, 1, 104, 1, 0x14, 1, 0x77,
        ];
        let read = Descriptor::parse(&payload).unwrap();
        assert_eq!((read.spatial, read.temporal), (0, 0));
        assert!(read.starts_frame && !read.ends_frame && !read.is_predicted && read.is_switching_point);
        assert_eq!(read.pictures.id, Some(0x1234));
        assert_eq!((read.pictures.id_at, read.pictures.tl0_at), (1, 4));
        assert_eq!(read.pictures.tl0, Some(0x56));
        assert_eq!(read.sizes, [(320, 180), (640, 360)]);
        for length in 0..payload.len() {
            assert_eq!(Descriptor::parse(&payload[..length]), None, "{length}");
        }
    }

    #[test]
    fn references_of_flexible_mode_are_passed_over() {
        // I, P, L, F, E; narrow picture id; TID 2, SID 1, D; two references.
        let read = Descriptor::parse(&[0xf4, 0x7f, 0x43, 0x03, 0x04, 0x55]).unwrap();
        assert_eq!((read.spatial, read.temporal), (1, 2));
        assert!(read.is_predicted && read.ends_frame && !read.starts_frame && !read.is_switching_point);
        assert_eq!(read.pictures.id, Some(0x7f));
        assert!(!read.pictures.is_wide);
        assert_eq!(read.pictures.tl0, None);
    }

    #[test]
    fn without_layers_there_is_one() {
        let read = Descriptor::parse(&[0x8c, 0x01, 0x00]).unwrap();
        assert_eq!((read.spatial, read.temporal), (0, 0));
    }
}
