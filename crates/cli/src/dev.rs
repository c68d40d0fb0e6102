//! `signalbox dev`: all three tiers in one process, on loopback, with a room map in memory and a key that everyone knows.
//!
//! It calls the same `run` functions as the three servers' own binaries, and the tiers talk over the same sockets; only the
//! processes are missing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use clap::{Args, Parser};
use signalbox_gateway::Listeners;
use signalbox_protocol::Secret;
use signalbox_protocol::token::{AccessClaims, VideoGrant};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::exit::Usage;
use crate::nodes;
use crate::orchestrators::Orchestrators;
use crate::token::{DEV_KEY, DEV_SECRET, sign};

/// How long the start may take until everything answers.
const START: Duration = Duration::from_secs(20);

/// How often to ask whether it does.
const POLL: Duration = Duration::from_millis(20);

/// How long each tier may take to end. Higher: slow clients are told more surely. Lower: Ctrl-C feels quicker.
const DRAIN: Duration = Duration::from_secs(3);

/// How long the printed token can be used to join.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Run gateway, orchestrator and media node in one process, for development.
///
/// Prints the page's URL, a token for the room `demo`, and a curl line that joins with it. The room map is in memory, the API key
/// is `devkey` with the secret `devsecret-devsecret-devsecret-123`, and the page lets anyone in: never run it on a public address.
/// SIGNALBOX_LOG=info says more.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    signalbox dev\n  \
    signalbox dev --listen 0.0.0.0:7880 --media-bind 192.168.1.20:50000   for the local network")]
pub struct Dev {
    /// Where the gateway listens: page, HTTP and WebSocket. Port 0: any free one.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7880")]
    pub listen: SocketAddr,
    /// Where the gateway serves /metrics; nowhere when not given.
    #[arg(long, value_name = "IP:PORT")]
    pub admin_listen: Option<SocketAddr>,
    /// Where media arrives: the address of the first UDP port, which clients must be able to reach. Each processor core takes one
    /// port, counting up. Port 0: any free ones.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:50000")]
    pub media_bind: SocketAddr,
}

/// A tier that runs.
struct Tier {
    name: &'static str,
    shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Tier {
    fn start<F, E>(name: &'static str, run: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let shutdown = CancellationToken::new();
        let running = run(shutdown.clone());
        let task = tokio::spawn(async move { Ok(running.await?) });
        Self { name, shutdown, task }
    }

    /// Waits for it to end by itself, which it never should.
    async fn failed(&mut self) -> anyhow::Error {
        let name = self.name;
        match (&mut self.task).await {
            Ok(Ok(())) => anyhow!("the {name} ended unexpectedly"),
            Ok(Err(error)) => error.context(format!("the {name} failed")),
            Err(error) => anyhow::Error::new(error).context(format!("the {name} failed")),
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        let abort = self.task.abort_handle();
        if tokio::time::timeout(DRAIN, self.task).await.is_err() {
            tracing::warn!(tier = self.name, "did not end in time");
            abort.abort();
        }
    }
}

impl Dev {
    /// Runs until Ctrl-C or SIGTERM.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut signals = Signals::new()?;
        let listener = bind(self.listen, "--listen").await?;
        let public = reachable(listener.local_addr()?);
        let admin = match self.admin_listen {
            Some(address) => Some(bind(address, "--admin-listen").await?),
            None => None,
        };
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let orchestrator_listener = bind(loopback, "the orchestrator").await?;
        let control_listener = bind(loopback, "the media node's control").await?;
        let orchestrator_url = format!("http://{}", orchestrator_listener.local_addr()?);
        let control = control_listener.local_addr()?.to_string();
        let secret: Secret = random_secret().parse()?;

        let orchestrator: signalbox_orchestrator::Config = config(["--memory", "--cluster-secret", secret.expose()])?;
        let media: signalbox_media::Config = config([
            "--control-listen",
            &control,
            "--media-bind",
            &self.media_bind.to_string(),
            "--orchestrator",
            &orchestrator_url,
            "--cluster-secret",
            secret.expose(),
        ])?;
        let keys = format!("{DEV_KEY}:{DEV_SECRET}");
        let gateway: signalbox_gateway::Config = config([
            "--listen",
            &public.to_string(),
            "--orchestrator",
            &orchestrator_url,
            "--cluster-secret",
            secret.expose(),
            "--keys",
            &keys,
            "--guests",
            // Whoever opens it to others has said so.
            "--plain-http",
            "--drain-seconds",
            "2",
        ])?;
        let sockets = media.bind_media().map_err(|error| Usage(error.to_string()))?;

        let mut tiers = [
            Tier::start("gateway", |shutdown| {
                signalbox_gateway::run(Listeners::new(listener, admin), gateway, shutdown)
            }),
            Tier::start("media node", |shutdown| {
                signalbox_media::run(control_listener, sockets, media, shutdown)
            }),
            Tier::start("orchestrator", |shutdown| {
                signalbox_orchestrator::run(orchestrator_listener, orchestrator, shutdown)
            }),
        ];
        let [gateway, media, orchestrator] = &mut tiers;
        let ended = tokio::select! {
            error = gateway.failed() => Err(error),
            error = media.failed() => Err(error),
            error = orchestrator.failed() => Err(error),
            result = serve(public, &orchestrator_url, &secret) => result,
            () = signals.next() => Ok(()),
        };
        tokio::select! {
            () = stop(tiers) => ended,
            // Whoever asks twice does not want to wait.
            () = signals.next() => ended,
        }
    }
}

/// Ends the tiers in the order in which a join passes them, so that each can still tell the next one.
async fn stop(tiers: [Tier; 3]) {
    for tier in tiers {
        if !tier.task.is_finished() {
            tier.stop().await;
        }
    }
}

/// Says where everything is as soon as it is there, and then waits for ever.
async fn serve(public: SocketAddr, orchestrator: &str, secret: &Secret) -> anyhow::Result<()> {
    let orchestrators = Orchestrators::new(orchestrator, secret.clone())?;
    tokio::time::timeout(START, ready(public, &orchestrators))
        .await
        .with_context(|| {
            format!(
                "not ready after {} seconds; SIGNALBOX_LOG=info shows why",
                START.as_secs()
            )
        })?;
    let claims = AccessClaims {
        sub: "you".to_owned(),
        video: VideoGrant {
            room_join: true,
            room: "demo".to_owned(),
            ..VideoGrant::default()
        },
        ..AccessClaims::default()
    };
    let token = sign(claims, DEV_KEY, &DEV_SECRET.parse()?, SystemTime::now(), TOKEN_TTL)?;
    println!("Page:  http://{public}/");
    println!("Token: {token}");
    println!("curl -X POST http://{public}/v1/rooms/demo/join -H \"Authorization: Bearer {token}\"");
    std::future::pending().await
}

/// Ready is: the gateway says so, and the orchestrator has a node to place rooms on.
async fn ready(public: SocketAddr, orchestrators: &Orchestrators) {
    let client = reqwest::Client::new();
    loop {
        let gateway = client.get(format!("http://{public}/readyz")).send().await;
        if gateway.is_ok_and(|response| response.status().is_success())
            && let Ok(list) = nodes::list(orchestrators).await
            && list.nodes.iter().any(|node| node.live)
        {
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn bind(address: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Usage(format!(
            "{address} is in use by another program; stop that one, or choose another with {what}"
        )),
        _ => Usage(format!(
            "cannot listen on {address} ({error}); choose another address with {what}"
        )),
    })?;
    Ok(listener)
}

/// The address to tell to a person: a listener on every address is reached over loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
        _ => address,
    }
}

/// A server's configuration from its own flags, so that its defaults and checks hold here too.
fn config<'a, C: Parser>(args: impl IntoIterator<Item = &'a str>) -> anyhow::Result<C> {
    C::try_parse_from(std::iter::once("signalbox").chain(args)).map_err(|error| {
        let text = error.to_string();
        let sentence = text.lines().next().unwrap_or_default();
        Usage(sentence.trim_start_matches("error: ").to_owned()).into()
    })
}

fn random_secret() -> String {
    rand::random::<[u8; 32]>()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Ctrl-C and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?,
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_every_interface_is_told_as_loopback() {
        assert_eq!(reachable("0.0.0.0:1".parse().unwrap()), "127.0.0.1:1".parse().unwrap());
        assert_eq!(reachable("[::]:1".parse().unwrap()), "127.0.0.1:1".parse().unwrap());
        assert_eq!(
            reachable("192.168.1.2:1".parse().unwrap()),
            "192.168.1.2:1".parse().unwrap()
        );
    }
}
