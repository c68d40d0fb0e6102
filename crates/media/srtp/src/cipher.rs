//! Encrypts, decrypts and authenticates single packets (RFC 3711 sections 3.3, 3.4 and 4; RFC 7714). Which index a packet has, and
//! whether it was seen before, is its caller's business.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::{hmac, iv};

use crate::keys::{MasterKey, Profile};

/// The bytes of an RTCP packet that are never encrypted: its header and its sender's SSRC (RFC 3711 section 3.4).
const RTCP_CLEAR_BYTES: usize = 8;

/// The encryption bit and the index, behind the packet (RFC 3711 section 3.4).
const RTCP_INDEX_BYTES: usize = 4;

const ENCRYPTED: u32 = 1 << 31;

/// RFC 3711 section 5.2: tags are cut to 80 bits.
const HMAC_TAG_BYTES: usize = 10;

/// RFC 7714 section 13.1.
const GCM_TAG_BYTES: usize = 16;

/// The session keys of one master key.
pub struct Cipher {
    rtp: Session,
    rtcp: Session,
}

enum Session {
    /// Boxed, since it is some forty times as large as the other.
    Cm(Box<Cm>),
    Gcm {
        key: LessSafeKey,
        salt: [u8; 12],
    },
}

struct Cm {
    key: EncryptingKey,
    salt: [u8; 14],
    authentication: hmac::Key,
}

/// The labels of RFC 3711 section 4.3.2, for RTP; RTCP's are 3 higher.
mod label {
    pub const ENCRYPTION: u8 = 0;
    pub const AUTHENTICATION: u8 = 1;
    pub const SALT: u8 = 2;
    pub const RTCP: u8 = 3;
}

impl Cipher {
    /// Derives the session keys; the key derivation rate is 0.
    pub fn new(master: &MasterKey) -> Result<Self, Unspecified> {
        Ok(Self {
            rtp: Session::new(master, 0)?,
            rtcp: Session::new(master, label::RTCP)?,
        })
    }

    /// Encrypts an RTP packet, of which the first `header` bytes stay clear, and appends its tag.
    pub fn seal_rtp(&self, packet: &mut Vec<u8>, header: usize, ssrc: u32, index: u64) -> Result<(), Unspecified> {
        let (clear, payload) = packet.split_at_mut_checked(header).ok_or(Unspecified)?;
        match &self.rtp {
            Session::Cm(cm) => {
                apply_keystream(cm, ssrc, index, payload)?;
                let tag = rtp_tag(&cm.authentication, packet, index);
                packet.extend_from_slice(tag.as_ref().get(..HMAC_TAG_BYTES).ok_or(Unspecified)?);
            }
            Session::Gcm { key, salt } => {
                let nonce = gcm_nonce(salt, ssrc, index);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&*clear), payload)?;
                packet.extend_from_slice(tag.as_ref());
            }
        }
        Ok(())
    }

    /// Whether an RTP packet is authentic at this index; if it is, `payload` becomes its decrypted payload.
    pub fn open_rtp(&self, packet: &[u8], header: usize, ssrc: u32, index: u64, payload: &mut Vec<u8>) -> bool {
        match &self.rtp {
            Session::Cm(cm) => {
                let Some((authenticated, tag)) = split_tag(packet, HMAC_TAG_BYTES) else {
                    return false;
                };
                let Some(encrypted) = authenticated.get(header..) else {
                    return false;
                };
                is_equal(&rtp_tag(&cm.authentication, authenticated, index), tag) && {
                    payload.clear();
                    payload.extend_from_slice(encrypted);
                    apply_keystream(cm, ssrc, index, payload).is_ok()
                }
            }
            Session::Gcm { key, salt } => {
                let Some((authenticated, tag)) = split_tag(packet, GCM_TAG_BYTES) else {
                    return false;
                };
                let Some((clear, encrypted)) = authenticated.split_at_checked(header) else {
                    return false;
                };
                payload.resize(encrypted.len(), 0);
                let nonce = gcm_nonce(salt, ssrc, index);
                key.open_separate_gather(nonce, Aad::from(clear), encrypted, tag, payload)
                    .is_ok()
            }
        }
    }

    /// Encrypts a compound RTCP packet of this sender, and appends its index and tag.
    pub fn seal_rtcp(&self, packet: &mut Vec<u8>, ssrc: u32, index: u32) -> Result<(), Unspecified> {
        let word = (index | ENCRYPTED).to_be_bytes();
        let (clear, rest) = packet.split_at_mut_checked(RTCP_CLEAR_BYTES).ok_or(Unspecified)?;
        match &self.rtcp {
            Session::Cm(cm) => {
                apply_keystream(cm, ssrc, index.into(), rest)?;
                packet.extend_from_slice(&word);
                let tag = hmac::sign(&cm.authentication, packet);
                packet.extend_from_slice(tag.as_ref().get(..HMAC_TAG_BYTES).ok_or(Unspecified)?);
            }
            Session::Gcm { key, salt } => {
                let nonce = gcm_rtcp_nonce(salt, ssrc, index);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(rtcp_aad(clear, word)?), rest)?;
                packet.extend_from_slice(tag.as_ref());
                packet.extend_from_slice(&word);
            }
        }
        Ok(())
    }

    /// The index that an RTCP packet claims. `None`: it is too short, or says that it is not encrypted. RFC 3711 allows that, but this
    /// side never agreed to it, and not all implementations authenticate such packets.
    pub fn rtcp_index(&self, packet: &[u8]) -> Option<u32> {
        let behind = match &self.rtcp {
            Session::Cm(_) => HMAC_TAG_BYTES,
            Session::Gcm { .. } => 0,
        };
        let (head, _) = split_tag(packet, behind)?;
        let (_, word) = head.split_last_chunk::<RTCP_INDEX_BYTES>()?;
        let word = u32::from_be_bytes(*word);
        (word & ENCRYPTED != 0).then_some(word & !ENCRYPTED)
    }

    /// Whether an RTCP packet of this sender is authentic at the index that it claims; if it is, `plain` becomes the compound packet.
    pub fn open_rtcp(&self, packet: &[u8], ssrc: u32, index: u32, plain: &mut Vec<u8>) -> bool {
        match &self.rtcp {
            Session::Cm(cm) => {
                let Some((authenticated, tag)) = split_tag(packet, HMAC_TAG_BYTES) else {
                    return false;
                };
                let Some((encrypted, _)) = split_tag(authenticated, RTCP_INDEX_BYTES) else {
                    return false;
                };
                is_equal(&hmac::sign(&cm.authentication, authenticated), tag) && {
                    plain.clear();
                    plain.extend_from_slice(encrypted);
                    let rest = plain.get_mut(RTCP_CLEAR_BYTES..);
                    rest.is_some_and(|rest| apply_keystream(cm, ssrc, index.into(), rest).is_ok())
                }
            }
            Session::Gcm { key, salt } => {
                let mut opened = || {
                    let (head, word) = packet.split_last_chunk::<RTCP_INDEX_BYTES>()?;
                    let (head, tag) = split_tag(head, GCM_TAG_BYTES)?;
                    let (clear, encrypted) = head.split_at_checked(RTCP_CLEAR_BYTES)?;
                    let aad = rtcp_aad(clear, *word).ok()?;
                    plain.clear();
                    plain.extend_from_slice(clear);
                    plain.resize(head.len(), 0);
                    let rest = plain.get_mut(RTCP_CLEAR_BYTES..)?;
                    let nonce = gcm_rtcp_nonce(salt, ssrc, index);
                    key.open_separate_gather(nonce, Aad::from(aad), encrypted, tag, rest)
                        .ok()
                };
                opened().is_some()
            }
        }
    }
}

impl Session {
    fn new(master: &MasterKey, labels: u8) -> Result<Self, Unspecified> {
        let mut key = [0; 32];
        let key = key.get_mut(..master.profile().key_bytes()).ok_or(Unspecified)?;
        derive(master, labels + label::ENCRYPTION, key)?;
        let gcm = |algorithm| -> Result<Self, Unspecified> {
            let mut salt = [0; 12];
            derive(master, labels + label::SALT, &mut salt)?;
            Ok(Self::Gcm {
                key: LessSafeKey::new(UnboundKey::new(algorithm, key)?),
                salt,
            })
        };
        match master.profile() {
            Profile::AesCm128HmacSha1_80 => {
                let (mut salt, mut authentication) = ([0; 14], [0; 20]);
                derive(master, labels + label::SALT, &mut salt)?;
                derive(master, labels + label::AUTHENTICATION, &mut authentication)?;
                Ok(Self::Cm(Box::new(Cm {
                    key: EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, key)?)?,
                    salt,
                    authentication: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &authentication),
                })))
            }
            Profile::AeadAes128Gcm => gcm(&AES_128_GCM),
            Profile::AeadAes256Gcm => gcm(&AES_256_GCM),
        }
    }
}

/// RFC 3711 section 4.3.3: the keystream of the master key, from where the master salt and the label say. A shorter salt is padded
/// with zeros (RFC 7714 section 11); a longer key is one of AES-256 (RFC 6188 section 3).
fn derive(master: &MasterKey, label: u8, out: &mut [u8]) -> Result<(), Unspecified> {
    let mut start = [0; 16];
    for (byte, salt) in start.iter_mut().zip(master.salt()) {
        *byte = *salt;
    }
    start[7] ^= label;
    out.fill(0);
    let algorithm = match master.profile() {
        Profile::AesCm128HmacSha1_80 | Profile::AeadAes128Gcm => &AES_128,
        Profile::AeadAes256Gcm => &AES_256,
    };
    let key = EncryptingKey::ctr(UnboundCipherKey::new(algorithm, master.key())?)?;
    key.less_safe_encrypt(out, EncryptionContext::Iv128(iv::FixedLength::from(start)))?;
    Ok(())
}

/// RFC 3711 section 4.1.1.
fn apply_keystream(keys: &Cm, ssrc: u32, index: u64, data: &mut [u8]) -> Result<(), Unspecified> {
    let mut start = [0; 16];
    start[..14].copy_from_slice(&keys.salt);
    xor(&mut start[4..8], &ssrc.to_be_bytes());
    xor(&mut start[8..14], &index.to_be_bytes()[2..]);
    keys.key
        .less_safe_encrypt(data, EncryptionContext::Iv128(iv::FixedLength::from(start)))?;
    Ok(())
}

/// RFC 7714 section 8.1.
fn gcm_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> Nonce {
    let mut nonce = *salt;
    xor(&mut nonce[2..6], &ssrc.to_be_bytes());
    xor(&mut nonce[6..12], &index.to_be_bytes()[2..]);
    Nonce::assume_unique_for_key(nonce)
}

/// RFC 7714 section 9.1.
fn gcm_rtcp_nonce(salt: &[u8; 12], ssrc: u32, index: u32) -> Nonce {
    gcm_nonce(salt, ssrc, index.into())
}

/// RFC 7714 section 9.2.
fn rtcp_aad(clear: &[u8], word: [u8; 4]) -> Result<[u8; 12], Unspecified> {
    let mut aad = [0; 12];
    aad[..8].copy_from_slice(clear.get(..8).ok_or(Unspecified)?);
    aad[8..].copy_from_slice(&word);
    Ok(aad)
}

/// RFC 3711 section 4.2: the tag is over the packet and the rollover counter.
fn rtp_tag(key: &hmac::Key, packet: &[u8], index: u64) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(packet);
    context.update(&((index >> 16) as u32).to_be_bytes());
    context.sign()
}

fn is_equal(whole: &hmac::Tag, cut: &[u8]) -> bool {
    let ours = whole.as_ref().get(..cut.len());
    ours.is_some_and(|ours| verify_slices_are_equal(ours, cut).is_ok())
}

fn split_tag(packet: &[u8], tag: usize) -> Option<(&[u8], &[u8])> {
    packet.split_at_checked(packet.len().checked_sub(tag)?)
}

fn xor(bytes: &mut [u8], with: &[u8]) {
    for (byte, with) in bytes.iter_mut().zip(with) {
        *byte ^= with;
    }
}

#[cfg(test)]
mod tests;
