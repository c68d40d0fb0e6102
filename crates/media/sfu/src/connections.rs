//! All peer connections of a shard: whose each is, which datagrams it gets, and when it wants to be polled.
//!
//! A datagram finds its connection by its source address. An address is bound to a connection only by a STUN request that names the
//! connection's ufrag and proves its ICE password, so nothing is sent to, or taken from, an address that has not.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Instant;

use signalbox_protocol::ParticipantId;
use signalbox_protocol::control::Target;
use slab::Slab;

use crate::connection::{Connection, Fault, Stack};
use crate::ids::Ids;
use crate::stun;

/// Addresses that one connection may use at a time (a client checks from each of its interfaces); the oldest is forgotten first.
const MAX_ADDRESSES: usize = 8;

/// A connection's key in its shard. Keys are used again; whoever holds one must let it go before the connection is closed.
pub type Key = usize;

/// A connection and what is known about it.
pub struct Entry {
    /// The connection.
    pub connection: Connection,
    /// The key of the owner's room.
    pub room: usize,
    /// The owner.
    pub participant: ParticipantId,
    /// Which of the owner's connections.
    pub target: Target,
    /// ICE and DTLS are up.
    pub is_connected: bool,
    /// When the peer was last heard.
    pub last_heard: Option<Instant>,
    ufrag: String,
    addresses: Vec<SocketAddr>,
    due: Instant,
    is_dirty: bool,
}

/// Where a datagram goes.
pub enum Route {
    /// To this connection.
    To(Key),
    /// Nowhere: STUN that names no connection, or is not authentic.
    BadStun,
    /// Nowhere: not from an address that a connection uses.
    UnknownSource,
}

/// All connections.
pub struct Connections {
    stack: Stack,
    entries: Slab<Entry>,
    by_ufrag: HashMap<String, Key>,
    by_address: HashMap<SocketAddr, Key>,
    dirty: Vec<Key>,
    timers: BTreeSet<(Instant, Key)>,
}

impl Connections {
    /// None yet.
    pub fn new(stack: Stack) -> Self {
        Self {
            stack,
            entries: Slab::new(),
            by_ufrag: HashMap::new(),
            by_address: HashMap::new(),
            dirty: Vec::new(),
            timers: BTreeSet::new(),
        }
    }

    /// Opens a connection.
    pub fn open(
        &mut self,
        now: Instant,
        ids: &mut Ids,
        room: usize,
        participant: ParticipantId,
        target: Target,
    ) -> Result<Key, Fault> {
        let mut ufrag = ids.ufrag();
        while self.by_ufrag.contains_key(&ufrag) {
            ufrag = ids.ufrag();
        }
        let connection = Connection::new(&self.stack, now, ufrag.clone(), ids.password())?;
        let key = self.entries.insert(Entry {
            connection,
            room,
            participant,
            target,
            is_connected: false,
            last_heard: None,
            ufrag: ufrag.clone(),
            addresses: Vec::new(),
            due: now,
            is_dirty: false,
        });
        self.by_ufrag.insert(ufrag, key);
        self.timers.insert((now, key));
        Ok(key)
    }

    /// Forgets a connection.
    pub fn close(&mut self, key: Key) {
        let Some(entry) = self.entries.try_remove(key) else {
            return;
        };
        self.by_ufrag.remove(&entry.ufrag);
        for address in entry.addresses {
            self.by_address.remove(&address);
        }
        self.timers.remove(&(entry.due, key));
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
        if let Some(entry) = self.entries.get_mut(key) {
            let ufrag = entry.connection.ufrag();
            if ufrag != entry.ufrag {
                self.by_ufrag.remove(&entry.ufrag);
                self.by_ufrag.insert(ufrag.clone(), key);
                entry.ufrag = ufrag;
            }
        }
    }

    /// Finds a datagram's connection, and binds its source address if it is an authentic STUN request.
    pub fn route(&mut self, now: Instant, source: SocketAddr, datagram: &[u8], protocol: stun::Protocol) -> Route {
        let bound = self.by_address.get(&source).copied();
        if protocol != stun::Protocol::Stun {
            return bound.map_or(Route::UnknownSource, Route::To);
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
        if !entry.connection.accepts(now, source, datagram) {
            return Route::BadStun;
        }
        if bound != Some(key) {
            if let Some(other) = bound.and_then(|other| self.entries.get_mut(other)) {
                other.addresses.retain(|address| *address != source);
            }
            self.bind(key, source);
        }
        Route::To(key)
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
        let &(due, key) = self.timers.first()?;
        (due <= now).then(|| {
            self.timers.pop_first();
            key
        })
    }

    /// Whether a connection has been changed since it was last polled; if so, it counts as polled now.
    pub fn take_dirty(&mut self, key: Key) -> bool {
        let entry = self.entries.get_mut(key);
        entry.is_some_and(|entry| std::mem::replace(&mut entry.is_dirty, false))
    }

    /// When a connection wants to be polled at the latest.
    pub fn set_due(&mut self, key: Key, due: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            self.timers.remove(&(entry.due, key));
            entry.due = due;
            self.timers.insert((due, key));
        }
    }

    /// When the next connection wants to be polled.
    pub fn next_due(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }
}
