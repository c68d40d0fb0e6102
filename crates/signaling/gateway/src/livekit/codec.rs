//! WebSocket frames ↔ LiveKit's signaling messages, as binary protobuf or as its JSON mapping.
//!
//! A client that sends text gets text back, so the format is a property of the connection that follows what was last
//! received.

use axum::extract::ws::{Message, Utf8Bytes};
use bytes::Bytes;
use livekit_protocol::{SignalRequest, SignalResponse, signal_request, signal_response};
use prost::Message as _;

/// The longest message that a client may send, in bytes; a longer one ends its connection. Higher: one client can make
/// the gateway hold more memory. Lower: refuses the SDP of participants with very many tracks.
pub(super) const MAX_MESSAGE_BYTES: usize = 2 * 1024 * 1024;

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Format {
    /// Protobuf in binary frames.
    #[default]
    Binary,
    /// Protobuf's JSON mapping in text frames.
    Json,
}

/// A frame that holds no signaling message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Garbage;

/// What a frame holds; none: a kind of request that this version of the protocol does not know.
pub(super) type Decoded = Option<signal_request::Message>;

/// Decodes a binary frame.
pub(super) fn decode_binary(bytes: &[u8]) -> Result<Decoded, Garbage> {
    let request = SignalRequest::decode(bytes).map_err(|_| Garbage)?;
    Ok(request.message)
}

/// Decodes a text frame.
pub(super) fn decode_text(text: &str) -> Result<Decoded, Garbage> {
    let request: SignalRequest = serde_json::from_str(text).map_err(|_| Garbage)?;
    Ok(request.message)
}

/// Encodes a response.
///
/// None when the message has no JSON form, which takes an enum value that its own `.proto` does not list; the
/// translation lets none through.
pub(super) fn encode(message: signal_response::Message, format: Format) -> Option<Message> {
    let response = SignalResponse { message: Some(message) };
    match format {
        Format::Binary => Some(Message::Binary(Bytes::from(response.encode_to_vec()))),
        Format::Json => {
            let text = serde_json::to_string(&response).ok()?;
            Some(Message::Text(Utf8Bytes::from(text)))
        }
    }
}

#[cfg(test)]
mod tests {
    use livekit_protocol::{MuteTrackRequest, Pong};

    use super::*;

    fn mute() -> signal_request::Message {
        signal_request::Message::Mute(MuteTrackRequest {
            sid: "TR_a".into(),
            muted: true,
        })
    }

    #[test]
    fn both_formats_are_decoded() {
        let request = SignalRequest { message: Some(mute()) };
        assert_eq!(decode_binary(&request.encode_to_vec()), Ok(Some(mute())));
        assert_eq!(decode_text(r#"{"mute":{"sid":"TR_a","muted":true}}"#), Ok(Some(mute())));
    }

    #[test]
    fn an_unknown_request_is_not_garbage() {
        // Field 1000, length-delimited, empty.
        assert_eq!(decode_binary(&[0xc2, 0x3e, 0x00]), Ok(None));
        assert_eq!(decode_text(r#"{"fromTheFuture":{"a":1}}"#), Ok(None));
    }

    #[test]
    fn garbage_is_refused() {
        assert_eq!(decode_binary(&[0xff; 40]), Err(Garbage));
        assert_eq!(decode_text("{"), Err(Garbage));
        assert_eq!(decode_text("[]"), Err(Garbage));
        let nested = "[".repeat(100_000);
        assert_eq!(decode_text(&format!(r#"{{"x":{nested}"#)), Err(Garbage));
    }

    #[test]
    fn responses_take_the_format_asked_for() {
        let pong = signal_response::Message::PongResp(Pong {
            last_ping_timestamp: 7,
            timestamp: 9,
        });
        let Some(Message::Text(text)) = encode(pong.clone(), Format::Json) else {
            panic!("JSON goes into text frames");
        };
        assert_eq!(
            text.as_str(),
            r#"{"pongResp":{"lastPingTimestamp":"7","timestamp":"9"}}"#
        );
        let Some(Message::Binary(bytes)) = encode(pong.clone(), Format::Binary) else {
            panic!("protobuf goes into binary frames");
        };
        assert_eq!(SignalResponse::decode(bytes).unwrap().message, Some(pong));
    }
}
