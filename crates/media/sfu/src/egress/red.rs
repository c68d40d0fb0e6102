//! Redundant audio data (RFC 2198): packets that repeat earlier ones, as far as a forwarder must see into them.
//!
//! It passes through to whoever has negotiated it. Others get the primary block, which is what they would have got without it.

use std::ops::Range;

/// What a block that is not the last one has in front (RFC 2198 section 3): whether another follows, the payload type, and how far back
/// and how long it is.
const BLOCK_HEADER_BYTES: usize = 4;

/// Where the primary block is in a payload; `None`: it is not what it should be.
pub fn primary(payload: &[u8]) -> Option<Range<usize>> {
    let (mut at, mut redundant) = (0, 0);
    loop {
        if payload.get(at)? & 0x80 == 0 {
            let start = at + 1 + redundant;
            return (start <= payload.len()).then_some(start..payload.len());
        }
        let [_, _, high, low] = *payload.get(at..)?.first_chunk::<BLOCK_HEADER_BYTES>()?;
        redundant += usize::from(u16::from_be_bytes([high, low]) & 0x03ff);
        at += BLOCK_HEADER_BYTES;
    }
}

/// Gives all blocks the payload type that their codec has for this receiver.
pub fn relabel(payload: &mut [u8], payload_type: u8) {
    let mut at = 0;
    while let Some(first) = payload.get_mut(at) {
        let follows = *first & 0x80;
        *first = follows | payload_type & 0x7f;
        if follows == 0 {
            return;
        }
        at += BLOCK_HEADER_BYTES;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One block of two bytes from 960 ticks before, and the primary one.
    const PAYLOAD: [u8; 10] = [0x80 | 111, 0x0f, 0x00, 0x02, 111, 1, 2, 7, 8, 9];

    #[test]
    fn the_primary_block_is_behind_the_redundant_ones() {
        assert_eq!(primary(&PAYLOAD), Some(7..10));
        assert_eq!(primary(&[111, 7, 8]), Some(1..3));
        assert_eq!(primary(&[111]), Some(1..1));
        for length in 0..7 {
            assert_eq!(primary(&PAYLOAD[..length]), None, "{length}");
        }
        assert_eq!(primary(&[0xff; 40]), None);
    }

    #[test]
    fn blocks_get_the_receivers_payload_type_and_nothing_else_changes() {
        let mut payload = PAYLOAD;
        relabel(&mut payload, 96);
        assert_eq!(payload, [0x80 | 96, 0x0f, 0x00, 0x02, 96, 1, 2, 7, 8, 9]);
        relabel(&mut [0xff; 7], 96);
        relabel(&mut [], 96);
    }
}
