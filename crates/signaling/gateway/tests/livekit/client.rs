//! A LiveKit client that knows nothing but WebSockets and protobuf.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use livekit_protocol::{SignalRequest, SignalResponse};
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::cluster::PATIENCE;

pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Client {
    /// Opens `/rtc` with the token, and with more of a query.
    pub async fn connect(address: SocketAddr, token: &str, query: &str) -> Self {
        Self::try_connect(address, &format!("/rtc?access_token={token}{query}"))
            .await
            .unwrap()
    }

    /// The status and the body with which the WebSocket was refused.
    pub async fn try_connect(address: SocketAddr, path: &str) -> Result<Self, (u16, String)> {
        match connect_async(format!("ws://{address}{path}")).await {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                Err((response.status().as_u16(), String::from_utf8(body).unwrap()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn send(&mut self, message: Request) {
        let request = SignalRequest { message: Some(message) };
        self.send_raw(Message::binary(request.encode_to_vec())).await;
    }

    pub async fn send_raw(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// Sends what the server does not read to its end; returns the code with which it closes meanwhile.
    pub async fn closed_while_sending(self, message: Message) -> u16 {
        let (mut sink, mut stream) = self.socket.split();
        let sending = tokio::spawn(async move { sink.send(message).await });
        let closed = timeout(PATIENCE, stream.next()).await.expect("the server closes");
        sending.abort();
        match closed {
            Some(Ok(Message::Close(Some(frame)))) => frame.code.into(),
            other => panic!("{other:?} is no close"),
        }
    }

    /// The next protobuf message.
    pub async fn next(&mut self) -> Response {
        match self.next_raw().await {
            Message::Binary(bytes) => SignalResponse::decode(bytes).unwrap().message.unwrap(),
            message => panic!("{message:?} is not binary"),
        }
    }

    /// The next message, pings apart.
    pub async fn next_raw(&mut self) -> Message {
        let message = async {
            loop {
                let next = self.socket.next().await;
                match next.expect("the connection is open").unwrap() {
                    Message::Ping(_) => {}
                    message => return message,
                }
            }
        };
        // Of all together: pings come for ever.
        timeout(PATIENCE, message).await.expect("a message comes")
    }

    /// The code with which the server closes.
    pub async fn closed(&mut self) -> u16 {
        match self.next_raw().await {
            Message::Close(Some(frame)) => frame.code.into(),
            message => panic!("{message:?} is no close"),
        }
    }
}
