//! Listeners and connections: accepts, counts, cuts off, and ends them.
//!
//! Owns sockets only; what is served is a router. The library's own accept loop installs no timer, so that its header timeout never
//! fires; hence this one. Client addresses are not looked at.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::metrics::Metrics;

/// How long a request's head may take, and how long a connection may idle between requests. Higher: slow attackers hold more
/// connections. Lower: thin uplinks cannot join.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest head, in bytes: an access token may take half of it.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// How long a client may take nothing of what is sent to it, and how long it may leave unacknowledged what was. Higher: clients that never
/// read hold memory longer. Lower: thin downlinks are cut off.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait after the system had no socket for us.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Sent to connections over the limit, without reading what they ask.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Serves `router` on `listener` until `shutdown`; then lets the requests under way end for at most `drain`.
///
/// At most `limit` connections at once, upgraded ones included; what is over is answered with 503. `metrics` counts the connections and
/// their bytes; none: nobody counts.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    metrics: Option<Arc<Metrics>>,
    limit: usize,
    drain: Duration,
    shutdown: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = shutdown.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // A client that is gone already is no news; no file descriptors is, and passes only with time.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            if let Some(metrics) = &metrics {
                metrics.connections_refused.increment();
            }
            turn_away(stream);
            continue;
        };
        // Without it small WebSocket messages wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        // A client that vanished without a word acknowledges nothing; a stream that only sends would notice after a quarter of an hour.
        let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(STALL_TIMEOUT * 2));
        let counted = Counted::new(stream, metrics.clone(), permit);
        connections.spawn(connection(counted, router.clone(), shutdown.clone()));
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, ended).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections were cut off at the end");
    }
    connections.shutdown().await;
}

/// Writes without waiting: a fresh socket's buffer is empty, and nobody over the limit may hold a task.
fn turn_away(stream: TcpStream) {
    if let Ok(mut stream) = stream.into_std() {
        let _ = io::Write::write(&mut stream, TOO_MANY);
    }
}

async fn connection(stream: Counted, router: Router, shutdown: CancellationToken) {
    let service = TowerToHyperService::new(
        router.map_request(|request: hyper::Request<hyper::body::Incoming>| request.map(Body::new)),
    );
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// A connection whose bytes are counted, for as long as it lives, also after an upgrade.
struct Counted {
    stream: TcpStream,
    /// Runs while the client takes nothing.
    stall: Option<Pin<Box<tokio::time::Sleep>>>,
    metrics: Option<Arc<Metrics>>,
    _permit: OwnedSemaphorePermit,
}

impl Counted {
    fn new(stream: TcpStream, metrics: Option<Arc<Metrics>>, permit: OwnedSemaphorePermit) -> Self {
        if let Some(metrics) = &metrics {
            metrics.connections_accepted.increment();
            metrics.connections.add(1);
        }
        Self {
            stream,
            stall: None,
            metrics,
            _permit: permit,
        }
    }

    fn count_sent(&self, bytes: usize) {
        if let Some(metrics) = &self.metrics {
            metrics.bytes_sent.add(u64::try_from(bytes).unwrap_or(u64::MAX));
        }
    }
}

impl Counted {
    /// Counts what was written; a write that has waited for too long fails.
    fn written(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Ready(written) => {
                self.stall = None;
                if let Ok(written) = written {
                    self.count_sent(written);
                }
                Poll::Ready(written)
            }
            Poll::Pending => {
                let stall = self
                    .stall
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL_TIMEOUT)));
                ready!(stall.as_mut().poll(context));
                self.stall = None;
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(metrics) = &self.metrics {
            metrics.connections.add(-1);
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if let Some(metrics) = &self.metrics {
            let bytes = buffer.filled().len().saturating_sub(before);
            metrics.bytes_received.add(u64::try_from(bytes).unwrap_or(u64::MAX));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
