//! What all handlers share.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::access::Keys;
use crate::affinity::Affinity;
use crate::config::Config;
use crate::cookies::Cookies;
use crate::dialect::Dialect;
use crate::front::client::Trust;
use crate::join::Streams;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::observe::access_log::AccessLog;
use crate::observe::sockets::Transport;
use crate::problem::ApiError;
use crate::rooms::Rooms;
use crate::routing::Routing;

/// The gateway's state; cloning it is cheap.
#[derive(Debug, Clone)]
pub struct State(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    keys: Keys,
    cookies: Cookies,
    affinity: Option<Arc<Affinity>>,
    access_log: Option<Arc<AccessLog>>,
    trust: Trust,
    limits: Limits,
    routing: Arc<Routing>,
    rooms: Rooms,
    streams: Streams,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    sockets: TaskTracker,
}

impl State {
    /// Makes the state; nothing is connected yet.
    ///
    /// # Errors
    /// [`ApiError::Start`] when the settings contradict each other.
    pub fn new(config: Config, shutdown: CancellationToken) -> Result<Self, ApiError> {
        let keys = Keys::new(&config.keys)
            .ok_or_else(|| ApiError::Start("--keys must name at least one key, and none of them twice".to_owned()))?;
        let is_base = |url: &reqwest::Url| {
            matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none()
        };
        if config.redirect_whip_to.as_ref().is_some_and(|url| !is_base(url)) {
            return Err(ApiError::Start(
                "--redirect-whip-to must be a URL like https://eu.example.com".to_owned(),
            ));
        }
        let routing = Routing::read(config.rules.as_deref()).map_err(ApiError::Start)?;
        let metrics = Arc::new(Metrics::default());
        let rooms = Rooms::new(&config, Arc::clone(&metrics))?;
        let log = config.observe.access_log.as_deref();
        let open = |file: &Path| {
            let log = AccessLog::open(file, Arc::clone(&metrics));
            log.map_err(|error| ApiError::Start(format!("the access log {} cannot be opened: {error}", file.display())))
        };
        let access_log = log.map(open).transpose()?.map(Arc::new);
        Ok(Self(Arc::new(Inner {
            access_log,
            trust: config.front.trust(),
            cookies: Cookies::new(&config.cluster_secret),
            affinity: Affinity::new(&config.affinity, &config.cluster_secret)?.map(Arc::new),
            limits: Limits::new(&config.limits, Arc::clone(&metrics)),
            routing: Arc::new(routing),
            config,
            keys,
            rooms,
            streams: Streams::default(),
            metrics,
            shutdown,
            sockets: TaskTracker::new(),
        })))
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The API keys.
    pub(crate) fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// Makes cookies and reads them.
    pub(crate) fn cookies(&self) -> &Cookies {
        &self.0.cookies
    }

    /// Which gateway serves whom, if there are others.
    pub(crate) fn affinity(&self) -> Option<&Arc<Affinity>> {
        self.0.affinity.as_ref()
    }

    /// Whose word counts for where a request is from.
    pub(crate) fn trust(&self) -> &Trust {
        &self.0.trust
    }

    /// Where requests are written down, if they are.
    pub(crate) fn access_log(&self) -> Option<&Arc<AccessLog>> {
        self.0.access_log.as_ref()
    }

    /// How much may be asked.
    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// The rules by which requests are routed.
    pub(crate) fn routing(&self) -> &Arc<Routing> {
        &self.0.routing
    }

    /// The way to rooms, wherever they are.
    pub fn rooms(&self) -> &Rooms {
        &self.0.rooms
    }

    /// The event streams.
    pub(crate) fn streams(&self) -> &Streams {
        &self.0.streams
    }

    /// The counts.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Cancelled when the gateway goes: it takes nobody any more. Who is connected goes at its [`State::farewell`].
    pub fn shutdown(&self) -> &CancellationToken {
        &self.0.shutdown
    }

    /// When one client's connection is to end because the gateway goes: it then tells its client, closes with 1012 and ends. Each call has its
    /// own moment, at random in the first half of [`Config::drain_seconds`] after the shutdown began, so that not all clients come to the
    /// other gateways at once. To be asked for once for each connection, and kept.
    pub fn farewell(&self) -> impl Future<Output = ()> + Send + use<> {
        let spread = Duration::from_secs(self.0.config.drain_seconds) / 2;
        let shutdown = self.0.shutdown.clone();
        async move {
            shutdown.cancelled().await;
            tokio::time::sleep(spread.mul_f64(rand::random_range(0.0..1.0))).await;
        }
    }

    /// To be held by the task of an upgraded connection for as long as it runs: hyper no longer knows such connections, and the
    /// shutdown waits for these guards instead.
    pub fn socket_guard(&self, dialect: Dialect, transport: Transport) -> SocketGuard {
        self.0.metrics.sockets.add(dialect, transport, 1);
        SocketGuard {
            is: (dialect, transport),
            metrics: Arc::clone(&self.0.metrics),
            _running: self.0.sockets.token(),
        }
    }

    /// To be held by a task that has something to say to a node at its end: the shutdown waits for it too.
    pub fn running(&self) -> TaskTrackerToken {
        self.0.sockets.token()
    }

    /// Waits until no upgraded connection is left. Only to be called after the shutdown has begun.
    pub(crate) async fn sockets_gone(&self) {
        self.0.sockets.close();
        self.0.sockets.wait().await;
    }
}

/// See [`State::socket_guard`].
#[derive(Debug)]
pub struct SocketGuard {
    is: (Dialect, Transport),
    metrics: Arc<Metrics>,
    _running: TaskTrackerToken,
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        let (dialect, transport) = self.is;
        self.metrics.sockets.add(dialect, transport, -1);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn farewells_begin_with_the_shutdown_and_are_spread_over_half_of_the_drain() {
        let flags = ["signalbox-gateway", "--drain-seconds=10", "--keys=a:0123456789abcdef"];
        let config = Config::parse_from(flags.into_iter().chain(["--cluster-secret=0123456789abcdef"]));
        let shutdown = CancellationToken::new();
        let state = State::new(config, shutdown.clone()).unwrap();
        let early = tokio::time::timeout(Duration::from_secs(60), state.farewell()).await;
        assert!(early.is_err(), "nobody is sent away before the shutdown");
        let begun = Instant::now();
        let goodbyes: Vec<_> = (0..400)
            .map(|_| {
                let farewell = state.farewell();
                tokio::spawn(async move {
                    farewell.await;
                    begun.elapsed().as_secs_f64()
                })
            })
            .collect();
        shutdown.cancel();
        let mut fifths = [0; 5];
        for goodbye in goodbyes {
            let at = goodbye.await.unwrap();
            assert!(at < 5.01, "{at} s");
            fifths[(at as usize).min(4)] += 1;
        }
        // 80 each; fewer than 40 is five standard deviations away.
        assert!(fifths.iter().all(|count| *count >= 40), "{fifths:?}");
    }
}
