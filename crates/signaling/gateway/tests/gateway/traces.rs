//! What is passed on of a caller's trace, and what is written of it, by a gateway that exports none.

use std::path::PathBuf;

use reqwest::{Method, StatusCode};
use signalbox_protocol::trace::TraceContext;

use crate::cluster::{Cluster, JOIN, OFFER, eventually};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// An access log that goes with the test.
struct Log(PathBuf);

impl Log {
    fn new(test: &str) -> Self {
        Self(std::env::temp_dir().join(format!("signalbox-log-{test}-{}.json", std::process::id())))
    }

    async fn line(&self) -> serde_json::Value {
        eventually("a line", async {
            loop {
                let text = std::fs::read_to_string(&self.0).unwrap_or_default();
                match text.split_once('\n') {
                    Some((line, _)) => return serde_json::from_str(line).unwrap(),
                    None => tokio::task::yield_now().await,
                }
            }
        })
        .await
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn join(cluster: &Cluster, headers: &[(&str, &str)]) -> String {
    let mut request = cluster
        .request(Method::POST, JOIN)
        .header("content-type", "application/json")
        .body(OFFER);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    response.headers()["x-request-id"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_callers_trace_reaches_orchestrator_node_and_access_log() {
    let log = Log::new("traced");
    let cluster = Cluster::start_with(&["--access-log", log.0.to_str().unwrap()]).await;
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let request_id = join(&cluster, &[("traceparent", &parent), ("tracestate", "rojo=1")]).await;
    let said = TraceContext {
        parent: parent.clone(),
        state: "rojo=1".into(),
    };
    assert_eq!(cluster.node.traces(), [Some(said)]);
    let headers = &cluster.orchestrator.headers()[0];
    assert_eq!(headers["traceparent"], parent.as_str());
    assert_eq!(headers["tracestate"], "rojo=1");
    let line = log.line().await;
    assert_eq!(line["trace_id"], TRACE);
    assert_eq!(line["request_id"], request_id.as_str());
}

#[tokio::test]
async fn what_is_no_trace_goes_nowhere() {
    let log = Log::new("untraced");
    let cluster = Cluster::start_with(&["--access-log", log.0.to_str().unwrap()]).await;
    let malformed = format!("00-{TRACE}-b7ad6b7169203331-zz");
    join(&cluster, &[("traceparent", &malformed), ("tracestate", "rojo=1")]).await;
    let twice = format!("00-{TRACE}-b7ad6b7169203331-01");
    join(&cluster, &[("traceparent", &twice), ("traceparent", &twice)]).await;
    assert_eq!(cluster.node.traces(), [None, None]);
    for headers in cluster.orchestrator.headers() {
        assert!(
            !headers.contains_key("traceparent") && !headers.contains_key("tracestate"),
            "{headers:?}"
        );
    }
    assert!(log.line().await.get("trace_id").is_none());
}
