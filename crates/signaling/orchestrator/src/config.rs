//! The orchestrator's configuration: flags and environment.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;
use signalbox_protocol::Secret;

use crate::Error;
use crate::store::postgres::check_url;

/// Places each room on exactly one media node.
#[derive(Debug, Clone, Parser)]
#[command(name = "signalbox-orchestrator", version)]
pub struct Config {
    /// The address and port to listen on. Gateways and media nodes connect to it; keep it off public networks.
    #[arg(
        long,
        env = "SIGNALBOX_ORCHESTRATOR_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:7890"
    )]
    pub listen: SocketAddr,

    /// The PostgreSQL database that holds the room map, such as postgres://user:password@host:5432/signalbox. Several
    /// orchestrators share one map by naming the same database. Without it the map is in memory, of this process alone,
    /// and lost with it.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<DatabaseUrl>,

    /// Keep the map in memory, even if a database is named, and do not warn of it.
    #[arg(long, env = "SIGNALBOX_MEMORY")]
    pub memory: bool,

    /// The secret that gateways, orchestrators and media nodes share, at least 16 bytes. It authenticates their calls
    /// and signs tickets.
    #[arg(
        long,
        env = "SIGNALBOX_CLUSTER_SECRET",
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub cluster_secret: Secret,

    /// How long a media node may be silent before its rooms are moved, in milliseconds. Higher: slow nodes and short
    /// outages of the network cost nothing. Lower: the rooms of a lost node are back sooner.
    #[arg(long, env = "SIGNALBOX_LEASE_MS", value_name = "MS", default_value_t = 2000)]
    #[arg(value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub lease_ms: u64,

    /// How often a media node renews its lease, in milliseconds; at most half of the lease. Higher: fewer writes to the
    /// database. Lower: fresher load figures, and more tries before a lease is lost.
    #[arg(long, env = "SIGNALBOX_HEARTBEAT_MS", value_name = "MS", default_value_t = 500)]
    #[arg(value_parser = clap::value_parser!(u64).range(10..=300_000))]
    pub heartbeat_ms: u64,
}

impl Config {
    /// Checks what the command line's parser cannot.
    ///
    /// Fails with [`Error::Config`] when the heartbeat is too slow for the lease, or the database's URL is none.
    pub fn check(&self) -> Result<(), Error> {
        if self.heartbeat_ms.saturating_mul(2) > self.lease_ms {
            return Err(Error::Config(
                "--heartbeat-ms must be at most half of --lease-ms, so that one lost heartbeat does not cost a lease",
            ));
        }
        match self.database_url() {
            Some(url) => check_url(url.expose()),
            None => Ok(()),
        }
    }

    /// The database to use; none: the map is in memory.
    pub fn database_url(&self) -> Option<&DatabaseUrl> {
        self.database_url.as_ref().filter(|_| !self.memory)
    }

    /// The lease.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// The interval between renewals.
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }
}

/// A database's URL. It may hold a password, so `Debug` prints `…`.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The URL itself, to connect with.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for DatabaseUrl {
    type Err = std::convert::Infallible;
    /// Takes any text: whoever refuses it later does so without repeating it, which the command line's parser would
    /// not.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Config, clap::Error> {
        let secret = ["signalbox-orchestrator", "--cluster-secret", "0123456789abcdef"];
        Config::try_parse_from(secret.iter().chain(args))
    }

    #[test]
    fn the_defaults_are_those_of_the_documents() {
        let config = parse(&[]).unwrap();
        assert_eq!(config.listen, "127.0.0.1:7890".parse().unwrap());
        assert_eq!((config.lease_ms, config.heartbeat_ms), (2000, 500));
        config.check().unwrap();
    }

    #[test]
    fn secrets_are_not_printed() {
        let config = parse(&["--database-url", "postgres://a:hush@host/db"]).unwrap();
        let printed = format!("{config:?}");
        assert!(
            !printed.contains("hush") && !printed.contains("0123456789abcdef"),
            "{printed}"
        );
    }

    #[test]
    fn a_heartbeat_too_slow_for_the_lease_is_refused() {
        let config = parse(&["--lease-ms", "1000", "--heartbeat-ms", "501"]).unwrap();
        assert!(matches!(config.check(), Err(Error::Config(_))));
        assert!(parse(&["--lease-ms", "0"]).is_err());
    }

    #[test]
    fn a_database_url_counts_unless_memory_is_asked_for() {
        let url = ["--database-url", "mysql://a:hush@host/db"];
        let error = parse(&url).unwrap().check().unwrap_err();
        assert!(!error.to_string().contains("hush"), "{error}");
        let config = parse(&[url[0], url[1], "--memory"]).unwrap();
        assert_eq!(config.database_url(), None);
        config.check().unwrap();
    }

    #[test]
    fn the_secret_is_required_and_long_enough() {
        assert!(Config::try_parse_from(["signalbox-orchestrator", "--cluster-secret", "short"]).is_err());
    }
}
