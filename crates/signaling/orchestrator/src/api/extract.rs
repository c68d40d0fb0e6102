//! Request bodies, path parameters and queries, with failures that say what to correct.

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::failure::{Failure, Kind};

/// A JSON body.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let axum::Json(body) = axum::Json::from_request(request, state)
            .await
            .map_err(|rejection| match rejection {
                JsonRejection::MissingJsonContentType(_) => Kind::NotJson.into(),
                other if other.status() == StatusCode::PAYLOAD_TOO_LARGE => Kind::TooLarge.into(),
                other => Failure::bad_request(format!("Correct the body: {}.", other.body_text())),
            })?;
        Ok(Self(body))
    }
}

/// The one parameter of a path.
pub struct Param<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Param<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let axum::extract::Path(value) =
            axum::extract::Path::from_request_parts(parts, state)
                .await
                .map_err(|rejection: PathRejection| {
                    Failure::bad_request(format!("Correct the path: {}.", rejection.body_text()))
                })?;
        Ok(Self(value))
    }
}

/// The parameters of a query.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let axum::extract::Query(value) = axum::extract::Query::from_request_parts(parts, state)
            .await
            .map_err(|rejection| Failure::bad_request(format!("Correct the query: {}.", rejection.body_text())))?;
        Ok(Self(value))
    }
}
