//! LiveKit's announcement of a track in the domain's words.

use livekit_protocol as lk;
use signalbox_protocol::room::{Kind, LayerInfo, PublishTrack};

use super::dialect;
use super::translate::{all_known, kind_from, known, source_from};

/// The most simulcast layers, or codecs, that a track is taken to have. Clients send three and two.
const MAX_LADDER: usize = 8;

/// Why a track cannot be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsupported {
    /// It is neither sound nor picture.
    Kind,
    /// It is a second encoding, in another codec, of a track that is published already.
    SecondCodec,
}

impl Unsupported {
    /// A sentence for the client's developer.
    pub(super) fn detail(self) -> &'static str {
        match self {
            Unsupported::Kind => "Only audio and video tracks can be published this way.",
            Unsupported::SecondCodec => "A track is published in one codec: publish without a backup codec.",
        }
    }
}

/// The track that a client announces.
#[allow(deprecated)] // Clients still send `disable_dtx` and `stereo`.
pub(super) fn track(request: lk::AddTrackRequest) -> Result<PublishTrack, Unsupported> {
    let kind = kind_from(request.r#type).ok_or(Unsupported::Kind)?;
    if !request.sid.is_empty() {
        return Err(Unsupported::SecondCodec);
    }
    let scalable = is_scalable(&request.simulcast_codecs);
    let mut ladder = request.layers;
    ladder.truncate(MAX_LADDER);
    ladder.sort_by_key(|layer| layer.quality);
    let single = kind == Kind::Audio || scalable || ladder.len() < 2;

    let mut codecs = request.simulcast_codecs;
    codecs.truncate(MAX_LADDER);
    let preferred = codecs
        .first()
        .map(|first| first.codec.as_str())
        .filter(|name| !name.is_empty());
    let preferred = preferred.map(|name| match (name.contains('/'), kind) {
        (true, _) => name.to_owned(),
        (false, Kind::Audio) => format!("audio/{name}"),
        (false, Kind::Video) => format!("video/{name}"),
    });
    let mut audio_features = all_known::<lk::AudioTrackFeature>(request.audio_features);
    for (said, feature) in [
        (request.stereo, lk::AudioTrackFeature::TfStereo),
        (request.disable_dtx, lk::AudioTrackFeature::TfNoDtx),
    ] {
        if kind == Kind::Audio && said && !audio_features.contains(&feature.into()) {
            audio_features.push(feature.into());
        }
    }
    let said = lk::TrackInfo {
        disable_dtx: request.disable_dtx,
        stereo: request.stereo,
        disable_red: request.disable_red,
        encryption: known::<lk::encryption::Type>(request.encryption),
        audio_features,
        backup_codec_policy: known::<lk::BackupCodecPolicy>(request.backup_codec_policy),
        packet_trailer_features: all_known::<lk::PacketTrailerFeature>(request.packet_trailer_features),
        // A scalable stream's layers are no streams of their own, so the domain is not told of them; its viewers are.
        layers: if scalable { ladder.clone() } else { Vec::new() },
        codecs: codecs.into_iter().map(codec).collect(),
        ..lk::TrackInfo::default()
    };
    Ok(PublishTrack {
        backup_codec: None,
        encoding_of: None,
        cid: request.cid,
        kind,
        source: source_from(request.source),
        name: request.name,
        muted: request.muted,
        width: request.width,
        height: request.height,
        layers: if single {
            Vec::new()
        } else {
            ladder.into_iter().map(layer).collect()
        },
        codec: preferred,
        stream: request.stream,
        dialect_info: dialect::pack(&said),
    })
}

/// Whether all the layers come in one stream: so it is with VP9 and AV1 unless the client says otherwise.
fn is_scalable(codecs: &[lk::SimulcastCodec]) -> bool {
    use lk::video_layer::Mode;
    let Some(first) = codecs.first() else { return false };
    match Mode::try_from(first.video_layer_mode) {
        Ok(Mode::MultipleSpatialLayersPerStream) => true,
        Ok(Mode::OneSpatialLayerPerStream | Mode::OneSpatialLayerPerStreamIncompleteRtcpSr) => false,
        Ok(Mode::Unused) | Err(_) => matches!(bare_codec(&first.codec).as_str(), "vp9" | "av1"),
    }
}

/// `VP9` and `video/VP9` alike are `vp9`.
fn bare_codec(codec: &str) -> String {
    let codec = codec.to_ascii_lowercase();
    codec.strip_prefix("video/").map(str::to_owned).unwrap_or(codec)
}

fn codec(codec: lk::SimulcastCodec) -> lk::SimulcastCodecInfo {
    let mut layers = codec.layers;
    layers.truncate(MAX_LADDER);
    lk::SimulcastCodecInfo {
        mime_type: format!("video/{}", bare_codec(&codec.codec).to_ascii_uppercase()),
        cid: codec.cid,
        layers,
        video_layer_mode: codec.video_layer_mode,
        ..lk::SimulcastCodecInfo::default()
    }
}

fn layer(layer: lk::VideoLayer) -> LayerInfo {
    let rid = if layer.rid.is_empty() {
        // LiveKit's SDKs name their encodings so.
        match lk::VideoQuality::try_from(layer.quality) {
            Ok(lk::VideoQuality::Low) => "q",
            Ok(lk::VideoQuality::Medium) => "h",
            Ok(lk::VideoQuality::High | lk::VideoQuality::Off) | Err(_) => "f",
        }
        .to_owned()
    } else {
        layer.rid
    };
    LayerInfo {
        rid,
        width: layer.width,
        height: layer.height,
        bitrate: layer.bitrate,
    }
}

#[cfg(test)]
mod tests {
    use signalbox_protocol::TrackId;
    use signalbox_protocol::room::TrackInfo;

    use super::super::translate;
    use super::*;

    fn video(codec: &str) -> lk::AddTrackRequest {
        lk::AddTrackRequest {
            cid: "c1".into(),
            r#type: lk::TrackType::Video.into(),
            layers: (0..3)
                .rev()
                .map(|quality| lk::VideoLayer {
                    quality,
                    ..lk::VideoLayer::default()
                })
                .collect(),
            simulcast_codecs: vec![lk::SimulcastCodec {
                codec: codec.into(),
                cid: "c1".into(),
                ..lk::SimulcastCodec::default()
            }],
            ..lk::AddTrackRequest::default()
        }
    }

    fn seen(track: PublishTrack) -> lk::TrackInfo {
        translate::track(&TrackInfo {
            id: TrackId::new("TR_a"),
            kind: track.kind,
            source: track.source,
            name: track.name,
            muted: track.muted,
            mime_type: String::new(),
            width: track.width,
            height: track.height,
            layers: track.layers,
            mid: String::new(),
            stream: track.stream,
            dialect_info: track.dialect_info,
        })
    }

    #[test]
    fn simulcast_layers_are_named_as_the_sdks_name_their_streams() {
        let published = track(video("vp8")).unwrap();
        let rids: Vec<_> = published.layers.iter().map(|l| l.rid.as_str()).collect();
        assert_eq!(rids, ["q", "h", "f"]);
    }

    #[test]
    #[allow(deprecated)]
    fn a_scalable_stream_is_one_stream_whose_layers_only_viewers_hear_of() {
        for codec in ["vp9", "AV1", "video/VP9"] {
            let published = track(video(codec)).unwrap();
            assert!(published.layers.is_empty(), "{codec}");
            assert_eq!(seen(published).layers.len(), 3);
        }
        let mut separate = video("vp9");
        separate.simulcast_codecs[0].video_layer_mode = lk::video_layer::Mode::OneSpatialLayerPerStream.into();
        assert_eq!(track(separate).unwrap().layers.len(), 3);
    }

    #[test]
    fn the_first_codec_is_the_one_to_send_in() {
        assert_eq!(track(video("h264")).unwrap().codec.as_deref(), Some("video/h264"));
        assert_eq!(track(video("video/VP9")).unwrap().codec.as_deref(), Some("video/VP9"));
        assert_eq!(track(video("")).unwrap().codec, None);
    }

    #[test]
    #[allow(deprecated)]
    fn what_the_domain_does_not_model_reaches_the_viewers() {
        let request = lk::AddTrackRequest {
            cid: "c1".into(),
            r#type: lk::TrackType::Audio.into(),
            source: lk::TrackSource::Microphone.into(),
            stereo: true,
            disable_dtx: true,
            disable_red: true,
            encryption: lk::encryption::Type::Gcm.into(),
            audio_features: vec![lk::AudioTrackFeature::TfEchoCancellation.into(), 99],
            backup_codec_policy: lk::BackupCodecPolicy::Regression.into(),
            ..lk::AddTrackRequest::default()
        };
        let info = seen(track(request).unwrap());
        assert!(info.stereo && info.disable_dtx && info.disable_red);
        assert_eq!(info.encryption(), lk::encryption::Type::Gcm);
        assert_eq!(info.backup_codec_policy(), lk::BackupCodecPolicy::Regression);
        let features: Vec<_> = info.audio_features().collect();
        assert_eq!(
            features,
            [
                lk::AudioTrackFeature::TfEchoCancellation,
                lk::AudioTrackFeature::TfStereo,
                lk::AudioTrackFeature::TfNoDtx
            ]
        );
    }

    #[test]
    fn what_is_no_sound_and_no_picture_is_refused() {
        for kind in [lk::TrackType::Data.into(), 99, -1] {
            let request = lk::AddTrackRequest {
                r#type: kind,
                ..video("vp8")
            };
            assert_eq!(track(request), Err(Unsupported::Kind));
        }
        let second = lk::AddTrackRequest {
            sid: "TR_a".into(),
            ..video("vp8")
        };
        assert_eq!(track(second), Err(Unsupported::SecondCodec));
    }
}
