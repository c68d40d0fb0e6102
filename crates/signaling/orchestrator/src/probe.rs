//! Asks nodes whether they are there: before one is fenced, and before a complaint about one is believed.
//!
//! Owns how many are asked at once, how long an answer is waited for, and for how long it counts. It must not decide what
//! follows from an answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, StatusCode, redirect};
use serde::de::DeserializeOwned;
use signalbox_protocol::node::{EpochHeld, HostedRooms, MoveRoom};
use signalbox_protocol::{Epoch, NodeId, Secret};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::Error;
use crate::turns::Turns;

/// How many nodes are asked at the same time. Higher: a mass loss is looked through sooner. Lower: fewer sockets.
pub const MAX_PROBES: usize = 128;

/// For how long an answer, or none, counts. Higher: a storm of complaints costs the node less. Lower: what changed is seen
/// sooner.
pub const FRESH: Duration = Duration::from_secs(1);

/// The longest answer, in bytes; one has less than a hundred.
const MAX_ANSWER_BYTES: usize = 4096;

/// The longest list of rooms, in bytes: about 20,000 rooms with names of the longest kind.
const MAX_ROOMS_BYTES: usize = 8 * 1024 * 1024;

/// How a node is asked. The process asks over HTTP ([`HttpAsk`]); a simulation over its own network.
pub trait Ask: Send + Sync + 'static {
    /// What the node with this control listener holds; none: it does not answer. May take for ever.
    fn ask<'a>(&'a self, control: &'a str) -> Pin<Box<dyn Future<Output = Option<EpochHeld>> + Send + 'a>>;

    /// The rooms of the node with this control listener; none: it does not answer. May take for ever.
    fn rooms<'a>(&'a self, _control: &'a str) -> Pin<Box<dyn Future<Output = Option<HostedRooms>> + Send + 'a>> {
        Box::pin(async { None })
    }

    /// Tells a node that a room was handed to another one. Whether it has taken that in, or does not host the room. May take for ever.
    fn send_on<'a>(
        &'a self,
        _control: &'a str,
        _order: &'a MoveRoom,
    ) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(async { false })
    }
}

/// Asks nodes, each at most once at a time.
pub struct Prober {
    ask: Arc<dyn Ask>,
    patience: Duration,
    places: Semaphore,
    nodes: Turns<NodeId, Answer>,
}

struct Answer {
    at: Instant,
    /// What was asked: an answer to another question does not count.
    epoch: Epoch,
    control: String,
    holds: bool,
}

impl Prober {
    /// A prober that waits `patience` for an answer.
    pub fn new(ask: Arc<dyn Ask>, patience: Duration) -> Self {
        Self {
            ask,
            patience,
            places: Semaphore::new(MAX_PROBES),
            nodes: Turns::default(),
        }
    }

    /// Whether the node answers that it holds this epoch, or has done so within [`FRESH`].
    pub async fn holds(&self, node: NodeId, epoch: Epoch, control: &str) -> bool {
        let turn = self.nodes.of(node);
        let mut last = turn.lock().await;
        if let Some(last) = last.as_ref()
            && last.at.elapsed() < FRESH
            && last.epoch == epoch
            && last.control == control
        {
            return last.holds;
        }
        // Never closed, so a place is always got in the end.
        let _place = self.places.acquire().await;
        let held = timeout(self.patience, self.ask.ask(control)).await.ok().flatten();
        let holds = held.is_some_and(|held| held.node == node && held.epoch == Some(epoch));
        *last = Some(Answer {
            at: Instant::now(),
            epoch,
            control: control.to_owned(),
            holds,
        });
        holds
    }
}

/// `GET /v1/epoch` on the node's control listener.
#[derive(Debug)]
pub struct HttpAsk {
    client: Client,
    secret: Secret,
}

impl HttpAsk {
    /// Asks with this secret.
    pub fn new(secret: Secret) -> Result<Self, Error> {
        // A proxy or a redirect would answer for somebody else, and a pooled connection for a node that was there before.
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Self { client, secret })
    }

    async fn post(&self, control: &str, order: &MoveRoom) -> Option<bool> {
        let url = format!("{}/v1/moves", http_url(control)?);
        let request = self.client.post(&url).bearer_auth(self.secret.expose()).json(order);
        match request.send().await {
            // One that does not host the room has nobody to send on.
            Ok(response) => Some(response.status().is_success() || response.status() == StatusCode::NOT_FOUND),
            Err(error) => {
                tracing::debug!(control, error = %error.without_url(), "a node cannot be told that a room moves");
                None
            }
        }
    }

    async fn get<T: DeserializeOwned>(&self, control: &str, path: &str, most: usize) -> Option<T> {
        let url = format!("{}{path}", http_url(control)?);
        let request = self.client.get(&url).bearer_auth(self.secret.expose());
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(control, error = %error.without_url(), "a node does not answer");
                return None;
            }
        };
        if !response.status().is_success() {
            tracing::debug!(control, path, status = %response.status(), "a node does not say what it was asked");
            return None;
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.ok()? {
            body.extend_from_slice(&chunk);
            if body.len() > most {
                return None;
            }
        }
        serde_json::from_slice(&body).ok()
    }
}

impl Ask for HttpAsk {
    fn ask<'a>(&'a self, control: &'a str) -> Pin<Box<dyn Future<Output = Option<EpochHeld>> + Send + 'a>> {
        Box::pin(self.get(control, "/v1/epoch", MAX_ANSWER_BYTES))
    }

    fn rooms<'a>(&'a self, control: &'a str) -> Pin<Box<dyn Future<Output = Option<HostedRooms>> + Send + 'a>> {
        Box::pin(self.get(control, "/v1/rooms", MAX_ROOMS_BYTES))
    }

    fn send_on<'a>(&'a self, control: &'a str, order: &'a MoveRoom) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(async move { self.post(control, order).await.unwrap_or(false) })
    }
}

/// The control listener speaks WebSocket and HTTP on the same port.
fn http_url(control: &str) -> Option<String> {
    let rest = control.strip_prefix("ws")?;
    (rest.starts_with("://") || rest.starts_with("s://")).then(|| format!("http{}", rest.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use uuid::Uuid;

    use super::*;

    const NODE: NodeId = NodeId(Uuid::from_u128(1));
    const CONTROL: &str = "ws://10.0.0.7:7900";
    const PATIENCE: Duration = Duration::from_millis(250);

    /// Answers after a while, and counts.
    struct Slow {
        after: Duration,
        held: Option<EpochHeld>,
        asked: AtomicUsize,
        at_once: AtomicUsize,
        most_at_once: AtomicUsize,
    }

    impl Slow {
        fn new(after: Duration, epoch: Option<Epoch>) -> Arc<Self> {
            Arc::new(Self {
                after,
                held: Some(EpochHeld { node: NODE, epoch }),
                asked: AtomicUsize::new(0),
                at_once: AtomicUsize::new(0),
                most_at_once: AtomicUsize::new(0),
            })
        }
    }

    impl Ask for Slow {
        fn ask<'a>(&'a self, _: &'a str) -> Pin<Box<dyn Future<Output = Option<EpochHeld>> + Send + 'a>> {
            Box::pin(async {
                self.asked.fetch_add(1, Ordering::Relaxed);
                let at_once = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
                self.most_at_once.fetch_max(at_once, Ordering::Relaxed);
                tokio::time::sleep(self.after).await;
                self.at_once.fetch_sub(1, Ordering::Relaxed);
                self.held
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_node_itself_with_that_epoch_counts() {
        let prober = Prober::new(Slow::new(Duration::ZERO, Some(Epoch(7))), PATIENCE);
        assert!(prober.holds(NODE, Epoch(7), CONTROL).await);
        assert!(!prober.holds(NODE, Epoch(8), CONTROL).await);
        assert!(!prober.holds(NodeId(Uuid::from_u128(2)), Epoch(7), CONTROL).await);
        let gone = Prober::new(Slow::new(Duration::ZERO, None), PATIENCE);
        assert!(!gone.holds(NODE, Epoch(7), CONTROL).await);
        let slow = Prober::new(Slow::new(PATIENCE * 2, Some(Epoch(7))), PATIENCE);
        assert!(!slow.holds(NODE, Epoch(7), CONTROL).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_is_asked_once_at_a_time_and_its_answer_counts_for_a_second() {
        let ask = Slow::new(PATIENCE / 2, Some(Epoch(7)));
        let prober = Prober::new(ask.clone(), PATIENCE);
        let holds = || prober.holds(NODE, Epoch(7), CONTROL);
        assert_eq!(tokio::join!(holds(), holds(), holds()), (true, true, true));
        assert_eq!(ask.asked.load(Ordering::Relaxed), 1);
        // Another epoch or address is another question.
        assert!(!prober.holds(NODE, Epoch(8), CONTROL).await);
        assert!(prober.holds(NODE, Epoch(7), "ws://10.0.0.8:7900").await);
        tokio::time::advance(FRESH).await;
        assert!(prober.holds(NODE, Epoch(7), "ws://10.0.0.8:7900").await);
        assert_eq!(ask.asked.load(Ordering::Relaxed), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_asked_at_once_and_no_more() {
        let ask = Slow::new(PATIENCE / 2, None);
        let prober = Arc::new(Prober::new(ask.clone(), PATIENCE));
        let tasks: Vec<_> = (0..3 * MAX_PROBES as u128)
            .map(|n| {
                let prober = prober.clone();
                tokio::spawn(async move { prober.holds(NodeId(Uuid::from_u128(n)), Epoch(1), CONTROL).await })
            })
            .collect();
        for task in tasks {
            assert!(!task.await.unwrap());
        }
        assert_eq!(ask.most_at_once.load(Ordering::Relaxed), MAX_PROBES);
    }

    #[test]
    fn the_control_listener_is_asked_over_http() {
        assert_eq!(http_url("ws://10.0.0.7:7900").as_deref(), Some("http://10.0.0.7:7900"));
        assert_eq!(http_url("wss://a.example/").as_deref(), Some("https://a.example"));
        assert_eq!(http_url("file:///etc/passwd"), None);
    }

    /// Answers one connection with these bytes, and returns what was asked.
    async fn serve_once(listener: TcpListener, answer: String) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(stream.read_u8().await.unwrap());
        }
        // The client may hang up before it has read an answer that it does not want.
        let _ = stream.write_all(answer.as_bytes()).await;
        String::from_utf8(asked).unwrap()
    }

    #[tokio::test]
    async fn it_sends_the_secret_and_reads_what_is_held() {
        let ask = HttpAsk::new("0123456789abcdef".parse().unwrap()).unwrap();
        let held = EpochHeld {
            node: NODE,
            epoch: Some(Epoch(7)),
        };
        let json = serde_json::to_string(&held).unwrap();
        let long = " ".repeat(2 * MAX_ANSWER_BYTES);
        let answers = [
            ("200 OK", json.clone(), Some(held)),
            ("401 Unauthorized", json.clone(), None),
            ("302 Found\r\nLocation: /", json.clone(), None),
            ("200 OK", "no".to_owned(), None),
            ("200 OK", format!("{json}{long}"), None),
        ];
        for (status, body, expected) in answers {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let control = format!("ws://{}", listener.local_addr().unwrap());
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let (asked, held) = tokio::join!(serve_once(listener, answer), ask.ask(&control));
            assert_eq!(held, expected, "{status}");
            assert!(asked.starts_with("GET /v1/epoch HTTP/1.1\r\n"), "{asked}");
            assert!(
                asked.to_lowercase().contains("authorization: bearer 0123456789abcdef"),
                "{asked}"
            );
        }
    }
}
