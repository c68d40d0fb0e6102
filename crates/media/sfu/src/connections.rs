//! All connections of a shard: whose each is, which datagrams it gets, and when it wants to be polled.
//!
//! A datagram finds its connection by its source address. An address is bound to a peer connection only by a STUN request that names the
//! connection's ufrag and proves its ICE password, so nothing is sent to, or taken from, an address that has not. RTP from any other
//! address finds its stream by its SSRC, and is then checked with that stream's key.

mod tunneled;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use signalbox_protocol::ParticipantId;
use signalbox_protocol::control::{Agreed, Target};
use signalbox_protocol::tunnel::{Token, Tunnel};
use slab::Slab;

use crate::bridge::{Bridge, Side};
use crate::budget::Budget;
use crate::connection::{Connection, Fault, Former, Session, Stack};
use crate::courses::Course;
use crate::data::Delivery;
use crate::ids::Ids;
use crate::packet::{Mid, OutgoingStream};
use crate::rtp;
use crate::srtp::endpoint::{Endpoint, Stream};
use crate::stun;
use crate::timers::Timers;
use crate::transport::Transport;
use crate::tunnels::{Nomination, Tunnels};

use tunneled::Knocking;
pub use tunneled::Via;

/// Addresses that one connection may use at a time (a client checks from each of its interfaces); the oldest is forgotten first.
const MAX_ADDRESSES: usize = 8;

/// How long a connection can save up datagrams that it may send.
const PACKETS_SAVED: Duration = Duration::from_secs(1);

/// A connection's key in its shard. Keys are used again; whoever holds one must let it go before the connection is closed.
pub type Key = usize;

/// The key of no connection: of what has yet to come from one.
pub const NONE: Key = usize::MAX;

/// A connection and what is known about it.
pub struct Entry {
    /// What carries its media.
    pub transport: Transport,
    /// The key of the owner's room.
    pub room: usize,
    /// The owner.
    pub participant: ParticipantId,
    /// Which of the owner's connections.
    pub target: Target,
    /// ICE and DTLS are up, or a stream has been proven.
    pub is_connected: bool,
    /// What an operator is told came of it.
    pub course: Course,
    /// When the peer was heard first.
    pub first_heard: Option<Instant>,
    /// When the peer was last heard.
    pub last_heard: Option<Instant>,
    /// Its owner was told that the move here does not get on.
    pub is_stalled: bool,
    /// The way to the client over the node that it was at before; none: there is none.
    pub via: Option<Via>,
    /// What its sound goes to that node with, and comes from there.
    bridge: Option<Box<Bridge>>,
    /// Where the client was nominated last.
    nomination: Option<Nomination>,
    ufrag: String,
    addresses: Vec<SocketAddr>,
    packets: Budget,
    is_dirty: bool,
}

impl Entry {
    /// Whether what is sent on a stream has somebody to arrive at.
    pub fn takes(&self, stream: OutgoingStream) -> bool {
        match &self.transport {
            Transport::Peer(_) => self.is_connected,
            Transport::Srtp(endpoint) => endpoint.takes(stream),
        }
    }

    /// Whether requests about what arrives on an m-line have somebody to arrive at.
    pub fn hears(&self, mid: Mid) -> bool {
        match &self.transport {
            Transport::Peer(_) => self.is_connected,
            Transport::Srtp(endpoint) => endpoint.hears(mid),
        }
    }
}

/// Where a datagram goes.
pub enum Route {
    /// To this connection.
    To(Key),
    /// To this stream of this connection, if it is authentic.
    Stream(Key, Stream),
    /// Nowhere: STUN that names no connection, or is not authentic.
    BadStun,
    /// Nowhere: not from an address that a connection uses.
    UnknownSource,
    /// Nowhere: nor of an SSRC that a stream has.
    UnknownSsrc,
}

/// All connections.
pub struct Connections {
    stack: Stack,
    packets_per_second: u64,
    entries: Slab<Entry>,
    by_ufrag: HashMap<String, Key>,
    by_address: HashMap<SocketAddr, Key>,
    by_ssrc: HashMap<u32, (Key, Stream)>,
    by_token: HashMap<Token, Key>,
    /// The ways of clients that have yet to find the next node.
    pub tunnels: Tunnels,
    knocking: Knocking,
    dirty: Vec<Key>,
    timers: Timers,
}

impl Connections {
    /// None yet; each may send so many datagrams per second, 0: any number.
    pub fn new(stack: Stack, packets_per_second: u64) -> Self {
        Self {
            stack,
            packets_per_second,
            entries: Slab::new(),
            by_ufrag: HashMap::new(),
            by_address: HashMap::new(),
            by_ssrc: HashMap::new(),
            by_token: HashMap::new(),
            tunnels: Tunnels::default(),
            knocking: Knocking::default(),
            dirty: Vec::new(),
            timers: Timers::default(),
        }
    }

    /// How many entries there are in all maps; none when everybody has left.
    pub fn entries(&self) -> usize {
        let found = [
            self.by_ufrag.len(),
            self.by_address.len(),
            self.by_ssrc.len(),
            self.by_token.len(),
        ];
        self.entries.len() + self.timers.len() + found.iter().sum::<usize>()
    }

    /// Opens a connection, with the ICE session that a tunnel leads to if there is one.
    pub fn open(
        &mut self,
        now: Instant,
        ids: &mut Ids,
        (room, participant): (usize, ParticipantId),
        target: Target,
        tunnel: Option<&Tunnel>,
    ) -> Result<Key, Fault> {
        let session = match tunnel.filter(|tunnel| self.can_use(tunnel)) {
            Some(tunnel) => Session {
                ufrag: tunnel.ufrag.clone(),
                password: tunnel.password.clone(),
                from: Some(Former {
                    via: tunnel.via,
                    moves: tunnel.moves,
                    estimate_bps: tunnel.estimate_bps,
                }),
            },
            None => {
                let mut ufrag = ids.ufrag();
                while self.by_ufrag.contains_key(&ufrag) {
                    ufrag = ids.ufrag();
                }
                Session {
                    ufrag,
                    password: ids.password(),
                    from: None,
                }
            }
        };
        let (ufrag, is_tunneled) = (session.ufrag.clone(), session.from.is_some());
        let transport = Transport::Peer(Box::new(Connection::new(&self.stack, now, session)?));
        let key = self.insert(now, transport, room, participant, target, ufrag.clone());
        self.by_ufrag.insert(ufrag, key);
        if let (Some(tunnel), Some(entry), true) = (tunnel, self.entries.get_mut(key), is_tunneled) {
            entry.via = Some(Via::new(tunnel));
            entry.bridge = Bridge::new(now, tunnel.token, &tunnel.password, Side::Next).map(Box::new);
            self.knocking.add(now, key);
            self.by_token.insert(tunnel.token, key);
        }
        Ok(key)
    }

    /// Opens a connection that takes up what another node had agreed on an offer of its; see [`Connection::take_up`]. Returns the offer as
    /// well.
    pub fn take_up(
        &mut self,
        now: Instant,
        ids: &mut Ids,
        owner: (usize, ParticipantId),
        agreed: &Agreed,
        channels: &[(Delivery, u16)],
        tunnel: Option<&Tunnel>,
    ) -> Result<(Key, String), Fault> {
        let key = self.open(now, ids, owner, Target::Subscriber, tunnel)?;
        let taken = match self.change(key).and_then(|entry| entry.transport.peer_mut()) {
            Some(connection) => {
                let sounds = tunnel.map(|tunnel| tunnel.sounds.as_slice());
                connection.take_up(agreed, channels, sounds.unwrap_or_default())
            }
            None => Err(Fault::Panicked),
        };
        match taken {
            Ok(offer) => Ok((key, offer)),
            Err(fault) => {
                self.close(key);
                Err(fault)
            }
        }
    }

    /// Opens streams without a peer connection. An SSRC of theirs that another connection has is theirs from now on.
    pub fn open_srtp(&mut self, now: Instant, endpoint: Endpoint, room: usize, participant: ParticipantId) -> Key {
        let ssrcs: Vec<(u32, Stream)> = endpoint.ssrcs().collect();
        let transport = Transport::Srtp(Box::new(endpoint));
        let key = self.insert(now, transport, room, participant, Target::Publisher, String::new());
        for (ssrc, stream) in ssrcs {
            self.by_ssrc.insert(ssrc, (key, stream));
        }
        key
    }

    fn insert(
        &mut self,
        now: Instant,
        transport: Transport,
        room: usize,
        participant: ParticipantId,
        target: Target,
        ufrag: String,
    ) -> Key {
        let key = self.entries.insert(Entry {
            transport,
            room,
            participant,
            target,
            is_connected: false,
            course: Course::Awaited(now),
            first_heard: None,
            last_heard: None,
            is_stalled: false,
            via: None,
            bridge: None,
            nomination: None,
            ufrag,
            addresses: Vec::new(),
            packets: Budget::new(self.packets_per_second, PACKETS_SAVED),
            is_dirty: false,
        });
        self.timers.set(key, now);
        key
    }

    /// Whose an SSRC is, among the streams without a peer connection.
    pub fn owner_of_ssrc(&self, ssrc: u32) -> Option<Key> {
        self.by_ssrc.get(&ssrc).map(|(key, _)| *key)
    }

    /// Ends a published stream without a peer connection: its packets are of an unknown SSRC from now on.
    pub fn end_stream(&mut self, key: Key, mid: Mid) {
        if let Some(Entry {
            transport: Transport::Srtp(endpoint),
            ..
        }) = self.entries.get_mut(key)
            && let Some(ssrc) = endpoint.end_published(mid)
        {
            self.forget_ssrc(key, ssrc);
        }
    }

    fn forget_ssrc(&mut self, key: Key, ssrc: u32) {
        if self.owner_of_ssrc(ssrc) == Some(key) {
            self.by_ssrc.remove(&ssrc);
        }
    }

    /// Forgets a connection.
    pub fn close(&mut self, key: Key) {
        let Some(entry) = self.entries.try_remove(key) else {
            return;
        };
        self.by_ufrag.remove(&entry.ufrag);
        self.tunnels.let_go(key);
        if let Some(via) = entry.via {
            self.by_token.remove(&via.token);
        }
        for address in entry.addresses {
            self.by_address.remove(&address);
        }
        if let Transport::Srtp(endpoint) = &entry.transport {
            for (ssrc, _) in endpoint.ssrcs() {
                self.forget_ssrc(key, ssrc);
            }
        }
        self.timers.remove(key);
    }

    /// A connection.
    pub fn get(&self, key: Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// A connection that is about to be changed: it will be polled.
    pub fn change(&mut self, key: Key) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(key)?;
        if !entry.is_dirty {
            entry.is_dirty = true;
            self.dirty.push(key);
        }
        Some(entry)
    }

    /// Call after an offer or answer was taken: an ICE restart has changed whom checks must name.
    pub fn refresh_ufrag(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(key)
            && let Some(connection) = entry.transport.peer_mut()
        {
            let ufrag = connection.ufrag();
            if ufrag != entry.ufrag {
                self.by_ufrag.remove(&entry.ufrag);
                self.by_ufrag.insert(ufrag.clone(), key);
                entry.ufrag = ufrag;
                // It was of the ICE session before.
                entry.nomination = None;
            }
        }
    }

    /// The ICE ufrag that checks to a connection must name.
    pub fn ufrag(&self, key: Key) -> Option<&str> {
        self.entries.get(key).map(|entry| entry.ufrag.as_str())
    }

    /// Finds a datagram's connection, and binds its source address if it is an authentic STUN request.
    pub fn route(&mut self, now: Instant, source: SocketAddr, datagram: &[u8], protocol: stun::Protocol) -> Route {
        let bound = self.by_address.get(&source).copied();
        if protocol != stun::Protocol::Stun {
            return match (bound, protocol) {
                (Some(key), _) => Route::To(key),
                (None, stun::Protocol::Rtp) => self.route_by_ssrc(datagram),
                (None, _) => Route::UnknownSource,
            };
        }
        let named = match stun::local_ufrag(datagram) {
            Some(ufrag) => self.by_ufrag.get(ufrag).copied(),
            // A response or an indication names nobody.
            None => bound,
        };
        let Some(key) = named else {
            return Route::BadStun;
        };
        let Some(entry) = self.entries.get_mut(key) else {
            return Route::BadStun;
        };
        let connection = entry.transport.peer_mut();
        if !connection.is_some_and(|connection| connection.accepts(now, None, source, datagram)) {
            return Route::BadStun;
        }
        if stun::nominates(datagram) {
            let nomination = entry.nomination.get_or_insert_with(|| Nomination {
                client: source,
                check: Vec::new(),
            });
            nomination.client = source;
            nomination.check.clear();
            nomination.check.extend_from_slice(datagram);
        }
        if bound != Some(key) {
            if let Some(other) = bound.and_then(|other| self.entries.get_mut(other)) {
                other.addresses.retain(|address| *address != source);
            }
            self.bind(key, source);
        }
        Route::To(key)
    }

    /// Whether one more datagram of a connection's client is to be looked at.
    pub fn may_send(&mut self, now: Instant, key: Key) -> bool {
        self.entries.get_mut(key).is_none_or(|entry| entry.packets.take(now, 1))
    }

    /// Whether a datagram for a stream comes from the address that has been proven for it.
    pub fn is_proven(&self, key: Key, stream: Stream, source: SocketAddr) -> bool {
        match self.entries.get(key).map(|entry| &entry.transport) {
            Some(Transport::Srtp(endpoint)) => endpoint.is_proven(stream, source),
            Some(Transport::Peer(_)) | None => false,
        }
    }

    fn route_by_ssrc(&self, datagram: &[u8]) -> Route {
        let named = rtp::sender(datagram).and_then(|ssrc| self.by_ssrc.get(&ssrc));
        // A client that sends its reports in the clear sends them from an SSRC of its own, and names the stream that it receives.
        let named = named.or_else(|| self.by_ssrc.get(&rtp::reported(datagram)?));
        named.map_or(Route::UnknownSsrc, |(key, stream)| Route::Stream(*key, *stream))
    }

    fn bind(&mut self, key: Key, source: SocketAddr) {
        if let Some(entry) = self.entries.get_mut(key) {
            if entry.addresses.len() >= MAX_ADDRESSES {
                let oldest = entry.addresses.remove(0);
                self.by_address.remove(&oldest);
            }
            entry.addresses.push(source);
            self.by_address.insert(source, key);
        }
    }

    /// A connection that is being polled, which is no change.
    pub fn polled(&mut self, key: Key) -> Option<&mut Entry> {
        self.entries.get_mut(key)
    }

    /// The next connection to be polled because it was changed or is due. Its timer is off until [`Connections::set_due`].
    pub fn next_to_poll(&mut self, now: Instant) -> Option<Key> {
        while let Some(key) = self.dirty.pop() {
            // One that was polled since it was changed, or is closed, is left in the list: finding it there would cost more.
            if self.take_dirty(key) {
                return Some(key);
            }
        }
        let (_, key) = self.timers.first().filter(|(due, _)| *due <= now)?;
        self.timers.remove(key);
        Some(key)
    }

    /// Whether a connection has been changed since it was last polled; if so, it counts as polled now.
    pub fn take_dirty(&mut self, key: Key) -> bool {
        let entry = self.entries.get_mut(key);
        entry.is_some_and(|entry| std::mem::replace(&mut entry.is_dirty, false))
    }

    /// When a connection wants to be polled at the latest.
    pub fn set_due(&mut self, key: Key, due: Instant) {
        if self.entries.contains(key) {
            self.timers.set(key, due);
        }
    }

    /// When the next connection wants to be polled.
    pub fn next_due(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(due, _)| due);
        timer.into_iter().chain(self.knocking.due()).min()
    }
}
