//! LiveKit's signaling over a WebSocket, as its clients of protocol 15 speak it: two peer connections, one offered by each side.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use jsonwebtoken::{EncodingKey, Header};
use livekit_protocol as proto;
use prost::Message as _;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use signalbox_protocol::token::{AccessClaims, VideoGrant};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::plan::{Member, Plan, Role};

/// For how long tokens are good.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// A participant's WebSocket.
pub struct Signaling(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// A token to join with.
pub fn token(plan: &Plan, member: &Member, now: SystemTime) -> anyhow::Result<String> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let claims = AccessClaims {
        iss: plan.key.clone(),
        sub: member.identity.clone(),
        exp: (now + LIFETIME).as_secs(),
        video: VideoGrant {
            room_join: true,
            room: member.room.clone(),
            ..VideoGrant::default()
        },
        ..AccessClaims::default()
    };
    let key = EncodingKey::from_secret(plan.secret.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).context("no token can be signed")
}

impl Signaling {
    /// Joins. Returns what the server says first.
    pub async fn join(plan: &Plan, member: &Member) -> anyhow::Result<(Self, proto::JoinResponse)> {
        let token = token(plan, member, SystemTime::now())?;
        let receives = u8::from(member.role == Role::Subscriber);
        let base = plan.url.trim_end_matches('/');
        let base = base
            .strip_prefix("http")
            .map_or_else(|| base.to_owned(), |rest| format!("ws{rest}"));
        let url = format!(
            "{base}/rtc?access_token={token}&protocol=15&sdk=rust&version=1&auto_subscribe={receives}&adaptive_stream=0"
        );
        let (socket, _) = tokio_tungstenite::connect_async_with_config(url, None, true)
            .await
            .map_err(refusal)?;
        let mut signaling = Self(socket);
        match signaling.next().await? {
            Response::Join(join) => Ok((signaling, join)),
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
