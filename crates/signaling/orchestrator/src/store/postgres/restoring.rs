//! Rooms that the map lost in a failover, from what their nodes tell.

use std::collections::{BTreeMap, BTreeSet};

use signalbox_protocol::node::RoomDigest;
use signalbox_protocol::{Generation, NodeId, RoomName};

use super::connections::Connections;
use super::rows::{bigint, room_name, unsigned};
use super::sql;
use crate::Error;

/// The most rooms in one statement. Higher: fewer of them. Lower: each is further from the time that a statement may take.
const AT_ONCE: usize = 2000;

/// Restores what the map does not have, and answers what is not the node's.
pub async fn restore(
    connections: &Connections,
    node: NodeId,
    epoch: i64,
    told: &[RoomDigest],
    by: &str,
) -> Result<Vec<RoomDigest>, Error> {
    let mut stale = Vec::new();
    for told in told.chunks(AT_ONCE) {
        // Mostly the map has all of them, and nothing is written.
        let missing = not_held(connections, node, epoch, told).await?;
        if missing.is_empty() {
            continue;
        }
        restore_missing(connections, node, epoch, &missing, by).await?;
        stale.append(&mut not_held(connections, node, epoch, &missing).await?);
    }
    Ok(stale)
}

async fn not_held(
    connections: &Connections,
    node: NodeId,
    epoch: i64,
    told: &[RoomDigest],
) -> Result<Vec<RoomDigest>, Error> {
    let names: Vec<&str> = told.iter().map(|digest| digest.room.as_str()).collect();
    let query = sqlx::query(sql::HELD).bind(node.0).bind(epoch).bind(names);
    let mut held = BTreeSet::new();
    for row in &connections.rows(query).await? {
        held.insert((room_name(row)?, Generation(unsigned(row, "generation")?)));
    }
    let is_held = |digest: &&RoomDigest| held.contains(&(digest.room.clone(), digest.generation));
    Ok(told.iter().filter(|digest| !is_held(digest)).cloned().collect())
}

async fn restore_missing(
    connections: &Connections,
    node: NodeId,
    epoch: i64,
    missing: &[RoomDigest],
    by: &str,
) -> Result<(), Error> {
    // A statement takes each room once: of several generations of one room the greatest.
    let mut greatest = BTreeMap::<&RoomName, i64>::new();
    for digest in missing {
        if let Some(generation) = bigint(digest.generation.0).filter(|generation| *generation > 0) {
            let known = greatest.entry(&digest.room).or_default();
            *known = generation.max(*known);
        }
    }
    let names: Vec<&str> = greatest.keys().map(|room| room.as_str()).collect();
    let generations: Vec<i64> = greatest.into_values().collect();
    let query = sqlx::query(sql::RESTORE).bind(node.0).bind(epoch).bind(names);
    connections.rows(query.bind(generations).bind(by)).await?;
    Ok(())
}
