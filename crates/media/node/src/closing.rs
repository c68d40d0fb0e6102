//! Closes rooms that have become empty, in agreement with the orchestrator.
//!
//! 1. The core calls the room empty; from then on admission refuses ([`crate::rooms::Rooms::mark_empty`]).
//! 2. The shard is asked again, behind the last admission: someone may have come in between, and then the room goes on.
//! 3. The orchestrator is asked to close this generation, until it answers.
//! 4. The room ends here, and its generation is never opened again.
//!
//! **Only an answer ends step 3; a failure is no answer.** A call that timed out may have taken effect: then the room is free, and the
//! orchestrator may have placed its next generation on another node already. If this node took the failure for a no and let people in
//! again, the room would live twice, and its participants would not meet. Until the answer comes, joins are told to ask
//! the orchestrator anew, which always leads to the one live placement. Whether the answer says that this call closed it or an
//! earlier one did is all the same. If none comes at all, the lease ends, and all rooms with it.
//!
//! A room that the orchestrator calls stale is the other way round: the map has it elsewhere, or in another generation, so there is
//! nothing to agree on. Nobody enters it any more, and it ends soon, whoever is in it ([`close_stale`]), unless it turns out to have been handed over: the map
//! knows that before the node does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use signalbox_protocol::control::CloseReason;
use signalbox_protocol::node::RoomDigest;
use signalbox_protocol::placement::{CloseRoom, RoomClosed};
use signalbox_protocol::{Generation, RoomName};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::Backoff;
use crate::counters::Counters;
use crate::lease::Boottime;
use crate::node::Node;
use crate::rooms::Emptied;
use crate::shard_command::ShardCommand;

/// How many rooms are closed at a time. Higher: more calls to the orchestrator at once. Lower: rooms that were emptied
/// together end later.
const AT_A_TIME: usize = 16;

/// How long one call may take. Higher: slow answers are waited for. Lower: a dead orchestrator is left sooner.
const CALL: Duration = Duration::from_secs(2);

/// How long a stale room may still turn out to be one that moves. Higher: those in one that does not are among themselves for longer. Lower: an order to
/// move that is late ends calls instead.
const MAY_MOVE: Duration = Duration::from_secs(1);

/// Closes what becomes empty, until `stop`.
pub async fn run(node: Arc<Node>, stop: CancellationToken) {
    let tasks = TaskTracker::new();
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let work = async {
        loop {
            let emptied = node.rooms.next_emptied().await;
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let node = Arc::clone(&node);
            let stop = stop.clone();
            tasks.spawn(async move {
                stop.run_until_cancelled(close(&node, &emptied)).await;
                drop(place);
            });
        }
    };
    stop.run_until_cancelled(async { tokio::join!(work, close_again(&node)) })
        .await;
    tasks.close();
    tasks.wait().await;
}

/// Tells of generations that are closed here, and that somebody had a ticket for. Only a map that has lost the closing, in a failover to a
/// standby that lagged, is changed by it; without it that room would have no way in.
async fn close_again(node: &Node) {
    loop {
        let (room, generation) = node.rooms.next_doubted().await;
        let Some(epoch) = node.lease.epoch(Boottime::now()) else {
            continue;
        };
        let body = CloseRoom {
            node: node.id,
            epoch,
            generation,
        };
        let path = ["v1", "rooms", room.as_str(), "close"];
        // One that fails is not repeated: the next ticket leads here again.
        if let Ok(answer) = node.orchestrators.call::<RoomClosed>(&path, &body, CALL).await
            && answer.closed
        {
            tracing::warn!(%room, %generation, "the map did not know that the room had been closed");
        }
    }
}

/// Closes those of these rooms that the node hosts in exactly these generations, and that do not move.
pub async fn close_stale(node: &Node, stale: &[RoomDigest]) {
    let stale: Vec<(&RoomDigest, usize)> = stale
        .iter()
        .filter_map(|digest| Some((digest, node.rooms.mark_stale(&digest.room, digest.generation)?)))
        .collect();
    if !stale.is_empty() {
        sleep(MAY_MOVE).await;
    }
    for (RoomDigest { room, generation }, shard) in stale {
        if !node.rooms.is_stale(room, *generation) {
            continue;
        }
        // As when the node is lost: its clients shall join again, and find the room where it is now.
        end(node, room, *generation, shard, CloseReason::NodeGone).await;
        Counters::add(&node.counters.rooms_stale);
        tracing::warn!(%room, %generation, "the room is not this node's any more; it is closed");
    }
}

async fn close(node: &Node, emptied: &Emptied) {
    let Emptied {
        room,
        generation,
        shard,
    } = emptied;
    let Some(shard) = node.shards.get(*shard) else { return };
    let (answer, is_empty) = oneshot::channel();
    let asked = ShardCommand::IsEmpty {
        room: room.clone(),
        generation: *generation,
        answer,
    };
    if !shard.send(asked).await {
        return;
    }
    if is_empty.await == Ok(false) {
        node.rooms.unmark_empty(room, *generation);
        return;
    }
    if !agree(node, emptied).await {
        return;
    }
    end(node, room, *generation, emptied.shard, CloseReason::RoomClosed).await;
    Counters::add(&node.counters.rooms_closed);
    tracing::info!(%room, %generation, "room closed");
}

/// Ends a room that nobody enters any more.
async fn end(node: &Node, room: &RoomName, generation: Generation, shard: usize, reason: CloseReason) {
    if let Some(shard) = node.shards.get(shard) {
        let (done, closed) = oneshot::channel();
        let end = ShardCommand::CloseRoom {
            room: room.clone(),
            generation,
            reason,
            done,
        };
        if shard.send(end).await {
            // An error means that the thread has ended, and the room with it.
            let _ = closed.await;
        }
    }
    node.rooms.closed(room, generation, Instant::now());
}

/// Asks until there is an answer. False: the room has ended otherwise.
async fn agree(node: &Node, emptied: &Emptied) -> bool {
    let Emptied { room, generation, .. } = emptied;
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let mut failing = false;
    loop {
        let Some(epoch) = node.lease.epoch(Boottime::now()) else {
            return false;
        };
        if !node.rooms.hosts(room, *generation) {
            return false;
        }
        let body = CloseRoom {
            node: node.id,
            epoch,
            generation: *generation,
        };
        let path = ["v1", "rooms", room.as_str(), "close"];
        match node.orchestrators.call::<RoomClosed>(&path, &body, CALL).await {
            Ok(_) => return true,
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(%room, %generation, %error, "the orchestrator does not say whether the room is closed; asking until it does");
            }
            Err(_) => {}
        }
        let pause = backoff.next(&mut rand::rng());
        sleep(pause).await;
    }
}
