//! What is checked before a WebSocket is opened, and the address at which SDKs ask why one was not.
//!
//! A browser does not show a script why a WebSocket failed, so LiveKit's SDKs then fetch `/rtc/validate` with the same
//! query and show the body as it is. Errors here are therefore one plain sentence instead of a problem document.

use axum::extract;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use signalbox_protocol::RoomName;

use crate::access::{self, Access};
use crate::problem::ApiError;
use crate::state::State;

/// An error whose body is its sentence.
#[derive(Debug)]
pub(super) struct Plain(pub(super) ApiError);

impl From<ApiError> for Plain {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Plain {
    fn into_response(self) -> Response {
        let status = self.0.status();
        let mut response = (status, self.0.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if let Some(seconds) = self.0.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // For whoever counts and notes it.
        response.extensions_mut().insert(self.0);
        response
    }
}

/// Who asks, and for which room: the token names both.
///
/// # Errors
/// 401 for the token, 403 when it does not allow to join, 400 for names that break the rules, 503 while the gateway
/// stops.
pub(super) fn admitted(state: &State, parts: &Parts) -> Result<(Access, RoomName), ApiError> {
    if state.shutdown().is_cancelled() {
        return Err(ApiError::ShuttingDown);
    }
    let access = state.authenticate(&access::token(parts)?)?;
    let room = access
        .claims
        .video
        .room
        .parse()
        .map_err(|reason| ApiError::InvalidName {
            what: "room (the access token's `video.room`)",
            reason,
        })?;
    access.for_room(&room)?;
    Ok((access, room))
}

/// `GET /rtc/validate`.
pub(super) async fn validate(
    extract::State(state): extract::State<State>,
    request: extract::Request,
) -> Result<&'static str, Plain> {
    let (parts, _) = request.into_parts();
    admitted(&state, &parts)?;
    Ok("success")
}

/// `/rtc/v1` and what is below it: SDKs that get a 404 there use `/rtc` instead. The sentence must not contain
/// "requested room does not exist", by which they know another 404.
pub(super) async fn no_v1(uri: Uri) -> (StatusCode, String) {
    let sentence = format!(
        "{} belongs to version 1 of LiveKit's signaling protocol; this server speaks version 0 at /rtc.",
        uri.path()
    );
    (StatusCode::NOT_FOUND, sentence)
}
