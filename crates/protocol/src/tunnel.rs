//! Media node ↔ media node: a client's datagrams, while its room moves from one to the other.
//!
//! A client that is moved in place goes on sending to the node that it is connected with until its ICE has found the next one. Meanwhile its
//! old node passes on what comes from it, and sends to it what the next one has for it, in UDP datagrams of this form:
//!
//! | bytes | |
//! |---|---|
//! | 1 | [`MARK`] |
//! | 16 | the [`Token`] |
//! | 1 | 4 or 6: the family of the client's address |
//! | 4 or 16, and 2 | the client's address and port, in network order |
//! | the rest | the client's datagram, or the one for it; nothing: the next node shows where it is |
//!
//! Nothing in it is secret but the token: what it carries is encrypted between client and node. The token names one connection and
//! is known to the two nodes and to the client's gateway.
//!
//! While some of a room's participants are at one node and some at the other, each node also passes on what it has decrypted of a client's sound, so
//! that those at the other go on hearing it:
//!
//! | bytes | |
//! |---|---|
//! | 1 | [`MARK`] |
//! | 16 | the [`Token`] of the client's connection |
//! | 1 | 0 |
//! | the rest | sealed between the two nodes, with keys that come of the token and of [`Tunnel::password`], which nobody else knows but the client |

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::TrackId;
use crate::control::Target;

/// The first byte. RFC 7983 section 7 leaves it to TURN channels, which no client of ours has.
pub const MARK: u8 = 0x40;

/// How much longer a datagram is in a tunnel, in bytes, at most.
pub const MAX_OVERHEAD: usize = 1 + 16 + 1 + 16 + 2;

/// Names a tunnel. Whoever knows it can take the place of the next node, so that it is never logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(Uuid);

impl Token {
    /// Of bytes that nobody can guess.
    pub fn new(random: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(random))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A connection of a client that is to go on at the next node, and the way there. With it the next node goes on with the connection's ICE
/// session, so that the client stays reachable where it is; all but the ICE session begins anew.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Which connection.
    pub target: Target,
    /// The node that the client sends to.
    pub via: SocketAddr,
    /// Where that node is for other nodes, if they reach it at another address than clients do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrance: Option<SocketAddr>,
    /// Names the tunnel there.
    pub token: Token,
    /// The node's side of the ICE session: its ufrag.
    pub ufrag: String,
    /// Its password.
    pub password: String,
    /// The client's ufrag. A client that has another one by now has begun ICE anew, and the tunnel is of no use.
    pub client_ufrag: String,
    /// How many nodes the ICE session has had before this one. The address of each further one has to look better to the client.
    pub moves: u8,
    /// What the client's network takes from the node, in bits per second, as far as that was measured: it is the same network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate_bps: Option<u64>,
    /// The sound that the client receives on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sounds: Vec<SoundStream>,
}

/// A stream of sound that a client receives. Whoever goes on with its numbers spares the client a new stream, and with it what fills that stream's buffer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoundStream {
    /// The m-line.
    pub mid: String,
    /// What it carries.
    pub track: TrackId,
    /// Its SSRC.
    pub ssrc: u32,
    /// What is added to the publisher's sequence numbers, modulo 2¹⁶.
    pub sequence_offset: u16,
    /// What is added to its timestamps, modulo 2³².
    pub timestamp_offset: u32,
}

impl Tunnel {
    /// Where the next node sends what is for the client.
    pub fn entrance(&self) -> SocketAddr {
        self.entrance.unwrap_or(self.via)
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// What a tunnel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunneled<'a> {
    /// Which tunnel.
    pub token: Token,
    /// Where the client is.
    pub client: SocketAddr,
    /// Its datagram, or the one for it.
    pub datagram: &'a [u8],
}

impl<'a> Tunneled<'a> {
    /// Reads a datagram. None: it is of another kind, or cut short.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let rest = datagram.strip_prefix(&[MARK])?;
        let (token, rest) = rest.split_first_chunk::<16>()?;
        let (family, rest) = rest.split_first()?;
        let (ip, rest) = match family {
            4 => {
                let (ip, rest) = rest.split_first_chunk::<4>()?;
                (IpAddr::V4(Ipv4Addr::from(*ip)), rest)
            }
            6 => {
                let (ip, rest) = rest.split_first_chunk::<16>()?;
                (IpAddr::V6(Ipv6Addr::from(*ip)), rest)
            }
            _ => return None,
        };
        let (port, datagram) = rest.split_first_chunk::<2>()?;
        Some(Self {
            token: Token::new(*token),
            client: SocketAddr::new(ip, u16::from_be_bytes(*port)),
            datagram,
        })
    }

    /// The datagram that carries it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAX_OVERHEAD + self.datagram.len());
        bytes.push(MARK);
        bytes.extend_from_slice(self.token.0.as_bytes());
        match self.client.ip() {
            IpAddr::V4(ip) => {
                bytes.push(4);
                bytes.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                bytes.push(6);
                bytes.extend_from_slice(&ip.octets());
            }
        }
        bytes.extend_from_slice(&self.client.port().to_be_bytes());
        bytes.extend_from_slice(self.datagram);
        bytes
    }
}

/// Sound that one node has and the other needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bridged<'a> {
    /// Whose: the tunnel of the connection that it came on.
    pub token: Token,
    /// What only the two nodes can read.
    pub sealed: &'a [u8],
}

impl<'a> Bridged<'a> {
    /// Reads a datagram. None: it is of another kind, or cut short.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        let rest = datagram.strip_prefix(&[MARK])?;
        let (token, rest) = rest.split_first_chunk::<16>()?;
        Some(Self {
            token: Token::new(*token),
            sealed: rest.strip_prefix(&[0])?,
        })
    }

    /// The datagram that carries it.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&[MARK], self.token.as_bytes(), &[0], self.sealed].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_comes_out_as_it_went_in_and_no_truncation_is_read() {
        for client in ["192.0.2.1:5000", "[2001:db8::1]:6000"] {
            let sent = Tunneled {
                token: Token::new([7; 16]),
                client: client.parse().unwrap(),
                datagram: b"media",
            };
            let bytes = sent.to_bytes();
            assert_eq!(Tunneled::parse(&bytes), Some(sent));
            let head = bytes.len() - sent.datagram.len();
            assert!(head <= MAX_OVERHEAD);
            for length in 0..head {
                assert_eq!(Tunneled::parse(&bytes[..length]), None, "{length} bytes");
            }
        }
    }

    #[test]
    fn sound_is_told_from_a_clients_datagrams() {
        let sent = Bridged {
            token: Token::new([7; 16]),
            sealed: b"sound",
        };
        let bytes = sent.to_bytes();
        assert_eq!((Bridged::parse(&bytes), Tunneled::parse(&bytes)), (Some(sent), None));
        for length in 0..bytes.len() - sent.sealed.len() {
            assert_eq!(Bridged::parse(&bytes[..length]), None, "{length} bytes");
        }
        let client = Tunneled {
            token: Token::new([7; 16]),
            client: "192.0.2.1:5000".parse().unwrap(),
            datagram: b"media",
        };
        assert_eq!(Bridged::parse(&client.to_bytes()), None);
    }

    #[test]
    fn other_datagrams_are_not_read() {
        let mut bytes = vec![MARK; 60];
        assert_eq!(Tunneled::parse(&bytes), None);
        bytes[17] = 4;
        assert!(Tunneled::parse(&bytes).is_some());
        bytes[0] = 0x80;
        assert_eq!(Tunneled::parse(&bytes), None);
    }

    #[test]
    fn a_tunnel_keeps_its_json_and_hides_its_secrets() {
        let tunnel = Tunnel {
            target: Target::Publisher,
            via: "192.0.2.1:5000".parse().unwrap(),
            entrance: None,
            token: Token::new([0x11; 16]),
            ufrag: "node".into(),
            password: "password-of-the-node".into(),
            client_ufrag: "client".into(),
            moves: 2,
            estimate_bps: Some(3_000_000),
            sounds: Vec::new(),
        };
        let json = r#"{"target":"publisher","via":"192.0.2.1:5000","token":"11111111-1111-1111-1111-111111111111","ufrag":"node","password":"password-of-the-node","client_ufrag":"client","moves":2,"estimate_bps":3000000}"#;
        assert_eq!(serde_json::to_string(&tunnel).unwrap(), json);
        assert_eq!(serde_json::from_str::<Tunnel>(json).unwrap(), tunnel);
        assert_eq!(
            format!("{tunnel:?} {:?}", tunnel.token),
            "Tunnel { target: Publisher, .. } Token(…)"
        );
    }
}
