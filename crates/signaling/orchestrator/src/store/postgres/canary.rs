//! The canary share, and what came of it.

use std::time::Duration;

use signalbox_protocol::canary::{CanaryChange, ChangedBy, Outcomes, Tally};
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::types::Uuid;

use super::connections::Connections;
use super::rows::{bigint, limit, unsigned};
use crate::Error;
use crate::store::canary::{BUCKET, CanaryState, KEPT_CHANGES, NodeOutcomes, ShareChange};

/// `$1` how many seconds back. The row is there also when nothing was ever set or counted.
const LOOK: &str = "
    SELECT v.version, c.share_from, c.share, c.changed_by, c.why, floor(extract(epoch FROM c.at) * 1000)::bigint AS at_ms,
           coalesce(sum(o.joins_ok) FILTER (WHERE o.track = 'stable'), 0)::bigint AS stable_joins_ok,
           coalesce(sum(o.joins_failed) FILTER (WHERE o.track = 'stable'), 0)::bigint AS stable_joins_failed,
           coalesce(sum(o.connections_ok) FILTER (WHERE o.track = 'stable'), 0)::bigint AS stable_connections_ok,
           coalesce(sum(o.connections_failed) FILTER (WHERE o.track = 'stable'), 0)::bigint AS stable_connections_failed,
           coalesce(sum(o.joins_ok) FILTER (WHERE o.track = 'canary'), 0)::bigint AS canary_joins_ok,
           coalesce(sum(o.joins_failed) FILTER (WHERE o.track = 'canary'), 0)::bigint AS canary_joins_failed,
           coalesce(sum(o.connections_ok) FILTER (WHERE o.track = 'canary'), 0)::bigint AS canary_connections_ok,
           coalesce(sum(o.connections_failed) FILTER (WHERE o.track = 'canary'), 0)::bigint AS canary_connections_failed
      FROM (SELECT coalesce(max(version), 0) AS version FROM canary_change) v
      LEFT JOIN canary_change c USING (version)
      LEFT JOIN track_outcome o ON o.version = v.version AND o.bucket > clock_timestamp() - make_interval(secs => $1)
     GROUP BY v.version, c.share_from, c.share, c.changed_by, c.why, c.at";

/// `$1` how many.
const HISTORY: &str = "
    SELECT share_from, share, changed_by, why, floor(extract(epoch FROM at) * 1000)::bigint AS at_ms
      FROM canary_change ORDER BY version DESC LIMIT $1";

/// `$1` the version that it comes after, `$2` and `$3` the share before and after, `$4` who, `$5` why, `$6` how many changes are kept. Of two that
/// see the same greatest version, the second waits for the first to commit its row, and then does nothing.
const SET: &str = "
    WITH change AS (
        INSERT INTO canary_change (version, at, share_from, share, changed_by, why)
        SELECT $1::bigint + 1, clock_timestamp(), $2, $3, $4, $5
         WHERE $1::bigint = (SELECT coalesce(max(version), 0) FROM canary_change)
        ON CONFLICT (version) DO NOTHING
        RETURNING version
    ), old AS (
        DELETE FROM canary_change WHERE version <= $1::bigint + 1 - $6::bigint AND EXISTS (SELECT FROM change)
    )
    SELECT version FROM change";

/// `$1` nodes, `$2` to `$5` counts of each, `$6` seconds of a stretch. Of both rows the one of canary nodes comes first, always: two statements at once
/// would wait for each other otherwise.
const NOTE: &str = "
    INSERT INTO track_outcome AS o (version, bucket, track, joins_ok, joins_failed, connections_ok, connections_failed)
    SELECT (SELECT coalesce(max(version), 0) FROM canary_change),
           to_timestamp(floor(extract(epoch FROM statement_timestamp()) / $6::float8) * $6::float8), n.track,
           sum(t.joins_ok)::bigint, sum(t.joins_failed)::bigint, sum(t.connections_ok)::bigint, sum(t.connections_failed)::bigint
      FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
           AS t (node_id, joins_ok, joins_failed, connections_ok, connections_failed)
      JOIN media_node n USING (node_id)
     GROUP BY n.track ORDER BY n.track
    ON CONFLICT (version, bucket, track) DO UPDATE
       SET joins_ok = o.joins_ok + excluded.joins_ok, joins_failed = o.joins_failed + excluded.joins_failed,
           connections_ok = o.connections_ok + excluded.connections_ok,
           connections_failed = o.connections_failed + excluded.connections_failed";

/// `$1` seconds. The table holds some hundred rows at most.
const FORGET: &str = "
    DELETE FROM track_outcome WHERE bucket < clock_timestamp() - make_interval(secs => $1) RETURNING version";

pub async fn look(connections: &Connections, window: Duration) -> Result<CanaryState, Error> {
    let row = connections.row(sqlx::query(LOOK).bind(window.as_secs_f64())).await?;
    let version = unsigned(&row, "version")?;
    Ok(CanaryState {
        version,
        last: (version > 0).then(|| change(&row)).transpose()?,
        stable: Outcomes {
            joins: tally(&row, "stable_joins_ok", "stable_joins_failed")?,
            connections: tally(&row, "stable_connections_ok", "stable_connections_failed")?,
        },
        canary: Outcomes {
            joins: tally(&row, "canary_joins_ok", "canary_joins_failed")?,
            connections: tally(&row, "canary_connections_ok", "canary_connections_failed")?,
        },
    })
}

pub async fn history(connections: &Connections, most: usize) -> Result<Vec<CanaryChange>, Error> {
    let rows = connections.rows(sqlx::query(HISTORY).bind(limit(most))).await?;
    rows.iter().map(change).collect()
}

pub async fn set(connections: &Connections, change: &ShareChange<'_>) -> Result<bool, Error> {
    let Some(after) = bigint(change.after) else {
        return Ok(false);
    };
    let query = sqlx::query(SET)
        .bind(after)
        .bind(change.from)
        .bind(change.to)
        .bind(text(change.by))
        .bind(change.why)
        .bind(most(KEPT_CHANGES));
    Ok(!connections.rows_once(query).await?.is_empty())
}

pub async fn note(connections: &Connections, noted: &[NodeOutcomes]) -> Result<(), Error> {
    let nodes: Vec<Uuid> = noted.iter().map(|noted| noted.node.0).collect();
    let counts =
        |count: fn(&Outcomes) -> u64| -> Vec<i64> { noted.iter().map(|noted| most(count(&noted.outcomes))).collect() };
    let query = sqlx::query(NOTE)
        .bind(nodes)
        .bind(counts(|outcomes| outcomes.joins.ok))
        .bind(counts(|outcomes| outcomes.joins.failed))
        .bind(counts(|outcomes| outcomes.connections.ok))
        .bind(counts(|outcomes| outcomes.connections.failed))
        .bind(BUCKET.as_secs_f64());
    connections.rows_once(query).await.map(drop)
}

pub async fn forget(connections: &Connections, age: Duration) -> Result<u64, Error> {
    let rows = connections.rows(sqlx::query(FORGET).bind(age.as_secs_f64())).await?;
    Ok(rows.len() as u64)
}

fn tally(row: &PgRow, ok: &'static str, failed: &'static str) -> Result<Tally, Error> {
    Ok(Tally {
        ok: unsigned(row, ok)?,
        failed: unsigned(row, failed)?,
    })
}

fn change(row: &PgRow) -> Result<CanaryChange, Error> {
    Ok(CanaryChange {
        at_ms: unsigned(row, "at_ms")?,
        from: row.try_get("share_from")?,
        to: row.try_get("share")?,
        by: match row.try_get("changed_by")? {
            "rollback" => ChangedBy::Rollback,
            _ => ChangedBy::Operator,
        },
        why: row.try_get("why")?,
    })
}

fn text(by: ChangedBy) -> &'static str {
    match by {
        ChangedBy::Rollback => "rollback",
        ChangedBy::Operator | ChangedBy::Configuration => "operator",
    }
}

/// As the database has it.
fn most(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
