//! A connection's bytes: counted, and cut off when its client takes nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::places::Place;
use crate::metrics::Metrics;

/// How long a client may take nothing of what is sent to it, and how long it may leave unacknowledged what was. Higher: clients that never
/// read hold memory longer. Lower: thin downlinks are cut off.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection whose bytes are counted, for as long as it lives, also after an upgrade.
#[derive(Debug)]
pub(super) struct Counted {
    stream: TcpStream,
    /// Runs while the client takes nothing.
    stall: Option<Pin<Box<tokio::time::Sleep>>>,
    metrics: Option<Arc<Metrics>>,
    place: Place,
}

impl Counted {
    pub(super) fn new(stream: TcpStream, metrics: Option<Arc<Metrics>>, place: Place) -> Self {
        // Without it small WebSocket messages wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        // A client that vanished without a word acknowledges nothing; a stream that only sends would notice after a quarter of an hour.
        let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(STALL_TIMEOUT * 2));
        if let Some(metrics) = &metrics {
            metrics.connections_accepted.increment();
            metrics.connections.add(1);
        }
        Self {
            stream,
            stall: None,
            metrics,
            place,
        }
    }

    /// Its place.
    pub(super) fn place(&mut self) -> &mut Place {
        &mut self.place
    }

    /// Counts what was written; a write that has waited for too long fails.
    fn written(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Ready(written) => {
                self.stall = None;
                if let (Some(metrics), Ok(written)) = (&self.metrics, &written) {
                    metrics.bytes_sent.add(u64::try_from(*written).unwrap_or(u64::MAX));
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
