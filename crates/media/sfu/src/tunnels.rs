//! Connections whose clients go on sending here while their room is at another node already: what comes from them is passed on to that node, and what
//! comes from it to them (see [`signalbox_protocol::tunnel`]).
//!
//! As long as the connection is served here as well, its datagrams go both ways; each side takes what it has the keys for. After that the tunnel lasts
//! until the client has not used it for a while. Datagrams go to addresses alone that the client has proven to the connection, and to the
//! node that showed the token first.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use signalbox_protocol::tunnel::{Bridged, Token, Tunneled};
use signalbox_protocol::{ParticipantId, TrackId};

use crate::bridge::{Bridge, Side, Sound};
use crate::budget::Budget;
use crate::connections::Key;
use crate::packet::MediaPacket;

/// A client that has sent nothing here for so long has found the next node: one that uses a path checks it twice a second (RFC 8445 section 14 allows
/// less often, browsers do not). That node has it as long as its last check has not arrived there, and goes on to send to it here. Higher: a drained node
/// ends later. Lower: a client that lost a few datagrams is cut off.
const UNUSED: Duration = Duration::from_secs(1);

/// How long a tunnel lasts at most. Higher: a client that never finds the next node keeps the old one up for longer. Lower: a slow one is cut off.
const LONGEST: Duration = Duration::from_secs(15);

/// How long what a client may send can be saved up.
const PACKETS_SAVED: Duration = Duration::from_secs(1);

/// Where a client was nominated last (RFC 8445 section 8.1.1), with the check that did it. It is authentic, so that the next node takes
/// it as well, and need not wait for the client's next one.
#[derive(Debug, Clone)]
pub struct Nomination {
    /// Where the check came from.
    pub client: SocketAddr,
    /// The check.
    pub check: Vec<u8>,
}

struct Leaving {
    token: Token,
    room: usize,
    participant: ParticipantId,
    /// The connection; none: it is not served here any more.
    key: Option<Key>,
    clients: Vec<SocketAddr>,
    nomination: Nomination,
    /// Where the next node is; none: it has not shown itself.
    next: Option<SocketAddr>,
    bridge: Option<Bridge>,
    packets: Budget,
    used: Instant,
    until: Instant,
}

/// What a tunnel is opened for.
pub struct Opening {
    /// The room and the connection.
    pub of: (usize, Key),
    /// Whose it is.
    pub participant: ParticipantId,
    /// Where the client is.
    pub clients: Vec<SocketAddr>,
    /// Where it was nominated last.
    pub nomination: Nomination,
    /// How many of its datagrams are passed on.
    pub packets_per_second: u64,
    /// Names it, unless it is open already.
    pub token: Token,
    /// The ICE session's password here.
    pub password: String,
}

/// What is to be done with a client's datagram.
pub struct Passed {
    /// Where the next node is.
    pub to: SocketAddr,
    /// What to send there.
    pub bytes: Vec<u8>,
    /// The connection is served here as well.
    pub is_served: bool,
}

/// All tunnels that begin at this shard.
#[derive(Default)]
pub struct Tunnels {
    leaving: HashMap<Token, Leaving>,
    by_client: HashMap<SocketAddr, Token>,
}

impl Tunnels {
    /// A connection may go on at another node. Again: it may already.
    pub fn open(&mut self, now: Instant, opening: Opening) -> Token {
        let Opening {
            of: (room, key),
            clients,
            token,
            ..
        } = opening;
        if let Some(open) = self.leaving.values().find(|open| open.key == Some(key)) {
            return open.token;
        }
        for client in &clients {
            self.by_client.insert(*client, token);
        }
        let leaving = Leaving {
            token,
            room,
            participant: opening.participant,
            key: Some(key),
            clients,
            nomination: opening.nomination,
            next: None,
            bridge: Bridge::new(now, token, &opening.password, Side::Former),
            packets: Budget::new(opening.packets_per_second, PACKETS_SAVED),
            used: now,
            until: now + LONGEST,
        };
        self.leaving.insert(token, leaving);
        token
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.leaving.is_empty()
    }

    /// A client's datagram; none: it concerns no other node.
    pub fn pass_on(&mut self, now: Instant, client: SocketAddr, datagram: &[u8]) -> Option<Passed> {
        let leaving = self.leaving.get_mut(self.by_client.get(&client)?)?;
        let is_served = leaving.key.is_some();
        let to = leaving.next?;
        leaving.used = now;
        if !leaving.packets.take(now, 1) {
            return None;
        }
        let tunneled = Tunneled {
            token: leaving.token,
            client,
            datagram,
        };
        Some(Passed {
            to,
            bytes: tunneled.to_bytes(),
            is_served,
        })
    }

    /// What is to be sent, and where to, when this comes from another node; none: nothing is, as it has no right to.
    pub fn take(&mut self, now: Instant, source: SocketAddr, tunneled: &Tunneled<'_>) -> Option<(SocketAddr, Vec<u8>)> {
        let leaving = self.leaving.get_mut(&tunneled.token)?;
        if *leaving.next.get_or_insert(source) != source {
            return None;
        }
        if tunneled.datagram.is_empty() {
            let nominated = Tunneled {
                token: leaving.token,
                client: leaving.nomination.client,
                datagram: &leaving.nomination.check,
            };
            return Some((source, nominated.to_bytes()));
        }
        let is_known = leaving.clients.contains(&tunneled.client);
        if is_known {
            leaving.used = now;
        }
        is_known.then(|| (tunneled.client, tunneled.datagram.to_vec()))
    }

    /// What carries a packet of a connection's sound to the next node, and where that is; none: it concerns no other node.
    pub fn carry(
        &mut self,
        now: Instant,
        key: Key,
        track: &TrackId,
        packet: &MediaPacket,
    ) -> Option<(SocketAddr, Vec<u8>)> {
        let mut leaving = self.leaving.values_mut();
        let leaving = leaving.find(|leaving| leaving.key == Some(key))?;
        let next = leaving.next?;
        Some((next, leaving.bridge.as_mut()?.seal(now, track, packet)?))
    }

    /// Sound that the next node has of somebody: of which room and whom; none: it is not from there.
    pub fn hear(&self, source: SocketAddr, bridged: &Bridged<'_>) -> Option<(usize, ParticipantId, Sound)> {
        let leaving = self.leaving.get(&bridged.token)?;
        let bridge = leaving.bridge.as_ref().filter(|_| leaving.next == Some(source))?;
        Some((leaving.room, leaving.participant.clone(), bridge.open(bridged.sealed)?))
    }

    /// A connection is not served here any more.
    pub fn let_go(&mut self, key: Key) {
        for leaving in self.leaving.values_mut().filter(|leaving| leaving.key == Some(key)) {
            leaving.key = None;
        }
    }

    /// Whether clients of a room still use theirs.
    pub fn are_used(&self, room: usize) -> bool {
        let mut of_room = self.leaving.values().filter(|leaving| leaving.room == room);
        of_room.any(|leaving| leaving.next.is_some())
    }

    /// Ends those that are of no more use.
    pub fn expire(&mut self, now: Instant) {
        self.end(|leaving| {
            let is_unused = leaving.key.is_none() && now.saturating_duration_since(leaving.used) >= UNUSED;
            now >= leaving.until || is_unused
        });
    }

    /// The room is closed.
    pub fn close(&mut self, room: usize) {
        self.end(|leaving| leaving.room == room);
    }

    fn end(&mut self, is_over: impl Fn(&Leaving) -> bool) {
        let by_client = &mut self.by_client;
        self.leaving.retain(|token, leaving| {
            let is_over = is_over(leaving);
            if is_over {
                for client in &leaving.clients {
                    if by_client.get(client) == Some(token) {
                        by_client.remove(client);
                    }
                }
            }
            !is_over
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECK: &[u8] = b"check";

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn token(byte: u8) -> Token {
        Token::new([byte; 16])
    }

    fn opening(clients: Vec<SocketAddr>, nomination: Nomination, token: Token) -> Opening {
        Opening {
            of: (0, 5),
            participant: ParticipantId::new("PA_1"),
            clients,
            nomination,
            packets_per_second: 100,
            token,
            password: "password".into(),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "virtual time has to start somewhere")]
    fn opened() -> (Tunnels, Instant) {
        let (mut tunnels, now) = (Tunnels::default(), Instant::now());
        let nomination = Nomination {
            client: at(1),
            check: CHECK.to_vec(),
        };
        tunnels.open(now, opening(vec![at(1), at(2)], nomination, token(7)));
        (tunnels, now)
    }

    fn from_next(token: Token, client: u16, datagram: &[u8]) -> Tunneled<'_> {
        Tunneled {
            token,
            client: at(client),
            datagram,
        }
    }

    fn enter(tunnels: &mut Tunnels, now: Instant) {
        let (to, bytes) = tunnels.take(now, at(99), &from_next(token(7), 0, b"")).unwrap();
        assert_eq!(to, at(99));
        assert_eq!(Tunneled::parse(&bytes), Some(from_next(token(7), 1, CHECK)));
    }

    #[test]
    fn the_next_node_shows_itself_and_gets_the_clients_last_nomination_and_what_follows() {
        let (mut tunnels, now) = opened();
        assert!(tunnels.pass_on(now, at(1), b"media").is_none());
        enter(&mut tunnels, now);
        for client in [1, 2] {
            let passed = tunnels.pass_on(now, at(client), b"media").unwrap();
            assert!(passed.is_served && passed.to == at(99));
            let expected = from_next(token(7), client, b"media");
            assert_eq!(Tunneled::parse(&passed.bytes), Some(expected));
        }
        assert!(tunnels.pass_on(now, at(3), b"media").is_none());
        let sent = tunnels.take(now, at(99), &from_next(token(7), 2, b"answer"));
        assert_eq!(sent, Some((at(2), b"answer".to_vec())));
    }

    #[test]
    fn nothing_goes_to_an_address_that_is_not_the_clients_nor_comes_from_another_node() {
        let (mut tunnels, now) = opened();
        enter(&mut tunnels, now);
        assert_eq!(tunnels.take(now, at(99), &from_next(token(7), 3, b"flood")), None);
        assert_eq!(tunnels.take(now, at(98), &from_next(token(7), 1, b"other")), None);
        assert_eq!(tunnels.take(now, at(98), &from_next(token(7), 1, b"")), None);
        assert_eq!(tunnels.take(now, at(99), &from_next(token(8), 1, b"guess")), None);
    }

    #[test]
    fn a_tunnel_lasts_while_it_is_used_but_not_for_ever() {
        let (mut tunnels, mut now) = opened();
        enter(&mut tunnels, now);
        let begun = now;
        now += 2 * UNUSED;
        tunnels.expire(now);
        assert!(tunnels.are_used(0), "its connection is served here");
        tunnels.pass_on(now, at(1), b"media").unwrap();
        tunnels.let_go(5);
        while now < begun + LONGEST - UNUSED {
            now += UNUSED / 2;
            tunnels.expire(now);
            assert!(!tunnels.pass_on(now, at(1), b"media").unwrap().is_served);
        }
        assert!(tunnels.are_used(0));
        tunnels.expire(begun + LONGEST);
        assert!(!tunnels.are_used(0) && tunnels.is_empty() && tunnels.by_client.is_empty());

        let (mut tunnels, now) = opened();
        enter(&mut tunnels, now);
        tunnels.let_go(5);
        // The client has found the next node, which does not know it yet.
        let later = now + UNUSED / 2;
        assert!(tunnels.take(later, at(99), &from_next(token(7), 1, b"media")).is_some());
        tunnels.expire(now + UNUSED);
        assert!(!tunnels.is_empty());
        tunnels.expire(later + UNUSED);
        assert!(tunnels.is_empty());
    }

    #[test]
    fn a_client_passes_on_no_more_than_it_may_send() {
        let (mut tunnels, now) = opened();
        enter(&mut tunnels, now);
        let passed = (0..1_000).filter(|_| tunnels.pass_on(now, at(1), b"media").is_some());
        assert_eq!(passed.count(), 100);
    }

    #[test]
    fn who_asks_again_gets_the_same_tunnel() {
        let (mut tunnels, now) = opened();
        let nomination = Nomination {
            client: at(1),
            check: Vec::new(),
        };
        assert_eq!(tunnels.open(now, opening(vec![at(1)], nomination, token(9))), token(7));
        tunnels.close(1);
        assert!(!tunnels.is_empty());
        tunnels.close(0);
        assert!(tunnels.is_empty());
    }
}
