//! The contract on PostgreSQL, and what only a database has: snapshots, plans, connections that die.
//!
//! `SIGNALBOX_TEST_DATABASE_URL` names a database in which each test makes a schema of its own. Without it these tests
//! skip.

mod outages;
mod plans;
mod races;

use sqlx::postgres::PgConnection;
use sqlx::types::Uuid;
use sqlx::{AssertSqlSafe, Connection, Executor};

use super::*;
use crate::store::contract::{self, LONG, LOOSE, MARGIN, new_node, proposal, register, room};

const URL: &str = "SIGNALBOX_TEST_DATABASE_URL";

/// Long, because a thousand tasks share the connections while other tests run.
const PATIENT: Duration = Duration::from_secs(60);

/// A new schema in the test's database.
async fn fresh_schema() -> Option<PgConnectOptions> {
    let Ok(url) = std::env::var(URL) else {
        eprintln!("skipped: {URL} is not set");
        return None;
    };
    let base: PgConnectOptions = url.parse().expect("a PostgreSQL URL");
    let schema = format!("signalbox_test_{}", Uuid::new_v4().simple());
    let mut connection = base.connect().await.expect("the test database answers");
    let create = AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
    connection.execute(create).await.unwrap();
    connection.close().await.unwrap();
    Some(base.options([("search_path", schema)]))
}

/// A store in a new schema.
async fn fresh() -> Option<PostgresStore> {
    let store = PostgresStore::with_options(fresh_schema().await?, PATIENT);
    store.open().await.unwrap();
    Some(store)
}

/// A connection that is not one of the store's.
async fn connect(store: &PostgresStore) -> PgConnection {
    store.options.connect().await.unwrap()
}

/// Removes the schema.
async fn remove(store: &PostgresStore) {
    let mut connection = connect(store).await;
    let schema = sqlx::query_scalar("SELECT current_schema()::text");
    let schema: String = schema.fetch_one(&mut connection).await.unwrap();
    let drop = AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"));
    connection.execute(drop).await.unwrap();
}

contract::suite!(fresh().await, remove);

#[tokio::test]
async fn opening_again_changes_nothing() {
    let Some(store) = fresh().await else { return };
    let node = new_node();
    register(&store, &node, LONG).await;
    store.place(proposal(&room("daily"), node.node), MARGIN).await.unwrap();
    let (first, second) = tokio::join!(store.open(), store.open());
    assert_eq!(first.unwrap(), second.unwrap());
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

#[tokio::test]
async fn a_proposal_that_the_database_refuses_fails_alone() {
    let Some(store) = fresh().await else { return };
    let node = new_node();
    register(&store, &node, LONG).await;
    let names: Vec<RoomName> = (0..50).map(|n| room(&format!("room-{n}"))).collect();
    let calls = names.iter().enumerate().map(|(n, name)| {
        let mut proposal = proposal(name, node.node);
        if n % 10 == 3 {
            // No text of PostgreSQL's can hold it.
            proposal.by.push('\0');
        }
        store.place(proposal, MARGIN)
    });
    for (n, placed) in futures_util::future::join_all(calls).await.into_iter().enumerate() {
        match placed {
            Ok(placed) => assert!(n % 10 != 3 && matches!(placed, Placed::New(_)), "{n}: {placed:?}"),
            Err(error) => assert!(n % 10 == 3 && !error.is_outage(), "{n}: {error}"),
        }
    }
    remove(&store).await;
}

#[tokio::test]
async fn the_incarnation_names_the_servers_start_and_its_timeline() {
    let Some(store) = fresh().await else { return };
    let look = store.look("orchestrator-1", LONG).await.unwrap();
    let (start, timeline) = look.incarnation.split_once(' ').expect("two parts");
    assert!(start.parse::<f64>().is_ok_and(|start| start > 1e9), "{start}");
    assert!(u32::from_str_radix(timeline, 16).is_ok_and(|id| id > 0), "{timeline}");
    remove(&store).await;
}

#[tokio::test]
async fn fencing_waits_until_the_server_has_been_up_for_a_lease() {
    let Some(store) = fresh().await else { return };
    register(&store, &new_node(), Duration::ZERO).await;
    let brake = Brake {
        lease: Duration::from_secs(100 * 365 * 86_400),
        grace: Duration::ZERO,
    };
    let nobody = BTreeSet::new();
    assert_eq!(store.fence_expired(&brake, &nobody).await.unwrap(), Fenced::default());
    assert_eq!(store.overdue().await.unwrap().len(), 1);
    remove(&store).await;
}

#[tokio::test]
async fn whoever_does_not_get_the_turn_fences_nothing() {
    let Some(store) = fresh().await else { return };
    register(&store, &new_node(), Duration::ZERO).await;
    let mut other = connect(&store).await;
    let mut turn = other.begin().await.unwrap();
    let mine = sqlx::query_scalar::<_, bool>(nodes::TURN_TO_FENCE);
    assert!(mine.fetch_one(&mut *turn).await.unwrap());
    let nobody = BTreeSet::new();
    assert_eq!(store.fence_expired(&LOOSE, &nobody).await.unwrap(), Fenced::default());
    turn.rollback().await.unwrap();
    assert_eq!(store.fence_expired(&LOOSE, &nobody).await.unwrap().nodes.len(), 1);
    remove(&store).await;
}
