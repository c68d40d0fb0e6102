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

/// Writes other values over the picture id and the index of a payload's descriptor, where it has them. A picture id stays as wide as
/// it was.
pub fn patch(payload: &mut [u8], picture_id: Option<u16>, tl0_pic_idx: Option<u8>) {
    let Some(descriptor) = Descriptor::parse(payload) else {
        return;
    };
    let mut at = 2;
    if descriptor.picture_id.is_some() {
        let width = if descriptor.wide_picture_id { 2 } else { 1 };
        if let (Some(picture_id), Some(field)) = (picture_id, payload.get_mut(at..at + width)) {
            match field {
                [high, low] => [*high, *low] = (picture_id | 0x8000).to_be_bytes(),
                [narrow] => *narrow = (picture_id & 0x7f) as u8,
                _ => {}
            }
        }
        at += width;
    }
    if descriptor.tl0_pic_idx.is_some()
        && let (Some(tl0_pic_idx), Some(field)) = (tl0_pic_idx, payload.get_mut(at))
    {
        *field = tl0_pic_idx;
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
    fn a_patch_changes_the_fields_and_nothing_else() {
        let mut wide = [0x90, 0xf0, 0x92, 0x34, 0x56, 0x20, 0x00];
        patch(&mut wide, Some(0x7abc), Some(0xff));
        assert_eq!(wide, [0x90, 0xf0, 0xfa, 0xbc, 0xff, 0x20, 0x00]);
        let mut narrow = [0x80, 0xc0, 0x7f, 0x01, 0x55];
        patch(&mut narrow, Some(0x1285), Some(2));
        assert_eq!(narrow, [0x80, 0xc0, 0x05, 0x02, 0x55]);
        for mut bare in [vec![0x10, 0xff], vec![0x90, 0x40, 7], vec![0x90, 0x80], vec![]] {
            let before = bare.clone();
            patch(&mut bare, Some(1), None);
            assert_eq!(bare, before);
        }
    }

    #[test]
    fn a_narrow_picture_id_is_seven_bits() {
        let descriptor = Descriptor::parse(&[0x80, 0x80, 0x7f]).unwrap();
        assert_eq!(descriptor.picture_id, Some(0x7f));
        assert!(!descriptor.wide_picture_id);
    }
}
