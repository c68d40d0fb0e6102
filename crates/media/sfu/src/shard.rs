//! One shard: every room of one UDP port.

mod admission;
mod tunneled;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use signalbox_protocol::control::{
    CloseReason, Command, Event, Refusal, RefusalReason, Reply, RoomCommand, Transports,
};
use signalbox_protocol::room::MediaAddress;
use signalbox_protocol::tunnel::MARK;
use signalbox_protocol::{Generation, Identity, ParticipantId, RoomName};
use slab::Slab;

use crate::allocation;
use crate::api::{Output, ShardConfig, ShardStats};
use crate::clock::Clock;
use crate::connection::{Connection, ConnectionEvent, Fault, Polled, Stack};
use crate::connections::{Connections, Key, Route};
use crate::ids::Ids;
use crate::participant::Presence;
use crate::publish::no_participant;
use crate::quality;
use crate::room::{Context, Room};
use crate::speakers;
use crate::srtp::Refused;
use crate::srtp::endpoint::Stream;
use crate::stun::{self, Protocol};
use crate::transport::Transport;

/// The longest datagram that is looked at, in bytes; longer ones are counted and dropped. Higher: a forwarded packet, with what is
/// added to it, may not fit into a path's MTU of 1500 bytes.
pub const MAX_DATAGRAM_BYTES: usize = 1400;

/// A peer that was heard within this time has media.
const MEDIA_TIMEOUT: Duration = Duration::from_secs(5);

/// Every room of one UDP port.
pub struct Shard {
    config: ShardConfig,
    started: Instant,
    rooms: Slab<Room>,
    keys: HashMap<RoomName, usize>,
    cx: Context,
    next_tick: Instant,
    next_rating: Instant,
    next_allocation: Instant,
}

impl Shard {
    /// An empty shard.
    pub fn new(config: ShardConfig, now: Instant) -> Self {
        let clock = Clock::new(now, config.unix_ms);
        let cx = Context {
            connections: Connections::new(
                Stack::new((config.public, config.tunnel), clock),
                config.limits.packets_per_second,
            ),
            outputs: VecDeque::new(),
            bursts: VecDeque::new(),
            ids: Ids::new(config.seed),
            stats: ShardStats::default(),
            failing: Default::default(),
            limits: config.limits,
            clock,
            cut_over_due: None,
        };
        Self {
            config,
            started: now,
            rooms: Slab::new(),
            keys: HashMap::new(),
            cx,
            next_tick: now,
            next_rating: now,
            next_allocation: now,
        }
    }

    /// Takes a datagram that arrived at the shard's port.
    pub fn handle_datagram(&mut self, now: Instant, source: SocketAddr, datagram: &[u8]) {
        let stats = &mut self.cx.stats;
        stats.datagrams_in += 1;
        stats.bytes_in += datagram.len() as u64;
        if datagram.first() == Some(&MARK) {
            return self.handle_tunneled(now, source, datagram);
        }
        if datagram.len() > MAX_DATAGRAM_BYTES {
            stats.dropped_oversize += 1;
            return;
        }
        let protocol = stun::classify(datagram);
        if protocol == Protocol::Unknown {
            stats.dropped_garbage += 1;
            return;
        }
        if !self.cx.connections.tunnels.is_empty() && self.pass_on(now, source, datagram) {
            return;
        }
        let key = match self.cx.connections.route(now, source, datagram, protocol) {
            Route::To(key) => key,
            Route::BadStun => return self.cx.stats.dropped_stun += 1,
            Route::UnknownSource => return self.cx.stats.dropped_unknown += 1,
            Route::UnknownSsrc => return self.cx.stats.dropped_ssrc += 1,
            Route::Stream(key, stream) => return self.handle_srtp(now, source, datagram, key, stream),
        };
        self.handle_of(now, key, None, source, datagram);
    }

    /// Takes a datagram of a connection's client, which came to the shard's address or `by` another.
    fn handle_of(&mut self, now: Instant, key: Key, by: Option<SocketAddr>, source: SocketAddr, datagram: &[u8]) {
        // STUN has been authenticated by now, which is most of what it costs, and keeps the connection up.
        let is_stun = stun::classify(datagram) == Protocol::Stun;
        if !is_stun && !self.cx.connections.may_send(now, key) {
            return self.cx.stats.dropped_flood += 1;
        }
        if self.cx.connections.take_dirty(key) {
            self.poll_connection(now, key);
        }
        let Some(entry) = self.cx.connections.change(key) else {
            return;
        };
        if entry.first_heard.is_none() && !entry.transport.peer().is_some_and(Connection::is_held) {
            entry.first_heard = Some(now);
        }
        entry.last_heard = Some(now);
        match entry.transport.handle_datagram(now, by, source, datagram) {
            Ok(true) => {
                self.cx.connections.take_dirty(key);
                self.poll_connection(now, key);
            }
            Ok(false) => self.cx.stats.dropped_garbage += 1,
            Err(fault) => self.connection_failed(now, key, &fault),
        }
    }

    /// Takes a datagram that names a stream without a peer connection. Dropping one that is not authentic must cost little: nothing is
    /// done but to count it.
    fn handle_srtp(&mut self, now: Instant, source: SocketAddr, datagram: &[u8], key: Key, stream: Stream) {
        // From any other address only so many may fail ([`crate::srtp::guard`]); those must not use up what is the client's own.
        if self.cx.connections.is_proven(key, stream, source) && !self.cx.connections.may_send(now, key) {
            return self.cx.stats.dropped_flood += 1;
        }
        let Some(entry) = self.cx.connections.polled(key) else {
            return;
        };
        let Transport::Srtp(endpoint) = &mut entry.transport else {
            return;
        };
        let stats = &mut self.cx.stats;
        match endpoint.handle_datagram(now, source, datagram, stream) {
            Ok(()) => {
                entry.last_heard = Some(now);
                self.cx.connections.take_dirty(key);
                self.poll_connection(now, key);
            }
            Err(Refused::Garbage) => stats.dropped_garbage += 1,
            Err(Refused::Unauthentic) => stats.dropped_unauthentic += 1,
            Err(Refused::Limited) => stats.dropped_limited += 1,
            Err(Refused::Replayed) => stats.dropped_replayed += 1,
            Err(Refused::PayloadType) => stats.dropped_payload_type += 1,
        }
    }

    /// Tells everyone in a room whose gateway listens.
    pub fn tell_room(&mut self, room: &RoomName, event: Event) {
        if let Some(room) = self.keys.get(room).and_then(|key| self.rooms.get(*key)) {
            room.tell(&mut self.cx, event, |_| true);
        }
    }

    /// Does something for a participant.
    pub fn handle_command(
        &mut self,
        now: Instant,
        room: &RoomName,
        participant: &ParticipantId,
        identity: &Identity,
        command: Command,
    ) -> Result<Reply, Refusal> {
        let room = self
            .keys
            .get(room)
            .and_then(|key| self.rooms.get_mut(*key))
            .ok_or_else(no_participant)?;
        let media = media_address(&self.config, room.generation);
        room.command(&mut self.cx, now, media, participant, identity, command)
    }

    /// Does something for somebody who administers a room.
    pub fn handle_room_command(
        &mut self,
        now: Instant,
        room: &RoomName,
        command: RoomCommand,
    ) -> Result<Reply, Refusal> {
        let room = self.keys.get(room).and_then(|key| self.rooms.get_mut(*key));
        let room = room.ok_or_else(|| Refusal::new(RefusalReason::NoRoom, "The room is not open (any more)."))?;
        room.administer(&mut self.cx, now, command)
    }

    /// Like [`Command::Detach`], for participants whose link broke. Unknown ones are ignored.
    pub fn handle_link_lost(&mut self, _now: Instant, participants: &[ParticipantId]) {
        for (_, room) in &mut self.rooms {
            for id in participants {
                if let Some(participant) = room.participants.get_mut(id) {
                    participant.is_attached = false;
                }
            }
        }
    }

    /// Closes a room and everyone in it. Unknown ones are ignored.
    pub fn close_room(&mut self, now: Instant, room: &RoomName, reason: CloseReason) {
        let Some(mut room) = self.keys.remove(room).and_then(|key| self.rooms.try_remove(key)) else {
            return;
        };
        let ids: Vec<ParticipantId> = room.participants.keys().cloned().collect();
        // All are told before any is removed: nobody is to see the others leave one by one.
        room.tell(&mut self.cx, Event::Closed { reason }, |_| true);
        for participant in room.participants.values_mut() {
            participant.is_attached = false;
        }
        for id in ids {
            room.remove(&mut self.cx, now, &id, reason);
        }
        self.cx.connections.tunnels.close(room.key);
    }

    /// Closes every room.
    pub fn close_all(&mut self, now: Instant, reason: CloseReason) {
        let names: Vec<RoomName> = self.keys.keys().cloned().collect();
        for name in names {
            self.close_room(now, &name, reason);
        }
    }

    /// Does what is due. Call it when [`Shard::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        for (to, bytes) in self.cx.connections.knock(now) {
            let bytes = bytes.into();
            self.cx.outputs.push_back(Output::Datagram { to, bytes });
        }
        if self.cx.cut_over_due.is_some_and(|due| due <= now) {
            for (_, room) in &mut self.rooms {
                room.tend_cut_over(&mut self.cx, now);
            }
            self.cx.cut_over_due = self.rooms.iter().filter_map(|(_, room)| room.cut_over).min();
        }
        if now >= self.next_allocation {
            self.next_allocation = now + allocation::TICK;
            for (_, room) in &mut self.rooms {
                room.allocate_due(&mut self.cx, now);
            }
        }
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + speakers::INTERVAL;
        self.cx.connections.tunnels.expire(now);
        let rates_qualities = now >= self.next_rating;
        if rates_qualities {
            self.next_rating = now + quality::INTERVAL;
        }
        for (_, room) in &mut self.rooms {
            for track in room.tracks.values_mut() {
                track.request_awaited(now, &mut self.cx.connections);
            }
            room.ask_for_all_encodings(&mut self.cx, now);
            let dominant = room.speakers.dominant().cloned();
            let speakers = room.speakers.tick(now);
            if room.speakers.dominant() != dominant.as_ref() {
                room.allocate_everyone(&mut self.cx, now);
            }
            if !speakers.is_empty() {
                room.tell(&mut self.cx, Event::Speakers { speakers }, |_| true);
            }
            if rates_qualities {
                room.rate_qualities(&mut self.cx, now);
            }
            room.police(&mut self.cx, now);
            room.tend_data(&mut self.cx);
            room.tend_moves(&mut self.cx, now);
            room.tend_courses(&mut self.cx, now);
            remove_absent(room, &mut self.cx, now);
            room.forget_departed(now);
            let is_over = room
                .empty_since
                .is_some_and(|since| now.saturating_duration_since(since) >= self.config.limits.empty_room);
            if is_over && !std::mem::replace(&mut room.is_reported_empty, true) {
                let (room, generation) = (room.name.clone(), room.generation);
                self.cx.outputs.push_back(Output::RoomEmpty { room, generation });
            }
        }
    }

    /// The next thing to do; `None`: nothing until the next `handle_*`.
    pub fn poll_output(&mut self, now: Instant) -> Option<Output> {
        loop {
            if let Some(output) = self.cx.outputs.pop_front() {
                if let Output::Datagram { bytes, .. } = &output {
                    self.cx.stats.datagrams_out += 1;
                    self.cx.stats.bytes_out += bytes.len() as u64;
                }
                return Some(output);
            }
            if let Some(key) = self.cx.connections.next_to_poll(now) {
                self.poll_connection(now, key);
            } else if !self.forward_next(now) {
                return None;
            }
        }
    }

    /// Gives what has come of a track to one more subscriber, whose datagrams are then taken before the next one has any: they are still in the processor's caches.
    /// What has come of several tracks everybody gets before any is taken: so it leaves together, in fewer system calls. False: there was nothing.
    fn forward_next(&mut self, now: Instant) -> bool {
        let has_several = self.cx.bursts.len() > 1;
        let has_any = !self.cx.bursts.is_empty();
        while let Some((room, track)) = self.cx.bursts.front() {
            let room = self.rooms.get_mut(*room);
            let track = room.and_then(|room| room.tracks.get_mut(track));
            if let Some(forwarded) = track.and_then(|track| track.forward_next(now, &mut self.cx.connections)) {
                self.cx.stats.forwarded += forwarded;
            } else {
                self.cx.bursts.pop_front();
            }
            if !has_several {
                break;
            }
        }
        has_any
    }

    /// When to call [`Shard::handle_timeout`]; `None`: not before the next `handle_*`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let tick = (!self.rooms.is_empty()).then_some(self.next_tick.min(self.next_allocation));
        let due = tick.into_iter().chain(self.cx.connections.next_due());
        due.chain(self.cx.cut_over_due).min()
    }

    /// Counters and gauges.
    pub fn stats(&self) -> ShardStats {
        ShardStats {
            rooms: self.rooms.len() as u64,
            participants: self.present() as u64,
            connections: self.cx.connections.entries() as u64,
            ..self.cx.stats
        }
    }

    /// What the network towards a participant is believed to carry, in bits per second; none: nobody measures it.
    pub fn estimate(&self, room: &RoomName, participant: &ParticipantId) -> Option<u64> {
        let room = self.rooms.get(*self.keys.get(room)?)?;
        let connection = room.participants.get(participant)?.outgoing()?;
        self.cx.connections.get(connection)?.transport.estimate()
    }

    /// The open rooms.
    pub fn rooms(&self) -> impl Iterator<Item = (&RoomName, Generation)> {
        self.rooms.iter().map(|(_, room)| (&room.name, room.generation))
    }

    /// How many participants a room has; 0 when it is not open.
    pub fn participants(&self, room: &RoomName) -> usize {
        let room = self.keys.get(room).and_then(|key| self.rooms.get(*key));
        room.map_or(0, Room::present)
    }

    /// Whether what a participant's client asked is to be answered when everyone who comes over from another node does.
    pub fn is_held(&self, room: &RoomName, participant: &ParticipantId) -> bool {
        let room = self.keys.get(room).and_then(|key| self.rooms.get(*key));
        room.is_some_and(|room| room.is_held(&self.cx, participant))
    }

    /// Whether clients of a room that has moved still use the way over this shard.
    pub fn is_passed_through(&self, room: &RoomName) -> bool {
        let room = self.keys.get(room);
        room.is_some_and(|room| self.cx.connections.tunnels.are_used(*room))
    }

    /// Makes a participant's connection panic.
    #[cfg(test)]
    pub(crate) fn panic_in(&mut self, participant: &ParticipantId) {
        let owners = self
            .rooms
            .iter()
            .filter_map(|(_, room)| room.participants.get(participant));
        for key in owners.flat_map(|owner| owner.connections()).collect::<Vec<_>>() {
            if let Some(entry) = self.cx.connections.change(key)
                && let Some(connection) = entry.transport.peer_mut()
            {
                connection.panic_now();
            }
        }
    }

    fn poll_connection(&mut self, now: Instant, key: Key) {
        while let Some(entry) = self.cx.connections.polled(key) {
            let polled = entry.transport.poll(now);
            entry.is_connected |= matches!(polled, Ok(Polled::Event(ConnectionEvent::Connected)));
            match polled {
                Ok(Polled::Datagram { by, to, bytes }) => {
                    let (to, bytes) = match entry.via.filter(|via| by == Some(via.address)) {
                        Some(via) => {
                            let (to, through) = via.through(to, &bytes);
                            (to, through.into())
                        }
                        None => (to, bytes),
                    };
                    self.cx.outputs.push_back(Output::Datagram { to, bytes });
                }
                Ok(Polled::Event(event)) => {
                    let (room, participant) = (entry.room, entry.participant.clone());
                    if let Some(room) = self.rooms.get_mut(room) {
                        room.connection_event(&mut self.cx, now, key, &participant, event);
                    }
                }
                Ok(Polled::Idle(due)) => {
                    if let Some(connection) = entry.transport.peer_mut() {
                        connection.count(&mut self.cx.stats);
                    }
                    self.cx.connections.set_due(key, due);
                    return;
                }
                Err(fault) => return self.connection_failed(now, key, &fault),
            }
        }
    }

    /// A connection cannot go on: it costs its participant, and nobody else.
    fn connection_failed(&mut self, now: Instant, key: Key, fault: &Fault) {
        self.cx.stats.failed_connections += 1;
        let Some(entry) = self.cx.connections.get(key) else {
            return;
        };
        let (room, participant) = (entry.room, entry.participant.clone());
        tracing::warn!(%participant, %fault, "connection failed");
        if let Some(room) = self.rooms.get_mut(room) {
            if let Some(owner) = room.participants.get(&participant) {
                room.course_failed(&mut self.cx, now, key, owner);
            }
            room.remove(&mut self.cx, now, &participant, CloseReason::Failed);
        }
        self.cx.connections.close(key);
    }

    fn unix_ms(&self, now: Instant) -> u64 {
        self.config.unix_ms + now.saturating_duration_since(self.started).as_millis() as u64
    }
}

fn media_address(config: &ShardConfig, generation: Generation) -> MediaAddress {
    MediaAddress {
        ip: config.public.ip(),
        port: config.public.port(),
        node: config.node,
        generation,
    }
}

/// Removes who has had neither signaling nor media for too long.
fn remove_absent(room: &mut Room, cx: &mut Context, now: Instant) {
    let mut gone = Vec::new();
    for (id, participant) in &mut room.participants {
        if participant.presence == Presence::Gone {
            continue;
        }
        // Without a peer connection there are no checks that say whether the client is there: a receiver reports as rarely as it likes.
        let (media_timeout, departure) = match participant.transports {
            Transports::Single | Transports::Dual => (MEDIA_TIMEOUT, cx.limits.departure),
            Transports::Srtp => (Duration::ZERO, cx.limits.srtp_idle),
        };
        let heard = participant
            .connections()
            .filter_map(|key| cx.connections.get(key)?.last_heard);
        let heard = heard.max();
        if participant.is_attached {
            for key in participant.connections() {
                if let Some(entry) = cx.connections.polled(key) {
                    entry.transport.keep(now);
                }
            }
        }
        if participant.is_attached || heard.is_some_and(|heard| now.saturating_duration_since(heard) < media_timeout) {
            participant.absent_since = None;
            continue;
        }
        let mut since = *participant.absent_since.get_or_insert(now);
        if participant.transports == Transports::Srtp {
            since = since.max(heard.unwrap_or(since));
        }
        if now.saturating_duration_since(since) >= departure {
            gone.push(id.clone());
        }
    }
    for id in gone {
        room.remove(cx, now, &id, CloseReason::TimedOut);
    }
}
