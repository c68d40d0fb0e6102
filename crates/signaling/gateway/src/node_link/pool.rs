//! One link for each media node, made on demand.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use signalbox_protocol::Secret;
use signalbox_protocol::control::{MAX_FRAME_BYTES, PATH};
use tokio::time::Instant;
use tokio_tungstenite::connect_async_with_config;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Failure, NodeLink};
use crate::metrics::Metrics;

/// How long a link may take to come up. Higher: a lost machine delays joins. Lower: a far node cannot be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the links may take to send their last frames at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a link that broke, and was not made again, is shown. Higher: nodes that are gone for good are shown for longer. Lower: a node that is lost
/// may not be seen between two looks at the metrics.
const SHOWN_BROKEN: Duration = Duration::from_secs(60);

/// All links, by the node's control address.
#[derive(Debug)]
pub(crate) struct NodeLinks {
    secret: Secret,
    metrics: Arc<Metrics>,
    cells: Mutex<HashMap<String, Cell>>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

type Cell = Arc<tokio::sync::Mutex<Slot>>;

#[derive(Debug, Default)]
struct Slot {
    link: Option<Arc<NodeLink>>,
    /// The last failure, shared by all who were waiting when it happened.
    failed_at: Option<Instant>,
}

impl Slot {
    fn broke_within(&self, time: Duration) -> bool {
        let broken_at = self.link.as_ref().and_then(|link| link.broken_at.get().copied());
        let last = broken_at.max(self.failed_at);
        last.is_some_and(|at| at.elapsed() < time)
    }
}

impl NodeLinks {
    pub(crate) fn new(secret: Secret, metrics: Arc<Metrics>) -> Self {
        Self {
            secret,
            metrics,
            cells: Mutex::default(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// The link to a node. Concurrent callers share one attempt to make it.
    ///
    /// # Errors
    /// [`Failure::Broken`] when the node cannot be reached, [`Failure::TimedOut`] at the deadline.
    pub(crate) async fn get(&self, control: &str, deadline: Instant) -> Result<Arc<NodeLink>, Failure> {
        let came_at = Instant::now();
        let cell = self.cell(control);
        let mut slot = tokio::time::timeout_at(deadline, cell.lock())
            .await
            .map_err(|_| Failure::TimedOut)?;
        if let Some(link) = slot.link.as_ref().filter(|link| !link.is_broken()) {
            return Ok(Arc::clone(link));
        }
        if self.closing.is_cancelled() || slot.failed_at.is_some_and(|at| at >= came_at) {
            return Err(Failure::Broken);
        }
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(control)).await;
        match connected.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(link) => {
                slot.failed_at = None;
                slot.link = Some(Arc::clone(&link));
                Ok(link)
            }
            Err(reason) => {
                // Once for each time that it goes, not for each attempt to reach it.
                if slot.failed_at.replace(Instant::now()).is_none() {
                    tracing::warn!(control, reason, "a media node cannot be reached");
                }
                Err(Failure::Broken)
            }
        }
    }

    /// The link to a node, if there is one at this moment.
    pub(crate) fn live(&self, control: &str) -> Option<Arc<NodeLink>> {
        let cell = self.cell(control);
        let slot = cell.try_lock().ok()?;
        slot.link.clone().filter(|link| !link.is_broken())
    }

    /// Makes a link, unless that is under way already.
    ///
    /// # Errors
    /// As [`NodeLinks::get`].
    pub(crate) async fn revive(&self, control: &str) -> Result<(), Failure> {
        let is_under_way = self.cell(control).try_lock().is_err();
        if is_under_way {
            return Ok(());
        }
        self.get(control, Instant::now() + CONNECT_TIMEOUT).await.map(|_| ())
    }

    /// Whether [`NodeLinks::close`] was called: no link can be made any more.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// How many links are in which state, as Prometheus text.
    pub(crate) fn render(&self) -> String {
        let [mut open, mut silent, mut connecting, mut broken] = [0; 4];
        for cell in self.cells.lock().unwrap_or_else(PoisonError::into_inner).values() {
            let Ok(slot) = cell.try_lock() else {
                connecting += 1;
                continue;
            };
            match &slot.link {
                Some(link) if !link.is_broken() && link.is_silent() => silent += 1,
                Some(link) if !link.is_broken() => open += 1,
                _ if slot.broke_within(SHOWN_BROKEN) => broken += 1,
                _ => {}
            }
        }
        let mut text = "# HELP signalbox_gateway_node_links Links to media nodes: open, silent for a second or more, being made, or broken within the last minute.\n\
                        # TYPE signalbox_gateway_node_links gauge\n"
            .to_owned();
        for (state, count) in [
            ("open", open),
            ("silent", silent),
            ("connecting", connecting),
            ("broken", broken),
        ] {
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "signalbox_gateway_node_links{{state=\"{state}\"}} {count}");
        }
        text
    }

    /// Ends all links after what is queued was sent, at the latest after a second.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.tasks.wait()).await;
    }

    fn cell(&self, control: &str) -> Cell {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cell) = cells.get(control) {
            return Arc::clone(cell);
        }
        // Nodes come and go with new addresses; those without a link need not be remembered.
        cells.retain(|_, cell| {
            cell.try_lock()
                .map_or(true, |slot| slot.link.as_ref().is_some_and(|link| !link.is_broken()))
        });
        Arc::clone(cells.entry(control.to_owned()).or_default())
    }

    async fn connect(&self, control: &str) -> Result<Arc<NodeLink>, String> {
        let url = format!("{}{PATH}", control.trim_end_matches('/'));
        let mut request = url.into_client_request().map_err(describe)?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", self.secret.expose()))
            .map_err(|_| "the cluster secret cannot be sent in a header")?;
        bearer.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, bearer);
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_FRAME_BYTES))
            .max_frame_size(Some(MAX_FRAME_BYTES));
        let (socket, _) = connect_async_with_config(request, Some(config), true)
            .await
            .map_err(describe)?;
        tracing::info!(control, "linked to a media node");
        Ok(NodeLink::start(
            socket,
            control,
            Arc::clone(&self.metrics),
            self.closing.clone(),
            &self.tasks,
        ))
    }
}

fn describe(error: tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Http(response) if response.status() == 401 => {
            "it does not accept this gateway's cluster secret".to_owned()
        }
        tungstenite::Error::Http(response) => format!("it answers with status {}", response.status().as_u16()),
        error => error.to_string(),
    }
}
