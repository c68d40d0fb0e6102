//! A collector of traces: takes OTLP over HTTP, as protobuf, and keeps the spans.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A span as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The process's `service.name`.
    pub service: String,
    /// Its name.
    pub name: String,
    /// `server`, `client` or `internal`.
    pub kind: &'static str,
    /// The trace, in hex.
    pub trace: String,
    /// Its own id, in hex.
    pub id: String,
    /// The span that it is a part of, in hex; empty: none.
    pub parent: String,
    /// What was noted of it.
    pub notes: BTreeMap<String, String>,
    /// It failed.
    pub failed: bool,
}

/// A collector that listens. It ends with the test.
#[derive(Debug)]
pub struct Collector {
    /// The `http://…` that is to be exported to.
    pub endpoint: String,
    spans: watch::Receiver<Vec<Span>>,
}

impl Collector {
    /// Begins to listen.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let (keep, spans) = watch::channel(Vec::new());
        let router = Router::new().route("/v1/traces", post(take)).with_state(keep);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { endpoint, spans })
    }

    /// The spans of a trace, as soon as they meet a condition.
    ///
    /// # Panics
    /// When they do not within [`crate::PATIENCE`].
    pub async fn trace(&self, trace: &str, what: &str, condition: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let of = |all: &[Span]| -> Vec<Span> { all.iter().filter(|span| span.trace == trace).cloned().collect() };
        let mut spans = self.spans.clone();
        crate::until(&mut spans, what, |all| condition(&of(all))).await;
        of(&spans.borrow())
    }

    /// All that has come, as soon as it meets a condition.
    ///
    /// # Panics
    /// When it does not within [`crate::PATIENCE`].
    pub async fn until(&self, what: &str, condition: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let mut spans = self.spans.clone();
        crate::until(&mut spans, what, |all| condition(all)).await;
        spans.borrow().clone()
    }
}

async fn take(State(keep): State<watch::Sender<Vec<Span>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let is_protobuf = headers
        .get("content-type")
        .is_some_and(|kind| kind == "application/x-protobuf");
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST;
    };
    if !is_protobuf {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE;
    }
    let mut came = Vec::new();
    for of_process in request.resource_spans {
        let resource = of_process.resource.unwrap_or_default();
        let service = notes(&resource.attributes).remove("service.name").unwrap_or_default();
        for span in of_process.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            came.push(Span {
                service: service.clone(),
                kind: match span.kind {
                    2 => "server",
                    3 => "client",
                    _ => "internal",
                },
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                notes: notes(&span.attributes),
                failed: span.status.as_ref().is_some_and(|status| status.code == 2),
                name: span.name,
            });
        }
    }
    keep.send_modify(|all| all.extend(came));
    StatusCode::OK
}

fn notes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pairs = attributes.iter().map(|pair| (pair.key.clone(), text(&pair.value)));
    pairs.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
