//! One client's WebSocket as a stream of signaling messages.
//!
//! Owns the format, the caps and the closing handshake. Knows no room and no participant.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use livekit_protocol::{signal_request, signal_response};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite;

use super::codec::{self, Decoded, Format, Garbage, MAX_MESSAGE_BYTES};

/// How long a client may take to accept a message before it is given up. Higher: a stalled client keeps its queue of
/// events for longer. Lower: cuts off clients whose network pauses.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for the client's half of the closing handshake. Dropping the connection at once could take the last
/// message with it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What came in.
#[derive(Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is made and used up within one turn of a connection's loop"
)]
pub(super) enum Incoming {
    /// A request.
    Request(signal_request::Message),
    /// A sign of life that asks for nothing.
    Alive,
    /// Something that breaks the protocol; answer it with [`Wire::close`].
    Broken(Ending),
    /// The connection is over.
    Gone,
}

/// Why the server closes a connection, in RFC 6455 section 7.4.1's codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// All is said.
    Done,
    /// The client was silent for too long.
    Silent,
    /// The gateway stops; another one goes on (1012).
    Restart,
    /// A frame did not hold a message.
    Garbage,
    /// A message was over [`MAX_MESSAGE_BYTES`].
    TooLong,
}

impl Ending {
    fn frame(self) -> CloseFrame {
        let (code, reason) = match self {
            Ending::Done => (close_code::NORMAL, ""),
            Ending::Silent => (close_code::POLICY, "no ping came in time"),
            Ending::Restart => (close_code::RESTART, "the server restarts"),
            Ending::Garbage => (close_code::INVALID, "not a signaling message"),
            Ending::TooLong => (close_code::SIZE, "the message is too long"),
        };
        CloseFrame {
            code,
            reason: Utf8Bytes::from_static(reason),
        }
    }
}

/// The client does not take messages any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

/// A client's WebSocket.
#[derive(Debug)]
pub(super) struct Wire {
    socket: WebSocket,
    format: Format,
}

impl Wire {
    /// Takes a WebSocket over; its message cap has to be [`MAX_MESSAGE_BYTES`].
    pub(super) fn new(socket: WebSocket) -> Self {
        Self {
            socket,
            format: Format::default(),
        }
    }

    /// The next thing that comes in. Cancelling it loses nothing.
    pub(super) async fn receive(&mut self) -> Incoming {
        let (format, decoded) = match self.socket.recv().await {
            None | Some(Ok(Message::Close(_))) => return Incoming::Gone,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => return Incoming::Alive,
            Some(Ok(Message::Binary(bytes))) => (Format::Binary, codec::decode_binary(&bytes)),
            Some(Ok(Message::Text(text))) => (Format::Json, codec::decode_text(&text)),
            Some(Err(error)) => return broken(error),
        };
        self.take(format, decoded)
    }

    fn take(&mut self, format: Format, decoded: Result<Decoded, Garbage>) -> Incoming {
        match decoded {
            Ok(request) => {
                self.format = format;
                request.map_or(Incoming::Alive, Incoming::Request)
            }
            Err(Garbage) => Incoming::Broken(Ending::Garbage),
        }
    }

    /// Sends a message in the format last received.
    pub(super) async fn send(&mut self, message: signal_response::Message) -> Result<(), Gone> {
        match codec::encode(message, self.format) {
            Some(frame) => self.push(frame).await,
            None => {
                tracing::error!("a signaling message has no JSON form and is dropped");
                Ok(())
            }
        }
    }

    /// Sends a WebSocket ping, which browsers answer even where they slow a page's own timers down.
    pub(super) async fn ping(&mut self) -> Result<(), Gone> {
        self.push(Message::Ping(bytes::Bytes::new())).await
    }

    async fn push(&mut self, frame: Message) -> Result<(), Gone> {
        match timeout(SEND_TIMEOUT, self.socket.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    /// Closes the connection; gives the client a moment to do the same.
    pub(super) async fn close(mut self, ending: Ending) {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        let frame = Message::Close(Some(ending.frame()));
        if !matches!(timeout_at(deadline, self.socket.send(frame)).await, Ok(Ok(()))) {
            return;
        }
        if ending == Ending::TooLong {
            // The rest of the message cannot be read: without the pause, the reset that it causes could overtake the
            // closing frame.
            return tokio::time::sleep_until(deadline).await;
        }
        while let Ok(Some(Ok(_))) = timeout_at(deadline, self.socket.recv()).await {}
    }
}

fn broken(error: axum::Error) -> Incoming {
    use tungstenite::Error;
    match error.into_inner().downcast::<Error>().map(|error| *error) {
        Ok(Error::Capacity(_)) => Incoming::Broken(Ending::TooLong),
        Ok(Error::Utf8(_)) => Incoming::Broken(Ending::Garbage),
        _ => Incoming::Gone,
    }
}

/// How much of what a client sends is read at once, in bytes; every connection keeps room for it. Longer messages get room of their own. Higher: idle
/// clients cost more. Lower: long messages take more reads, of bytes that are here already.
const READ_BUFFER_BYTES: usize = 1024;

/// [`MAX_MESSAGE_BYTES`], and small buffers: tungstenite's default of 128 KiB a connection would be most of what an idle client costs.
pub(super) fn limits(upgrade: axum::extract::ws::WebSocketUpgrade) -> axum::extract::ws::WebSocketUpgrade {
    upgrade
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
}
