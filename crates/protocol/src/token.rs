//! The access token: what an application's server signs for one participant, and the gateway checks.
//!
//! A JWT (RFC 7519), HS256, signed with an API key's secret, with the claim layout of LiveKit's tokens, so that existing token
//! servers work as they are.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};

use serde::{Deserialize, Serialize};

use crate::control::{ParticipantLimits, Quality};

/// An access token's claims.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessClaims {
    /// The API key.
    pub iss: String,
    /// The identity. Empty in tokens of servers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sub: String,
    /// When it expires, in seconds since 1970.
    pub exp: u64,
    /// When it begins to hold, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// A name to show.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What it allows.
    #[serde(default)]
    pub video: VideoGrant,
    /// Free text, shown to the other participants.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// Free key-value pairs, shown to the other participants.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// What it may use. Not a claim of LiveKit's, whose servers ignore it.
    #[serde(default, rename = "signalbox", skip_serializing_if = "LimitsClaim::is_empty")]
    pub limits: LimitsClaim,
    /// What kind of participant: `standard`, `agent`, `ingress`, `egress`, `sip`; empty: standard.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
}

/// What the bearer of an access token may use: the claim `signalbox`. What is absent is as the node allows, and what the node does not
/// allow a token cannot. A field that is not known is refused, so that no limit is forgotten for a slip of the pen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitsClaim {
    /// Bits per second that it publishes, all its tracks together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_publish_bitrate: Option<NonZeroU64>,
    /// Tracks that it publishes at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tracks: Option<NonZeroU32>,
    /// Bits per second that it receives, all tracks together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_receive_bitrate: Option<NonZeroU64>,
    /// The highest quality that it receives of any track: `low`, `medium`, `high`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_receive_quality: Option<Quality>,
}

impl LimitsClaim {
    /// Whether it limits nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<&LimitsClaim> for ParticipantLimits {
    fn from(claim: &LimitsClaim) -> Self {
        Self {
            publish_bps: claim.max_publish_bitrate.map(NonZeroU64::get),
            tracks: claim.max_tracks.map(NonZeroU32::get),
            receive_quality: claim.max_receive_quality,
            receive_bps: claim.max_receive_bitrate.map(NonZeroU64::get),
        }
    }
}

/// What an access token allows. What is absent is allowed for `can…` of joining participants, and forbidden for the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VideoGrant {
    /// Join [`VideoGrant::room`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub room_join: bool,
    /// The room that it is for; empty: none, unless it is a server's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub room: String,
    /// Create and delete rooms.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub room_create: bool,
    /// List rooms.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub room_list: bool,
    /// Manage [`VideoGrant::room`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub room_admin: bool,
    /// Publish tracks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub can_publish: Option<bool>,
    /// Receive tracks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub can_subscribe: Option<bool>,
    /// Send data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub can_publish_data: Option<bool>,
    /// The sources that may be published (`camera`, `microphone`, `screen_share`, `screen_share_audio`); empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub can_publish_sources: Vec<String>,
    /// Change the own name, metadata and attributes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub can_update_own_metadata: Option<bool>,
    /// Not shown to the others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_livekit_token_is_understood() {
        let json = r#"{"iss":"devkey","sub":"ann","exp":1,"nbf":0,"name":"Ann","video":{"roomJoin":true,"room":"daily","canPublish":true,"canPublishSources":["camera"],"agent":false}}"#;
        let claims: AccessClaims = serde_json::from_str(json).unwrap();
        assert_eq!(claims.sub, "ann");
        assert!(claims.video.room_join);
        assert_eq!(claims.video.room, "daily");
        assert_eq!(claims.video.can_publish, Some(true));
        assert_eq!(claims.video.can_subscribe, None);
        assert_eq!(claims.video.can_publish_sources, ["camera"]);
        assert!(claims.limits.is_empty());
        assert!(!serde_json::to_string(&claims).unwrap().contains("signalbox"));
    }

    #[test]
    fn limits_keep_their_json_and_what_makes_no_sense_is_refused() {
        let json =
            r#"{"maxPublishBitrate":2000000,"maxTracks":2,"maxReceiveBitrate":1000000,"maxReceiveQuality":"medium"}"#;
        let claim: LimitsClaim = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&claim).unwrap(), json);
        let limits = ParticipantLimits {
            publish_bps: Some(2_000_000),
            tracks: Some(2),
            receive_quality: Some(Quality::Medium),
            receive_bps: Some(1_000_000),
        };
        assert_eq!(ParticipantLimits::from(&claim), limits);
        for wrong in [
            r#"{"maxTracks":0}"#,
            r#"{"maxTracks":-1}"#,
            r#"{"maxPublishBitrate":"2M"}"#,
            r#"{"maxReceiveQuality":"best"}"#,
            r#"{"maxBitrate":1}"#,
        ] {
            assert!(serde_json::from_str::<LimitsClaim>(wrong).is_err(), "{wrong}");
        }
    }
}
