//! Probes, without authentication: they tell nothing but yes or no, and never ask the store.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use super::Failure;
use crate::store::Store;
use crate::{Error, Service};

/// `GET /livez`: the process answers.
pub async fn live() -> StatusCode {
    StatusCode::OK
}

/// `GET /readyz`: the store answered when the fencer last asked it.
pub async fn ready<S: Store>(State(service): State<Arc<Service<S>>>) -> Result<StatusCode, Failure> {
    if service.sight.borrow().reachable {
        Ok(StatusCode::OK)
    } else {
        Err(Error::NotReady.into())
    }
}
