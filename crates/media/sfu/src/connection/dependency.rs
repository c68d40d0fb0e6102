//! The dependency descriptor (AV1 RTP payload format, appendix A), passed through as it is: without it, a receiver cannot put together a
//! stream with several spatial layers.

use std::sync::Arc;

use str0m::rtp::{Extension, ExtensionSerializer, ExtensionValues};

const URI: &str = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";

/// The longest value that a header extension of the two-byte form can hold (RFC 8285 section 4.3).
const MAX_BYTES: usize = 255;

/// The longest value that fits into the one-byte form (RFC 8285 section 4.2).
const MAX_ONE_BYTE_FORM: usize = 16;

/// The extension, to be negotiated.
pub fn extension() -> Extension {
    Extension::with_serializer(URI, PassThrough)
}

/// A packet's descriptor.
pub fn of(values: &ExtensionValues) -> Option<Arc<[u8]>> {
    values
        .user_values
        .get::<Descriptor>()
        .map(|descriptor| descriptor.0.clone())
}

/// Sets a packet's descriptor.
#[cfg(test)]
pub fn set(values: &mut ExtensionValues, descriptor: &Arc<[u8]>) {
    values.user_values.set(Descriptor(descriptor.clone()));
}

#[derive(Debug)]
struct Descriptor(Arc<[u8]>);

#[derive(Debug)]
struct PassThrough;

impl ExtensionSerializer for PassThrough {
    fn write_to(&self, buffer: &mut [u8], values: &ExtensionValues) -> usize {
        let Some(Descriptor(bytes)) = values.user_values.get::<Descriptor>() else {
            return 0;
        };
        match buffer.get_mut(..bytes.len()) {
            Some(space) => {
                space.copy_from_slice(bytes);
                bytes.len()
            }
            None => 0,
        }
    }

    fn parse_value(&self, buffer: &[u8], values: &mut ExtensionValues) -> bool {
        if buffer.is_empty() || buffer.len() > MAX_BYTES {
            return false;
        }
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
        let descriptor = values.user_values.get::<Descriptor>();
        descriptor.is_some_and(|Descriptor(bytes)| bytes.len() > MAX_ONE_BYTE_FORM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_comes_out_as_it_went_in() {
        for length in [1, 16, 17, 255] {
            let sent = vec![7; length];
            let mut values = ExtensionValues::default();
            assert!(PassThrough.parse_value(&sent, &mut values));
            let mut forwarded = ExtensionValues::default();
            set(&mut forwarded, &of(&values).unwrap());
            assert_eq!(PassThrough.requires_two_byte_form(&forwarded), length > 16);
            let mut buffer = [0; 300];
            assert_eq!(PassThrough.write_to(&mut buffer, &forwarded), length);
            assert_eq!(buffer[..length], sent);
            assert_eq!(
                PassThrough.write_to(&mut buffer[..length - 1], &forwarded),
                0,
                "no room"
            );
        }
        assert!(!PassThrough.parse_value(&[], &mut ExtensionValues::default()));
    }
}
