//! Tells a datagram's protocol by its first byte, and reads whom a STUN request is for.
//!
//! Nothing here is authenticated: it only finds the one connection that may check the datagram.

/// What a datagram on the media port is (RFC 7983 section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// STUN (RFC 8489).
    Stun,
    /// DTLS (RFC 9147).
    Dtls,
    /// RTP or RTCP, encrypted (RFC 3711).
    Rtp,
    /// None of these.
    Unknown,
}

/// Tells a datagram's protocol.
pub fn classify(datagram: &[u8]) -> Protocol {
    match datagram.first() {
        Some(0..=3) if datagram.len() >= STUN_HEADER_BYTES => Protocol::Stun,
        Some(20..=63) if datagram.len() >= 13 => Protocol::Dtls,
        Some(128..=191) if datagram.len() >= 12 => Protocol::Rtp,
        _ => Protocol::Unknown,
    }
}

const STUN_HEADER_BYTES: usize = 20;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const ATTRIBUTE_USERNAME: u16 = 0x0006;
const ATTRIBUTE_USE_CANDIDATE: u16 = 0x0025;

/// The receiver's ICE ufrag in a STUN request's USERNAME, `receiver:sender` (RFC 8445 section 7.2.2). `None`: the message is
/// truncated, not STUN, or has no such attribute.
pub fn local_ufrag(datagram: &[u8]) -> Option<&str> {
    ufrags(datagram).map(|(local, _)| local)
}

/// The sender's ufrag there.
pub fn remote_ufrag(datagram: &[u8]) -> Option<&str> {
    ufrags(datagram).map(|(_, remote)| remote)
}

/// Whether a STUN request nominates the path that it takes (RFC 8445 section 7.1.2).
pub fn nominates(datagram: &[u8]) -> bool {
    attribute(datagram, ATTRIBUTE_USE_CANDIDATE).is_some()
}

fn ufrags(datagram: &[u8]) -> Option<(&str, &str)> {
    let username = attribute(datagram, ATTRIBUTE_USERNAME)?;
    std::str::from_utf8(username).ok()?.split_once(':')
}

/// The first attribute of a type.
fn attribute(datagram: &[u8], wanted: u16) -> Option<&[u8]> {
    let (header, mut attributes) = datagram.split_at_checked(STUN_HEADER_BYTES)?;
    if header.get(4..8)? != MAGIC_COOKIE {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([*header.get(2)?, *header.get(3)?]));
    if length != attributes.len() {
        return None;
    }
    while let Some((head, rest)) = attributes.split_first_chunk::<4>() {
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = rest.get(..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(username: &str) -> Vec<u8> {
        let mut attributes = vec![0x80, 0x22, 0, 3, b'a', b'b', b'c', 0];
        attributes.extend(ATTRIBUTE_USERNAME.to_be_bytes());
        attributes.extend((username.len() as u16).to_be_bytes());
        attributes.extend(username.as_bytes());
        attributes.resize(attributes.len().next_multiple_of(4), 0);
        let mut message = vec![0, 1];
        message.extend((attributes.len() as u16).to_be_bytes());
        message.extend(MAGIC_COOKIE);
        message.extend([7; 12]);
        message.extend(attributes);
        message
    }

    #[test]
    fn the_receivers_ufrag_is_found_behind_other_attributes() {
        let message = request("server:client");
        assert_eq!(classify(&message), Protocol::Stun);
        assert_eq!(local_ufrag(&message), Some("server"));
        assert_eq!(remote_ufrag(&message), Some("client"));
    }

    #[test]
    fn a_nomination_is_told_from_another_check() {
        let mut message = request("server:client");
        assert!(!nominates(&message));
        message.extend([0, 0x25, 0, 0]);
        let length = (message.len() - STUN_HEADER_BYTES) as u16;
        message[2..4].copy_from_slice(&length.to_be_bytes());
        assert!(nominates(&message));
        assert!(!nominates(&message[..message.len() - 1]));
    }

    #[test]
    fn no_truncation_of_a_request_is_read() {
        let message = request("server:client");
        for length in 0..message.len() {
            assert_eq!(local_ufrag(&message[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn garbage_is_unknown() {
        assert_eq!(classify(&[]), Protocol::Unknown);
        assert_eq!(classify(&[255; 100]), Protocol::Unknown);
        assert_eq!(classify(&[0x80; 5]), Protocol::Unknown);
    }
}
