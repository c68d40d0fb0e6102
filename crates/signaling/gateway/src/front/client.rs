//! Which address a request is from: that of its connection, or what a trusted proxy says in front of it.
//!
//! `X-Forwarded-For` and `Forwarded` (RFC 7239) are lists that each proxy appends to, and whoever asks may begin them as it likes. So they are read from right to
//! left, as far as whoever has appended is trusted, and only the one that the proxies are configured to write.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::header::FORWARDED;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use crate::state::State;

/// How many entries are looked at. Higher: longer chains of proxies are seen through. Lower: less work for each request.
const MAX_HOPS: usize = 16;

/// The header that proxies write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For: client, proxy`.
    #[default]
    XForwardedFor,
    /// `Forwarded: for=client, for=proxy` (RFC 7239).
    Forwarded,
}

/// The other end of a connection, as the balancer in front of it says, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// Whose word counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust {
    /// The networks of proxies and balancers.
    pub(crate) networks: Vec<IpNet>,
    /// The header that they write.
    pub(crate) header: ForwardedHeader,
}

impl Trust {
    /// Whether a proxy or balancer of ours is there.
    pub(crate) fn covers(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Who has asked.
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if self.networks.is_empty() {
            return client;
        }
        let name = match self.header {
            ForwardedHeader::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
            ForwardedHeader::Forwarded => FORWARDED,
        };
        let lines = headers.get_all(name).into_iter().rev();
        // What is no text, as what is no address, was not written by a proxy of ours.
        let elements = lines.flat_map(|line| elements(line.to_str().unwrap_or("unreadable")));
        for element in elements.take(MAX_HOPS) {
            if !self.covers(client) {
                break;
            }
            let said = match self.header {
                ForwardedHeader::XForwardedFor => address(element),
                ForwardedHeader::Forwarded => forwarded_for(element).and_then(address),
            };
            let Some(said) = said else {
                break;
            };
            client = said;
        }
        client
    }
}

/// The elements of a list, the last first. A comma may be in a quoted string.
fn elements(line: &str) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    let mut parts: Vec<&str> = line
        .split(move |character| {
            is_quoted ^= character == '"';
            character == ',' && !is_quoted
        })
        .map(str::trim)
        .collect();
    parts.reverse();
    parts.into_iter()
}

/// The value of `for` of a `Forwarded` element.
fn forwarded_for(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then(|| value.trim_matches('"'))
    })
}

/// An address with or without a port; an IPv6 address that has one, and any in `Forwarded`, is in brackets. None: "unknown", or a name that hides it.
fn address(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok();
    let found = IpAddr::from_str(text)
        .ok()
        .or_else(bare)
        .or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    found.map(|address| address.to_canonical())
}

/// The address that a request is from. Never to be logged as it is: see [`ClientAddress::redacted`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// Without what tells one subscriber from another: the last 8 bits of IPv4, all but the first 48 of IPv6.
    pub fn redacted(self) -> IpNet {
        let length = if self.0.is_ipv4() { 24 } else { 48 };
        IpNet::new_assert(self.0, length).trunc()
    }

    /// Of a request.
    pub(crate) fn of(state: &State, parts: &Parts) -> Self {
        let peer = parts.extensions.get::<Peer>();
        let peer = peer.map_or(IpAddr::from([0, 0, 0, 0]), |Peer(address)| address.ip());
        Self(state.trust().client(peer, &parts.headers))
    }
}

impl std::fmt::Debug for ClientAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.redacted().fmt(f)
    }
}

impl FromRequestParts<State> for ClientAddress {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Self::Rejection> {
        Ok(Self::of(state, parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "10.0.0.7";

    fn client(header: ForwardedHeader, peer: &str, lines: &[&str]) -> String {
        let trust = Trust {
            networks: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8:1::/48".parse().unwrap()],
            header,
        };
        let mut headers = HeaderMap::new();
        for line in lines {
            let name = match header {
                ForwardedHeader::XForwardedFor => "x-forwarded-for",
                ForwardedHeader::Forwarded => "forwarded",
            };
            headers.append(name, line.parse().unwrap());
        }
        trust.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn what_a_proxy_has_appended_counts_and_what_was_there_before_does_not() {
        let of = |peer, lines: &[&str]| client(ForwardedHeader::XForwardedFor, peer, lines);
        assert_eq!(of(PROXY, &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(of(PROXY, &["203.0.113.66, 192.0.2.1"]), "192.0.2.1", "forged");
        assert_eq!(
            of(PROXY, &["203.0.113.66", "192.0.2.1"]),
            "192.0.2.1",
            "in a line of its own"
        );
        assert_eq!(
            of(PROXY, &["203.0.113.66, 192.0.2.1, 10.3.4.5"]),
            "192.0.2.1",
            "two proxies"
        );
        assert_eq!(
            of(PROXY, &["10.0.0.1, 192.0.2.1"]),
            "192.0.2.1",
            "forged as if by a proxy"
        );
        assert_eq!(of("::ffff:10.0.0.7", &["192.0.2.1:51234"]), "192.0.2.1");
        assert_eq!(of("2001:db8:1::7", &["2001:db8:2::1"]), "2001:db8:2::1");
        assert_eq!(of(PROXY, &["[2001:db8:2::1]:443"]), "2001:db8:2::1");
        assert_eq!(of(PROXY, &[]), PROXY);
    }

    #[test]
    fn nobody_else_is_believed() {
        let of = |peer, lines: &[&str]| client(ForwardedHeader::XForwardedFor, peer, lines);
        assert_eq!(of("192.0.2.9", &["192.0.2.1"]), "192.0.2.9");
        assert_eq!(of(PROXY, &["192.0.2.1, unknown"]), PROXY);
        assert_eq!(of(PROXY, &["192.0.2.1, 10.3.4.5, , 10.3.4.6"]), "10.3.4.6");
        let long = vec!["10.0.0.1"; 10_000].join(", ");
        assert_eq!(of(PROXY, &[&format!("192.0.2.1, {long}")]), "10.0.0.1");
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_says() {
        let of = |lines: &[&str]| client(ForwardedHeader::Forwarded, PROXY, lines);
        assert_eq!(of(&["for=192.0.2.1;proto=https;by=10.0.0.7"]), "192.0.2.1");
        assert_eq!(of(&[r#"For="[2001:db8:cafe::17]:4711""#]), "2001:db8:cafe::17");
        assert_eq!(of(&[r#"for=203.0.113.66, proto=http;for="192.0.2.1:80""#]), "192.0.2.1");
        assert_eq!(of(&[r#"for=192.0.2.1, for="_secret, for=203.0.113.66""#]), PROXY);
        assert_eq!(of(&["for=192.0.2.1, by=10.0.0.7"]), PROXY);
    }

    #[test]
    fn a_log_does_not_tell_who_it_is() {
        let shown = |address: &str| format!("{:?}", ClientAddress(address.parse().unwrap()));
        assert_eq!(shown("192.0.2.77"), "192.0.2.0/24");
        assert_eq!(shown("2001:db8:1:2:3::4"), "2001:db8:1::/48");
    }
}
