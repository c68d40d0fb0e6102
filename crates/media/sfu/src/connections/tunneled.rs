//! Connections that are reached over another node, or are to go on at one: see [`signalbox_protocol::tunnel`].

use std::net::SocketAddr;
use std::time::Instant;

use signalbox_protocol::tunnel::{Token, Tunnel, Tunneled};

use super::{Connections, Key};
use crate::ids::Ids;
use crate::stun;

/// The way to a client over the node that it was at before.
#[derive(Debug, Clone, Copy)]
pub struct Via {
    /// The other node.
    pub node: SocketAddr,
    /// Names the tunnel there.
    pub token: Token,
    /// Something has come through it.
    pub is_open: bool,
}

impl Connections {
    /// Whether the ICE session that a tunnel leads to can go on here.
    pub fn can_use(&self, tunnel: &Tunnel) -> bool {
        !self.by_ufrag.contains_key(&tunnel.ufrag) && !self.by_token.contains_key(&tunnel.token)
    }

    /// The connection that a datagram in a tunnel is for, if that comes from the node that the tunnel leads to and is authentic.
    pub fn route_tunneled(&mut self, now: Instant, source: SocketAddr, tunneled: &Tunneled<'_>) -> Option<Key> {
        let key = *self.by_token.get(&tunneled.token)?;
        let entry = self.entries.get_mut(key)?;
        let via = entry.via.as_mut().filter(|via| via.node == source)?;
        let connection = entry.transport.peer_mut()?;
        let is_stun = stun::classify(tunneled.datagram) == stun::Protocol::Stun;
        if is_stun && !connection.accepts(now, Some(source), tunneled.client, tunneled.datagram) {
            return None;
        }
        via.is_open = true;
        Some(key)
    }

    /// Opens the way for a connection's client to the next node; none: there is no connection that has been nominated and is reached from here.
    pub fn open_tunnel(&mut self, now: Instant, ids: &mut Ids, key: Key) -> Option<Tunnel> {
        let entry = self.entries.get_mut(key)?;
        let nomination = entry.nomination.clone()?;
        let connection = entry.transport.peer_mut()?;
        let ice = connection.ice()?;
        let token = ids.token();
        let (clients, limit) = (entry.addresses.clone(), self.packets_per_second);
        Some(Tunnel {
            target: entry.target,
            via: self.stack.public(),
            token: self
                .tunnels
                .open(now, (entry.room, key), clients, nomination, limit, token),
            ufrag: ice.ufrag,
            password: ice.password,
            client_ufrag: ice.client_ufrag,
            moves: ice.moves.saturating_add(1),
        })
    }
}
