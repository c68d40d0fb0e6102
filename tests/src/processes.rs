//! The real binaries as processes, over a PostgreSQL database of their own.
//!
//! They stand beside the test binary, where `cargo build --workspace` puts them. Dropping a process kills it.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::{CLUSTER_SECRET, KEY, KEY_SECRET, wait_for_nodes, wait_for_ready};

/// Names a PostgreSQL server, and a database of it to connect to; without it the tests that need one say that they are skipped.
pub const DATABASE_VARIABLE: &str = "SIGNALBOX_TEST_DATABASE_URL";

/// How long a process may take to end after SIGTERM.
const END: Duration = Duration::from_secs(15);

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

/// A server process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    fn start(name: &str, flags: &[&str]) -> anyhow::Result<Self> {
        let path = binary(name)?;
        let mut command = Command::new(path);
        // What the developer has set for a cluster of their own must not reach this one.
        for (variable, _) in std::env::vars().filter(|(variable, _)| variable.starts_with("SIGNALBOX_")) {
            command.env_remove(variable);
        }
        let log = std::env::var("SIGNALBOX_LOG").unwrap_or_else(|_| "error".to_owned());
        let child = command
            .args(flags)
            .env_remove("DATABASE_URL")
            .env("SIGNALBOX_LOG", log)
            .env("SIGNALBOX_CLUSTER_SECRET", CLUSTER_SECRET)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self {
            child,
            name: name.to_owned(),
        })
    }

    /// Kills it at once (SIGKILL); it is gone when this returns.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().with_context(|| format!("kill {}", self.name))?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end (SIGTERM); it must, with exit code 0.
    ///
    /// # Errors
    /// When it does not in time, or ends with another code.
    pub async fn terminate(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        let deadline = tokio::time::Instant::now() + END;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{} ended with {status}", self.name),
                None if tokio::time::Instant::now() > deadline => bail!("{} does not end", self.name),
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been killed or have ended before; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A binary of the workspace, from the same profile as the tests.
///
/// # Errors
/// When it has not been built.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    // target/<profile>/deps/<test>
    let profile = test
        .parent()
        .and_then(|deps| deps.parent())
        .context("the tests run from the target directory")?;
    let path = profile.join(name);
    if !path.exists() {
        bail!("{name} is not built; run `cargo build --workspace` first");
    }
    Ok(path)
}

/// A free address on loopback. Another program could take it before it is used, which has not mattered on loopback.
///
/// # Errors
/// When there is none.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A gateway process.
#[derive(Debug)]
pub struct GatewayProcess {
    /// The process.
    pub process: Process,
    /// `http://…`.
    pub url: String,
    /// The admin listener's `http://…`.
    pub admin: String,
}

/// Three tiers as processes.
#[derive(Debug)]
pub struct Processes {
    /// The gateways.
    pub gateways: Vec<GatewayProcess>,
    /// The orchestrator; none while it is stopped.
    pub orchestrator: Option<Process>,
    /// The media nodes, with their control addresses.
    pub nodes: Vec<(Process, SocketAddr)>,
    orchestrator_address: SocketAddr,
    database: String,
}

impl Processes {
    /// One orchestrator over this database, and so many gateways and media nodes, all ready.
    ///
    /// # Errors
    /// When anything does not start.
    pub async fn start(database: String, gateways: usize, nodes: usize) -> anyhow::Result<Self> {
        let mut all = Self {
            gateways: Vec::new(),
            orchestrator: None,
            nodes: Vec::new(),
            orchestrator_address: free_address()?,
            database,
        };
        all.start_orchestrator().await?;
        let orchestrator = all.orchestrator_url();
        for _ in 0..nodes {
            let control = free_address()?;
            let address = control.to_string();
            let flags = [
                "--control-listen",
                &address,
                "--media-bind",
                "127.0.0.1:0",
                "--orchestrator",
                &orchestrator,
            ];
            all.nodes.push((Process::start("signalbox-media", &flags)?, control));
        }
        for _ in 0..gateways {
            all.add_gateway().await?;
        }
        wait_for_nodes(&orchestrator, nodes).await?;
        Ok(all)
    }

    /// Starts the orchestrator, again at the same address.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_orchestrator(&mut self) -> anyhow::Result<()> {
        let address = self.orchestrator_address.to_string();
        let flags = ["--listen", &address, "--database-url", &self.database];
        self.orchestrator = Some(Process::start("signalbox-orchestrator", &flags)?);
        wait_for_nodes(&self.orchestrator_url(), 0).await
    }

    /// One more gateway.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn add_gateway(&mut self) -> anyhow::Result<()> {
        let (public, admin) = (free_address()?, free_address()?);
        let keys = format!("{KEY}:{KEY_SECRET}");
        let (public_text, admin_text) = (public.to_string(), admin.to_string());
        let orchestrator = self.orchestrator_url();
        let process = Process::start(
            "signalbox-gateway",
            &[
                "--listen",
                &public_text,
                "--admin-listen",
                &admin_text,
                "--orchestrator",
                &orchestrator,
                "--keys",
                &keys,
            ],
        )?;
        let gateway = GatewayProcess {
            process,
            url: format!("http://{public}"),
            admin: format!("http://{admin}"),
        };
        wait_for_ready(&gateway.url).await?;
        self.gateways.push(gateway);
        Ok(())
    }

    /// The orchestrator's `http://…`.
    pub fn orchestrator_url(&self) -> String {
        format!("http://{}", self.orchestrator_address)
    }
}
