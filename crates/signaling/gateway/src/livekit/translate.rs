//! The domain's rooms, participants and tracks in LiveKit's words.
//!
//! Pure. Enum values that LiveKit's protocol does not list never leave here, since its JSON mapping has no form for
//! them.

use livekit_protocol as lk;
use signalbox_protocol::control::{CloseReason, CodecWanted, Quality, StreamState, SubscriptionFault};
use signalbox_protocol::room::{
    ConnectionQuality, Grants, Kind, ParticipantInfo, ParticipantQuality, ParticipantState, RoomInfo, Source, Speaker,
    TrackInfo,
};

use super::dialect;

/// The codecs that the media node passes through, as LiveKit lists them. Non-empty, so that SDKs negotiate while they
/// announce a track.
const CODECS: [&str; 5] = ["audio/opus", "video/VP8", "video/H264", "video/VP9", "video/AV1"];

/// The codecs that a participant may publish.
pub(super) fn codecs() -> Vec<lk::Codec> {
    CODECS
        .iter()
        .map(|mime| lk::Codec {
            mime: (*mime).to_owned(),
            fmtp_line: String::new(),
        })
        .collect()
}

/// A room.
pub(super) fn room(info: &RoomInfo) -> lk::Room {
    lk::Room {
        sid: info.id.clone(),
        name: info.name.to_string(),
        creation_time: seconds(info.created_at_ms),
        creation_time_ms: millis(info.created_at_ms),
        enabled_codecs: codecs(),
        num_participants: info.participants,
        num_publishers: info.publishers,
        metadata: info.metadata.clone(),
        ..lk::Room::default()
    }
}

/// A participant that is in the room.
pub(super) fn participant(info: &ParticipantInfo) -> lk::ParticipantInfo {
    let said: lk::ParticipantInfo = dialect::unpack(info.dialect_info.as_deref());
    let kind = known::<lk::participant_info::Kind>(said.kind);
    lk::ParticipantInfo {
        sid: info.id.to_string(),
        identity: info.identity.to_string(),
        state: match info.state {
            ParticipantState::Joined => lk::participant_info::State::Joined,
            ParticipantState::Active => lk::participant_info::State::Active,
        }
        .into(),
        tracks: info.tracks.iter().map(track).collect(),
        metadata: info.metadata.clone(),
        joined_at: seconds(info.joined_at_ms),
        joined_at_ms: millis(info.joined_at_ms),
        name: info.name.clone(),
        version: info.version,
        permission: Some(permission(&info.grants, kind)),
        is_publisher: !info.tracks.is_empty(),
        kind,
        attributes: info.attributes.clone().into_iter().collect(),
        client_protocol: said.client_protocol,
        capabilities: all_known::<lk::client_info::Capability>(said.capabilities),
        ..lk::ParticipantInfo::default()
    }
}

/// A participant that is gone.
pub(super) fn departed(info: &ParticipantInfo) -> lk::ParticipantInfo {
    lk::ParticipantInfo {
        state: lk::participant_info::State::Disconnected.into(),
        tracks: Vec::new(),
        is_publisher: false,
        ..participant(info)
    }
}

/// A published track.
#[allow(deprecated)] // Clients still read `layers`, `simulcast`, `stereo` and `disable_dtx`.
pub(super) fn track(info: &TrackInfo) -> lk::TrackInfo {
    let said: lk::TrackInfo = dialect::unpack(info.dialect_info.as_deref());
    let layers = layers(info, said.layers);
    let audio_features = all_known::<lk::AudioTrackFeature>(said.audio_features);
    lk::TrackInfo {
        sid: info.id.to_string(),
        r#type: kind(info.kind).into(),
        name: info.name.clone(),
        muted: info.muted,
        width: info.width,
        height: info.height,
        simulcast: info.layers.len() > 1,
        disable_dtx: said.disable_dtx,
        source: source(info.source).into(),
        codecs: track_codecs(info, said.codecs, &layers),
        layers,
        mime_type: info.mime_type.clone(),
        mid: info.mid.clone(),
        stereo: said.stereo,
        disable_red: said.disable_red,
        encryption: known::<lk::encryption::Type>(said.encryption),
        stream: info.stream.clone(),
        version: None,
        audio_features,
        backup_codec_policy: known::<lk::BackupCodecPolicy>(said.backup_codec_policy),
        packet_trailer_features: all_known::<lk::PacketTrailerFeature>(said.packet_trailer_features),
    }
}

/// The layers of a picture: the simulcast ones that the domain knows, else what the publisher said about a scalable
/// stream, else one.
fn layers(info: &TrackInfo, said: Vec<lk::VideoLayer>) -> Vec<lk::VideoLayer> {
    if info.kind == Kind::Audio {
        return Vec::new();
    }
    if info.layers.is_empty() {
        let said = known_layers(said);
        if !said.is_empty() {
            return said;
        }
        return vec![lk::VideoLayer {
            quality: lk::VideoQuality::High.into(),
            width: info.width,
            height: info.height,
            ..lk::VideoLayer::default()
        }];
    }
    (0_i32..)
        .zip(&info.layers)
        .map(|(index, layer)| lk::VideoLayer {
            quality: quality_of_rid(&layer.rid, index).into(),
            width: layer.width,
            height: layer.height,
            bitrate: layer.bitrate,
            spatial_layer: index,
            rid: layer.rid.clone(),
            ..lk::VideoLayer::default()
        })
        .collect()
}

/// The publisher's list of codecs, its first entry completed with what was negotiated.
fn track_codecs(
    info: &TrackInfo,
    said: Vec<lk::SimulcastCodecInfo>,
    layers: &[lk::VideoLayer],
) -> Vec<lk::SimulcastCodecInfo> {
    let mut codecs: Vec<_> = said
        .into_iter()
        .map(|codec| lk::SimulcastCodecInfo {
            layers: known_layers(codec.layers),
            video_layer_mode: known::<lk::video_layer::Mode>(codec.video_layer_mode),
            ..codec
        })
        .collect();
    if info.mime_type.is_empty() {
        return codecs;
    }
    if codecs.is_empty() {
        codecs.push(lk::SimulcastCodecInfo::default());
    }
    if let Some(first) = codecs.first_mut() {
        first.mime_type = info.mime_type.clone();
        first.mid = info.mid.clone();
        if first.layers.is_empty() {
            first.layers = layers.to_vec();
        }
    }
    codecs
}

fn known_layers(layers: Vec<lk::VideoLayer>) -> Vec<lk::VideoLayer> {
    layers
        .into_iter()
        .map(|layer| lk::VideoLayer {
            quality: known::<lk::VideoQuality>(layer.quality),
            ..layer
        })
        .collect()
}

/// The quality that an RTP stream id stands for by the convention of LiveKit's SDKs, else by its place.
fn quality_of_rid(rid: &str, index: i32) -> lk::VideoQuality {
    match (rid, index) {
        ("q", _) => lk::VideoQuality::Low,
        ("h", _) => lk::VideoQuality::Medium,
        ("f", _) => lk::VideoQuality::High,
        (_, 0) => lk::VideoQuality::Low,
        (_, 1) => lk::VideoQuality::Medium,
        _ => lk::VideoQuality::High,
    }
}

/// Who speaks.
pub(super) fn speaker(speaker: &Speaker) -> lk::SpeakerInfo {
    lk::SpeakerInfo {
        sid: speaker.participant.to_string(),
        level: speaker.level,
        active: speaker.active,
    }
}

#[allow(deprecated)] // `agent` is what older SDKs read.
fn permission(grants: &Grants, kind: i32) -> lk::ParticipantPermission {
    lk::ParticipantPermission {
        can_subscribe: grants.subscribe,
        can_publish: grants.publish,
        can_publish_data: grants.publish_data,
        can_publish_sources: grants.sources.iter().map(|s| source(*s).into()).collect(),
        hidden: grants.hidden,
        can_update_metadata: grants.update_own_metadata,
        agent: kind == i32::from(lk::participant_info::Kind::Agent),
        ..lk::ParticipantPermission::default()
    }
}

fn kind(kind: Kind) -> lk::TrackType {
    match kind {
        Kind::Audio => lk::TrackType::Audio,
        Kind::Video => lk::TrackType::Video,
    }
}

fn source(source: Source) -> lk::TrackSource {
    match source {
        Source::Unknown => lk::TrackSource::Unknown,
        Source::Camera => lk::TrackSource::Camera,
        Source::Microphone => lk::TrackSource::Microphone,
        Source::ScreenShare => lk::TrackSource::ScreenShare,
        Source::ScreenShareAudio => lk::TrackSource::ScreenShareAudio,
    }
}

/// The domain's word for a source; one that is not listed is [`Source::Unknown`].
pub(super) fn source_from(source: i32) -> Source {
    match lk::TrackSource::try_from(source) {
        Ok(lk::TrackSource::Camera) => Source::Camera,
        Ok(lk::TrackSource::Microphone) => Source::Microphone,
        Ok(lk::TrackSource::ScreenShare) => Source::ScreenShare,
        Ok(lk::TrackSource::ScreenShareAudio) => Source::ScreenShareAudio,
        Ok(lk::TrackSource::Unknown) | Err(_) => Source::Unknown,
    }
}

/// The domain's word for a kind of track; none for data and for what is not listed.
pub(super) fn kind_from(kind: i32) -> Option<Kind> {
    match lk::TrackType::try_from(kind) {
        Ok(lk::TrackType::Audio) => Some(Kind::Audio),
        Ok(lk::TrackType::Video) => Some(Kind::Video),
        Ok(lk::TrackType::Data) | Err(_) => None,
    }
}

/// The domain's word for a quality; none when it is not listed, or off.
pub(super) fn quality_from(quality: i32) -> Option<Quality> {
    match lk::VideoQuality::try_from(quality) {
        Ok(lk::VideoQuality::Low) => Some(Quality::Low),
        Ok(lk::VideoQuality::Medium) => Some(Quality::Medium),
        Ok(lk::VideoQuality::High) => Some(Quality::High),
        Ok(lk::VideoQuality::Off) | Err(_) => None,
    }
}

/// What is wanted of one codec of an own track. Clients compare the codec with its name in their own options, such as `vp9`, and take every
/// quality that is not named for what it was. They send the simulcast layers that are enabled and no others. Of a scalable stream they look at
/// the highest alone, and of one without layers at whether the lowest is enabled: of both the node names all up to the highest.
pub(super) fn codec_wanted(wanted: &CodecWanted) -> lk::SubscribedCodec {
    let rungs = [
        (Quality::Low, lk::VideoQuality::Low),
        (Quality::Medium, lk::VideoQuality::Medium),
        (Quality::High, lk::VideoQuality::High),
    ];
    let qualities = rungs.into_iter().map(|(rung, quality)| lk::SubscribedQuality {
        quality: quality.into(),
        enabled: wanted.layers.contains(&rung),
    });
    lk::SubscribedCodec {
        codec: bare_codec(&wanted.mime_type),
        qualities: qualities.collect(),
    }
}

/// `VP9` and `video/VP9` alike are `vp9`.
pub(super) fn bare_codec(codec: &str) -> String {
    let codec = codec.to_ascii_lowercase();
    codec.strip_prefix("video/").map(str::to_owned).unwrap_or(codec)
}

/// Whether a track is sent to the client.
pub(super) fn stream_state(told: &StreamState) -> lk::StreamStateInfo {
    let state = if told.paused {
        lk::StreamState::Paused
    } else {
        lk::StreamState::Active
    };
    lk::StreamStateInfo {
        participant_sid: told.participant.to_string(),
        track_sid: told.track.to_string(),
        state: state.into(),
    }
}

/// Why a track cannot be received.
pub(super) fn subscription_error(reason: SubscriptionFault) -> lk::SubscriptionError {
    match reason {
        SubscriptionFault::Codec => lk::SubscriptionError::SeCodecUnsupported,
    }
}

/// How well a participant's connection does. The words are the same; clients that are told for long that they are lost reconnect.
pub(super) fn connection_quality(told: &ParticipantQuality) -> lk::ConnectionQualityInfo {
    let quality = match told.quality {
        ConnectionQuality::Excellent => lk::ConnectionQuality::Excellent,
        ConnectionQuality::Good => lk::ConnectionQuality::Good,
        ConnectionQuality::Poor => lk::ConnectionQuality::Poor,
        ConnectionQuality::Lost => lk::ConnectionQuality::Lost,
    };
    lk::ConnectionQualityInfo {
        participant_sid: told.participant.to_string(),
        quality: quality.into(),
        ..lk::ConnectionQualityInfo::default()
    }
}

/// The message that ends a client's session, or sends it to begin a new one.
pub(super) fn leave(reason: lk::DisconnectReason, action: lk::leave_request::Action) -> lk::LeaveRequest {
    lk::LeaveRequest {
        // What clients older than `action` read.
        can_reconnect: action != lk::leave_request::Action::Disconnect,
        reason: reason.into(),
        action: action.into(),
        regions: None,
    }
}

/// What a participant that the node has closed is told.
pub(super) fn closed(reason: CloseReason) -> lk::LeaveRequest {
    use lk::DisconnectReason as Reason;
    use lk::leave_request::Action;
    match reason {
        CloseReason::Left => leave(Reason::ClientInitiated, Action::Disconnect),
        CloseReason::Removed => leave(Reason::ParticipantRemoved, Action::Disconnect),
        CloseReason::DuplicateIdentity => leave(Reason::DuplicateIdentity, Action::Disconnect),
        CloseReason::RoomClosed => leave(Reason::RoomDeleted, Action::Disconnect),
        // The client is alive, or nobody would be told: with new peer connections it can have its place back.
        CloseReason::TimedOut => leave(Reason::ConnectionTimeout, Action::Reconnect),
        CloseReason::NodeGone => leave(Reason::ServerShutdown, Action::Reconnect),
        CloseReason::Failed => leave(Reason::MediaFailure, Action::Reconnect),
    }
}

/// The value if the enum lists it, else the enum's zero.
pub(super) fn known<E: TryFrom<i32>>(value: i32) -> i32 {
    if E::try_from(value).is_ok() { value } else { 0 }
}

/// The values that the enum lists.
pub(super) fn all_known<E: TryFrom<i32>>(values: Vec<i32>) -> Vec<i32> {
    values.into_iter().filter(|value| E::try_from(*value).is_ok()).collect()
}

fn millis(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn seconds(ms: u64) -> i64 {
    millis(ms / 1000)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use signalbox_protocol::room::LayerInfo;
    use signalbox_protocol::{ParticipantId, TrackId};

    use super::*;

    fn camera() -> TrackInfo {
        let layer = |rid: &str, width| LayerInfo {
            rid: rid.into(),
            width,
            height: width / 2,
            bitrate: width * 1000,
        };
        TrackInfo {
            id: TrackId::new("TR_a"),
            kind: Kind::Video,
            source: Source::Camera,
            name: "cam".into(),
            muted: true,
            mime_type: "video/VP8".into(),
            width: 640,
            height: 320,
            layers: vec![layer("q", 160), layer("h", 320), layer("f", 640)],
            mid: "1".into(),
            stream: "camera".into(),
            dialect_info: None,
        }
    }

    fn ann(dialect_info: Option<String>) -> ParticipantInfo {
        ParticipantInfo {
            id: ParticipantId::new("PA_a"),
            identity: "ann".parse().unwrap(),
            name: "Ann".into(),
            metadata: "m".into(),
            attributes: BTreeMap::from([("k".into(), "v".into())]),
            state: ParticipantState::Active,
            tracks: vec![camera()],
            joined_at_ms: 1_999,
            version: 7,
            grants: Grants {
                sources: vec![Source::Microphone],
                hidden: true,
                ..Grants::default()
            },
            dialect_info,
        }
    }

    #[test]
    #[allow(deprecated)]
    fn a_simulcast_track_is_told_with_its_layers() {
        let track = track(&camera());
        assert_eq!(
            (track.sid.as_str(), track.r#type(), track.source()),
            ("TR_a", lk::TrackType::Video, lk::TrackSource::Camera)
        );
        assert!(track.muted && track.simulcast);
        let layers: Vec<_> = track
            .layers
            .iter()
            .map(|l| (l.quality(), l.width, l.spatial_layer))
            .collect();
        assert_eq!(
            layers,
            [
                (lk::VideoQuality::Low, 160, 0),
                (lk::VideoQuality::Medium, 320, 1),
                (lk::VideoQuality::High, 640, 2)
            ]
        );
        assert_eq!(track.codecs.len(), 1);
        assert_eq!(
            (track.codecs[0].mime_type.as_str(), track.codecs[0].mid.as_str()),
            ("video/VP8", "1")
        );
        assert_eq!(track.codecs[0].layers, track.layers);
    }

    #[test]
    #[allow(deprecated)]
    fn a_single_picture_has_one_layer_and_sound_has_none() {
        let mut info = camera();
        info.layers.clear();
        let video = track(&info);
        assert!(!video.simulcast);
        assert_eq!(video.layers.len(), 1);
        assert_eq!(
            (video.layers[0].quality(), video.layers[0].width),
            (lk::VideoQuality::High, 640)
        );
        info.kind = Kind::Audio;
        assert!(track(&info).layers.is_empty());
    }

    #[test]
    fn a_participant_is_told_with_what_its_client_said() {
        let said = lk::ParticipantInfo {
            sid: "PA_forged".into(),
            kind: lk::participant_info::Kind::Agent.into(),
            client_protocol: 1,
            capabilities: vec![1, 999],
            ..lk::ParticipantInfo::default()
        };
        let info = participant(&ann(dialect::pack(&said)));
        assert_eq!((info.sid.as_str(), info.version), ("PA_a", 7));
        assert_eq!((info.joined_at, info.joined_at_ms), (1, 1_999));
        assert_eq!(
            (info.kind(), info.client_protocol),
            (lk::participant_info::Kind::Agent, 1)
        );
        assert_eq!(info.capabilities, [1]);
        assert_eq!(info.attributes["k"], "v");
        let permission = info.permission.unwrap();
        assert!(permission.hidden && permission.can_publish && !permission.can_update_metadata);
        assert_eq!(permission.can_publish_sources, [i32::from(lk::TrackSource::Microphone)]);
    }

    #[test]
    fn unknown_enum_values_never_reach_a_client() {
        let said = lk::TrackInfo {
            encryption: 99,
            audio_features: vec![0, 99],
            backup_codec_policy: -1,
            packet_trailer_features: vec![i32::MAX],
            codecs: vec![lk::SimulcastCodecInfo {
                video_layer_mode: 99,
                layers: vec![lk::VideoLayer {
                    quality: 99,
                    ..lk::VideoLayer::default()
                }],
                ..lk::SimulcastCodecInfo::default()
            }],
            ..lk::TrackInfo::default()
        };
        let info = track(&TrackInfo {
            dialect_info: dialect::pack(&said),
            ..camera()
        });
        assert!(serde_json::to_string(&info).is_ok(), "{info:?}");
        assert_eq!(source_from(99), Source::Unknown);
        assert_eq!(kind_from(99), None);
        assert_eq!(quality_from(99), None);
    }

    #[test]
    fn words_survive_the_way_there_and_back() {
        for said in [
            Source::Unknown,
            Source::Camera,
            Source::Microphone,
            Source::ScreenShare,
            Source::ScreenShareAudio,
        ] {
            assert_eq!(source_from(source(said).into()), said);
        }
        for said in [Kind::Audio, Kind::Video] {
            assert_eq!(kind_from(kind(said).into()), Some(said));
        }
    }
}
