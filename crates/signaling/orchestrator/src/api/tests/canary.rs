//! The canary share over HTTP.

use signalbox_protocol::canary::{Canary, ChangedBy, Compared, MAX_REPORTED, MAX_REPORTED_NODES};

use super::*;
use crate::canary::LOOK;

async fn canary(app: &Router) -> Canary {
    let response = send(app, request(Method::GET, "/v1/canary", "")).await;
    assert_eq!(response.status(), StatusCode::OK);
    decode(response).await
}

async fn set(app: &Router, body: Value) -> Canary {
    let response = send(app, request(Method::PUT, "/v1/canary", body.to_string())).await;
    assert_eq!(response.status(), StatusCode::OK);
    decode(response).await
}

#[tokio::test]
async fn a_share_is_set_and_told_with_its_history() {
    let app = app_with(&["--canary-share", "0.25"]).await;
    let before = canary(&app).await;
    assert_eq!(
        (before.share, before.by, before.since_ms),
        (0.25, ChangedBy::Configuration, None)
    );
    assert_eq!(before.history, []);

    let answer = set(&app, json!({"share": 0.1, "why": "version 2"})).await;
    assert_eq!(
        (answer.share, answer.by, answer.why.as_str()),
        (0.1, ChangedBy::Operator, "version 2")
    );
    set(&app, json!({"share": 1})).await;
    let after = canary(&app).await;
    assert_eq!(after.share, 1.0);
    assert_eq!(after.since_ms, Some(after.history[0].at_ms));
    let changes: Vec<(f64, f64)> = after.history.iter().map(|change| (change.from, change.to)).collect();
    assert_eq!(changes, [(0.1, 1.0), (0.25, 0.1)]);
    assert_eq!(after.verdict.joins.result, Compared::TooFew);
}

#[tokio::test]
async fn a_share_that_is_none_is_refused() {
    let app = memory().await;
    for share in ["-0.1", "1.01", "10", "1e999", "\"0.1\"", "null"] {
        let body = format!(r#"{{"share":{share}}}"#);
        fails(&app, request(Method::PUT, "/v1/canary", body), 400, "bad-request").await;
    }
    for why in ["x".repeat(MAX_TEXT_BYTES + 1), "a\u{0}b".to_owned()] {
        let body = json!({"share": 0.1, "why": why}).to_string();
        fails(&app, request(Method::PUT, "/v1/canary", body), 400, "bad-request").await;
    }
    assert_eq!(canary(&app).await.history, []);
}

#[tokio::test(start_paused = true)]
async fn what_gateways_report_is_counted_for_the_nodes_track() {
    let app = memory().await;
    let mut about = registration(NodeId::random());
    about["track"] = json!("canary");
    let node = about["node"].clone();
    post::<Registered>(&app, "/v1/nodes", about).await;
    let report = json!({"nodes": [{"node": node, "joins": {"ok": 3, "failed": 1}}]}).to_string();
    let response = send(&app, request(Method::POST, "/v1/outcomes", report)).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    tokio::time::sleep(LOOK * 2).await;
    let told = canary(&app).await;
    assert_eq!((told.canary.joins.ok, told.canary.joins.failed), (3, 1));
    assert_eq!(told.stable, Default::default());

    let response = send(&app, Request::get("/metrics").body(Body::empty()).unwrap()).await;
    let text = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let text = String::from_utf8_lossy(&text);
    for line in [
        "signalbox_orchestrator_canary_share 0",
        "signalbox_orchestrator_canary_rollbacks_total 0",
        r#"signalbox_orchestrator_canary_outcomes{track="canary",of="join",result="ok"} 3"#,
        r#"signalbox_orchestrator_canary_outcomes{track="canary",of="join",result="failed"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
    }
}

#[tokio::test]
async fn a_report_that_cannot_be_right_is_refused() {
    let app = memory().await;
    let one = |failed: u64| json!({"node": NodeId::random(), "joins": {"ok": 0, "failed": failed}});
    let reports = [
        vec![one(MAX_REPORTED + 1)],
        (0..=MAX_REPORTED_NODES).map(|_| one(1)).collect(),
    ];
    for nodes in reports {
        let body = json!({"nodes": nodes}).to_string();
        fails(&app, request(Method::POST, "/v1/outcomes", body), 400, "bad-request").await;
    }
}
