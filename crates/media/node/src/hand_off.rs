//! What orchestrators ask of a node whose rooms they move to others: which rooms there are, and to send those in one of them elsewhere.
//!
//! When the order comes the room map has handed the room over already, so there is nothing to agree on and no way back: the node admits
//! nobody more, tells the participants' gateways where to go, and serves who is still there until the last one has gone or the time is
//! over. The same order may come again, as its answer can be lost.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use signalbox_protocol::RoomName;
use signalbox_protocol::node::{HostedRoom, HostedRooms, MoveRoom};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::lease::Boottime;
use crate::node::Node;
use crate::rooms::{Listed, Unmoved};
use crate::shard_command::ShardCommand;

/// How long a room may be served here at most after it was handed over, whatever the orchestrator says. Higher: slow gateways have more
/// time. Lower: an orchestrator at fault holds a node's end up for less.
const MAX_WITHIN: Duration = Duration::from_secs(300);

/// How long a shard may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Why those in a room are not sent elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// The order makes no sense: the new place is this very node, or in no later generation.
    Senseless,
    /// See [`Unmoved`].
    Unmoved(Unmoved),
}

/// The rooms that the node hosts and how many participants each has. None while it holds no lease.
pub async fn hosted(node: &Node) -> HostedRooms {
    let mut counts: HashMap<RoomName, u32> = HashMap::new();
    for shard in &node.shards {
        let (answer, counted) = oneshot::channel();
        let asked = timeout(ANSWER, async {
            shard.send(ShardCommand::Count { answer }).await;
            counted.await
        });
        // The rooms of a shard that does not answer in time look empty: it has other worries.
        if let Ok(Ok(counted)) = asked.await {
            counts.extend(counted);
        }
    }
    if node.lease.epoch(Boottime::now()).is_none() {
        return HostedRooms::default();
    }
    let rooms = node.rooms.list().into_iter().map(|listed| {
        let Listed {
            room,
            generation,
            moving,
        } = listed;
        HostedRoom {
            participants: counts.get(&room).copied().unwrap_or_default(),
            room,
            generation,
            moving,
        }
    });
    HostedRooms { rooms: rooms.collect() }
}

/// Sends those in a room to the node that has it now. Their gateways' news are in the links' queues when this returns.
///
/// # Errors
/// See [`Failed`].
pub async fn begin(node: &Node, order: MoveRoom) -> Result<(), Failed> {
    let MoveRoom {
        generation,
        to,
        within_ms,
    } = order;
    if to.node == node.id || to.generation <= generation {
        return Err(Failed::Senseless);
    }
    if node.lease.epoch(Boottime::now()).is_none() {
        return Err(Failed::Unmoved(Unmoved::NotHosted));
    }
    let within = Duration::from_millis(within_ms).min(MAX_WITHIN);
    let (room, target, later) = (to.room.clone(), to.node, to.generation);
    let (done, told) = oneshot::channel();
    let command = ShardCommand::Move {
        room: room.clone(),
        generation,
        to: Box::new(to),
        until: Instant::now() + within,
        done,
    };
    let begun = node.rooms.begin_move(&room, generation, later, |index| {
        node.shards.get(index).map_or(Ok(()), |shard| shard.give(command))
    });
    begun.map_err(Failed::Unmoved)?;
    // It is in the queue: only the answer may be late.
    let told = timeout(ANSWER, told).await;
    tracing::info!(%room, %generation, to = %target, "the room moves to another node");
    match told {
        Ok(_) => Ok(()),
        Err(_) => Err(Failed::Unmoved(Unmoved::Busy)),
    }
}
