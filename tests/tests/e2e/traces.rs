//! Traces, from the client's request through all three tiers to a collector, with the real binaries.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use e2e::cluster::{CLUSTER_SECRET, KEY, KEY_SECRET, token, wait_for_ready};
use e2e::collector::{Collector, Span};
use e2e::eventually;
use e2e::processes::{Processes, Shape, command, free_address};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Response, StatusCode};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const IDENTITY: &str = "an-identity-that-nobody-else-has";

/// The least that has come of a join's trace when all of it has: the node's part, the orchestrator's, and the request, which ends last.
fn is_whole(spans: &[Span]) -> bool {
    let has = |service: &str, name: &str, kind: &str| {
        let fits = |span: &&Span| (span.service.as_str(), span.name.as_str(), span.kind) == (service, name, kind);
        spans.iter().any(|span| fits(&span))
    };
    has("signalbox-gateway", "POST /v1/rooms/{room}/join", "server")
        && has("signalbox-orchestrator", "POST /v1/placements", "server")
        && has("signalbox-media", "control/join", "server")
}

async fn cluster(endpoint: &str, share: &str) -> Processes {
    let flags = ["--otlp-endpoint", endpoint];
    let shape = Shape::new(1, 1)
        .orchestrator_flags(&["--memory", flags[0], flags[1]])
        .node_flags(&flags)
        .gateway_flags(&[flags[0], flags[1], "--trace-share", share]);
    Processes::start("postgres://nobody@127.0.0.1/none", &shape)
        .await
        .expect("the cluster starts")
}

async fn join(all: &Processes, room: &str, traceparent: Option<&str>) -> Response {
    let client = reqwest::Client::new();
    let mut request = client
        .post(format!("{}/v1/rooms/{room}/join", all.gateway(0)))
        .bearer_auth(token(room, IDENTITY))
        .header("content-type", "application/json")
        .body(r#"{"transport":"srtp","publish":[{"kind":"audio","codec":"opus"}],"subscribe":false}"#);
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), StatusCode::CREATED);
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_is_one_trace_through_three_tiers_as_its_caller_began_it() {
    let collector = Collector::start().await.unwrap();
    let all = cluster(&collector.endpoint, "0").await;
    let response = join(&all, "daily", Some(&format!("00-{TRACE}-{CALLER}-01"))).await;
    let request_id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body: serde_json::Value = response.json().await.unwrap();
    let participant = body["participant"]["id"].as_str().unwrap();
    let node = all.nodes[0].id.to_string();

    let spans = collector.trace(TRACE, "the whole trace", is_whole).await;
    let find = |service: &str, name: &str, kind: &str| -> &Span {
        let service = format!("signalbox-{service}");
        let found = spans
            .iter()
            .find(|span| (span.service.as_str(), span.name.as_str(), span.kind) == (service.as_str(), name, kind));
        found.unwrap_or_else(|| panic!("no {kind} span {name} of {service} in {spans:#?}"))
    };
    let request = find("gateway", "POST /v1/rooms/{room}/join", "server");
    let placing = find("gateway", "place room", "internal");
    let asking = find("gateway", "POST /v1/placements", "client");
    let asked = find("orchestrator", "POST /v1/placements", "server");
    let reading = find("orchestrator", "map/find", "client");
    let writing = find("orchestrator", "map/place", "client");
    let joining = find("gateway", "control/join", "client");
    let joined = find("media", "control/join", "server");
    assert_eq!(request.parent, CALLER);
    for (part, whole) in [
        (placing, request),
        (asking, placing),
        (asked, asking),
        (reading, asked),
        (writing, asked),
        (joining, request),
        (joined, joining),
    ] {
        assert_eq!(part.parent, whole.id, "{} is a part of {}", part.name, whole.name);
    }
    assert_eq!(request.notes["signalbox.request_id"], request_id);
    assert_eq!(request.notes["signalbox.dialect"], "http");
    assert_eq!(request.notes["http.response.status_code"], "201");
    for span in [placing, reading, writing, joining, joined] {
        assert_eq!(span.notes["signalbox.room"], "daily", "{span:?}");
    }
    for span in [placing, writing, joining, joined] {
        assert_eq!(span.notes["signalbox.node"], node, "{span:?}");
    }
    for span in [joining, joined] {
        assert_eq!(span.notes["signalbox.participant"], participant, "{span:?}");
        assert_eq!(span.notes["signalbox.result"], "ok", "{span:?}");
    }
    for span in &spans {
        assert!(!span.failed, "{span:?}");
        let text = format!("{span:?}");
        // Tokens begin so, as they are JSON in base64.
        assert!(!text.contains(IDENTITY) && !text.contains("eyJ"), "{text}");
        assert!(!span.notes.keys().any(|key| key.starts_with("client")), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_keeps_no_trace_is_heeded_and_one_that_is_not_understood_gets_a_new_one() {
    let collector = Collector::start().await.unwrap();
    let all = cluster(&collector.endpoint, "1").await;
    let unkept = TRACE.replace('0', "1");
    join(&all, "unkept", Some(&format!("00-{unkept}-{CALLER}-00"))).await;
    let malformed = [
        format!("00-{TRACE}-0000000000000000-01"),
        format!("00-{TRACE}-{CALLER}-01-"),
        "x".repeat(8_000),
    ];
    for (number, traceparent) in malformed.iter().enumerate() {
        join(&all, &format!("malformed {number}"), Some(traceparent)).await;
    }
    let begun = |spans: &[Span]| -> Vec<Span> {
        let is_join = |span: &&Span| span.name == "POST /v1/rooms/{room}/join";
        spans.iter().filter(is_join).cloned().collect()
    };
    let spans = collector
        .until("as many traces", |spans| begun(spans).len() == malformed.len())
        .await;
    let mut traces: Vec<String> = begun(&spans).into_iter().map(|root| root.trace).collect();
    assert!(begun(&spans).iter().all(|root| root.parent.is_empty()), "{spans:#?}");
    assert!(!traces.contains(&TRACE.to_owned()));
    traces.sort();
    traces.dedup();
    assert_eq!(traces.len(), malformed.len());
    for trace in traces {
        collector.trace(&trace, "a whole trace", is_whole).await;
    }
    // It was asked for before all of the others.
    let spans = collector.until("anything", |spans| !spans.is_empty()).await;
    assert!(spans.iter().all(|span| span.trace != unkept), "{spans:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_delays_neither_joins_nor_the_end() {
    // The system takes connections for it, and nobody reads from them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut all = cluster(&format!("http://{}", silent.local_addr().unwrap()), "1").await;
    let begun = Instant::now();
    for number in 0..20 {
        join(&all, &format!("room {number}"), None).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    // A connection means that an export is under way at the moment.
    silent.accept().unwrap();
    let begun = Instant::now();
    all.gateways[0].server.terminate().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_spans_are_exported_when_a_gateway_ends() {
    let collector = Collector::start().await.unwrap();
    let (public, admin) = (free_address().unwrap().to_string(), free_address().unwrap().to_string());
    let keys = format!("{KEY}:{KEY_SECRET}");
    let flags = [
        ["--listen", &public],
        ["--admin-listen", &admin],
        ["--keys", &keys],
        ["--otlp-endpoint", &collector.endpoint],
        ["--orchestrator", "http://127.0.0.1:9"],
    ];
    let flags: Vec<String> = flags.iter().flatten().map(|flag| (*flag).to_owned()).collect();
    let mut gateway = command("signalbox-gateway", &flags, CLUSTER_SECRET)
        .unwrap()
        // Nothing is exported before the end.
        .env("OTEL_BSP_SCHEDULE_DELAY", "600000")
        .spawn()
        .unwrap();
    wait_for_ready(&format!("http://{public}")).await.unwrap();
    let request = reqwest::Client::new()
        .post(format!("http://{public}/v1/rooms/daily/join"))
        .bearer_auth(token("daily", IDENTITY))
        .header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    assert_eq!(request.send().await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    let pid = Pid::from_raw(i32::try_from(gateway.id()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    let status = eventually("the gateway ends", async || gateway.try_wait().unwrap()).await;
    assert!(status.success(), "{status}");
    let spans = collector.trace(TRACE, "anything", |_| true).await;
    let request = spans
        .iter()
        .find(|span| span.parent == CALLER)
        .expect("the request's span");
    assert_eq!(request.notes["signalbox.result"], "orchestrator-unavailable");
    assert!(request.failed);
}
