//! The front door: from a listener's connections to requests.
//!
//! A connection gets a place, is asked for a PROXY header if it comes from a balancer of ours, shakes hands for TLS, and is then served HTTP. Each of these has a time
//! limit. What is served is a router; nothing here knows a route. The library's own accept loop installs no timer, so that its header timeout
//! never fires; hence this one.

pub mod acme;

pub(crate) mod ambiguity;
pub(crate) mod certificates;
pub mod client;
pub mod config;
pub(crate) mod redirect;
pub(crate) mod tls;

mod http;
mod places;
mod proxy_protocol;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::client::{Peer, Trust};
use self::http::Version;
use self::places::Places;
use self::stream::Counted;
use self::tls::Tls;
use crate::metrics::Metrics;

/// How long a balancer's header and a handshake of TLS may take, each. Higher: slow attackers hold more connections. Lower: thin uplinks cannot
/// join.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait after the system had no socket for us.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Sent to connections over the limit, without reading what they ask.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// A door: how connections of one listener are served.
#[derive(Clone)]
pub(crate) struct Door {
    /// What is served.
    pub(crate) router: Router,
    /// What ends TLS; none: there is none.
    pub(crate) tls: Option<Tls>,
    /// The balancers whose connections begin with a PROXY header.
    pub(crate) balancers: Trust,
    /// How many connections at once, upgraded ones included; what is over is answered with 503.
    pub(crate) limit: usize,
    /// How many of them from one address.
    pub(crate) limit_per_address: usize,
    /// Counts connections and their bytes; none: nobody counts.
    pub(crate) metrics: Option<Arc<Metrics>>,
    /// How long requests under way may take at the end.
    pub(crate) drain: Duration,
}

impl Door {
    /// A plain one, for at most so many connections.
    pub(crate) fn plain(router: Router, limit: usize, drain: Duration) -> Self {
        Self {
            router,
            tls: None,
            balancers: Trust::default(),
            limit,
            limit_per_address: limit,
            metrics: None,
            drain,
        }
    }

    /// Serves until `shutdown`; then lets the requests under way end.
    pub(crate) async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let places = Places::new(self.limit, self.limit_per_address);
        let drain = self.drain;
        let door = Arc::new(self);
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = shutdown.cancelled() => break,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // A client that is gone already is no news; no file descriptors is, and passes only with time.
                    if error.kind() != io::ErrorKind::ConnectionAborted {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    continue;
                }
            };
            door.enter(&places, &mut connections, stream, from, &shutdown);
        }
        finish(listener, |stream, from| {
            door.enter(&places, &mut connections, stream, from, &shutdown)
        });
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(drain, ended).await.is_err() {
            tracing::warn!(connections = connections.len(), "connections were cut off at the end");
        }
        connections.shutdown().await;
    }

    fn enter(
        self: &Arc<Self>,
        places: &Arc<Places>,
        connections: &mut JoinSet<()>,
        stream: TcpStream,
        from: SocketAddr,
        shutdown: &CancellationToken,
    ) {
        match places.take() {
            Some(place) => {
                let stream = Counted::new(stream, self.metrics.clone(), place);
                connections.spawn(Arc::clone(self).connection(stream, from, shutdown.clone()));
            }
            None => self.turn_away(stream),
        }
    }

    /// Writes without waiting: a fresh socket's buffer is empty, and nobody over the limit may hold a task.
    fn turn_away(&self, stream: TcpStream) {
        self.count_refused();
        if self.tls.is_none()
            && let Ok(mut stream) = stream.into_std()
        {
            let _ = io::Write::write(&mut stream, TOO_MANY);
        }
    }

    fn count_refused(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.connections_refused.increment();
        }
    }

    async fn connection(self: Arc<Self>, mut stream: Counted, from: SocketAddr, shutdown: CancellationToken) {
        let mut peer = Peer(from);
        if self.balancers.covers(from.ip()) {
            match in_time(proxy_protocol::read(&mut stream)).await {
                Ok(Some(said)) => peer = Peer(said),
                Ok(None) => {}
                Err(error) => return tracing::debug!(%error, "a balancer's connection was closed"),
            }
        }
        if !stream.place().give_to(peer.0.ip()) {
            self.count_refused();
            if self.tls.is_none() {
                let _ = in_time(tokio::io::AsyncWriteExt::write_all(&mut stream, TOO_MANY)).await;
            }
            return;
        }
        let router = self.router.clone();
        let Some(tls) = &self.tls else {
            return http::serve(stream, Version::One, peer, router, shutdown).await;
        };
        match in_time(tls.acceptor().accept(stream)).await {
            Ok(stream) => {
                if let Some(metrics) = &self.metrics {
                    metrics.shook_hands(stream.get_ref().1.protocol_version());
                }
                let version = match stream.get_ref().1.alpn_protocol() {
                    Some(tls::HTTP_2) => Version::Two,
                    // The handshake was all that the authority wanted to see.
                    Some(acme::PROOF) => return,
                    _ => Version::One,
                };
                http::serve(stream, version, peer, router, shutdown).await;
            }
            Err(error) => {
                if let Some(metrics) = &self.metrics {
                    metrics.handshakes_failed.increment();
                }
                tracing::debug!(%error, "a handshake of TLS failed");
            }
        }
    }
}

/// Takes whoever is connected already; closing the listener would reset them. The system is asked rather than the runtime, which may not have heard of them yet.
fn finish(listener: TcpListener, mut enter: impl FnMut(TcpStream, SocketAddr)) {
    let Ok(listener) = listener.into_std() else {
        return;
    };
    while let Ok((stream, from)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            enter(stream, from);
        }
    }
}

async fn in_time<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(HANDSHAKE_TIMEOUT, future)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
