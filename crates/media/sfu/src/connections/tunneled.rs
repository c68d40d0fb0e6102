//! Connections that are reached over another node, or are to go on at one: see [`signalbox_protocol::tunnel`].

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use signalbox_protocol::tunnel::{Bridged, Token, Tunnel, Tunneled};
use signalbox_protocol::{ParticipantId, TrackId};

use super::{Connections, Key};
use crate::bridge::Sound;
use crate::ids::Ids;
use crate::packet::MediaPacket;
use crate::stun;
use crate::tunnels::Opening;

/// The way to a client over the node that it was at before.
#[derive(Debug, Clone, Copy)]
pub struct Via {
    /// The other node's address for the client.
    pub address: SocketAddr,
    /// The other node.
    node: SocketAddr,
    /// Names the tunnel there.
    pub token: Token,
    /// A check of the client's has come through it, so that the client can be reached.
    pub is_open: bool,
    knocks: u32,
}

/// When a node shows itself again to one that has not answered. Higher: a lost datagram holds up its client, and everybody who waits for that. Lower:
/// more of them on the way at once.
const KNOCK: Duration = Duration::from_millis(20);

/// The same after [`QUICK_KNOCKS`]: the other node is not there, or does not know of its client either.
const SLOW_KNOCK: Duration = Duration::from_millis(300);

/// How often it is done so soon.
const QUICK_KNOCKS: u32 = 25;

/// How often it is done in all, which takes as long as the other node keeps the way open.
const MAX_KNOCKS: u32 = QUICK_KNOCKS + 50;

/// The connections whose clients' former nodes have yet to be shown where this one is.
#[derive(Default)]
pub struct Knocking(Vec<(Instant, Key)>);

impl Via {
    /// A way that nothing has come through yet.
    pub fn new(tunnel: &Tunnel) -> Self {
        Self {
            address: tunnel.via,
            node: tunnel.entrance(),
            token: tunnel.token,
            is_open: false,
            knocks: 0,
        }
    }

    /// What to send to a client.
    pub fn through(&self, client: SocketAddr, datagram: &[u8]) -> (SocketAddr, Vec<u8>) {
        let tunneled = Tunneled {
            token: self.token,
            client,
            datagram,
        };
        (self.node, tunneled.to_bytes())
    }
}

impl Knocking {
    /// Another one, now.
    pub fn add(&mut self, now: Instant, key: Key) {
        self.0.push((now, key));
    }

    /// When the next is due.
    pub fn due(&self) -> Option<Instant> {
        self.0.iter().map(|(due, _)| *due).min()
    }
}

impl Connections {
    /// Whether the ICE session that a tunnel leads to can go on here.
    pub fn can_use(&self, tunnel: &Tunnel) -> bool {
        !self.by_ufrag.contains_key(&tunnel.ufrag) && !self.by_token.contains_key(&tunnel.token)
    }

    /// The connection that a datagram in a tunnel is for, and the address that the client sent it to, if that comes from the node that the tunnel leads
    /// to and is authentic.
    pub fn route_tunneled(
        &mut self,
        now: Instant,
        source: SocketAddr,
        tunneled: &Tunneled<'_>,
    ) -> Option<(Key, SocketAddr)> {
        let key = *self.by_token.get(&tunneled.token)?;
        let entry = self.entries.get_mut(key)?;
        let via = entry.via.as_mut().filter(|via| via.node == source)?;
        let connection = entry.transport.peer_mut()?;
        let is_stun = stun::classify(tunneled.datagram) == stun::Protocol::Stun;
        if is_stun && !connection.accepts(now, Some(via.address), tunneled.client, tunneled.datagram) {
            return None;
        }
        via.is_open |= is_stun;
        Some((key, via.address))
    }

    /// What shows other nodes where this one is, as far as it is due: where to, and what.
    pub fn knock(&mut self, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut sent = Vec::new();
        let entries = &mut self.entries;
        self.knocking.0.retain_mut(|(due, key)| {
            if *due > now {
                return true;
            }
            let via = entries.get_mut(*key).and_then(|entry| entry.via.as_mut());
            let Some(via) = via.filter(|via| !via.is_open && via.knocks < MAX_KNOCKS) else {
                return false;
            };
            via.knocks += 1;
            *due = now + if via.knocks < QUICK_KNOCKS { KNOCK } else { SLOW_KNOCK };
            sent.push(via.through(SocketAddr::from(([0, 0, 0, 0], 0)), &[]));
            true
        });
        sent
    }

    /// What carries a packet of a connection's sound to the node that its room is leaving or going to, and where that is; none: there is none, or it is not
    /// needed any more.
    pub fn carry(
        &mut self,
        now: Instant,
        key: Key,
        track: &TrackId,
        packet: &MediaPacket,
    ) -> Option<(SocketAddr, Vec<u8>)> {
        if !self.tunnels.is_empty()
            && let Some(carried) = self.tunnels.carry(now, key, track, packet)
        {
            return Some(carried);
        }
        let entry = self.entries.get_mut(key)?;
        let via = entry.via?;
        Some((via.node, entry.bridge.as_mut()?.seal(now, track, packet)?))
    }

    /// Sound that another node has of somebody: of which room and whom; none: it is not from a node that may say so.
    pub fn hear(&self, source: SocketAddr, bridged: &Bridged<'_>) -> Option<(usize, ParticipantId, Sound)> {
        let Some(key) = self.by_token.get(&bridged.token) else {
            return self.tunnels.hear(source, bridged);
        };
        let entry = self.entries.get(*key)?;
        entry.via.filter(|via| via.node == source)?;
        let sound = entry.bridge.as_ref()?.open(bridged.sealed)?;
        Some((entry.room, entry.participant.clone(), sound))
    }

    /// Opens the way for a connection's client to the next node; none: there is no connection that has been nominated and is reached from here.
    pub fn open_tunnel(&mut self, now: Instant, ids: &mut Ids, key: Key) -> Option<Tunnel> {
        let entry = self.entries.get_mut(key)?;
        let nominated = entry.nomination.clone();
        let connection = entry.transport.peer_mut()?;
        let nomination = nominated.or_else(|| connection.given_nomination())?;
        let ice = connection.ice()?;
        let estimate_bps = connection.estimate();
        let opening = Opening {
            of: (entry.room, key),
            participant: entry.participant.clone(),
            clients: entry.addresses.clone(),
            nomination,
            packets_per_second: self.packets_per_second,
            token: ids.token(),
            password: ice.password.clone(),
        };
        Some(Tunnel {
            target: entry.target,
            via: self.stack.public(),
            entrance: self.stack.tunnel,
            token: self.tunnels.open(now, opening),
            ufrag: ice.ufrag,
            password: ice.password,
            client_ufrag: ice.client_ufrag,
            moves: ice.moves.saturating_add(1),
            estimate_bps,
            sounds: Vec::new(),
        })
    }
}
