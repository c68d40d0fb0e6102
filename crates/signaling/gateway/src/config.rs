//! The gateway's settings: flags and environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use signalbox_protocol::Secrets;

use crate::access::ApiKey;
use crate::affinity::config::AffinityConfig;
use crate::cors::CorsOrigin;
use crate::front::config::FrontConfig;
use crate::limits::config::LimitsConfig;
use crate::observe::config::ObserveConfig;
use crate::whip::ice_server::IceServer;

/// The signaling tier: takes clients over HTTP and WebSocket, checks their tokens and leads each to the media node of its room.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "signalbox-gateway", version)]
pub struct Config {
    /// Address and port for clients: the API, the LiveKit protocol and the page.
    #[arg(
        long,
        env = "SIGNALBOX_LISTEN",
        default_value = "127.0.0.1:7880",
        value_name = "ADDRESS"
    )]
    pub listen: SocketAddr,

    /// Address and port for operators: `/metrics`, `/livez` and `/readyz`. Keep it off public networks.
    #[arg(
        long,
        env = "SIGNALBOX_ADMIN_LISTEN",
        default_value = "127.0.0.1:7882",
        value_name = "ADDRESS"
    )]
    pub admin_listen: SocketAddr,

    /// The orchestrators' URLs, separated by commas. Requests are spread over them; one that fails is asked again only now and then.
    #[arg(
        long,
        env = "SIGNALBOX_ORCHESTRATOR",
        default_value = "http://127.0.0.1:7890",
        value_delimiter = ',',
        value_name = "URL"
    )]
    pub orchestrator: Vec<reqwest::Url>,

    /// The secret that all processes of the cluster share, at least 16 bytes. While it is being changed, the old and the new one with a
    /// comma between them: the first is used.
    #[arg(
        long,
        env = "SIGNALBOX_CLUSTER_SECRET",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    pub cluster_secret: Secrets,

    /// The API keys whose tokens are accepted, as `id:secret`, separated by commas; each secret has at least 16 bytes.
    #[arg(
        long,
        env = "SIGNALBOX_KEYS",
        hide_env_values = true,
        required = true,
        value_delimiter = ',',
        value_name = "ID:SECRET"
    )]
    pub keys: Vec<ApiKey>,

    /// Give a token to everyone who asks at `/v1/guest-tokens`, signed with the first key. For demonstrations.
    #[arg(long, env = "SIGNALBOX_GUESTS")]
    pub guests: bool,

    /// STUN and TURN servers that WHIP and WHEP clients are told of, as `stun:host:port` or
    /// `turn:host:port?transport=udp;username=…;credential=…`, separated by commas. The node itself needs none: its address is public.
    #[arg(
        long,
        env = "SIGNALBOX_ICE_SERVER",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "URL"
    )]
    pub ice_server: Vec<IceServer>,

    /// Send WHIP and WHEP clients to the gateway at this URL with a 307, path and query as they came. Clients that follow to another
    /// origin may drop the `Authorization` header; `?access_token=` stays.
    #[arg(long, env = "SIGNALBOX_REDIRECT_WHIP_TO", value_name = "URL")]
    pub redirect_whip_to: Option<reqwest::Url>,

    /// The origins whose pages may call the API from a browser, such as `https://app.example.com`, separated by commas; `*`: all, since it takes
    /// a token in any case; `none`: none but the gateway's own.
    #[arg(
        long,
        env = "SIGNALBOX_CORS_ORIGIN",
        default_value = "*",
        value_delimiter = ',',
        value_name = "ORIGIN"
    )]
    pub cors_origin: Vec<CorsOrigin>,

    /// A file with the rules by which requests are routed (TOML). It is read again when it changes, or at a SIGHUP.
    #[arg(long, env = "SIGNALBOX_RULES", value_name = "FILE")]
    pub rules: Option<PathBuf>,

    /// Check the settings and the files that they name, say what is wrong with them, and end.
    #[arg(long)]
    pub check: bool,

    /// How much may be asked.
    #[command(flatten)]
    pub limits: LimitsConfig,

    /// What is written of requests.
    #[command(flatten)]
    pub observe: ObserveConfig,

    /// How clients' connections are taken.
    #[command(flatten)]
    pub front: FrontConfig,

    /// Which gateway serves whom.
    #[command(flatten)]
    pub affinity: AffinityConfig,

    /// How long the shutdown takes at most, in seconds. In the first half of it WebSockets and event streams are told, at random moments, to
    /// come back at another gateway; requests and sockets that are left at its end are cut off.
    #[arg(long, env = "SIGNALBOX_DRAIN_SECONDS", default_value_t = 10, value_name = "SECONDS")]
    pub drain_seconds: u64,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Config::command().debug_assert();
    }

    #[test]
    fn a_secret_and_a_key_are_enough() {
        let config = Config::try_parse_from([
            "signalbox-gateway",
            "--cluster-secret",
            "0123456789abcdef",
            "--keys",
            "a:0123456789abcdef,b:0123456789abcdeg",
        ])
        .unwrap();
        assert_eq!(config.keys.len(), 2);
        assert_eq!(config.listen.port(), 7880);
        assert!(!config.guests);
        assert!(!format!("{config:?}").contains("0123456789"));
    }
}
