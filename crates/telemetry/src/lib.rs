//! What the servers tell of themselves while they run: their logs, and the traces of control requests by OTLP.
//!
//! Owns how both are set up and switched on, the form of a trace's context between processes, and the life of a [`Span`]. It alone names OpenTelemetry,
//! whose minor versions break. It must not know a request, a room or a node: what is worth a span, and what it says, is for its caller.
//!
//! | module | owns |
//! |---|---|
//! | [`log`](log()) | the lines on standard error |
//! | [`context`] | W3C Trace Context: what is taken from others, and what they are given |
//! | [`span`] | one piece of work of a trace |
//! | [`export`] | where spans go: a collector, by OTLP over HTTP |
//!
//! Until [`Export::start`] was called with an endpoint there are no spans: what a caller says of its trace is passed on as it came, and that is all.

pub mod context;
pub mod export;
pub mod span;

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

pub use export::{Export, ExportConfig};
pub use span::{Kind, Span};

/// Why traces cannot be exported. Not for a collector that is away: that is no error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The exporter cannot be made.
    #[error("traces cannot be exported: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Its HTTP client cannot be made.
    #[error("traces cannot be exported: {0}")]
    Client(#[from] reqwest::Error),
}

/// Writes the process's log to standard error, with colours if that is a terminal: what `SIGNALBOX_LOG` asks for (the syntax of
/// [`EnvFilter`]), or, if it is not set or cannot be read, `otherwise`.
///
/// # Panics
/// When it is called twice.
pub fn log(otherwise: &str) {
    let filter = EnvFilter::try_from_env("SIGNALBOX_LOG").unwrap_or_else(|_| EnvFilter::new(otherwise));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .init();
}
