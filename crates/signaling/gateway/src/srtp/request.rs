//! The body of a join with `"transport": "srtp"`.

use serde::Deserialize;
use signalbox_protocol::RoomName;
use signalbox_protocol::control::Transports;
use signalbox_protocol::room::{Kind, PublishTrack, Source};
use signalbox_protocol::srtp::{SrtpRequest, SrtpSuite, SrtpWanted};
use utoipa::ToSchema;

use crate::access::Access;
use crate::problem::ApiError;
use crate::rooms::JoinSpec;
use crate::routing::Wish;

/// Where the first received stream is expected when the client does not say: what most examples of RTP use.
pub(super) const DEFAULT_RECEIVE_PORT: u16 = 5004;

/// Ports from one received stream to the next: RTP on even ones, RTCP on the odd ones behind them (RFC 3550 section 11).
pub(super) const PORTS_PER_STREAM: u16 = 2;

/// The most streams in one direction. Higher: more keys and SDP lines for one request.
const MAX_STREAMS: usize = 64;

/// What is accepted, for error messages.
const CODECS: &str = "opus, vp8, h264, vp9 or av1";

/// A join without a peer connection.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SrtpJoin {
    /// Always `srtp`.
    #[serde(rename = "transport")]
    #[schema(pattern = "^srtp$")]
    _transport: String,
    /// A name to show, unless the access token has one.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// What it publishes.
    #[serde(default)]
    publish: Vec<Publish>,
    /// What it receives.
    #[serde(default)]
    subscribe: Subscribe,
    /// How all of it is encrypted.
    #[serde(default)]
    suite: SrtpSuite,
    /// The first local port that it receives on, for the SDP file and the examples.
    #[serde(default = "default_receive_port")]
    pub(crate) receive_port: u16,
}

/// A track to publish.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Publish {
    /// Sound or picture.
    kind: Kind,
    /// `opus`, `vp8`, `h264`, `vp9` or `av1`.
    #[schema(examples("opus", "vp8"))]
    codec: String,
    /// Where it comes from.
    #[serde(default)]
    source: Option<Source>,
    /// A name; may be empty.
    #[serde(default)]
    name: String,
    /// Published muted.
    #[serde(default)]
    muted: bool,
    /// Full width in pixels; 0: not said.
    #[serde(default)]
    width: u32,
    /// Full height in pixels; 0: not said.
    #[serde(default)]
    height: u32,
    /// The SSRC to send with; chosen by the node when not said.
    #[serde(default)]
    ssrc: Option<u32>,
}

/// What to receive.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "`subscribe` must be true, false, or a list such as [{\"kind\": \"video\", \"codec\": \"vp8\"}]"
)]
enum Subscribe {
    /// A stream for each track that is there; or nothing.
    Present(bool),
    /// Exactly these streams.
    Streams(Vec<Wanted>),
}

/// A stream to receive.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Sound or picture.
    kind: Kind,
    /// The codec that it is received in; Opus or VP8 when not said.
    #[serde(default)]
    codec: Option<String>,
}

impl Default for Subscribe {
    fn default() -> Self {
        Self::Present(true)
    }
}

fn default_receive_port() -> u16 {
    DEFAULT_RECEIVE_PORT
}

/// The admission that it asks for.
pub(crate) fn spec(join: SrtpJoin, room: RoomName, access: Access, name: String) -> Result<JoinSpec, ApiError> {
    if join.publish.len() > MAX_STREAMS {
        return Err(ApiError::InvalidRequest(format!(
            "`publish` names {} tracks; publish at most {MAX_STREAMS}.",
            join.publish.len()
        )));
    }
    let publish = join
        .publish
        .iter()
        .enumerate()
        .map(|(index, track)| publish_track(index, track));
    let publish = publish.collect::<Result<Vec<_>, _>>()?;
    let (receive_present, receive) = match join.subscribe {
        Subscribe::Present(present) => (present, Vec::new()),
        Subscribe::Streams(wanted) => (false, streams(wanted)?),
    };
    last_port(join.receive_port, receive.len().max(1))?;
    Ok(JoinSpec {
        room,
        identity: access.identity,
        name,
        metadata: access.metadata,
        attributes: access.attributes,
        grants: access.grants,
        limits: access.limits,
        transports: Transports::Srtp,
        auto_subscribe: receive_present || !receive.is_empty(),
        never_pause: false,
        // The events go to whichever gateway the client opens its event stream at.
        attach: false,
        publish,
        offer: None,
        one_offer: None,
        srtp: Some(SrtpRequest {
            suite: join.suite,
            ssrcs: join.publish.iter().map(|track| track.ssrc).collect(),
            receive_present,
            receive,
            resume: Vec::new(),
        }),
        dialect_info: None,
        wish: Wish::default(),
    })
}

/// The port of the last of so many received streams, if all of them have one.
pub(super) fn last_port(first: u16, streams: usize) -> Result<u16, ApiError> {
    let last = u16::try_from(streams.saturating_sub(1))
        .ok()
        .and_then(|steps| steps.checked_mul(PORTS_PER_STREAM))
        .and_then(|steps| first.checked_add(steps))
        .filter(|last| *last < u16::MAX);
    last.filter(|_| first > 0).ok_or_else(|| {
        ApiError::InvalidRequest(format!(
            "`receive_port` {first} leaves no room for {streams} streams, each two ports; choose an even port such as {DEFAULT_RECEIVE_PORT}."
        ))
    })
}

fn publish_track(index: usize, track: &Publish) -> Result<PublishTrack, ApiError> {
    let source = track.source.unwrap_or(match track.kind {
        Kind::Audio => Source::Microphone,
        Kind::Video => Source::Camera,
    });
    Ok(PublishTrack {
        name: track.name.clone(),
        muted: track.muted,
        width: track.width,
        height: track.height,
        codec: Some(media_type(track.kind, &track.codec)?),
        ..PublishTrack::new(index.to_string(), track.kind, source)
    })
}

fn streams(wanted: Vec<Wanted>) -> Result<Vec<SrtpWanted>, ApiError> {
    if wanted.len() > MAX_STREAMS {
        return Err(ApiError::InvalidRequest(format!(
            "`subscribe` names {} streams; receive at most {MAX_STREAMS}.",
            wanted.len()
        )));
    }
    let stream = |wanted: Wanted| {
        let codec = wanted.codec.map(|codec| media_type(wanted.kind, &codec)).transpose()?;
        Ok(SrtpWanted {
            kind: wanted.kind,
            codec,
        })
    };
    wanted.into_iter().map(stream).collect()
}

/// A codec's media type, from that or from its bare name.
fn media_type(kind: Kind, codec: &str) -> Result<String, ApiError> {
    let bare = codec
        .strip_prefix("audio/")
        .or_else(|| codec.strip_prefix("video/"))
        .unwrap_or(codec);
    let known = match bare.to_ascii_lowercase().as_str() {
        "opus" => Some((Kind::Audio, "audio/opus")),
        "vp8" => Some((Kind::Video, "video/VP8")),
        "h264" => Some((Kind::Video, "video/H264")),
        "vp9" => Some((Kind::Video, "video/VP9")),
        "av1" => Some((Kind::Video, "video/AV1")),
        _ => None,
    };
    match known {
        Some((of, media_type)) if of == kind => Ok(media_type.to_owned()),
        Some(_) => Err(ApiError::InvalidRequest(format!(
            "The codec `{bare}` does not fit the kind that it is given for: opus is audio, the others are video."
        ))),
        None => {
            let shown: String = bare.chars().filter(|shown| !shown.is_control()).take(32).collect();
            Err(ApiError::InvalidRequest(format!(
                "The codec `{shown}` is not known; use {CODECS}."
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(body: Value) -> Result<SrtpJoin, String> {
        serde_json::from_value(body).map_err(|error| error.to_string())
    }

    #[test]
    fn a_codec_is_named_barely_or_by_its_media_type() {
        assert_eq!(media_type(Kind::Video, "vp8").unwrap(), "video/VP8");
        assert_eq!(media_type(Kind::Video, "video/H264").unwrap(), "video/H264");
        assert_eq!(media_type(Kind::Audio, "OPUS").unwrap(), "audio/opus");
    }

    #[test]
    fn an_unknown_codec_and_one_of_the_other_kind_are_refused_with_what_to_do() {
        let unknown = media_type(Kind::Video, "theora").unwrap_err().to_string();
        assert!(unknown.contains("`theora`") && unknown.contains(CODECS), "{unknown}");
        let misplaced = media_type(Kind::Video, "opus").unwrap_err().to_string();
        assert!(misplaced.contains("opus is audio"), "{misplaced}");
    }

    #[test]
    fn a_misspelt_field_and_an_unknown_suite_are_named() {
        let error = parse(json!({"transport": "srtp", "publihs": []})).unwrap_err();
        assert!(error.contains("publihs"), "{error}");
        let error = parse(json!({"transport": "srtp", "suite": "NULL"})).unwrap_err();
        assert!(error.contains("AES_CM_128_HMAC_SHA1_80"), "{error}");
        let error = parse(json!({"transport": "srtp", "subscribe": "all"})).unwrap_err();
        assert!(error.contains("true, false, or a list"), "{error}");
    }

    #[test]
    fn ports_that_do_not_exist_are_refused() {
        assert_eq!(last_port(5004, 3).unwrap(), 5008);
        assert!(last_port(65_535, 1).is_err(), "there is none for RTCP");
        assert!(last_port(65_000, 600).is_err());
        assert!(last_port(0, 1).is_err());
    }
}
