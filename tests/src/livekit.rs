//! A minimal client of the LiveKit protocol: the signaling WebSocket with binary protobuf, and two peer connections.
//!
//! It does what an SDK does and no more: answers the server's offers on the subscriber's connection, offers on the publisher's,
//! and can lose its WebSocket and resume.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use prost::Message as _;
use proto::data_packet::Value as DataValue;
use proto::signal_request::Message as Request;
use proto::signal_response::Message as Response;
use str0m::channel::{ChannelConfig, Reliability};
use str0m::media::{Direction, MediaKind, Mid};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::media::Source;
use crate::peer::Peer;
use crate::until;

/// A client's WebSocket.
pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Label of the data channel that loses nothing.
pub const RELIABLE: &str = "_reliable";

/// Label of the data channel that may lose.
pub const LOSSY: &str = "_lossy";

/// What the signaling has told.
#[derive(Debug, Clone, Default)]
pub struct Signaled {
    /// The others by identity, and itself.
    pub participants: BTreeMap<String, proto::ParticipantInfo>,
    /// Its own tracks, by the id that it chose.
    pub published: BTreeMap<String, proto::TrackInfo>,
    /// How many publisher answers have been taken.
    pub answers: usize,
    /// How many offers have been answered.
    pub offers: usize,
    /// Pongs.
    pub pongs: usize,
    /// A leave.
    pub leave: Option<proto::LeaveRequest>,
    /// The socket is gone.
    pub closed: bool,
    /// What went wrong on this side.
    pub failures: Vec<String>,
}

/// A participant.
#[derive(Debug)]
pub struct LiveKitClient {
    /// The join response.
    pub join: proto::JoinResponse,
    /// The connection that it offers.
    pub publisher: Peer,
    /// The connection that the server offers.
    pub subscriber: Peer,
    /// The number in its packets' marks.
    pub sender: u32,
    gateway: String,
    token: String,
    link: Link,
}

/// One WebSocket and the task that reads it. Dropping it cuts the connection without a close frame.
#[derive(Debug)]
struct Link {
    requests: mpsc::UnboundedSender<Request>,
    signaled: watch::Receiver<Signaled>,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Opens `/rtc` with more of a query than the token.
///
/// # Errors
/// When the server refuses the upgrade.
pub async fn open(gateway: &str, token: &str, query: &str) -> anyhow::Result<Socket> {
    let gateway = gateway.replacen("http", "ws", 1);
    let url = format!("{gateway}/rtc?access_token={token}&protocol=15&sdk=rust&version=1&auto_subscribe=1{query}");
    let (socket, _) = tokio_tungstenite::connect_async(url).await?;
    Ok(socket)
}

/// The next message of the server.
///
/// # Errors
/// When the socket is closed, or holds something else.
pub async fn receive(socket: &mut Socket) -> anyhow::Result<Response> {
    loop {
        match socket.next().await.context("the socket is closed")?? {
            Message::Binary(bytes) => {
                let response = proto::SignalResponse::decode(bytes)?;
                return response.message.context("a response without a message");
            }
            Message::Close(frame) => bail!("closed: {frame:?}"),
            Message::Text(text) => bail!("text to a client that speaks binary: {text}"),
            _ => {}
        }
    }
}

fn description(kind: &str, sdp: String, id: u32) -> proto::SessionDescription {
    proto::SessionDescription {
        r#type: kind.to_owned(),
        sdp,
        id,
        ..proto::SessionDescription::default()
    }
}

impl LiveKitClient {
    /// Joins; publishes nothing but the data channels.
    ///
    /// # Errors
    /// When the server does not behave.
    pub async fn join(gateway: &str, token: &str) -> anyhow::Result<Self> {
        let mut socket = open(gateway, token, "").await?;
        let Response::Join(join) = receive(&mut socket).await? else {
            bail!("the first message is not a join response")
        };
        let (publisher, subscriber) = (Peer::new().await?, Peer::new().await?);
        let mut participants = BTreeMap::new();
        for participant in join.participant.iter().chain(&join.other_participants) {
            participants.insert(participant.identity.clone(), participant.clone());
        }
        let signaled = Signaled {
            participants,
            ..Signaled::default()
        };
        let link = Link::start(socket, signaled, publisher.clone(), subscriber.clone());
        let client = Self {
            join,
            publisher,
            subscriber,
            sender: rand::random(),
            gateway: gateway.to_owned(),
            token: token.to_owned(),
            link,
        };
        let (offer, ()) = client
            .publisher
            .offer(|api| {
                api.add_channel(RELIABLE.to_owned());
                api.add_channel_with_config(ChannelConfig {
                    label: LOSSY.to_owned(),
                    ordered: false,
                    reliability: Reliability::MaxRetransmits { retransmits: 0 },
                    ..ChannelConfig::default()
                });
            })
            .await?;
        client.negotiate(offer).await?;
        Ok(client)
    }

    /// What the signaling has told.
    pub fn signaled(&self) -> Signaled {
        self.link.signaled.borrow().clone()
    }

    /// Waits for a condition on the signaling; see [`until`].
    pub async fn until(&self, what: &str, condition: impl FnMut(&Signaled) -> bool) {
        until(&mut self.link.signaled.clone(), what, condition).await;
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When the socket is closed.
    pub fn request(&self, request: Request) -> anyhow::Result<()> {
        self.link
            .requests
            .send(request)
            .map_err(|_| anyhow::anyhow!("the socket is closed"))
    }

    async fn negotiate(&self, offer: String) -> anyhow::Result<()> {
        let answers = self.signaled().answers;
        self.request(Request::Offer(description("offer", offer, 0)))?;
        self.until("an answer", |signaled| signaled.answers > answers).await;
        Ok(())
    }

    /// Announces a track, offers it, and sends it as soon as the connection is up.
    ///
    /// # Errors
    /// When the server does not behave.
    pub async fn publish(&self, kind: MediaKind) -> anyhow::Result<proto::TrackInfo> {
        let audio = kind == MediaKind::Audio;
        let cid = format!(
            "cid-{}-{:08x}",
            if audio { "audio" } else { "video" },
            rand::random::<u32>()
        );
        let (r#type, source) = if audio {
            (proto::TrackType::Audio, proto::TrackSource::Microphone)
        } else {
            (proto::TrackType::Video, proto::TrackSource::Camera)
        };
        self.request(Request::AddTrack(proto::AddTrackRequest {
            cid: cid.clone(),
            r#type: r#type as i32,
            source: source as i32,
            width: if audio { 0 } else { 640 },
            height: if audio { 0 } else { 480 },
            ..proto::AddTrackRequest::default()
        }))?;
        self.until("the track is taken", |signaled| signaled.published.contains_key(&cid))
            .await;
        let track = cid.clone();
        let (offer, mid): (String, Mid) = self
            .publisher
            .offer(move |api| api.add_media(kind, Direction::SendOnly, Some("stream".to_owned()), Some(track), None))
            .await?;
        self.negotiate(offer).await?;
        let now = Instant::now();
        let source = if audio {
            Source::audio(mid, self.sender, now)
        } else {
            Source::video(mid, self.sender, &[], now)
        };
        self.publisher.send(source).await?;
        self.signaled()
            .published
            .get(&cid)
            .cloned()
            .context("the track is gone")
    }

    /// Sends a data packet to everyone.
    ///
    /// # Errors
    /// When the channel is not open.
    pub async fn send_data(&self, label: &str, payload: &[u8]) -> anyhow::Result<()> {
        self.publisher
            .until("the channel", |state| state.channels.contains_key(label))
            .await;
        let packet = proto::DataPacket {
            // What a client says about itself is not to be believed; the receiver must see who it is by its token.
            participant_identity: "somebody else".to_owned(),
            value: Some(DataValue::User(proto::UserPacket {
                payload: payload.to_vec(),
                topic: Some("test".to_owned()),
                ..proto::UserPacket::default()
            })),
            ..proto::DataPacket::default()
        };
        self.publisher.send_data(label, packet.encode_to_vec()).await
    }

    /// Waits for a data packet with this payload, and says on which channel it came and who the server says sent it.
    ///
    /// # Errors
    /// When the packet cannot be decoded.
    pub async fn data(&self, payload: &[u8]) -> (String, String) {
        let find = |messages: &[(String, Vec<u8>)]| {
            messages.iter().find_map(|(label, bytes)| {
                let packet = proto::DataPacket::decode(bytes.as_slice()).ok()?;
                match packet.value? {
                    DataValue::User(user) if user.payload == payload => {
                        Some((label.clone(), packet.participant_identity))
                    }
                    _ => None,
                }
            })
        };
        self.subscriber
            .until("the data packet", |state| find(&state.messages).is_some())
            .await;
        find(&self.subscriber.state().messages).unwrap_or_default()
    }

    /// Cuts the WebSocket and resumes on a new one, perhaps through another gateway, with the same peer connections.
    ///
    /// # Errors
    /// When the server does not take it back.
    pub async fn resume(&mut self, gateway: Option<&str>) -> anyhow::Result<()> {
        if let Some(gateway) = gateway {
            self.gateway = gateway.to_owned();
        }
        let before = self.signaled();
        self.link.task.abort();
        let sid = self
            .join
            .participant
            .as_ref()
            .map(|own| own.sid.clone())
            .unwrap_or_default();
        let mut socket = open(&self.gateway, &self.token, &format!("&reconnect=1&sid={sid}")).await?;
        let first = receive(&mut socket).await?;
        let Response::Reconnect(_) = first else {
            bail!("the first message of a resume is {first:?}")
        };
        self.link = Link::start(socket, before, self.publisher.clone(), self.subscriber.clone());
        self.request(Request::SyncState(proto::SyncState::default()))?;
        let (offer, _) = self.publisher.offer(|api| api.ice_restart(true)).await?;
        self.negotiate(offer).await
    }

    /// Leaves.
    ///
    /// # Errors
    /// When the socket is closed.
    pub fn leave(&self) -> anyhow::Result<()> {
        self.request(Request::Leave(proto::LeaveRequest {
            reason: proto::DisconnectReason::ClientInitiated as i32,
            ..proto::LeaveRequest::default()
        }))
    }
}

impl Link {
    fn start(socket: Socket, signaled: Signaled, publisher: Peer, subscriber: Peer) -> Self {
        let (requests, mut outbox) = mpsc::unbounded_channel::<Request>();
        let (sender, watched) = watch::channel(Signaled {
            closed: false,
            ..signaled
        });
        let answers = requests.clone();
        let task = tokio::spawn(async move {
            let (mut sink, mut stream) = socket.split();
            loop {
                tokio::select! {
                    request = outbox.recv() => {
                        let Some(request) = request else { break };
                        let bytes = proto::SignalRequest { message: Some(request) }.encode_to_vec();
                        if sink.send(Message::Binary(bytes.into())).await.is_err() {
                            break;
                        }
                    }
                    message = stream.next() => {
                        let Some(Ok(message)) = message else { break };
                        let Message::Binary(bytes) = message else { continue };
                        let result = handle(&bytes, &sender, &answers, &publisher, &subscriber).await;
                        if let Err(error) = result {
                            sender.send_modify(|signaled| signaled.failures.push(format!("{error:#}")));
                        }
                    }
                }
            }
            sender.send_modify(|signaled| signaled.closed = true);
            sender.closed().await;
        });
        Self {
            requests,
            signaled: watched,
            task,
        }
    }
}

async fn handle(
    bytes: &[u8],
    signaled: &watch::Sender<Signaled>,
    requests: &mpsc::UnboundedSender<Request>,
    publisher: &Peer,
    subscriber: &Peer,
) -> anyhow::Result<()> {
    let response = proto::SignalResponse::decode(bytes)?;
    match response.message.context("a response without a message")? {
        Response::Answer(answer) => {
            publisher.accept_answer(answer.sdp).await?;
            signaled.send_modify(|signaled| signaled.answers += 1);
        }
        Response::Offer(offer) => {
            let answer = subscriber.accept_offer(offer.sdp).await?;
            requests.send(Request::Answer(description("answer", answer, offer.id)))?;
            signaled.send_modify(|signaled| signaled.offers += 1);
        }
        Response::Update(update) => signaled.send_modify(|signaled| {
            for participant in update.participants {
                let gone = participant.state == proto::participant_info::State::Disconnected as i32;
                if gone {
                    signaled.participants.remove(&participant.identity);
                } else {
                    signaled.participants.insert(participant.identity.clone(), participant);
                }
            }
        }),
        Response::TrackPublished(published) => signaled.send_modify(|signaled| {
            signaled
                .published
                .insert(published.cid, published.track.unwrap_or_default());
        }),
        Response::PongResp(_) => signaled.send_modify(|signaled| signaled.pongs += 1),
        Response::Leave(leave) => signaled.send_modify(|signaled| signaled.leave = Some(leave)),
        _ => {}
    }
    Ok(())
}
