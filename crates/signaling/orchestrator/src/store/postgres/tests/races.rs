//! What a statement must not do after it has waited for a row: act on a view that is out of date.

use std::sync::Arc;

use sqlx::postgres::{PgArguments, PgRow, Postgres};
use sqlx::query::Query;

use super::*;
use crate::placement::Wish;
use crate::store::postgres::storm::{self, Damage, Storm};

/// The predicate that looks right, and is not: "nobody alive owns it".
const NAIVE: &str = "NOT EXISTS (SELECT 1 FROM media_node o WHERE o.node_id = r.node_id AND o.epoch = r.node_epoch
                                  AND o.lease_until > clock_timestamp())";

/// The one that is used.
const MONOTONE: &str = "EXISTS (SELECT 1 FROM media_node o WHERE o.node_id = r.node_id AND o.epoch > r.node_epoch)";

/// The hand-off's compare-and-set, and one that looks right and is not: it compares in a subquery.
const COMPARED: &str = "(r.node_id, r.node_epoch, r.generation) IS NOT DISTINCT FROM ($2, $3, $4)";
const COMPARED_IN_A_VIEW: &str = "EXISTS (SELECT 1 FROM room v WHERE v.room_id = r.room_id AND v.node_id = $2
                                           AND v.node_epoch = $3 AND v.generation = $4)";

/// How the room came to be free at the start of the race.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Start {
    OwnerReleased,
    Closed,
}

/// The statement that tries to get the room.
#[derive(Debug, Clone, Copy)]
enum Thief {
    Place(&'static str),
    PlaceMany(&'static str),
    HandOff(&'static str),
}

impl Thief {
    fn query(self, owner: &Assignment, candidate: NodeId) -> Query<'static, Postgres, PgArguments> {
        let room = owner.room.as_str().to_owned();
        let (margin, reasons) = (MARGIN.as_secs_f64(), Json(proposal(&owner.room, candidate).reasons));
        match self {
            Thief::Place(sql) => sqlx::query(sql)
                .bind(room)
                .bind(candidate.0)
                .bind(margin)
                .bind("thief")
                .bind(reasons)
                .bind(None::<String>)
                .bind(Vec::<String>::new())
                .bind(None::<Json<Wish>>),
            Thief::PlaceMany(sql) => sqlx::query(sql)
                .bind(vec![room])
                .bind(vec![candidate.0])
                .bind(vec![margin])
                .bind(vec!["thief"])
                .bind(vec![reasons])
                .bind(vec![None::<Json<Wish>>]),
            Thief::HandOff(sql) => sqlx::query(sql)
                .bind(room)
                .bind(owner.node.0)
                .bind(bigint(owner.epoch.0))
                .bind(bigint(owner.generation.0))
                .bind(candidate.0)
                .bind(margin)
                .bind("thief")
                .bind(reasons)
                .bind(None::<String>)
                .bind(Vec::<String>::new()),
        }
    }
}

fn leak(sql: String) -> &'static str {
    sql.leak()
}

fn naive(sql: &str) -> &'static str {
    let naive = sql.replacen(MONOTONE, NAIVE, 1);
    assert_ne!(naive, sql);
    leak(naive)
}

/// A statement starts and waits for the room's row; meanwhile the room becomes free, and a node that is not in the
/// statement's view registers and is given it. Says whether the statement then steals it.
async fn steals(store: &PostgresStore, thief: Thief, start: Start) -> bool {
    let name = room("daily");
    let (first, second, fresh) = (new_node(), new_node(), new_node());
    let epoch = register(store, &first, LONG).await;
    register(store, &second, LONG).await;
    let Placed::New(placed) = store.place(proposal(&name, first.node), MARGIN).await.unwrap() else {
        panic!("not placed")
    };
    let free = async || match start {
        Start::OwnerReleased => assert!(store.release(first.node, epoch).await.unwrap()),
        Start::Closed => {
            let close = sqlx::query("UPDATE room SET closed_at = clock_timestamp() WHERE room_id = $1");
            close
                .bind(name.as_str())
                .execute(&mut connect(store).await)
                .await
                .unwrap();
        }
    };
    // A placement finds the room free from the start; a hand-off needs a live owner at the start.
    let hands_off = matches!(thief, Thief::HandOff(_));
    if !hands_off {
        free().await;
    }

    // Holds the room's row while the thief's statement starts.
    let (mut holders, mut thiefs) = (connect(store).await, connect(store).await);
    let mut holder = holders.begin().await.unwrap();
    let hold = sqlx::query("SELECT 1 FROM room WHERE room_id = $1 FOR UPDATE");
    hold.bind(name.as_str()).execute(&mut *holder).await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut thiefs)
        .await
        .unwrap();
    let theft = async {
        let rows: Vec<PgRow> = thief.query(&placed, second.node).fetch_all(&mut thiefs).await.unwrap();
        !rows.is_empty()
    };
    let meanwhile = async {
        until_waiting(store, pid).await;
        if hands_off {
            let close = sqlx::query("UPDATE room SET closed_at = clock_timestamp() WHERE room_id = $1");
            close.bind(name.as_str()).execute(&mut *holder).await.unwrap();
        }
        register(store, &fresh, LONG).await;
        let place = Thief::Place(sql::PLACE).query(&placed, fresh.node);
        let owned = place.fetch_optional(&mut *holder).await.unwrap();
        assert!(
            owned.is_some(),
            "the holder's statement sees the new node and takes the free room"
        );
        holder.commit().await.unwrap();
    };
    let (stolen, ()) = tokio::join!(theft, meanwhile);
    let owner = store.find(&name).await.unwrap().unwrap();
    assert_eq!(owner.node, if stolen { second.node } else { fresh.node });
    stolen
}

async fn until_waiting(store: &PostgresStore, pid: i32) {
    let mut connection = connect(store).await;
    let waits = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock')";
    tokio::time::timeout(Duration::from_secs(30), async {
        while !sqlx::query_scalar::<_, bool>(waits)
            .bind(pid)
            .fetch_one(&mut connection)
            .await
            .unwrap()
        {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the statement waits for the row");
}

async fn steals_in_a_fresh_map(thief: Thief, start: Start) -> Option<bool> {
    let store = fresh().await?;
    let stolen = steals(&store, thief, start).await;
    remove(&store).await;
    Some(stolen)
}

#[tokio::test]
async fn a_takeover_that_waited_steals_nothing() {
    for thief in [
        Thief::Place(sql::PLACE),
        Thief::Place(sql::PLACE_APART),
        Thief::PlaceMany(sql::PLACE_MANY),
    ] {
        for start in [Start::OwnerReleased, Start::Closed] {
            let Some(stolen) = steals_in_a_fresh_map(thief, start).await else {
                return;
            };
            assert!(!stolen, "{thief:?} {start:?}");
        }
    }
}

#[tokio::test]
async fn the_naive_predicate_steals_a_live_room() {
    // Keeps the test above honest: it must be able to fail.
    for thief in [
        Thief::Place(naive(sql::PLACE)),
        Thief::PlaceMany(naive(sql::PLACE_MANY)),
    ] {
        for start in [Start::OwnerReleased, Start::Closed] {
            let Some(stolen) = steals_in_a_fresh_map(thief, start).await else {
                return;
            };
            assert!(stolen, "{thief:?} {start:?}");
        }
    }
}

#[tokio::test]
async fn a_hand_off_that_waited_steals_nothing() {
    if let Some(stolen) = steals_in_a_fresh_map(Thief::HandOff(sql::HAND_OFF), Start::Closed).await {
        assert!(!stolen);
    }
}

#[tokio::test]
async fn a_hand_off_that_compares_in_a_view_steals_a_live_room() {
    // Keeps the test above honest: it must be able to fail.
    let naive = leak(sql::HAND_OFF.replace(COMPARED, COMPARED_IN_A_VIEW));
    assert_ne!(naive, sql::HAND_OFF);
    if let Some(stolen) = steals_in_a_fresh_map(Thief::HandOff(naive), Start::Closed).await {
        assert!(stolen);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_no_live_room_is_taken_over() {
    let Some(store) = fresh().await else { return };
    let store = Arc::new(store);
    let storm = Storm {
        nodes: 12,
        rooms: 200,
        takers: 48,
        breakers: 2,
        take_overs: 3000,
        seed: 1,
    };
    let placing = store.clone();
    let place = move |proposal| {
        let store = placing.clone();
        async move {
            match store.place(proposal, MARGIN).await? {
                Placed::New(assignment) => Ok(Some(assignment)),
                Placed::Existing(_) | Placed::Refused => Ok(None),
            }
        }
    };
    let Damage { take_overs, live, gaps } = storm::run(store.clone(), storm, place).await.unwrap();
    assert_eq!((live, gaps), (0, 0), "of {take_overs} take-overs");
    assert!(take_overs > 2000, "{take_overs}");
    remove(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_orchestrators_agree_on_every_room() {
    let Some(options) = fresh_schema().await else { return };
    let stores: Vec<_> = (0..8)
        .map(|_| Arc::new(PostgresStore::with_options(options.clone(), PATIENT)))
        .collect();
    let mut candidates = Vec::new();
    for store in &stores {
        store.open().await.unwrap();
        let node = new_node();
        register(&**store, &node, LONG).await;
        candidates.push(node.node);
    }
    let mut calls = tokio::task::JoinSet::new();
    for call in 0..4000 {
        let (store, candidate) = (stores[call % 8].clone(), candidates[call / 8 % 8]);
        let name = room(&format!("room-{}", call % 100));
        calls.spawn(async move { store.place(proposal(&name, candidate), MARGIN).await.unwrap() });
    }
    let mut owners = std::collections::BTreeMap::new();
    let mut new = 0;
    for placed in calls.join_all().await {
        let assignment = match placed {
            Placed::New(assignment) => {
                new += 1;
                assignment
            }
            Placed::Existing(assignment) => assignment,
            Placed::Refused => panic!("all nodes take rooms"),
        };
        let owner = owners.entry(assignment.room.clone()).or_insert(assignment.clone());
        assert_eq!(*owner, assignment);
    }
    assert_eq!((owners.len(), new), (100, 100));
    remove(&stores[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_and_fences_of_many_nodes_do_not_wait_in_a_circle() {
    let Some(options) = fresh_schema().await else { return };
    let stores: Vec<_> = (0..4)
        .map(|_| Arc::new(PostgresStore::with_options(options.clone(), PATIENT)))
        .collect();
    let mut nodes = Vec::new();
    for store in &stores {
        store.open().await.unwrap();
    }
    for _ in 0..100 {
        let node = new_node();
        nodes.push((node.node, register(&*stores[0], &node, LONG).await));
    }
    let mut calls = tokio::task::JoinSet::new();
    for beat in 1..=40_u64 {
        for (index, (node, epoch)) in nodes.iter().copied().enumerate() {
            let store = stores[(index + beat as usize) % 4].clone();
            calls.spawn(async move {
                let load = NodeLoad::default();
                store.renew(node, epoch, beat, load, Duration::ZERO).await.map(drop)
            });
        }
        let store = stores[beat as usize % 4].clone();
        calls.spawn(async move { store.fence_expired(&LOOSE, &BTreeSet::new()).await.map(drop) });
    }
    for done in calls.join_all().await {
        // A deadlock would be an error: PostgreSQL ends one of the two.
        done.unwrap();
    }
    remove(&stores[0]).await;
}
