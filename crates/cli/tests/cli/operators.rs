//! What an operator asks, answered by an orchestrator that knows two nodes and 250 rooms.

use std::net::SocketAddr;
use std::sync::mpsc;

use axum::extract::{Path, Query};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use signalbox_protocol::problem::Problem;

use super::command;

const SECRET: &str = "a secret for the tests";
const SERVING: &str = "00000000-0000-0000-0000-000000000001";
const EJECTED: &str = "00000000-0000-0000-0000-000000000002";

/// How many rooms it gives at once, whatever is asked for.
const PAGE: usize = 60;

/// Runs it on a thread of its own, which ends with the test process.
fn orchestrator(router: Router) -> SocketAddr {
    let (sender, address) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            axum::serve(listener, router).await
        })
    });
    address.recv().unwrap()
}

fn well() -> Router {
    Router::new()
        .route("/v1/nodes", get(nodes))
        .route("/v1/rooms", get(rooms))
        .route("/v1/canary", get(canary).put(set_canary))
        .route("/v1/rooms/{room}/placement", get(placement))
        .route(
            "/v1/nodes/{node}/drain",
            get(drain).put(begin_drain).delete(cancel_drain),
        )
}

fn busy() -> Router {
    let problem = || Json(Problem::new(503, "map-unavailable", "Away", "The database is away."));
    Router::new().fallback(async move || (StatusCode::SERVICE_UNAVAILABLE, problem()))
}

async fn nodes(headers: HeaderMap) -> Response {
    if headers[AUTHORIZATION] != format!("Bearer {SECRET}") {
        let problem = Problem::new(401, "unauthorized", "Unauthorized", "Send the cluster secret.");
        return (StatusCode::UNAUTHORIZED, Json(problem)).into_response();
    }
    let node = |node, ejected_ms| {
        json!({
            "node": node, "epoch": 7, "state": "serving", "live": true, "control": "ws://10.0.0.1:7900",
            "media": ["10.0.0.1:50000"], "region": "eu", "zone": "", "labels": {}, "track": "stable", "capacity": 100,
            "load": {"rooms": 2, "participants": 5, "packets_per_second": 900, "cpu_percent": 42},
            "version": "1.2.3", "lease_age_ms": 300, "ejected_ms": ejected_ms,
        })
    };
    Json(json!({"nodes": [node(SERVING, 0), node(EJECTED, 9000)]})).into_response()
}

async fn canary() -> Json<Value> {
    canary_of(&json!({"share": 0.25}))
}

async fn set_canary(Json(wanted): Json<Value>) -> Json<Value> {
    canary_of(&wanted)
}

fn canary_of(wanted: &Value) -> Json<Value> {
    let outcomes = json!({"joins": {"ok": 95, "failed": 5}, "connections": {"ok": 0, "failed": 0}});
    Json(json!({
        "share": wanted["share"], "by": "operator", "since_ms": 1000, "why": wanted["why"].as_str().unwrap_or_default(), "window_ms": 600_000,
        "stable": outcomes, "canary": outcomes,
        "verdict": {"joins": {"result": "alike", "p": 1.0}, "connections": {"result": "too_few"}},
        "history": [{"at_ms": 1000, "from": 0.0, "to": wanted["share"], "by": "operator", "why": wanted["why"].as_str().unwrap_or_default()}],
    }))
}

fn progress(node: &str, state: &str, left: u64) -> Json<Value> {
    Json(json!({
        "node": node, "epoch": 7, "state": state, "rooms": 5, "rooms_left": left, "stuck": 0, "rate": 2.0, "eta_ms": left * 500,
        "age_ms": 10, "by": "one",
    }))
}

async fn begin_drain(Path(node): Path<String>, Json(how): Json<Value>) -> Json<Value> {
    assert_eq!(
        (node.as_str(), &how),
        (SERVING, &json!({"rate": 2.0, "deadline_ms": 90_000}))
    );
    progress(&node, "running", 5)
}

async fn drain(Path(node): Path<String>) -> Json<Value> {
    progress(&node, "done", 0)
}

async fn cancel_drain(Path(node): Path<String>) -> Json<Value> {
    progress(&node, "cancelled", 2)
}

#[derive(Deserialize)]
struct Page {
    limit: usize,
    after: Option<String>,
    node: Option<String>,
}

async fn rooms(Query(page): Query<Page>) -> Json<Value> {
    assert_eq!(page.node.as_deref().unwrap_or(SERVING), SERVING);
    let names = (0..250).map(|n| format!("room {n:03}"));
    let mut names = names.filter(|name| page.after.as_ref().is_none_or(|after| name > after));
    let taken: Vec<String> = names.by_ref().take(page.limit.min(PAGE)).collect();
    let next = names.next().and(taken.last());
    let room = |name| {
        json!({
            "room": name, "node": SERVING, "epoch": 7, "generation": 3, "state": "orphaned", "placed_at_ms": 1000,
        })
    };
    Json(json!({"rooms": taken.iter().map(room).collect::<Vec<_>>(), "next": next}))
}

async fn placement(Path(room): Path<String>) -> Response {
    if room != "a room/1" {
        let problem = Problem::new(404, "room-not-found", "No such room", "It was never placed.");
        return (StatusCode::NOT_FOUND, Json(problem)).into_response();
    }
    Json(json!({
        "now": {"room": room, "node": SERVING, "epoch": 7, "generation": 1, "state": "open", "placed_at_ms": 1000},
        "history": [{
            "event": "placed", "at_ms": 1000, "generation": 1, "node": SERVING, "epoch": 7, "by": "orchestrator-1",
            "reasons": {
                "policy": "least-loaded", "track": "stable",
                "candidates": [
                    {"node": SERVING, "region": "eu", "score": 0.1},
                    {"node": EJECTED, "region": "eu", "score": 0.0, "filtered": "ejected"},
                ],
            },
        }],
    }))
    .into_response()
}

/// Exit code, standard output, standard error.
fn run(args: &[&str], urls: &str, secret: Option<&str>) -> (i32, String, String) {
    let mut command = command(args);
    command.env("SIGNALBOX_ORCHESTRATOR", urls);
    if let Some(secret) = secret {
        command.env("SIGNALBOX_CLUSTER_SECRET", secret);
    }
    let output = command.output().unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn succeeds(args: &[&str]) -> (String, String) {
    let urls = format!("http://{}", orchestrator(well()));
    let (code, out, err) = run(args, &urls, Some(SECRET));
    assert_eq!(code, 0, "{err}");
    (out, err)
}

#[test]
fn nodes_are_a_table_or_json() {
    let (text, said) = succeeds(&["nodes"]);
    assert_eq!(said, "");
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        lines[1],
        [
            SERVING,
            "serving",
            "eu",
            "stable",
            "1.2.3",
            "2",
            "5/100",
            "900",
            "42%",
            "0.3s",
            "10.0.0.1:50000"
        ]
    );
    assert_eq!(lines[0].len(), lines[1].len());
    assert_eq!(lines[2][1], "ejected");
    assert_eq!(lines.len(), 3);

    let (text, _) = succeeds(&["nodes", "--json"]);
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(list["nodes"][1]["ejected_ms"], 9000);
}

#[test]
fn rooms_come_in_pages() {
    let (text, said) = succeeds(&["rooms"]);
    assert_eq!(text.lines().count(), 101);
    assert!(text.lines().nth(1).unwrap().starts_with("room 000"), "{text}");
    assert!(text.contains("orphaned"));
    assert_eq!(said, "There are more; go on with --after 'room 099'\n");

    let (text, said) = succeeds(&[
        "rooms", "--after", "room 099", "--limit", "1000", "--node", SERVING, "--json",
    ]);
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(list["rooms"].as_array().unwrap().len(), 150);
    assert_eq!(list["rooms"][0]["room"], "room 100");
    assert_eq!((list["next"].clone(), said.as_str()), (Value::Null, ""));
}

#[test]
fn why_tells_when_who_how_and_who_else() {
    let (text, _) = succeeds(&["rooms", "why", "a room/1"]);
    for part in [
        "`a room/1` is open",
        SERVING,
        "1970-01-01 00:00:01 UTC",
        "placed by orchestrator-1",
        "policy least-loaded",
        "chosen",
        "joins on it had failed",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let (text, _) = succeeds(&["rooms", "why", "a room/1", "--json"]);
    let placement: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(placement["history"][0]["reasons"]["policy"], "least-loaded");
}

#[test]
fn an_unknown_room_is_one_sentence() {
    let urls = format!("http://{}", orchestrator(well()));
    let (code, out, err) = run(&["rooms", "why", "nowhere"], &urls, Some(SECRET));
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("never placed, or that was longer ago"), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
}

#[test]
fn the_next_orchestrator_is_asked_when_one_cannot_answer() {
    let urls = format!(
        "http://127.0.0.1:1,http://{},http://{}",
        orchestrator(busy()),
        orchestrator(well())
    );
    let (code, out, err) = run(&["nodes"], &urls, Some(SECRET));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains(SERVING));

    let urls = format!("http://{},http://127.0.0.1:1", orchestrator(busy()));
    let (code, _, err) = run(&["rooms"], &urls, Some(SECRET));
    assert_eq!(code, 1);
    assert!(err.contains("does not answer"), "{err}");
}

#[test]
fn the_first_secret_is_sent_and_a_wrong_one_is_told() {
    let urls = format!("http://{}", orchestrator(well()));
    let both = format!("{SECRET},the secret that was before");
    assert_eq!(run(&["nodes"], &urls, Some(&both)).0, 0);
    let (code, _, err) = run(&["nodes"], &urls, Some("quite another secret"));
    assert_eq!(code, 1);
    assert!(
        err.contains("Send the cluster secret.") && !err.contains("quite another"),
        "{err}"
    );
    let (code, _, err) = run(&["nodes"], &urls, None);
    assert_eq!(code, 2);
    assert!(err.contains("SIGNALBOX_CLUSTER_SECRET"), "{err}");
}

#[test]
fn a_node_is_drained_and_undrained() {
    let (text, _) = succeeds(&["drain", SERVING, "--rate", "2", "--deadline", "90s"]);
    assert!(text.contains("is draining: 5 rooms to move, 2.5s left"), "{text}");
    let (text, shown) = succeeds(&["drain", SERVING, "--rate", "2", "--deadline", "90s", "--wait"]);
    assert!(text.contains("is empty"), "{text}");
    assert!(shown.contains("5 of 5 rooms"), "{shown}");
    let (text, _) = succeeds(&["undrain", SERVING]);
    assert!(text.contains("takes rooms again; 3 rooms moved away"), "{text}");
}

#[test]
fn a_node_must_be_named_without_doubt() {
    let urls = format!("http://{}", orchestrator(well()));
    for (node, says) in [("0000", "several nodes"), ("ffff", "no node ffff")] {
        let (code, _, err) = run(&["drain", node], &urls, Some(SECRET));
        assert_eq!(code, 2);
        assert!(err.contains(says), "{err}");
    }
    let (code, _, err) = run(&["drain", SERVING, "--rate", "0"], &urls, Some(SECRET));
    assert_eq!(code, 2);
    assert!(err.contains("more than 0"), "{err}");
}

#[test]
fn the_canary_share_is_shown_and_set() {
    let (text, said) = succeeds(&["canary"]);
    assert_eq!(said, "");
    assert!(text.starts_with("canary share 25%, set "), "{text}");
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[3], ["stable", "100", "5", "(5.0%)", "0", "-"]);
    assert!(
        text.contains("joins are no worse, connections too few to tell"),
        "{text}"
    );

    for (given, share) in [("10%", 0.1), ("0.1", 0.1), ("0", 0.0)] {
        let (text, _) = succeeds(&["canary", "--share", given, "--why", "version 2", "--json"]);
        let view: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (view["share"].as_f64(), view["why"].as_str()),
            (Some(share), Some("version 2"))
        );
    }
    let urls = format!("http://{}", orchestrator(well()));
    for wrong in [&["canary", "--share", "10"][..], &["canary", "--why", "no share"]] {
        let (code, _, err) = run(wrong, &urls, Some(SECRET));
        assert_eq!(code, 2, "{err}");
    }
}
