//! An event stream as a WebSocket of JSON texts. Nothing that the client sends is used.
//!
//! | close code | meaning |
//! |---|---|
//! | 1000 | after `closed` |
//! | 1008 | another stream of the same participant took over, or the client sent a message that is too long |
//! | 1012 | the gateway restarts |
//! | 1013 | the media node cannot be reached |

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use tokio::time::{Instant, MissedTickBehavior};

use super::feed::{End, Read, Reader};
use crate::state::SocketGuard;

/// The longest message of a client, in bytes.
const MAX_MESSAGE_BYTES: usize = 4096;

/// How much of what a client sends is read at once, in bytes, of which every socket keeps room for as much; the library's default is 128 KiB. Higher:
/// idle clients cost more. Lower: more reads of what is not used anyway.
const READ_BUFFER_BYTES: usize = 512;

/// When to ask the client for a sign of life.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// When to give the client up, after this long without anything from it. Higher: the others see a lost participant longer. Lower: a
/// phone that changes networks is given up too early.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);

/// How long a message may take to be written.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How a socket ends.
enum Ending {
    /// With this code and reason.
    Close(u16, &'static str),
    /// The client has closed it and does not come back.
    Goodbye,
    /// There is nobody to tell.
    Gone,
}

/// Upgrades, and serves the stream from then on.
pub(super) fn serve(upgrade: WebSocketUpgrade, mut reader: Reader, guard: SocketGuard) -> Response {
    upgrade
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .on_upgrade(move |mut socket| async move {
            match run(&mut socket, &mut reader).await {
                Ending::Close(code, reason) => {
                    let bye = Message::Close(Some(CloseFrame {
                        code,
                        reason: reason.into(),
                    }));
                    let _ = tokio::time::timeout(SEND_TIMEOUT, socket.send(bye)).await;
                    if code == close_code::POLICY {
                        reader.abandon();
                    }
                }
                Ending::Goodbye => reader.abandon(),
                Ending::Gone => {}
            }
            drop(guard);
        })
}

async fn run(socket: &mut WebSocket, reader: &mut Reader) -> Ending {
    let mut ping = tokio::time::interval(PING_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard_at = Instant::now();
    loop {
        let message = tokio::select! {
            read = reader.next() => match read {
                Read::Message { json, .. } => Message::text(&*json),
                Read::End(end) => return close(end),
            },
            message = socket.recv() => match message {
                Some(Ok(Message::Close(_))) => return Ending::Goodbye,
                Some(Ok(_)) => {
                    heard_at = Instant::now();
                    continue;
                }
                Some(Err(error)) if is_too_long(&error) => {
                    return Ending::Close(close_code::POLICY, "message too long");
                }
                Some(Err(_)) | None => return Ending::Gone,
            },
            _ = ping.tick() => {
                if heard_at.elapsed() > SILENCE_LIMIT {
                    return Ending::Gone;
                }
                Message::Ping(Bytes::new())
            }
        };
        if !matches!(
            tokio::time::timeout(SEND_TIMEOUT, socket.send(message)).await,
            Ok(Ok(()))
        ) {
            return Ending::Gone;
        }
    }
}

fn close(end: End) -> Ending {
    match end {
        End::Closed => Ending::Close(close_code::NORMAL, "closed"),
        End::Replaced => Ending::Close(close_code::POLICY, "another stream took over"),
        End::Restart => Ending::Close(close_code::RESTART, "the gateway restarts"),
        End::NodeUnreachable => Ending::Close(close_code::AGAIN, "the media node cannot be reached"),
        End::Abandoned => Ending::Gone,
    }
}

/// The library's error for a frame over the cap is only told apart by its type, two levels down.
fn is_too_long(error: &axum::Error) -> bool {
    std::error::Error::source(error)
        .and_then(|error| error.downcast_ref::<tokio_tungstenite::tungstenite::Error>())
        .is_some_and(|error| matches!(error, tokio_tungstenite::tungstenite::Error::Capacity(_)))
}
