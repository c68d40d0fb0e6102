//! Which rooms the node hosts, in which generation, on which shard; and which generations it has closed.
//!
//! **A generation of a room lives once.** It is opened by a ticket that names it, it admits by tickets that name it and no other, and when it
//! is closed it stays closed. A higher generation replaces a lower one: the orchestrator places a room anew only after the old
//! placement was closed or fenced, so a ticket for the higher one proves that the lower one is dead. A lower one is a ticket
//! that was overtaken.
//!
//! **A room that moves is another node's already**, in a higher generation, and is only served here until those in it have gone there. Nobody
//! enters it, no heartbeat names it, and it is neither closed in agreement with the orchestrator nor ended as stale.
//!
//! What enters a room is decided and handed to the room's shard under one lock, so that what is decided first also arrives
//! first: after a room was marked as closing, whatever its shard is asked comes behind the last admission.
//!
//! It must not know how tickets are signed, nor what a shard does.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use signalbox_protocol::control::{Refusal, RefusalReason};
use signalbox_protocol::node::RoomDigest;
use signalbox_protocol::{ClusterId, Generation, RoomName, ticket};
use tokio::sync::Notify;

/// How long a closed generation is remembered: far longer than any ticket for it can live, so that neither a ticket's lifetime nor
/// the difference between two machines' clocks brings it back. Higher: more memory. Lower: clocks must agree better.
pub const CLOSED_MEMORY: Duration = Duration::from_secs(20 * ticket::LIFETIME_SECONDS);

/// How many closed generations are remembered. When there are more, no room is opened until the oldest are forgotten: to forget
/// one early could bring a dead room back. Higher: more memory (up to 600 bytes each). Lower: less turnover of rooms.
pub const MAX_CLOSED: usize = 100_000;

/// How many tickets for closed generations wait to be looked into. Of more, the later ones are not: the next ticket of the kind is.
pub const MAX_DOUBTED: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// It is empty, and the orchestrator is asked.
    Closing,
    /// It is not this node's any more, and ends.
    Stale,
    /// It is another node's, in this generation, and those in it are on their way there.
    Moving(Generation),
}

#[derive(Debug, Clone, Copy)]
struct Hosted {
    generation: Generation,
    shard: usize,
    state: State,
}

#[derive(Debug)]
struct Table {
    hosted: HashMap<RoomName, Hosted>,
    /// Rooms on each shard.
    rooms: Vec<usize>,
    closed: HashMap<RoomName, (Generation, Instant)>,
    /// The above by age, oldest first; entries that were replaced are skipped.
    closed_by_age: VecDeque<(Instant, RoomName)>,
    emptied: VecDeque<Emptied>,
    /// Generations that are closed here, and that somebody had a ticket for.
    doubted: VecDeque<(RoomName, Generation)>,
    /// The cluster whose generations these are.
    cluster: Option<ClusterId>,
    stopping: bool,
}

/// Why a room does not begin to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmoved {
    /// It is not hosted here in that generation, or ends.
    NotHosted,
    /// It moves already, to a later generation.
    Overtaken,
    /// Its shard has too much to do.
    Busy,
}

/// A hosted room, by what the table knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Which.
    pub room: RoomName,
    /// In which generation.
    pub generation: Generation,
    /// It is on its way to another node.
    pub moving: bool,
}

/// A room that became empty and is closing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emptied {
    /// Which.
    pub room: RoomName,
    /// In which generation.
    pub generation: Generation,
    /// The shard that hosts it.
    pub shard: usize,
}

/// The table, shared by all threads of the node. Its lock is held for a few map operations at a time.
#[derive(Debug)]
pub struct Rooms {
    table: Mutex<Table>,
    emptied: Notify,
    doubted: Notify,
    left: Notify,
    max_hosted: usize,
    max_closed: usize,
}

impl Rooms {
    /// An empty table for this many shards, which hosts at most `max_hosted` rooms.
    pub fn new(shards: usize, max_hosted: usize) -> Self {
        Self {
            table: Mutex::new(Table {
                hosted: HashMap::new(),
                rooms: vec![0; shards],
                closed: HashMap::new(),
                closed_by_age: VecDeque::new(),
                emptied: VecDeque::new(),
                doubted: VecDeque::new(),
                cluster: None,
                stopping: false,
            }),
            emptied: Notify::new(),
            doubted: Notify::new(),
            left: Notify::new(),
            max_hosted,
            max_closed: MAX_CLOSED,
        }
    }

    /// Decides whether a ticket for this generation opens or enters the room, and on which shard; `hand_over` gives the
    /// request to that shard without waiting. When it fails, nothing has changed. The caller has checked that the ticket is genuine and that its epoch
    /// is held.
    ///
    /// `load(shard)` is how many participants a shard has: a room is opened on the least loaded one, and stays there.
    ///
    /// # Errors
    /// [`RefusalReason::Ticket`] when the generation is closed or overtaken, [`RefusalReason::Closing`] while the room closes,
    /// [`RefusalReason::Full`] when no room can be opened, and what `hand_over` returns.
    pub fn enter(
        &self,
        room: &RoomName,
        generation: Generation,
        now: Instant,
        load: impl Fn(usize) -> u64,
        hand_over: impl FnOnce(usize) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut table = self.table();
        table.forget_closed(now);
        if table.stopping {
            return Err(Refusal::new(
                RefusalReason::Full,
                "The node is stopping; ask the orchestrator anew.",
            ));
        }
        if table.closed.get(room).is_some_and(|(closed, _)| generation <= *closed) {
            if table.doubt(room, generation) {
                self.doubted.notify_one();
            }
            return Err(overtaken());
        }
        let hosted = table.hosted.get(room).copied();
        let shard = match hosted {
            Some(hosted) if generation < hosted.generation => return Err(overtaken()),
            Some(hosted) if generation == hosted.generation && hosted.state == State::Closing => {
                return Err(Refusal::new(
                    RefusalReason::Closing,
                    "The room is being closed here; ask the orchestrator anew in a moment.",
                ));
            }
            Some(hosted)
                if generation == hosted.generation && matches!(hosted.state, State::Stale | State::Moving(_)) =>
            {
                return Err(overtaken());
            }
            // A replaced generation keeps its shard, whose queue then puts the old one's end before the new one's start.
            Some(hosted) => hosted.shard,
            None => table.least_loaded(load).ok_or_else(|| {
                Refusal::new(
                    RefusalReason::Full,
                    "The node has no shard for the room; ask the orchestrator anew.",
                )
            })?,
        };
        if hosted.is_none() && table.hosted.len() >= self.max_hosted {
            return Err(Refusal::new(
                RefusalReason::Full,
                "The node hosts as many rooms as it can; ask the orchestrator anew.",
            ));
        }
        let remembers = match hosted {
            None => true,
            Some(hosted) => hosted.generation < generation,
        };
        if remembers && table.closed.len() >= self.max_closed {
            return Err(Refusal::new(
                RefusalReason::Full,
                "The node has closed too many rooms of late; ask the orchestrator anew.",
            ));
        }
        hand_over(shard)?;
        match hosted {
            Some(hosted) if hosted.generation == generation => return Ok(()),
            Some(hosted) => table.remember_closed(room, hosted.generation, now),
            None => table.count(shard, 1),
        }
        table.hosted.insert(
            room.clone(),
            Hosted {
                generation,
                shard,
                state: State::Open,
            },
        );
        Ok(())
    }

    /// The shard of a room that is hosted here.
    pub fn shard_of(&self, room: &RoomName) -> Option<usize> {
        self.table().hosted.get(room).map(|hosted| hosted.shard)
    }

    /// Whether this generation of the room is still hosted here.
    pub fn hosts(&self, room: &RoomName, generation: Generation) -> bool {
        self.table()
            .hosted
            .get(room)
            .is_some_and(|hosted| hosted.generation == generation)
    }

    /// A shard says that the room is empty: it begins to close, and [`Rooms::next_emptied`] gives it once.
    pub fn mark_empty(&self, room: &RoomName, generation: Generation) {
        let mut table = self.table();
        if let Some(hosted) = table.hosted.get_mut(room)
            && hosted.generation == generation
            && hosted.state == State::Open
        {
            hosted.state = State::Closing;
            let shard = hosted.shard;
            table.emptied.push_back(Emptied {
                room: room.clone(),
                generation,
                shard,
            });
            self.emptied.notify_one();
        }
    }

    /// Waits for a room that became empty. For one caller at a time.
    pub async fn next_emptied(&self) -> Emptied {
        loop {
            if let Some(emptied) = self.table().emptied.pop_front() {
                return emptied;
            }
            self.emptied.notified().await;
        }
    }

    /// Waits for a generation that is closed here, and that somebody had a ticket for. Most such tickets are only late; but a map that has lost
    /// the closing in a failover gives them out until it is told again. For one caller at a time.
    pub async fn next_doubted(&self) -> (RoomName, Generation) {
        loop {
            if let Some(doubted) = self.table().doubted.pop_front() {
                return doubted;
            }
            self.doubted.notified().await;
        }
    }

    /// Someone had entered before the room was marked: it goes on.
    pub fn unmark_empty(&self, room: &RoomName, generation: Generation) {
        if let Some(hosted) = self.table().hosted.get_mut(room)
            && hosted.generation == generation
            && hosted.state == State::Closing
        {
            hosted.state = State::Open;
        }
    }

    /// An orchestrator says that this generation is not the node's: from now on nobody enters it. The shard that is to end it, if
    /// it is hosted here and was not marked before.
    pub fn mark_stale(&self, room: &RoomName, generation: Generation) -> Option<usize> {
        let mut table = self.table();
        let hosted = table.hosted.get_mut(room)?;
        if hosted.generation != generation || matches!(hosted.state, State::Stale | State::Moving(_)) {
            return None;
        }
        hosted.state = State::Stale;
        Some(hosted.shard)
    }

    /// Whether it was called stale, and has neither ended nor begun to move since.
    pub fn is_stale(&self, room: &RoomName, generation: Generation) -> bool {
        let table = self.table();
        let hosted = table.hosted.get(room);
        hosted.is_some_and(|hosted| hosted.generation == generation && hosted.state == State::Stale)
    }

    /// The room is another node's from now on, in generation `to`: nobody enters it here any more. `hand_over` tells its shard, without
    /// waiting; when that fails, nothing has changed. Of a room that moves already this changes where to.
    ///
    /// # Errors
    /// See [`Unmoved`].
    pub fn begin_move(
        &self,
        room: &RoomName,
        generation: Generation,
        to: Generation,
        hand_over: impl FnOnce(usize) -> Result<(), Refusal>,
    ) -> Result<(), Unmoved> {
        let mut table = self.table();
        let hosted = table.hosted.get_mut(room).ok_or(Unmoved::NotHosted)?;
        if hosted.generation != generation {
            return Err(Unmoved::NotHosted);
        }
        if matches!(hosted.state, State::Moving(known) if known > to) {
            return Err(Unmoved::Overtaken);
        }
        hand_over(hosted.shard).map_err(|_| Unmoved::Busy)?;
        hosted.state = State::Moving(to);
        Ok(())
    }

    /// The generation is closed for good.
    pub fn closed(&self, room: &RoomName, generation: Generation, now: Instant) {
        let mut table = self.table();
        if table
            .hosted
            .get(room)
            .is_some_and(|hosted| hosted.generation == generation)
            && let Some(hosted) = table.hosted.remove(room)
        {
            table.count(hosted.shard, -1);
        }
        table.remember_closed(room, generation, now);
        if table.hosted.is_empty() {
            self.left.notify_one();
        }
    }

    /// Waits until no room is hosted. For one caller at a time.
    pub async fn until_empty(&self) {
        while !self.is_empty() {
            self.left.notified().await;
        }
    }

    /// Forgets every hosted room: the epoch is over, and with it every ticket that named it.
    pub fn fence(&self) {
        let mut table = self.table();
        table.hosted.clear();
        table.emptied.clear();
        table.doubted.clear();
        table.rooms.fill(0);
        self.left.notify_one();
    }

    /// The node has registered with this cluster. Another one's generations say nothing about its own: what was closed there is
    /// forgotten, as no ticket of it is good any more.
    pub fn set_cluster(&self, cluster: ClusterId) {
        let mut table = self.table();
        if table.cluster.replace(cluster).is_some_and(|last| last != cluster) {
            table.closed.clear();
            table.closed_by_age.clear();
        }
    }

    /// Lets nobody in any more.
    pub fn stop(&self) {
        self.table().stopping = true;
    }

    /// Every room that is this node's, for a heartbeat that names them.
    pub fn digests(&self) -> Vec<RoomDigest> {
        let table = self.table();
        let own = table.hosted.iter();
        own.filter(|(_, hosted)| !matches!(hosted.state, State::Moving(_)))
            .map(|(room, hosted)| RoomDigest {
                room: room.clone(),
                generation: hosted.generation,
            })
            .collect()
    }

    /// Every hosted room, those that move among them.
    pub fn list(&self) -> Vec<Listed> {
        let table = self.table();
        let hosted = table.hosted.iter();
        hosted
            .map(|(room, hosted)| Listed {
                room: room.clone(),
                generation: hosted.generation,
                moving: matches!(hosted.state, State::Moving(_)),
            })
            .collect()
    }

    /// How many rooms are hosted.
    pub fn len(&self) -> usize {
        self.table().hosted.len()
    }

    /// Whether no room is hosted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // A panic while it is held would be in a map operation or in handing over to a channel; neither leaves the table torn.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn least_loaded(&self, load: impl Fn(usize) -> u64) -> Option<usize> {
        self.rooms
            .iter()
            .enumerate()
            // A room counts like a participant: one that was just opened has none yet, and must not draw the next.
            .min_by_key(|&(shard, &rooms)| load(shard).saturating_add(rooms as u64))
            .map(|(shard, _)| shard)
    }

    fn count(&mut self, shard: usize, change: isize) {
        if let Some(rooms) = self.rooms.get_mut(shard) {
            *rooms = rooms.saturating_add_signed(change);
        }
    }

    /// False: it is doubted already, or too many are.
    fn doubt(&mut self, room: &RoomName, generation: Generation) -> bool {
        let doubted = (room.clone(), generation);
        let fits = self.doubted.len() < MAX_DOUBTED && !self.doubted.contains(&doubted);
        if fits {
            self.doubted.push_back(doubted);
        }
        fits
    }

    fn remember_closed(&mut self, room: &RoomName, generation: Generation, now: Instant) {
        let until = now + CLOSED_MEMORY;
        let entry = self.closed.entry(room.clone()).or_insert((generation, until));
        *entry = (entry.0.max(generation), until);
        self.closed_by_age.push_back((until, room.clone()));
    }

    fn forget_closed(&mut self, now: Instant) {
        while let Some((until, _)) = self.closed_by_age.front()
            && *until <= now
            && let Some((until, room)) = self.closed_by_age.pop_front()
        {
            if self.closed.get(&room).is_some_and(|(_, latest)| *latest == until) {
                self.closed.remove(&room);
            }
        }
    }
}

fn overtaken() -> Refusal {
    Refusal::new(
        RefusalReason::Ticket,
        "This placement of the room is over; ask the orchestrator anew.",
    )
}

#[cfg(test)]
mod tests;
