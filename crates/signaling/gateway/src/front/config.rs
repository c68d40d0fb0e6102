//! The settings of the front door: flags and environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use axum::http::HeaderValue;
use ipnet::IpNet;

use super::acme::AcmeFlags;
use super::certificates::Files;
use super::client::{ForwardedHeader, Trust};
use super::tls::Tls;

/// How clients' connections are taken.
#[derive(Debug, Clone, clap::Args)]
pub struct FrontConfig {
    /// Files with certificates for TLS, in PEM, each with the server's own first and then those that lead to its authority; several, for several names,
    /// are separated by commas, and the first is for whoever asks for none of them. They are read again when they change, or at a SIGHUP.
    #[arg(long, env = "SIGNALBOX_TLS_CERTIFICATE", value_delimiter = ',', value_name = "FILE")]
    pub tls_certificate: Vec<PathBuf>,

    /// The certificates' keys, in PEM, in the same order.
    #[arg(long, env = "SIGNALBOX_TLS_KEY", value_delimiter = ',', value_name = "FILE")]
    pub tls_key: Vec<PathBuf>,

    /// Whether an authority gives them instead.
    #[command(flatten)]
    pub acme: AcmeFlags,

    /// Take plain HTTP from other machines, as behind a balancer that ends TLS. Without it, and without a certificate, only this machine is served.
    #[arg(long, env = "SIGNALBOX_PLAIN_HTTP")]
    pub plain_http: bool,

    /// Address and port for plain HTTP whose clients are sent to where TLS is.
    #[arg(long, env = "SIGNALBOX_REDIRECT_LISTEN", value_name = "ADDRESS")]
    pub redirect_listen: Option<SocketAddr>,

    /// The port that they are sent to, if clients see another one than that of `--listen`.
    #[arg(long, env = "SIGNALBOX_REDIRECT_PORT", value_name = "PORT")]
    pub redirect_port: Option<u16>,

    /// For how long browsers that were here over TLS never ask without it, in seconds (RFC 6797); 0: they may.
    #[arg(
        long,
        env = "SIGNALBOX_HSTS_SECONDS",
        default_value_t = 180 * 24 * 3600,
        value_name = "SECONDS"
    )]
    pub hsts_seconds: u64,

    /// The networks of proxies and balancers in front of the gateway, such as `10.0.0.0/8`, separated by commas. What they say of whom a request is from is
    /// believed, and what anybody else says is not.
    #[arg(
        long,
        env = "SIGNALBOX_TRUSTED_PROXIES",
        value_delimiter = ',',
        value_name = "NETWORK"
    )]
    pub trusted_proxies: Vec<IpNet>,

    /// The header in which they say it.
    #[arg(
        long,
        env = "SIGNALBOX_FORWARDED_HEADER",
        value_enum,
        default_value_t = ForwardedHeader::XForwardedFor,
        value_name = "HEADER"
    )]
    pub forwarded_header: ForwardedHeader,

    /// Connections from them begin with a PROXY header, version 1 or 2, as HAProxy's `send-proxy` and others' balancers write it.
    #[arg(long, env = "SIGNALBOX_PROXY_PROTOCOL")]
    pub proxy_protocol: bool,

    /// How many client connections may be open at once; what is over is answered with 503 and closed.
    #[arg(
        long,
        env = "SIGNALBOX_MAX_CONNECTIONS",
        default_value_t = 20_000,
        value_name = "COUNT"
    )]
    pub max_connections: usize,

    /// How many of them from one IPv4 address, or one network of IPv6 of 64 bits. Many people may share one.
    #[arg(
        long,
        env = "SIGNALBOX_MAX_CONNECTIONS_PER_ADDRESS",
        default_value_t = 5_000,
        value_name = "COUNT"
    )]
    pub max_connections_per_address: usize,
}

impl FrontConfig {
    /// Whether it may listen there.
    ///
    /// # Errors
    /// A sentence without its full stop: settings that contradict each other.
    pub(crate) fn check(&self, listen: SocketAddr) -> Result<(), String> {
        if self.tls_certificate.len() != self.tls_key.len() {
            return Err("--tls-certificate and --tls-key must name as many files each".into());
        }
        self.acme.check()?;
        if !self.tls_certificate.is_empty() && self.acme.is_used() {
            return Err("--tls-certificate and --acme-domain cannot both say where certificates are from".into());
        }
        let is_plain = !self.has_tls();
        if is_plain && self.redirect_listen.is_some() {
            return Err(
                "--redirect-listen needs --tls-certificate or --acme-domain, as there is nothing to send clients to"
                    .into(),
            );
        }
        if is_plain && !self.plain_http && !listen.ip().is_loopback() {
            return Err(format!(
                "--listen {listen} is open to other machines, so give it a certificate with --tls-certificate and --tls-key, or say --plain-http if TLS ends in front of it"
            ));
        }
        if self.proxy_protocol && self.trusted_proxies.is_empty() {
            return Err(
                "--proxy-protocol needs --trusted-proxies, to know who may say whom a connection is from".into(),
            );
        }
        Ok(())
    }

    fn has_tls(&self) -> bool {
        !self.tls_certificate.is_empty() || self.acme.is_used()
    }

    /// What ends TLS, if there is any.
    ///
    /// # Errors
    /// A sentence without its full stop: a file that cannot be used.
    pub(crate) fn tls(&self) -> Result<Option<Tls>, String> {
        let pairs = self.tls_certificate.iter().zip(&self.tls_key);
        if self.acme.is_used() {
            return Tls::from_authority(&self.acme).map(Some);
        }
        let files: Vec<Files> = pairs
            .map(|(chain, key)| Files {
                chain: chain.clone(),
                key: key.clone(),
            })
            .collect();
        if files.is_empty() {
            return Ok(None);
        }
        Tls::new(files).map(Some).map_err(|error| error.to_string())
    }

    /// What browsers are told, if TLS is all that there is (RFC 6797 section 7.2: never without it).
    pub(crate) fn hsts(&self) -> Option<HeaderValue> {
        let is_told = self.has_tls() && self.hsts_seconds > 0;
        let policy = || HeaderValue::try_from(format!("max-age={}", self.hsts_seconds)).ok();
        is_told.then(policy).flatten()
    }

    /// Whose word counts for a request.
    pub(crate) fn trust(&self) -> Trust {
        Trust {
            networks: self.trusted_proxies.clone(),
            header: self.forwarded_header,
        }
    }

    /// Whose connections begin with a PROXY header.
    pub(crate) fn balancers(&self) -> Trust {
        match self.proxy_protocol {
            true => self.trust(),
            false => Trust::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Settings {
        #[command(flatten)]
        front: FrontConfig,
    }

    fn check(listen: &str, flags: &[&str]) -> Result<(), String> {
        let settings = Settings::try_parse_from(["gateway"].iter().chain(flags)).unwrap();
        settings.front.check(listen.parse().unwrap())
    }

    #[test]
    fn only_this_machine_is_served_without_tls_unless_it_is_said() {
        assert_eq!(check("127.0.0.1:7880", &[]), Ok(()));
        assert_eq!(check("[::1]:7880", &[]), Ok(()));
        for open in ["0.0.0.0:7880", "192.0.2.1:443", "[::]:443"] {
            assert!(check(open, &[]).unwrap_err().contains("--plain-http"));
            assert_eq!(check(open, &["--plain-http"]), Ok(()));
            assert_eq!(check(open, &["--tls-certificate=a", "--tls-key=b"]), Ok(()));
        }
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        for (flags, named) in [
            (["--tls-certificate=a,b", "--tls-key=a"].as_slice(), "--tls-key"),
            (&["--tls-key=a"], "--tls-certificate"),
            (&["--redirect-listen=127.0.0.1:80"], "--tls-certificate"),
            (&["--proxy-protocol"], "--trusted-proxies"),
            (&["--acme-domain=a.example"], "--acme-cache"),
            (&["--acme-cache=x"], "--acme-domain"),
            (&["--acme-domain=*.a.example", "--acme-cache=x"], "name hosts"),
            (&["--acme-domain=192.0.2.1", "--acme-cache=x"], "name hosts"),
            (
                &["--acme-domain=a.example", "--acme-cache=x", "--acme-directory=http://b"],
                "https",
            ),
            (
                &[
                    "--acme-domain=a.example",
                    "--acme-cache=x",
                    "--tls-certificate=a",
                    "--tls-key=b",
                ],
                "cannot both",
            ),
        ] {
            assert!(check("127.0.0.1:7880", flags).unwrap_err().contains(named));
        }
    }

    #[test]
    fn networks_are_read_when_the_gateway_starts() {
        let parsed = Settings::try_parse_from(["gateway", "--trusted-proxies=10.0.0.0/8,2001:db8::/32"]);
        assert_eq!(parsed.unwrap().front.trusted_proxies.len(), 2);
        assert!(Settings::try_parse_from(["gateway", "--trusted-proxies=10.0.0.0/33"]).is_err());
    }
}
