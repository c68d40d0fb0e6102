//! Who may call, and how many at once.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::Response;
use signalbox_protocol::Secrets;
use subtle::{Choice, ConstantTimeEq};
use tokio::sync::Semaphore;

use super::failure::{Failure, Kind};

/// How many requests are worked on at the same time; more are answered 503 at once. Higher: larger bursts are absorbed,
/// with longer waits for the store. Lower: the reverse.
pub const MAX_REQUESTS: usize = 4096;

/// Lets in whoever knows one of the cluster's secrets, up to `MAX_REQUESTS` at once.
#[derive(Debug)]
pub struct Guard {
    secrets: Secrets,
    places: Semaphore,
}

impl Guard {
    /// A guard that accepts any of these secrets.
    pub fn new(secrets: Secrets) -> Self {
        Self {
            secrets,
            places: Semaphore::new(MAX_REQUESTS),
        }
    }

    fn knows(&self, request: &Request) -> bool {
        let Some(value) = request.headers().get(AUTHORIZATION) else {
            return false;
        };
        // The scheme is case-insensitive (RFC 9110 section 11.1).
        let Some((scheme, token)) = value.as_bytes().split_at_checked("Bearer ".len()) else {
            return false;
        };
        // All are compared, so that the time does not tell which one it was.
        let known = self.secrets.accepted().iter();
        let known = known.fold(Choice::from(0), |known, secret| {
            known | token.ct_eq(secret.expose().as_bytes())
        });
        scheme.eq_ignore_ascii_case(b"Bearer ") && known.into()
    }
}

/// The middleware.
pub async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Result<Response, Failure> {
    if !guard.knows(&request) {
        return Err(Kind::Unauthorized.into());
    }
    let _place = guard.places.try_acquire().map_err(|_| Kind::Busy)?;
    Ok(next.run(request).await)
}
