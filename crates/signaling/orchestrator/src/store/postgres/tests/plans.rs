//! The statements read by index, as soon as a table is new and when it is large.

use super::*;

/// The plan that is kept for a statement, whatever its arguments, in a session as the store's.
async fn plan(connection: &mut PgConnection, sql: &str) -> String {
    let arguments = (1..20).take_while(|n| sql.contains(&format!("${n}"))).count();
    let nulls = vec!["NULL"; arguments].join(", ");
    for statement in [
        "SET enable_seqscan = off; SET jit = off; SET plan_cache_mode = force_generic_plan; DEALLOCATE ALL".to_owned(),
        format!("PREPARE statement AS {sql}"),
    ] {
        connection.execute(AssertSqlSafe(statement)).await.unwrap();
    }
    let explain = sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN (COSTS OFF) EXECUTE statement({nulls})")));
    let rows = explain.fetch_all(connection).await.unwrap();
    let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    lines.join("\n")
}

/// Each statement that is carried out often, or on tables that grow, and the indexes that it must read by.
const READS_BY: &[(&str, &str, &[&str])] = &[
    ("FIND", sql::FIND, &["room_pkey", "media_node_pkey"]),
    ("FIND_MANY", sql::FIND_MANY, &["room_pkey", "media_node_pkey"]),
    ("PLACE", sql::PLACE, &["media_node_pkey", "room_pkey"]),
    ("PLACE_APART", sql::PLACE_APART, &["media_node_pkey", "room_pkey"]),
    ("PLACE_MANY", sql::PLACE_MANY, &["room_pkey", "media_node_pkey"]),
    ("WANTED", sql::WANTED, &["room_pkey"]),
    ("HAND_OFF", sql::HAND_OFF, &["room_pkey", "media_node_pkey"]),
    ("CLOSE", sql::CLOSE, &["room_pkey"]),
    ("OCCUPIED", sql::OCCUPIED, &["room_by_group", "room_by_avoided"]),
    ("HELD", sql::HELD, &["room_pkey", "media_node_pkey"]),
    ("RESTORE", sql::RESTORE, &["media_node_pkey"]),
    ("ROOM", sql::ROOM, &["room_pkey"]),
    ("ROOMS", sql::ROOMS, &["room_pkey"]),
    ("HISTORY", sql::HISTORY, &["room_history_of"]),
    ("RENEW", nodes::RENEW, &["media_node_pkey"]),
    ("RELEASE", nodes::RELEASE, &["media_node_pkey"]),
    ("FENCE", nodes::FENCE, &["media_node_pkey"]),
    ("PURGE_CLOSED", sql::PURGE_CLOSED, &["room_closed"]),
    ("PURGE_ORPHANED", sql::PURGE_ORPHANED, &["room_by_node"]),
    ("PURGE_HISTORY", sql::PURGE_HISTORY, &["room_history_age"]),
];

async fn all_read_by_index(connection: &mut PgConnection) {
    for (name, sql, indexes) in READS_BY {
        let plan = plan(connection, sql).await;
        for index in *indexes {
            assert!(plan.contains(index), "{name} does not read by {index}:\n{plan}");
        }
        for table in ["room", "room_history"] {
            let whole = format!("Seq Scan on {table} ");
            assert!(!plan.contains(&whole), "{name} reads all of {table}:\n{plan}");
        }
    }
    // A page is a range of the key, not a sort of the table.
    assert!(!plan(connection, sql::ROOMS).await.contains("Sort"));
}

#[tokio::test]
async fn statements_read_by_index_when_the_tables_are_new() {
    let Some(store) = fresh().await else { return };
    all_read_by_index(&mut connect(&store).await).await;
    remove(&store).await;
}

#[tokio::test]
async fn statements_read_by_index_when_the_tables_are_large() {
    let Some(store) = fresh().await else { return };
    let mut connection = connect(&store).await;
    for node in (0..50).map(|_| new_node()) {
        register(&store, &node, LONG).await;
    }
    let fill = "
        INSERT INTO room (room_id, node_id, node_epoch, generation, assigned_at, closed_at, room_group, avoid)
        SELECT 'room-' || i, node_id, epoch, 1, clock_timestamp(), CASE WHEN i % 10 = 0 THEN clock_timestamp() END,
               CASE WHEN i % 50 = 0 THEN 'g' || i END, CASE WHEN i % 50 = 1 THEN ARRAY['g' || i] ELSE '{}' END
          FROM generate_series(1, 20000) i
          JOIN (SELECT node_id, epoch, row_number() OVER () AS n FROM media_node) nodes ON n = i % 50 + 1;
        INSERT INTO room_history (room_id, generation, at, event, node_id, node_epoch, by)
        SELECT room_id, generation, assigned_at, 'placed', node_id, node_epoch, 'test' FROM room;
        ANALYZE";
    sqlx::raw_sql(fill).execute(&mut connection).await.unwrap();
    all_read_by_index(&mut connection).await;
    remove(&store).await;
}
