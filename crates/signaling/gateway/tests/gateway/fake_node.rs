//! A media node's control listener that answers what the test tells it to, and remembers what it was asked.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use signalbox_protocol::control::{
    Command, CounterOffer, Event, Joined, NodeFrame, Outcome, PATH, ParticipantLimits, Refusal, RefusalReason, Reply,
    Request, RequestFrame, Resumption, RoomCommand, Snapshot, Target,
};
use signalbox_protocol::room::{
    Grants, Kind, MediaAddress, ParticipantInfo, ParticipantState, PublishTrack, RoomInfo, Source, TrackInfo,
};
use signalbox_protocol::srtp::{SrtpKey, SrtpProof, SrtpRequest, SrtpSession, SrtpStream};
use signalbox_protocol::trace::TraceContext;
use signalbox_protocol::tunnel::{Token, Tunnel};
use signalbox_protocol::{Generation, Identity, NodeId, ParticipantId, RoomName, TrackId};
use tokio::net::TcpListener;
use tokio::sync::{Notify, broadcast, watch};

use crate::cluster::{SECRET, eventually};

/// An offer that the node counters, if it is the client's only one.
pub const UNFIT: &str = "v=0 unfit";

/// The ICE session of everyone who offers once, until it is restarted.
pub const ICE_SESSION: &str = "first";

/// A participant that the node has never heard of.
pub const UNKNOWN: &str = "PA_unknown";

#[derive(Clone)]
pub struct FakeNode(Arc<Inner>);

struct Inner {
    control: String,
    /// None: break the link.
    push: broadcast::Sender<Option<String>>,
    requests: Mutex<Vec<Request>>,
    traces: Mutex<Vec<Option<TraceContext>>>,
    changed: Notify,
    refusals: Mutex<VecDeque<RefusalReason>>,
    hold: AtomicBool,
    held: Mutex<Vec<RequestFrame>>,
    links: AtomicU64,
    participants: AtomicU64,
    /// Who is in each room, for those who administer it; none: there is no room.
    members: Mutex<Option<Vec<ParticipantInfo>>>,
    generation: AtomicU64,
    /// The streams of those without a peer connection.
    streams: Mutex<HashMap<ParticipantId, SrtpSession>>,
    /// What those may use.
    limits: Mutex<HashMap<ParticipantId, ParticipantLimits>>,
    /// Who offered once, and whether it has left.
    sessions: Mutex<BTreeMap<ParticipantId, bool>>,
    /// What takes everyone up elsewhere.
    kept: Mutex<Option<Resumption>>,
    /// Somebody has been in a room.
    is_used: AtomicBool,
    frozen: watch::Sender<bool>,
    refuses_joins: AtomicBool,
    /// That its rooms have here.
    hosted: AtomicU64,
}

impl FakeNode {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = Self(Arc::new(Inner {
            control: format!("ws://{}", listener.local_addr().unwrap()),
            push: broadcast::channel(4096).0,
            requests: Mutex::default(),
            traces: Mutex::default(),
            changed: Notify::new(),
            refusals: Mutex::default(),
            hold: AtomicBool::new(false),
            held: Mutex::default(),
            links: AtomicU64::new(0),
            participants: AtomicU64::new(0),
            members: Mutex::default(),
            generation: AtomicU64::new(1),
            streams: Mutex::default(),
            limits: Mutex::default(),
            sessions: Mutex::default(),
            kept: Mutex::default(),
            is_used: AtomicBool::new(false),
            frozen: watch::Sender::new(false),
            refuses_joins: AtomicBool::new(false),
            hosted: AtomicU64::new(1),
        }));
        let router = Router::new().route(PATH, get(accept)).with_state(node.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        node
    }

    pub fn control(&self) -> String {
        self.0.control.clone()
    }

    /// How many links were made so far.
    pub fn links(&self) -> u64 {
        self.0.links.load(Ordering::SeqCst)
    }

    /// The next requests are refused for these reasons.
    pub fn refuse(&self, reasons: impl IntoIterator<Item = RefusalReason>) {
        self.0.refusals.lock().unwrap().extend(reasons);
    }

    /// Answers nothing until [`FakeNode::release`].
    pub fn hold(&self) {
        self.0.hold.store(true, Ordering::SeqCst);
    }

    /// Answers all that was held back.
    pub fn release(&self) {
        self.0.hold.store(false, Ordering::SeqCst);
        for frame in std::mem::take(&mut *self.0.held.lock().unwrap()) {
            self.push_frame(&self.answer(frame));
        }
    }

    /// Its rooms exist, with these participants.
    pub fn host(&self, members: impl IntoIterator<Item = ParticipantInfo>) {
        *self.0.members.lock().unwrap() = Some(members.into_iter().collect());
    }

    /// The rooms' generation from now on.
    pub fn move_to(&self, generation: u64) {
        self.0.generation.store(generation, Ordering::SeqCst);
    }

    /// All participants can be taken up elsewhere from now on, with this.
    pub fn keep(&self, kept: Resumption) {
        *self.0.kept.lock().unwrap() = Some(kept);
    }

    /// It has no rooms any more.
    pub fn lose_rooms(&self) {
        self.0.is_used.store(false, Ordering::SeqCst);
    }

    /// Its rooms have been placed so often.
    pub fn host_generation(&self, generation: Generation) {
        self.0.hosted.store(generation.0, Ordering::SeqCst);
    }

    /// Whether it says that the tickets of joins are no good.
    pub fn refuse_joins(&self, refuses: bool) {
        self.0.refuses_joins.store(refuses, Ordering::SeqCst);
    }

    /// Says nothing and hears nothing, or goes on.
    pub fn freeze(&self, frozen: bool) {
        self.0.frozen.send_replace(frozen);
    }

    /// Breaks all links.
    pub fn cut(&self) {
        let _ = self.0.push.send(None);
    }

    pub fn push(&self, to: &str, event: Event) {
        let to = vec![ParticipantId::new(to)];
        self.push_frame(&NodeFrame::Event { to, event });
    }

    pub fn push_text(&self, text: &str) {
        let _ = self.0.push.send(Some(text.to_owned()));
    }

    fn push_frame(&self, frame: &NodeFrame) {
        self.push_text(&serde_json::to_string(frame).unwrap());
    }

    pub fn requests(&self) -> Vec<Request> {
        self.0.requests.lock().unwrap().clone()
    }

    /// Of each request, in the same order.
    pub fn traces(&self) -> Vec<Option<TraceContext>> {
        self.0.traces.lock().unwrap().clone()
    }

    /// Waits until a request fits.
    pub async fn saw(&self, fits: impl Fn(&Request) -> bool) {
        eventually("the request at the node", async {
            loop {
                let changed = self.0.changed.notified();
                if self.requests().iter().any(&fits) {
                    return;
                }
                changed.await;
            }
        })
        .await;
    }

    /// Waits until a participant was given this command.
    pub async fn saw_command(&self, id: &str, expected: Command) {
        self.saw(|request| {
            matches!(request, Request::Participant { participant, command, .. }
                if participant.as_str() == id && *command == expected)
        })
        .await;
    }

    fn answer(&self, frame: RequestFrame) -> NodeFrame {
        // Whether a room is there is asked by the gateway for itself.
        let is_list = matches!(&frame.request, Request::Administer { command, .. } if *command == RoomCommand::List);
        let is_refused = !is_list || self.0.members.lock().unwrap().is_some();
        let refused = is_refused
            .then(|| self.0.refusals.lock().unwrap().pop_front())
            .flatten();
        let is_join = matches!(frame.request, Request::Join(_));
        let refuses_it = is_join && self.0.refuses_joins.load(Ordering::SeqCst);
        let refused = refused.or_else(|| refuses_it.then_some(RefusalReason::Ticket));
        let result = match refused {
            Some(reason) => Outcome::Refused(Refusal::new(reason, "Refused by the test.")),
            None => self.outcome(frame.request),
        };
        NodeFrame::Reply { id: frame.id, result }
    }

    fn outcome(&self, request: Request) -> Outcome {
        let media = MediaAddress {
            ip: "192.0.2.7".parse().unwrap(),
            port: 50_000,
            node: NodeId(Default::default()),
            generation: Generation(self.0.generation.load(Ordering::SeqCst)),
        };
        let reply = match request {
            Request::Open { .. } => Reply::Opened { media },
            Request::Expect { .. } => {
                self.0.is_used.store(true, Ordering::SeqCst);
                Reply::Opened { media }
            }
            Request::Join(join) => {
                self.0.is_used.store(true, Ordering::SeqCst);
                let id = match &join.resume {
                    Some(resume) => resume.participant.id.clone(),
                    None => {
                        let number = self.0.participants.fetch_add(1, Ordering::SeqCst) + 1;
                        ParticipantId::new(format!("PA_{number}"))
                    }
                };
                let srtp = join.srtp.as_ref().map(|asked| session(&join.publish, asked));
                if let Some(session) = &srtp {
                    let mut streams = self.0.streams.lock().unwrap();
                    streams.insert(id.clone(), session.clone());
                    self.0.limits.lock().unwrap().insert(id.clone(), join.limits);
                }
                if join.one_offer.is_some() {
                    self.0.sessions.lock().unwrap().insert(id.clone(), false);
                }
                let resumed = join.resume.as_ref();
                let is_tunneled = resumed.is_some_and(|resume| resume.tunnels == [tunnel()]);
                let is_unfit = join.one_offer.is_some() && join.offer.as_deref() == Some(UNFIT);
                Reply::Joined(Box::new(Joined {
                    snapshot: self.resumable(snapshot(join.room, join.identity, id, join.name)),
                    media,
                    answer: join.offer.filter(|_| !is_unfit).map(|_| "v=0 answer".to_owned()),
                    counter_offer: is_unfit.then(|| CounterOffer {
                        sdp: "v=0 counter".to_owned(),
                        valid_seconds: 15,
                    }),
                    ice_session: join.one_offer.map(|_| ICE_SESSION.to_owned()),
                    srtp,
                    keeps_ice: is_tunneled,
                }))
            }
            Request::Participant { participant, .. }
                if participant.as_str() == UNKNOWN
                    || self.0.sessions.lock().unwrap().get(&participant) == Some(&true) =>
            {
                return Outcome::Refused(Refusal::new(RefusalReason::NoParticipant, "Join again."));
            }
            Request::Participant {
                room,
                participant,
                identity,
                command,
            } => match command {
                Command::Attach => {
                    self.0.is_used.store(true, Ordering::SeqCst);
                    let srtp = self.0.streams.lock().unwrap().get(&participant).cloned();
                    let limits = self.0.limits.lock().unwrap().get(&participant).copied();
                    let mut snapshot = snapshot(room, identity, participant, String::new());
                    snapshot.limits = limits.unwrap_or_default();
                    snapshot.media = Some(media);
                    let published = srtp.iter().flat_map(|session| &session.publish);
                    snapshot.participant.tracks = published.map(published_track).collect();
                    snapshot.srtp = srtp.map(Box::new);
                    Reply::Snapshot(Box::new(self.resumable(snapshot)))
                }
                Command::Offer { .. } => Reply::Answer {
                    sdp: "v=0 again".into(),
                },
                Command::OpenTunnels => Reply::Tunnels {
                    tunnels: vec![tunnel()],
                },
                Command::PatchIce { sessions, .. } if sessions.is_empty() => Reply::IceRestarted {
                    session: "second".into(),
                    fragment: "a=ice-ufrag:second\r\n".into(),
                },
                Command::PatchIce { sessions, .. } if !sessions.iter().any(|session| session == ICE_SESSION) => {
                    return Outcome::Refused(Refusal::new(RefusalReason::StaleIce, "Restarted since."));
                }
                Command::Leave => {
                    if let Some(has_left) = self.0.sessions.lock().unwrap().get_mut(&participant) {
                        *has_left = true;
                    }
                    Reply::Done
                }
                _ => Reply::Done,
            },
            Request::Administer { room, command } => return self.administer(room, command).into(),
        };
        Outcome::Ok(reply)
    }

    fn resumable(&self, snapshot: Snapshot) -> Snapshot {
        let resumption = self.0.kept.lock().unwrap().clone().map(Box::new);
        Snapshot { resumption, ..snapshot }
    }

    fn administer(&self, room: RoomName, command: RoomCommand) -> Result<Reply, Refusal> {
        let members = self.0.members.lock().unwrap().clone();
        // A room in which somebody has been is there; who is in it, nobody has asked for.
        let is_asked_for = members.is_none() && command == RoomCommand::List;
        let is_used = is_asked_for && self.0.is_used.load(Ordering::SeqCst);
        let members = members.or_else(|| is_used.then(Vec::new));
        let members = members.ok_or_else(|| Refusal::new(RefusalReason::NoRoom, "No such room."))?;
        let named = |name: &str| {
            let is_named = |one: &&ParticipantInfo| one.id.as_str() == name || one.identity.as_str() == name;
            let found = members.iter().find(is_named).cloned();
            found.ok_or_else(|| Refusal::new(RefusalReason::NoParticipant, "No such participant."))
        };
        Ok(match command {
            RoomCommand::List => Reply::Room {
                room: RoomInfo {
                    generation: Generation(self.0.hosted.load(Ordering::SeqCst)),
                    ..snapshot(room, "x".parse().unwrap(), ParticipantId::new("x"), String::new()).room
                },
                participants: members,
            },
            RoomCommand::SetMetadata { metadata } => Reply::Room {
                room: RoomInfo {
                    metadata,
                    ..snapshot(room, "x".parse().unwrap(), ParticipantId::new("x"), String::new()).room
                },
                participants: members,
            },
            RoomCommand::Find { participant } => Reply::Participant {
                participant: Box::new(named(&participant)?),
            },
            RoomCommand::Update { participant, update } => {
                let mut found = named(&participant)?;
                found.name = update.name.unwrap_or(found.name);
                Reply::Participant {
                    participant: Box::new(found),
                }
            }
            RoomCommand::Mute { participant, .. }
            | RoomCommand::Unpublish { participant, .. }
            | RoomCommand::Remove { participant } => {
                named(&participant)?;
                Reply::Done
            }
        })
    }
}

fn published_track(stream: &SrtpStream) -> TrackInfo {
    TrackInfo {
        id: stream.track.clone().unwrap(),
        kind: stream.kind,
        source: Source::Camera,
        name: "a name".into(),
        muted: true,
        mime_type: stream.codec.clone(),
        width: 640,
        height: 360,
        layers: Vec::new(),
        mid: stream.mid.clone(),
        stream: "camera".into(),
        dialect_info: None,
    }
}

/// A stream for each that was asked for, with numbers that tell which it is.
fn session(publish: &[PublishTrack], asked: &SrtpRequest) -> SrtpSession {
    let stream = |index: usize, kind: Kind, codec: Option<&String>, received: bool| SrtpStream {
        mid: index.to_string(),
        track: (!received).then(|| TrackId::new(format!("TR_{index}"))),
        kind,
        codec: codec.cloned().unwrap_or_else(|| "video/VP8".into()),
        clock_rate: if kind == Kind::Audio { 48_000 } else { 90_000 },
        payload_type: 96 + index as u8,
        ssrc: 0xf000_0000 + index as u32,
        suite: asked.suite,
        key: SrtpKey(format!("a2V5{index}AAA")),
        feedback_ssrc: 0x1000_0000 + index as u32,
        feedback_key: SrtpKey("ZmVlZGJhY2s=".into()),
        proof: received.then(|| SrtpProof("cHJvb2Y=".into())),
    };
    let published = publish.iter().enumerate();
    let published = published.map(|(index, track)| stream(index, track.kind, track.codec.as_ref(), false));
    let wanted = asked.receive.iter().enumerate();
    let received = wanted.map(|(index, wanted)| stream(10 + index, wanted.kind, wanted.codec.as_ref(), true));
    SrtpSession {
        publish: published.collect(),
        receive: received.collect(),
        idle_ms: 60_000,
    }
}

fn snapshot(room: RoomName, identity: Identity, id: ParticipantId, name: String) -> Snapshot {
    Snapshot {
        limits: Default::default(),
        room: RoomInfo {
            name: room,
            id: "RM_a".into(),
            generation: Generation(1),
            created_at_ms: 1,
            participants: 1,
            publishers: 0,
            metadata: String::new(),
        },
        participant: participant(id.as_str(), identity.as_str(), &name),
        others: Vec::new(),
        speakers: Vec::new(),
        slots: Vec::new(),
        qualities: Vec::new(),
        media: None,
        srtp: None,
        resumption: None,
        departed: Vec::new(),
    }
}

pub fn participant(id: &str, identity: &str, name: &str) -> ParticipantInfo {
    ParticipantInfo {
        id: ParticipantId::new(id),
        identity: identity.parse().unwrap(),
        name: name.to_owned(),
        metadata: String::new(),
        attributes: Default::default(),
        state: ParticipantState::Joined,
        tracks: Vec::new(),
        joined_at_ms: 1,
        version: 1,
        grants: Grants::default(),
        dialect_info: None,
    }
}

async fn accept(State(node): State<FakeNode>, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    if headers.get(AUTHORIZATION).unwrap() != format!("Bearer {SECRET}").as_str() {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    node.0.links.fetch_add(1, Ordering::SeqCst);
    let pushed = node.0.push.subscribe();
    upgrade.on_upgrade(move |socket| serve(node, socket, pushed))
}

async fn serve(node: FakeNode, mut socket: WebSocket, mut pushed: broadcast::Receiver<Option<String>>) {
    let mut frozen = node.0.frozen.subscribe();
    loop {
        frozen.wait_for(|frozen| !frozen).await.unwrap();
        tokio::select! {
            _ = frozen.changed() => {}
            text = pushed.recv() => match text.unwrap() {
                Some(text) => socket.send(Message::text(text)).await.unwrap(),
                None => return,
            },
            message = socket.recv() => {
                let text = match message {
                    Some(Ok(Message::Text(text))) => text,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => continue,
                };
                let frame: RequestFrame = serde_json::from_str(&text).unwrap();
                node.0.requests.lock().unwrap().push(frame.request.clone());
                node.0.traces.lock().unwrap().push(frame.trace.clone());
                node.0.changed.notify_waiters();
                if node.0.hold.load(Ordering::SeqCst) {
                    node.0.held.lock().unwrap().push(frame);
                } else {
                    let answer = serde_json::to_string(&node.answer(frame)).unwrap();
                    if socket.send(Message::text(answer)).await.is_err() {
                        return;
                    }
                }
            }
        }
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
