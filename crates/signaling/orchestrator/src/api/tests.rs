//! The API of an orchestrator whose map is in memory, or away.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Response, StatusCode};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use signalbox_protocol::node::NodeState;
use signalbox_protocol::placement::{MAX_GROUPS, MAX_LABELS, MAX_TEXT_BYTES, Policy};
use signalbox_protocol::problem::Problem;
use signalbox_protocol::ticket::{AUDIENCE, LIFETIME_SECONDS, TicketClaims};
use signalbox_protocol::{Epoch, Generation, NodeId};
use tower::ServiceExt;

mod canary;
mod complaints;
mod openapi;
mod rooms;

use super::*;
use crate::harness::{Orchestrator, SECRET, orchestrator, orchestrator_of, start};

/// The router of an orchestrator that is ready, with these flags.
async fn app_with(flags: &[&str]) -> Router {
    service_with(flags).await.router()
}

async fn service_with(flags: &[&str]) -> Orchestrator {
    let (service, _) = orchestrator(flags);
    start(&service).await;
    service
}

async fn memory() -> Router {
    app_with(&[]).await
}

fn request(method: Method, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {SECRET}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .unwrap()
}

async fn send(app: &Router, request: Request<Body>) -> Response<Body> {
    app.clone().oneshot(request).await.unwrap()
}

async fn decode<T: DeserializeOwned>(response: Response<Body>) -> T {
    let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{error}: {bytes:?}"))
}

async fn post<T: DeserializeOwned>(app: &Router, path: &str, body: Value) -> T {
    let response = send(app, request(Method::POST, path, body.to_string())).await;
    assert_eq!(response.status(), StatusCode::OK);
    decode(response).await
}

/// Sends, and expects a problem of this status and kind; returns its headers and its detail.
async fn fails(app: &Router, request: Request<Body>, status: u16, kind: &str) -> (header::HeaderMap, String) {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = send(app, request).await;
    let headers = response.headers().clone();
    assert_eq!(response.status(), status, "{method} {path}");
    openapi::assert_documented(app, &method, &path, status, kind).await;
    assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
    let problem: Problem = decode(response).await;
    assert_eq!(
        (problem.status, problem.kind),
        (status, format!("urn:signalbox:problem:{kind}"))
    );
    (headers, problem.detail)
}

fn registration(node: NodeId) -> Value {
    json!({"node": node, "after": 0, "control": "ws://10.0.0.7:7900", "media": ["192.0.2.1:50000"], "region": "eu", "capacity": 100, "version": "1"})
}

async fn registered(app: &Router) -> (NodeId, Epoch) {
    let node = NodeId::random();
    (
        node,
        post::<Registered>(app, "/v1/nodes", registration(node)).await.epoch,
    )
}

fn place_request() -> Request<Body> {
    request(Method::POST, "/v1/placements", r#"{"room":"daily"}"#)
}

#[tokio::test]
async fn a_node_registers_hosts_a_room_and_closes_it() {
    let app = memory().await;
    let node = NodeId::random();
    let answer: Registered = post(&app, "/v1/nodes", registration(node)).await;
    assert_eq!((answer.lease_ms, answer.heartbeat_ms), (2000, 500));
    let placed: Placement = post(&app, "/v1/placements", json!({"room": "daily", "region": "us"})).await;
    assert_eq!(
        (placed.node, placed.epoch, placed.generation),
        (node, answer.epoch, Generation(1))
    );
    assert_eq!(placed.control, "ws://10.0.0.7:7900");
    let again: Placement = post(&app, "/v1/placements", json!({"room": "daily"})).await;
    assert_eq!(
        (again.node, again.epoch, again.generation),
        (placed.node, placed.epoch, placed.generation)
    );

    let owner = json!({"node": node, "epoch": answer.epoch, "generation": 1});
    let close = async || {
        post::<RoomClosed>(&app, "/v1/rooms/daily/close", owner.clone())
            .await
            .closed
    };
    assert!(close().await);
    assert!(!close().await);
    let reopened: Placement = post(&app, "/v1/placements", json!({"room": "daily"})).await;
    assert_eq!(reopened.generation, Generation(2));
}

#[tokio::test]
async fn a_ticket_verifies_and_carries_the_placement() {
    let app = memory().await;
    let (node, epoch) = registered(&app).await;
    let placed: Placement = post(&app, "/v1/placements", json!({"room": "daily"})).await;
    assert_eq!(placed.ticket_seconds, LIFETIME_SECONDS);
    let verified = claims(&placed, SECRET).unwrap();
    assert_eq!(
        (
            verified.room.as_str(),
            verified.node,
            verified.epoch,
            verified.generation
        ),
        ("daily", node, epoch, Generation(1))
    );
    let answer: Registered = post(&app, "/v1/nodes", registration(NodeId::random())).await;
    assert_eq!(verified.cluster, answer.cluster);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!((now + LIFETIME_SECONDS - 10..=now + LIFETIME_SECONDS).contains(&verified.exp));
    assert!(claims(&placed, "another secret, as long").is_err());
}

fn claims(placed: &Placement, secret: &str) -> jsonwebtoken::errors::Result<TicketClaims> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_audience(&[AUDIENCE]);
    let key = DecodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::decode(&placed.ticket, &key, &validation).map(|token| token.claims)
}

#[tokio::test]
async fn rooms_spread_over_nodes() {
    let app = memory().await;
    registered(&app).await;
    registered(&app).await;
    let mut rooms = BTreeMap::new();
    for n in 0..20 {
        let placed: Placement = post(&app, "/v1/placements", json!({"room": format!("room {n}")})).await;
        *rooms.entry(placed.node).or_insert(0) += 1;
    }
    assert_eq!(rooms.values().copied().collect::<Vec<_>>(), [10, 10]);
}

#[tokio::test]
async fn every_route_but_the_probes_needs_the_secret() {
    let app = memory().await;
    for path in [
        "/v1/placements",
        "/v1/nodes",
        "/v1/rooms",
        "/v1/rooms/daily/close",
        "/nothing",
    ] {
        for value in [
            None,
            Some("Bearer the cluster's secre"),
            Some("Bearer "),
            Some("Basic abc"),
            Some("é"),
        ] {
            let mut wrong = request(Method::POST, path, "{}");
            wrong.headers_mut().remove(header::AUTHORIZATION);
            if let Some(value) = value {
                wrong.headers_mut().insert(
                    header::AUTHORIZATION,
                    header::HeaderValue::from_bytes(value.as_bytes()).unwrap(),
                );
            }
            let (headers, _) = fails(&app, wrong, 401, "unauthorized").await;
            assert_eq!(headers[header::WWW_AUTHENTICATE], "Bearer");
        }
    }
    for path in ["/livez", "/readyz", "/openapi.json"] {
        let probe = Request::get(path).body(Body::empty()).unwrap();
        assert_eq!(send(&app, probe).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn without_a_node_there_is_503_and_when_to_retry() {
    let app = memory().await;
    let (headers, _) = fails(&app, place_request(), 503, "no-node").await;
    assert_eq!(headers[header::RETRY_AFTER], "1");
}

#[tokio::test]
async fn with_the_database_away_there_is_503_and_when_to_retry() {
    let service = service_with(&[]).await;
    let app = service.router();
    service.store().outage(true);
    let (headers, _) = fails(&app, place_request(), 503, "map-unavailable").await;
    assert_eq!(headers[header::RETRY_AFTER], "1");
    let body = registration(NodeId::random()).to_string();
    fails(&app, request(Method::POST, "/v1/nodes", body), 503, "map-unavailable").await;
    service.sight().wait_for(|sight| !sight.reachable).await.unwrap();
    fails(&app, request(Method::GET, "/readyz", ""), 503, "map-unavailable").await;
    let live = send(&app, request(Method::GET, "/livez", "")).await;
    assert_eq!(live.status(), StatusCode::OK);
}

#[tokio::test]
async fn before_the_map_was_reached_nobody_gets_a_ticket_or_an_epoch() {
    let (service, _) = orchestrator(&[]);
    let app = service.router();
    fails(&app, place_request(), 503, "map-unavailable").await;
    let body = registration(NodeId::random()).to_string();
    fails(&app, request(Method::POST, "/v1/nodes", body), 503, "map-unavailable").await;
}

#[tokio::test]
async fn while_secrets_rotate_the_old_and_the_new_one_are_accepted_and_the_first_one_signs() {
    const NEW: &str = "the cluster's next secret";
    let (service, _) = orchestrator_of(&format!("{NEW},{SECRET}"), &[]);
    start(&service).await;
    let app = service.router();
    registered(&app).await;
    let with = |secret: &str| {
        let mut request = place_request();
        let value = format!("Bearer {secret}").parse().unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, value);
        request
    };
    for secret in [SECRET, NEW] {
        let placed: Placement = decode(send(&app, with(secret)).await).await;
        assert!(claims(&placed, NEW).is_ok() && claims(&placed, SECRET).is_err());
    }
    for wrong in ["another secret, as long", &format!("{NEW},{SECRET}"), ""] {
        fails(&app, with(wrong), 401, "unauthorized").await;
    }
}

#[tokio::test]
async fn bad_bodies_and_names_are_400_and_say_what_to_correct() {
    let app = memory().await;
    let long = "x".repeat(257);
    let bodies = [
        "",
        "{",
        "[]",
        "{}",
        r#"{"room":""}"#,
        r#"{"room":7}"#,
        r#"{"room":"a\u0007"}"#,
        "\u{0}",
        &format!(r#"{{"room":"{long}"}}"#),
    ];
    for body in bodies {
        let (_, detail) = fails(
            &app,
            request(Method::POST, "/v1/placements", body.to_owned()),
            400,
            "bad-request",
        )
        .await;
        assert!(detail.starts_with("Correct the body: "), "{detail}");
    }
    let owner = json!({"node": NodeId::random(), "epoch": 1, "generation": 1}).to_string();
    for path in [
        "/v1/rooms/a%07/close",
        "/v1/rooms/%ff/close",
        &format!("/v1/rooms/{long}/close"),
        "/v1/nodes/7/release",
    ] {
        fails(&app, request(Method::POST, path, owner.clone()), 400, "bad-request").await;
    }
}

#[tokio::test]
async fn a_registration_that_cannot_be_right_is_refused() {
    let app = memory().await;
    let wrong = [
        ("control", json!("http://10.0.0.7:7900")),
        ("control", json!(format!("ws://{}", "x".repeat(300)))),
        ("media", json!([])),
        ("media", json!(["nowhere"])),
        ("region", json!("e\u{0}u")),
        ("labels", json!({"a": "b\n"})),
        ("labels", labels(MAX_LABELS + 1)),
        ("labels", json!({"a": "x".repeat(MAX_TEXT_BYTES + 1)})),
        ("capacity", json!(-1)),
    ];
    for (field, value) in wrong {
        let mut body = registration(NodeId::random());
        body[field] = value;
        fails(
            &app,
            request(Method::POST, "/v1/nodes", body.to_string()),
            400,
            "bad-request",
        )
        .await;
    }
}

fn labels(count: usize) -> Value {
    (0..count)
        .map(|n| (format!("label {n}"), json!("x")))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[tokio::test]
async fn a_registration_at_the_limits_is_taken() {
    let app = memory().await;
    let mut body = registration(NodeId::random());
    body["labels"] = labels(MAX_LABELS);
    body["region"] = json!("x".repeat(MAX_TEXT_BYTES));
    post::<Registered>(&app, "/v1/nodes", body).await;
}

#[tokio::test]
async fn where_public_media_is_required_a_private_address_is_refused_and_named() {
    let app = app_with(&["--require-public-media"]).await;
    let with = |media: Value| {
        let mut body = registration(NodeId::random());
        body["media"] = media;
        body
    };
    for (address, why) in [
        ("10.0.0.7:50000", "private"),
        ("127.0.0.1:50000", "loopback"),
        ("169.254.0.7:50000", "link-local"),
        ("100.64.0.7:50000", "carrier"),
        ("192.0.2.1:50000", "documentation"),
        ("[fd00::7]:50000", "private"),
    ] {
        let body = with(json!(["54.12.34.56:50000", address])).to_string();
        let refused = request(Method::POST, "/v1/nodes", body);
        let (_, detail) = fails(&app, refused, 400, "private-media-address").await;
        assert!(
            detail.contains(address) && detail.contains(why) && detail.contains("--media-ip"),
            "{detail}"
        );
    }
    post::<Registered>(
        &app,
        "/v1/nodes",
        with(json!(["54.12.34.56:50000", "[2a01:4f8::1]:50000"])),
    )
    .await;
}

#[tokio::test]
async fn a_placement_over_the_limits_is_400_and_says_what_to_correct() {
    let app = memory().await;
    let groups: Vec<String> = (0..=MAX_GROUPS).map(|n| format!("group {n}")).collect();
    let long = "x".repeat(MAX_TEXT_BYTES + 1);
    let wrong = [
        ("labels", labels(MAX_LABELS + 1)),
        ("labels", json!({"a": long})),
        ("avoid", json!(groups)),
        ("avoid", json!([long])),
        ("group", json!("")),
        ("region", json!(long)),
        ("user", json!("a\u{0}")),
        ("min_version", json!("new")),
        ("min_version", json!("1..2")),
        ("min_version", json!("1.2.3.4.5")),
        ("policy", json!("fastest")),
        ("track", json!("beta")),
    ];
    for (field, value) in wrong {
        let mut body = json!({"room": "daily"});
        body[field] = value;
        let refused = request(Method::POST, "/v1/placements", body.to_string());
        let (_, detail) = fails(&app, refused, 400, "bad-request").await;
        assert!(detail.contains(field), "{field}: {detail}");
        if field == "policy" {
            assert!(
                Policy::ALL.iter().all(|policy| detail.contains(policy.name())),
                "{detail}"
            );
        }
    }
}

#[tokio::test]
async fn unknown_routes_methods_types_and_long_bodies_have_their_own_errors() {
    let app = memory().await;
    fails(&app, request(Method::GET, "/v2", ""), 404, "not-found").await;
    let (headers, _) = fails(
        &app,
        request(Method::DELETE, "/v1/nodes", ""),
        405,
        "method-not-allowed",
    )
    .await;
    let allow = headers[header::ALLOW].to_str().unwrap();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    fails(&app, request(Method::POST, "/livez", ""), 405, "method-not-allowed").await;

    let mut text = place_request();
    text.headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    fails(&app, text, 415, "unsupported-media-type").await;

    let long = format!(r#"{{"room":"daily"{}}}"#, " ".repeat(MAX_BODY_BYTES));
    fails(
        &app,
        request(Method::POST, "/v1/placements", long),
        413,
        "body-too-large",
    )
    .await;
}

#[tokio::test]
async fn a_heartbeat_renews_and_from_the_past_it_is_409_and_with_an_old_epoch_410() {
    let app = memory().await;
    let (node, old) = registered(&app).await;
    let rooms: Vec<Value> = (0..2000)
        .map(|n| json!({"room": format!("a room with a long name {n}"), "generation": n + 1}))
        .collect();
    let load = json!({"rooms": 2000, "participants": 5, "packets_per_second": 1});
    let beat = |epoch: Epoch, beat: u64| json!({"epoch": epoch, "beat": beat, "load": load, "rooms": rooms});
    let path = format!("/v1/nodes/{node}/heartbeat");
    assert!(beat(old, 1).to_string().len() > MAX_BODY_BYTES);
    assert_eq!(post::<Renewed>(&app, &path, beat(old, 7)).await.lease_ms, 2000);
    for past in [7, 6] {
        let past = request(Method::POST, &path, beat(old, past).to_string());
        fails(&app, past, 409, "heartbeat-from-the-past").await;
    }

    let mut again = registration(node);
    let moved = request(Method::POST, "/v1/nodes", again.to_string());
    let told: Problem = decode(send(&app, moved).await).await;
    assert_eq!((told.status, told.epoch), (409, Some(old)), "{}", told.kind);
    again["after"] = json!(old);
    let current = post::<Registered>(&app, "/v1/nodes", again).await.epoch;
    let over = request(Method::POST, &path, beat(old, 8).to_string());
    fails(&app, over, 410, "epoch-over").await;
    post::<Renewed>(&app, &path, beat(current, 1)).await;
    let stranger = format!("/v1/nodes/{}/heartbeat", NodeId::random());
    let unknown = request(Method::POST, &stranger, beat(current, 1).to_string());
    fails(&app, unknown, 410, "epoch-over").await;

    let too_long = " ".repeat(MAX_HEARTBEAT_BYTES + 1);
    fails(&app, request(Method::POST, &path, too_long), 413, "body-too-large").await;
}

#[tokio::test]
async fn release_is_204_also_the_second_time_and_the_node_gets_no_rooms() {
    let app = memory().await;
    let (node, epoch) = registered(&app).await;
    for _ in 0..2 {
        let release = request(
            Method::POST,
            &format!("/v1/nodes/{node}/release"),
            json!({"epoch": epoch}).to_string(),
        );
        assert_eq!(send(&app, release).await.status(), StatusCode::NO_CONTENT);
    }
    fails(&app, place_request(), 503, "no-node").await;
    let list: NodeList = decode(send(&app, request(Method::GET, "/v1/nodes", "")).await).await;
    assert_eq!(
        (list.nodes[0].node, list.nodes[0].state, list.nodes[0].live),
        (node, NodeState::Lost, false)
    );
}
