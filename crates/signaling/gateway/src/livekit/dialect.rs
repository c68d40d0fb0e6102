//! What LiveKit's clients tell each other through the server and the domain does not model, carried in `dialect_info`.
//!
//! It is a prost message in base64. The media node hands it on unread; whoever reads it treats it as a hint and lets
//! the domain's own fields win, since it may have been written by another version of the gateway.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use prost::Message;

/// The longest `dialect_info` that is read, in characters of base64; a longer one counts as absent.
const MAX_CHARS: usize = 16 * 1024;

/// Packs a message; none when it says nothing or too much.
pub(super) fn pack<M: Message>(message: &M) -> Option<String> {
    let bytes = message.encode_to_vec();
    if bytes.is_empty() {
        return None;
    }
    let text = STANDARD_NO_PAD.encode(bytes);
    (text.len() <= MAX_CHARS).then_some(text)
}

/// Unpacks a message; the default when there is none that can be read.
pub(super) fn unpack<M: Message + Default>(info: Option<&str>) -> M {
    info.filter(|text| text.len() <= MAX_CHARS)
        .and_then(|text| STANDARD_NO_PAD.decode(text).ok())
        .and_then(|bytes| M::decode(bytes.as_slice()).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use livekit_protocol::TrackInfo;

    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let info = TrackInfo {
            disable_red: true,
            ..TrackInfo::default()
        };
        let packed = pack(&info).unwrap();
        assert_eq!(unpack::<TrackInfo>(Some(&packed)), info);
    }

    #[test]
    fn nothing_said_is_nothing_sent() {
        assert_eq!(pack(&TrackInfo::default()), None);
    }

    #[test]
    fn what_cannot_be_read_counts_as_absent() {
        for text in ["?", "/////w", &"A".repeat(MAX_CHARS + 4)] {
            assert_eq!(unpack::<TrackInfo>(Some(text)), TrackInfo::default());
        }
    }
}
