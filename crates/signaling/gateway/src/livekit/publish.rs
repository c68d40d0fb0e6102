//! LiveKit's announcement of a track in the domain's words.

use livekit_protocol as lk;
use signalbox_protocol::TrackId;
use signalbox_protocol::room::{Kind, LayerInfo, PublishTrack};

use super::dialect;
use super::translate::{all_known, bare_codec, kind_from, known, source_from};

/// The most simulcast layers, or codecs, that a track is taken to have. Clients send three and two.
const MAX_LADDER: usize = 8;

/// Sound that repeats what came before (RFC 2198), so that a lost packet is not heard.
const REDUNDANT: &str = "audio/red";

/// Why a track cannot be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsupported {
    /// It is neither sound nor picture.
    Kind,
    /// It is one more encoding of a track that is published already, and does not say in which codec.
    SecondCodec,
}

impl Unsupported {
    /// A sentence for the client's developer.
    pub(super) fn detail(self) -> &'static str {
        match self {
            Unsupported::Kind => "Only audio and video tracks can be published this way.",
            Unsupported::SecondCodec => "Name the codec of a track's further encoding in `simulcast_codecs`.",
        }
    }
}

/// The track that a client announces, or, of one that names a track of its own, the further encoding of that.
#[allow(deprecated)] // Clients still send `disable_dtx` and `stereo`.
pub(super) fn track(request: lk::AddTrackRequest) -> Result<PublishTrack, Unsupported> {
    let kind = kind_from(request.r#type).ok_or(Unsupported::Kind)?;
    let mut codecs = request.simulcast_codecs;
    codecs.truncate(MAX_LADDER);
    let named = |codec: Option<&lk::SimulcastCodec>| codec.and_then(|codec| mime_type(kind, &codec.codec));
    let (mut preferred, backup_codec) = (named(codecs.first()), named(codecs.get(1)));
    // Clients send sound in the first codec of the answer, and say when they want no redundancy.
    if kind == Kind::Audio && preferred.is_none() && !request.disable_red {
        preferred = Some(REDUNDANT.to_owned());
    }
    let encoding_of = (!request.sid.is_empty()).then(|| TrackId::new(&request.sid));
    if encoding_of.is_some() && preferred.is_none() {
        return Err(Unsupported::SecondCodec);
    }
    let scalable = codecs.first().is_some_and(is_scalable);
    // The layers of a further encoding are its codec's; clients repeat them outside of it for servers that look there.
    let own = codecs.first_mut().map(|codec| std::mem::take(&mut codec.layers));
    let mut ladder = own.filter(|layers| !layers.is_empty()).unwrap_or(request.layers);
    ladder.truncate(MAX_LADDER);
    ladder.sort_by_key(|layer| layer.quality);
    let single = kind == Kind::Audio || scalable || ladder.len() < 2;

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
        // A further encoding has none of its own.
        backup_codec: backup_codec.filter(|_| encoding_of.is_none()),
        encoding_of,
        stream: request.stream,
        dialect_info: dialect::pack(&said),
    })
}

/// The media type of a codec that clients name as `vp9` or as `video/VP9`; none: it is not named.
fn mime_type(kind: Kind, codec: &str) -> Option<String> {
    match (codec, kind) {
        ("", _) => None,
        (codec, _) if codec.contains('/') => Some(codec.to_owned()),
        (codec, Kind::Audio) => Some(format!("audio/{codec}")),
        (codec, Kind::Video) => Some(format!("video/{codec}")),
    }
}

/// Whether all the layers come in one stream: so it is with VP9 and AV1 unless the client says otherwise.
fn is_scalable(codec: &lk::SimulcastCodec) -> bool {
    use lk::video_layer::Mode;
    match Mode::try_from(codec.video_layer_mode) {
        Ok(Mode::MultipleSpatialLayersPerStream) => true,
        Ok(Mode::OneSpatialLayerPerStream | Mode::OneSpatialLayerPerStreamIncompleteRtcpSr) => false,
        Ok(Mode::Unused) | Err(_) => matches!(bare_codec(&codec.codec).as_str(), "vp9" | "av1"),
    }
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
        let published = track(request).unwrap();
        assert_eq!(published.codec, None, "without redundancy");
        let info = seen(published);
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
    fn sound_is_redundant_unless_its_publisher_does_not_want_that() {
        let microphone = |disable_red| lk::AddTrackRequest {
            cid: "c1".into(),
            r#type: lk::TrackType::Audio.into(),
            disable_red,
            ..lk::AddTrackRequest::default()
        };
        assert_eq!(track(microphone(false)).unwrap().codec.as_deref(), Some("audio/red"));
        assert_eq!(track(microphone(true)).unwrap().codec, None);
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
    }

    fn with_backup() -> lk::AddTrackRequest {
        let mut request = video("vp9");
        request.simulcast_codecs.push(lk::SimulcastCodec {
            codec: "vp8".into(),
            ..lk::SimulcastCodec::default()
        });
        request
    }

    #[test]
    fn the_second_codec_is_the_one_to_fall_back_to() {
        let published = track(with_backup()).unwrap();
        assert_eq!(
            (published.codec.as_deref(), published.backup_codec.as_deref()),
            (Some("video/vp9"), Some("video/vp8"))
        );
        assert_eq!(published.encoding_of, None);
        let codecs: Vec<_> = seen(published)
            .codecs
            .into_iter()
            .map(|codec| codec.mime_type)
            .collect();
        assert_eq!(codecs, ["video/VP9", "video/VP8"], "its viewers hear of both");
        assert_eq!(track(video("vp8")).unwrap().backup_codec, None);
    }

    #[test]
    fn what_names_a_track_is_a_further_encoding_of_it() {
        let second = |codec: &str| {
            let mut request = lk::AddTrackRequest {
                sid: "TR_a".into(),
                cid: "c2".into(),
                ..video(codec)
            };
            // What older servers read.
            let layers = std::mem::take(&mut request.layers);
            request.simulcast_codecs[0].layers = layers;
            track(request)
        };
        let published = second("vp8").unwrap();
        assert_eq!(published.encoding_of, Some(TrackId::new("TR_a")));
        assert_eq!(
            (published.cid.as_str(), published.codec.as_deref()),
            ("c2", Some("video/vp8"))
        );
        let rids: Vec<_> = published.layers.iter().map(|layer| layer.rid.as_str()).collect();
        assert_eq!(rids, ["q", "h", "f"]);
        assert_eq!(second(""), Err(Unsupported::SecondCodec));
    }
}
