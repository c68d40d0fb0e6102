//! One gateway's WebSocket: reads requests and hands them on, writes what its [`Link`]'s queue holds.
//!
//! Reading never waits for writing, nor for a shard: what cannot be taken is refused at once. The link ends when
//! - the gateway goes, or has been silent for [`SILENCE`] although it was pinged;
//! - a frame makes no sense or is too long: with a close frame that says so;
//! - the gateway reads too slowly and its queue is full: at once;
//! - the node stops: after the queue has been written, for at most [`FLUSH`].
//!
//! Whatever the reason, every shard is told afterwards, so that the link's participants are left without signaling and not without
//! notice.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use signalbox_protocol::control::{MAX_FRAME_BYTES, NodeFrame, Outcome, Refusal, RefusalReason, RequestFrame};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_util::sync::CancellationToken;

use crate::counters::Counters;
use crate::link::{Link, LinkId};
use crate::node::Node;
use crate::shard_command::ShardCommand;

/// How often a gateway is pinged.
pub const PING: Duration = Duration::from_secs(5);

/// How long a gateway may be silent. Higher: longer outages are survived. Lower: participants of a lost gateway are noticed
/// sooner.
pub const SILENCE: Duration = Duration::from_secs(15);

/// How long the last frames may take when a link is closed in an orderly way.
pub const FLUSH: Duration = Duration::from_secs(2);

/// Why a link ended.
enum Ended {
    /// The gateway closed it, or is gone.
    Gone,
    /// Nothing was heard of the gateway.
    Silent,
    /// The gateway reads too slowly.
    Slow,
    /// The node stops.
    Stopping,
    /// A frame cannot be understood.
    Garbage(CloseFrame),
}

/// Serves a link until it ends.
pub async fn run(socket: WebSocket, id: LinkId, node: Arc<Node>, stop: CancellationToken) {
    Counters::add(&node.counters.links_opened);
    tracing::info!(link = id.0, "gateway connected");
    let (sink, stream) = socket.split();
    let (link, frames) = Link::new(id, Arc::clone(&node.counters));
    let (close, closing) = oneshot::channel();
    let mut writer = tokio::spawn(write(sink, frames, closing));

    let ended = tokio::select! {
        ended = read(stream, &link, &node) => ended,
        () = link.slow().cancelled() => Ended::Slow,
        () = stop.cancelled() => Ended::Stopping,
        _ = &mut writer => Ended::Gone,
    };
    let (why, last) = match ended {
        Ended::Gone => ("the gateway went", None),
        Ended::Silent => ("the gateway was silent for too long", None),
        Ended::Slow => {
            Counters::add(&node.counters.links_slow);
            ("the gateway read too slowly", None)
        }
        Ended::Stopping => ("the node stops", Some(close_frame(close_code::AWAY, "the node stops"))),
        Ended::Garbage(frame) => {
            Counters::add(&node.counters.links_garbage);
            ("the gateway sent a frame that makes no sense", Some(frame))
        }
    };
    if let Some(frame) = last
        && close.send(frame).is_ok()
    {
        // Either way the writer is at its end.
        let _ = timeout(FLUSH, &mut writer).await;
    }
    writer.abort();
    for shard in &node.shards {
        shard.send(ShardCommand::LinkLost(id)).await;
    }
    Counters::add(&node.counters.links_ended);
    tracing::info!(link = id.0, why, "gateway disconnected");
}

async fn read(mut stream: SplitStream<WebSocket>, link: &Link, node: &Node) -> Ended {
    loop {
        let message = match timeout(SILENCE, stream.next()).await {
            Err(_) => return Ended::Silent,
            Ok(None) => return Ended::Gone,
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(error))) if is_end(&error) => return Ended::Gone,
            Ok(Some(Err(_))) => {
                let why = format!("a frame is longer than {MAX_FRAME_BYTES} bytes, or not one of WebSocket");
                return Ended::Garbage(close_frame(close_code::SIZE, why));
            }
        };
        match message {
            Message::Text(text) => match parse(&text) {
                Ok(frame) => node.dispatch(link, frame),
                Err(Unparsed::Request(id, refusal)) => link.refuse(id, refusal),
                Err(Unparsed::Garbage(why)) => return Ended::Garbage(close_frame(close_code::INVALID, why)),
            },
            Message::Binary(_) => {
                return Ended::Garbage(close_frame(close_code::UNSUPPORTED, "frames are JSON in text messages"));
            }
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Close(_) => return Ended::Gone,
        }
    }
}

/// Whether a read failed because the connection is over, and not because of what came.
fn is_end(error: &axum::Error) -> bool {
    matches!(
        error.source().and_then(|source| source.downcast_ref::<WsError>()),
        Some(
            WsError::Io(_)
                | WsError::ConnectionClosed
                | WsError::AlreadyClosed
                | WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake)
        )
    )
}

enum Unparsed {
    /// It has an id, so it can be refused by itself: a gateway of another version asks for something new.
    Request(u64, Refusal),
    /// Nothing says whom to answer.
    Garbage(String),
}

fn parse(text: &str) -> Result<RequestFrame, Unparsed> {
    #[derive(Deserialize)]
    struct Identified {
        id: u64,
    }
    serde_json::from_str(text).map_err(|error| match serde_json::from_str::<Identified>(text) {
        Ok(Identified { id }) => Unparsed::Request(
            id,
            Refusal::new(
                RefusalReason::Invalid,
                format!("The request cannot be understood ({error}); see that gateway and node have the same version."),
            ),
        ),
        // Only the place: the frame's content may be anything.
        Err(_) => Unparsed::Garbage(format!(
            "not a request: line {}, column {}",
            error.line(),
            error.column()
        )),
    })
}

/// Writes frames and pings until the queue is dropped, or until it is told to close: then it writes what is queued, and the
/// close frame.
async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut frames: mpsc::Receiver<NodeFrame>,
    mut closing: oneshot::Receiver<CloseFrame>,
) {
    let mut pings = interval(PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let close = loop {
        let message = tokio::select! {
            frame = frames.recv() => match frame {
                Some(frame) => encode(frame),
                None => return,
            },
            _ = pings.tick() => Some(Message::Ping(Default::default())),
            close = &mut closing => break close.ok(),
        };
        let Some(message) = message else { continue };
        // One flush for all that is queued: it is one write to the socket.
        if sink.feed(message).await.is_err() {
            return;
        }
        while let Ok(frame) = frames.try_recv() {
            if let Some(message) = encode(frame)
                && sink.feed(message).await.is_err()
            {
                return;
            }
        }
        if sink.flush().await.is_err() {
            return;
        }
    };
    while let Ok(frame) = frames.try_recv() {
        if let Some(message) = encode(frame)
            && sink.feed(message).await.is_err()
        {
            return;
        }
    }
    // The gateway may be gone; then there is nobody to tell.
    let _ = sink.send(Message::Close(close)).await;
}

/// A frame as it goes out; none if it is too long for the protocol and nothing can take its place.
fn encode(frame: NodeFrame) -> Option<Message> {
    let text = serde_json::to_string(&frame).unwrap_or_default();
    if !text.is_empty() && text.len() <= MAX_FRAME_BYTES {
        return Some(Message::text(text));
    }
    tracing::error!(bytes = text.len(), "a frame for a gateway is too long");
    match frame {
        NodeFrame::Reply { id, .. } => {
            let result = Outcome::Refused(Refusal::new(
                RefusalReason::Internal,
                "The answer is too long for a frame; use smaller rooms.",
            ));
            serde_json::to_string(&NodeFrame::Reply { id, result })
                .ok()
                .map(Message::text)
        }
        NodeFrame::Event { .. } => None,
    }
}

fn close_frame(code: u16, why: impl Into<String>) -> CloseFrame {
    let mut why = why.into();
    // A close frame's payload is at most 125 bytes with its code (RFC 6455 section 5.5).
    why.truncate(why.floor_char_boundary(123));
    CloseFrame {
        code,
        reason: why.into(),
    }
}

#[cfg(test)]
mod tests {
    use signalbox_protocol::control::Reply;

    use super::*;

    #[test]
    fn a_request_of_another_version_is_refused_by_itself() {
        match parse(r#"{"id":7,"deadline_ms":1,"request":{"type":"teleport"}}"#) {
            Err(Unparsed::Request(7, refusal)) => assert_eq!(refusal.reason, RefusalReason::Invalid),
            _ => panic!("not refused by itself"),
        }
        for garbage in ["", "{}", "[1", "\u{0}", r#"{"id":-1}"#, "null"] {
            assert!(matches!(parse(garbage), Err(Unparsed::Garbage(_))), "{garbage}");
        }
    }

    #[test]
    fn an_answer_that_is_too_long_becomes_a_refusal() {
        let reply = NodeFrame::Reply {
            id: 7,
            result: Outcome::Ok(Reply::Answer {
                sdp: "x".repeat(MAX_FRAME_BYTES),
            }),
        };
        let Some(Message::Text(text)) = encode(reply) else {
            panic!("nothing is sent")
        };
        assert!(text.contains(r#""id":7,"result":{"refused""#), "{text}");
    }

    #[test]
    fn a_close_reason_fits_into_its_frame() {
        assert!(close_frame(1007, "ä".repeat(100)).reason.len() <= 123);
    }
}
