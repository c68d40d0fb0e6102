//! A gateway with everything around it.

use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use clap::Parser;
use futures_util::StreamExt;
use jsonwebtoken::{EncodingKey, Header};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;
use signalbox_gateway::{Config, Error, Listeners, Signals};
use signalbox_protocol::token::{AccessClaims, VideoGrant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::sync::CancellationToken;

use crate::fake_node::FakeNode;
use crate::fake_orchestrator::FakeOrchestrator;

pub const SECRET: &str = "the cluster's secret";
pub const KEY: &str = "devkey";
pub const KEY_SECRET: &str = "the key's own secret";
pub const JOIN: &str = "/v1/rooms/daily/join";
pub const OFFER: &str = r#"{"offer":"v=0 offer"}"#;

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Far longer than anything takes, so that only what never happens fails.
pub async fn eventually<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(30), future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

pub struct Cluster {
    pub node: FakeNode,
    pub orchestrator: FakeOrchestrator,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub shutdown: CancellationToken,
    pub reload: watch::Sender<u64>,
    pub running: JoinHandle<Result<(), Error>>,
    client: reqwest::Client,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Cluster {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub async fn start_with(flags: &[&str]) -> Self {
        let node = FakeNode::start().await;
        let orchestrator = FakeOrchestrator::start(Some(node.control())).await;
        let urls = orchestrator.url().to_owned();
        Self::start_between(node, orchestrator, &urls, flags).await
    }

    /// With a listener whose clients are sent to the other.
    pub async fn start_redirecting(listener: TcpListener, flags: &[&str]) -> Self {
        let node = FakeNode::start().await;
        let orchestrator = FakeOrchestrator::start(Some(node.control())).await;
        let urls = orchestrator.url().to_owned();
        let with = |listeners| Listeners {
            redirect: Some(listener),
            ..listeners
        };
        Self::start_all(node, orchestrator, &urls, flags, with).await
    }

    /// One that others bring clients to, which asks these orchestrators.
    pub async fn start_among(listener: TcpListener, urls: Option<&str>, flags: &[&str]) -> Self {
        let node = FakeNode::start().await;
        let orchestrator = FakeOrchestrator::start(Some(node.control())).await;
        let urls = urls.unwrap_or(orchestrator.url()).to_owned();
        let with = |listeners| Listeners {
            peers: Some(listener),
            ..listeners
        };
        Self::start_all(node, orchestrator, &urls, flags, with).await
    }

    /// With these orchestrator URLs, separated by commas.
    pub async fn start_between(node: FakeNode, orchestrator: FakeOrchestrator, urls: &str, flags: &[&str]) -> Self {
        Self::start_all(node, orchestrator, urls, flags, |listeners| listeners).await
    }

    async fn start_all(
        node: FakeNode,
        orchestrator: FakeOrchestrator,
        urls: &str,
        flags: &[&str],
        with: impl FnOnce(Listeners) -> Listeners,
    ) -> Self {
        let keys = format!("{KEY}:{KEY_SECRET},other:{KEY_SECRET}{KEY_SECRET}");
        let mut arguments = vec!["signalbox-gateway", "--keys", &keys];
        if !flags.contains(&"--drain-seconds") {
            arguments.extend(["--drain-seconds", "2"]);
        }
        if !flags.contains(&"--cluster-secret") {
            arguments.extend(["--cluster-secret", SECRET]);
        }
        arguments.extend(["--orchestrator", urls]);
        arguments.extend(flags);
        let config = Config::try_parse_from(arguments).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, admin_address) = (listener.local_addr().unwrap(), admin.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let (reload, reloads) = watch::channel(0);
        let listeners = with(Listeners::new(listener, Some(admin)));
        let signals = Signals {
            shutdown: shutdown.clone(),
            reload: reloads,
        };
        let running = tokio::spawn(signalbox_gateway::run(listeners, config, signals));
        Self {
            node,
            orchestrator,
            address,
            admin: admin_address,
            shutdown,
            reload,
            running,
            client: reqwest::Client::new(),
        }
    }

    pub fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    /// With ann's token for the room "daily".
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).bearer_auth(token("daily", "ann"))
    }

    pub async fn send_json(&self, method: Method, path: &str, body: &str) -> Response {
        self.request(method, path)
            .header("content-type", "application/json")
            .body(body.to_owned())
            .send()
            .await
            .unwrap()
    }

    pub async fn join(&self) -> Value {
        let response = self.send_json(Method::POST, JOIN, OFFER).await;
        assert_eq!(response.status(), 201);
        response.json().await.unwrap()
    }

    /// A figure; named without its labels, the sum over all.
    pub async fn metric(&self, name: &str) -> u64 {
        let url = format!("http://{}/metrics", self.admin);
        let text = self.client.get(url).send().await.unwrap().text().await.unwrap();
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix("signalbox_gateway_")?.strip_prefix(name)?;
            let value = match rest.strip_prefix('{') {
                Some(labelled) => labelled.split_once("} ")?.1,
                None => rest.strip_prefix(' ')?,
            };
            Some(value.parse::<u64>().unwrap())
        });
        let values: Vec<u64> = values.collect();
        assert!(!values.is_empty(), "no {name} in {text}");
        values.iter().sum()
    }

    /// An event stream, and its first message.
    pub async fn events(&self, participant: &str) -> (Socket, Value) {
        let url = format!(
            "ws://{}/v1/rooms/daily/participants/{participant}/events?access_token={}",
            self.address,
            token("daily", "ann")
        );
        let (mut socket, _) = connect_async(url).await.unwrap();
        let first = next_json(&mut socket).await;
        (socket, first)
    }
}

/// The next text.
pub async fn next_json(socket: &mut Socket) -> Value {
    eventually("a message", async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("{other:?} instead of a text"),
            }
        }
    })
    .await
}

/// The close code that ends the stream.
pub async fn close_code(socket: &mut Socket) -> u16 {
    eventually("a close", async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("{other:?} instead of a close"),
            }
        }
    })
    .await
}

/// What is wrong, in the problem's words: the kind's last part and the detail.
pub async fn problem(response: Response) -> (u16, String, String) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: signalbox_protocol::problem::Problem = response.json().await.unwrap();
    assert_eq!(problem.status, status);
    assert!(problem.detail.ends_with('.'), "not a sentence: {}", problem.detail);
    let kind = problem.kind.strip_prefix("urn:signalbox:problem:").unwrap().to_owned();
    (status, kind, problem.detail)
}

pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

pub fn claims(room: &str, identity: &str) -> AccessClaims {
    AccessClaims {
        iss: KEY.into(),
        sub: identity.into(),
        exp: now() + 600,
        video: VideoGrant {
            room_join: true,
            room: room.into(),
            ..VideoGrant::default()
        },
        ..AccessClaims::default()
    }
}

pub fn sign(claims: &AccessClaims, secret: &str) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

pub fn token(room: &str, identity: &str) -> String {
    sign(&claims(room, identity), KEY_SECRET)
}
