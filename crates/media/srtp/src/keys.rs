//! Master keys: made from the shard's secret generator and written as SDP security descriptions write them (RFC 4568 section 6.1), or
//! agreed on in a DTLS handshake (RFC 5764 section 4.2).

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use signalbox_protocol::srtp::{SrtpKey, SrtpSuite};

/// How packets are encrypted and authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// AES-128 in counter mode, tags of 80 bits (RFC 5764 section 4.1.2).
    AesCm128HmacSha1_80,
    /// AES-128 in Galois/counter mode, tags of 128 bits (RFC 7714 section 14.2).
    AeadAes128Gcm,
    /// AES-256 in Galois/counter mode, tags of 128 bits (RFC 7714 section 14.2).
    AeadAes256Gcm,
}

impl From<SrtpSuite> for Profile {
    fn from(suite: SrtpSuite) -> Self {
        match suite {
            SrtpSuite::AesCm128HmacSha1_80 => Self::AesCm128HmacSha1_80,
            SrtpSuite::AeadAes128Gcm => Self::AeadAes128Gcm,
        }
    }
}

impl Profile {
    /// The length of a master key, in bytes.
    pub fn key_bytes(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 | Self::AeadAes128Gcm => 16,
            Self::AeadAes256Gcm => 32,
        }
    }

    /// The length of a master salt, in bytes.
    pub fn salt_bytes(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 => 14,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 12,
        }
    }
}

/// A master key and its master salt. It is never shown.
pub struct MasterKey {
    profile: Profile,
    bytes: Vec<u8>,
}

impl MasterKey {
    /// A new one of as many bytes as `secret` is asked for, which nobody must be able to guess.
    pub fn generate(suite: SrtpSuite, secret: impl FnOnce(usize) -> Vec<u8>) -> Self {
        let profile = Profile::from(suite);
        let bytes = secret(profile.key_bytes() + profile.salt_bytes());
        Self { profile, bytes }
    }

    /// Reads one; `None`: it is not base64, or not as long as the suite's are.
    pub fn read(suite: SrtpSuite, key: &SrtpKey) -> Option<Self> {
        let profile = Profile::from(suite);
        let bytes = STANDARD.decode(&key.0).ok()?;
        (bytes.len() == profile.key_bytes() + profile.salt_bytes()).then_some(Self { profile, bytes })
    }

    /// The keys of the DTLS client and of the server, from what the handshake has exported: both keys, then both salts (RFC 5764 section
    /// 4.2). `None`: it is not as long as the profile's are.
    pub fn pair(profile: Profile, exported: &[u8]) -> Option<(Self, Self)> {
        let (key, salt) = (profile.key_bytes(), profile.salt_bytes());
        if exported.len() != 2 * (key + salt) {
            return None;
        }
        let (keys, salts) = exported.split_at(2 * key);
        let of = |index: usize| {
            let bytes = [
                keys.get(index * key..(index + 1) * key)?,
                salts.get(index * salt..(index + 1) * salt)?,
            ];
            Some(Self {
                profile,
                bytes: bytes.concat(),
            })
        };
        Some((of(0)?, of(1)?))
    }

    /// The keys of two who share a secret, the first for what the one sends and the second for what the other does (RFC 5869). Another `salt` makes
    /// others of the same secret.
    ///
    /// # Errors
    /// None that depends on the arguments.
    pub fn pair_of_secret(secret: &[u8], salt: &[u8], purpose: &[u8]) -> Result<(Self, Self), Unspecified> {
        let profile = Profile::AeadAes128Gcm;
        let mut bytes = vec![0; 2 * (profile.key_bytes() + profile.salt_bytes())];
        let pseudorandom = Salt::new(HKDF_SHA256, salt).extract(secret);
        pseudorandom.expand(&[purpose], Length(bytes.len()))?.fill(&mut bytes)?;
        Self::pair(profile, &bytes).ok_or(Unspecified)
    }

    /// As clients get it.
    pub fn to_wire(&self) -> SrtpKey {
        SrtpKey(STANDARD.encode(&self.bytes))
    }

    /// What it is for.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// The key without its salt.
    pub fn key(&self) -> &[u8] {
        self.bytes.get(..self.profile.key_bytes()).unwrap_or_default()
    }

    /// The salt.
    pub fn salt(&self) -> &[u8] {
        self.bytes.get(self.profile.key_bytes()..).unwrap_or_default()
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_who_share_a_secret_have_the_same_keys_and_nobody_else_has() {
        let pair = |secret: &[u8], salt: &[u8]| {
            let (one, other) = MasterKey::pair_of_secret(secret, salt, b"test").unwrap();
            assert_ne!(one.key(), other.key());
            [one.bytes, other.bytes].concat()
        };
        assert_eq!(pair(b"secret", b"salt"), pair(b"secret", b"salt"));
        assert_ne!(pair(b"secret", b"salt"), pair(b"secret", b"pepper"));
        assert_ne!(pair(b"secret", b"salt"), pair(b"another", b"salt"));
    }

    #[test]
    fn a_key_comes_back_from_the_wire_and_no_other_length_does() {
        for suite in [SrtpSuite::AesCm128HmacSha1_80, SrtpSuite::AeadAes128Gcm] {
            let key = MasterKey::generate(suite, |length| (3..).take(length).collect());
            let read = MasterKey::read(suite, &key.to_wire()).unwrap();
            assert_eq!((read.key(), read.salt()), (key.key(), key.salt()));
            assert_eq!((key.key().len(), key.salt().len()), (16, suite.salt_bytes()));
            let mut longer = key.bytes.clone();
            longer.push(0);
            for bytes in [&longer[..], &key.bytes[1..], &[]] {
                assert!(MasterKey::read(suite, &SrtpKey(STANDARD.encode(bytes))).is_none());
            }
            assert!(MasterKey::read(suite, &SrtpKey("not base64!".into())).is_none());
        }
    }

    #[test]
    fn a_handshake_exports_two_keys_and_two_salts() {
        let exported: Vec<u8> = (0..88).collect();
        let (client, server) = MasterKey::pair(Profile::AeadAes256Gcm, &exported).unwrap();
        assert_eq!((client.key(), client.salt()), (&exported[..32], &exported[64..76]));
        assert_eq!((server.key(), server.salt()), (&exported[32..64], &exported[76..]));
        assert!(MasterKey::pair(Profile::AeadAes256Gcm, &exported[..87]).is_none());
        assert!(MasterKey::pair(Profile::AesCm128HmacSha1_80, &exported[..60]).is_some());
        assert!(MasterKey::pair(Profile::AeadAes128Gcm, &exported[..56]).is_some());
    }
}
