//! The VP8 payload descriptor (RFC 7741 section 4.2), as far as a forwarder needs it.

/// The fields of a descriptor that a receiver expects to be continuous, and where the frame begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// The picture id, 7 or 15 bits.
    pub picture_id: Option<u16>,
    /// Whether the picture id has 15 bits.
    pub wide_picture_id: bool,
    /// The running index of base-layer frames, 8 bits.
    pub tl0_pic_idx: Option<u8>,
    starts_frame: bool,
    length: usize,
}

impl Descriptor {
    /// Reads a payload's descriptor; `None` if it is truncated.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let required = *payload.first()?;
        let mut descriptor = Self {
            picture_id: None,
            wide_picture_id: false,
            tl0_pic_idx: None,
            // S set, partition index 0.
            starts_frame: required & 0x10 != 0 && required & 0x07 == 0,
            length: 1,
        };
        if required & 0x80 == 0 {
            return Some(descriptor);
        }
        let extension = descriptor.take(payload)?;
        if extension & 0x80 != 0 {
            let high = descriptor.take(payload)?;
            descriptor.wide_picture_id = high & 0x80 != 0;
            descriptor.picture_id = Some(if descriptor.wide_picture_id {
                u16::from_be_bytes([high & 0x7f, descriptor.take(payload)?])
            } else {
                u16::from(high)
            });
        }
        if extension & 0x40 != 0 {
            descriptor.tl0_pic_idx = Some(descriptor.take(payload)?);
        }
        if extension & 0x30 != 0 {
            descriptor.take(payload)?;
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_fields_are_read() {
        let payload = [0x90, 0xf0, 0x92, 0x34, 0x56, 0x20, 0x00];
        let descriptor = Descriptor::parse(&payload).unwrap();
        assert_eq!(descriptor.picture_id, Some(0x1234));
        assert!(descriptor.wide_picture_id);
        assert_eq!(descriptor.tl0_pic_idx, Some(0x56));
        assert!(descriptor.starts_key_frame(&payload));
        for length in 0..6 {
            assert_eq!(Descriptor::parse(&payload[..length]), None);
        }
    }

    #[test]
    fn a_narrow_picture_id_is_seven_bits() {
        let descriptor = Descriptor::parse(&[0x80, 0x80, 0x7f]).unwrap();
        assert_eq!(descriptor.picture_id, Some(0x7f));
        assert!(!descriptor.wide_picture_id);
    }
}
