//! The orchestrator's configuration: flags and environment.

mod value;

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use signalbox_protocol::Secrets;
use signalbox_protocol::placement::Policy;
use signalbox_telemetry::ExportConfig;

use crate::Error;
use crate::brake::Brake;
use crate::placement::Settings;
use crate::store::Retention;
use crate::store::postgres::check_url;

pub use value::{DatabaseUrl, Near};

/// The share of a lease that must be left for a node to be given a room, and the share that passes between its end and
/// the fence.
const MARGIN: u32 = 4;
const GRACE: u32 = 8;

/// The share of a lease for which a node's answer to a probe is waited for, and the shortest such time.
const PROBE: u32 = 8;
const MIN_PROBE: Duration = Duration::from_millis(100);

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

    /// The secret that gateways, orchestrators and media nodes share, at least 16 bytes without commas. It authenticates
    /// their calls and signs tickets. Up to 4 secrets, separated by commas: the first one signs and authenticates, all are
    /// accepted. To change it without an interruption restart all processes three times: first with OLD,NEW so that all
    /// accept the new one, then with NEW,OLD so that all use it, then with NEW.
    #[arg(
        long,
        env = "SIGNALBOX_CLUSTER_SECRET",
        value_name = "SECRET[,SECRET]",
        hide_env_values = true,
        value_parser = value::SecretsParser
    )]
    pub cluster_secret: Secrets,

    /// This orchestrator's name: in the history of rooms, and to count the orchestrators of the map, so each must have
    /// another. 1 to 128 printable bytes. Default: the host's name, the port, and four random digits.
    #[arg(long, env = "SIGNALBOX_ORCHESTRATOR_NAME", value_name = "NAME", value_parser = value::name)]
    pub name: Option<String>,

    /// Where traces go. Only gateways begin them.
    #[command(flatten)]
    pub export: ExportConfig,

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

    /// How a node is chosen for a new room: two-choices (of two random nodes the less loaded one), round-robin (in turn,
    /// by capacity), least-loaded, rendezvous (by hash of the room's name), bounded-rendezvous (the same, passing over
    /// nodes that have more than their share), or packing (the fullest node that has room to spare). All orchestrators
    /// of a map should have the same; a request may ask for another.
    #[arg(long, env = "SIGNALBOX_POLICY", value_name = "POLICY", default_value_t = Policy::TwoChoices)]
    pub policy: Policy,

    /// How many participants a new room is expected to have in the end. Higher: new rooms spread wider while they are
    /// still empty. Lower: a burst of new rooms piles onto the node that was idle when it began.
    #[arg(
        long,
        env = "SIGNALBOX_EXPECTED_PARTICIPANTS",
        value_name = "COUNT",
        default_value_t = 4.0
    )]
    #[arg(value_parser = value::participants)]
    pub expected_participants: f64,

    /// The share of its capacity, from 0 to 1, from which a region's nodes count as full, so that its new rooms go to
    /// another region. Higher: rooms stay near for longer. Lower: more headroom for the rooms that are already there to
    /// grow.
    #[arg(long, env = "SIGNALBOX_SPILL_OVER", value_name = "SHARE", default_value_t = 0.8)]
    #[arg(value_parser = value::share)]
    pub spill_over: f64,

    /// Where the rooms of a region go when it is full, nearest first, such as eu=us,ap. Repeatable; in the environment
    /// separated by semicolons. Regions that are not named come last.
    #[arg(
        long,
        env = "SIGNALBOX_NEAR",
        value_name = "REGION=REGION[,REGION]",
        value_delimiter = ';'
    )]
    pub near: Vec<Near>,

    /// The share of its capacity, from 0 to 1, up to which the policy `packing` fills a node. Higher: fewer nodes are in
    /// use. Lower: more headroom for rooms to grow.
    #[arg(long, env = "SIGNALBOX_PACK_TO", value_name = "SHARE", default_value_t = 0.65)]
    #[arg(value_parser = value::share)]
    pub pack_to: f64,

    /// By how much more than its share the policy `bounded-rendezvous` lets a node have, as a share of it, from 0 to 10.
    /// Higher: fewer rooms are placed elsewhere than their hash says. Lower: the load is more even.
    #[arg(long, env = "SIGNALBOX_SLACK", value_name = "SHARE", default_value_t = 0.25)]
    #[arg(value_parser = value::slack)]
    pub slack: f64,

    /// The share of users, from 0 to 1, whose new rooms go to the nodes of the canary track, if there are any; until
    /// somebody sets one at run time, with `signalbox canary --share`, or the orchestrators take it back. Higher: a new
    /// version is tried by more users.
    #[arg(long, env = "SIGNALBOX_CANARY_SHARE", value_name = "SHARE", default_value_t = 0.0)]
    #[arg(value_parser = value::share)]
    pub canary_share: f64,

    /// Refuse media nodes that announce a media address which cannot be reached from the internet: private, loopback,
    /// link-local and the like.
    #[arg(long, env = "SIGNALBOX_REQUIRE_PUBLIC_MEDIA")]
    pub require_public_media: bool,

    /// For how long a media node is given no rooms after several joins in a row failed on it, or it could not be reached,
    /// in seconds. Grows by as much each further time, up to ten times. Higher: users meet a broken node more rarely.
    /// Lower: a node that recovered takes rooms sooner.
    #[arg(
        long,
        env = "SIGNALBOX_EJECTION_SECONDS",
        value_name = "SECONDS",
        default_value_t = 30
    )]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub ejection_seconds: u64,

    /// How long a room that is over is remembered, in hours; afterwards its generation begins at 1 again. Higher: more
    /// rows. Lower: `signalbox rooms` shows less.
    #[arg(long, env = "SIGNALBOX_KEEP_ROOMS_HOURS", value_name = "HOURS", default_value_t = 24)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=87_600))]
    pub keep_rooms_hours: u64,

    /// How long a lost media node is remembered, in hours. Higher: more rows. Lower: `signalbox nodes` shows less.
    #[arg(long, env = "SIGNALBOX_KEEP_NODES_HOURS", value_name = "HOURS", default_value_t = 24)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=87_600))]
    pub keep_nodes_hours: u64,

    /// How long it is remembered why a room was placed where it was, in hours. Higher: more rows; each placement is one.
    /// Lower: `signalbox rooms why` knows less.
    #[arg(
        long,
        env = "SIGNALBOX_KEEP_HISTORY_HOURS",
        value_name = "HOURS",
        default_value_t = 168
    )]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=87_600))]
    pub keep_history_hours: u64,
}

impl Config {
    /// Checks what the command line's parser cannot.
    ///
    /// Fails with [`Error::Config`] when the heartbeat is too slow for the lease, a region is given two lists of
    /// neighbours, or the database's URL is none.
    pub fn check(&self) -> Result<(), Error> {
        if self.heartbeat_ms.saturating_mul(2) > self.lease_ms {
            return Err(Error::Config(
                "--heartbeat-ms must be at most half of --lease-ms, so that one lost heartbeat does not cost a lease",
            ));
        }
        if self.placement().near.len() != self.near.len() {
            return Err(Error::Config(
                "--near names a region twice on the left; give each region one list, such as eu=us,ap",
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

    /// How much of its lease a node must have left to be given a room.
    pub fn margin(&self) -> Duration {
        self.lease() / MARGIN
    }

    /// When nodes are fenced.
    pub fn brake(&self) -> Brake {
        Brake {
            lease: self.lease(),
            grace: self.lease() / GRACE,
        }
    }

    /// How long a node's answer to a probe is waited for.
    pub fn probe_patience(&self) -> Duration {
        (self.lease() / PROBE).max(MIN_PROBE)
    }

    /// How rooms are placed.
    pub fn placement(&self) -> Settings {
        let near = self.near.iter().map(|near| (near.region.clone(), near.others.clone()));
        Settings {
            policy: self.policy,
            expected_participants: self.expected_participants,
            spill_over: self.spill_over,
            near: near.collect(),
            pack_to: self.pack_to,
            slack: self.slack,
            canary_share: self.canary_share,
        }
    }

    /// How long what is over is kept.
    pub fn retention(&self) -> Retention {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        Retention {
            rooms: hours(self.keep_rooms_hours),
            nodes: hours(self.keep_nodes_hours),
            history: hours(self.keep_history_hours),
        }
    }

    /// For how long a node is ejected the first time.
    pub fn ejection(&self) -> Duration {
        Duration::from_secs(self.ejection_seconds)
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
        assert_eq!(config.placement(), Settings::default());
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let kept = config.retention();
        assert_eq!(
            (kept.rooms, kept.nodes, kept.history),
            (hours(24), hours(24), hours(168))
        );
        assert_eq!(config.ejection(), Duration::from_secs(30));
        assert_eq!(config.probe_patience(), Duration::from_millis(250));
        assert!(!config.require_public_media);
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
    fn the_secret_is_required_and_long_enough_and_a_wrong_one_is_not_printed() {
        let secret = |value| Config::try_parse_from(["signalbox-orchestrator", "--cluster-secret", value]);
        assert_eq!(secret("short").unwrap_err().exit_code(), 2);
        let error = secret("0123456789abcdef,hush").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let error = error.to_string();
        assert!(
            error.contains("--cluster-secret") && error.contains("16 bytes"),
            "{error}"
        );
        assert!(
            !error.contains("hush") && !error.contains("0123456789abcdef"),
            "{error}"
        );
        assert_eq!(
            secret("0123456789abcdef,fedcba9876543210")
                .unwrap()
                .cluster_secret
                .accepted()
                .len(),
            2
        );
    }

    #[test]
    fn an_unknown_policy_is_refused_with_exit_code_2_and_the_list_of_those_that_exist() {
        let error = parse(&["--policy", "fastest"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let error = error.to_string();
        assert!(
            Policy::ALL.iter().all(|policy| error.contains(policy.name())),
            "{error}"
        );
        for policy in Policy::ALL {
            assert_eq!(parse(&["--policy", policy.name()]).unwrap().policy, policy);
        }
    }

    #[test]
    fn each_region_may_have_a_list_of_neighbours() {
        let config = parse(&["--near", "eu=us,ap", "--near", "us=eu"]).unwrap();
        config.check().unwrap();
        assert_eq!(config.placement().near["eu"], ["us", "ap"]);
        assert_eq!(
            parse(&["--near", "eu=us;us=eu"]).unwrap().near,
            parse(&["--near", "eu=us", "--near", "us=eu"]).unwrap().near
        );
        for wrong in ["eu", "=us", "eu=", "eu=us,,ap", "eu=us,eu", "eu=us,us"] {
            assert!(parse(&["--near", wrong]).is_err(), "{wrong}");
        }
        let twice = parse(&["--near", "eu=us", "--near", "eu=ap"]).unwrap();
        assert!(matches!(twice.check(), Err(Error::Config(_))));
    }

    #[test]
    fn figures_outside_of_their_range_are_refused() {
        for args in [
            ["--canary-share", "1.1"],
            ["--canary-share", "-0.1"],
            ["--spill-over", "NaN"],
            ["--pack-to", "x"],
            ["--slack", "11"],
            ["--expected-participants", "0"],
            ["--expected-participants", "inf"],
            ["--keep-rooms-hours", "0"],
            ["--ejection-seconds", "0"],
        ] {
            let arg = format!("{}={}", args[0], args[1]);
            assert!(parse(&[&arg]).is_err(), "{arg}");
        }
    }

    #[test]
    fn a_name_is_short_and_printable() {
        assert_eq!(parse(&["--name", "a:7890"]).unwrap().name.as_deref(), Some("a:7890"));
        for wrong in ["", " ", "a\u{7}", &"x".repeat(129)] {
            assert!(parse(&["--name", wrong]).is_err(), "{wrong}");
        }
    }
}
