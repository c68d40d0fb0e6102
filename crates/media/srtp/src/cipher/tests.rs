//! The RFCs' test vectors, another implementation on the other side, and forgeries.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rtc_rtp::Header;
use rtc_shared::marshal::Marshal;
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;
use signalbox_protocol::srtp::{SrtpKey, SrtpSuite};

use super::*;
use crate::rtcp::Compound;

const PROFILES: [Profile; 3] = [
    Profile::AesCm128HmacSha1_80,
    Profile::AeadAes128Gcm,
    Profile::AeadAes256Gcm,
];

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|digit| Some(digit.to_digit(16)? as u8))
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn master(profile: Profile) -> MasterKey {
    let exported: Vec<u8> = (0..2 * (profile.key_bytes() + profile.salt_bytes()) as u8).collect();
    MasterKey::pair(profile, &exported).unwrap().1
}

fn other_side(key: &MasterKey) -> Context {
    let profile = match key.profile() {
        Profile::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        Profile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Profile::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
    };
    let provider = rtc_srtp::crypto::default_provider().unwrap();
    Context::new(key.key(), key.salt(), profile, None, None, provider.crypto()).unwrap()
}

fn rtp_packet(sequence: u16, payload: &[u8]) -> (Vec<u8>, usize) {
    let header = Header {
        version: 2,
        payload_type: 96,
        sequence_number: sequence,
        timestamp: 1_234,
        ssrc: 0xdead_beef,
        csrc: vec![1, 2],
        ..Header::default()
    };
    let mut packet = header.marshal().unwrap().to_vec();
    let length = packet.len();
    packet.extend_from_slice(payload);
    (packet, length)
}

/// RFC 3711 appendix B.3.
#[test]
fn session_keys_are_derived_as_in_the_rfc() {
    let bytes = hex("E1F97A0D3E018BE0D64FA32C06DE4139 0EC675AD498AFEEBB6960B3AABE6");
    let wire = SrtpKey(STANDARD.encode(bytes));
    let master = MasterKey::read(SrtpSuite::AesCm128HmacSha1_80, &wire).unwrap();
    let (mut key, mut salt, mut authentication) = ([0; 16], [0; 14], [0; 20]);
    derive(&master, label::ENCRYPTION, &mut key).unwrap();
    derive(&master, label::SALT, &mut salt).unwrap();
    derive(&master, label::AUTHENTICATION, &mut authentication).unwrap();
    assert_eq!(key.to_vec(), hex("C61E7A93744F39EE10734AFE3FF7A087"));
    assert_eq!(salt.to_vec(), hex("30CBBC08863D8C85D49DB34A9AE1"));
    assert_eq!(authentication.to_vec(), hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
}

/// RFC 7714 section 16.1.1.
#[test]
fn gcm_encrypts_as_in_the_rfc() {
    let session = || Session::Gcm {
        key: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &hex("000102030405060708090a0b0c0d0e0f")).unwrap()),
        salt: hex("517569642070726f2071756f").try_into().unwrap(),
    };
    let cipher = Cipher {
        rtp: session(),
        rtcp: session(),
    };
    let mut packet = hex("8040f17b 8041f8d3 5501a0b2");
    packet.extend(b"Gallia est omnis divisa in partes tres");
    cipher.seal_rtp(&mut packet, 12, 0x5501_a0b2, 0xf17b).unwrap();
    let expected = "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a 51c7d19b \
                    36de3adf 8833 899d7f27 beb16a91 52cf765e e4390cce";
    assert_eq!(packet, hex(expected));
}

#[test]
fn another_implementation_reads_what_is_sealed_and_writes_what_is_opened() {
    for profile in PROFILES {
        let key = master(profile);
        let cipher = Cipher::new(&key).unwrap();
        let mut opened = Vec::new();
        for length in [0, 1, 15, 16, 17, 1_000] {
            let payload = vec![length as u8; length];
            let (plain, header) = rtp_packet(65_000, &payload);
            let mut sealed = plain.clone();
            cipher.seal_rtp(&mut sealed, header, 0xdead_beef, 65_000).unwrap();
            assert_eq!(other_side(&key).decrypt_rtp(&sealed).unwrap(), plain);
            let theirs = other_side(&key).encrypt_rtp(&plain).unwrap();
            assert_eq!(theirs, sealed);
            assert!(cipher.open_rtp(&theirs, header, 0xdead_beef, 65_000, &mut opened));
            assert_eq!(opened, payload);
        }
        let plain = Compound::receiver_report(7, None).cname(7, "somebody").into_bytes();
        let mut sealed = plain.clone();
        cipher.seal_rtcp(&mut sealed, 7, 0x0102_0304).unwrap();
        assert_eq!(other_side(&key).decrypt_rtcp(&sealed).unwrap(), plain);
        let theirs = other_side(&key).encrypt_rtcp(&plain).unwrap();
        let index = cipher.rtcp_index(&theirs).unwrap();
        assert!(cipher.open_rtcp(&theirs, 7, index, &mut opened));
        assert_eq!(opened, plain);
    }
}

#[test]
fn a_rollover_is_part_of_what_is_authenticated() {
    for profile in PROFILES {
        let key = master(profile);
        let (cipher, mut theirs) = (Cipher::new(&key).unwrap(), other_side(&key));
        let mut sealed = Vec::new();
        let mut header = 0;
        for sequence in [0u16, 0x7000, 0xe000, 0x1000] {
            let (plain, length) = rtp_packet(sequence, b"payload");
            sealed = theirs.encrypt_rtp(&plain).unwrap().to_vec();
            header = length;
        }
        let mut opened = Vec::new();
        assert!(!cipher.open_rtp(&sealed, header, 0xdead_beef, 0x1000, &mut opened));
        assert!(cipher.open_rtp(&sealed, header, 0xdead_beef, 0x1_1000, &mut opened));
    }
}

#[test]
fn no_changed_or_cut_packet_is_authentic() {
    for profile in PROFILES {
        let cipher = Cipher::new(&master(profile)).unwrap();
        let mut opened = Vec::new();
        let (mut rtp, header) = rtp_packet(5, b"some payload");
        cipher.seal_rtp(&mut rtp, header, 0xdead_beef, 5).unwrap();
        let mut rtcp = Compound::receiver_report(7, None).cname(7, "somebody").into_bytes();
        cipher.seal_rtcp(&mut rtcp, 7, 9).unwrap();
        for byte in 0..rtp.len() {
            let mut changed = rtp.clone();
            changed[byte] ^= 1;
            assert!(
                !cipher.open_rtp(&changed, header, 0xdead_beef, 5, &mut opened),
                "{byte}"
            );
            assert!(
                !cipher.open_rtp(&rtp[..byte], header, 0xdead_beef, 5, &mut opened),
                "{byte}"
            );
        }
        for byte in 0..rtcp.len() {
            let mut changed = rtcp.clone();
            changed[byte] ^= 1;
            for packet in [&changed[..], &rtcp[..byte]] {
                let index = cipher.rtcp_index(packet);
                let is_taken = index.is_some_and(|index| cipher.open_rtcp(packet, 7, index, &mut opened));
                assert!(!is_taken, "{byte}");
            }
        }
    }
}

#[test]
fn rtcp_that_says_that_it_is_not_encrypted_has_no_index() {
    for profile in PROFILES {
        let cipher = Cipher::new(&master(profile)).unwrap();
        let mut rtcp = Compound::receiver_report(7, None).into_bytes();
        cipher.seal_rtcp(&mut rtcp, 7, 9).unwrap();
        assert_eq!(cipher.rtcp_index(&rtcp), Some(9));
        let word = match profile {
            Profile::AesCm128HmacSha1_80 => rtcp.len() - 14,
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => rtcp.len() - 4,
        };
        rtcp[word] &= 0x7f;
        assert_eq!(cipher.rtcp_index(&rtcp), None);
    }
}
