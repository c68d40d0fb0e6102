//! The answer to a join without a peer connection, in the form that the client accepts: JSON with everything, an SDP file for receiving, or a
//! shell script for ffmpeg.

use axum::Json;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use signalbox_protocol::RoomName;
use signalbox_protocol::control::{Joined, Snapshot};
use signalbox_protocol::room::{MediaAddress, ParticipantInfo, RoomInfo, Slot};
use signalbox_protocol::srtp::SrtpStream;
use utoipa::ToSchema;

use super::examples::Examples;
use super::request::last_port;
use super::session_description;
use crate::problem::ApiError;

/// A participant without a peer connection that is in the room.
#[derive(Serialize, ToSchema)]
pub(crate) struct SrtpAdmission {
    /// The room.
    room: RoomInfo,
    /// The participant itself.
    participant: ParticipantInfo,
    /// Everyone else.
    participants: Vec<ParticipantInfo>,
    /// The received streams, and what each carries at first.
    slots: Vec<Slot>,
    /// Where its media goes.
    media: MediaAddress,
    /// What it sends, in the order of the request.
    publish: Vec<SrtpStream>,
    /// What it receives.
    receive: Vec<SrtpStream>,
    /// After how long without any sign of life it ends, in milliseconds.
    idle_ms: u64,
    /// An SDP file for receiving, if there is anything to receive.
    #[serde(skip_serializing_if = "Option::is_none")]
    sdp: Option<String>,
    /// Command lines that do it.
    examples: Examples,
    /// The address of its event stream.
    events: String,
}

/// Answers with everything that the client needs to stream. `url` is the participant's.
///
/// # Errors
/// When the media node did not answer with streams, or the client's ports do not suffice for them.
pub(crate) fn answer(
    headers: &HeaderMap,
    room: &RoomName,
    joined: Joined,
    receive_port: u16,
    url: String,
) -> Result<Response, ApiError> {
    let Some(session) = joined.srtp else {
        tracing::error!(%room, "a media node admitted a participant without giving it streams");
        return Err(ApiError::Internal);
    };
    let media = joined.media;
    let sdp = if session.receive.is_empty() {
        None
    } else {
        last_port(receive_port, session.receive.len())?;
        Some(session_description::file(room, &media, &session.receive, receive_port))
    };
    let examples = Examples::new(&media, &session.publish, &session.receive, receive_port, sdp.as_deref());
    let location = HeaderValue::try_from(&url).map_err(|_| ApiError::Internal)?;
    // It holds keys.
    let headers_out = [
        (LOCATION, location),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    let body = match Form::accepted(headers) {
        Form::Sdp => typed("application/sdp", sdp.ok_or_else(nothing_to_receive)?),
        Form::Script => typed("text/x-shellscript; charset=utf-8", script(&examples)?),
        Form::Json => {
            let Snapshot {
                room,
                participant,
                others,
                slots,
                ..
            } = joined.snapshot;
            let admission = SrtpAdmission {
                room,
                participant,
                participants: others,
                slots,
                media,
                publish: session.publish,
                receive: session.receive,
                idle_ms: session.idle_ms,
                sdp,
                examples,
                events: format!("{url}/events"),
            };
            Json(admission).into_response()
        }
    };
    Ok((StatusCode::CREATED, headers_out, body).into_response())
}

/// What a client can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Sdp,
    Script,
}

impl Form {
    /// By the first media type of `Accept` that is known here; JSON for everything else.
    fn accepted(headers: &HeaderMap) -> Self {
        let accept = headers
            .get(ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let types = accept.split(',').filter_map(|entry| entry.split(';').next());
        types
            .filter_map(|media_type| match media_type.trim().to_ascii_lowercase().as_str() {
                "application/sdp" => Some(Self::Sdp),
                "text/x-shellscript" => Some(Self::Script),
                "application/json" | "*/*" => Some(Self::Json),
                _ => None,
            })
            .next()
            .unwrap_or(Self::Json)
    }
}

fn typed(media_type: &'static str, body: String) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static(media_type))], body).into_response()
}

fn nothing_to_receive() -> ApiError {
    ApiError::InvalidRequest(
        "There is nothing to receive yet, so there is no SDP; name streams in `subscribe`, such as [{\"kind\": \"video\"}], or accept JSON.".into(),
    )
}

/// Receives in the background and publishes, or does whichever there is.
fn script(examples: &Examples) -> Result<String, ApiError> {
    let lines = examples.ffmpeg();
    match (&lines.receive, &lines.publish) {
        (Some(receive), Some(publish)) => Ok(format!("{{\n{receive}\n}} &\n{publish}\nwait\n")),
        (Some(only), None) | (None, Some(only)) => Ok(format!("{only}\n")),
        (None, None) => Err(ApiError::InvalidRequest(
            "There is nothing that ffmpeg could do: name tracks in `publish` or streams in `subscribe`, in codecs that its RTP knows (not AV1, and not with AEAD_AES_128_GCM), or accept JSON.".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_is_known_is_taken() {
        let form = |accept: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            Form::accepted(&headers)
        };
        assert_eq!(Form::accepted(&HeaderMap::new()), Form::Json);
        assert_eq!(form("*/*"), Form::Json);
        assert_eq!(form("text/html, application/sdp;q=0.9, application/json"), Form::Sdp);
        assert_eq!(form("text/x-shellscript"), Form::Script);
        assert_eq!(form("image/png"), Form::Json);
    }
}
