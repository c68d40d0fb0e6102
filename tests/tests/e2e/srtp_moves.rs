//! Clients without a peer connection, and a node that dies.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::cluster::token;
use e2e::processes::{Processes, Shape, database};
use futures_util::StreamExt;
use rtc_rtp::{Header, Packet};
use rtc_shared::marshal::{Marshal, Unmarshal};
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;
use serde_json::{Value, json};
use signalbox_protocol::room::MediaAddress;
use signalbox_protocol::srtp::{SrtpKey, SrtpStream, SrtpSuite};
use tokio::net::{TcpStream, UdpSocket};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// How often sound is sent.
const FRAME: Duration = Duration::from_millis(20);

/// Loose: it only ends a test that would hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// One that joined without a peer connection, with its event stream.
struct Member {
    joined: Value,
    events: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Member {
    async fn join(gateway: &str, identity: &str, body: Value) -> Self {
        let token = token("daily", identity);
        let url = format!("{gateway}/v1/rooms/daily/join");
        let request = reqwest::Client::new().post(url).bearer_auth(&token).json(&body);
        let joined: Value = request.send().await.unwrap().json().await.unwrap();
        let path = joined["events"].as_str().unwrap_or_else(|| panic!("{joined}"));
        let url = format!("{}{path}?access_token={token}", gateway.replacen("http", "ws", 1));
        let (events, _) = connect_async(url).await.unwrap();
        Self { joined, events }
    }

    /// The next event of a type.
    async fn event(&mut self, kind: &str) -> Value {
        let coming = async {
            loop {
                let message = self.events.next().await.expect("the stream goes on").unwrap();
                let Message::Text(text) = message else { continue };
                let event: Value = serde_json::from_str(&text).unwrap();
                if event["type"] == kind {
                    return event;
                }
            }
        };
        tokio::time::timeout(PATIENCE, coming).await.expect(kind)
    }
}

fn address(from: &Value) -> SocketAddr {
    let media: MediaAddress = serde_json::from_value(from["media"].clone()).unwrap();
    media.socket_addr()
}

fn stream(from: &Value, direction: &str) -> SrtpStream {
    serde_json::from_value(from[direction][0].clone()).unwrap_or_else(|error| panic!("{error}: {from}"))
}

fn context(suite: SrtpSuite, key: &SrtpKey) -> Context {
    assert_eq!(suite, SrtpSuite::AesCm128HmacSha1_80);
    let bytes = STANDARD.decode(&key.0).unwrap();
    let (key, salt) = bytes.split_at(suite.key_bytes());
    let profile = ProtectionProfile::Aes128CmHmacSha1_80;
    let provider = rtc_srtp::crypto::default_provider().unwrap();
    Context::new(key, salt, profile, None, None, provider.crypto()).unwrap()
}

/// Sends packets whose payload is their own number.
struct Sender {
    socket: UdpSocket,
    context: Context,
    stream: SrtpStream,
    number: u16,
}

impl Sender {
    async fn send(&mut self, to: SocketAddr) {
        self.number += 1;
        let packet = Packet {
            header: Header {
                version: 2,
                payload_type: self.stream.payload_type,
                sequence_number: self.number,
                timestamp: u32::from(self.number) * 960,
                ssrc: self.stream.ssrc,
                ..Header::default()
            },
            payload: self.number.to_be_bytes().to_vec().into(),
        };
        let sealed = self.context.encrypt_rtp(&packet.marshal().unwrap()).unwrap();
        self.socket.send_to(&sealed, to).await.unwrap();
    }
}

/// Sends until a packet that was sent meanwhile has come through; its number.
async fn comes_through(sender: &mut Sender, to: SocketAddr, socket: &UdpSocket, receiver: &SrtpStream) -> u16 {
    let mut context = context(receiver.suite, &receiver.key);
    let mut ticks = tokio::time::interval(FRAME);
    let mut buffer = [0; 2_000];
    let first = sender.number;
    let passing = async {
        loop {
            tokio::select! {
                _ = ticks.tick() => sender.send(to).await,
                got = socket.recv_from(&mut buffer) => {
                    let (length, from) = got.unwrap();
                    // Reports are of no matter here, and neither is what is still on its way from before.
                    let Ok(opened) = context.decrypt_rtp(&buffer[..length]) else { continue };
                    let packet = Packet::unmarshal(&mut opened.freeze()).unwrap();
                    assert_eq!((from, packet.header.ssrc), (to, receiver.ssrc));
                    let number = u16::from_be_bytes(packet.payload[..2].try_into().unwrap());
                    if number > first {
                        return number;
                    }
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, passing)
        .await
        .expect("a packet comes through")
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_without_a_peer_connection_go_on_at_another_node_when_theirs_is_killed() {
    let Some(database) = database("srtp_moves").await.unwrap() else {
        return;
    };
    let mut all = Processes::start(&database, &Shape::new(1, 2).orchestrators(1))
        .await
        .unwrap();
    let url = all.gateway(0);
    let publishes = json!({"transport": "srtp", "publish": [{"kind": "audio", "codec": "opus"}], "subscribe": false});
    let mut ann = Member::join(&url, "ann", publishes).await;
    let mut ben = Member::join(&url, "ben", json!({"transport": "srtp", "subscribe": true})).await;
    let (published, received) = (stream(&ann.joined, "publish"), stream(&ben.joined, "receive"));
    let mut sender = Sender {
        socket: UdpSocket::bind("127.0.0.1:0").await.unwrap(),
        context: context(published.suite, &published.key),
        stream: published.clone(),
        number: 7_000,
    };
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let prove = async |stream: &SrtpStream, to: SocketAddr| {
        let proof = STANDARD.decode(&stream.proof.as_ref().unwrap().0).unwrap();
        socket.send_to(&proof, to).await.unwrap();
    };
    prove(&received, address(&ben.joined)).await;
    comes_through(&mut sender, address(&ann.joined), &socket, &received).await;

    let before: MediaAddress = serde_json::from_value(ann.joined["media"].clone()).unwrap();
    all.node(before.node).server.kill().unwrap();
    let (there, also) = (ann.event("moved").await, ben.event("moved").await);
    assert_ne!(address(&there), before.socket_addr());
    assert_eq!(there["media"], also["media"], "both are told the same node");
    assert_eq!(there["media"]["generation"], 2);
    // The sender's key, SSRC and track stay; what is received has a key of its own, as the node's numbers begin anew.
    let (still, anew) = (stream(&there, "publish"), stream(&also, "receive"));
    assert_eq!(
        (&still.key, still.ssrc, &still.track),
        (&published.key, published.ssrc, &published.track)
    );
    assert_ne!(anew.key, received.key);
    prove(&anew, address(&also)).await;
    let number = comes_through(&mut sender, address(&there), &socket, &anew).await;
    println!("went on with packet {number}");
    assert_eq!(there["location"], Value::Null, "its address is the one that it had");
    let id = ann.joined["participant"]["id"].as_str().unwrap();
    let leaving = reqwest::Client::new().delete(format!("{url}/v1/rooms/daily/participants/{id}"));
    let left = leaving.bearer_auth(token("daily", "ann")).send().await.unwrap();
    assert_eq!(left.status(), 204);
}
