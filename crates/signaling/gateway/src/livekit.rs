//! The LiveKit dialect: version 0 of its signaling protocol over a WebSocket at `/rtc`, with two peer connections.
//!
//! Translates between LiveKit's messages (crate `livekit-protocol`) and the control protocol, and owns what only this
//! dialect has: the first message, pings, resuming, and the words for leaving. Knows no SDP, no node and no placement.
//! What a client does not say in the domain's words and its peers still need to hear travels as `dialect_info`.
//!
//! | module | |
//! |---|---|
//! | `validate` | `/rtc/validate`, and the checks that precede a WebSocket |
//! | `connect` | `/rtc`: joins or resumes, then upgrades |
//! | `socket` | one connected client |
//! | `wire`, `codec` | its frames |
//! | `requests`, `publish` | LiveKit's words → the domain's |
//! | `events`, `translate` | the domain's words → LiveKit's |
//! | `pending`, `roster` | what the node has yet to answer; who is there |
//! | `dialect` | what rides along |

mod codec;
mod connect;
mod dialect;
mod events;
mod firefox;
mod pending;
mod publish;
mod requests;
mod roster;
mod socket;
mod translate;
mod validate;
mod wire;

pub(crate) use connect::is_resume;

use std::time::SystemTime;

use axum::Router;
use axum::routing::{any, get};

use crate::state::State;

/// Where its WebSockets are opened.
pub(crate) const PATH: &str = "/rtc";

/// Its routes.
pub fn routes() -> Router<State> {
    Router::new()
        .route(PATH, get(connect::connect))
        .route("/rtc/validate", get(validate::validate))
        .route("/rtc/v1", any(validate::no_v1))
        .route("/rtc/v1/validate", any(validate::no_v1))
}

/// The time in milliseconds since 1970.
fn now_ms() -> i64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
