//! A media packet on its way through the core: decrypted, not yet rewritten for anyone.

use std::sync::Arc;
use std::time::Instant;

use crate::codec::{Codec, PayloadFormat};

/// A decrypted RTP packet of a publisher.
#[derive(Clone)]
pub struct MediaPacket {
    /// When it arrived.
    pub arrived: Instant,
    /// The publisher's SSRC of the stream.
    pub ssrc: u32,
    /// The publisher's sequence number, extended past 16 bits.
    pub sequence: u64,
    /// The RTP timestamp.
    pub timestamp: u32,
    /// The RTP marker: the last packet of a frame, or the first of a talkspurt.
    pub marker: bool,
    /// The codec.
    pub codec: Codec,
    /// How the payload is encoded, comparable across connections.
    pub format: PayloadFormat,
    /// Whether the payload is redundant audio data (RFC 2198), of which the format is that of its blocks.
    pub is_red: bool,
    /// RTP clock ticks per second.
    pub clock_rate: u32,
    /// The simulcast layer's RTP stream id, if the packet's stream has one.
    pub rid: Option<Rid>,
    /// The m-line.
    pub mid: Mid,
    /// −127 (silent) to 0 (loudest) dBov, if the publisher says it (RFC 6464).
    pub audio_level: Option<i8>,
    /// The publisher's voice detector, if it says it (RFC 6464).
    pub voice: Option<bool>,
    /// Quarter turns clockwise that the picture must be turned by, if the publisher says it (3GPP TS 26.114).
    pub rotation: Option<u8>,
    /// The shortest and the longest delay until it is to be shown, in 10 ms, if the publisher says it
    /// (<http://www.webrtc.org/experiments/rtp-hdrext/playout-delay>).
    pub playout_delay: Option<(u16, u16)>,
    /// When it was captured, as an NTP timestamp, and how far the publisher's clock is off in 2⁻³² s, if it says so
    /// (<http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time>).
    pub capture_time: Option<(u64, Option<i64>)>,
    /// The dependency descriptor, if there is one (AV1 RTP payload format, appendix A).
    pub dependency: Option<Arc<[u8]>>,
    /// The payload. Shared by all subscribers.
    pub payload: Arc<[u8]>,
}

/// An outgoing stream: a number that only its transport understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutgoingStream(pub u32);

/// An RTP payload type of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadType(pub u8);

/// The id of an m-line (RFC 8843), at most 16 bytes.
pub type Mid = ShortText<16>;

/// The id of a simulcast layer (RFC 8852), at most 8 bytes.
pub type Rid = ShortText<8>;

/// A short text without a heap allocation; what is too long is cut.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShortText<const N: usize> {
    length: u8,
    bytes: [u8; N],
}

impl<const N: usize> ShortText<N> {
    /// The text.
    pub fn as_str(&self) -> &str {
        self.bytes
            .get(..usize::from(self.length))
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }
}

impl<const N: usize> From<&str> for ShortText<N> {
    fn from(text: &str) -> Self {
        let mut end = text.len().min(N);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut bytes = [0; N];
        bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
        Self {
            length: end as u8,
            bytes,
        }
    }
}

impl<const N: usize> std::fmt::Debug for ShortText<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_text_is_cut_at_a_character() {
        assert_eq!(Rid::from("q").as_str(), "q");
        assert_eq!(Rid::from("1234567ä").as_str(), "1234567");
    }
}
