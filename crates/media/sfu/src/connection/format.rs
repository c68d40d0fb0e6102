//! How a payload is encoded, comparable across connections.

use str0m::format::{CodecConfig, PayloadParams};
use str0m::media::Pt;

use crate::codec::Codec;

/// How a payload is encoded. Two connections may give the same format different payload types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadFormat(pub(super) PayloadParams);

impl PayloadFormat {
    /// The usual format of a codec, for streams that were not negotiated by SDP. Of H.264 it is the constrained baseline profile in
    /// packetization mode 1, which browsers must decode (RFC 7742 section 6.2).
    pub fn of(codec: Codec) -> Self {
        let mut config = CodecConfig::empty();
        match codec {
            Codec::Opus => config.enable_opus(true, false),
            Codec::Vp8 => config.enable_vp8(true),
            Codec::H264 => config.add_h264(Pt::from(102), None, true, 0x0042_e01f),
            Codec::Vp9 => config.enable_vp9(true),
            Codec::Av1 => config.enable_av1(true),
        }
        #[expect(clippy::indexing_slicing, reason = "each of the calls adds one")]
        Self(config.params()[0])
    }

    /// Its codec.
    pub fn codec(&self) -> Option<Codec> {
        super::negotiation::codec(&self.0)
    }
}
