//! What a light receiver has to know of the server's description (RFC 8866): which streams there are, which repair which (RFC 4588 section 8.6), and where their packets
//! have their transport-wide numbers.

use std::collections::HashMap;

const TRANSPORT_SEQUENCE: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// What a description says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Described {
    /// Whether a stream is sound, by its SSRC.
    pub streams: HashMap<u32, bool>,
    /// The stream that another repairs, by the latter's SSRC.
    pub repaired: HashMap<u32, u32>,
    /// The id of the header extension with transport-wide numbers; the same for all.
    pub transport_sequence: Option<u8>,
}

/// Reads a description. What is not understood is of no interest.
pub fn read(sdp: &str) -> Described {
    let (mut described, mut is_sound) = (Described::default(), None);
    for line in sdp.lines() {
        if let Some(kind) = line.strip_prefix("m=") {
            is_sound = kind
                .starts_with("audio")
                .then_some(true)
                .or(kind.starts_with("video").then_some(false));
        } else if let Some(group) = line.strip_prefix("a=ssrc-group:FID ") {
            let mut ssrcs = group.split_whitespace().filter_map(|ssrc| ssrc.parse().ok());
            if let (Some(media), Some(repair)) = (ssrcs.next(), ssrcs.next()) {
                described.repaired.insert(repair, media);
            }
        } else if let Some(ssrc) = line.strip_prefix("a=ssrc:") {
            let ssrc = ssrc.split_whitespace().next().and_then(|ssrc| ssrc.parse().ok());
            if let (Some(ssrc), Some(is_sound)) = (ssrc, is_sound) {
                described.streams.insert(ssrc, is_sound);
            }
        } else if let Some((id, name)) = line.strip_prefix("a=extmap:").and_then(|map| map.split_once(' '))
            && name.trim() == TRANSPORT_SEQUENCE
        {
            // A direction may follow the id.
            described.transport_sequence = id.split('/').next().and_then(|id| id.parse().ok());
        }
    }
    for repair in described.repaired.keys() {
        described.streams.remove(repair);
    }
    described
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_what_repairs_them_are_read() {
        let sdp = "v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ssrc:1 cname:x\r\n\
            a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
            m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=ssrc-group:FID 2 3\r\na=ssrc:2 cname:x\r\na=ssrc:3 cname:x\r\n";
        let described = read(sdp);
        assert_eq!(described.streams, HashMap::from([(1, true), (2, false)]));
        assert_eq!(described.repaired, HashMap::from([(3, 2)]));
        assert_eq!(described.transport_sequence, Some(3));
    }
}
