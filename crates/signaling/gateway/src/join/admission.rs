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

use super::body::JsonBody;
use super::{InRoom, participant_url};
use crate::access::Access;
use crate::problem::ApiError;
use crate::rooms::JoinSpec;
use crate::srtp::{self, SrtpJoin};
use crate::state::State;

/// What a client may say about a track. [`PublishTrack`] itself ignores what it does not know, so that tiers of different versions
/// understand each other; a client that misspells a field has to learn it.
const TRACK_FIELDS: [&str; 10] = [
    "cid", "kind", "source", "name", "muted", "width", "height", "layers", "codec", "stream",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JoinRequest {
    /// `webrtc`, if anything.
    #[serde(default, rename = "transport")]
    _transport: Option<String>,
    #[serde(default)]
    offer: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    publish: Vec<Value>,
    #[serde(default = "yes")]
    subscribe: bool,
}

fn yes() -> bool {
    true
}

/// 201.
#[derive(Serialize)]
struct Admission {
    room: RoomInfo,
    participant: ParticipantInfo,
    participants: Vec<ParticipantInfo>,
    slots: Vec<Slot>,
    media: MediaAddress,
    answer: String,
    events: String,
}

/// 200.
#[derive(Serialize)]
struct Whereabouts {
    room: RoomName,
    media: MediaAddress,
    ticket: String,
}

pub(super) async fn join(
    Shared(state): Shared<State>,
    InRoom { access, room }: InRoom,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Map<String, Value>>,
) -> Result<Response, ApiError> {
    match transport(&body)? {
        Transport::WebRtc => webrtc(&state, access, room, request(body)?).await,
        Transport::Srtp => srtp(&state, access, room, &headers, request(body)?).await,
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
    room: RoomName,
    headers: &HeaderMap,
    request: SrtpJoin,
) -> Result<Response, ApiError> {
    let (port, identity) = (request.receive_port, access.identity.clone());
    let name = name(request.name.clone(), &access.name)?;
    let spec = srtp::spec(request, room.clone(), access, name)?;
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

async fn webrtc(state: &State, access: Access, room: RoomName, request: JoinRequest) -> Result<Response, ApiError> {
    let publish = request.publish.into_iter().map(track).collect::<Result<Vec<_>, _>>()?;
    let name = name(request.name, &access.name)?;
    let Some(offer) = request.offer else {
        let (media, ticket) = state.rooms().open(&room, &access.identity).await?;
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
            transports: Transports::Single,
            auto_subscribe: request.subscribe,
            // The events go to whichever gateway the client opens its event stream at.
            attach: false,
            publish,
            offer: Some(offer),
            srtp: None,
            dialect_info: None,
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
    if name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        return Err(ApiError::InvalidRequest(
            "The `name` must be at most 256 bytes long and hold printable characters only.".into(),
        ));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use signalbox_protocol::room::{Kind, LayerInfo, Source};

    use super::*;

    #[test]
    fn every_field_of_a_track_is_known_except_the_dialects() {
        let full = PublishTrack {
            cid: "a".into(),
            kind: Kind::Video,
            source: Source::Camera,
            name: String::new(),
            muted: false,
            width: 1,
            height: 1,
            layers: vec![LayerInfo {
                rid: "q".into(),
                width: 1,
                height: 1,
                bitrate: 1,
            }],
            codec: Some("video/VP8".into()),
            stream: String::new(),
            dialect_info: None,
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
