//! The domain model: rooms, participants, tracks. Every client dialect is translated into it, and the media node knows no other.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{Generation, Identity, NodeId, ParticipantId, RoomName, TrackId};

/// A room as its participants see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoomInfo {
    /// Its name.
    pub name: RoomName,
    /// Its id from when it is opened until it is closed, at whichever nodes: `RM_…`.
    pub id: String,
    /// How often it has been placed.
    pub generation: Generation,
    /// When it was opened, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// Participants that are not hidden.
    pub participants: u32,
    /// Participants that publish at least one track.
    pub publishers: u32,
    /// Free text of the application.
    #[serde(default)]
    pub metadata: String,
}

/// A participant as the others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ParticipantInfo {
    /// This stay's id.
    pub id: ParticipantId,
    /// Who it is.
    pub identity: Identity,
    /// A name to show; may be empty.
    pub name: String,
    /// Free text of the application.
    pub metadata: String,
    /// Free key-value pairs of the application.
    pub attributes: BTreeMap<String, String>,
    /// How far the connection has come.
    pub state: ParticipantState,
    /// What it publishes.
    pub tracks: Vec<TrackInfo>,
    /// When it joined, in milliseconds since 1970.
    pub joined_at_ms: u64,
    /// Grows with every change, so that a receiver can drop what is out of date.
    pub version: u32,
    /// What it may do.
    pub grants: Grants,
    /// What the participant's own dialect wants its peers in the same dialect to be told. Opaque to everyone else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialect_info: Option<String>,
}

/// How far a participant's connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ParticipantState {
    /// In the room; no media connection yet.
    Joined,
    /// ICE and DTLS are up.
    Active,
}

/// What a participant may do. Checked by the media node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Grants {
    /// Publish tracks.
    pub publish: bool,
    /// Receive tracks.
    pub subscribe: bool,
    /// Send on data channels.
    pub publish_data: bool,
    /// The sources it may publish; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// Change its own name, metadata and attributes.
    #[serde(default)]
    pub update_own_metadata: bool,
    /// Not shown to the others.
    #[serde(default)]
    pub hidden: bool,
}

/// What is to change of a participant's [`Grants`]; what is not named stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GrantsUpdate {
    /// See [`Grants::publish`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<bool>,
    /// See [`Grants::subscribe`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscribe: Option<bool>,
    /// See [`Grants::publish_data`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_data: Option<bool>,
    /// See [`Grants::sources`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sources: Option<Vec<Source>>,
    /// See [`Grants::update_own_metadata`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_own_metadata: Option<bool>,
    /// See [`Grants::hidden`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<bool>,
}

impl GrantsUpdate {
    /// Changes what is named.
    pub fn apply(self, grants: &mut Grants) {
        let set = |field: &mut bool, value: Option<bool>| *field = value.unwrap_or(*field);
        set(&mut grants.publish, self.publish);
        set(&mut grants.subscribe, self.subscribe);
        set(&mut grants.publish_data, self.publish_data);
        set(&mut grants.update_own_metadata, self.update_own_metadata);
        set(&mut grants.hidden, self.hidden);
        if let Some(sources) = self.sources {
            grants.sources = sources;
        }
    }
}

impl Default for Grants {
    /// Everything that a plain room token allows.
    fn default() -> Self {
        Self {
            publish: true,
            subscribe: true,
            publish_data: true,
            sources: Vec::new(),
            update_own_metadata: false,
            hidden: false,
        }
    }
}

/// Sound or picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Kind {
    /// Sound.
    Audio,
    /// Picture.
    Video,
}

/// Where a track comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Source {
    /// Not said.
    Unknown,
    /// A camera.
    Camera,
    /// A microphone.
    Microphone,
    /// A shared screen's picture.
    ScreenShare,
    /// A shared screen's sound.
    ScreenShareAudio,
}

/// A published track as the others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrackInfo {
    /// Its id.
    pub id: TrackId,
    /// Sound or picture.
    pub kind: Kind,
    /// Where it comes from.
    pub source: Source,
    /// A name that the publisher chose; may be empty.
    pub name: String,
    /// Whether the publisher has muted it.
    pub muted: bool,
    /// The media type of its codec, such as `video/VP8`; empty until it is negotiated.
    pub mime_type: String,
    /// Full width in pixels; 0 when not said.
    pub width: u32,
    /// Full height in pixels; 0 when not said.
    pub height: u32,
    /// Simulcast layers, lowest first. Empty: a single stream.
    pub layers: Vec<LayerInfo>,
    /// The m-line of the publisher's connection that carries it; empty until it is negotiated.
    pub mid: String,
    /// Tracks with the same stream are to be played in sync (camera with microphone).
    pub stream: String,
    /// See [`ParticipantInfo::dialect_info`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialect_info: Option<String>,
}

/// One simulcast layer (RFC 8853).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LayerInfo {
    /// The RTP stream id that marks its packets (RFC 8852), such as `q`, `h`, `f`.
    pub rid: String,
    /// Width in pixels; 0 when not said.
    pub width: u32,
    /// Height in pixels; 0 when not said.
    pub height: u32,
    /// Expected bit rate in bits per second; 0 when not said.
    pub bitrate: u32,
}

/// What a publisher says about a track before or while its media arrives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PublishTrack {
    /// The publisher's own id of it: the track id in the `a=msid` line of its m-line, or that line's mid.
    pub cid: String,
    /// Sound or picture.
    pub kind: Kind,
    /// Where it comes from.
    pub source: Source,
    /// A name; may be empty.
    #[serde(default)]
    pub name: String,
    /// Published muted.
    #[serde(default)]
    pub muted: bool,
    /// Full width in pixels; 0 when not said.
    #[serde(default)]
    pub width: u32,
    /// Full height in pixels; 0 when not said.
    #[serde(default)]
    pub height: u32,
    /// Simulcast layers, lowest first; may be empty.
    #[serde(default)]
    pub layers: Vec<LayerInfo>,
    /// The codec to send in, by its media type, such as `video/VP9`; none, or one that is not negotiated: the first of the offer. `audio/red` is
    /// Opus that repeats what came before (RFC 2198).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
    /// A second codec, by its media type, that the publisher sends as well as soon as somebody can receive only that
    /// ([`EncodingsWanted`](crate::control::Event::EncodingsWanted)).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(ignore))]
    pub backup_codec: Option<String>,
    /// This is no new track, but another encoding, in [`PublishTrack::codec`], of one that the participant publishes already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(ignore))]
    pub encoding_of: Option<TrackId>,
    /// See [`TrackInfo::stream`]; empty: `camera` for camera and microphone, `screen` for a shared screen.
    #[serde(default)]
    pub stream: String,
    /// See [`ParticipantInfo::dialect_info`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(ignore))]
    pub dialect_info: Option<String>,
}

impl PublishTrack {
    /// A track of which nothing more is said.
    pub fn new(cid: impl Into<String>, kind: Kind, source: Source) -> Self {
        Self {
            cid: cid.into(),
            kind,
            source,
            name: String::new(),
            muted: false,
            width: 0,
            height: 0,
            layers: Vec::new(),
            codec: None,
            backup_codec: None,
            encoding_of: None,
            stream: String::new(),
            dialect_info: None,
        }
    }
}

/// Where a client streams to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MediaAddress {
    /// The shard's public address.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub ip: IpAddr,
    /// The shard's UDP port.
    pub port: u16,
    /// The node.
    pub node: NodeId,
    /// The room's generation there.
    pub generation: Generation,
}

impl MediaAddress {
    /// Address and port as one.
    pub fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

/// How loud a participant is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Speaker {
    /// Who.
    pub participant: ParticipantId,
    /// 0 (silent) to 1 (loudest).
    pub level: f32,
    /// Whether it counts as speaking.
    pub active: bool,
    /// Whether it has the floor: the one to be shown large, at most one of a room. It keeps that while nobody speaks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dominant: bool,
}

/// How well a participant's connection does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ParticipantQuality {
    /// Whose.
    pub participant: ParticipantId,
    /// How well.
    pub quality: ConnectionQuality,
}

/// Steps of quality of a connection, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ConnectionQuality {
    /// Nothing to be noticed.
    Excellent,
    /// Some loss or delay.
    Good,
    /// Loss or delay that people notice.
    Poor,
    /// Nothing is heard from the participant.
    Lost,
}

/// A receive slot: an m-line on which the client of a single connection receives, and what it carries at present.
///
/// The client's offer decides how many there are; the media node fills them and reports each change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Slot {
    /// The m-line (`a=mid`).
    pub mid: String,
    /// Sound or picture.
    pub kind: Kind,
    /// The track that it carries; none: free.
    pub track: Option<SlotTrack>,
}

/// What a [`Slot`] carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SlotTrack {
    /// Whose track.
    pub participant: ParticipantId,
    /// Which track.
    pub track: TrackId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_track_keeps_its_json() {
        let track = TrackInfo {
            id: TrackId::new("TR_a"),
            kind: Kind::Video,
            source: Source::ScreenShare,
            name: String::new(),
            muted: false,
            mime_type: "video/VP8".into(),
            width: 640,
            height: 360,
            layers: vec![LayerInfo {
                rid: "q".into(),
                width: 160,
                height: 90,
                bitrate: 120_000,
            }],
            mid: "0".into(),
            stream: "screen".into(),
            dialect_info: None,
        };
        let json = r#"{"id":"TR_a","kind":"video","source":"screen_share","name":"","muted":false,"mime_type":"video/VP8","width":640,"height":360,"layers":[{"rid":"q","width":160,"height":90,"bitrate":120000}],"mid":"0","stream":"screen"}"#;
        assert_eq!(serde_json::to_string(&track).unwrap(), json);
        assert_eq!(serde_json::from_str::<TrackInfo>(json).unwrap(), track);
    }

    #[test]
    fn what_an_update_does_not_name_stays() {
        let mut grants = Grants::default();
        let update: GrantsUpdate = serde_json::from_str(r#"{"publish":false,"sources":["camera"]}"#).unwrap();
        update.apply(&mut grants);
        let expected = Grants {
            publish: false,
            sources: vec![Source::Camera],
            ..Grants::default()
        };
        assert_eq!(grants, expected);
        assert!(serde_json::from_str::<GrantsUpdate>(r#"{"publsh":false}"#).is_err());
    }
}
