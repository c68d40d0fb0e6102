//! RTP headers (RFC 3550 section 5.1), and whose a datagram is before anything of it is authenticated.

/// What follows a fixed header's first bytes when there is nothing special.
pub const HEADER_BYTES: usize = 12;

/// The fields of a header that a forwarder reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The last packet of a frame, or the first of a talkspurt.
    pub marker: bool,
    /// What the payload is.
    pub payload_type: u8,
    /// The low 16 bits of the sequence number.
    pub sequence: u16,
    /// In ticks of the codec's clock.
    pub timestamp: u32,
    /// Whose packet it is.
    pub ssrc: u32,
    /// Whether the payload ends in padding.
    pub is_padded: bool,
    /// Bytes up to the payload, with contributing sources and extensions.
    pub length: usize,
}

impl Header {
    /// Reads a packet's header; `None`: it is truncated, or of another version.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let (fixed, rest) = packet.split_first_chunk::<HEADER_BYTES>()?;
        if fixed[0] >> 6 != 2 {
            return None;
        }
        let mut length = HEADER_BYTES + usize::from(fixed[0] & 0x0f) * 4;
        if fixed[0] & 0x10 != 0 {
            let words = rest.get(length - HEADER_BYTES + 2..length - HEADER_BYTES + 4)?;
            length += 4 + usize::from(u16::from_be_bytes([words[0], words[1]])) * 4;
        }
        (length <= packet.len()).then_some(Self {
            marker: fixed[1] & 0x80 != 0,
            payload_type: fixed[1] & 0x7f,
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            is_padded: fixed[0] & 0x20 != 0,
            length,
        })
    }

    /// The header without sources, extensions and padding.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = 2 << 6;
        bytes[1] = u8::from(self.marker) << 7 | self.payload_type & 0x7f;
        bytes[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        bytes
    }
}

/// Whether a datagram is RTCP and not RTP, both on one port (RFC 5761 section 4).
pub fn is_rtcp(datagram: &[u8]) -> bool {
    datagram.get(1).is_some_and(|kind| matches!(kind, 192..=223))
}

/// The SSRC that a datagram names as its sender's, RTP's or RTCP's.
pub fn sender(datagram: &[u8]) -> Option<u32> {
    word(datagram, if is_rtcp(datagram) { 4 } else { 8 })
}

/// The SSRC that the first report block of an RTCP receiver report in the clear is about (RFC 3550 section 6.4.2).
pub fn reported(datagram: &[u8]) -> Option<u32> {
    let [first, kind, ..] = datagram else {
        return None;
    };
    (*kind == crate::rtcp::RECEIVER_REPORT && first & 0x1f > 0).then(|| word(datagram, 8))?
}

/// Whether a stream may have this payload type: one that cannot be taken for RTCP's (RFC 5761 section 4).
pub fn is_payload_type(payload_type: u8) -> bool {
    matches!(payload_type, 0..=63 | 96..=127)
}

fn word(datagram: &[u8], at: usize) -> Option<u32> {
    let bytes = datagram.get(at..at + 4)?;
    Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_and_its_length_counts_sources_and_extensions() {
        let header = Header {
            marker: true,
            payload_type: 96,
            sequence: 0x1234,
            timestamp: 0x5678_9abc,
            ssrc: 0xdead_beef,
            is_padded: false,
            length: HEADER_BYTES,
        };
        let mut packet = header.to_bytes().to_vec();
        assert_eq!(Header::read(&packet), Some(header));
        packet[0] |= 0x12;
        packet.extend([0; 8]);
        packet.extend([0xbe, 0xde, 0, 1, 0, 0, 0, 0]);
        assert_eq!(Header::read(&packet).unwrap().length, packet.len());
        for length in 0..packet.len() {
            assert_eq!(Header::read(&packet[..length]), None);
        }
    }

    #[test]
    fn rtcp_names_its_sender_elsewhere_than_rtp() {
        let rtp = [0x80, 96, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2];
        let rtcp = [0x81, 201, 0, 7, 0, 0, 0, 3, 0, 0, 0, 4];
        assert_eq!((is_rtcp(&rtp), sender(&rtp), reported(&rtp)), (false, Some(2), None));
        assert_eq!(
            (is_rtcp(&rtcp), sender(&rtcp), reported(&rtcp)),
            (true, Some(3), Some(4))
        );
    }
}
