//! Who tries a new version goes on trying it: a signed cookie names whoever was placed on a canary node because of the canary share, and whoever brings it prefers
//! canary nodes for new rooms as if it fell into the share, also under another identity. While the share is 0 the orchestrators heed no such cookie.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::{Request, State as Shared};
use axum::http::header::SET_COOKIE;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;

use crate::state::State;

/// The cookie, and its value.
const COOKIE: &str = "signalbox_group";
const CANARY: &str = "canary";

/// How long a user stays in the group after its last room that was placed so. Higher: who has tried one version tries the next ones too. Lower: who comes back
/// after a while falls by its identity again.
const LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// Whether a request's user is of the group, and whether it came to be.
#[derive(Debug, Clone, Default)]
pub struct Group {
    is_member: bool,
    was_placed: Arc<AtomicBool>,
}

/// As requests: what came of them makes no difference.
impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        self.is_member == other.is_member
    }
}

impl Eq for Group {}

impl Group {
    /// Of a request.
    pub(crate) fn noted(parts: &Parts) -> Self {
        parts.extensions.get().cloned().unwrap_or_default()
    }

    /// Whether its cookie says that its user is of it.
    pub(crate) fn is_member(&self) -> bool {
        self.is_member
    }

    /// The request's room was placed on a canary node because of the share.
    pub(crate) fn place(&self) {
        self.was_placed.store(true, Ordering::Relaxed);
    }
}

/// Reads the cookie, and sets it with the answer to whoever joined a room that was placed so.
pub(crate) async fn remember(Shared(state): Shared<State>, mut request: Request, next: Next) -> Response {
    let value = state.cookies().get(request.headers(), COOKIE);
    let group = Group {
        is_member: value.as_deref() == Some(CANARY),
        ..Group::default()
    };
    request.extensions_mut().insert(group.clone());
    let mut response = next.run(request).await;
    let status = response.status();
    if group.was_placed.load(Ordering::Relaxed)
        && (status.is_success() || status.is_informational())
        && let Some(cookie) = state.cookies().set(COOKIE, CANARY, LIFETIME)
    {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}
