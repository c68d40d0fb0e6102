//! Clients without a peer connection: RTP over UDP, encrypted with keys that the join hands out (SRTP, RFC 3711; the keys as in SDP
//! security descriptions, RFC 4568).
//!
//! Each stream is one SSRC in one direction with a key of its own. RTCP about a stream goes the other way, from an SSRC and with a key
//! that the join hands out as well. All of it goes to the shard's one UDP port, where the SSRC tells which key authenticates it.

use serde::{Deserialize, Serialize};

use crate::TrackId;
use crate::room::Kind;

/// How a stream is encrypted and authenticated. Its name is the one of SDP security descriptions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SrtpSuite {
    /// RFC 4568 section 6.2.1: AES-128 in counter mode, tags of 80 bits. What ffmpeg speaks.
    #[default]
    #[serde(rename = "AES_CM_128_HMAC_SHA1_80")]
    AesCm128HmacSha1_80,
    /// RFC 7714 section 14.2: AES-128 in Galois/counter mode, tags of 128 bits. Several times cheaper.
    #[serde(rename = "AEAD_AES_128_GCM")]
    AeadAes128Gcm,
}

impl SrtpSuite {
    /// Its name in SDP.
    pub fn name(self) -> &'static str {
        match self {
            Self::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
        }
    }

    /// The length of a master key, in bytes.
    pub fn key_bytes(self) -> usize {
        16
    }

    /// The length of a master salt, in bytes.
    pub fn salt_bytes(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 => 14,
            Self::AeadAes128Gcm => 12,
        }
    }
}

/// A master key followed by its master salt, in base64: what comes after `inline:` in SDP (RFC 4568 section 6.1). It is never logged.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
pub struct SrtpKey(pub String);

impl std::fmt::Debug for SrtpKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SrtpKey(…)")
    }
}

/// A datagram in base64 that proves an address. Whoever sends it first gets the stream sent to, so it is never logged either.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String))]
pub struct SrtpProof(pub String);

impl std::fmt::Debug for SrtpProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SrtpProof(…)")
    }
}

/// What a client without a peer connection asks for. What it publishes is in [`crate::control::Join::publish`], each with its codec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SrtpRequest {
    /// For all of its streams.
    #[serde(default)]
    pub suite: SrtpSuite,
    /// The SSRC of each track that it publishes, in the order of [`crate::control::Join::publish`]; none, or fewer of them: the node
    /// chooses. One that is in use on the shard is refused.
    #[serde(default)]
    pub ssrcs: Vec<Option<u32>>,
    /// A stream for each track that is published now and that it wants, in that track's codec.
    #[serde(default)]
    pub receive_present: bool,
    /// More streams to receive, for tracks to come.
    #[serde(default)]
    pub receive: Vec<SrtpWanted>,
    /// The streams that it published on a node that is gone: they go on with the same SSRCs and keys. In the order of
    /// [`crate::control::Join::publish`], empty: all are new.
    #[serde(default)]
    pub resume: Vec<SrtpResume>,
}

/// A stream to receive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SrtpWanted {
    /// Sound or picture.
    pub kind: Kind,
    /// The codec's media type, such as `video/VP8`: only tracks in this codec can be sent on it. None: Opus, or VP8.
    #[serde(default)]
    pub codec: Option<String>,
}

/// A stream that goes on at another node. Only what a client sends can: the keystream of its packets depends on numbers that the
/// client keeps. What the node sends gets new keys, since a new node would use a keystream twice (RFC 3711 section 9.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SrtpResume {
    /// See [`SrtpStream::ssrc`].
    pub ssrc: u32,
    /// See [`SrtpStream::payload_type`].
    pub payload_type: u8,
    /// See [`SrtpStream::key`].
    pub key: SrtpKey,
    /// The track's id, which stays.
    pub track: TrackId,
}

/// The streams of a client without a peer connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SrtpSession {
    /// What the client sends, in the order of [`crate::control::Join::publish`].
    pub publish: Vec<SrtpStream>,
    /// What the client receives. What each carries is told by [`crate::room::Slot`]s, by `mid`.
    pub receive: Vec<SrtpStream>,
    /// After how long without any sign of life it ends, in milliseconds.
    pub idle_ms: u64,
}

/// One RTP stream, in one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SrtpStream {
    /// Its name among the client's streams, as in [`crate::room::Slot::mid`] and [`crate::room::TrackInfo::mid`].
    pub mid: String,
    /// The track: of a published stream the client's own, of a received one what it carries at first, if anything.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub track: Option<TrackId>,
    /// Sound or picture.
    pub kind: Kind,
    /// The codec's media type, such as `video/VP8`.
    pub codec: String,
    /// RTP clock ticks per second.
    pub clock_rate: u32,
    /// The RTP payload type.
    pub payload_type: u8,
    /// The stream's SSRC.
    pub ssrc: u32,
    /// How it is encrypted.
    pub suite: SrtpSuite,
    /// The key of the stream's RTP, and of its sender's RTCP reports.
    pub key: SrtpKey,
    /// The SSRC that the stream's receiver sends its RTCP from.
    pub feedback_ssrc: u32,
    /// The key of the RTCP that the stream's receiver sends.
    pub feedback_key: SrtpKey,
    /// Of a received stream: a datagram in base64, authenticated with the feedback key. Sent from the port that the client receives on,
    /// it proves the address. It is good once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<SrtpProof>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_and_a_proof_are_never_shown() {
        let key = SrtpKey("c2VjcmV0".into());
        assert_eq!(format!("{key:?}"), "SrtpKey(…)");
        assert_eq!(format!("{:?}", SrtpProof("c2VjcmV0".into())), "SrtpProof(…)");
        assert_eq!(serde_json::to_string(&key).unwrap(), r#""c2VjcmV0""#);
    }

    #[test]
    fn a_suite_keeps_its_name() {
        for suite in [SrtpSuite::AesCm128HmacSha1_80, SrtpSuite::AeadAes128Gcm] {
            let json = serde_json::to_string(&suite).unwrap();
            assert_eq!(json, format!("\"{}\"", suite.name()));
            assert_eq!(serde_json::from_str::<SrtpSuite>(&json).unwrap(), suite);
        }
    }

    #[test]
    fn a_request_may_say_nothing() {
        let request: SrtpRequest = serde_json::from_str("{}").unwrap();
        assert_eq!(request.suite, SrtpSuite::AesCm128HmacSha1_80);
        assert!(request.receive.is_empty() && !request.receive_present);
    }
}
