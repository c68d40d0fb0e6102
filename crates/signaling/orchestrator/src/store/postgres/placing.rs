//! Giving rooms to nodes: many at once, or with regard to what they avoid.

use std::sync::Arc;
use std::time::Duration;

use signalbox_protocol::RoomName;
use signalbox_protocol::placement::CloseRoom;
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::types::{Json, Uuid};

use super::batch::Job;
use super::connections::Connections;
use super::rows::{assignment, bigint};
use super::sql;
use crate::Error;
use crate::placement::Wish;
use crate::store::{Assignment, Placed, Proposal, Wanted};

/// Reads of rooms, in batches.
#[derive(Debug)]
pub struct Finds(pub Arc<Connections>);

impl Job for Finds {
    type Request = RoomName;
    type Answer = Option<Assignment>;
    type Key = RoomName;

    const NAME: &'static str = "reads";
    const AT_ONCE: usize = 2;
    const MOST: usize = 500;
    const QUEUE: usize = 32_768;

    fn key(room: &RoomName) -> &RoomName {
        room
    }

    async fn run(&self, rooms: &[RoomName]) -> Result<Vec<Option<Assignment>>, Error> {
        find(&self.0, rooms).await
    }

    fn shared(_: &RoomName, answer: &Option<Assignment>, _: &RoomName) -> Option<Option<Assignment>> {
        Some(answer.clone())
    }
}

async fn find<'r>(
    connections: &Connections,
    rooms: impl IntoIterator<Item = &'r RoomName>,
) -> Result<Vec<Option<Assignment>>, Error> {
    let names: Vec<&str> = rooms.into_iter().map(RoomName::as_str).collect();
    let query = match names[..] {
        [] => return Ok(Vec::new()),
        [one] => sqlx::query(sql::FIND).bind(one),
        _ => sqlx::query(sql::FIND_MANY).bind(&names),
    };
    let rows = connections.rows(query).await?;
    let mut found = vec![None; names.len()];
    for row in &rows {
        let assignment = assignment(row)?;
        if let Ok(index) = names.binary_search(&assignment.room.as_str()) {
            found[index] = Some(assignment);
        }
    }
    Ok(found)
}

/// Placements of rooms that have no group and avoid none, in batches.
#[derive(Debug)]
pub struct Places(pub Arc<Connections>);

/// One of [`Places`].
#[derive(Debug)]
pub struct Place {
    pub proposal: Proposal,
    pub margin: Duration,
}

impl Job for Places {
    type Request = Place;
    type Answer = Placed;
    type Key = RoomName;

    const NAME: &'static str = "placements";
    const AT_ONCE: usize = 2;
    const MOST: usize = 500;
    const QUEUE: usize = 8192;

    fn key(place: &Place) -> &RoomName {
        &place.proposal.room
    }

    async fn run(&self, places: &[Place]) -> Result<Vec<Placed>, Error> {
        let query = match places {
            [one] => place_query(sql::PLACE, &one.proposal, one.margin),
            many => place_many_query(many),
        };
        let mut placed = vec![Placed::Refused; places.len()];
        for row in &self.0.rows(query).await? {
            let (is_new, assignment) = (row.try_get("new")?, assignment(row)?);
            if let Ok(index) = places.binary_search_by(|place| place.proposal.room.cmp(&assignment.room)) {
                placed[index] = if is_new {
                    Placed::New(assignment)
                } else {
                    Placed::Existing(assignment)
                };
            }
        }
        // Those that were not placed: a statement sees what was committed before it began, so whoever was quicker may
        // only be in the view of a further one.
        let open: Vec<usize> = (0..placed.len()).filter(|i| placed[*i] == Placed::Refused).collect();
        let winners = find(&self.0, open.iter().map(|i| &places[*i].proposal.room)).await?;
        for (index, winner) in open.into_iter().zip(winners) {
            if let Some(winner) = winner {
                placed[index] = Placed::Existing(winner);
            }
        }
        Ok(placed)
    }

    fn shared(first: &Place, answer: &Placed, other: &Place) -> Option<Placed> {
        match answer {
            Placed::New(winner) | Placed::Existing(winner) => Some(Placed::Existing(winner.clone())),
            Placed::Refused => {
                let alike = first.proposal.candidate == other.proposal.candidate && first.margin == other.margin;
                alike.then_some(Placed::Refused)
            }
        }
    }
}

/// Places a room that must not be with others.
pub async fn place_apart(connections: &Connections, proposal: &Proposal, margin: Duration) -> Result<Placed, Error> {
    let room = std::slice::from_ref(&proposal.room);
    if let Some(Some(existing)) = find(connections, room).await?.pop() {
        return Ok(Placed::Existing(existing));
    }
    let placed = connections
        .transaction(async |connection| {
            let lock = sqlx::query(sql::LOCK_GROUPS).bind(groups(proposal.group.as_ref(), &proposal.avoid));
            lock.execute(&mut *connection).await?;
            let place = place_query(sql::PLACE_APART, proposal, margin);
            Ok(place.fetch_optional(connection).await?)
        })
        .await?;
    if let Some(row) = placed {
        return Ok(Placed::New(assignment(&row)?));
    }
    let winner = find(connections, room).await?.pop().flatten();
    Ok(winner.map_or(Placed::Refused, Placed::Existing))
}

/// What a room was placed with.
pub async fn wanted(connections: &Connections, room: &RoomName, owner: &CloseRoom) -> Result<Option<Wanted>, Error> {
    let (Some(epoch), Some(generation)) = (bigint(owner.epoch.0), bigint(owner.generation.0)) else {
        return Ok(None);
    };
    let query = sqlx::query(sql::WANTED).bind(room.as_str()).bind(owner.node.0);
    let rows = connections.rows(query.bind(epoch).bind(generation)).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let wish: Option<Json<Wish>> = row.try_get("wish")?;
    Ok(Some(Wanted {
        group: row.try_get("room_group")?,
        avoid: row.try_get("avoid")?,
        wish: wish.map(|Json(wish)| wish).unwrap_or_default(),
    }))
}

/// Moves a room from its owner.
pub async fn hand_off(
    connections: &Connections,
    owner: &CloseRoom,
    proposal: &Proposal,
    margin: Duration,
) -> Result<Option<Assignment>, Error> {
    let (Some(epoch), Some(generation)) = (bigint(owner.epoch.0), bigint(owner.generation.0)) else {
        return Ok(None);
    };
    let Some(Wanted { group, avoid, .. }) = wanted(connections, &proposal.room, owner).await? else {
        return Ok(None);
    };
    let names = groups(group.as_ref(), &avoid);
    let query = sqlx::query(sql::HAND_OFF)
        .bind(proposal.room.as_str().to_owned())
        .bind(owner.node.0)
        .bind(epoch)
        .bind(generation)
        .bind(proposal.candidate.0)
        .bind(margin.as_secs_f64())
        .bind(proposal.by.clone())
        .bind(Json(&proposal.reasons))
        .bind(group)
        .bind(avoid);
    let moved: Option<PgRow> = if names.is_empty() {
        connections.rows_once(query).await?.pop()
    } else {
        connections
            .transaction(async |connection| {
                sqlx::query(sql::LOCK_GROUPS)
                    .bind(names)
                    .execute(&mut *connection)
                    .await?;
                Ok(query.fetch_optional(connection).await?)
            })
            .await?
    };
    moved.as_ref().map(assignment).transpose()
}

/// The groups whose placements have to wait for each other: of two rooms that must not be together, at least one group is
/// named by both.
fn groups(group: Option<&String>, avoid: &[String]) -> Vec<String> {
    group.into_iter().chain(avoid).cloned().collect()
}

fn place_query(sql: &'static str, proposal: &Proposal, margin: Duration) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(sql)
        .bind(proposal.room.as_str().to_owned())
        .bind(proposal.candidate.0)
        .bind(margin.as_secs_f64())
        .bind(proposal.by.clone())
        .bind(Json(proposal.reasons.clone()))
        .bind(proposal.group.clone())
        .bind(proposal.avoid.clone())
        .bind(kept(&proposal.wish).cloned().map(Json))
}

/// A room that asks for nothing has no wish in its row.
fn kept(wish: &Wish) -> Option<&Wish> {
    (!wish.is_empty()).then_some(wish)
}

fn place_many_query(places: &[Place]) -> Query<'_, Postgres, PgArguments> {
    let rooms: Vec<&str> = places.iter().map(|place| place.proposal.room.as_str()).collect();
    let candidates: Vec<Uuid> = places.iter().map(|place| place.proposal.candidate.0).collect();
    let margins: Vec<f64> = places.iter().map(|place| place.margin.as_secs_f64()).collect();
    let by: Vec<&str> = places.iter().map(|place| place.proposal.by.as_str()).collect();
    let reasons: Vec<Json<_>> = places.iter().map(|place| Json(&place.proposal.reasons)).collect();
    let wishes: Vec<_> = places
        .iter()
        .map(|place| kept(&place.proposal.wish).map(Json))
        .collect();
    sqlx::query(sql::PLACE_MANY)
        .bind(rooms)
        .bind(candidates)
        .bind(margins)
        .bind(by)
        .bind(reasons)
        .bind(wishes)
}
