//! Which node a room is on, as far as this gateway remembers.
//!
//! A remembered placement is a hint; the node's check of the ticket is the truth, and whoever is refused calls
//! [`Placements::forget`]. While one request asks for a room, all others for the same room wait for its answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use signalbox_protocol::placement::{PlaceRoom, Placement};
use signalbox_protocol::{Epoch, Identity, NodeId, RoomName};
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::moves::recovery::Place;
use crate::orchestrators::{Orchestrators, Placed};
use crate::problem::ApiError;
use crate::routing::Wish;

/// How many rooms are remembered. Higher: more memory (about 1 KiB each). Lower: the orchestrator is asked more often.
const MAX_ROOMS: usize = 20_000;

/// A ticket is not used in its last part: it has to reach the node before it expires, by the node's clock.
const TICKET_MARGIN: Duration = Duration::from_secs(5);

/// How long a room's node is remembered after its ticket has expired, for requests that need no ticket while no orchestrator answers.
const LOCATION_LIFETIME: Duration = Duration::from_secs(600);

/// A placement younger than this is taken to be true even when the node does not know the participant.
const SURELY_TRUE: Duration = Duration::from_secs(1);

/// What a placement is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Its ticket, so it must not be expired.
    Ticket,
    /// The same, of a room that exists: nobody is there to receive from in one that is placed for the purpose.
    OpenRoom,
    /// The node only, of a room that exists: it is not placed for that. When no orchestrator answers, an expired one is better than none.
    Location,
}

/// Who asks for a room, which matters if it has to be placed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Asker<'a> {
    pub(crate) user: Option<&'a Identity>,
    pub(crate) wish: Option<&'a Wish>,
}

/// A room's place.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) placement: Arc<Placement>,
    /// It was remembered for so long that the room may have moved since.
    pub(crate) may_be_outdated: bool,
}

#[derive(Debug, Default)]
struct Entry {
    known: Option<Known>,
    /// The last failure, shared by all who were waiting when it happened: each waiting out its own would take for ever.
    failed: Option<(Instant, ApiError)>,
}

#[derive(Debug)]
struct Known {
    placement: Arc<Placement>,
    /// The orchestrator that said so.
    by: usize,
    asked_at: Instant,
    ticket_until: Instant,
    forgotten: bool,
}

/// A cell of its own for each room, so that asking for one holds up no other.
type Cell = Arc<tokio::sync::Mutex<Entry>>;

/// The memory of placements.
#[derive(Debug)]
pub(crate) struct Placements {
    orchestrators: Arc<Orchestrators>,
    metrics: Arc<Metrics>,
    rooms: Mutex<HashMap<RoomName, Cell>>,
}

impl Placements {
    pub(crate) fn new(orchestrators: Arc<Orchestrators>, metrics: Arc<Metrics>) -> Self {
        Self {
            orchestrators,
            metrics,
            rooms: Mutex::default(),
        }
    }

    /// Where the room is, from memory or from an orchestrator, which for a [`Need::Ticket`] places it for the asker if it is nowhere.
    ///
    /// # Errors
    /// As [`Orchestrators::place`].
    pub(crate) async fn find(&self, room: &RoomName, asker: Asker<'_>, need: Need) -> Result<Found, ApiError> {
        self.find_but(room, asker, need, None).await
    }

    /// The same; if the room has to be placed, elsewhere than on the node that has lost it.
    async fn find_but(
        &self,
        room: &RoomName,
        asker: Asker<'_>,
        need: Need,
        lost: Option<NodeId>,
    ) -> Result<Found, ApiError> {
        let came_at = Instant::now();
        let cell = self.cell(room);
        let mut entry = cell.lock().await;
        if let Some(known) = &entry.known
            && !known.forgotten
            && Instant::now() < known.ticket_until
        {
            self.metrics.placements_cached.increment();
            return Ok(known.found());
        }
        if let Some((at, error)) = &entry.failed
            && *at >= came_at
        {
            return entry.location(need).ok_or_else(|| error.clone());
        }
        if self.orchestrators.nobody_serves()
            && let Some(found) = entry.location(need)
        {
            return Ok(found);
        }
        self.metrics.placements_asked.increment();
        let asked_at = Instant::now();
        let request = PlaceRoom {
            user: asker.user.map(Identity::to_string),
            lost,
            find_only: need != Need::Ticket,
            ..PlaceRoom::new(room.clone())
        };
        let request = match asker.wish {
            Some(wish) => wish.put_into(request),
            None => request,
        };
        let knew = entry.known.as_ref().map(|known| known.by);
        match self.orchestrators.place(&request, knew).await {
            Ok(Placed { placement, by }) => {
                // It is about who asks, so whoever finds it in the memory must not think that it is about itself.
                if placement.by_canary_share
                    && let Some(wish) = asker.wish
                {
                    wish.group.place();
                }
                let lifetime = Duration::from_secs(placement.ticket_seconds);
                let known = Known {
                    placement: Arc::new(placement),
                    by,
                    asked_at,
                    ticket_until: asked_at + lifetime.saturating_sub(TICKET_MARGIN),
                    forgotten: false,
                };
                let found = known.found();
                *entry = Entry {
                    known: Some(known),
                    failed: None,
                };
                Ok(found)
            }
            // Nobody who waits to join has asked this.
            Err(ApiError::NoRoom) => Err(ApiError::NoRoom),
            Err(error) => {
                entry.failed = Some((Instant::now(), error.clone()));
                entry.location(need).ok_or(error)
            }
        }
    }

    /// Where a room is that was lost at `from`, which is not believed from memory.
    ///
    /// # Errors
    /// As [`Orchestrators::place`].
    pub(crate) async fn find_anew(
        &self,
        room: &RoomName,
        user: Option<&Identity>,
        from: Place,
    ) -> Result<Arc<Placement>, ApiError> {
        let cell = self.cell(room);
        let forget = || {
            if let Ok(mut entry) = cell.try_lock()
                && let Some(known) = &mut entry.known
                && Place::of(&known.placement) == from
            {
                known.forgotten = true;
            }
        };
        forget();
        let asker = Asker { user, wish: None };
        let found = self.find_but(room, asker, Need::Ticket, Some(from.node)).await?;
        // It may still say so for a while; joins have to ask again as well.
        forget();
        Ok(found.placement)
    }

    /// A node has said where a room is from now on.
    pub(crate) fn learn(&self, placement: &Arc<Placement>) {
        let cell = self.cell(&placement.room);
        if let Ok(mut entry) = cell.try_lock() {
            let is_news = entry
                .known
                .as_ref()
                .is_none_or(|known| known.placement.generation < placement.generation);
            if is_news {
                let asked_at = Instant::now();
                let lifetime = Duration::from_secs(placement.ticket_seconds);
                entry.known = Some(Known {
                    placement: Arc::clone(placement),
                    by: entry.known.as_ref().map_or(0, |known| known.by),
                    asked_at,
                    ticket_until: asked_at + lifetime.saturating_sub(TICKET_MARGIN),
                    forgotten: false,
                });
            }
        }
    }

    /// This placement did not serve: ask anew the next time. One that was asked for since then stays.
    pub(crate) fn forget(&self, room: &RoomName, placement: &Placement) {
        let cell = self.lock().get(room).cloned();
        // Locked: somebody is asking at this moment, which is what forgetting would lead to.
        if let Some(mut entry) = cell.as_deref().and_then(|cell| cell.try_lock().ok())
            && let Some(known) = &mut entry.known
            && known.placement.ticket == placement.ticket
        {
            known.forgotten = true;
        }
    }

    /// The node is gone: ask anew for all of its rooms. About a millisecond, for the whole memory.
    pub(crate) fn forget_node(&self, node: NodeId, epoch: Epoch) {
        for cell in self.lock().values() {
            if let Ok(mut entry) = cell.try_lock()
                && let Some(known) = &mut entry.known
                && (known.placement.node, known.placement.epoch) == (node, epoch)
            {
                known.forgotten = true;
            }
        }
    }

    fn cell(&self, room: &RoomName) -> Cell {
        let mut rooms = self.lock();
        if let Some(cell) = rooms.get(room) {
            return Arc::clone(cell);
        }
        if rooms.len() >= MAX_ROOMS {
            make_room(&mut rooms);
        }
        Arc::clone(rooms.entry(room.clone()).or_default())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RoomName, Cell>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// What is left when no orchestrator answers.
    fn location(&self, need: Need) -> Option<Found> {
        let known = self.known.as_ref()?;
        let usable = need == Need::Location && !known.forgotten && known.asked_at.elapsed() < LOCATION_LIFETIME;
        usable.then(|| known.found())
    }
}

impl Known {
    fn found(&self) -> Found {
        Found {
            placement: Arc::clone(&self.placement),
            may_be_outdated: self.asked_at.elapsed() > SURELY_TRUE,
        }
    }
}

/// Drops what has expired, and if that is not enough, a quarter of the rest: whole sweeps are rare that way.
fn make_room(rooms: &mut HashMap<RoomName, Cell>) {
    let now = Instant::now();
    rooms.retain(|_, cell| match cell.try_lock() {
        Ok(entry) => entry.known.as_ref().is_some_and(|known| now < known.ticket_until),
        Err(_) => true,
    });
    let mut excess = rooms.len().saturating_sub(MAX_ROOMS * 3 / 4);
    rooms.retain(|_, _| {
        let keep = excess == 0;
        excess = excess.saturating_sub(1);
        keep
    });
}
