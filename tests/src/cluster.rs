//! A cluster in this process: the servers' own `run` functions on free ports, over the same sockets as in separate processes.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Parser;
use signalbox_gateway::Listeners;
use signalbox_protocol::token::{AccessClaims, VideoGrant};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::PATIENCE;
use crate::client::{Client, Wish};
use crate::map::Map;

/// The API key of every cluster here.
pub const KEY: &str = "testkey";

/// Its secret.
pub const KEY_SECRET: &str = "testsecret-testsecret-testsecret";

/// The cluster secret of every cluster here.
pub const CLUSTER_SECRET: &str = "cluster-secret-for-tests";

/// How often to ask for what cannot be waited for.
const POLL: Duration = Duration::from_millis(25);

/// A token for one room and identity.
pub fn token(room: &str, identity: &str) -> String {
    let claims = AccessClaims {
        iss: KEY.to_owned(),
        sub: identity.to_owned(),
        exp: unix_seconds() + 3_600,
        video: VideoGrant {
            room_join: true,
            room: room.to_owned(),
            ..VideoGrant::default()
        },
        ..AccessClaims::default()
    };
    sign(&claims, KEY_SECRET)
}

/// Signs anything with anything.
pub fn sign(claims: &impl serde::Serialize, secret: &str) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).expect("claims are plain data")
}

/// Now, in seconds since 1970.
pub fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A media node.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its control listener.
    pub control: SocketAddr,
    /// Ends it.
    pub shutdown: CancellationToken,
}

/// A gateway.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// `http://…`.
    pub url: String,
    /// The admin listener's `http://…`.
    pub admin: String,
    /// Ends it.
    pub shutdown: CancellationToken,
}

/// Everything, ready for clients. Dropping it ends it.
#[derive(Debug)]
pub struct Cluster {
    /// The gateways.
    pub gateways: Vec<Gateway>,
    /// The media nodes.
    pub nodes: Vec<Node>,
    /// The orchestrator's `http://…`.
    pub orchestrator: String,
    shutdown: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Cluster {
    /// One gateway, an orchestrator with the map in memory, and this many media nodes.
    ///
    /// # Panics
    /// When anything does not start: there is nothing to test then.
    pub async fn start(nodes: usize) -> Self {
        Self::try_start(nodes, &[]).await.expect("the cluster starts")
    }

    /// Like [`Cluster::start`], with more flags for the media nodes.
    ///
    /// # Errors
    /// When anything does not start.
    pub async fn try_start(nodes: usize, node_flags: &[&str]) -> anyhow::Result<Self> {
        crate::init_log();
        let shutdown = CancellationToken::new();
        let (listener, address) = listen().await?;
        let config = config::<signalbox_orchestrator::Config>(&["--memory"])?;
        spawn(
            "orchestrator",
            signalbox_orchestrator::run(listener, config, shutdown.child_token()),
        );
        let mut cluster = Self {
            gateways: Vec::new(),
            nodes: Vec::new(),
            orchestrator: format!("http://{address}"),
            shutdown,
        };
        for _ in 0..nodes {
            cluster.add_node(node_flags).await?;
        }
        cluster.add_gateway().await?;
        cluster.ready().await?;
        Ok(cluster)
    }

    /// One more media node. The flags take the place of those that it would have.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn add_node(&mut self, flags: &[&str]) -> anyhow::Result<()> {
        let (listener, control) = listen().await?;
        let address = control.to_string();
        let usual = [
            ["--control-listen", &address],
            ["--media-bind", "127.0.0.1:0"],
            ["--shards", "2"],
            ["--orchestrator", &self.orchestrator],
        ];
        let usual = usual.iter().filter(|[flag, _]| !flags.contains(flag)).flatten();
        let all: Vec<&str> = usual.chain(flags).copied().collect();
        let config = config::<signalbox_media::Config>(&all)?;
        let sockets = config.bind_media()?;
        let shutdown = self.shutdown.child_token();
        spawn(
            "media node",
            signalbox_media::run(listener, sockets, config, shutdown.clone()),
        );
        self.nodes.push(Node { control, shutdown });
        Ok(())
    }

    /// One more gateway.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn add_gateway(&mut self) -> anyhow::Result<()> {
        let (listener, public) = listen().await?;
        let (admin_listener, admin) = listen().await?;
        let keys = format!("{KEY}:{KEY_SECRET}");
        let public_text = public.to_string();
        let all = [
            "--listen",
            &public_text,
            "--orchestrator",
            &self.orchestrator,
            "--keys",
            &keys,
            "--drain-seconds",
            "1",
        ];
        let config = config::<signalbox_gateway::Config>(&all)?;
        let shutdown = self.shutdown.child_token();
        let listeners = Listeners::new(listener, Some(admin_listener));
        let running = signalbox_gateway::run(listeners, config, shutdown.clone());
        spawn("gateway", running);
        self.gateways.push(Gateway {
            url: format!("http://{public}"),
            admin: format!("http://{admin}"),
            shutdown,
        });
        Ok(())
    }

    /// Waits until every gateway is ready and every node is live.
    async fn ready(&self) -> anyhow::Result<()> {
        let wanted = self.nodes.len();
        self.map().until_nodes(wanted).await;
        for gateway in &self.gateways {
            wait_for_ready(&gateway.url).await?;
        }
        Ok(())
    }

    /// The map as the orchestrator sees it.
    pub fn map(&self) -> Map {
        Map::new(&self.orchestrator, CLUSTER_SECRET)
    }

    /// The first gateway.
    pub fn gateway(&self) -> &str {
        &self.gateways[0].url
    }

    /// Joins through the first gateway.
    ///
    /// # Panics
    /// When the join fails.
    pub async fn join(&self, wish: &Wish) -> Client {
        self.try_join(wish).await.expect("the join succeeds")
    }

    /// Joins through the first gateway.
    ///
    /// # Errors
    /// When the join fails.
    pub async fn try_join(&self, wish: &Wish) -> anyhow::Result<Client> {
        Client::join(self.gateway(), &token(&wish.room, &wish.identity), wish).await
    }

    /// The sum of a counter over all media nodes.
    ///
    /// # Errors
    /// When a node does not answer.
    pub async fn node_counter(&self, name: &str) -> anyhow::Result<u64> {
        let mut sum = 0;
        for node in &self.nodes {
            sum += counter(&format!("http://{}", node.control), name).await?;
        }
        Ok(sum)
    }
}

/// The value of a counter on a `/metrics` page; 0 when it is not there. Named with its labels it is that one, without them the sum
/// over all.
///
/// # Errors
/// When the page cannot be read.
pub async fn counter(server: &str, name: &str) -> anyhow::Result<u64> {
    let page = reqwest::get(format!("{server}/metrics"))
        .await?
        .error_for_status()?
        .text()
        .await?;
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labeled) => labeled.split_once('}')?.1,
            None => rest.strip_prefix(' ')?,
        };
        value.trim().parse::<f64>().ok()
    });
    Ok(values.sum::<f64>() as u64)
}

/// Waits until a server's `/readyz` says so.
///
/// # Errors
/// When that takes longer than [`PATIENCE`].
pub async fn wait_for_ready(server: &str) -> anyhow::Result<()> {
    let url = format!("{server}/readyz");
    let wait = async {
        while !reqwest::get(&url)
            .await
            .is_ok_and(|response| response.status().is_success())
        {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .with_context(|| format!("{url} is ready"))
}

async fn listen() -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn config<C: Parser>(flags: &[&str]) -> anyhow::Result<C> {
    let fixed = ["test", "--cluster-secret", CLUSTER_SECRET];
    Ok(C::try_parse_from(fixed.iter().chain(flags))?)
}

fn spawn<E: std::fmt::Display>(name: &'static str, running: impl Future<Output = Result<(), E>> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = running.await {
            tracing::error!(%error, server = name, "ended");
        }
    });
}
