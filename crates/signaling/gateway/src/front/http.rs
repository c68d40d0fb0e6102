//! HTTP/1.1 and HTTP/2 on a connection that is there, with time limits that act.
//!
//! hyper bounds how long a head of HTTP/1.1 may take, which includes the time between requests. In HTTP/2 it bounds neither, so a connection that
//! has no request under way for too long is closed here.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::client::Peer;

/// How long a request's head may take, and how long a connection of HTTP/1.1 may idle between requests. Higher: slow attackers hold more
/// connections. Lower: thin uplinks cannot join.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection of HTTP/2 may idle between requests. Browsers keep one for all that they ask. Higher: idle clients hold memory longer. Lower: they
/// shake hands more often.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a connection that is being closed may take to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long, at the end, a connection of HTTP/1.1 may take that has asked nothing yet: its client has seen nothing that would make it ask elsewhere. Higher:
/// connections that are open in advance hold up the end. Lower: requests on thin uplinks are lost.
const FIRST_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest head, in bytes: an access token may take half of it.
const MAX_HEAD_BYTES: u32 = 64 * 1024;

/// How many requests of one connection of HTTP/2 may be under way. Higher: one connection takes more memory. Lower: pages with many event streams wait.
const MAX_STREAMS: u32 = 100;

/// How many streams that the client has reset may be waiting to be noticed, and how many we have to reset, before the connection is closed
/// (CVE-2023-44487, CVE-2025-8671).
const MAX_RESETS: usize = 20;

/// How much of what is to be sent is kept for a stream whose client does not take it, in bytes.
const MAX_UNSENT_BYTES: usize = 64 * 1024;

/// When a connection of HTTP/2 is asked for a sign of life, and how long that may take.
const PING: Duration = Duration::from_secs(15);

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// Serves a connection until it ends, or after `shutdown` the requests that are under way.
pub(super) async fn serve<S>(stream: S, version: Version, peer: Peer, router: Router, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stream = TokioIo::new(stream);
    let ended = match version {
        Version::One => serve_1(stream, peer, router, shutdown).await,
        Version::Two => serve_2(stream, peer, router, shutdown).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn serve_1<S>(
    stream: TokioIo<S>,
    peer: Peer,
    router: Router,
    shutdown: CancellationToken,
) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let asked = CancellationToken::new();
    let service = service_fn(|request| {
        asked.cancel();
        router.clone().oneshot(prepare(request, peer))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(MAX_HEAD_BYTES as usize)
        // Alone it is no limit, as more may be read at once.
        .max_buf_size(MAX_HEAD_BYTES as usize)
        .serve_connection(stream, service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = shutdown.cancelled() => {}
    }
    // Told to end before it has read anything, the library closes the connection, whose client may have sent its request already.
    tokio::select! {
        ended = connection.as_mut() => return ended,
        _ = tokio::time::timeout(FIRST_TIMEOUT, asked.cancelled()) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

async fn serve_2<S>(
    stream: TokioIo<S>,
    peer: Peer,
    router: Router,
    shutdown: CancellationToken,
) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let activity = Arc::new(Activity::default());
    let service = service_fn(|request| {
        let (router, running) = (router.clone(), Running::begin(&activity));
        async move {
            let response = router.oneshot(prepare(request, peer)).await?;
            Ok::<_, std::convert::Infallible>(response.map(|body| Watched {
                body,
                _running: running,
            }))
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEAD_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .max_send_buf_size(MAX_UNSENT_BYTES)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .serve_connection(stream, service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = activity.has_idled() => {}
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            return connection.await;
        }
    }
    connection.as_mut().graceful_shutdown();
    // A client that has begun a request and does not end it would not be waited for by anything else.
    tokio::time::timeout(CLOSE_TIMEOUT, connection).await.unwrap_or(Ok(()))
}

fn prepare(request: Request<Incoming>, peer: Peer) -> Request<Body> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(peer);
    request
}

/// How many requests of a connection are under way.
#[derive(Debug, Default)]
struct Activity {
    running: AtomicUsize,
    changed: Notify,
}

impl Activity {
    /// Ends when no request has been under way for too long. The first has to come as soon as a head of HTTP/1.1.
    async fn has_idled(&self) {
        let mut patience = HEAD_TIMEOUT;
        loop {
            let changed = self.changed.notified();
            if self.running.load(Ordering::Acquire) > 0 {
                patience = IDLE_TIMEOUT;
                changed.await;
            } else if tokio::time::timeout(patience, changed).await.is_err() {
                return;
            } else {
                patience = IDLE_TIMEOUT;
            }
        }
    }
}

/// A request that is under way, until its answer has been sent or nobody wants it.
#[derive(Debug)]
struct Running(Arc<Activity>);

impl Running {
    fn begin(activity: &Arc<Activity>) -> Self {
        activity.running.fetch_add(1, Ordering::AcqRel);
        activity.changed.notify_one();
        Self(Arc::clone(activity))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}

/// An answer's body, which keeps its request under way.
struct Watched {
    body: Body,
    _running: Running,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_idles_only_while_no_request_is_under_way() {
        let activity = Arc::new(Activity::default());
        let begun = Instant::now();
        activity.has_idled().await;
        assert_eq!(begun.elapsed(), HEAD_TIMEOUT, "the first request has to come soon");

        let begun = Instant::now();
        let client = async {
            let first = Running::begin(&activity);
            tokio::time::sleep(IDLE_TIMEOUT * 2).await;
            drop(first);
            tokio::time::sleep(IDLE_TIMEOUT / 2).await;
            drop(Running::begin(&activity));
        };
        tokio::join!(activity.has_idled(), client);
        assert_eq!(begun.elapsed(), IDLE_TIMEOUT * 7 / 2);
    }
}
