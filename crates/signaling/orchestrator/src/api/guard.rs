//! Who may call, and how many at once.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::Response;
use signalbox_protocol::Secret;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use super::Failure;

/// How many requests are worked on at the same time; more are answered 503 at once. Higher: larger bursts are absorbed,
/// with longer waits for the store. Lower: the reverse.
pub const MAX_REQUESTS: usize = 4096;

/// Lets in whoever knows the cluster secret, up to `MAX_REQUESTS` at once.
#[derive(Debug)]
pub struct Guard {
    secret: Secret,
    places: Semaphore,
}

impl Guard {
    /// A guard that asks for this secret.
    pub fn new(secret: Secret) -> Self {
        Self {
            secret,
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
        scheme.eq_ignore_ascii_case(b"Bearer ") && token.ct_eq(self.secret.expose().as_bytes()).into()
    }
}

/// The middleware.
pub async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Result<Response, Failure> {
    if !guard.knows(&request) {
        return Err(Failure::Unauthorized);
    }
    let _place = guard.places.try_acquire().map_err(|_| Failure::Busy)?;
    Ok(next.run(request).await)
}
