//! The map in PostgreSQL: for any number of orchestrators.
//!
//! Every method but fencing is one statement that commits by itself, at READ COMMITTED, PostgreSQL's default. The
//! statements are in [`sql`], with the reasons why they hold under races.

pub mod sql;

#[cfg(test)]
mod tests;

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signalbox_protocol::placement::{CloseRoom, NodeLoad, NodeState, NodeView, RegisterNode};
use signalbox_protocol::{Epoch, Generation, NodeId, RoomName};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow};
use sqlx::types::{Json, Uuid};
use sqlx::{ConnectOptions, Row};

use super::{Assignment, Fenced, Placed, Store};
use crate::Error;
use crate::brake::{Brake, Fleet};
use crate::placement::Candidate;

static MIGRATIONS: Migrator = sqlx::migrate!("../../../migrations");

/// The most connections to the database. Higher: more placements at the same time. Lower: more orchestrators fit into
/// the database's limit (100 by default).
pub const MAX_CONNECTIONS: u32 = 16;

/// How long a request waits for a connection before it fails. Higher: bursts and short outages are ridden out. Lower:
/// callers learn sooner that the database is away.
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// After what time the database ends a statement, and a transaction that this process left idle. The second keeps a
/// stopped orchestrator from holding the turn to fence.
const STATEMENT_TIMEOUT: &str = "5s";

/// The map in PostgreSQL.
#[derive(Debug)]
pub struct PostgresStore {
    options: PgConnectOptions,
    pool: PgPool,
    ready: AtomicBool,
}

impl PostgresStore {
    /// A store that connects when it is first used. Until [`Store::open`] has succeeded all other methods fail with
    /// [`Error::NotReady`].
    ///
    /// Fails with [`Error::Config`] if the URL cannot be understood.
    pub fn new(url: &str) -> Result<Self, Error> {
        Ok(Self::with_options(parse(url)?, ACQUIRE_TIMEOUT))
    }

    fn with_options(options: PgConnectOptions, acquire_timeout: Duration) -> Self {
        let options = options
            .application_name("signalbox-orchestrator")
            .disable_statement_logging();
        let session = options.clone().options([
            ("statement_timeout", STATEMENT_TIMEOUT),
            ("idle_in_transaction_session_timeout", STATEMENT_TIMEOUT),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(acquire_timeout)
            .connect_lazy_with(session);
        Self {
            options,
            pool,
            ready: AtomicBool::new(false),
        }
    }

    fn pool(&self) -> Result<&PgPool, Error> {
        if self.ready.load(Ordering::Acquire) {
            Ok(&self.pool)
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
    async fn open(&self) -> Result<(), Error> {
        // Its own connection: a migration may take longer than the pool's statement timeout.
        let own = PgPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_TIMEOUT);
        let own = own.connect_with(self.options.clone()).await?;
        let migrated = MIGRATIONS.run(&own).await;
        own.close().await;
        migrated?;
        self.ready.store(true, Ordering::Release);
        Ok(())
    }

    async fn find(&self, room: &RoomName) -> Result<Option<Assignment>, Error> {
        let row = sqlx::query(sql::FIND)
            .bind(room.as_str())
            .fetch_optional(self.pool()?)
            .await?;
        row.map(|row| assignment(room, &row)).transpose()
    }

    async fn place(&self, room: &RoomName, candidate: NodeId, margin: Duration) -> Result<Placed, Error> {
        let row = sqlx::query(sql::PLACE)
            .bind(room.as_str())
            .bind(candidate.0)
            .bind(margin.as_secs_f64())
            .fetch_optional(self.pool()?)
            .await?;
        match row {
            Some(row) => Ok(Placed::New(assignment(room, &row)?)),
            None => Ok(self.find(room).await?.map_or(Placed::Refused, Placed::Existing)),
        }
    }

    async fn close(&self, room: &RoomName, owner: &CloseRoom) -> Result<bool, Error> {
        let (Some(epoch), Some(generation)) = (bigint(owner.epoch.0), bigint(owner.generation.0)) else {
            return Ok(false);
        };
        let done = sqlx::query(sql::CLOSE)
            .bind(room.as_str())
            .bind(owner.node.0)
            .bind(epoch)
            .bind(generation)
            .execute(self.pool()?)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn register(&self, node: &RegisterNode, lease: Duration) -> Result<Epoch, Error> {
        let row = sqlx::query(sql::REGISTER)
            .bind(node.node.0)
            .bind(&node.region)
            .bind(&node.zone)
            .bind(Json(&node.labels))
            .bind(&node.control)
            .bind(Json(&node.media))
            .bind(i64::from(node.capacity))
            .bind(&node.version)
            .bind(Json(NodeLoad::default()))
            .bind(lease.as_secs_f64())
            .fetch_one(self.pool()?)
            .await?;
        Ok(Epoch(unsigned(&row, "epoch")?))
    }

    async fn renew(&self, node: NodeId, epoch: Epoch, load: NodeLoad, lease: Duration) -> Result<bool, Error> {
        let Some(epoch) = bigint(epoch.0) else { return Ok(false) };
        let done = sqlx::query(sql::RENEW)
            .bind(node.0)
            .bind(epoch)
            .bind(Json(load))
            .bind(lease.as_secs_f64())
            .execute(self.pool()?)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn release(&self, node: NodeId, epoch: Epoch) -> Result<bool, Error> {
        let Some(epoch) = bigint(epoch.0) else { return Ok(false) };
        let done = sqlx::query(sql::RELEASE)
            .bind(node.0)
            .bind(epoch)
            .execute(self.pool()?)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn overdue(&self) -> Result<usize, Error> {
        let row = sqlx::query(sql::OVERDUE).fetch_one(self.pool()?).await?;
        count(&row, "overdue")
    }

    async fn fence_expired(&self, brake: &Brake) -> Result<Fenced, Error> {
        let mut transaction = self.pool()?.begin().await?;
        // The brake counts what others have fenced, so only one may count and fence at a time. Whoever does not get the
        // turn leaves the work to the one who has it.
        let turn = sqlx::query(sql::TURN_TO_FENCE).fetch_one(&mut *transaction).await?;
        if !turn.try_get::<bool, _>("mine")? {
            return Ok(Fenced::default());
        }
        // Each statement of the transaction sees what was committed before it began, so this one sees what the last
        // turn did.
        let fleet = sqlx::query(sql::FLEET)
            .bind(brake.lease.as_secs_f64())
            .fetch_one(&mut *transaction)
            .await?;
        let permitted = brake.permits(Fleet {
            nodes: count(&fleet, "nodes")?,
            overdue: count(&fleet, "overdue")?,
            fenced: count(&fleet, "fenced")?,
        });
        let due = sqlx::query(sql::DUE)
            .bind(brake.grace.as_secs_f64())
            .bind(brake.lease.as_secs_f64())
            .fetch_all(&mut *transaction)
            .await?;
        let mut fenced = Fenced {
            nodes: Vec::new(),
            held: due.len().saturating_sub(permitted),
        };
        for row in due.iter().take(permitted) {
            let node: Uuid = row.try_get("node_id")?;
            let epoch: i64 = row.try_get("epoch")?;
            let done = sqlx::query(sql::FENCE)
                .bind(node)
                .bind(epoch)
                .bind(brake.grace.as_secs_f64())
                .execute(&mut *transaction)
                .await?;
            if done.rows_affected() == 1 {
                fenced.nodes.push((NodeId(node), Epoch(unsigned(row, "epoch")?)));
            }
        }
        transaction.commit().await?;
        Ok(fenced)
    }

    async fn candidates(&self, margin: Duration) -> Result<Vec<Candidate>, Error> {
        let rows = sqlx::query(sql::CANDIDATES)
            .bind(margin.as_secs_f64())
            .fetch_all(self.pool()?)
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Candidate {
                    node: NodeId(row.try_get("node_id")?),
                    region: row.try_get("region")?,
                    capacity: narrow(row, "capacity")?,
                    participants: row.try_get::<Json<NodeLoad>, _>("load")?.participants,
                })
            })
            .collect()
    }

    async fn nodes(&self) -> Result<Vec<NodeView>, Error> {
        let rows = sqlx::query(sql::NODES).fetch_all(self.pool()?).await?;
        rows.iter().map(node_view).collect()
    }
}

fn assignment(room: &RoomName, row: &PgRow) -> Result<Assignment, Error> {
    Ok(Assignment {
        room: room.clone(),
        node: NodeId(row.try_get("node_id")?),
        epoch: Epoch(unsigned(row, "node_epoch")?),
        generation: Generation(unsigned(row, "generation")?),
        control: row.try_get("control")?,
    })
}

fn node_view(row: &PgRow) -> Result<NodeView, Error> {
    let state = match row.try_get::<&str, _>("state")? {
        "serving" => NodeState::Serving,
        "draining" => NodeState::Draining,
        "lost" => NodeState::Lost,
        other => return Err(unreadable("state", format!("unknown state {other}"))),
    };
    Ok(NodeView {
        node: NodeId(row.try_get("node_id")?),
        epoch: Epoch(unsigned(row, "epoch")?),
        state,
        live: row.try_get("live")?,
        control: row.try_get("control")?,
        media: row.try_get::<Json<_>, _>("media")?.0,
        region: row.try_get("region")?,
        capacity: narrow(row, "capacity")?,
        load: row.try_get::<Json<_>, _>("load")?.0,
        version: row.try_get("version")?,
    })
}

/// The database's integers are signed. What does not fit was never handed out, so it matches no row.
fn bigint(value: u64) -> Option<i64> {
    i64::try_from(value).ok()
}

fn unsigned(row: &PgRow, column: &'static str) -> Result<u64, Error> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|error| unreadable(column, error))
}

fn narrow(row: &PgRow, column: &'static str) -> Result<u32, Error> {
    u32::try_from(row.try_get::<i64, _>(column)?).map_err(|error| unreadable(column, error))
}

fn count(row: &PgRow, column: &'static str) -> Result<usize, Error> {
    usize::try_from(row.try_get::<i64, _>(column)?).map_err(|error| unreadable(column, error))
}

fn unreadable(column: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Database(Box::new(sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: source.into(),
    }))
}
