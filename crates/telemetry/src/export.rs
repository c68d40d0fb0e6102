//! Where spans go: to a collector, by OTLP over HTTP with protobuf (<https://opentelemetry.io/docs/specs/otlp/>).
//!
//! Spans that have ended wait in a queue, and a thread of its own sends them in batches. **No request ever waits for it:** when the queue is full,
//! because the collector is slow or away, spans are lost, and nothing else is. Batches are not sent again.
//!
//! The standard variables hold: `OTEL_EXPORTER_OTLP_HEADERS` for what the collector wants to be sent, `OTEL_SERVICE_NAME` and
//! `OTEL_RESOURCE_ATTRIBUTES` for how the process is called, `OTEL_BSP_MAX_QUEUE_SIZE` (2,048 spans), `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` (512) and
//! `OTEL_BSP_SCHEDULE_DELAY` (5,000 ms) for the queue.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData};
use reqwest::Url;
use reqwest::blocking::Client;
use reqwest::redirect::Policy;

use crate::Error;
use crate::span::TRACER;

/// How long a connection to the collector may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a batch may take. Higher: a slow collector is waited for, and more spans are lost behind it. Lower: it gets fewer.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the last batches may take when the process ends. Higher: ends wait for a collector that is away. Lower: the last spans are lost.
const LAST_TIMEOUT: Duration = Duration::from_secs(1);

/// Which traces are exported, and where to: flags and environment.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ExportConfig {
    /// Export traces of requests by OTLP to the collector at this URL, such as `http://127.0.0.1:4318`; `/v1/traces` is added to it. Without it
    /// there are none. The other standard variables of OTLP count as well.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<Endpoint>,
}

/// A collector's URL; or none, as an empty variable is one that is not set (OpenTelemetry specification, "Parsing empty value").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(Option<Url>);

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let url: Option<Url> = text.parse().ok();
        let is_usable = |url: &Url| {
            let is_bare = url.username().is_empty() && url.password().is_none();
            url.scheme() == "http" && is_bare && url.query().is_none() && url.fragment().is_none()
        };
        url.filter(is_usable).map(|url| Self(Some(url))).ok_or(
            "must be a URL like http://127.0.0.1:4318, without credentials; a collector that wants TLS is reached through one beside this process",
        )
    }
}

/// The export of this process's spans, for as long as it is not dropped; that takes the last of them to the collector, for at most a second.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Export(Option<SdkTracerProvider>);

impl Export {
    /// Begins to export spans, if there is somewhere to export them to. Of requests that say whether their trace is kept, that is heeded; of others
    /// this share is kept, from 0 to 1. To be called once, outside of a runtime, as `service` (`OTEL_SERVICE_NAME` goes before it).
    ///
    /// # Errors
    /// What stands in the way, apart from a collector that does not answer.
    pub fn start(config: &ExportConfig, service: &'static str, share: f64) -> Result<Self, Error> {
        let Some(Endpoint(Some(endpoint))) = &config.otlp_endpoint else {
            return Ok(Self(None));
        };
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(EXPORT_TIMEOUT)
            .no_proxy()
            .redirect(Policy::none())
            .build()?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_retry_policy(RetryPolicy::disabled())
            .with_endpoint(format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/')))
            .build()?;
        let exporter = Logged {
            exporter,
            fails: AtomicBool::new(false),
        };
        let mut resource =
            Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        if std::env::var_os("OTEL_SERVICE_NAME").is_none_or(|name| name.is_empty()) {
            resource = resource.with_service_name(service);
        }
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share))))
            .with_resource(resource.build())
            .with_span_processor(BatchSpanProcessor::builder(exporter).build())
            .build();
        // The first one stays.
        let _ = TRACER.set(provider.tracer("signalbox"));
        tracing::info!(endpoint = endpoint.as_str(), "traces are exported");
        Ok(Self(Some(provider)))
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        if let Some(provider) = &self.0
            && let Err(error) = provider.shutdown_with_timeout(LAST_TIMEOUT)
        {
            tracing::warn!(%error, "the last spans were lost");
        }
    }
}

/// An exporter that says when it begins to fail, and when it no longer does: once each, not for each batch.
#[derive(Debug)]
struct Logged {
    exporter: SpanExporter,
    fails: AtomicBool,
}

impl opentelemetry_sdk::trace::SpanExporter for Logged {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exported = self.exporter.export(batch).await;
        let failed = self.fails.swap(exported.is_err(), Ordering::Relaxed);
        match &exported {
            Err(error) if !failed => {
                tracing::warn!(%error, "the collector takes no traces; spans are lost until it does")
            }
            Ok(()) if failed => tracing::info!("the collector takes traces again"),
            _ => {}
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_plain_url_or_nothing() {
        assert_eq!("".parse(), Ok(Endpoint(None)));
        for url in ["http://127.0.0.1:4318", "http://collector:4318/otlp/"] {
            assert!(url.parse::<Endpoint>().unwrap().0.is_some());
        }
        for url in [
            "collector",
            "https://a",
            "grpc://a:1",
            "http://ann:hush@a",
            "http://a/?b",
            "http://a/#c",
        ] {
            let error = url.parse::<Endpoint>().unwrap_err();
            assert!(!error.contains("hush"), "{url}: {error}");
        }
    }
}
