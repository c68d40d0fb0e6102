//! Sends the node's RTCP under one SSRC and key: about a stream that it receives, or of one that it sends.

use std::time::Duration;

use crate::cipher::Cipher;
use crate::rtcp::Compound;

/// How often reports are sent while packets come or go. Higher: losses and clocks are known later. Lower: more packets.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// An SSRC, its key, and how many packets were sent with it.
pub struct Reporter {
    /// The SSRC.
    pub ssrc: u32,
    /// Its session keys.
    pub cipher: Cipher,
    /// The last SRTCP index.
    index: u32,
}

impl Reporter {
    /// One that has sent nothing yet.
    pub fn new(ssrc: u32, cipher: Cipher) -> Self {
        Self { ssrc, cipher, index: 0 }
    }

    /// Encrypts a compound packet. `None`: the key is used up (RFC 3711 section 9.2), after 68 years of one report a second.
    pub fn seal(&mut self, compound: Compound) -> Option<Vec<u8>> {
        self.index = self.index.checked_add(1).filter(|index| *index < 1 << 31)?;
        let mut bytes = compound.into_bytes();
        self.cipher.seal_rtcp(&mut bytes, self.ssrc, self.index).ok()?;
        Some(bytes)
    }
}
