//! Which trace a request belongs to (W3C Trace Context), as it is passed on between processes: as the headers `traceparent` and
//! `tracestate` over HTTP, and with the same texts in a [`RequestFrame`](crate::control::RequestFrame) over the control link.

use serde::{Deserialize, Serialize};

/// The header of [`TraceContext::parent`].
pub const TRACEPARENT: &str = "traceparent";

/// The header of [`TraceContext::state`].
pub const TRACESTATE: &str = "tracestate";

/// A request's place in a trace, as whoever sends it says. Nothing is checked here: what cannot be read is as if it were not there, and no
/// reason to refuse a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// The trace, the span that asks, and whether the trace is kept (section 3.2): `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`.
    #[serde(rename = "traceparent")]
    pub parent: String,
    /// What tracing systems add for themselves (section 3.3); may be empty.
    #[serde(rename = "tracestate", default, skip_serializing_if = "String::is_empty")]
    pub state: String,
}
