//! The link to one media node: a WebSocket that carries the requests and the events of all sessions.
//!
//! Owns the frames, their ids and deadlines, and the link's health. When it breaks, all that is under way fails and all sessions
//! are lost; it is never repaired, a new one is made on demand ([`NodeLinks`]). Knows no room's state and no dialect.
//!
//! Everything is bounded: frames by [`MAX_FRAME_BYTES`], frames waiting to be sent by [`OUTGOING_QUEUE`], requests under way by
//! [`routing::MAX_PENDING`], events waiting for a session by [`crate::session::EVENT_QUEUE`]. A request that finds the queue full waits until its
//! deadline; a session whose queue is full is lost.

mod pool;
mod routing;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt, Stream, StreamExt};
use signalbox_protocol::control::{
    Command, MAX_FRAME_BYTES, NodeFrame, Outcome, Refusal, Reply, Request, RequestFrame,
};
use signalbox_protocol::{Identity, ParticipantId, RoomName};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Bytes, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

pub(crate) use self::pool::NodeLinks;
use self::routing::{Expected, Routing};
use crate::metrics::Metrics;
use crate::problem::ApiError;
use crate::session::Session;

/// How many frames may wait to be sent. Higher: more memory when a node stalls. Lower: bursts of joins wait.
const OUTGOING_QUEUE: usize = 1024;

/// When to ask the node for a sign of life. A few of them fit into [`DOUBT_AFTER`], so that one late answer is no reason to doubt.
const PING_INTERVAL: Duration = Duration::from_millis(250);

/// After how long without anything from the node its rooms are looked for elsewhere. The link stays, and if the node speaks again before they are,
/// nothing happens. Higher: calls on a lost machine stand still for longer, though not less than its lease lasts. Lower: nodes and networks that
/// stall for a moment cost questions.
pub(crate) const DOUBT_AFTER: Duration = Duration::from_secs(1);

/// When to give the link up, after this long without anything from the node. Higher: requests to a lost machine hang longer. Lower: a node that
/// stalls is linked to anew, and its sessions begin with a snapshot.
const SILENCE_LIMIT: Duration = Duration::from_secs(7);

/// The deadline of what is sent without waiting for the answer.
const PARTING_DEADLINE_MS: u32 = 5_000;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What came of a request.
#[derive(Debug)]
pub(crate) struct Answered {
    /// The node's reply.
    pub(crate) reply: Reply,
    /// For an admitted or attached participant, until it is claimed: dropping it takes the join back.
    pub(crate) session: Option<Session>,
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The node says no.
    Refused(Refusal),
    /// The node cannot be reached, or the link broke under way.
    Broken,
    /// No answer in time.
    TimedOut,
    /// Too many requests are under way.
    Overloaded,
    /// The request does not fit into a frame.
    TooLarge,
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => refusal.into(),
            Failure::Broken | Failure::TimedOut => Self::NodeUnavailable,
            Failure::Overloaded => Self::Overloaded("Too much is under way; try again shortly.".into()),
            Failure::TooLarge => Self::InvalidRequest("The request is too long for the media node; send less.".into()),
        }
    }
}

/// One live link.
#[derive(Debug)]
pub(crate) struct NodeLink {
    outgoing: mpsc::Sender<String>,
    routing: Mutex<Routing>,
    broken: CancellationToken,
    broken_at: OnceLock<Instant>,
    /// The node is silent, perhaps for ever.
    silent: watch::Sender<bool>,
    metrics: Arc<Metrics>,
}

impl NodeLink {
    /// Starts the link's two tasks on an open socket. When `closing` is cancelled, it ends after what is queued was sent.
    fn start(
        socket: Socket,
        control: &str,
        metrics: Arc<Metrics>,
        closing: CancellationToken,
        tasks: &tokio_util::task::TaskTracker,
    ) -> Arc<Self> {
        let (outgoing, queue) = mpsc::channel(OUTGOING_QUEUE);
        let link = Arc::new(Self {
            outgoing,
            routing: Mutex::default(),
            broken: CancellationToken::new(),
            broken_at: OnceLock::new(),
            silent: watch::Sender::new(false),
            metrics,
        });
        let (sink, stream) = socket.split();
        tasks.spawn(write(sink, queue, link.broken.clone(), closing.clone()));
        let (reader, control) = (Arc::clone(&link), control.to_owned());
        tasks.spawn(async move {
            let reason = reader.read(stream).await;
            let _ = reader.broken_at.set(Instant::now());
            reader.broken.cancel();
            reader.routing().break_off();
            if !closing.is_cancelled() {
                reader.metrics.node_links_lost.increment();
                tracing::warn!(control, reason, "the link to a media node broke");
            }
        });
        link
    }

    /// Whether it is of no use any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.is_cancelled()
    }

    /// Whether the node has said nothing for [`DOUBT_AFTER`].
    pub(crate) fn is_silent(&self) -> bool {
        *self.silent.borrow()
    }

    /// Whether the node is silent, as it changes.
    pub(crate) fn silence(&self) -> watch::Receiver<bool> {
        self.silent.subscribe()
    }

    /// Sends a request and waits for its answer. An answer that comes after nobody waits for it any more is taken back.
    pub(crate) async fn request(self: &Arc<Self>, request: Request, deadline: Instant) -> Result<Answered, Failure> {
        let permit = match tokio::time::timeout_at(deadline, self.outgoing.reserve()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(Failure::Broken),
            Err(_) => return Err(Failure::TimedOut),
        };
        let (reply, answer) = oneshot::channel();
        let remaining = deadline.saturating_duration_since(Instant::now());
        let deadline_ms = u32::try_from(remaining.as_millis()).unwrap_or(u32::MAX);
        let frame = self.begin(request, deadline_ms, Some(reply))?;
        permit.send(frame);
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Failure::Broken),
            Err(_) => Err(Failure::TimedOut),
        }
    }

    /// Ends an attachment and tells the node, without waiting. Nothing happens if another attachment has taken over since.
    pub(crate) fn part(
        self: &Arc<Self>,
        room: &RoomName,
        participant: &ParticipantId,
        identity: &Identity,
        serial: Option<u64>,
        command: Option<Command>,
    ) {
        let mine = serial.is_none_or(|serial| self.routing().release(participant, serial));
        let Some(command) = command.filter(|_| mine) else {
            return;
        };
        let request = Request::Participant {
            room: room.clone(),
            participant: participant.clone(),
            identity: identity.clone(),
            command,
        };
        let Ok(frame) = self.begin(request, PARTING_DEADLINE_MS, None) else {
            return;
        };
        match self.outgoing.try_send(frame) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            // At most one such task for each session that ends, and the link's end ends them all.
            Err(mpsc::error::TrySendError::Full(frame)) => {
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    let outgoing = self.outgoing.clone();
                    runtime.spawn(async move { outgoing.send(frame).await });
                }
            }
        }
    }

    /// Enters a request and makes its frame.
    fn begin(
        &self,
        request: Request,
        deadline_ms: u32,
        reply: Option<oneshot::Sender<Result<Answered, Failure>>>,
    ) -> Result<String, Failure> {
        let expected = Expected::of(&request);
        let id = self.routing().begin(expected, reply)?;
        let frame = serde_json::to_string(&RequestFrame {
            id,
            deadline_ms,
            trace: signalbox_telemetry::span::current(),
            request,
        });
        match frame {
            Ok(frame) if frame.len() <= MAX_FRAME_BYTES => Ok(frame),
            _ => {
                self.routing().cancel(id);
                Err(Failure::TooLarge)
            }
        }
    }

    fn routing(&self) -> MutexGuard<'_, Routing> {
        self.routing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes frames until the link ends; returns why it did.
    async fn read(
        self: &Arc<Self>,
        mut stream: impl Stream<Item = Result<Message, tungstenite::Error>> + Unpin,
    ) -> &'static str {
        loop {
            let heard_at = Instant::now();
            let next = tokio::select! {
                () = self.broken.cancelled() => return "it could not be written",
                next = tokio::time::timeout_at(heard_at + DOUBT_AFTER, stream.next()) => next,
            };
            let next = match next {
                Ok(next) => Ok(next),
                Err(_) => {
                    self.silent.send_replace(true);
                    let next = tokio::select! {
                        () = self.broken.cancelled() => return "it could not be written",
                        next = tokio::time::timeout_at(heard_at + SILENCE_LIMIT, stream.next()) => next,
                    };
                    self.silent.send_replace(next.is_err());
                    next
                }
            };
            let text = match next {
                Err(_) => return "the node is silent",
                Ok(None | Some(Ok(Message::Close(_)))) => return "the node closed it",
                Ok(Some(Err(tungstenite::Error::Capacity(_)))) => return "a frame of the node is too long",
                Ok(Some(Err(_))) => return "the connection failed",
                Ok(Some(Ok(Message::Text(text)))) => text,
                Ok(Some(Ok(_))) => continue,
            };
            match serde_json::from_str::<NodeFrame>(&text) {
                Ok(NodeFrame::Reply { id, result }) => self.answer(id, result),
                Ok(NodeFrame::Event { to, event }) => {
                    let lost = self.routing().deliver(&to, event);
                    self.metrics.events_dropped.add(lost.nobody);
                    self.metrics.sessions_overflowed.add(lost.overflowed);
                }
                Err(error) => {
                    // The position only: the text may hold what belongs to a participant.
                    tracing::error!(
                        line = error.line(),
                        column = error.column(),
                        "a media node's frame cannot be read"
                    );
                    return "a frame of the node cannot be read";
                }
            }
        }
    }

    /// Hands a reply to whoever waits for it. The attachment is entered before the next frame is read, so that no event is missed.
    fn answer(self: &Arc<Self>, id: u64, result: Outcome) {
        let answer = match result {
            Outcome::Refused(refusal) => self
                .routing()
                .refused(id)
                .map(|reply| (reply, Err(Failure::Refused(refusal)))),
            Outcome::Ok(reply) => {
                let done = self.routing().done(id, &reply);
                done.map(|(waiting, attached)| {
                    let session = attached.map(|attached| attached.into_session(Arc::clone(self)));
                    (waiting, Ok(Answered { reply, session }))
                })
            }
        };
        // What nobody takes is dropped here, outside the lock that dropping a session takes.
        if let Some((Some(waiting), answer)) = answer {
            let _ = waiting.send(answer);
        }
    }
}

/// Sends what is queued, and pings.
async fn write(
    mut sink: impl SinkExt<Message, Error = tungstenite::Error> + Unpin,
    mut queue: mpsc::Receiver<String>,
    broken: CancellationToken,
    closing: CancellationToken,
) {
    let _broken_when_done = broken.clone().drop_guard();
    let mut ping = tokio::time::interval(PING_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let sent = tokio::select! {
            biased;
            () = broken.cancelled() => return,
            Some(frame) = queue.recv() => match sink.feed(Message::text(frame)).await {
                // Flushed once for all that is queued.
                Ok(()) if !queue.is_empty() => Ok(()),
                Ok(()) => sink.flush().await,
                Err(error) => Err(error),
            },
            () = closing.cancelled() => break,
            _ = ping.tick() => sink.send(Message::Ping(Bytes::new())).await,
        };
        if sent.is_err() {
            return;
        }
    }
    let bye = tungstenite::protocol::CloseFrame {
        code: CloseCode::Away,
        reason: "the gateway stops".into(),
    };
    let _ = sink.send(Message::Close(Some(bye))).await;
}
