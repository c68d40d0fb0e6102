//! The VP8 payload descriptor (RFC 7741 section 4.2), as far as a forwarder needs it.

use crate::layers::Pictures;

/// What a descriptor says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// Picture id and TL0PICIDX.
    pub pictures: Pictures,
    /// The temporal layer; 0 without layers.
    pub temporal: u8,
    /// It needs nothing but frames of the lowest temporal layer (Y).
    pub is_synced: bool,
    /// The first packet of a frame.
    pub starts_frame: bool,
    length: usize,
}

impl Descriptor {
    /// Reads a payload's descriptor; `None` if it is truncated.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let required = *payload.first()?;
        let mut descriptor = Self {
            pictures: Pictures {
                is_gapless: true,
                ..Pictures::default()
            },
            temporal: 0,
            is_synced: false,
            // S set, partition index 0.
            starts_frame: required & 0x10 != 0 && required & 0x07 == 0,
            length: 1,
        };
        if required & 0x80 == 0 {
            return Some(descriptor);
        }
        let extension = descriptor.take(payload)?;
        if extension & 0x80 != 0 {
            descriptor.pictures.id_at = descriptor.length as u8;
            let high = descriptor.take(payload)?;
            descriptor.pictures.is_wide = high & 0x80 != 0;
            descriptor.pictures.id = Some(if descriptor.pictures.is_wide {
                u16::from_be_bytes([high & 0x7f, descriptor.take(payload)?])
            } else {
                u16::from(high)
            });
        }
        if extension & 0x40 != 0 {
            descriptor.pictures.tl0_at = descriptor.length as u8;
            descriptor.pictures.tl0 = Some(descriptor.take(payload)?);
        }
        if extension & 0x30 != 0 {
            let layer = descriptor.take(payload)?;
            // The Y bit says something only where there is a TID.
            if extension & 0x20 != 0 {
                descriptor.temporal = layer >> 6;
                descriptor.is_synced = layer & 0x20 != 0;
            }
        }
        Some(descriptor)
    }

    fn take(&mut self, payload: &[u8]) -> Option<u8> {
        let byte = *payload.get(self.length)?;
        self.length += 1;
        Some(byte)
    }

    /// Whether the payload, whose descriptor this is, begins a key frame (RFC 7741 section 4.3: the P bit is 0).
    pub fn starts_key_frame(&self, payload: &[u8]) -> bool {
        self.starts_frame && payload.get(self.length).is_some_and(|header| header & 0x01 == 0)
    }

    /// Width and height of the key frame that the payload, whose descriptor this is, begins (RFC 6386 section 9.1).
    pub fn size(&self, payload: &[u8]) -> Option<(u16, u16)> {
        let header = payload.get(self.length..)?.first_chunk::<10>()?;
        let [
            _,
            _,
            _,
            0x9d,
            0x01,
            0x2a,
            width_low,
            width_high,
            height_low,
            height_high,
        ] = *header
        else {
            return None;
        };
        let number = |low, high| u16::from_le_bytes([low, high]) & 0x3fff;
        Some((number(width_low, width_high), number(height_low, height_high)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_fields_are_read() {
        let payload = [0x90, 0xf0, 0x92, 0x34, 0x56, 0xa0, 0x00];
        let descriptor = Descriptor::parse(&payload).unwrap();
        assert_eq!(descriptor.pictures.id, Some(0x1234));
        assert!(descriptor.pictures.is_wide);
        assert_eq!(descriptor.pictures.tl0, Some(0x56));
        assert_eq!((descriptor.pictures.id_at, descriptor.pictures.tl0_at), (2, 4));
        assert_eq!(descriptor.temporal, 2);
        assert!(descriptor.is_synced);
        assert!(descriptor.starts_key_frame(&payload));
        for length in 0..6 {
            assert_eq!(Descriptor::parse(&payload[..length]), None);
        }
    }

    #[test]
    fn a_narrow_picture_id_is_seven_bits() {
        let descriptor = Descriptor::parse(&[0x80, 0x80, 0x7f]).unwrap();
        assert_eq!(descriptor.pictures.id, Some(0x7f));
        assert!(!descriptor.pictures.is_wide);
    }

    #[test]
    fn the_size_of_a_key_frame_is_read() {
        let payload = [0x10, 0x00, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x42, 0x68, 0x01];
        let descriptor = Descriptor::parse(&payload).unwrap();
        assert_eq!(descriptor.size(&payload), Some((640, 360)));
        assert_eq!(descriptor.size(&payload[..8]), None);
    }
}
