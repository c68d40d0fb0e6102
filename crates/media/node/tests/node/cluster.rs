//! A node that is registered with the fake orchestrator, and a gateway's link.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Deref;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use jsonwebtoken::{EncodingKey, Header, encode};
use signalbox_media::{Config, Error, Handle};
use signalbox_protocol::control::{
    Command, Event, Join, NodeFrame, Outcome, PATH, Reply, Request, RequestFrame, Transports,
};
use signalbox_protocol::node::EpochHeld;
use signalbox_protocol::room::Grants;
use signalbox_protocol::ticket::{AUDIENCE, TicketClaims};
use signalbox_protocol::{Epoch, Generation, NodeId, ParticipantId};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::orchestrator::{CLUSTER, Orchestrator};

pub const SECRET: &str = "the cluster secret of the tests";

/// Far longer than anything here takes, on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where a node is, and who.
pub struct Place {
    pub control: SocketAddr,
    pub id: NodeId,
}

/// A running node.
pub struct Node {
    pub place: Place,
    pub media: Vec<SocketAddr>,
    pub shutdown: CancellationToken,
    pub drain: CancellationToken,
    pub task: JoinHandle<Result<(), Error>>,
    _stop: DropGuard,
}

impl Node {
    /// Starts a node and waits until it is registered.
    pub async fn start(orchestrator: &Orchestrator, more: &[&str]) -> Self {
        Self::start_with_secrets(SECRET, orchestrator, more).await
    }

    /// The same with these cluster secrets.
    pub async fn start_with_secrets(secrets: &str, orchestrator: &Orchestrator, more: &[&str]) -> Self {
        let node = Self::launch(secrets, orchestrator, more).await;
        orchestrator
            .told("the node registers", |log| {
                log.registrations.iter().any(|(known, _)| known.node == node.id)
            })
            .await;
        // The answer is on its way when the registration has been logged.
        node.until("/readyz", |status, _| status == 200).await;
        node
    }

    /// Starts a node.
    pub async fn launch(secrets: &str, orchestrator: &Orchestrator, more: &[&str]) -> Self {
        let control = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = control.local_addr().unwrap();
        let id = NodeId::random();
        let id_text = id.to_string();
        let arguments = [
            "signalbox-media",
            "--media-bind=127.0.0.1:0",
            "--orchestrator",
            &orchestrator.url,
            "--cluster-secret",
            secrets,
            "--node-id",
            &id_text,
        ];
        let config = Config::parse_from(arguments.iter().chain(more));
        let sockets = config.bind_media().unwrap();
        let media = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
        let handle = Handle::default();
        let (shutdown, drain) = (handle.stop.clone(), handle.drain.clone());
        let task = tokio::spawn(signalbox_media::run(control, sockets, config, handle));
        Self {
            place: Place { control: address, id },
            media,
            task,
            _stop: shutdown.clone().drop_guard(),
            shutdown,
            drain,
        }
    }
}

impl Deref for Node {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Place {
    /// What the node says that it holds, to who sends this secret.
    pub async fn epoch(&self, secret: &str) -> Result<EpochHeld, u16> {
        let url = format!("http://{}/v1/epoch", self.control);
        let response = reqwest::Client::new()
            .get(url)
            .bearer_auth(secret)
            .send()
            .await
            .unwrap();
        match response.status().as_u16() {
            200 => Ok(response.json().await.unwrap()),
            status => Err(status),
        }
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let response = reqwest::get(format!("http://{}{path}", self.control)).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Asks until the answer is like this: what is waited for has no event of its own.
    pub async fn until(&self, path: &str, like: impl Fn(u16, &str) -> bool) {
        let asking = async {
            loop {
                let (status, text) = self.get(path).await;
                if like(status, &text) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.expect(path);
    }

    /// Waits until a metric has a value that is like this.
    pub async fn metric(&self, name: &str, like: impl Fn(f64) -> bool) {
        self.until("/metrics", |_, text| {
            text.lines()
                .filter_map(|line| line.rsplit_once(' '))
                .any(|(key, value)| key == name && like(value.parse().unwrap()))
        })
        .await;
    }

    pub fn claims(&self, room: &str, generation: u64) -> TicketClaims {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        TicketClaims {
            aud: AUDIENCE.into(),
            exp: now + 30,
            cluster: *CLUSTER,
            room: room.parse().unwrap(),
            node: self.id,
            epoch: Epoch(1),
            generation: Generation(generation),
        }
    }

    pub fn ticket(&self, room: &str, generation: u64) -> String {
        sign(&self.claims(room, generation), SECRET)
    }

    pub fn join(&self, room: &str, generation: u64, identity: &str) -> Request {
        Request::Join(Box::new(Join {
            limits: Default::default(),
            ticket: self.ticket(room, generation),
            room: room.parse().unwrap(),
            identity: identity.parse().unwrap(),
            name: String::new(),
            metadata: String::new(),
            attributes: BTreeMap::new(),
            grants: Grants::default(),
            transports: Transports::Dual,
            auto_subscribe: true,
            never_pause: false,
            attach: true,
            publish: Vec::new(),
            offer: None,
            one_offer: None,
            srtp: None,
            dialect_info: None,
            resume: None,
        }))
    }

    pub async fn gateway(&self) -> Gateway {
        self.connect(Some(SECRET)).await.unwrap()
    }

    pub async fn connect(&self, secret: Option<&str>) -> Result<Gateway, tungstenite::Error> {
        let mut request = format!("ws://{}{PATH}", self.control).into_client_request().unwrap();
        if let Some(secret) = secret {
            let value = format!("Bearer {secret}").parse().unwrap();
            request.headers_mut().insert("authorization", value);
        }
        let (socket, _) = connect_async(request).await?;
        Ok(Gateway {
            socket,
            next: 1,
            events: VecDeque::new(),
        })
    }
}

pub fn sign(claims: &TicketClaims, secret: &str) -> String {
    encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

/// A gateway's link.
pub struct Gateway {
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next: u64,
    /// Events that came while a reply was waited for.
    pub events: VecDeque<NodeFrame>,
}

impl Gateway {
    pub async fn ask(&mut self, request: Request) -> Outcome {
        let id = self.send(request, 60_000).await;
        self.reply(id).await
    }

    /// Joins a room's generation with this link attached, and gives the participant's id.
    pub async fn join(&mut self, node: &Place, room: &str, generation: u64, identity: &str) -> ParticipantId {
        match self.ask(node.join(room, generation, identity)).await {
            Outcome::Ok(Reply::Joined(joined)) => joined.snapshot.participant.id,
            other => panic!("not joined: {other:?}"),
        }
    }

    /// Does something for a participant.
    pub async fn command(
        &mut self,
        room: &str,
        identity: &str,
        participant: &ParticipantId,
        command: Command,
    ) -> Outcome {
        let request = Request::Participant {
            room: room.parse().unwrap(),
            participant: participant.clone(),
            identity: identity.parse().unwrap(),
            command,
        };
        self.ask(request).await
    }

    pub async fn send(&mut self, request: Request, deadline_ms: u32) -> u64 {
        let id = self.next;
        self.next += 1;
        let frame = RequestFrame {
            id,
            trace: None,
            deadline_ms,
            request,
        };
        let text = serde_json::to_string(&frame).unwrap();
        self.socket.send(Message::text(text)).await.unwrap();
        id
    }

    pub async fn reply(&mut self, to: u64) -> Outcome {
        loop {
            match self.frame().await.expect("an open link") {
                NodeFrame::Reply { id, result } if id == to => return result,
                NodeFrame::Reply { .. } => {}
                event @ NodeFrame::Event { .. } => self.events.push_back(event),
            }
        }
    }

    /// The next event that is like this; those before it are dropped.
    pub async fn event(&mut self, like: impl Fn(&Event) -> bool) -> (Vec<ParticipantId>, Event) {
        let come = async {
            loop {
                let frame = match self.events.pop_front() {
                    Some(frame) => frame,
                    None => self.frame().await.expect("an open link"),
                };
                if let NodeFrame::Event { to, event } = frame
                    && like(&event)
                {
                    return (to, event);
                }
            }
        };
        // The node's pings keep a link alive on which nothing else comes.
        tokio::time::timeout(PATIENCE, come).await.expect("the event")
    }

    /// The next frame, or how the link was closed.
    pub async fn frame(&mut self) -> Result<NodeFrame, Option<CloseFrame>> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next())
                .await
                .expect("a frame");
            match message {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(close))) => return Err(close),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }

    /// How the link ends.
    pub async fn closed(&mut self) -> Option<CloseFrame> {
        loop {
            if let Err(close) = self.frame().await {
                return close;
            }
        }
    }
}
