//! A gateway between a fake orchestrator and a fake media node.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::routing::{any, post};
use axum::{Json, Router};
use clap::Parser;
use signalbox_gateway::Config;
use signalbox_gateway::state::State;
use signalbox_protocol::control::{
    Command, Event, Join, Joined, NodeFrame, Outcome, Refusal, RefusalReason, Reply, Request, RequestFrame, Resumption,
    Snapshot, Target,
};
use signalbox_protocol::placement::{PlaceRoom, Placement};
use signalbox_protocol::room::{
    Grants, Kind, MediaAddress, ParticipantInfo, ParticipantState, PublishTrack, RoomInfo, TrackInfo,
};
use signalbox_protocol::token::{AccessClaims, VideoGrant};
use signalbox_protocol::tunnel::{Token, Tunnel};
use signalbox_protocol::{Epoch, Generation, NodeId, ParticipantId, TrackId};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

/// Long enough for any machine; nothing waits for it unless a test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

const KEY: &str = "testkey";
const SECRET: &str = "a-secret-for-tests-only";

/// See the module.
pub struct Cluster {
    pub address: SocketAddr,
    pub shutdown: CancellationToken,
    pub node: Node,
    placed: Arc<Mutex<Placement>>,
}

impl Cluster {
    pub async fn start() -> Self {
        let node = Node::start().await;
        let placed = Arc::new(Mutex::new(Placement {
            room: "daily".parse().unwrap(),
            node: NodeId::random(),
            control: format!("ws://{}", node.address),
            epoch: Epoch(1),
            generation: Generation(1),
            ticket: "ticket".into(),
            ticket_seconds: 30,
            by_canary_share: false,
        }));
        let answer = Arc::clone(&placed);
        let place = post(move |Json(_): Json<PlaceRoom>| async move { Json(answer.lock().unwrap().clone()) });
        let orchestrator = serve(Router::new().route("/v1/placements", place)).await;
        let config = Config::parse_from([
            "signalbox-gateway",
            "--cluster-secret=the-cluster-secret-of-tests",
            "--drain-seconds=2",
            &format!("--keys={KEY}:{SECRET}"),
            &format!("--orchestrator=http://{orchestrator}"),
        ]);
        let shutdown = CancellationToken::new();
        let state = State::new(config, shutdown.clone()).unwrap();
        let address = serve(signalbox_gateway::livekit::routes().with_state(state)).await;
        Self {
            address,
            shutdown,
            node,
            placed,
        }
    }

    /// Another node, on which all rooms are from now on.
    pub async fn next_node(&self) -> Node {
        let node = Node::start().await;
        let mut placed = self.placed.lock().unwrap();
        placed.node = NodeId::random();
        placed.control = format!("ws://{}", node.address);
        placed.generation = Generation(placed.generation.0 + 1);
        node
    }

    /// Where the room is.
    pub fn placement(&self) -> Placement {
        self.placed.lock().unwrap().clone()
    }
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// A token for the room `daily`.
pub fn token(identity: &str) -> String {
    token_with(|claims| claims.sub = identity.to_owned())
}

pub fn token_with(change: impl FnOnce(&mut AccessClaims)) -> String {
    let mut claims = AccessClaims {
        iss: KEY.into(),
        sub: "ann".into(),
        exp: jsonwebtoken::get_current_timestamp() + 600,
        video: VideoGrant {
            room_join: true,
            room: "daily".into(),
            ..VideoGrant::default()
        },
        ..AccessClaims::default()
    };
    change(&mut claims);
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

#[derive(Clone)]
enum Out {
    Frame(Arc<str>),
    HangUp,
}

/// A media node that says yes to everything, writes down what it was asked, and sends the events that it is told to.
pub struct Node {
    address: SocketAddr,
    out: broadcast::Sender<Out>,
    asked: mpsc::UnboundedReceiver<Request>,
    inner: Arc<Inner>,
}

struct Inner {
    out: broadcast::Sender<Out>,
    asked: mpsc::UnboundedSender<Request>,
    participants: Mutex<HashMap<ParticipantId, ParticipantInfo>>,
    refusals: Mutex<Vec<Refusal>>,
    /// What takes everyone up at another node.
    kept: Mutex<Option<Resumption>>,
    /// Requests are written down, and not answered.
    is_mute: AtomicBool,
    joins_refused: Mutex<Option<RefusalReason>>,
    media_port: AtomicU16,
}

impl Node {
    async fn start() -> Self {
        let (out, _) = broadcast::channel(1024);
        let (asked, receiver) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            out: out.clone(),
            asked,
            participants: Mutex::default(),
            refusals: Mutex::default(),
            kept: Mutex::default(),
            is_mute: AtomicBool::new(false),
            joins_refused: Mutex::default(),
            media_port: AtomicU16::new(0),
        });
        let links = Arc::clone(&inner);
        let upgrade = any(move |upgrade: WebSocketUpgrade| async move { upgrade.on_upgrade(move |s| links.link(s)) });
        let address = serve(Router::new().route("/v1/control", upgrade)).await;
        inner.media_port.store(address.port(), Ordering::Relaxed);
        Self {
            address,
            out,
            asked: receiver,
            inner,
        }
    }

    /// It takes media where the other one does, as one that is started in its place.
    pub fn takes_the_place_of(&self, other: &Node) {
        let port = other.inner.media_port.load(Ordering::Relaxed);
        self.inner.media_port.store(port, Ordering::Relaxed);
    }

    /// The next request but joins and attachments.
    pub async fn asked(&mut self) -> Command {
        loop {
            match self.request().await {
                Request::Participant {
                    command: Command::Attach,
                    ..
                } => {}
                Request::Participant { command, .. } => return command,
                Request::Join(_) | Request::Open { .. } | Request::Expect { .. } | Request::Administer { .. } => {}
            }
        }
    }

    /// The next join, and who was expected before.
    pub async fn joined(&mut self) -> (Join, Vec<ParticipantInfo>) {
        let mut expected = Vec::new();
        loop {
            match self.request().await {
                Request::Join(join) => return (*join, expected),
                Request::Expect { participants, .. } => expected.extend(participants),
                other => panic!("{other:?} is no join"),
            }
        }
    }

    /// Nothing that comes is waiting to be looked at.
    pub fn is_idle(&self) -> bool {
        self.asked.is_empty()
    }

    /// All participants can be taken up elsewhere from now on, with this.
    pub fn keep(&self, kept: Resumption) {
        *self.inner.kept.lock().unwrap() = Some(kept);
    }

    /// Nobody can join any more.
    pub fn refuse_joins(&self, reason: RefusalReason) {
        *self.inner.joins_refused.lock().unwrap() = Some(reason);
    }

    /// Answers nothing from now on.
    pub fn fall_mute(&self) {
        self.inner.is_mute.store(true, Ordering::SeqCst);
    }

    pub async fn request(&mut self) -> Request {
        let next = tokio::time::timeout(PATIENCE, self.asked.recv()).await;
        next.expect("the node is asked something").unwrap()
    }

    pub fn tell(&self, to: &str, event: Event) {
        let frame = NodeFrame::Event {
            to: vec![ParticipantId::new(to)],
            event,
        };
        self.inner.send(&frame);
    }

    /// The next command but attachments is refused with this.
    pub fn refuse(&self, reason: RefusalReason) {
        self.inner.refusals.lock().unwrap().push(Refusal::new(reason, "No."));
    }

    /// The participant is gone without a word.
    pub fn forget(&self, participant: &str) {
        let gone = self
            .inner
            .participants
            .lock()
            .unwrap()
            .remove(&ParticipantId::new(participant));
        assert!(gone.is_some());
    }

    pub fn hang_up(&self) {
        assert!(self.out.send(Out::HangUp).is_ok());
    }
}

impl Inner {
    fn send(&self, frame: &NodeFrame) {
        let _ = self.out.send(Out::Frame(serde_json::to_string(frame).unwrap().into()));
    }

    async fn link(self: Arc<Self>, mut socket: WebSocket) {
        let mut out = self.out.subscribe();
        loop {
            tokio::select! {
                next = out.recv() => match next.unwrap() {
                    Out::Frame(frame) => drop(socket.send(Message::text(&*frame)).await),
                    Out::HangUp => return,
                },
                message = socket.recv() => match message {
                    Some(Ok(Message::Text(text))) => self.answer(serde_json::from_str(&text).unwrap()),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                },
            }
        }
    }

    fn answer(&self, frame: RequestFrame) {
        if self.is_mute.load(Ordering::SeqCst) {
            let _ = self.asked.send(frame.request);
            return;
        }
        let result = match &frame.request {
            Request::Join(join) => match *self.joins_refused.lock().unwrap() {
                Some(reason) => Err(Refusal::new(reason, "No.")),
                None => Ok(self.join(join)),
            },
            Request::Participant {
                participant, command, ..
            } => self.command(participant, command),
            Request::Expect { participants, .. } => {
                let expected = participants.iter().map(|one| (one.id.clone(), one.clone()));
                self.participants.lock().unwrap().extend(expected);
                Ok(Reply::Opened { media: self.media() })
            }
            Request::Administer { .. } => Ok(self.list()),
            Request::Open { .. } => unreachable!("no such request in this dialect"),
        };
        let result: Outcome = result.into();
        self.send(&NodeFrame::Reply { id: frame.id, result });
        let _ = self.asked.send(frame.request);
    }

    /// The room, which it has had all along.
    fn list(&self) -> Reply {
        let participants = self.participants.lock().unwrap();
        let room = snapshot(&participants, &bob()).room;
        let participants = participants.values().cloned().collect();
        Reply::Room { room, participants }
    }

    fn resumable(&self, snapshot: Snapshot) -> Snapshot {
        let resumption = self.kept.lock().unwrap().clone().map(Box::new);
        Snapshot { resumption, ..snapshot }
    }

    fn media(&self) -> MediaAddress {
        MediaAddress {
            ip: [127, 0, 0, 1].into(),
            port: self.media_port.load(Ordering::Relaxed),
            node: NodeId::random(),
            generation: Generation(1),
        }
    }

    fn join(&self, join: &Join) -> Reply {
        let fresh = ParticipantInfo {
            id: ParticipantId::new(format!("PA_{}", join.identity)),
            identity: join.identity.clone(),
            name: join.name.clone(),
            metadata: join.metadata.clone(),
            attributes: join.attributes.clone(),
            state: ParticipantState::Joined,
            tracks: Vec::new(),
            joined_at_ms: 1_700_000_000_123,
            version: 1,
            grants: join.grants.clone(),
            dialect_info: join.dialect_info.clone(),
        };
        let resumed = join.resume.as_ref().map(|resume| resume.participant.clone());
        let participant = resumed.unwrap_or(fresh);
        let mut participants = self.participants.lock().unwrap();
        participants.insert(participant.id.clone(), participant.clone());
        Reply::Joined(Box::new(Joined {
            snapshot: self.resumable(snapshot(&participants, &participant)),
            media: self.media(),
            answer: None,
            counter_offer: None,
            ice_session: None,
            srtp: None,
            keeps_ice: false,
        }))
    }

    fn command(&self, id: &ParticipantId, command: &Command) -> Result<Reply, Refusal> {
        let participants = self.participants.lock().unwrap();
        let participant = participants
            .get(id)
            .ok_or_else(|| Refusal::new(RefusalReason::NoParticipant, "Join again."))?;
        if !matches!(command, Command::Attach)
            && let Some(refusal) = self.refusals.lock().unwrap().pop()
        {
            return Err(refusal);
        }
        Ok(match command {
            Command::Attach => Reply::Snapshot(Box::new(self.resumable(snapshot(&participants, participant)))),
            Command::Offer { sdp } => Reply::Answer {
                sdp: format!("answer to {sdp}"),
            },
            Command::OpenTunnels => Reply::Tunnels {
                tunnels: vec![tunnel()],
            },
            Command::Publish(track) => Reply::Published {
                track: Box::new(published(track)),
            },
            _ => Reply::Done,
        })
    }
}

fn snapshot(participants: &HashMap<ParticipantId, ParticipantInfo>, me: &ParticipantInfo) -> Snapshot {
    let others: Vec<_> = participants.values().filter(|p| p.id != me.id).cloned().collect();
    Snapshot {
        limits: Default::default(),
        room: RoomInfo {
            name: "daily".parse().unwrap(),
            id: "RM_a".into(),
            generation: Generation(1),
            created_at_ms: 1_700_000_000_000,
            participants: u32::try_from(others.len()).unwrap() + 1,
            publishers: 0,
            metadata: String::new(),
        },
        participant: me.clone(),
        others,
        speakers: Vec::new(),
        slots: Vec::new(),
        qualities: Vec::new(),
        media: None,
        srtp: None,
        resumption: None,
        departed: Vec::new(),
    }
}

fn published(track: &PublishTrack) -> TrackInfo {
    TrackInfo {
        id: match &track.encoding_of {
            Some(track) => track.clone(),
            None => TrackId::new(format!("TR_{}", track.cid)),
        },
        kind: track.kind,
        source: track.source,
        name: track.name.clone(),
        muted: track.muted,
        mime_type: String::new(),
        width: track.width,
        height: track.height,
        layers: track.layers.clone(),
        mid: String::new(),
        stream: track.stream.clone(),
        dialect_info: track.dialect_info.clone(),
    }
}

/// The way to anyone's client.
pub fn tunnel() -> Tunnel {
    Tunnel {
        target: Target::Publisher,
        via: "192.0.2.1:5000".parse().unwrap(),
        entrance: None,
        token: Token::new([7; 16]),
        ufrag: "node".into(),
        password: "the node's password".into(),
        client_ufrag: "client".into(),
        moves: 1,
        estimate_bps: None,
        sounds: Vec::new(),
    }
}

/// Somebody else with a camera.
pub fn bob() -> ParticipantInfo {
    ParticipantInfo {
        id: ParticipantId::new("PA_bob"),
        identity: "bob".parse().unwrap(),
        name: "Bob".into(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
        state: ParticipantState::Active,
        tracks: vec![published(&PublishTrack {
            width: 640,
            height: 360,
            stream: "camera".into(),
            ..PublishTrack::new("cam", Kind::Video, signalbox_protocol::room::Source::Camera)
        })],
        joined_at_ms: 0,
        version: 3,
        grants: Grants::default(),
        dialect_info: None,
    }
}
