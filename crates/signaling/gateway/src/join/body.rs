//! The body of a request: at most 64 KiB, most often of JSON, which have to arrive in time.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use crate::problem::ApiError;
use crate::state::State;

/// The longest body, in bytes. Higher: bigger offers fit. Lower: less memory for each request under way.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// How much of a body that is too long is read and thrown away. A client that is still sending when the connection closes sees a reset
/// instead of the answer, so moderate excess is swallowed first.
const MAX_SWALLOWED_BYTES: usize = 1024 * 1024;

/// How long a body may take to arrive. Higher: slow senders hold connections longer. Lower: thin uplinks cannot join.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A body read as JSON; an empty one is read as `{}`.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<State> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &State) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let body = read(&parts.headers, body).await?;
        if body.is_empty() {
            return parse(b"{}").map(Self);
        }
        if !has_type(&parts.headers, "application/json") {
            return Err(ApiError::UnsupportedMediaType);
        }
        parse(&body).map(Self)
    }
}

/// Reads a body.
///
/// # Errors
/// [`ApiError::EncodedBody`], [`ApiError::BodyTooLarge`], [`ApiError::BodyTimeout`], or [`ApiError::InvalidBody`] when it ends too early.
pub(crate) async fn read(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, ApiError> {
    tokio::time::timeout(BODY_TIMEOUT, read_slowly(headers, body))
        .await
        .map_err(|_| ApiError::BodyTimeout)?
}

async fn read_slowly(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, ApiError> {
    // Nothing is ever expanded here, so that a small body stays small.
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(ApiError::EncodedBody);
    }
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > MAX_SWALLOWED_BYTES) {
        return Err(ApiError::BodyTooLarge);
    }
    let mut chunks = body.into_data_stream();
    let (mut read, mut length) = (Vec::new(), 0_usize);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ApiError::InvalidBody("it ended too early".into()))?;
        length = length.saturating_add(chunk.len());
        if length > MAX_SWALLOWED_BYTES {
            break;
        }
        if length <= MAX_BODY_BYTES {
            read.extend_from_slice(&chunk);
        }
    }
    if length > MAX_BODY_BYTES {
        return Err(ApiError::BodyTooLarge);
    }
    Ok(read)
}

/// Whether a body is of this media type by its header, whatever the parameters.
pub(crate) fn has_type(headers: &HeaderMap, expected: &str) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok()?.split(';').next())
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(expected))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::InvalidBody(error.to_string()))
}
