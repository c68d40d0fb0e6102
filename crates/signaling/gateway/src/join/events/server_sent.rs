//! An event stream as server-sent events (WHATWG HTML, section 9.2), which curl and any HTTP client can read.
//!
//! `data:` is the message's JSON, `event:` its type, `id:` its id. There is no close code, so a stream that ends says why in a last event
//! `end` without an id: `{"type":"end","reason":…}`; after `closed` it just ends.
//!
//! | reason | meaning |
//! |---|---|
//! | `replaced` | another stream of the same participant took over; do not come back |
//! | `restart` | the gateway restarts; come back, also at another one |
//! | `node_unreachable` | come back in a while |

use std::convert::Infallible;
use std::time::Duration;

use axum::http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::feed::{End, Read, Reader};
use crate::state::SocketGuard;

/// How long the connection may be silent, for proxies that close idle ones.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How long a client that lost its connection waits before it comes back. Lower than what a feed waits for it.
const RETRY: Duration = Duration::from_secs(1);

/// Asks reverse proxies to pass each event on at once.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The response that goes on for as long as the stream does.
pub(super) fn serve(reader: Reader, guard: SocketGuard) -> Response {
    // The first event tells when to come back.
    let first = stream::iter([Ok(Event::default().retry(RETRY))]);
    let rest = stream::unfold(Some((reader, guard)), |reading| async move {
        let (mut reader, guard) = reading?;
        match reader.next().await {
            Read::Message { id, kind, json } => {
                let event = Event::default().id(id).event(kind).data(&*json);
                Some((Ok::<_, Infallible>(event), Some((reader, guard))))
            }
            Read::End(end) => {
                let reason = match end {
                    End::Replaced => "replaced",
                    End::Restart => "restart",
                    End::NodeUnreachable => "node_unreachable",
                    End::Closed | End::Abandoned => return None,
                };
                let event = Event::default().event("end");
                Some((Ok(event.data(format!(r#"{{"type":"end","reason":"{reason}"}}"#))), None))
            }
        }
    });
    let events = futures_util::StreamExt::chain(first, rest);
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE_INTERVAL).text("alive");
    let headers = [
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    (headers, Sse::new(events).keep_alive(keep_alive)).into_response()
}
