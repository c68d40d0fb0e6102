//! LiveKit's signaling over a WebSocket, as its clients of protocol 15 speak it: two peer connections, one offered by each side.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

use crate::plan::{Member, Plan, Role};
use crate::signaling;

/// A participant's WebSocket.
pub struct LiveKit(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl LiveKit {
    /// Joins. Returns what the server says first.
    pub async fn join(plan: &Plan, tls: &Connector, member: &Member) -> anyhow::Result<(Self, proto::JoinResponse)> {
        let token = signaling::token(plan, member)?;
        let receives = u8::from(member.role == Role::Subscriber);
        let base = plan.url.trim_end_matches('/');
        let base = base
            .strip_prefix("http")
            .map_or_else(|| base.to_owned(), |rest| format!("ws{rest}"));
        let url = format!(
            "{base}/rtc?access_token={token}&protocol=15&sdk=rust&version=1&auto_subscribe={receives}&adaptive_stream=0"
        );
        let (socket, _) = connect_async_tls_with_config(url, None, true, Some(tls.clone()))
            .await
            .map_err(refusal)?;
        let mut livekit = Self(socket);
        match livekit.next().await? {
            Response::Join(join) => Ok((livekit, join)),
            Response::Leave(leave) => bail!("was sent away: {:?}", leave.reason()),
            other => bail!("the server began with something else than a join response: {other:?}"),
        }
    }

    /// The server's next message. Dropped half-way it loses nothing.
    pub async fn next(&mut self) -> anyhow::Result<Response> {
        loop {
            match self.0.next().await.context("the WebSocket is closed")?? {
                Message::Binary(bytes) => {
                    if let Some(message) = proto::SignalResponse::decode(bytes)?.message {
                        return Ok(message);
                    }
                }
                Message::Close(Some(frame)) => {
                    bail!("the server closed the WebSocket: {} {}", frame.code, frame.reason)
                }
                Message::Close(None) => bail!("the server closed the WebSocket"),
                _ => {}
            }
        }
    }

    /// Tells the server that the participant is there.
    pub async fn ping(&mut self) -> anyhow::Result<()> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ping = proto::Ping {
            timestamp: since.as_millis() as i64,
            rtt: 0,
        };
        self.send(Request::PingReq(ping)).await
    }

    /// Leaves. Whoever is gone has left.
    pub async fn leave(&mut self) {
        let leave = proto::LeaveRequest {
            reason: proto::DisconnectReason::ClientInitiated as i32,
            ..proto::LeaveRequest::default()
        };
        let _ = self.send(Request::Leave(leave)).await;
    }

    /// Sends a message.
    pub async fn send(&mut self, request: Request) -> anyhow::Result<()> {
        let bytes = proto::SignalRequest { message: Some(request) }.encode_to_vec();
        self.0.send(Message::Binary(bytes.into())).await?;
        Ok(())
    }
}

/// What the server says when it refuses a WebSocket.
fn refusal(error: Error) -> anyhow::Error {
    match error {
        Error::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            let body = String::from_utf8_lossy(body).trim().to_owned();
            anyhow::anyhow!("refused: {} {body}", response.status())
        }
        error => error.into(),
    }
}

/// An offer or an answer.
pub fn description(kind: &str, sdp: String, id: u32) -> proto::SessionDescription {
    proto::SessionDescription {
        r#type: kind.to_owned(),
        sdp,
        id,
        ..proto::SessionDescription::default()
    }
}
