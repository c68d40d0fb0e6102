//! One room is handed over: first in the map, which is the truth, then its node is told.

use std::sync::Arc;
use std::time::Duration;

use signalbox_protocol::history::Drained;
use signalbox_protocol::node::MoveRoom;
use signalbox_protocol::placement::CloseRoom;
use signalbox_protocol::{Generation, RoomName};
use tokio::time::{Instant, timeout};

use crate::store::{Assignment, Store};
use crate::{Error, Service};

/// How long those in a room that moves are still served at the old node. Higher: slow gateways have more time. Lower: a node is empty sooner.
pub const WITHIN: Duration = Duration::from_secs(10);

/// How long a node may take to say which rooms it has, and to take in that one moves.
pub const ANSWER: Duration = Duration::from_secs(2);

/// How often a node is told that a room moves.
const TELL: u32 = 3;

/// The pause before a node is told again.
const PAUSE: Duration = Duration::from_millis(250);

/// What became of handing one room over.
pub enum Moved {
    /// It is at another node, since then.
    Yes(Instant),
    /// Nobody takes it at present.
    Stuck,
    /// It was closed, or somebody else has moved it.
    Gone,
}

/// Hands the room over, and tells the node.
pub async fn move_room<S: Store>(
    service: &Arc<Service<S>>,
    control: &str,
    room: &RoomName,
    owner: &CloseRoom,
    drained: Drained,
) -> Result<Moved, Error> {
    let orchestrators = service.sight().borrow().orchestrators.max(1);
    let asked = service.uptime();
    let handed = service
        .placer
        .hand_off(&service.store, room, owner, drained, orchestrators)
        .await?;
    let Some(assignment) = handed else {
        let still = service.store.find(room).await?;
        let is_owners = still.is_some_and(|found| {
            (found.node, found.epoch, found.generation) == (owner.node, owner.epoch, owner.generation)
        });
        return Ok(if is_owners { Moved::Stuck } else { Moved::Gone });
    };
    service.known_rooms().closed(room, owner.generation);
    service.known_rooms().insert(assignment.clone(), asked);
    tracing::info!(%room, from = %owner.node, to = %assignment.node, generation = %assignment.generation, "a room is handed to another node");
    let at = Instant::now();
    tell(service, control, owner.generation, assignment).await?;
    Ok(Moved::Yes(at))
}

/// Tells a node that a room, which it hosts in this generation, is elsewhere now.
pub async fn tell<S: Store>(
    service: &Arc<Service<S>>,
    control: &str,
    generation: Generation,
    assignment: Assignment,
) -> Result<(), Error> {
    let order = MoveRoom {
        generation,
        to: service.placement(assignment)?,
        within_ms: u64::try_from(WITHIN.as_millis()).unwrap_or(u64::MAX),
    };
    for _ in 0..TELL {
        if timeout(ANSWER, service.ask.send_on(control, &order)).await == Ok(true) {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    tracing::warn!(room = %order.to.room, control, "a node could not be told that a room has moved; it is told again while it is drained");
    Ok(())
}
