//! A private PostgreSQL server of one test, which may be killed, restarted and replaced by a standby.
//!
//! Its data are in a temporary folder, its port is on 127.0.0.1, and it asks for no password. Root hands it over to the user
//! `postgres`, since it refuses to run as root. Dropping it kills it and removes the data.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Uid;

use crate::PATIENCE;
use crate::process_tree::{is_running, kill_tree, pid};
use crate::processes::free_address;

/// Where Debian puts PostgreSQL's servers, one folder for each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// What every server here is started with. Eight orchestrators of 16 connections, a standby's and psql's, with room to spare.
const SETTINGS: [&str; 2] = ["max_connections=400", "listen_addresses=127.0.0.1"];

/// How often to ask for what cannot be waited for.
const POLL: Duration = Duration::from_millis(25);

/// Whether a commit waits for a standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    /// It does not: what the standby has not received yet is lost in a failover.
    Asynchronous,
    /// It does: what was acknowledged survives.
    Synchronous,
}

/// What a commit waits for on the server itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing. A killed server loses nothing all the same, because the kernel has what it wrote; only a machine that crashes does.
    Relaxed,
    /// The disk.
    Fsync,
}

/// A server.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    durability: Durability,
    postmaster: Option<Child>,
}

impl Postgres {
    /// A new, empty one. None when PostgreSQL's programs are not installed: the test says that it is skipped.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(durability: Durability) -> anyhow::Result<Option<Self>> {
        let Some(programs) = programs() else {
            eprintln!("skipped: no PostgreSQL server in {DEBIAN}; tests/run installs it");
            return Ok(None);
        };
        let mut server = Self::without_data(programs, durability)?;
        let data = server.data();
        let flags = [
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ];
        let mut initdb = server.program("initdb");
        finished("initdb", initdb.arg("-D").arg(data).args(flags).output()?)?;
        server.resume().await?;
        Ok(Some(server))
    }

    fn without_data(programs: PathBuf, durability: Durability) -> anyhow::Result<Self> {
        let template = std::env::temp_dir().join("signalbox-postgres.XXXXXX");
        let made = as_owner("mktemp").arg("-d").arg(template).output().context("mktemp")?;
        let folder = PathBuf::from(finished("mktemp", made)?);
        let port = free_address()?.port();
        Ok(Self {
            programs,
            folder,
            port,
            durability,
            postmaster: None,
        })
    }

    /// Its URL, for orchestrators and psql.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Starts it with the data and at the address that it had, and waits until it takes connections.
    ///
    /// # Errors
    /// When it does not start, with its log.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        let log = self.folder.join("server.log");
        let append = || File::options().append(true).create(true).open(&log);
        let mut command = self.program("postgres");
        command
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string()])
            .arg("-k")
            .arg(&self.folder);
        let fsync = if self.durability == Durability::Fsync {
            "fsync=on"
        } else {
            "fsync=off"
        };
        for setting in SETTINGS.into_iter().chain([fsync]) {
            command.args(["-c", setting]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(append()?)
            .stderr(append()?)
            .spawn()?;
        self.postmaster = Some(child);
        let ready = async {
            loop {
                if let Some(status) = self.postmaster.as_mut().context("it was just started")?.try_wait()? {
                    bail!("PostgreSQL ended with {status}");
                }
                if self.query("SELECT 1").is_ok() {
                    return Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let ready = tokio::time::timeout(PATIENCE, ready)
            .await
            .context("PostgreSQL takes no connection");
        ready
            .and_then(|ready| ready)
            .with_context(|| fs::read_to_string(&log).unwrap_or_default())
    }

    /// Kills it and all that serve its connections, as a machine does that loses its power. It is gone when this returns.
    ///
    /// # Errors
    /// When it does not run, or stays.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let mut postmaster = self.postmaster.take().context("PostgreSQL does not run")?;
        let orphans = kill_tree(&mut postmaster)?;
        // The next postmaster refuses to start while one of them holds the shared memory.
        let gone = async {
            while orphans.iter().any(|pid| is_running(*pid)) {
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone)
            .await
            .context("killed backends stay")
    }

    /// Stops it in order, ending its connections.
    ///
    /// # Errors
    /// When it does not run, or ends with a failure.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let mut postmaster = self.postmaster.take().context("PostgreSQL does not run")?;
        kill(pid(&postmaster)?, Signal::SIGINT)?;
        let ended = async {
            loop {
                match postmaster.try_wait()? {
                    Some(status) => return anyhow::Ok(status),
                    None => tokio::time::sleep(POLL).await,
                }
            }
        };
        let status = tokio::time::timeout(PATIENCE, ended)
            .await
            .context("PostgreSQL does not stop")??;
        ensure!(status.success(), "PostgreSQL ended with {status}");
        Ok(())
    }

    /// A standby of this server, at an address of its own, which has received everything so far.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn standby(&self, replication: Replication) -> anyhow::Result<Self> {
        let mut standby = Self::without_data(self.programs.clone(), self.durability)?;
        let mut backup = standby.program("pg_basebackup");
        // With the settings that make it a standby of where it was copied from.
        backup.args([
            "--write-recovery-conf",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--no-sync",
        ]);
        backup.args([
            "--host=127.0.0.1",
            &format!("--port={}", self.port),
            "--username=postgres",
        ]);
        finished("pg_basebackup", backup.arg("-D").arg(standby.data()).output()?)?;
        standby.resume().await?;
        let streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        self.until(streams, "1").await?;
        if replication == Replication::Synchronous {
            self.set("synchronous_standby_names", "*").await?;
            self.until(
                "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'",
                "1",
            )
            .await?;
        }
        Ok(standby)
    }

    /// Cuts a standby off from its primary: it receives nothing any more.
    ///
    /// # Errors
    /// When it goes on receiving.
    pub async fn cut_off(&self) -> anyhow::Result<()> {
        self.set("primary_conninfo", "").await?;
        self.until("SELECT count(*) FROM pg_stat_wal_receiver", "0").await
    }

    /// Makes a standby the primary, at the address of the one whose place it takes: with the reads that a standby answers before it
    /// is promoted, as where a virtual address moves first.
    ///
    /// # Errors
    /// When the other still runs, or the standby does not become the primary.
    pub async fn replace(&mut self, primary: Self) -> anyhow::Result<()> {
        ensure!(primary.postmaster.is_none(), "two servers cannot have one address");
        self.stop().await?;
        self.port = primary.port;
        self.resume().await?;
        let promoted = self.query(&format!("SELECT pg_promote(true, {})", PATIENCE.as_secs()))?;
        ensure!(promoted == "t", "pg_promote answered {promoted}");
        // A primary without a standby of its own must not wait for one.
        self.set("synchronous_standby_names", "").await
    }

    /// What psql prints for a statement: rows as lines, their fields divided by `|`.
    ///
    /// # Errors
    /// When it fails, with what psql says.
    pub fn query(&self, statement: &str) -> anyhow::Result<String> {
        let output = Command::new(self.programs.join("psql"))
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-c",
                statement,
                &self.url(),
            ])
            .output()
            .context("psql")?;
        finished("psql", output)
    }

    /// Waits until a statement answers this.
    async fn until(&self, statement: &str, wanted: &str) -> anyhow::Result<()> {
        let wait = async {
            while self.query(statement)? != wanted {
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        waited.with_context(|| format!("{statement} does not become {wanted}"))?
    }

    async fn set(&self, setting: &str, value: &str) -> anyhow::Result<()> {
        self.query(&format!("ALTER SYSTEM SET {setting} = '{value}'"))?;
        self.query("SELECT pg_reload_conf()")?;
        self.until(&format!("SHOW {setting}"), value).await
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = as_owner(self.programs.join(name));
        // The folder where the tests run may be closed to the user who owns the data.
        command.current_dir(&self.folder);
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut postmaster) = self.postmaster.take() {
            // It may have ended by itself.
            let _ = kill_tree(&mut postmaster);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The newest version's programs.
fn programs() -> Option<PathBuf> {
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = fs::read_dir(DEBIAN).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let newest = versions
        .filter(|path| path.join("bin/postgres").exists())
        .max_by_key(|path| version(path))?;
    Some(newest.join("bin"))
}

/// A command of the user who may own a server's data. setpriv replaces itself by the command, so that the process is the server.
fn as_owner(program: impl AsRef<std::ffi::OsStr>) -> Command {
    if !Uid::effective().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=postgres",
        "--regid=postgres",
        "--init-groups",
        "--reset-env",
        "--",
    ]);
    command.arg(program);
    command
}

/// What a command printed.
fn finished(name: &str, output: Output) -> anyhow::Result<String> {
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_killed_server_comes_back_with_its_data() {
        let Some(mut server) = Postgres::start(Durability::Relaxed).await.unwrap() else {
            return;
        };
        server.query("CREATE TABLE kept AS SELECT 7 AS x").unwrap();
        let before = server.query("SELECT pg_postmaster_start_time()").unwrap();
        server.kill().await.unwrap();
        assert!(server.query("SELECT 1").is_err());
        server.resume().await.unwrap();
        assert_eq!(server.query("SELECT x FROM kept").unwrap(), "7");
        assert_ne!(server.query("SELECT pg_postmaster_start_time()").unwrap(), before);
        let (folder, url) = (server.folder.clone(), server.url());
        drop(server);
        assert!(!folder.exists());
        assert!(
            !Command::new("psql")
                .args(["-X", "-c", "SELECT 1", &url])
                .output()
                .unwrap()
                .status
                .success()
        );
    }

    #[tokio::test]
    async fn a_standby_that_was_cut_off_takes_the_place_without_the_last_writes() {
        let Some(mut primary) = Postgres::start(Durability::Relaxed).await.unwrap() else {
            return;
        };
        let mut standby = primary.standby(Replication::Asynchronous).await.unwrap();
        primary.query("CREATE TABLE received ()").unwrap();
        standby
            .until("SELECT count(*) FROM pg_class WHERE relname = 'received'", "1")
            .await
            .unwrap();
        standby.cut_off().await.unwrap();
        primary.query("CREATE TABLE lost ()").unwrap();
        let url = primary.url();
        primary.kill().await.unwrap();
        standby.replace(primary).await.unwrap();
        assert_eq!(standby.url(), url);
        let tables = "SELECT string_agg(relname, ',') FROM pg_class WHERE relname IN ('received', 'lost')";
        assert_eq!(standby.query(tables).unwrap(), "received");
        standby.query("CREATE TABLE written ()").unwrap();
    }

    #[tokio::test]
    async fn what_a_synchronous_standby_let_pass_survives_the_primary() {
        let Some(mut primary) = Postgres::start(Durability::Relaxed).await.unwrap() else {
            return;
        };
        let mut standby = primary.standby(Replication::Synchronous).await.unwrap();
        primary.query("CREATE TABLE kept AS SELECT 7 AS x").unwrap();
        primary.kill().await.unwrap();
        standby.replace(primary).await.unwrap();
        assert_eq!(standby.query("SELECT x FROM kept").unwrap(), "7");
    }
}
