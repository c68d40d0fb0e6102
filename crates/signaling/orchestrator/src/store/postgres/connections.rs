//! The connections to the database: how many, which are good, and how long anything may take.
//!
//! Not sqlx's pool, for three reasons. That one asks the server for a sign of life each time a connection is given back,
//! which costs as much as a read of a room. It goes on trying a server that refuses connections until the caller's time is
//! up, where a heartbeat wants to be told at once. And it cannot be told that the server was restarted, so that each of
//! its connections would fail somebody's request once.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow, Postgres};
use sqlx::query::Query;
use sqlx::{ConnectOptions, Connection, Execute};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::Error;

/// The most connections to the database. Higher: more calls at the same time. Lower: more orchestrators fit into the
/// database's limit (100 by default).
pub const MAX_CONNECTIONS: usize = 16;

/// How long a call may take in all: the wait for a connection, the statement, and its repetition. Higher: lock waits and
/// hiccups are ridden out. Lower: callers learn sooner that the database is away.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// How long it may take to connect. Lower than [`CALL_TIMEOUT`], so that a host that has vanished is told from a statement
/// that is slow.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection may be idle. Higher: fewer new ones after a burst. Lower: fewer that a firewall in between has
/// forgotten.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// What every session is told, besides its time limits: to make plans that are independent of statistics, which a new
/// table lacks for a minute. A statement that was prepared while the table was empty would read all of it, long after it
/// has grown.
const SESSION: [(&str, &str); 2] = [("enable_seqscan", "off"), ("jit", "off")];

/// The most transactions of more than one statement. They may wait for locks that others hold, and must leave connections
/// to those that do not, heartbeats above all.
const MAX_TRANSACTIONS: usize = MAX_CONNECTIONS / 2;

/// The connections.
#[derive(Debug)]
pub struct Connections {
    options: PgConnectOptions,
    timeout: Duration,
    permits: Semaphore,
    transactions: Semaphore,
    /// Those that nobody uses, the one that was used last at the end.
    idle: Mutex<VecDeque<Idle>>,
    /// Grows when a connection turned out to be dead. Those of an earlier era are not used again.
    era: AtomicU64,
}

#[derive(Debug)]
struct Idle {
    connection: PgConnection,
    era: u64,
    since: Instant,
}

/// What a statement answered.
#[derive(Debug)]
pub struct Answer {
    /// Its rows.
    pub rows: Vec<PgRow>,
    /// Whether it was sent a second time, since the connection failed: it may have been carried out twice.
    pub repeated: bool,
}

impl Connections {
    /// No connection is made before one is needed. No call takes longer than `timeout`.
    pub fn new(options: PgConnectOptions, timeout: Duration) -> Self {
        // The server too ends a statement that its client has stopped waiting for, and a transaction that was left idle:
        // it keeps a stopped orchestrator from holding the turn to fence.
        let limit = timeout.as_millis().to_string();
        let limits = ["statement_timeout", "idle_in_transaction_session_timeout"].map(|name| (name, &limit));
        Self {
            options: options.options(SESSION).options(limits),
            timeout,
            permits: Semaphore::new(MAX_CONNECTIONS),
            transactions: Semaphore::new(MAX_TRANSACTIONS),
            idle: Mutex::default(),
            era: AtomicU64::new(0),
        }
    }

    /// Carries out a statement, a second time on a new connection if the first one turned out to be dead.
    pub async fn repeatable(&self, mut query: Query<'_, Postgres, PgArguments>) -> Result<Answer, Error> {
        let arguments = query.take_arguments().map_err(sqlx::Error::Encode)?.unwrap_or_default();
        let sql = query.sql();
        let deadline = self.deadline();
        let attempt = || {
            let query = sqlx::query_with(sql.clone(), arguments.clone());
            self.with_connection(deadline, async |connection| Ok(query.fetch_all(connection).await?))
        };
        let (result, repeated) = match attempt().await {
            Err(error) if is_dead(&error) => (attempt().await, true),
            result => (result, false),
        };
        Ok(Answer {
            rows: result?,
            repeated,
        })
    }

    /// [`Connections::repeatable`], for statements that do nothing if they are carried out a second time, and answer the
    /// same.
    pub async fn rows(&self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, Error> {
        Ok(self.repeatable(query).await?.rows)
    }

    /// [`Connections::rows`], for statements that always have a row.
    pub async fn row(&self, query: Query<'_, Postgres, PgArguments>) -> Result<PgRow, Error> {
        let row = self.rows(query).await?.pop();
        row.ok_or_else(|| sqlx::Error::RowNotFound.into())
    }

    /// Carries out a statement at most once: for those whose answer says whether this call did it.
    pub async fn rows_once(&self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, Error> {
        let once = async |connection: &mut PgConnection| Ok(query.fetch_all(connection).await?);
        self.with_connection(self.deadline(), once).await
    }

    /// Carries out `work` as one transaction, at most once.
    pub async fn transaction<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let deadline = self.deadline();
        let _permit = permit(&self.transactions, deadline).await?;
        let whole = async |connection: &mut PgConnection| {
            let mut transaction = connection.begin().await?;
            match work(&mut transaction).await {
                Ok(value) => {
                    transaction.commit().await?;
                    Ok(value)
                }
                Err(error) => {
                    transaction.rollback().await?;
                    Err(error)
                }
            }
        };
        self.with_connection(deadline, whole).await
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Lends a connection to `work`, which leaves it in order, whether it fails or not. If `work` is not finished, by then
    /// or because its caller has gone away, the connection is closed, which rolls back what was begun.
    async fn with_connection<T>(
        &self,
        deadline: Instant,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _permit = permit(&self.permits, deadline).await?;
        let era = self.era.load(Ordering::Acquire);
        let working = async {
            let mut connection = match self.take_idle(era) {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let result = work(&mut connection).await;
            if !result.as_ref().is_err_and(is_dead) {
                let since = Instant::now();
                let idle = Idle { connection, era, since };
                self.idle().push_back(idle);
            }
            result
        };
        let result = tokio::time::timeout_at(deadline, working).await;
        let result = result.unwrap_or_else(|_| Err(timed_out("the database did not answer in time")));
        if result.as_ref().is_err_and(is_dead) {
            // Only the first call for an era counts: those that find out later that theirs is dead too do not end the
            // next one.
            let _ = self
                .era
                .compare_exchange(era, era + 1, Ordering::AcqRel, Ordering::Relaxed);
        }
        result
    }

    fn take_idle(&self, era: u64) -> Option<PgConnection> {
        let mut idle = self.idle();
        idle.retain(|idle| idle.era >= era && idle.since.elapsed() < IDLE_TIMEOUT);
        idle.pop_back().map(|idle| idle.connection)
    }

    /// A new connection, to a server that takes writes: what a standby says of the map is old.
    async fn connect(&self) -> Result<PgConnection, Error> {
        let connect = async {
            let mut connection = self.options.connect().await?;
            let standby = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut connection);
            if standby.await? {
                return Err(sqlx::Error::Io(io::Error::other("the server is a standby")).into());
            }
            Ok(connection)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .unwrap_or_else(|_| Err(timed_out("the database's host did not answer in time")))
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A turn, in the order in which they were asked for. Who waits is counted by the API's guard.
async fn permit(semaphore: &Semaphore, deadline: Instant) -> Result<SemaphorePermit<'_>, Error> {
    let permit = tokio::time::timeout_at(deadline, semaphore.acquire()).await;
    let permit = permit.map_err(|_| sqlx::Error::PoolTimedOut)?;
    Ok(permit.map_err(|_| sqlx::Error::PoolClosed)?)
}

/// Whether the connection, or its server's right to write, is gone: SQLSTATEs 57P01 to 57P03 (shutdown, crash, start-up),
/// class 08, and 25006 (the server is read-only).
fn is_dead(error: &Error) -> bool {
    let (Error::Unavailable(error) | Error::Database(error)) = error else {
        return false;
    };
    match &**error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(answer) => answer
            .code()
            .is_some_and(|code| code.starts_with("08") || code.starts_with("57P0") || code == "25006"),
        _ => false,
    }
}

/// A call that took too long.
pub fn timed_out(what: &'static str) -> Error {
    Error::Unavailable(Box::new(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, what))))
}
