//! What a shard's thread does besides I/O: runs requests on the core, and brings replies and events to the right links.
//!
//! It owns the core and the map from participant to link. Both belong to one thread, so neither needs a lock, and a reply is in its
//! link's queue before the events that follow from the request.
//!
//! It must not know sockets or runtimes; `now` is an argument.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use signalbox_protocol::control::{CloseReason, Command, Event, NodeFrame, Refusal, RefusalReason, Reply};
use signalbox_protocol::placement::Placement;
use signalbox_protocol::{Epoch, Generation, Identity, ParticipantId, RoomName};
use signalbox_sfu::{Output, Shard, ShardStats};

use crate::counters::Counters;
use crate::lease::{Boottime, Lease, Term};
use crate::link::{Answer, Link, LinkId, overloaded};
use crate::moves::Moves;
use crate::rooms::Rooms;
use crate::shard_command::{AdmittedRequest, ShardCommand, Work};

struct Hosted {
    generation: Generation,
    /// Nobody has come since the core called it empty.
    empty: bool,
}

struct Held {
    room: RoomName,
    participant: ParticipantId,
    answer: Answer,
    result: Result<Reply, Refusal>,
}

/// The core with its rooms and links.
pub struct Host {
    core: Shard,
    /// The latest time that the core was told; none: it was told none.
    told: Option<Instant>,
    rooms: HashMap<RoomName, Hosted>,
    attached: HashMap<ParticipantId, Link>,
    moves: Moves,
    /// Answers to participants that come over from another node, until all of their rooms do.
    held: Vec<Held>,
    table: Arc<Rooms>,
    lease: Arc<Lease>,
    counters: Arc<Counters>,
    /// The epoch that the rooms belong to.
    serving: Option<Epoch>,
}

impl Host {
    /// Around an empty core.
    pub fn new(core: Shard, table: Arc<Rooms>, lease: Arc<Lease>, counters: Arc<Counters>) -> Self {
        Self {
            core,
            told: None,
            rooms: HashMap::new(),
            attached: HashMap::new(),
            moves: Moves::default(),
            held: Vec::new(),
            table,
            lease,
            counters,
            serving: None,
        }
    }

    /// Closes all rooms if their epoch is over. To be called before anything else is handled. The term in which rooms are hosted from now on;
    /// what was put out before this returned belongs to the one before.
    pub fn handle_lease(
        &mut self,
        now: Instant,
        boottime: Boottime,
        out: &mut impl FnMut(SocketAddr, &[u8]),
    ) -> Option<Arc<Term>> {
        let term = self.lease.term(boottime);
        let held = term.as_ref().map(|term| term.epoch());
        if held != self.serving {
            let now = self.tell(now);
            self.close_all(now, out);
            self.serving = held;
        }
        term
    }

    /// Takes a datagram in. [`Host::drain`] must follow, after this one or after several.
    pub fn handle_datagram(&mut self, now: Instant, source: SocketAddr, datagram: &[u8]) {
        let now = self.tell(now);
        self.core.handle_datagram(now, source, datagram);
    }

    /// A time for the core: it goes on while a turn lasts, and never back.
    fn tell(&mut self, now: Instant) -> Instant {
        *self.told.insert(self.told.map_or(now, |told| told.max(now)))
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut impl FnMut(SocketAddr, &[u8])) {
        let now = self.tell(now);
        self.core.handle_timeout(now);
        self.drain(now, out);
        self.end_moved(now, out);
    }

    /// When [`Host::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.core.poll_timeout().into_iter().chain(self.moves.due()).min()
    }

    /// The core's counters.
    pub fn stats(&self) -> ShardStats {
        self.core.stats()
    }

    /// Does what is asked.
    pub fn handle_command(&mut self, now: Instant, command: ShardCommand, out: &mut impl FnMut(SocketAddr, &[u8])) {
        let now = self.tell(now);
        match command {
            ShardCommand::Request(request) => self.request(now, *request, out),
            ShardCommand::LinkLost(link) => self.link_lost(now, link),
            ShardCommand::IsEmpty {
                room,
                generation,
                answer,
            } => {
                let hosted = self.rooms.get(&room).filter(|hosted| hosted.generation == generation);
                // Whoever asked may be gone; then nobody waits for it.
                let _ = answer.send(hosted.is_none_or(|hosted| hosted.empty));
            }
            ShardCommand::CloseRoom {
                room,
                generation,
                reason,
                done,
            } => {
                self.close_room(now, &room, generation, reason, out);
                let _ = done.send(());
            }
            ShardCommand::Move {
                room,
                generation,
                to,
                until,
                done,
            } => {
                self.begin_move(now, room, generation, *to, until, out);
                let _ = done.send(());
            }
            ShardCommand::Count { answer } => {
                let count = |room: &RoomName| u32::try_from(self.core.participants(room)).unwrap_or(u32::MAX);
                let _ = answer.send(self.rooms.keys().map(|room| (room.clone(), count(room))).collect());
            }
            ShardCommand::CloseAll { done } => {
                self.close_all(now, out);
                let _ = done.send(());
            }
        }
        self.drain(now, out);
        self.end_moved(now, out);
    }

    fn begin_move(
        &mut self,
        now: Instant,
        room: RoomName,
        generation: Generation,
        to: Placement,
        until: Instant,
        out: &mut impl FnMut(SocketAddr, &[u8]),
    ) {
        let hosted = self.rooms.get(&room);
        if hosted.is_none_or(|hosted| hosted.generation != generation) {
            // It was never opened, or has ended with its epoch: nothing has to go anywhere.
            return self.table.closed(&room, generation, now);
        }
        let event = self.moves.begin(now, room.clone(), to, until);
        self.core.tell_room(&room, event);
        self.drain(now, out);
    }

    /// Ends the rooms that everyone has left for another node, and those whose time is over.
    fn end_moved(&mut self, now: Instant, out: &mut impl FnMut(SocketAddr, &[u8])) {
        // Clients that have gone may have yet to find the way there, which leads over this node until then.
        let is_left = |room: &RoomName| self.core.participants(room) == 0 && !self.core.is_passed_through(room);
        for room in self.moves.over(now, is_left) {
            let Some(generation) = self.rooms.get(&room).map(|hosted| hosted.generation) else {
                continue;
            };
            let left = self.core.participants(&room) as u64;
            self.close_room(now, &room, generation, CloseReason::NodeGone, out);
            self.table.closed(&room, generation, now);
            Counters::add(&self.counters.rooms_moved);
            self.counters.left_behind.fetch_add(left, Ordering::Relaxed);
            tracing::info!(%room, %generation, left, "the room has moved to another node");
        }
    }

    fn request(&mut self, now: Instant, request: AdmittedRequest, out: &mut impl FnMut(SocketAddr, &[u8])) {
        let AdmittedRequest {
            answer,
            start_by,
            epoch,
            work,
        } = request;
        if now > start_by {
            self.not_opened(&work);
            return answer.send(Err(overloaded("The node could not start the request in time")));
        }
        match work {
            Work::Participant(room, participant, identity, command) => {
                let attaches = matches!(command, Command::Attach);
                let link = answer.link().clone();
                let offers = matches!(command, Command::Offer { .. });
                let result = self.participant(now, &room, &participant, &identity, command, &link);
                let attached = attaches && result.is_ok();
                if offers && result.is_ok() && self.core.is_held(&room, &participant) {
                    self.held.push(Held {
                        room: room.clone(),
                        participant: participant.clone(),
                        answer,
                        result,
                    });
                } else {
                    answer.send(result);
                }
                // Its gateway, or the one before, may have missed it.
                if attached && let Some(event) = self.moves.event(now, &room) {
                    let to = vec![participant];
                    link.push(NodeFrame::Event { to, event });
                }
            }
            Work::Administer(room, command) => {
                answer.send(self.core.handle_room_command(now, &room, command));
            }
            Work::Open(..) | Work::Expect(..) | Work::Join(..) if epoch.is_none() || epoch != self.serving => {
                self.not_opened(&work);
                answer.send(Err(Refusal::new(
                    RefusalReason::Ticket,
                    "The node's epoch has ended; ask the orchestrator anew.",
                )));
            }
            Work::Open(room, generation) => {
                self.supersede(now, &room, generation, out);
                let result = self.core.handle_open(now, &room, generation);
                self.opened(&room, generation, result.is_ok(), false);
                answer.send(result);
            }
            Work::Expect(info, participants, generation) => {
                let room = info.name.clone();
                self.supersede(now, &room, generation, out);
                let entered = !participants.is_empty();
                let result = self.core.handle_expect(now, generation, *info, participants);
                self.opened(&room, generation, result.is_ok(), entered);
                answer.send(result);
            }
            Work::Join(join, generation) => {
                let room = join.room.clone();
                let attach = join.attach;
                self.supersede(now, &room, generation, out);
                let result = self.core.handle_join(now, generation, *join);
                self.opened(&room, generation, result.is_ok(), true);
                if attach && let Ok(Reply::Joined(joined)) = &result {
                    let participant = joined.snapshot.participant.id.clone();
                    self.attached.insert(participant, answer.link().clone());
                }
                answer.send(result);
            }
        }
    }

    fn participant(
        &mut self,
        now: Instant,
        room: &RoomName,
        participant: &ParticipantId,
        identity: &Identity,
        command: Command,
        link: &Link,
    ) -> Result<Reply, Refusal> {
        let attach = matches!(command, Command::Attach);
        let detach = matches!(command, Command::Detach);
        if detach
            && self
                .attached
                .get(participant)
                .is_some_and(|attached| attached.id() != link.id())
        {
            // The client came back through another gateway before the first one noticed that it was gone.
            return Ok(Reply::Done);
        }
        let result = self.core.handle_command(now, room, participant, identity, command);
        if result.is_ok() {
            if attach {
                self.attach(participant, link);
            } else if detach {
                self.attached.remove(participant);
            }
        }
        result
    }

    /// From now on the participant's events go over this link. Another one that had them is told, so that what it keeps of them is not
    /// taken for all of them.
    fn attach(&mut self, participant: &ParticipantId, link: &Link) {
        let before = self.attached.insert(participant.clone(), link.clone());
        if let Some(before) = before.filter(|before| before.id() != link.id()) {
            before.push(NodeFrame::Event {
                to: vec![participant.clone()],
                event: Event::AttachedElsewhere,
            });
        }
    }

    /// An older generation of the room ends before a newer one begins.
    fn supersede(
        &mut self,
        now: Instant,
        room: &RoomName,
        generation: Generation,
        out: &mut impl FnMut(SocketAddr, &[u8]),
    ) {
        if let Some(older) = self.rooms.get(room).map(|hosted| hosted.generation)
            && older < generation
        {
            self.close_room(now, room, older, CloseReason::NodeGone, out);
        }
    }

    /// The request was admitted, but does not run. If it was to open the room, the table expects a room that is not there.
    fn not_opened(&self, work: &Work) {
        let (room, generation) = match work {
            Work::Open(room, generation) => (room, *generation),
            Work::Expect(room, _, generation) => (&room.name, *generation),
            Work::Join(join, generation) => (&join.room, *generation),
            Work::Participant(..) | Work::Administer(..) => return,
        };
        if self
            .rooms
            .get(room)
            .is_none_or(|hosted| hosted.generation != generation)
        {
            self.table.mark_empty(room, generation);
        }
    }

    /// Keeps account of a room that was asked to be open.
    fn opened(&mut self, room: &RoomName, generation: Generation, ok: bool, entered: bool) {
        if let Some(hosted) = self.rooms.get_mut(room) {
            hosted.empty &= !(ok && entered);
        } else if ok || self.core.rooms().any(|(open, _)| open == room) {
            let hosted = Hosted {
                generation,
                empty: false,
            };
            self.rooms.insert(room.clone(), hosted);
        } else {
            // The placement would otherwise stand with nothing behind it, as the core never calls this room empty.
            self.table.mark_empty(room, generation);
        }
    }

    fn close_room(
        &mut self,
        now: Instant,
        room: &RoomName,
        generation: Generation,
        reason: CloseReason,
        out: &mut impl FnMut(SocketAddr, &[u8]),
    ) {
        if self
            .rooms
            .get(room)
            .is_some_and(|hosted| hosted.generation == generation)
        {
            self.core.close_room(now, room, reason);
            self.drain(now, out);
            self.rooms.remove(room);
            self.moves.forget(room);
        }
    }

    fn close_all(&mut self, now: Instant, out: &mut impl FnMut(SocketAddr, &[u8])) {
        if self.rooms.is_empty() {
            return;
        }
        self.core.close_all(now, CloseReason::NodeGone);
        self.drain(now, out);
        self.rooms.clear();
        self.moves = Moves::default();
        self.attached.clear();
    }

    fn link_lost(&mut self, now: Instant, link: LinkId) {
        let lost: Vec<ParticipantId> = self
            .attached
            .extract_if(|_, attached| attached.id() == link)
            .map(|(participant, _)| participant)
            .collect();
        if !lost.is_empty() {
            self.core.handle_link_lost(now, &lost);
        }
    }

    /// Sends the answers that need not wait any longer.
    fn release_held(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let core = &self.core;
        let is_held = |held: &mut Held| !core.is_held(&held.room, &held.participant);
        for Held { answer, result, .. } in self.held.extract_if(.., is_held) {
            answer.send(result);
        }
    }

    /// Takes from the core all that it has to say. What goes to many takes a while, so that it is told the time anew for each of them: it is what packets are
    /// stamped with, and what estimates of the network are made of.
    pub fn drain(&mut self, now: Instant, out: &mut impl FnMut(SocketAddr, &[u8])) {
        let mut now = self.tell(now);
        self.release_held();
        let mut before = None;
        while let Some(output) = self.core.poll_output(now) {
            match output {
                Output::Datagram { to, bytes } => {
                    out(to, &bytes);
                    if before.replace(to) != Some(to) {
                        now = self.tell(Instant::now());
                    }
                }
                Output::Event { to, event } => self.deliver(to, *event),
                Output::RoomEmpty { room, generation } => {
                    if let Some(hosted) = self.rooms.get_mut(&room)
                        && hosted.generation == generation
                    {
                        hosted.empty = true;
                        self.table.mark_empty(&room, generation);
                    }
                }
            }
        }
    }

    fn deliver(&mut self, to: Vec<ParticipantId>, event: Event) {
        let last = matches!(event, Event::Closed { .. });
        // Links are few: a gateway has one. A linear search beats hashing.
        let mut frames: Vec<(Link, Vec<ParticipantId>)> = Vec::new();
        for participant in to {
            let link = if last {
                self.attached.remove(&participant)
            } else {
                self.attached.get(&participant).cloned()
            };
            let Some(link) = link else { continue };
            match frames.iter_mut().find(|(known, _)| known.id() == link.id()) {
                Some((_, participants)) => participants.push(participant),
                None => frames.push((link, vec![participant])),
            }
        }
        let Some((final_link, final_to)) = frames.pop() else {
            return;
        };
        for (link, to) in frames {
            link.push(NodeFrame::Event {
                to,
                event: event.clone(),
            });
        }
        final_link.push(NodeFrame::Event { to: final_to, event });
    }
}
