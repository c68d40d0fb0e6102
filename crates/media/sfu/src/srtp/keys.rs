//! Master keys: made from the shard's secret generator, and written as SDP security descriptions write them (RFC 4568 section 6.1).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use signalbox_protocol::srtp::{SrtpKey, SrtpSuite};

use crate::ids::Ids;

/// A master key and its master salt. It is never shown.
pub struct MasterKey {
    suite: SrtpSuite,
    bytes: Vec<u8>,
}

impl MasterKey {
    /// A new one.
    pub fn generate(suite: SrtpSuite, ids: &mut Ids) -> Self {
        let bytes = ids.secret(suite.key_bytes() + suite.salt_bytes());
        Self { suite, bytes }
    }

    /// Reads one; `None`: it is not base64, or not as long as the suite's are.
    pub fn read(suite: SrtpSuite, key: &SrtpKey) -> Option<Self> {
        let bytes = STANDARD.decode(&key.0).ok()?;
        (bytes.len() == suite.key_bytes() + suite.salt_bytes()).then_some(Self { suite, bytes })
    }

    /// As clients get it.
    pub fn to_wire(&self) -> SrtpKey {
        SrtpKey(STANDARD.encode(&self.bytes))
    }

    /// What it is for.
    pub fn suite(&self) -> SrtpSuite {
        self.suite
    }

    /// The key without its salt.
    pub fn key(&self) -> &[u8] {
        self.bytes.get(..self.suite.key_bytes()).unwrap_or_default()
    }

    /// The salt.
    pub fn salt(&self) -> &[u8] {
        self.bytes.get(self.suite.key_bytes()..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_the_wire_and_no_other_length_does() {
        let mut ids = Ids::new([3; 32]);
        for suite in [SrtpSuite::AesCm128HmacSha1_80, SrtpSuite::AeadAes128Gcm] {
            let key = MasterKey::generate(suite, &mut ids);
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
}
