//! The map in PostgreSQL: for any number of orchestrators.
//!
//! What changes the map is one statement that commits by itself, at READ COMMITTED, PostgreSQL's default; only fencing,
//! ejection and anti-affinity need a lock and so a transaction. The statements are in [`sql`], with the reasons why they
//! hold under races.
//!
//! | module | owns |
//! |---|---|
//! | [`sql`] | the statements |
//! | `connections` | connections, time limits, repetition |
//! | `batch` | calls that share a statement |
//! | `placing`, `restoring`, `leases`, `drains`, `canary` | what takes more than one statement, or shares one |
//! | `rows` | decoding |

mod batch;
mod canary;
mod connections;
mod drains;
mod leases;
mod placing;
mod restoring;
mod rows;
pub mod sql;
#[doc(hidden)]
pub mod storm;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signalbox_protocol::canary::CanaryChange;
use signalbox_protocol::history::HistoryEntry;
use signalbox_protocol::node::{DrainNode, NodeLoad, NodeState, NodeView, RegisterNode, RoomDigest};
use signalbox_protocol::placement::{CloseRoom, RoomView};
use signalbox_protocol::{ClusterId, Epoch, NodeId, RoomName};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::types::Json;
use sqlx::{ConnectOptions, Row};

use super::canary::{CanaryState, NodeOutcomes, ShareChange};
use super::{
    Assignment, DrainNote, DrainRecord, Fenced, Look, Overdue, Placed, Proposal, Purged, Registration, Renewal,
    Retention, Store, Wanted,
};
use crate::Error;
use crate::brake::Brake;
use crate::placement::Candidate;
use batch::Batcher;
use connections::{Connections, timed_out};
use leases::{Renew, Renewals};
use placing::{Finds, Place, Places};
use rows::bigint;
use sql::nodes;

pub use connections::{CALL_TIMEOUT, MAX_CONNECTIONS};

static MIGRATIONS: Migrator = sqlx::migrate!("../../../migrations");

/// How long it may take to bring the schema to this version. Higher: larger tables can be migrated. Lower: a database that
/// vanishes meanwhile is given up sooner.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(300);

/// The most overdue nodes that are told at once.
const MAX_OVERDUE: i64 = 1000;

/// The map in PostgreSQL.
#[derive(Debug)]
pub struct PostgresStore {
    options: PgConnectOptions,
    connections: Arc<Connections>,
    finds: Batcher<Finds>,
    places: Batcher<Places>,
    renewals: Batcher<Renewals>,
    ready: AtomicBool,
}

impl PostgresStore {
    /// A store that connects when it is first used. Until [`Store::open`] has succeeded all other methods fail with
    /// [`Error::NotReady`].
    ///
    /// Fails with [`Error::Config`] if the URL cannot be understood.
    pub fn new(url: &str) -> Result<Self, Error> {
        Ok(Self::with_options(parse(url)?, CALL_TIMEOUT))
    }

    fn with_options(options: PgConnectOptions, timeout: Duration) -> Self {
        let options = options
            .application_name("signalbox-orchestrator")
            .disable_statement_logging();
        let connections = Arc::new(Connections::new(options.clone(), timeout));
        Self {
            options,
            finds: Batcher::new(Finds(connections.clone()), timeout),
            places: Batcher::new(Places(connections.clone()), timeout),
            renewals: Batcher::new(Renewals(connections.clone()), timeout),
            connections,
            ready: AtomicBool::new(false),
        }
    }

    fn ready(&self) -> Result<&Connections, Error> {
        if self.ready.load(Ordering::Acquire) {
            Ok(&self.connections)
        } else {
            Err(Error::NotReady)
        }
    }
}

/// Fails with [`Error::Config`] if the URL cannot be understood.
pub fn check_url(url: &str) -> Result<(), Error> {
    parse(url).map(drop)
}

fn parse(url: &str) -> Result<PgConnectOptions, Error> {
    // sqlx's parser takes any scheme. What it says of a URL that it refuses is not repeated: the URL holds a password.
    let is_postgres = ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| url.starts_with(scheme));
    PgConnectOptions::from_str(url)
        .ok()
        .filter(|_| is_postgres)
        .ok_or(Error::Config(
            "--database-url must look like postgres://user:password@host:5432/database",
        ))
}

impl Store for PostgresStore {
    async fn open(&self) -> Result<ClusterId, Error> {
        // Its own connection: a migration may take longer than statements may otherwise.
        let opening = async {
            let own = PgPoolOptions::new().max_connections(1).acquire_timeout(CALL_TIMEOUT);
            let own = own.connect_with(self.options.clone()).await?;
            let opened = async {
                MIGRATIONS.run(&own).await?;
                let cluster = sqlx::query_scalar("SELECT cluster_id FROM cluster");
                Ok::<_, Error>(cluster.fetch_one(&own).await?)
            }
            .await;
            own.close().await;
            opened.map(ClusterId)
        };
        let cluster = tokio::time::timeout(MIGRATION_TIMEOUT, opening)
            .await
            .unwrap_or_else(|_| Err(timed_out("the schema was not ready in time")))?;
        self.ready.store(true, Ordering::Release);
        Ok(cluster)
    }

    async fn find(&self, room: &RoomName) -> Result<Option<Assignment>, Error> {
        self.ready()?;
        self.finds.call(room.clone()).await
    }

    async fn place(&self, proposal: Proposal, margin: Duration) -> Result<Placed, Error> {
        let connections = self.ready()?;
        if proposal.group.is_some() || !proposal.avoid.is_empty() {
            return placing::place_apart(connections, &proposal, margin).await;
        }
        self.places.call(Place { proposal, margin }).await
    }

    async fn hand_off(
        &self,
        owner: &CloseRoom,
        proposal: Proposal,
        margin: Duration,
    ) -> Result<Option<Assignment>, Error> {
        placing::hand_off(self.ready()?, owner, &proposal, margin).await
    }

    async fn wanted(&self, room: &RoomName, owner: &CloseRoom) -> Result<Option<Wanted>, Error> {
        placing::wanted(self.ready()?, room, owner).await
    }

    async fn close(&self, room: &RoomName, owner: &CloseRoom, by: &str) -> Result<bool, Error> {
        let (Some(epoch), Some(generation)) = (bigint(owner.epoch.0), bigint(owner.generation.0)) else {
            return Ok(false);
        };
        let query = sqlx::query(sql::CLOSE)
            .bind(room.as_str())
            .bind(owner.node.0)
            .bind(epoch)
            .bind(generation)
            .bind(by);
        Ok(!self.ready()?.rows_once(query).await?.is_empty())
    }

    async fn occupied(&self, group: Option<&str>, avoid: &[String]) -> Result<BTreeSet<NodeId>, Error> {
        let connections = self.ready()?;
        if group.is_none() && avoid.is_empty() {
            return Ok(BTreeSet::new());
        }
        let rows = connections
            .rows(sqlx::query(sql::OCCUPIED).bind(group).bind(avoid))
            .await?;
        rows.iter().map(|row| Ok(NodeId(row.try_get("node_id")?))).collect()
    }

    async fn register(&self, about: &RegisterNode, lease: Duration) -> Result<Registration, Error> {
        let Some(after) = bigint(about.after.0) else {
            return Ok(Registration::Behind(Epoch(0)));
        };
        let query = sqlx::query(nodes::REGISTER)
            .bind(about.node.0)
            .bind(&about.region)
            .bind(&about.zone)
            .bind(Json(&about.labels))
            .bind(&about.control)
            .bind(Json(&about.media))
            .bind(i64::from(about.capacity))
            .bind(&about.version)
            .bind(Json(NodeLoad::default()))
            .bind(lease.as_secs_f64())
            .bind(rows::track_text(about.track))
            .bind(after);
        let connections = self.ready()?;
        if let Some(row) = connections.rows(query).await?.first() {
            return Ok(Registration::Held(Epoch(rows::unsigned(row, "epoch")?)));
        }
        let current = connections.rows(sqlx::query(nodes::EPOCH).bind(about.node.0)).await?;
        let epoch = current.first().map_or(Ok(0), |row| rows::unsigned(row, "epoch"))?;
        Ok(Registration::Behind(Epoch(epoch)))
    }

    async fn renew(
        &self,
        node: NodeId,
        epoch: Epoch,
        beat: u64,
        load: NodeLoad,
        lease: Duration,
    ) -> Result<Renewal, Error> {
        self.ready()?;
        let (Some(epoch), Some(beat)) = (bigint(epoch.0), bigint(beat)) else {
            return Ok(Renewal::Over);
        };
        let renew = Renew {
            node,
            epoch,
            beat,
            load,
            lease,
        };
        self.renewals.call(renew).await
    }

    async fn restore(
        &self,
        node: NodeId,
        epoch: Epoch,
        rooms: &[RoomDigest],
        by: &str,
    ) -> Result<Vec<RoomDigest>, Error> {
        match bigint(epoch.0) {
            Some(epoch) => restoring::restore(self.ready()?, node, epoch, rooms, by).await,
            None => Ok(rooms.to_vec()),
        }
    }

    async fn release(&self, node: NodeId, epoch: Epoch) -> Result<bool, Error> {
        let Some(epoch) = bigint(epoch.0) else { return Ok(false) };
        let query = sqlx::query(nodes::RELEASE).bind(node.0).bind(epoch);
        Ok(!self.ready()?.rows_once(query).await?.is_empty())
    }

    async fn set_state(&self, node: NodeId, state: NodeState) -> Result<Option<NodeState>, Error> {
        let query = sqlx::query(nodes::SET_STATE).bind(node.0).bind(rows::state_text(state));
        let rows = self.ready()?.rows(query).await?;
        rows.first().map(rows::node_state).transpose()
    }

    async fn eject(&self, node: NodeId, epoch: Epoch, base: Duration, share: f64) -> Result<bool, Error> {
        let Some(epoch) = bigint(epoch.0) else { return Ok(false) };
        leases::eject(self.ready()?, node, epoch, base, share).await
    }

    async fn look(&self, orchestrator: &str, recent: Duration) -> Result<Look, Error> {
        let query = sqlx::query(nodes::LOOK).bind(orchestrator).bind(recent.as_secs_f64());
        let row = self.ready()?.row(query).await?;
        Ok(Look {
            overdue: rows::count(&row, "overdue")?,
            orchestrators: rows::count(&row, "orchestrators")?,
            incarnation: row.try_get("incarnation")?,
        })
    }

    async fn overdue(&self) -> Result<Vec<Overdue>, Error> {
        let rows = self
            .ready()?
            .rows(sqlx::query(nodes::OVERDUE).bind(MAX_OVERDUE))
            .await?;
        rows.iter().map(rows::overdue).collect()
    }

    async fn fence_expired(&self, brake: &Brake, spared: &BTreeSet<NodeId>) -> Result<Fenced, Error> {
        leases::fence_expired(self.ready()?, brake, spared).await
    }

    async fn begin_drain(&self, node: NodeId, how: &DrainNode) -> Result<Option<DrainRecord>, Error> {
        drains::begin(self.ready()?, node, how).await
    }

    async fn drain(&self, node: NodeId) -> Result<Option<DrainRecord>, Error> {
        drains::look(self.ready()?, node).await
    }

    async fn cancel_drain(&self, node: NodeId) -> Result<Option<DrainRecord>, Error> {
        drains::cancel(self.ready()?, node).await
    }

    async fn claim_drains(&self, orchestrator: &str, time: Duration) -> Result<Vec<DrainRecord>, Error> {
        drains::claim(self.ready()?, orchestrator, time).await
    }

    async fn note_drain(&self, note: &DrainNote<'_>) -> Result<bool, Error> {
        drains::note(self.ready()?, note).await
    }

    async fn canary(&self, window: Duration) -> Result<CanaryState, Error> {
        canary::look(self.ready()?, window).await
    }

    async fn canary_history(&self, limit: usize) -> Result<Vec<CanaryChange>, Error> {
        canary::history(self.ready()?, limit).await
    }

    async fn set_canary(&self, change: &ShareChange<'_>) -> Result<bool, Error> {
        canary::set(self.ready()?, change).await
    }

    async fn note_outcomes(&self, outcomes: &[NodeOutcomes]) -> Result<(), Error> {
        canary::note(self.ready()?, outcomes).await
    }

    async fn forget_outcomes(&self, age: Duration) -> Result<u64, Error> {
        canary::forget(self.ready()?, age).await
    }

    async fn candidates(&self, margin: Duration) -> Result<Vec<Candidate>, Error> {
        let query = sqlx::query(nodes::CANDIDATES).bind(margin.as_secs_f64());
        self.ready()?.rows(query).await?.iter().map(rows::candidate).collect()
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, Error> {
        let rows = self.ready()?.rows(sqlx::query(nodes::NODES)).await?;
        rows.iter().map(rows::node_view).collect()
    }

    async fn rooms(
        &self,
        after: Option<&RoomName>,
        node: Option<NodeId>,
        limit: usize,
    ) -> Result<Vec<RoomView>, Error> {
        // No room's name is empty, so all come after the empty one.
        let page = |sql| {
            sqlx::query(sql)
                .bind(after.map_or("", RoomName::as_str))
                .bind(rows::limit(limit))
        };
        let query = match node {
            Some(node) => page(sql::ROOMS_OF_NODE).bind(node.0),
            None => page(sql::ROOMS),
        };
        self.ready()?.rows(query).await?.iter().map(rows::room_view).collect()
    }

    async fn history(&self, room: &RoomName, limit: usize) -> Result<Option<(RoomView, Vec<HistoryEntry>)>, Error> {
        let connections = self.ready()?;
        let view = connections.rows(sqlx::query(sql::ROOM).bind(room.as_str())).await?;
        let Some(view) = view.first().map(rows::room_view).transpose()? else {
            return Ok(None);
        };
        let entries = sqlx::query(sql::HISTORY).bind(room.as_str()).bind(rows::limit(limit));
        let entries = connections.rows(entries).await?;
        let entries = entries.iter().map(rows::history_entry).collect::<Result<_, _>>()?;
        Ok(Some((view, entries)))
    }

    async fn purge(&self, retention: &Retention, limit: usize) -> Result<Purged, Error> {
        let connections = self.ready()?;
        let purge = async |sql, age: Duration, limit: u64| {
            let query = sqlx::query(sql)
                .bind(age.as_secs_f64())
                .bind(i64::try_from(limit).unwrap_or(i64::MAX));
            Ok::<u64, Error>(connections.rows(query).await?.len() as u64)
        };
        let limit = limit as u64;
        let closed = purge(sql::PURGE_CLOSED, retention.rooms, limit).await?;
        let orphaned = purge(sql::PURGE_ORPHANED, retention.rooms, limit - closed).await?;
        let nodes = purge(nodes::PURGE, retention.nodes, limit).await?;
        let history = purge(sql::PURGE_HISTORY, retention.history, limit).await?;
        let looks = sqlx::query(nodes::PURGE_ORCHESTRATORS).bind(retention.nodes.as_secs_f64());
        connections.rows(looks).await?;
        Ok(Purged {
            rooms: closed + orphaned,
            nodes,
            history,
        })
    }
}
