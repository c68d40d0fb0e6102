//! What an operator can set, and what follows from it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread::available_parallelism;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use signalbox_protocol::placement::{MAX_LABELS, MAX_TEXT_BYTES, Track};
use signalbox_protocol::{NodeId, Secrets};
use signalbox_telemetry::ExportConfig;

use crate::Error;
use crate::media_socket::bind_media;

/// What one shard takes unless `--capacity` says otherwise, in participants.
const DEFAULT_CAPACITY_PER_SHARD: u32 = 1_000;

/// A Signalbox media node: takes the rooms that the orchestrator places on it and forwards their media over UDP.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "signalbox-media", version, max_term_width = 120)]
pub struct Config {
    /// The TCP address that gateways reach the node at; also serves /livez, /readyz and /metrics. Keep it off public networks.
    #[arg(
        long,
        env = "SIGNALBOX_CONTROL_LISTEN",
        value_name = "IP:PORT",
        default_value = "127.0.0.1:7900"
    )]
    pub control_listen: SocketAddr,

    /// The URL that gateways are told to connect to. Default: ws:// and the address of --control-listen.
    #[arg(long, env = "SIGNALBOX_CONTROL_URL", value_name = "URL")]
    pub control_url: Option<String>,

    /// The UDP address of the first shard; each further shard takes the next port. Port 0: each takes any free port.
    #[arg(
        long,
        env = "SIGNALBOX_MEDIA_BIND",
        value_name = "IP:PORT",
        default_value = "127.0.0.1:50000"
    )]
    pub media_bind: SocketAddr,

    /// The IP address that clients are told to send media to. Default: the one of --media-bind.
    #[arg(long, env = "SIGNALBOX_MEDIA_IP", value_name = "IP")]
    pub media_ip: Option<IpAddr>,

    /// The UDP port that clients are told for the first shard, when the node is behind one-to-one address translation; each
    /// further shard is told the next port. Default: the ports that are bound.
    #[arg(long, env = "SIGNALBOX_MEDIA_PORT", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub media_port: Option<u16>,

    /// The IP address that other media nodes reach this one's UDP ports at, the bound ones, over a network between the servers. While a room moves from
    /// one node to another, its clients' datagrams pass there, for a second or so. Default: the address that clients are told.
    #[arg(long, env = "SIGNALBOX_TUNNEL_IP", value_name = "IP")]
    pub tunnel_ip: Option<IpAddr>,

    /// Where traces go. Only gateways begin them.
    #[command(flatten)]
    pub export: ExportConfig,

    /// How many shards: threads, each with its own UDP port. Default: one for each processor core.
    #[arg(long, env = "SIGNALBOX_SHARDS", value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub shards: Option<u16>,

    /// The orchestrators' URLs, several separated by commas; the next one is tried when one does not answer. Name all of them.
    #[arg(
        long,
        env = "SIGNALBOX_ORCHESTRATOR",
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7890"
    )]
    pub orchestrator: Vec<String>,

    /// What to do when the orchestrators cannot reach their database, and so cannot renew this node's lease, only promise not to
    /// move its rooms. Without this flag one orchestrator's promise suffices: calls go on as long as any of them answers. But an
    /// orchestrator that still reaches the database and does not reach this node may open the rooms elsewhere, and a room can live
    /// twice until the network is whole again. With it every orchestrator of --orchestrator, which must name all of them, has to
    /// promise: no room lives twice, but one orchestrator that does not answer while the database is away ends this node's calls.
    #[arg(long, env = "SIGNALBOX_STRICT_LEASES")]
    pub strict_leases: bool,

    /// The secret that all servers of the cluster share, at least 16 bytes. While it is changed, up to 4 separated by commas: the first
    /// one is used, all are accepted. Better given in the environment than on the command line, where other users of the machine
    /// see it.
    #[arg(
        long,
        env = "SIGNALBOX_CLUSTER_SECRET",
        value_name = "SECRET",
        hide_env_values = true,
        value_parser = SecretsParser
    )]
    pub cluster_secret: Secrets,

    /// The node's id, a UUID; the same one over restarts lets the orchestrator recognize the node. Default: a random one.
    #[arg(long, env = "SIGNALBOX_NODE_ID", value_name = "UUID")]
    pub node_id: Option<NodeId>,

    /// The region that the node stands in; rooms that ask for it are placed here first.
    #[arg(long, env = "SIGNALBOX_REGION", value_name = "NAME", default_value = "", value_parser = parse_text)]
    pub region: String,

    /// The failure domain within the region.
    #[arg(long, env = "SIGNALBOX_ZONE", value_name = "NAME", default_value = "", value_parser = parse_text)]
    pub zone: String,

    /// Which nodes it belongs to: stable for everyone, or canary, where a new version is tried on a share of the users.
    #[arg(long, env = "SIGNALBOX_TRACK", value_name = "TRACK", default_value = "stable", value_parser = track_parser())]
    pub track: Track,

    /// How many participants the node takes at most. Default: 1000 for each shard.
    #[arg(long, env = "SIGNALBOX_CAPACITY", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub capacity: Option<u32>,

    /// A label that rooms can be placed by, such as disk=fast; repeatable, or several separated by commas. At most 64, each key and
    /// value at most 256 bytes.
    #[arg(long, env = "SIGNALBOX_LABEL", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = parse_label)]
    pub label: Vec<(String, String)>,

    /// How long the node may take on SIGTERM or SIGINT to have its rooms moved to other nodes, in seconds; what is left then is closed. It
    /// does not wait when no other node can take them, nor when it is asked a second time. 0: they are closed at once.
    #[arg(long, env = "SIGNALBOX_DRAIN_SECONDS", value_name = "SECONDS", default_value_t = 30)]
    pub drain_seconds: u32,

    /// How many rooms per second are moved then. Higher: the node ends sooner. Lower: the others get their load more evenly. Default: as
    /// many as it takes to be done in half of --drain-seconds, at least 5.
    #[arg(long, env = "SIGNALBOX_DRAIN_RATE", value_name = "ROOMS", value_parser = parse_rate)]
    pub drain_rate: Option<f64>,

    /// How long a room without participants stays open, in seconds. Higher: who comes back finds the same room. Lower: its node
    /// is free sooner.
    #[arg(
        long,
        env = "SIGNALBOX_EMPTY_ROOM_SECONDS",
        value_name = "SECONDS",
        default_value_t = 20
    )]
    pub empty_room_seconds: u32,

    /// How long a participant stays that has lost both its signaling and its media, in seconds. Higher: longer outages are
    /// survived. Lower: the others see sooner that someone is gone.
    #[arg(
        long,
        env = "SIGNALBOX_DEPARTURE_SECONDS",
        value_name = "SECONDS",
        default_value_t = 15
    )]
    pub departure_seconds: u32,

    /// How long a stream without a peer connection, or a participant that has no others and no signaling, stays without any sign of
    /// life, in seconds. Higher: clients that rarely report are kept. Lower: nothing is sent sooner to an address that nobody
    /// is at any more.
    #[arg(
        long,
        env = "SIGNALBOX_SRTP_IDLE_SECONDS",
        value_name = "SECONDS",
        default_value_t = 60,
        value_parser = clap::value_parser!(u32).range(5..)
    )]
    pub srtp_idle_seconds: u32,

    /// How many bits per second a participant may publish, all its tracks together, unless its token says less; 0: any number. Of one that
    /// sends more, the highest layers are not forwarded, then its pictures. Higher: larger and sharper screens; lower: one
    /// participant takes less of everybody's link.
    #[arg(
        long,
        env = "SIGNALBOX_MAX_PUBLISH_BITRATE",
        value_name = "BITS",
        default_value_t = 20_000_000
    )]
    pub max_publish_bitrate: u64,

    /// How many tracks a participant may publish, unless its token says fewer.
    #[arg(
        long,
        env = "SIGNALBOX_MAX_TRACKS",
        value_name = "COUNT",
        default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..=32)
    )]
    pub max_tracks: u16,

    /// How many datagrams per second a connection may send to the node; those of more are dropped before they are decrypted. 0: any number.
    /// Higher: floods from within rooms cost more; lower: bursts of large pictures lose packets.
    #[arg(
        long,
        env = "SIGNALBOX_MAX_PACKETS_PER_SECOND",
        value_name = "COUNT",
        default_value_t = 5_000
    )]
    pub max_packets_per_second: u32,

    /// How many microphones of a room are forwarded at a time: those of the loudest. 0: all. Rooms with no more are not affected. Higher: more
    /// packets for everyone in big rooms; lower: of many who speak at once, some are not heard.
    #[arg(long, env = "SIGNALBOX_LOUDEST_AUDIO", value_name = "COUNT", default_value_t = 10)]
    pub loudest_audio: u16,
}

impl Config {
    /// How many shards there are to be.
    pub fn shard_count(&self) -> usize {
        match self.shards {
            Some(shards) => usize::from(shards),
            None => available_parallelism().map_or(1, usize::from),
        }
    }

    /// Binds a UDP socket for each shard, for [`crate::run()`].
    ///
    /// # Errors
    /// [`Error::Config`] when clients could not be told where to send, or the ports do not suffice; [`Error::BindMedia`] when
    /// one cannot be bound.
    pub fn bind_media(&self) -> Result<Vec<UdpSocket>, Error> {
        self.public_ip()?;
        self.tunnel(self.media_bind)?;
        bind_media(self.media_bind, self.shard_count())
    }

    /// The address that clients are told for the shard with this index, which is bound to `local`.
    pub(crate) fn public_media(&self, index: usize, local: SocketAddr) -> Result<SocketAddr, Error> {
        let port = match self.media_port {
            None => local.port(),
            Some(first) => u16::try_from(index)
                .ok()
                .and_then(|index| first.checked_add(index))
                .ok_or_else(|| {
                    Error::Config(format!(
                        "--media-port: the shards do not fit above port {first}; choose a lower one"
                    ))
                })?,
        };
        Ok(SocketAddr::new(self.public_ip()?, port))
    }

    /// The address that other nodes reach the shard at that is bound to `local`; none: the one that clients are told.
    pub(crate) fn tunnel(&self, local: SocketAddr) -> Result<Option<SocketAddr>, Error> {
        let Some(ip) = self.tunnel_ip else {
            return Ok(None);
        };
        let bound = local.ip();
        if ip.is_unspecified() || (!bound.is_unspecified() && bound != ip) || bound.is_ipv4() != ip.is_ipv4() {
            return Err(Error::Config(format!(
                "--tunnel-ip: nothing that is sent to {ip} arrives at {bound}, where --media-bind has the node take media; give an address of this \
                 machine, and bind to it or to all of them ({})",
                if ip.is_ipv4() { "0.0.0.0" } else { "[::]" }
            )));
        }
        Ok(Some(SocketAddr::new(ip, local.port())))
    }

    fn public_ip(&self) -> Result<IpAddr, Error> {
        let (flag, ip) = match self.media_ip {
            Some(ip) => ("--media-ip", ip),
            None => ("--media-bind", self.media_bind.ip()),
        };
        if !ip.is_unspecified() {
            return Ok(ip);
        }
        Err(Error::Config(format!(
            "{flag}: clients cannot send media to {ip}; give the address that they reach this machine at with --media-ip"
        )))
    }

    /// The URL that gateways are told, given where the control listener is bound.
    pub(crate) fn public_control(&self, local: SocketAddr) -> Result<String, Error> {
        match &self.control_url {
            Some(url) if url.starts_with("ws://") => Ok(url.trim_end_matches('/').to_owned()),
            Some(_) => Err(Error::Config(
                "--control-url: must begin with ws://, such as ws://10.0.0.7:7900".to_owned(),
            )),
            None if local.ip().is_unspecified() => Err(Error::Config(format!(
                "--control-listen: gateways cannot connect to {}; say with --control-url how they reach this machine",
                local.ip()
            ))),
            None => Ok(format!("ws://{local}")),
        }
    }

    /// The orchestrators, in the order in which they are tried.
    pub(crate) fn orchestrators(&self) -> Result<Vec<reqwest::Url>, Error> {
        if self.orchestrator.is_empty() {
            return Err(Error::Config("--orchestrator: give at least one URL".to_owned()));
        }
        self.orchestrator
            .iter()
            .map(|text| {
                let url = reqwest::Url::parse(text.trim()).ok();
                url.filter(|url| url.scheme() == "http" && url.has_host())
                    .ok_or_else(|| {
                        Error::Config("--orchestrator: must be an URL such as http://127.0.0.1:7890".to_owned())
                    })
            })
            .collect()
    }

    /// What rooms can be placed by. Of a key that is given twice, the last value counts.
    pub(crate) fn labels(&self) -> Result<BTreeMap<String, String>, Error> {
        let labels: BTreeMap<_, _> = self.label.iter().cloned().collect();
        if labels.len() > MAX_LABELS {
            return Err(Error::Config(format!(
                "--label: a node can have {MAX_LABELS} labels at most, and not {}",
                labels.len()
            )));
        }
        Ok(labels)
    }

    /// How many participants a node of this many shards takes.
    pub(crate) fn capacity(&self, shards: usize) -> u32 {
        self.capacity.unwrap_or_else(|| {
            u32::try_from(shards)
                .unwrap_or(u32::MAX)
                .saturating_mul(DEFAULT_CAPACITY_PER_SHARD)
        })
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((parse_text(key.trim())?, parse_text(value.trim())?)),
        _ => Err("a label has the form key=value".to_owned()),
    }
}

fn parse_text(text: &str) -> Result<String, String> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(format!("must be at most {MAX_TEXT_BYTES} bytes long"));
    }
    if text.chars().any(char::is_control) {
        return Err("must hold printable characters only".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 1_000.0 => Ok(rate),
        _ => Err("must be a number of rooms per second, more than 0 and at most 1000".to_owned()),
    }
}

fn track_parser() -> impl TypedValueParser<Value = Track> {
    PossibleValuesParser::new(["stable", "canary"]).map(|name| match name.as_str() {
        "canary" => Track::Canary,
        _ => Track::Stable,
    })
}

/// Parses secrets; unlike clap's own parsers it does not repeat bad ones in the error.
#[derive(Clone)]
struct SecretsParser;

impl TypedValueParser for SecretsParser {
    type Value = Secrets;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Secrets, clap::Error> {
        let refuse = |why: String| {
            clap::Error::raw(ErrorKind::ValueValidation, format!("--cluster-secret: {why}\n")).with_cmd(command)
        };
        let text = value
            .to_str()
            .ok_or_else(|| refuse("must be text (UTF-8)".to_owned()))?;
        text.parse().map_err(|why| refuse(format!("{why}")))
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    fn config(arguments: &[&str]) -> Result<Config, clap::Error> {
        let all = ["signalbox-media", "--cluster-secret", "0123456789abcdef"];
        Config::try_parse_from(all.iter().chain(arguments))
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Config::command().debug_assert();
        let config = config(&[]).unwrap();
        assert_eq!(config.control_listen.to_string(), "127.0.0.1:7900");
        assert_eq!(config.media_bind.to_string(), "127.0.0.1:50000");
        assert!(config.shard_count() >= 1);
        assert_eq!(config.orchestrators().unwrap().len(), 1);
    }

    #[test]
    fn a_drain_has_a_rate_that_can_be() {
        assert_eq!(config(&["--drain-rate=0.5"]).unwrap().drain_rate, Some(0.5));
        for wrong in ["0", "-1", "inf", "NaN", "1001", "x"] {
            assert!(config(&["--drain-rate", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn several_orchestrators_and_labels_are_separated_by_commas_or_repeated() {
        let config = config(&[
            "--orchestrator=http://a:1,http://b:2",
            "--orchestrator=http://c:3",
            "--label=disk=fast,gpu=",
        ])
        .unwrap();
        assert_eq!(config.orchestrators().unwrap().len(), 3);
        assert_eq!(config.labels().unwrap().len(), 2);
        assert!(self::config(&["--label", "disk"]).is_err());
    }

    #[test]
    fn labels_over_the_limit_are_refused_with_a_sentence() {
        let labels = |count: usize| {
            let labels: Vec<String> = (0..count).map(|index| format!("key{index}=value")).collect();
            config(&["--label", &labels.join(",")]).unwrap().labels()
        };
        assert_eq!(labels(MAX_LABELS).unwrap().len(), MAX_LABELS);
        let error = labels(MAX_LABELS + 1).unwrap_err();
        assert!(matches!(error, Error::Config(_)));
        assert!(error.to_string().contains("64 labels at most"), "{error}");

        let long = "x".repeat(MAX_TEXT_BYTES + 1);
        for arguments in [
            ["--label", &format!("disk={long}")],
            ["--label", &format!("{long}=fast")],
            ["--label", "disk=a\u{7}"],
            ["--region", &long],
            ["--zone", &long],
        ] {
            let error = config(&arguments).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(" must "), "{error}");
        }
    }

    #[test]
    fn a_track_that_does_not_exist_is_refused_with_those_that_do() {
        assert_eq!(config(&[]).unwrap().track, Track::Stable);
        assert_eq!(config(&["--track=canary"]).unwrap().track, Track::Canary);
        let error = config(&["--track=nightly"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("stable, canary"), "{error}");
    }

    #[test]
    fn the_limits_default_to_those_of_the_core() {
        let (config, core) = (config(&[]).unwrap(), signalbox_sfu::Limits::default());
        assert_eq!(config.max_publish_bitrate, core.publish_bps);
        assert_eq!(usize::from(config.max_tracks), core.tracks_per_participant);
        assert_eq!(u64::from(config.max_packets_per_second), core.packets_per_second);
        assert_eq!(usize::from(config.loudest_audio), core.loudest_audio);
        assert!(self::config(&["--max-tracks=0"]).is_err());
        assert_eq!(self::config(&["--loudest-audio=0"]).unwrap().loudest_audio, 0);
    }

    #[test]
    fn several_secrets_are_accepted_while_they_are_changed() {
        let secrets = "0123456789abcdef,fedcba9876543210";
        let config = Config::try_parse_from(["signalbox-media", "--cluster-secret", secrets]).unwrap();
        assert_eq!(config.cluster_secret.accepted().len(), 2);
        assert_eq!(config.cluster_secret.current().expose(), "0123456789abcdef");
    }

    #[test]
    fn an_address_that_nobody_can_send_to_is_refused() {
        for arguments in [
            &["--media-bind=0.0.0.0:0"][..],
            &["--media-ip=0.0.0.0"],
            &["--media-bind=[::]:0"],
        ] {
            let error = config(arguments).unwrap().bind_media().unwrap_err().to_string();
            assert!(error.contains("--media-ip"), "{error}");
        }
        let config = config(&[
            "--media-bind=0.0.0.0:50000",
            "--media-ip=192.0.2.1",
            "--media-port=6000",
        ])
        .unwrap();
        let local = config.media_bind;
        assert_eq!(config.public_media(2, local).unwrap().to_string(), "192.0.2.1:6002");
    }

    #[test]
    fn nodes_are_told_an_address_of_their_own_if_there_is_one() {
        let local: SocketAddr = "0.0.0.0:50001".parse().unwrap();
        assert_eq!(config(&[]).unwrap().tunnel(local).unwrap(), None);
        let given = config(&[
            "--media-bind=0.0.0.0:50000",
            "--media-ip=192.0.2.1",
            "--tunnel-ip=10.0.0.7",
        ])
        .unwrap();
        assert_eq!(given.tunnel(local).unwrap(), Some("10.0.0.7:50001".parse().unwrap()));
        for arguments in [
            &["--media-bind=192.0.2.1:0", "--tunnel-ip=10.0.0.7"][..],
            &["--tunnel-ip=0.0.0.0"],
            &["--media-bind=0.0.0.0:0", "--media-ip=192.0.2.1", "--tunnel-ip=fd00::7"],
        ] {
            let error = config(arguments).unwrap().bind_media().unwrap_err().to_string();
            assert!(error.contains("--tunnel-ip"), "{error}");
        }
    }

    #[test]
    fn gateways_are_told_where_the_node_listens() {
        let local: SocketAddr = "127.0.0.1:7".parse().unwrap();
        let any: SocketAddr = "0.0.0.0:7".parse().unwrap();
        assert_eq!(config(&[]).unwrap().public_control(local).unwrap(), "ws://127.0.0.1:7");
        assert!(config(&[]).unwrap().public_control(any).is_err());
        let given = config(&["--control-url=ws://node-a:7900/"]).unwrap();
        assert_eq!(given.public_control(any).unwrap(), "ws://node-a:7900");
        assert!(config(&["--control-url=node-a"]).unwrap().public_control(any).is_err());
    }

    #[test]
    fn a_bad_orchestrator_is_refused() {
        for url in ["127.0.0.1:7890", "ftp://a", "https://a", ""] {
            assert!(
                config(&["--orchestrator", url]).unwrap().orchestrators().is_err(),
                "{url}"
            );
        }
    }

    #[test]
    fn a_secret_that_is_too_short_is_not_repeated() {
        let error = Config::try_parse_from(["signalbox-media", "--cluster-secret", "swordfish"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(text.contains("at least 16 bytes"), "{text}");
        assert!(!text.contains("swordfish"), "{text}");
    }
}
