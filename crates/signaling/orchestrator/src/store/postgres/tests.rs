//! The contract on PostgreSQL, and the races that only a database with snapshots has.
//!
//! `SIGNALBOX_TEST_DATABASE_URL` names a database in which each test makes a schema of its own. Without it these tests
//! skip.

use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};

use super::*;
use crate::store::contract::{self, LONG, MARGIN, new_node, room};

const URL: &str = "SIGNALBOX_TEST_DATABASE_URL";

/// A store in a new schema.
async fn fresh() -> Option<PostgresStore> {
    let Ok(url) = std::env::var(URL) else {
        eprintln!("skipped: {URL} is not set");
        return None;
    };
    let base: PgConnectOptions = url.parse().expect("a PostgreSQL URL");
    let schema = format!("signalbox_test_{}", Uuid::new_v4().simple());
    let mut connection = base.connect().await.expect("the test database answers");
    connection
        .execute(AssertSqlSafe(format!("CREATE SCHEMA {schema}")))
        .await
        .unwrap();
    connection.close().await.unwrap();
    // Patient, because a thousand tasks share the pool while other tests run.
    let store = PostgresStore::with_options(base.options([("search_path", schema)]), Duration::from_secs(60));
    store.open().await.unwrap();
    Some(store)
}

/// Removes the schema.
async fn remove(store: &PostgresStore) {
    let schema: String = sqlx::query_scalar("SELECT current_schema()::text")
        .fetch_one(&store.pool)
        .await
        .unwrap();
    store
        .pool
        .execute(AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE")))
        .await
        .unwrap();
    store.pool.close().await;
}

contract::suite!(fresh().await, remove);

#[tokio::test]
async fn opening_again_changes_nothing() {
    let Some(store) = fresh().await else { return };
    let node = new_node();
    store.register(&node, LONG).await.unwrap();
    store.place(&room("daily"), node.node, MARGIN).await.unwrap();
    let (first, second) = tokio::join!(store.open(), store.open());
    first.and(second).unwrap();
    assert!(store.find(&room("daily")).await.unwrap().is_some());
    remove(&store).await;
}

#[tokio::test]
async fn a_store_that_was_not_opened_is_not_ready() {
    let store = PostgresStore::new("postgres://nobody@127.0.0.1:1/none").unwrap();
    assert!(matches!(store.find(&room("daily")).await, Err(Error::NotReady)));
    assert!(store.open().await.unwrap_err().is_outage());
}

#[test]
fn a_url_that_is_none_is_refused_without_repeating_it() {
    for url in [
        "hush:hush@@",
        "mysql://a:hush@host/db",
        "postgres://a:hush@host:port/db",
        "hush",
        "",
    ] {
        let error = PostgresStore::new(url).unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{url}");
        assert!(!error.to_string().contains("hush"));
    }
}

/// The predicate that looks right, and is not: "nobody alive owns it".
const NAIVE: &str = "NOT EXISTS (SELECT 1 FROM media_node o WHERE o.node_id = r.node_id AND o.epoch = r.node_epoch
                                  AND o.lease_until > clock_timestamp())";

/// The one that is used.
const MONOTONE: &str = "EXISTS (SELECT 1 FROM media_node o WHERE o.node_id = r.node_id AND o.epoch > r.node_epoch)";

/// How the room came to be free at the start of the race.
#[derive(Clone, Copy)]
enum Start {
    OwnerReleased,
    Closed,
}

/// A take-over starts and waits for the room's row; meanwhile a node that is not in the take-over's view registers and
/// is given the room. Says whether the take-over then steals it.
async fn steals(store: &PostgresStore, place: &str, start: Start) -> bool {
    let name = room("daily");
    let (first, thief, fresh) = (new_node(), new_node(), new_node());
    let epoch = store.register(&first, LONG).await.unwrap();
    store.register(&thief, LONG).await.unwrap();
    let Placed::New(placed) = store.place(&name, first.node, MARGIN).await.unwrap() else {
        panic!("not placed")
    };
    match start {
        Start::OwnerReleased => assert!(store.release(first.node, epoch).await.unwrap()),
        Start::Closed => {
            let owner = CloseRoom {
                node: placed.node,
                epoch,
                generation: placed.generation,
            };
            assert!(store.close(&name, &owner).await.unwrap());
        }
    }

    // Holds the room's row while the thief's statement starts.
    let mut holder = store.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM room WHERE room_id = $1 FOR UPDATE")
        .bind(name.as_str())
        .execute(&mut *holder)
        .await
        .unwrap();
    let mut thiefs = store.pool.acquire().await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut *thiefs)
        .await
        .unwrap();
    let theft = async {
        let row = place_with(&mut thiefs, place, &name, thief.node).await;
        drop(thiefs);
        row.is_some()
    };
    let meanwhile = async {
        until_waiting(store, pid).await;
        store.register(&fresh, LONG).await.unwrap();
        let owned = place_with(&mut holder, sql::PLACE, &name, fresh.node).await;
        assert!(
            owned.is_some(),
            "the holder's statement sees the new node and takes the free room"
        );
        holder.commit().await.unwrap();
    };
    let (stolen, ()) = tokio::join!(theft, meanwhile);
    let owner = store.find(&name).await.unwrap().unwrap();
    assert_eq!(owner.node, if stolen { thief.node } else { fresh.node });
    stolen
}

async fn place_with(connection: &mut PgConnection, place: &str, name: &RoomName, node: NodeId) -> Option<PgRow> {
    sqlx::query(AssertSqlSafe(place.to_owned()))
        .bind(name.as_str())
        .bind(node.0)
        .bind(MARGIN.as_secs_f64())
        .fetch_optional(connection)
        .await
        .unwrap()
}

async fn until_waiting(store: &PostgresStore, pid: i32) {
    let waits = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock')";
    tokio::time::timeout(Duration::from_secs(30), async {
        while !sqlx::query_scalar::<_, bool>(waits)
            .bind(pid)
            .fetch_one(&store.pool)
            .await
            .unwrap()
        {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the take-over waits for the row");
}

#[tokio::test]
async fn a_takeover_that_waited_steals_nothing() {
    for start in [Start::OwnerReleased, Start::Closed] {
        let Some(store) = fresh().await else { return };
        assert!(!steals(&store, sql::PLACE, start).await);
        remove(&store).await;
    }
}

#[tokio::test]
async fn the_naive_predicate_steals_a_live_room() {
    // Keeps the test above honest: it must be able to fail.
    let naive = sql::PLACE.replace(MONOTONE, NAIVE);
    assert_ne!(naive, sql::PLACE);
    for start in [Start::OwnerReleased, Start::Closed] {
        let Some(store) = fresh().await else { return };
        assert!(steals(&store, &naive, start).await);
        remove(&store).await;
    }
}

#[tokio::test]
async fn fencing_waits_until_the_server_has_been_up_for_a_lease() {
    let Some(store) = fresh().await else { return };
    store.register(&new_node(), Duration::ZERO).await.unwrap();
    let brake = Brake {
        lease: Duration::from_secs(100 * 365 * 86_400),
        grace: Duration::ZERO,
    };
    assert_eq!(store.fence_expired(&brake).await.unwrap(), Fenced::default());
    assert_eq!(store.overdue().await.unwrap(), 1);
    remove(&store).await;
}

#[tokio::test]
async fn whoever_does_not_get_the_turn_fences_nothing() {
    let Some(store) = fresh().await else { return };
    store.register(&new_node(), Duration::ZERO).await.unwrap();
    let mut other = store.pool.begin().await.unwrap();
    assert!(
        sqlx::query_scalar::<_, bool>(sql::TURN_TO_FENCE)
            .fetch_one(&mut *other)
            .await
            .unwrap()
    );
    let loose = Brake {
        lease: Duration::ZERO,
        grace: Duration::ZERO,
    };
    assert_eq!(store.fence_expired(&loose).await.unwrap(), Fenced::default());
    other.rollback().await.unwrap();
    assert_eq!(store.fence_expired(&loose).await.unwrap().nodes.len(), 1);
    remove(&store).await;
}

#[tokio::test]
async fn finding_a_room_reads_by_its_primary_key() {
    let Some(store) = fresh().await else { return };
    let mut connection = store.pool.acquire().await.unwrap();
    // An empty table is read in sequence whatever indexes it has.
    connection.execute("SET enable_seqscan = off").await.unwrap();
    let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!("EXPLAIN {}", sql::FIND)))
        .bind("daily")
        .fetch_all(&mut *connection)
        .await
        .unwrap();
    assert!(plan.iter().any(|line| line.contains("room_pkey")), "{plan:#?}");
    drop(connection);
    remove(&store).await;
}
