//! One gateway with TLS, with an orchestrator and a media node behind it, all of them real.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail, ensure};
use e2e::processes::{DATABASE_VARIABLE, Processes, Shape, database};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::{CertificateParams, KeyPair};

use super::clients::Clients;
use super::stay_on;

/// See the module. Dropping it ends all of it.
pub struct System {
    pub clients: Clients,
    gateway: Pid,
    admin: String,
    certificate: Certificate,
    _all: Processes,
}

impl System {
    /// All of it ready, the gateway with these flags.
    ///
    /// # Errors
    /// When anything does not start.
    pub async fn start(gateway_flags: &[&str]) -> anyhow::Result<Self> {
        let Some(database) = database("front").await? else {
            bail!("{DATABASE_VARIABLE} is not set; tests/bench sets it");
        };
        let certificate = Certificate::new()?;
        let (chain, key) = certificate.files();
        let mut flags = vec!["--tls-certificate", &chain, "--tls-key", &key];
        flags.extend(gateway_flags);
        let shape = Shape::new(1, 1).gateway_flags(&flags);
        // A node is no part of what is measured, and has to have room for everybody.
        let shape = shape.node_flags(&["--shards", "1", "--capacity", "20000"]);
        let all = Processes::start(&database, &shape).await?;
        let gateway = &all.gateways[0];
        let pid = gateway.server.pid()?;
        for thread in threads(pid)? {
            stay_on(thread, 0)?;
        }
        Ok(Self {
            clients: Clients::new(gateway.server.address),
            gateway: pid,
            admin: gateway.admin.clone(),
            certificate,
            _all: all,
        })
    }

    /// What the gateway has in memory, in KiB.
    ///
    /// # Errors
    /// When it is gone.
    pub fn memory_kib(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.gateway))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kib.context("a process without memory")
    }

    /// The processor time that the gateway has had, in seconds.
    ///
    /// # Errors
    /// When it is gone.
    pub fn processor_seconds(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.gateway))?;
        let (_, rest) = stat.rsplit_once(") ").context("a process without a name")?;
        // Fields 14 and 15 of proc(5), in hundredths of a second.
        let ticks = rest
            .split(' ')
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<f64>().ok());
        Ok(ticks.sum::<f64>() / 100.0)
    }

    /// A count of the gateway, of all labels together.
    ///
    /// # Errors
    /// When there is none of this name.
    pub async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let page = reqwest::get(format!("{}/metrics", self.admin)).await?.text().await?;
        let values = page.lines().filter_map(|line| {
            let rest = line.strip_prefix("signalbox_gateway_")?.strip_prefix(name)?;
            let value = rest
                .strip_prefix(' ')
                .or_else(|| Some(rest.strip_prefix('{')?.split_once("} ")?.1));
            value?.parse::<u64>().ok()
        });
        let values: Vec<u64> = values.collect();
        ensure!(!values.is_empty(), "the gateway does not count {name}");
        Ok(values.iter().sum())
    }

    /// Has the gateway use a new certificate; returns it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn renew_certificate(&self) -> anyhow::Result<Vec<u8>> {
        let der = self.certificate.renew()?;
        kill(self.gateway, Signal::SIGHUP)?;
        Ok(der)
    }
}

fn threads(process: Pid) -> anyhow::Result<Vec<Pid>> {
    let entries = std::fs::read_dir(format!("/proc/{process}/task"))?;
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(ids.map(Pid::from_raw).collect())
}

/// A folder with a certificate for `localhost` and its key; gone with it.
struct Certificate(PathBuf);

impl Certificate {
    fn new() -> anyhow::Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("signalbox-front-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let made = Self(folder);
        made.renew()?;
        Ok(made)
    }

    fn renew(&self) -> anyhow::Result<Vec<u8>> {
        let key = KeyPair::generate()?;
        let made = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
        let replace = |path: &Path, text: String| {
            let beside = path.with_extension("new");
            std::fs::write(&beside, text)?;
            std::fs::rename(beside, path)
        };
        let (chain, private) = self.files();
        replace(Path::new(&private), key.serialize_pem())?;
        replace(Path::new(&chain), made.pem())?;
        Ok(made.der().to_vec())
    }

    fn files(&self) -> (String, String) {
        let file = |name: &str| self.0.join(name).display().to_string();
        (file("chain.pem"), file("key.pem"))
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
