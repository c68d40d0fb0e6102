//! `POST /v1/rooms/{room}/join`: with an SDP offer, admits a participant in one round trip; with `"transport": "srtp"`, one without a peer
//! connection; with neither, says where the room is.

use axum::Json;
use axum::extract::State as Shared;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use signalbox_protocol::RoomName;
use signalbox_protocol::control::{Command, Snapshot, Transports};
use signalbox_protocol::id::MAX_NAME_BYTES;
use signalbox_protocol::room::{MediaAddress, ParticipantInfo, PublishTrack, RoomInfo, Slot};
use utoipa::ToSchema;
use utoipa::openapi::HttpMethod;

use super::body::JsonBody;
use super::participants::invalid_sdp;
use super::{InRoom, participant_url};
use crate::access::Access;
use crate::openapi::{Routes, operation};
use crate::problem::ApiError;
use crate::rooms::JoinSpec;
use crate::routing::Wish;
use crate::srtp::{self, SrtpJoin};
use crate::state::State;

/// What a client may say about a track. [`PublishTrack`] itself ignores what it does not know, so that tiers of different versions
/// understand each other; a client that misspells a field has to learn it.
const TRACK_FIELDS: [&str; 10] = [
    "cid", "kind", "source", "name", "muted", "width", "height", "layers", "codec", "stream",
];

/// How to join. Without an offer: only say where the room is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JoinRequest {
    /// `webrtc`, if anything.
    #[serde(default, rename = "transport")]
    #[schema(pattern = "^webrtc$")]
    _transport: Option<String>,
    /// The SDP of the client's offer (RFC 8866). Its sending m-lines are published, its receiving ones become slots.
    #[serde(default)]
    offer: Option<String>,
    /// A name to show, unless the access token has one.
    #[serde(default)]
    name: Option<String>,
    /// What the sending m-lines are, each by its track id or its mid; one that is not named is a camera or a microphone.
    #[serde(default)]
    #[schema(value_type = Vec<PublishTrack>)]
    publish: Vec<Value>,
    /// Receive every track, present and future.
    #[serde(default = "yes")]
    subscribe: bool,
}

fn yes() -> bool {
    true
}

/// A participant that is in the room.
#[derive(Serialize, ToSchema)]
struct Admission {
    /// The room.
    room: RoomInfo,
    /// The participant itself.
    participant: ParticipantInfo,
    /// Everyone else.
    participants: Vec<ParticipantInfo>,
    /// The receiving m-lines, and what each carries at first.
    slots: Vec<Slot>,
    /// Where its media goes.
    media: MediaAddress,
    /// The SDP of the answer.
    answer: String,
    /// The address of its event stream.
    events: String,
}

/// Where a room is.
#[derive(Serialize, ToSchema)]
struct Whereabouts {
    /// The room.
    room: RoomName,
    /// Where its media goes.
    media: MediaAddress,
    /// What the media node lets in with, for a while.
    ticket: String,
}

/// How to join: with a peer connection, or with plain streams.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it documents what `join` tells apart by `transport`")]
enum JoinBody {
    WebRtc(JoinRequest),
    Srtp(SrtpJoin),
}

/// A participant that is in the room.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it documents the two forms of the answer")]
enum Joined {
    WebRtc(Admission),
    Srtp(srtp::SrtpAdmission),
}

pub(super) fn add(routes: Routes) -> Routes {
    routes.guarded(
        operation(
            HttpMethod::Post,
            "/v1/rooms/{room}/join",
            "join",
            "Join a room with an SDP offer, in one round trip; without one, learn where the room is.",
        )
        .tag("join")
        .describe(
            "With `\"transport\": \"srtp\"` the reply carries SSRCs and keys instead of an SDP answer, for clients without a peer connection; \
             `Accept: application/sdp` then gets the SDP file for receiving alone, and `Accept: text/x-shellscript` a script for ffmpeg.",
        )
        .body_as::<JoinBody>("application/json", false)
        .answers::<Joined>(201, "In the room. Media goes to the address `media`.")
        .answers_as::<String>(201, "In the room. Media goes to the address `media`.", "application/sdp")
        .answers_as::<String>(201, "In the room. Media goes to the address `media`.", "text/x-shellscript")
        .answer_header(201, "Location", "The participant's address.")
        .answers::<Whereabouts>(200, "Without an offer: where the room is. Nobody has joined.")
        .fails([invalid_sdp()]),
        join,
    )
}

async fn join(
    Shared(state): Shared<State>,
    InRoom { access, room, wish }: InRoom,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Map<String, Value>>,
) -> Result<Response, ApiError> {
    match transport(&body)? {
        Transport::WebRtc => webrtc(&state, access, room, wish, request(body)?).await,
        Transport::Srtp => srtp(&state, access, (room, wish), &headers, request(body)?).await,
    }
}

enum Transport {
    WebRtc,
    Srtp,
}

fn transport(body: &Map<String, Value>) -> Result<Transport, ApiError> {
    match body.get("transport").map(|transport| transport.as_str()) {
        None => Ok(Transport::WebRtc),
        Some(Some("webrtc")) => Ok(Transport::WebRtc),
        Some(Some("srtp")) => Ok(Transport::Srtp),
        Some(_) => Err(ApiError::InvalidRequest(
            "The `transport` must be `webrtc` or `srtp`; without it, it is `webrtc`.".into(),
        )),
    }
}

fn request<T: DeserializeOwned>(body: Map<String, Value>) -> Result<T, ApiError> {
    serde_json::from_value(Value::Object(body)).map_err(|error| ApiError::InvalidBody(error.to_string()))
}

async fn srtp(
    state: &State,
    access: Access,
    (room, wish): (RoomName, Wish),
    headers: &HeaderMap,
    request: SrtpJoin,
) -> Result<Response, ApiError> {
    let (port, identity) = (request.receive_port, access.identity.clone());
    let name = name(request.name.clone(), &access.name)?;
    let spec = JoinSpec {
        wish,
        ..srtp::spec(request, room.clone(), access, name)?
    };
    let joined = state.rooms().join(spec).await?.joined;
    let participant = joined.snapshot.participant.id.clone();
    let url = participant_url(&room, &participant);
    let answer = srtp::answer(headers, &room, joined, port, url);
    if answer.is_err() {
        // The client does not learn that it was admitted. If this fails, the participant ends by itself, as it sends nothing.
        let _ = state
            .rooms()
            .command(&room, &participant, &identity, Command::Leave)
            .await;
    }
    answer
}

async fn webrtc(
    state: &State,
    access: Access,
    room: RoomName,
    wish: Wish,
    request: JoinRequest,
) -> Result<Response, ApiError> {
    let publish = request.publish.into_iter().map(track).collect::<Result<Vec<_>, _>>()?;
    let name = name(request.name, &access.name)?;
    let Some(offer) = request.offer else {
        let (media, ticket) = state.rooms().open(&room, &access.identity, &wish).await?;
        return Ok(Json(Whereabouts { room, media, ticket }).into_response());
    };
    check_offer(&offer)?;
    let admitted = state
        .rooms()
        .join(JoinSpec {
            room: room.clone(),
            identity: access.identity,
            name,
            metadata: access.metadata,
            attributes: access.attributes,
            grants: access.grants,
            limits: access.limits,
            transports: Transports::Single,
            auto_subscribe: request.subscribe,
            never_pause: false,
            // The events go to whichever gateway the client opens its event stream at.
            attach: false,
            publish,
            offer: Some(offer),
            one_offer: None,
            srtp: None,
            dialect_info: None,
            wish,
        })
        .await?;
    let Snapshot {
        room: info,
        participant,
        others,
        slots,
        ..
    } = admitted.joined.snapshot;
    let answer = admitted.joined.answer.ok_or_else(|| {
        tracing::error!(%room, "a media node admitted a participant without answering its offer");
        ApiError::Internal
    })?;
    let url = participant_url(&room, &participant.id);
    let mut headers = HeaderMap::new();
    headers.insert(LOCATION, HeaderValue::try_from(&url).map_err(|_| ApiError::Internal)?);
    let admission = Admission {
        room: info,
        participant,
        participants: others,
        slots,
        media: admitted.joined.media,
        answer,
        events: format!("{url}/events"),
    };
    Ok((StatusCode::CREATED, headers, Json(admission)).into_response())
}

/// Whether this can be SDP at all (RFC 8866 section 5: it begins with the version), so that garbage places no room.
pub(super) fn check_offer(offer: &str) -> Result<(), ApiError> {
    if offer.starts_with("v=0") {
        Ok(())
    } else {
        Err(ApiError::InvalidSdp(
            "The `offer` is not SDP; send the `sdp` of what `createOffer()` gives.".into(),
        ))
    }
}

fn track(value: Value) -> Result<PublishTrack, ApiError> {
    let unknown = value
        .as_object()
        .and_then(|track| track.keys().find(|key| !TRACK_FIELDS.contains(&key.as_str())));
    if let Some(field) = unknown {
        return Err(ApiError::InvalidBody(format!("unknown field `{field}` in `publish`")));
    }
    serde_json::from_value(value).map_err(|error| ApiError::InvalidBody(format!("in `publish`, {error}")))
}

/// The name to show. A token with a name was signed with it, so the caller's own choice only fills a gap.
fn name(asked: Option<String>, signed: &str) -> Result<String, ApiError> {
    if !signed.is_empty() {
        return Ok(signed.to_owned());
    }
    let name = asked.unwrap_or_default();
    check_name(&name)?;
    Ok(name)
}

/// Whether a name can be shown.
pub(super) fn check_name(name: &str) -> Result<(), ApiError> {
    if name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        return Err(ApiError::InvalidRequest(
            "The `name` must be at most 256 bytes long and hold printable characters only.".into(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use signalbox_protocol::room::{Kind, LayerInfo, Source};

    use super::*;

    #[test]
    fn every_field_of_a_track_is_known_except_the_dialects() {
        let full = PublishTrack {
            width: 1,
            height: 1,
            layers: vec![LayerInfo {
                rid: "q".into(),
                width: 1,
                height: 1,
                bitrate: 1,
            }],
            codec: Some("video/VP8".into()),
            ..PublishTrack::new("a", Kind::Video, Source::Camera)
        };
        let value = serde_json::to_value(&full).unwrap();
        let mut fields: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        fields.sort();
        let mut known = TRACK_FIELDS.map(str::to_owned).to_vec();
        known.sort();
        assert_eq!(fields, known);
        assert_eq!(track(value).unwrap(), full);
    }

    #[test]
    fn a_misspelt_field_of_a_track_is_named() {
        let error = track(json!({"cid": "a", "kind": "audio", "source": "microphone", "mutde": true})).unwrap_err();
        assert!(error.to_string().contains("`mutde`"), "{error}");
    }

    #[test]
    fn a_signed_name_is_not_overruled() {
        assert_eq!(name(Some("Bob".into()), "Ann").unwrap(), "Ann");
        assert_eq!(name(Some("Bob".into()), "").unwrap(), "Bob");
        assert!(name(Some("a\nb".into()), "").is_err());
    }
}
