//! 2,000 users behind one address, and HAProxy, which knows only addresses, before ten gateways: who serves them, and who moves when one gateway goes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::cluster::token;
use e2e::eventually;
use e2e::processes::{Processes, Shape, database, free_address};
use futures_util::{StreamExt, TryStreamExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::findings::Findings;

const USERS: usize = 2_000;

const GATEWAYS: usize = 10;

/// The gateway that goes.
const GONE: usize = 1;

/// How many users share a room.
const IN_A_ROOM: usize = 20;

/// How many join at once.
const AT_ONCE: usize = 16;

/// How long one may take to get in.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much more than its share the fullest gateway may have, and one that goes.
const MOST: (f64, f64) = (1.3, 1.05);

/// The gateway that served a user, and the cookie that says so.
#[derive(Clone)]
struct Visit {
    gateway: String,
    cookie: String,
}

pub async fn measure() -> anyhow::Result<Findings> {
    let mut found = Findings::default();
    let fleet = Fleet::start("resumes").await?;
    let by_address = fleet.visit(&[]).await?;
    drop(fleet);
    let all_at_one = fullest(&by_address) == USERS;
    let ratio = |visits: &[Visit]| fullest(visits) as f64 * GATEWAYS as f64 / USERS as f64;
    let shown = format!("{:.1}", ratio(&by_address));
    found.check(
        "`balance source` alone: fullest gateway / mean",
        shown,
        "10",
        all_at_one,
    );

    let mut fleet = Fleet::start("users").await?;
    let by_identity = fleet.visit(&[]).await?;
    let by_cookie = fleet.visit(&by_identity).await?;
    for (how, visits) in [("identity", &by_identity), ("cookie", &by_cookie)] {
        let (is, bar) = (ratio(visits), MOST.0);
        let what = format!("behind it, by {how}: fullest gateway / mean");
        found.check(what, format!("{is:.3}"), format!("≤ {bar}"), is <= bar);
    }
    let elsewhere = moved(&by_identity, &by_cookie);
    found.check("by cookie: users not where they were", elsewhere, "0", elsewhere == 0);

    let own = by_identity.iter().filter(|visit| visit.gateway == name(GONE)).count();
    fleet.take_away(GONE).await?;
    let most = MOST.1 * USERS as f64 / GATEWAYS as f64;
    for (how, cookies) in [("identity", &[] as &[Visit]), ("cookie", &by_identity)] {
        let moved = moved(&by_identity, &fleet.visit(cookies).await?);
        let what = format!("one of ten goes, by {how}: users that move");
        let bar = format!("its own {own}, ≤ {most:.0}");
        found.check(what, moved, bar, moved == own && moved as f64 <= most);
    }
    found.tell(
        "one of ten goes, by hash modulo gateways (computed): users that move",
        moved_by_modulo(),
    );
    Ok(found)
}

fn name(index: usize) -> String {
    format!("g{index}")
}

fn identity(user: usize) -> String {
    format!("user-{user}")
}

fn fullest(visits: &[Visit]) -> usize {
    let count = |index| visits.iter().filter(|visit| visit.gateway == name(index)).count();
    (0..GATEWAYS).map(count).max().unwrap_or_default()
}

fn moved(before: &[Visit], after: &[Visit]) -> usize {
    let pairs = before.iter().zip(after);
    pairs.filter(|(before, after)| before.gateway != after.gateway).count()
}

/// What becomes of the same users where a gateway is a hash modulo their number.
fn moved_by_modulo() -> usize {
    let left: Vec<usize> = (0..GATEWAYS).filter(|&gateway| gateway != GONE).collect();
    let moves = |user: &usize| {
        let hash = fnv(&identity(*user));
        left.get(hash % left.len()) != Some(&(hash % GATEWAYS))
    };
    (0..USERS).filter(moves).count()
}

/// 32-bit FNV-1a.
fn fnv(text: &str) -> usize {
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash as usize
}

/// Gateways that know each other, with HAProxy before them.
struct Fleet {
    all: Processes,
    balancer: SocketAddr,
    /// It ends with its handle.
    _balancing: Child,
}

impl Fleet {
    async fn start(sticky: &str) -> anyhow::Result<Self> {
        let database = database("balance").await?.context("tests/bench starts a database")?;
        let shape = Shape::new(0, 1).node_flags(&["--shards", "1", "--capacity", "20000"]);
        let mut all = Processes::start(&database, &shape).await?;
        let peers: Vec<(String, String)> = (0..GATEWAYS)
            .map(|index| Ok((name(index), free_address()?.to_string())))
            .collect::<anyhow::Result<_>>()?;
        let urls: Vec<String> = peers.iter().map(|(name, at)| format!("{name}=http://{at}")).collect();
        for (name, at) in &peers {
            let flags = [
                "--gateway-name",
                name,
                "--peer-listen",
                at,
                "--peers",
                &urls.join(","),
                "--sticky",
                sticky,
            ];
            all.add_gateway(&flags.map(str::to_owned))?;
        }
        all.ready().await?;
        let balancer = free_address()?;
        let fleet = Self {
            _balancing: balance(balancer, &all).await?,
            balancer,
            all,
        };
        fleet.until_peers(GATEWAYS - 1).await;
        Ok(fleet)
    }

    /// Until each gateway sees so many others.
    async fn until_peers(&self, count: usize) {
        let line = format!("\nsignalbox_gateway_peers_up {count}\n");
        let there = self.all.gateways.iter().filter(|gateway| gateway.server.pid().is_ok());
        for gateway in there {
            eventually("gateways see each other", async || {
                let page = reqwest::get(format!("{}/metrics", gateway.admin)).await.ok()?;
                page.text().await.ok()?.contains(&line).then_some(())
            })
            .await;
        }
    }

    async fn take_away(&mut self, index: usize) -> anyhow::Result<()> {
        self.all.gateways.get_mut(index).context("a gateway")?.server.kill()?;
        self.until_peers(GATEWAYS - 2).await;
        Ok(())
    }

    /// Has each user join, with its cookie of before, if it has one.
    async fn visit(&self, before: &[Visit]) -> anyhow::Result<Vec<Visit>> {
        let joining = (0..USERS).map(|user| join(self.balancer, user, before.get(user)));
        futures_util::stream::iter(joining)
            .buffered(AT_ONCE)
            .try_collect()
            .await
    }
}

/// HAProxy, once it listens.
async fn balance(at: SocketAddr, all: &Processes) -> anyhow::Result<Child> {
    let mut config = format!(
        "defaults\n mode tcp\n timeout connect 2s\n timeout client 1m\n timeout server 1m\n option redispatch 1\n\
         listen all\n bind {at}\n balance source\n option httpchk GET /readyz\n default-server check inter 250ms fall 2 rise 1\n"
    );
    for (index, gateway) in all.gateways.iter().enumerate() {
        let admin: SocketAddr = gateway.admin.trim_start_matches("http://").parse()?;
        config += &format!(
            " server {} {} port {}\n",
            name(index),
            gateway.server.address,
            admin.port()
        );
    }
    let file: PathBuf = std::env::temp_dir().join(format!("signalbox-balance-{}.cfg", at.port()));
    std::fs::write(&file, config)?;
    // Debian has it where not every PATH leads.
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let balancing = Command::new("haproxy")
        .env("PATH", path)
        .args(["-db", "-q", "-f"])
        .arg(&file)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("haproxy")?;
    eventually("HAProxy listens", async || TcpStream::connect(at).await.ok().map(drop)).await;
    std::fs::remove_file(file)?;
    Ok(balancing)
}

/// Joins as a LiveKit client, and hangs up.
async fn join(at: SocketAddr, user: usize, before: Option<&Visit>) -> anyhow::Result<Visit> {
    let token = token(&format!("room-{}", user / IN_A_ROOM), &identity(user));
    let url = format!("ws://{at}/rtc?access_token={token}&protocol=15&sdk=rust&version=1&auto_subscribe=1");
    let mut request = url.into_client_request()?;
    if let Some(before) = before {
        request.headers_mut().insert("cookie", before.cookie.parse()?);
    }
    let (socket, response) = timeout(PATIENCE, connect_async(request)).await??;
    drop(socket);
    let set = response.headers().get("set-cookie");
    match (set, before) {
        (Some(set), _) => {
            let cookie = set.to_str()?.split(';').next().unwrap_or_default();
            let gateway = named(cookie).context("a cookie that names a gateway")?;
            let cookie = cookie.to_owned();
            Ok(Visit { gateway, cookie })
        }
        // It is where it was.
        (None, Some(before)) => Ok(before.clone()),
        (None, None) => bail!("no gateway says that the user is its own"),
    }
}

/// The gateway that a cookie names.
fn named(cookie: &str) -> Option<String> {
    let claims = URL_SAFE_NO_PAD.decode(cookie.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    Some(claims.get("value")?.as_str()?.to_owned())
}
