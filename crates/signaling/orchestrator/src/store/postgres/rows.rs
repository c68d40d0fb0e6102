//! From rows to what they mean, and from numbers to what the database can hold.

use signalbox_protocol::history::{HistoryEntry, Reasons, RoomEvent};
use signalbox_protocol::node::{NodeLoad, NodeState, NodeView};
use signalbox_protocol::placement::{RoomState, RoomView, Track};
use signalbox_protocol::{Epoch, Generation, NodeId, RoomName};
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::types::Json;

use crate::Error;
use crate::placement::Candidate;
use crate::store::{Assignment, Overdue};

/// The database's integers are signed. None: the number was never handed out, so it matches no row. Half of the range, so
/// that an epoch that is adopted leaves room for the next ones.
pub fn bigint(value: u64) -> Option<i64> {
    i64::try_from(value).ok().filter(|value| *value <= i64::MAX / 2)
}

/// A limit; one that is beyond the database's range is none.
pub fn limit(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub fn assignment(row: &PgRow) -> Result<Assignment, Error> {
    Ok(Assignment {
        room: room_name(row)?,
        node: NodeId(row.try_get("node_id")?),
        epoch: Epoch(unsigned(row, "node_epoch")?),
        generation: Generation(unsigned(row, "generation")?),
        control: row.try_get("control")?,
    })
}

pub fn room_name(row: &PgRow) -> Result<RoomName, Error> {
    row.try_get::<&str, _>("room_id")?
        .parse()
        .map_err(|error| unreadable("room_id", format!("{error:?}")))
}

pub fn room_view(row: &PgRow) -> Result<RoomView, Error> {
    Ok(RoomView {
        room: room_name(row)?,
        node: NodeId(row.try_get("node_id")?),
        epoch: Epoch(unsigned(row, "node_epoch")?),
        generation: Generation(unsigned(row, "generation")?),
        state: match row.try_get("state")? {
            "open" => RoomState::Open,
            "closed" => RoomState::Closed,
            "orphaned" => RoomState::Orphaned,
            other => return Err(unknown("state", other)),
        },
        group: row.try_get("room_group")?,
        placed_at_ms: unsigned(row, "placed_at_ms")?,
    })
}

pub fn history_entry(row: &PgRow) -> Result<HistoryEntry, Error> {
    Ok(HistoryEntry {
        event: match row.try_get("event")? {
            "placed" => RoomEvent::Placed,
            "taken_over" => RoomEvent::TakenOver,
            "handed_off" => RoomEvent::HandedOff,
            "closed" => RoomEvent::Closed,
            "restored" => RoomEvent::Restored,
            other => return Err(unknown("event", other)),
        },
        at_ms: unsigned(row, "at_ms")?,
        generation: Generation(unsigned(row, "generation")?),
        node: NodeId(row.try_get("node_id")?),
        epoch: Epoch(unsigned(row, "node_epoch")?),
        by: row.try_get("by")?,
        reasons: row
            .try_get::<Option<Json<Reasons>>, _>("reasons")?
            .map(|Json(reasons)| reasons),
    })
}

pub fn candidate(row: &PgRow) -> Result<Candidate, Error> {
    Ok(Candidate {
        node: NodeId(row.try_get("node_id")?),
        state: node_state(row)?,
        lease_holds: row.try_get("lease_holds")?,
        ejected: row.try_get("ejected")?,
        region: row.try_get("region")?,
        zone: row.try_get("zone")?,
        labels: row.try_get::<Json<_>, _>("labels")?.0,
        track: track(row)?,
        version: row.try_get("version")?,
        capacity: narrow(row, "capacity")?,
        participants: row.try_get::<Json<NodeLoad>, _>("load")?.participants,
    })
}

pub fn node_view(row: &PgRow) -> Result<NodeView, Error> {
    Ok(NodeView {
        node: NodeId(row.try_get("node_id")?),
        epoch: Epoch(unsigned(row, "epoch")?),
        state: node_state(row)?,
        live: row.try_get("live")?,
        control: row.try_get("control")?,
        media: row.try_get::<Json<_>, _>("media")?.0,
        region: row.try_get("region")?,
        zone: row.try_get("zone")?,
        labels: row.try_get::<Json<_>, _>("labels")?.0,
        track: track(row)?,
        capacity: narrow(row, "capacity")?,
        load: row.try_get::<Json<_>, _>("load")?.0,
        version: row.try_get("version")?,
        lease_age_ms: unsigned(row, "lease_age_ms")?,
        ejected_ms: unsigned(row, "ejected_ms")?,
    })
}

pub fn overdue(row: &PgRow) -> Result<Overdue, Error> {
    Ok(Overdue {
        node: NodeId(row.try_get("node_id")?),
        epoch: Epoch(unsigned(row, "epoch")?),
        control: row.try_get("control")?,
    })
}

pub fn node_state(row: &PgRow) -> Result<NodeState, Error> {
    match row.try_get("state")? {
        "serving" => Ok(NodeState::Serving),
        "draining" => Ok(NodeState::Draining),
        "lost" => Ok(NodeState::Lost),
        other => Err(unknown("state", other)),
    }
}

/// As the column has it; the inverse of [`node_state`].
pub fn state_text(state: NodeState) -> &'static str {
    match state {
        NodeState::Serving => "serving",
        NodeState::Draining => "draining",
        NodeState::Lost => "lost",
    }
}

fn track(row: &PgRow) -> Result<Track, Error> {
    match row.try_get("track")? {
        "stable" => Ok(Track::Stable),
        "canary" => Ok(Track::Canary),
        other => Err(unknown("track", other)),
    }
}

/// As the column has it; the inverse of [`track`].
pub fn track_text(track: Track) -> &'static str {
    match track {
        Track::Stable => "stable",
        Track::Canary => "canary",
    }
}

pub fn unsigned(row: &PgRow, column: &'static str) -> Result<u64, Error> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|error| unreadable(column, error))
}

fn narrow(row: &PgRow, column: &'static str) -> Result<u32, Error> {
    u32::try_from(row.try_get::<i64, _>(column)?).map_err(|error| unreadable(column, error))
}

pub fn count(row: &PgRow, column: &'static str) -> Result<usize, Error> {
    usize::try_from(row.try_get::<i64, _>(column)?).map_err(|error| unreadable(column, error))
}

fn unknown(column: &str, value: &str) -> Error {
    unreadable(column, format!("unknown {column} {value}"))
}

fn unreadable(column: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Database(Box::new(sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: source.into(),
    }))
}
