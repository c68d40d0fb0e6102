//! The settings of affinity: flags and environment.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::str::FromStr;

use reqwest::Url;

/// The most gateways.
const MAX_PEERS: usize = 64;

/// The longest name of a gateway.
const MAX_NAME_BYTES: usize = 32;

/// Which gateway serves whom.
#[derive(Debug, Clone, clap::Args)]
pub struct AffinityConfig {
    /// This gateway's name among its peers: letters, digits and hyphens.
    #[arg(long, env = "SIGNALBOX_GATEWAY_NAME", value_name = "NAME")]
    pub gateway_name: Option<String>,

    /// All gateways and the URLs of their `--peer-listen`, as `a=http://10.0.0.1:7883,b=http://10.0.0.2:7883`. Whoever comes back to one of them is led to
    /// the one that it was at. The same list can be given to all.
    #[arg(long, env = "SIGNALBOX_PEERS", value_delimiter = ',', value_name = "NAME=URL")]
    pub peers: Vec<PeerUrl>,

    /// Address and port for the other gateways. Plain HTTP, for requests that they have signed: keep it off public networks.
    #[arg(long, env = "SIGNALBOX_PEER_LISTEN", value_name = "ADDRESS")]
    pub peer_listen: Option<SocketAddr>,

    /// Who is led to another gateway.
    #[arg(long, env = "SIGNALBOX_STICKY", value_enum, default_value_t, value_name = "WHOM")]
    pub sticky: Sticky,
}

/// Who is led to another gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Sticky {
    /// Who goes on with a session of a gateway that its cookie names.
    #[default]
    Resumes,
    /// Each user to one gateway: the one that its cookie names, or else one by its identity.
    Users,
}

/// A gateway, and where it listens for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerUrl {
    /// Its name.
    pub name: String,
    /// Without path and query.
    pub url: Url,
}

impl FromStr for PeerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, url) = text
            .split_once('=')
            .ok_or("it must be a name and a URL with a `=` between them, like a=http://10.0.0.1:7883")?;
        check_name(name)?;
        let url: Url = url.parse().map_err(|_| format!("what is said of {name} is no URL"))?;
        let is_base = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if url.scheme() != "http" || !is_base || url.has_authority() && !url.username().is_empty() {
            return Err(format!("the URL of {name} must be like http://10.0.0.1:7883"));
        }
        Ok(Self {
            name: name.to_owned(),
            url,
        })
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_fine) {
        return Err(format!(
            "a gateway's name is 1 to {MAX_NAME_BYTES} letters, digits and hyphens"
        ));
    }
    Ok(())
}

impl AffinityConfig {
    /// # Errors
    /// A sentence without its full stop: settings that contradict each other.
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(name) = &self.gateway_name {
            check_name(name).map_err(|reason| format!("--gateway-name: {reason}"))?;
        }
        let names: BTreeSet<&str> = self.peers.iter().map(|peer| peer.name.as_str()).collect();
        if names.len() < self.peers.len() {
            return Err("--peers names a gateway twice".into());
        }
        if names.len() > MAX_PEERS {
            return Err(format!("--peers names more than {MAX_PEERS} gateways"));
        }
        if !self.peers.is_empty() && self.gateway_name.is_none() {
            return Err("--peers needs --gateway-name, by which the others know this gateway".into());
        }
        if !self.peers.is_empty() && self.peer_listen.is_none() {
            return Err("--peers needs --peer-listen, where the others bring this gateway's clients".into());
        }
        if self.peer_listen.is_some() && self.peers.is_empty() {
            return Err("--peer-listen needs --peers, as nobody else may come there".into());
        }
        if self.sticky == Sticky::Users && self.peers.is_empty() {
            return Err("--sticky users needs --peers, among which users are spread".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        affinity: AffinityConfig,
    }

    fn check(flags: &[&str]) -> Result<(), String> {
        let flags = Flags::try_parse_from([&["gateway"], flags].concat()).map_err(|error| error.to_string())?;
        flags.affinity.check()
    }

    #[test]
    fn it_is_off_or_complete() {
        let peers = "--peers=a=http://10.0.0.1:7883,b=http://10.0.0.2:7883";
        let listen = "--peer-listen=127.0.0.1:7883";
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&["--gateway-name=a", peers, listen, "--sticky=users"]), Ok(()));
        for (flags, expected) in [
            (vec![peers, listen], "--gateway-name"),
            (vec![peers, "--gateway-name=a"], "--peer-listen"),
            (vec![listen], "--peers"),
            (vec!["--sticky=users"], "--peers"),
            (vec!["--gateway-name=a b"], "letters"),
            (vec![peers, listen, "--gateway-name=a", "--peers=a=http://x"], "twice"),
            (vec!["--peers=a"], "a name and a URL"),
            (vec!["--peers=a=x"], "no URL"),
            (vec!["--peers=a=https://x"], "must be like"),
            (vec!["--peers=a=http://x/y"], "must be like"),
        ] {
            let error = check(&flags).unwrap_err();
            assert!(error.contains(expected), "{flags:?}: {error}");
        }
    }
}
