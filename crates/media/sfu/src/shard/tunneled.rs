//! Datagrams of clients that have yet to find the node that their room is at: see [`signalbox_protocol::tunnel`].

use std::net::SocketAddr;
use std::time::Instant;

use signalbox_protocol::tunnel::{Bridged, MAX_OVERHEAD, Tunneled};

use super::{MAX_DATAGRAM_BYTES, Shard};
use crate::api::Output;

/// The first bytes of DTLS records that may be part of a handshake: change_cipher_spec, alert, handshake (RFC 6347 section 4.1), acknowledgment and whatever
/// DTLS 1.3 has encrypted (RFC 9147 section 4.1), as it does not say what that is.
const HANDSHAKE: [std::ops::RangeInclusive<u8>; 3] = [20..=22, 26..=26, 32..=63];

impl Shard {
    /// Takes a datagram that another node passes on, or wants passed on.
    pub(super) fn handle_tunneled(&mut self, now: Instant, source: SocketAddr, datagram: &[u8]) {
        if datagram.len() > MAX_DATAGRAM_BYTES + MAX_OVERHEAD {
            return self.cx.stats.dropped_oversize += 1;
        }
        if let Some(bridged) = Bridged::parse(datagram) {
            return self.handle_bridged(now, source, &bridged);
        }
        let Some(tunneled) = Tunneled::parse(datagram) else {
            return self.cx.stats.dropped_garbage += 1;
        };
        if let Some((key, by)) = self.cx.connections.route_tunneled(now, source, &tunneled) {
            return self.handle_of(now, key, Some(by), tunneled.client, tunneled.datagram);
        }
        match self.cx.connections.tunnels.take(now, source, &tunneled) {
            Some((to, bytes)) => {
                self.cx.stats.tunneled += 1;
                let bytes = bytes.into();
                self.cx.outputs.push_back(Output::Datagram { to, bytes });
            }
            None => self.cx.stats.dropped_unknown += 1,
        }
    }

    /// Takes sound that another node has and this one needs.
    fn handle_bridged(&mut self, now: Instant, source: SocketAddr, bridged: &Bridged<'_>) {
        let Some((room, participant, sound)) = self.cx.connections.hear(source, bridged) else {
            return self.cx.stats.dropped_unknown += 1;
        };
        if let Some(room) = self.rooms.get_mut(room) {
            room.hear(&mut self.cx, now, &participant, sound);
        }
    }

    /// Passes a client's datagram on to the node that its room has moved to, if it has; whether it does not concern this one.
    pub(super) fn pass_on(&mut self, now: Instant, source: SocketAddr, datagram: &[u8]) -> bool {
        let Some(passed) = self.cx.connections.tunnels.pass_on(now, source, datagram) else {
            return false;
        };
        let (to, bytes) = (passed.to, passed.bytes);
        self.cx.stats.tunneled += 1;
        // A client repeats its part of a handshake only after 50 ms, and everybody's media waits for it. On the way here nothing could be done about
        // that; on the way from here it comes twice.
        let may_be = |first| HANDSHAKE.iter().any(|kinds| kinds.contains(first));
        if datagram.first().is_some_and(may_be) {
            let bytes = bytes.clone().into();
            self.cx.outputs.push_back(Output::Datagram { to, bytes });
        }
        let bytes = bytes.into();
        self.cx.outputs.push_back(Output::Datagram { to, bytes });
        !passed.is_served
    }
}
