//! The access token: what an application's server signs for one participant, and the gateway checks.
//!
//! A JWT (RFC 7519), HS256, signed with an API key's secret, with the claim layout of LiveKit's tokens, so that existing token
//! servers work as they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    /// What kind of participant: `standard`, `agent`, `ingress`, `egress`, `sip`; empty: standard.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
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
    }
}
