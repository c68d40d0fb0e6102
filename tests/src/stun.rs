//! Hand-made STUN binding requests (RFC 8489), as an attacker or a broken client sends them.
//!
//! The message integrity is filler: whoever does not know the password cannot do better.

const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLING: u16 = 0x802a;

/// A binding request for `<server's ufrag>:<client's ufrag>`, well-formed, with an integrity that no password gives.
pub fn binding_request(username: &str) -> Vec<u8> {
    let mut attributes = Vec::new();
    attribute(&mut attributes, USERNAME, username.as_bytes());
    attribute(&mut attributes, PRIORITY, &0x6e00_1effu32.to_be_bytes());
    attribute(&mut attributes, ICE_CONTROLLING, &rand::random::<[u8; 8]>());
    attribute(&mut attributes, USE_CANDIDATE, &[]);
    attribute(&mut attributes, MESSAGE_INTEGRITY, &rand::random::<[u8; 20]>());
    let mut message = vec![0x00, 0x01];
    // The fingerprint's eight bytes count before it is computed (RFC 8489 section 14.7).
    message.extend_from_slice(&u16::try_from(attributes.len() + 8).unwrap_or(u16::MAX).to_be_bytes());
    message.extend_from_slice(&MAGIC_COOKIE);
    message.extend_from_slice(&rand::random::<[u8; 12]>());
    message.extend_from_slice(&attributes);
    let fingerprint = crc32(&message) ^ 0x5354_554e;
    attribute(&mut message, FINGERPRINT, &fingerprint.to_be_bytes());
    message
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// ITU V.42, as the fingerprint wants it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                (crc >> 1) ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    })
}

/// The value of an attribute line of an SDP, such as `ice-ufrag`.
pub fn sdp_attribute<'a>(sdp: &'a str, name: &str) -> Option<&'a str> {
    sdp.lines()
        .find_map(|line| line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_is_right() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn attributes_are_aligned() {
        assert_eq!(binding_request("abcde:fgh").len() % 4, 0);
    }

    #[test]
    fn attributes_of_an_sdp_are_found() {
        assert_eq!(
            sdp_attribute("v=0\r\na=ice-ufrag:abc\r\na=ice-pwd:x\r\n", "ice-ufrag"),
            Some("abc")
        );
    }
}
