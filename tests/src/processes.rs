//! The real binaries as processes, over a PostgreSQL database of their own.
//!
//! They stand in the folder that [`FOLDER_VARIABLE`] names, or beside the test binary, where `cargo build --workspace` puts them. Dropping a process kills it.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signalbox_protocol::NodeId;

use crate::cluster::{CLUSTER_SECRET, KEY, KEY_SECRET, wait_for_ready};
use crate::eventually;
use crate::map::Map;
use crate::process_tree::{children, is_running, kill_tree};

/// Names a PostgreSQL server, and a database of it to connect to; without it the tests that need one say that they are skipped.
pub const DATABASE_VARIABLE: &str = "SIGNALBOX_TEST_DATABASE_URL";

/// Names the folder with the binaries, where that is not the one beside the tests.
pub const FOLDER_VARIABLE: &str = "SIGNALBOX_BIN_DIR";

/// A database of its own for one test. It stays when the test ends: the server is thrown away as a whole.
///
/// # Errors
/// When the server cannot be reached. `Ok(None)`: [`DATABASE_VARIABLE`] is not set.
pub async fn database(name: &str) -> anyhow::Result<Option<String>> {
    let Ok(server) = std::env::var(DATABASE_VARIABLE) else {
        eprintln!("skipped: {DATABASE_VARIABLE} is not set");
        return Ok(None);
    };
    let name = format!("e2e_{name}_{:08x}", rand::random::<u32>());
    let create = format!("CREATE DATABASE {name}");
    let output = Command::new("psql")
        .args(["-X", "-q", "-c", &create, &server])
        .output()
        .context("psql")?;
    if !output.status.success() {
        bail!("psql: {}", String::from_utf8_lossy(&output.stderr));
    }
    // postgres://user@host:port/database?options, of which the path alone changes.
    let (address, options) = server.split_once('?').unwrap_or((&server, ""));
    let (scheme, rest) = address.split_once("://").context("a URL with a scheme")?;
    let authority = rest.split('/').next().unwrap_or_default();
    let options = if options.is_empty() {
        String::new()
    } else {
        format!("?{options}")
    };
    Ok(Some(format!("{scheme}://{authority}/{name}{options}")))
}

/// A running process.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been killed or have ended before; then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A binary with flags, in the environment of a cluster with this secret, and of nothing that the developer has set.
///
/// # Errors
/// When it has not been built.
pub fn command(name: &str, flags: &[String], secret: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(binary(name)?);
    let is_setting = |variable: &str| variable.starts_with("SIGNALBOX_") || variable.starts_with("OTEL_");
    for (variable, _) in std::env::vars().filter(|(variable, _)| is_setting(variable)) {
        command.env_remove(variable);
    }
    let log = std::env::var("SIGNALBOX_LOG").unwrap_or_else(|_| "error".to_owned());
    command
        .args(flags)
        .env_remove("DATABASE_URL")
        .env("SIGNALBOX_LOG", log)
        // Spans that a test waits for come at once.
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .env("SIGNALBOX_CLUSTER_SECRET", secret)
        .stdin(Stdio::null());
    Ok(command)
}

/// A binary of the workspace, from the same profile as the tests.
///
/// # Errors
/// When it has not been built.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let folder = match std::env::var_os(FOLDER_VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => {
            let test = std::env::current_exe()?;
            // target/<profile>/deps/<test>
            let profile = test.parent().and_then(|deps| deps.parent());
            profile.context("the tests run from the target directory")?.to_owned()
        }
    };
    let path = folder.join(name);
    if !path.exists() {
        bail!("{name} is not built; run `cargo build --workspace` first");
    }
    Ok(path)
}

/// A free address on loopback. Another program could take it before it is used, which has not mattered on loopback.
///
/// Its port is below those that the kernel gives to outgoing connections. One of those could take the port of a server that is
/// down for a while, or connect to itself there.
///
/// # Errors
/// When there is none.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let outgoing: u16 = range.split_whitespace().next().context("a range of ports")?.parse()?;
    let lowest = outgoing.saturating_sub(20_000).max(1_025);
    for _ in 0..1_000 {
        let port = rand::random_range(lowest..outgoing.max(lowest + 1));
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return Ok(listener.local_addr()?);
        }
    }
    bail!("no free port from {lowest} to {outgoing}")
}

/// A server of the cluster. It keeps its address and its flags when it is down.
#[derive(Debug)]
pub struct Server {
    /// Where it listens: a gateway for clients, an orchestrator and a node for the cluster.
    pub address: SocketAddr,
    name: &'static str,
    flags: Vec<String>,
    process: Option<Process>,
}

impl Server {
    /// One that is down.
    fn new(name: &'static str, address: SocketAddr, flags: Vec<String>) -> Self {
        Self {
            address,
            name,
            flags,
            process: None,
        }
    }

    /// `http://…`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts it, with this cluster secret. Whether it is ready, only a look tells.
    ///
    /// # Errors
    /// When it runs, or has not been built.
    pub fn start(&mut self, secret: &str) -> anyhow::Result<()> {
        ensure!(self.process.is_none(), "{} runs", self.name);
        let child = command(self.name, &self.flags, secret)?.spawn();
        self.process = Some(Process(child.with_context(|| format!("start {}", self.name))?));
        Ok(())
    }

    /// Kills it at once with all that it has started (SIGKILL), as when its machine is lost; it is gone when this returns.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut process = self
            .process
            .take()
            .with_context(|| format!("{} does not run", self.name))?;
        for child in kill_tree(&mut process.0)? {
            // Init buries it; its ports are free before.
            while is_running(child) {
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// Kills the one process that it has started (SIGKILL): a supervisor's worker.
    ///
    /// # Errors
    /// When there is not exactly one.
    pub fn kill_worker(&self) -> anyhow::Result<()> {
        Ok(kill(self.worker()?, Signal::SIGKILL)?)
    }

    /// A supervisor's worker.
    ///
    /// # Errors
    /// When there is not exactly one.
    pub fn worker(&self) -> anyhow::Result<Pid> {
        let workers: Vec<Pid> = children(self.pid()?)?.into_iter().collect();
        match workers[..] {
            [worker] => Ok(worker),
            _ => bail!("{} has {} workers", self.name, workers.len()),
        }
    }

    /// Lets it and all that it has started stand still (SIGSTOP) until [`Server::proceed`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> anyhow::Result<()> {
        let pid = self.pid()?;
        kill(pid, Signal::SIGSTOP)?;
        for child in children(pid)? {
            kill(child, Signal::SIGSTOP)?;
        }
        Ok(())
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it does not run.
    pub fn proceed(&self) -> anyhow::Result<()> {
        let pid = self.pid()?;
        for child in children(pid)? {
            kill(child, Signal::SIGCONT)?;
        }
        Ok(kill(pid, Signal::SIGCONT)?)
    }

    /// Asks it to end (SIGTERM); it must, with exit code 0.
    ///
    /// # Errors
    /// When it ends with another code.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn terminate(&mut self) -> anyhow::Result<()> {
        kill(self.pid()?, Signal::SIGTERM)?;
        let mut process = self.process.take().context("it was just asked to end")?;
        let what = format!("{} ends", self.name);
        let status = eventually(&what, async || process.0.try_wait().transpose()).await?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }

    /// The id of its process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> anyhow::Result<Pid> {
        let process = self
            .process
            .as_ref()
            .with_context(|| format!("{} does not run", self.name))?;
        Ok(Pid::from_raw(i32::try_from(process.0.id())?))
    }
}

/// A gateway process.
#[derive(Debug)]
pub struct Gateway {
    /// The server.
    pub server: Server,
    /// The admin listener's `http://…`.
    pub admin: String,
}

/// A media node process.
#[derive(Debug)]
pub struct Node {
    /// The server.
    pub server: Server,
    /// Who it is, over restarts.
    pub id: NodeId,
}

/// How many of what, and with which flags beside those that every cluster here needs.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    /// Orchestrators.
    pub orchestrators: usize,
    /// Gateways.
    pub gateways: usize,
    /// Media nodes.
    pub nodes: usize,
    /// The orchestrators' flags.
    pub orchestrator_flags: Vec<String>,
    /// The gateways' flags.
    pub gateway_flags: Vec<String>,
    /// The nodes' flags.
    pub node_flags: Vec<String>,
}

impl Shape {
    /// One orchestrator.
    pub fn new(gateways: usize, nodes: usize) -> Self {
        Self {
            orchestrators: 1,
            gateways,
            nodes,
            ..Self::default()
        }
    }

    /// With so many orchestrators.
    pub fn orchestrators(self, orchestrators: usize) -> Self {
        Self { orchestrators, ..self }
    }

    /// With flags for each orchestrator.
    pub fn orchestrator_flags(self, flags: &[&str]) -> Self {
        let orchestrator_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self {
            orchestrator_flags,
            ..self
        }
    }

    /// With flags for each gateway.
    pub fn gateway_flags(self, flags: &[&str]) -> Self {
        let gateway_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self { gateway_flags, ..self }
    }

    /// With flags for each media node.
    pub fn node_flags(self, flags: &[&str]) -> Self {
        let node_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self { node_flags, ..self }
    }
}

/// Three tiers as processes.
#[derive(Debug)]
pub struct Processes {
    /// The gateways.
    pub gateways: Vec<Gateway>,
    /// The orchestrators.
    pub orchestrators: Vec<Server>,
    /// The media nodes.
    pub nodes: Vec<Node>,
    /// The cluster secret that servers are started with.
    pub secret: String,
}

impl Processes {
    /// A cluster of this shape over this database, all of it ready.
    ///
    /// # Errors
    /// When anything does not start.
    pub async fn start(database: &str, shape: &Shape) -> anyhow::Result<Self> {
        let mut all = Self {
            gateways: Vec::new(),
            orchestrators: Vec::new(),
            nodes: Vec::new(),
            secret: CLUSTER_SECRET.to_owned(),
        };
        for index in 0..shape.orchestrators {
            let address = free_address()?;
            let mut flags = flags(&["--listen", &address.to_string(), "--database-url", database]);
            flags.extend(shape.orchestrator_flags.iter().cloned());
            let mut server = Server::new("signalbox-orchestrator", address, flags);
            server.start(&all.secret)?;
            all.orchestrators.push(server);
            // One by one, since the first makes the tables.
            if index == 0 {
                all.map(0).until_nodes(0).await;
            }
        }
        for _ in 0..shape.nodes {
            all.add_node(&shape.node_flags)?;
        }
        for _ in 0..shape.gateways {
            all.add_gateway(&shape.gateway_flags)?;
        }
        all.ready().await?;
        Ok(all)
    }

    /// One more media node.
    ///
    /// # Errors
    /// When it does not start.
    pub fn add_node(&mut self, more: &[String]) -> anyhow::Result<()> {
        let (address, id) = (free_address()?, NodeId::random());
        let mut flags = flags(&["--control-listen", &address.to_string(), "--media-bind", "127.0.0.1:0"]);
        flags.extend(self::flags(&["--node-id", &id.to_string(), "--drain-seconds", "1"]));
        if !more.iter().any(|flag| flag == "--shards") {
            flags.extend(self::flags(&["--shards", "2"]));
        }
        flags.extend(self::flags(&["--orchestrator", &self.orchestrator_urls().join(",")]));
        flags.extend(more.iter().cloned());
        let mut server = Server::new("signalbox-media", address, flags);
        server.start(&self.secret)?;
        self.nodes.push(Node { server, id });
        Ok(())
    }

    /// One more gateway.
    ///
    /// # Errors
    /// When it does not start.
    pub fn add_gateway(&mut self, more: &[String]) -> anyhow::Result<()> {
        let (public, admin) = (free_address()?, free_address()?);
        let keys = format!("{KEY}:{KEY_SECRET}");
        let mut flags = flags(&["--listen", &public.to_string(), "--admin-listen", &admin.to_string()]);
        flags.extend(self::flags(&["--keys", &keys, "--drain-seconds", "1"]));
        flags.extend(self::flags(&["--orchestrator", &self.orchestrator_urls().join(",")]));
        flags.extend(more.iter().cloned());
        let mut server = Server::new("signalbox-gateway", public, flags);
        server.start(&self.secret)?;
        self.gateways.push(Gateway {
            server,
            admin: format!("http://{admin}"),
        });
        Ok(())
    }

    /// Waits until every orchestrator knows every node, and every gateway is ready.
    ///
    /// # Errors
    /// When that takes longer than [`crate::PATIENCE`].
    pub async fn ready(&self) -> anyhow::Result<()> {
        for index in 0..self.orchestrators.len() {
            self.map(index).until_nodes(self.nodes.len()).await;
        }
        for gateway in &self.gateways {
            // Its other address may speak TLS.
            wait_for_ready(&gateway.admin).await?;
        }
        Ok(())
    }

    /// A gateway's `http://…`.
    pub fn gateway(&self, index: usize) -> String {
        self.gateways[index].server.url()
    }

    /// The orchestrators' `http://…`.
    pub fn orchestrator_urls(&self) -> Vec<String> {
        self.orchestrators.iter().map(Server::url).collect()
    }

    /// The map as an orchestrator sees it.
    pub fn map(&self, orchestrator: usize) -> Map {
        Map::new(&self.orchestrators[orchestrator].url(), &self.secret)
    }

    /// The process of a media node.
    ///
    /// # Panics
    /// When the cluster has no such node.
    pub fn node(&mut self, id: NodeId) -> &mut Node {
        let mut nodes = self.nodes.iter_mut();
        nodes.find(|node| node.id == id).expect("a node of the cluster")
    }
}

fn flags(flags: &[&str]) -> Vec<String> {
    flags.iter().map(|flag| (*flag).to_owned()).collect()
}
