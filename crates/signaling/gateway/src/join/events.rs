//! `GET /v1/rooms/{room}/participants/{id}/events`: a participant's event stream, as a WebSocket or, for whoever asks for no upgrade, as
//! server-sent events.
//!
//! The first message is a `snapshot`, and so is the first after any gap: whoever applies each snapshot as the whole truth misses
//! nothing. The last message before an end for good is `closed`. An end without it means: open the stream again, at whichever gateway,
//! with the id of the last message (`Last-Event-ID`, or `last_event_id` in the query): what was missed follows if this gateway still has all of
//! it, else a snapshot does.
//!
//! | module | |
//! |---|---|
//! | `message` | what is told |
//! | `log` | the last messages, numbered |
//! | `feed`, `streams` | one participant's, and who reads them; all participants' |
//! | `relay`, `recovery` | from the session to the feed; a participant that is looked for, or has moved |
//! | `socket`, `server_sent` | from the feed to the client |

mod feed;
mod log;
mod message;
mod recovery;
mod relay;
mod server_sent;
mod socket;
mod streams;

use axum::extract::State as Shared;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::header::UPGRADE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use signalbox_protocol::openapi::Operation;
use utoipa::IntoParams;
use utoipa::openapi::HttpMethod::Get;

use self::message::Message;
use super::Member;
use crate::dialect::Dialect;
use crate::observe::sockets::Transport;
use crate::openapi::{Routes, operation};
use crate::problem::ApiError;
use crate::state::State;

pub(crate) use streams::Streams;

/// Its address.
pub(crate) const PATH: &str = "/v1/rooms/{room}/participants/{participant}/events";

/// Where to go on.
#[derive(IntoParams)]
#[expect(dead_code, reason = "it documents what `last_id` reads")]
struct ResumeQuery {
    /// The id of the last message that was received, for clients that cannot send `Last-Event-ID`, such as a browser's WebSocket.
    last_event_id: Option<String>,
}

pub(super) fn add(routes: Routes) -> Routes {
    let summary = "A participant's events, as server-sent events or as a WebSocket.";
    routes.guarded(stream_operation(PATH, "streamEvents", summary), open)
}

/// What is documented of an event stream, wherever it is.
pub(crate) fn stream_operation(path: &'static str, id: &str, summary: &str) -> Operation {
    operation(Get, path, id, summary)
        .tag("events")
        .describe(
            "The first message is a `snapshot`, and so is the first after any gap. The last one before an end for good is `closed`; after any \
             other end open the stream again, with the id of the last message. Without an upgrade the answer is `text/event-stream`: `data:` is the \
             message, `event:` its type, `id:` its id. With an upgrade to a WebSocket (RFC 6455), each text is a message.",
        )
        .header::<String>("Last-Event-ID", "The id of the last message that was received.")
        .query::<ResumeQuery>()
        .answers_as::<Message<'static>>(200, "Server-sent events, each with such a message.", "text/event-stream")
        .answers_nothing(101, "A WebSocket of such messages.")
        .fails([ApiError::UpgradeRequired])
}

async fn open(
    Shared(state): Shared<State>,
    member: Member,
    asked: (Method, Uri, HeaderMap),
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    open_for(Dialect::Http, &state, member, asked, upgrade).await
}

/// Attaches before it answers, so that whatever is wrong is an HTTP error.
pub(crate) async fn open_for(
    dialect: Dialect,
    state: &State,
    member: Member,
    (method, uri, headers): (Method, Uri, HeaderMap),
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    // A router that knows GET knows HEAD too; whoever only wants to know must not take the stream over.
    if method != Method::GET {
        return Err(ApiError::MethodNotAllowed);
    }
    let wants_socket = headers
        .get(UPGRADE)
        .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let upgrade = match upgrade {
        Ok(upgrade) => Some(upgrade),
        Err(_) if wants_socket => return Err(ApiError::UpgradeRequired),
        Err(_) => None,
    };
    if state.shutdown().is_cancelled() {
        return Err(ApiError::ShuttingDown);
    }
    let resumed = last_id(&uri, &headers).and_then(|last_id| state.streams().resume(&member, last_id));
    let reader = match resumed {
        Some(reader) => reader,
        None => {
            let (session, snapshot) = state
                .rooms()
                .attach(&member.room, &member.participant, &member.identity)
                .await?;
            relay::start(state, session, snapshot)
        }
    };
    let guard = |transport| state.socket_guard(dialect, transport);
    Ok(match upgrade {
        Some(upgrade) => socket::serve(upgrade, reader, guard(Transport::WebSocket)),
        None => server_sent::serve(reader, guard(Transport::ServerSent)),
    })
}

/// Whether the request goes on with a stream.
pub(crate) fn is_resume(parts: &Parts) -> bool {
    last_id(&parts.uri, &parts.headers).is_some()
}

/// The id of the last message that a client has had. Ids have no character that a query would have to escape.
fn last_id<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let header = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let query = uri.query().unwrap_or_default();
    header.or_else(|| query.split('&').find_map(|pair| pair.strip_prefix("last_event_id=")))
}
