//! Nodes that are emptied: one row for each.

use std::time::Duration;

use signalbox_protocol::NodeId;
use signalbox_protocol::node::{Asker, Drain, DrainNode, DrainState};
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::types::Uuid;

use super::connections::Connections;
use super::rows::unsigned;
use crate::Error;
use crate::store::{DrainNote, DrainRecord};
use signalbox_protocol::Epoch;

/// `$1` node, `$2` rate, `$3` seconds until the deadline, or null, `$4` who asks.
const BEGIN: &str = "
    WITH node AS (
        UPDATE media_node SET state = 'draining' WHERE node_id = $1 AND state <> 'lost' RETURNING node_id, epoch
    )
    INSERT INTO drain AS d (node_id, epoch, rate, deadline, state, began_at, asked_by)
    SELECT node_id, epoch, $2, clock_timestamp() + make_interval(secs => $3::float8), 'running', clock_timestamp(), $4 FROM node
    ON CONFLICT (node_id) DO UPDATE
       SET rate = excluded.rate, deadline = excluded.deadline, epoch = excluded.epoch, state = 'running', ended_at = NULL,
           moved = CASE WHEN d.state = 'running' AND d.epoch = excluded.epoch THEN d.moved ELSE 0 END,
           stuck = CASE WHEN d.state = 'running' AND d.epoch = excluded.epoch THEN d.stuck ELSE 0 END,
           leaving = CASE WHEN d.state = 'running' AND d.epoch = excluded.epoch THEN d.leaving END,
           moved_at = CASE WHEN d.state = 'running' AND d.epoch = excluded.epoch THEN d.moved_at END,
           asked_by = CASE WHEN d.state = 'running' AND d.epoch = excluded.epoch THEN d.asked_by ELSE excluded.asked_by END,
           began_at = CASE WHEN d.state = 'running' AND d.epoch = excluded.epoch THEN d.began_at ELSE excluded.began_at END,
           claimed_by = CASE WHEN d.state = 'running' AND d.epoch = excluded.epoch THEN d.claimed_by END,
           claimed_until = CASE WHEN d.state = 'running' AND d.epoch = excluded.epoch THEN d.claimed_until END
    RETURNING node_id";

/// `$1` nodes. How they stand; one that is not current any more, and was not ended, is lost.
const LOOK: &str = "
    SELECT d.node_id, d.epoch, d.rate, d.moved, d.stuck, d.leaving, d.asked_by, coalesce(d.claimed_by, '') AS by, n.control,
           CASE WHEN d.state = 'running' AND (n.state = 'lost' OR n.epoch <> d.epoch) THEN 'lost' ELSE d.state END AS state,
           (SELECT count(*) FROM room r
             WHERE r.node_id = d.node_id AND r.node_epoch = d.epoch AND r.closed_at IS NULL) AS rooms_left,
           greatest(floor(extract(epoch FROM clock_timestamp() - d.began_at) * 1000)::bigint, 0) AS age_ms,
           floor(extract(epoch FROM d.began_at) * 1000)::bigint AS began_at_ms,
           extract(epoch FROM clock_timestamp() - d.moved_at)::float8 AS moved_ago,
           -- `greatest` passes over null, which is no deadline.
           CASE WHEN d.deadline IS NOT NULL
                THEN greatest(ceil(extract(epoch FROM d.deadline - clock_timestamp()) * 1000)::bigint, 0) END AS deadline_ms
      FROM drain d JOIN media_node n USING (node_id) WHERE d.node_id = ANY($1::uuid[]) ORDER BY d.node_id";

/// `$1` node.
const CANCEL: &str = "
    WITH node AS (UPDATE media_node SET state = 'serving' WHERE node_id = $1 AND state = 'draining')
    UPDATE drain SET state = 'cancelled', ended_at = clock_timestamp() WHERE node_id = $1 AND state = 'running'
    RETURNING node_id";

/// `$1` orchestrator, `$2` for how many seconds.
const CLAIM: &str = "
    UPDATE drain SET claimed_by = $1, claimed_until = clock_timestamp() + make_interval(secs => $2)
     WHERE state = 'running' AND (claimed_by = $1 OR claimed_until IS NULL OR claimed_until < clock_timestamp())
    RETURNING node_id";

/// `$1` node, `$2` epoch, `$3` orchestrator, `$4` rooms moved since, `$5` rooms that are stuck, `$6` how it ends, or null,
/// `$7` how many seconds rooms take to leave, or null.
const NOTE: &str = "
    UPDATE drain SET moved = moved + $4, stuck = $5, state = coalesce($6, state), leaving = coalesce($7, leaving),
           moved_at = CASE WHEN $4 > 0 THEN clock_timestamp() ELSE moved_at END,
           ended_at = CASE WHEN $6::text IS NULL THEN NULL ELSE clock_timestamp() END
     WHERE node_id = $1 AND epoch = $2 AND claimed_by = $3 AND state = 'running'
    RETURNING node_id";

pub async fn begin(connections: &Connections, node: NodeId, how: &DrainNode) -> Result<Option<DrainRecord>, Error> {
    let deadline = how.deadline_ms.map(|ms| Duration::from_millis(ms).as_secs_f64());
    let query = sqlx::query(BEGIN)
        .bind(node.0)
        .bind(how.rate)
        .bind(deadline)
        .bind(asker_text(how.asked_by));
    match connections.rows(query).await?.is_empty() {
        true => Ok(None),
        false => look(connections, node).await,
    }
}

pub async fn look(connections: &Connections, node: NodeId) -> Result<Option<DrainRecord>, Error> {
    Ok(look_at(connections, vec![node.0]).await?.pop())
}

pub async fn cancel(connections: &Connections, node: NodeId) -> Result<Option<DrainRecord>, Error> {
    connections.rows(sqlx::query(CANCEL).bind(node.0)).await?;
    look(connections, node).await
}

pub async fn claim(connections: &Connections, by: &str, time: Duration) -> Result<Vec<DrainRecord>, Error> {
    let query = sqlx::query(CLAIM).bind(by).bind(time.as_secs_f64());
    let claimed = connections.rows(query).await?;
    if claimed.is_empty() {
        return Ok(Vec::new());
    }
    let nodes = claimed.iter().map(|row| row.try_get("node_id"));
    look_at(connections, nodes.collect::<Result<_, _>>()?).await
}

pub async fn note(connections: &Connections, note: &DrainNote<'_>) -> Result<bool, Error> {
    let bigint = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let query = sqlx::query(NOTE)
        .bind(note.node.0)
        .bind(bigint(note.epoch.0))
        .bind(note.by)
        .bind(bigint(note.moved))
        .bind(bigint(note.stuck))
        .bind(note.end.map(text))
        .bind(note.leaving.map(|leaving| leaving.as_secs_f64()));
    Ok(!connections.rows_once(query).await?.is_empty())
}

async fn look_at(connections: &Connections, nodes: Vec<Uuid>) -> Result<Vec<DrainRecord>, Error> {
    let rows = connections.rows(sqlx::query(LOOK).bind(nodes)).await?;
    rows.iter().map(record).collect()
}

fn record(row: &PgRow) -> Result<DrainRecord, Error> {
    let (moved, rooms_left) = (unsigned(row, "moved")?, unsigned(row, "rooms_left")?);
    let deadline: Option<i64> = row.try_get("deadline_ms")?;
    // A clock that was set back makes a time negative.
    let seconds = |column| -> Result<Option<Duration>, Error> {
        let seconds: Option<f64> = row.try_get(column)?;
        Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()))
    };
    Ok(DrainRecord {
        drain: Drain {
            node: NodeId(row.try_get("node_id")?),
            epoch: Epoch(unsigned(row, "epoch")?),
            state: match row.try_get("state")? {
                "running" => DrainState::Running,
                "done" => DrainState::Done,
                "cancelled" => DrainState::Cancelled,
                "expired" => DrainState::Expired,
                _ => DrainState::Lost,
            },
            rooms: moved.saturating_add(rooms_left),
            rooms_left,
            stuck: unsigned(row, "stuck")?,
            rate: row.try_get("rate")?,
            eta_ms: None,
            deadline_ms: deadline.and_then(|ms| u64::try_from(ms).ok()),
            age_ms: unsigned(row, "age_ms")?,
            by: row.try_get("by")?,
        },
        control: row.try_get("control")?,
        asked_by: match row.try_get("asked_by")? {
            "node" => Asker::Node,
            _ => Asker::Operator,
        },
        began_at_ms: unsigned(row, "began_at_ms")?,
        leaving: seconds("leaving")?,
        moved_ago: seconds("moved_ago")?,
    })
}

fn asker_text(asker: Asker) -> &'static str {
    match asker {
        Asker::Operator => "operator",
        Asker::Node => "node",
    }
}

fn text(state: DrainState) -> &'static str {
    match state {
        DrainState::Running => "running",
        DrainState::Done => "done",
        DrainState::Cancelled => "cancelled",
        DrainState::Expired => "expired",
        DrainState::Lost => "lost",
    }
}
