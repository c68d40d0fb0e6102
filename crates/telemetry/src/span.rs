//! One piece of work of a trace: it begins when a [`Span`] is made, and ends when that is dropped.
//!
//! A future that a span runs ([`Span::run`]) is what spans made in it belong to. Tasks that it spawns are not: they are no part of the request.
//!
//! A trace that is not kept costs a few words that are passed on; nothing of it is noted.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::trace::{FutureExt, SpanContext, Status, TraceContextExt, TraceFlags, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SdkTracer;
use signalbox_protocol::trace::TraceContext;

use crate::context;

/// Whether a span is what was asked for from outside ([`Kind::Server`]), what we ask others for ([`Kind::Client`]), or neither.
pub use opentelemetry::trace::SpanKind as Kind;

/// How many traces a second are kept because their callers want them to be. Callers may be anybody, and each such trace costs some spans in every tier; the
/// traces that are over it are passed on, and not kept. Higher: strangers can make this process export more. Lower: fewer clients' own traces go on here.
const MAX_WISHES: u32 = 100;

static WISHES: Wishes = Wishes(Mutex::new(None));

/// What makes spans, once they are exported.
pub(crate) static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// A piece of work under way; or nothing, if it belongs to no trace.
#[derive(Debug, Default)]
pub struct Span(Option<Context>);

impl Span {
    /// A request from outside, with what it says of its trace. If that is nothing, or cannot be read, it begins one. If the caller wants the trace to be
    /// kept it is, up to 100 times a second.
    pub fn begin(name: impl Into<Cow<'static, str>>, said: Option<&TraceContext>) -> Self {
        Self::of_request(TRACER.get(), name.into(), said, true)
    }

    /// A request from another of our processes: nothing unless it belongs to a trace.
    pub fn carry_on(name: impl Into<Cow<'static, str>>, said: Option<&TraceContext>) -> Self {
        Self::of_request(TRACER.get(), name.into(), said, false)
    }

    /// A part of what runs at present ([`Span::run`]).
    pub fn part(name: impl Into<Cow<'static, str>>, kind: Kind) -> Self {
        Context::map_current(|whole| match TRACER.get() {
            Some(tracer) if whole.span().span_context().is_sampled() => {
                Self(Some(start(tracer, name.into(), kind, whole)))
            }
            // What is asked of others still belongs to the trace.
            _ => Self(whole.has_active_span().then(|| whole.clone())),
        })
    }

    fn of_request(
        tracer: Option<&SdkTracer>,
        name: Cow<'static, str>,
        said: Option<&TraceContext>,
        begins: bool,
    ) -> Self {
        let mut caller = said.and_then(context::read);
        if begins
            && tracer.is_some()
            && let Some(wish) = &caller
            && wish.is_sampled()
            && !WISHES.grant(Instant::now())
        {
            caller = Some(unkept(wish));
        }
        let is_traced = caller.is_some() || begins;
        let parent = match caller {
            Some(caller) => Context::new().with_remote_span_context(caller),
            None => Context::new(),
        };
        match tracer {
            Some(tracer) if is_traced => Self(Some(start(tracer, name, Kind::Server, &parent))),
            _ => Self(parent.has_active_span().then_some(parent)),
        }
    }

    /// Runs a future as this piece of work.
    pub fn run<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        future.with_context(self.0.clone().unwrap_or_default())
    }

    /// Notes something of it. Never anything that names a person or opens a door: no token, secret, address or identity.
    pub fn note(&self, key: &'static str, value: impl Display) {
        if let Some(context) = self.kept() {
            context.span().set_attribute(KeyValue::new(key, value.to_string()));
        }
    }

    /// Notes a number.
    pub fn note_number(&self, key: &'static str, value: impl Into<i64>) {
        if let Some(context) = self.kept() {
            context.span().set_attribute(KeyValue::new(key, value.into()));
        }
    }

    /// It failed, and not because of whoever asked.
    pub fn fail(&self, why: impl Display) {
        if let Some(context) = self.kept() {
            context.span().set_status(Status::error(why.to_string()));
        }
    }

    /// What others are to be told of the trace, if it belongs to one.
    pub fn context(&self) -> Option<TraceContext> {
        context::write(self.0.as_ref()?.span().span_context())
    }

    /// The trace's id, 32 hex digits, if it belongs to one.
    pub fn trace_id(&self) -> Option<String> {
        let context = self.0.as_ref()?;
        Some(context.span().span_context().trace_id().to_string())
    }

    fn kept(&self) -> Option<&Context> {
        self.0.as_ref().filter(|context| context.span().is_recording())
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        // Whoever is still running may have a copy of the context.
        if let Some(context) = self.kept() {
            context.span().end();
        }
    }
}

/// What others are to be told of the trace of what runs at present, if it belongs to one.
pub fn current() -> Option<TraceContext> {
    Context::map_current(|context| context::write(context.span().span_context()))
}

/// How many callers have got their wish in the second that began then.
struct Wishes(Mutex<Option<(Instant, u32)>>);

impl Wishes {
    fn grant(&self, now: Instant) -> bool {
        let mut granted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, count) = granted
            .filter(|(began, _)| now.saturating_duration_since(*began) < Duration::from_secs(1))
            .unwrap_or((now, 0));
        let grants = count < MAX_WISHES;
        *granted = Some((began, count + u32::from(grants)));
        grants
    }
}

/// The same, but for whether it is kept.
fn unkept(caller: &SpanContext) -> SpanContext {
    let state = caller.trace_state().clone();
    SpanContext::new(caller.trace_id(), caller.span_id(), TraceFlags::default(), true, state)
}

fn start(tracer: &SdkTracer, name: Cow<'static, str>, kind: Kind, parent: &Context) -> Context {
    let span = tracer.span_builder(name).with_kind(kind);
    parent.with_span(tracer.build_with_context(span, parent))
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider};

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    fn said(sampled: bool) -> TraceContext {
        TraceContext {
            parent: format!("00-{TRACE}-b7ad6b7169203331-0{}", u8::from(sampled)),
            state: "rojo=1".into(),
        }
    }

    /// Spans that are kept as the parent says, and of others this share.
    fn tracer(share: f64) -> (SdkTracer, InMemorySpanExporter) {
        let exporter = InMemorySpanExporter::default();
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share)));
        let provider = SdkTracerProvider::builder()
            .with_sampler(sampler)
            .with_simple_exporter(exporter.clone())
            .build();
        (provider.tracer("test"), exporter)
    }

    #[tokio::test]
    async fn without_an_exporter_what_a_caller_says_is_passed_on_as_it_came() {
        let span = Span::of_request(None, "request".into(), Some(&said(true)), true);
        assert_eq!(span.context(), Some(said(true)));
        assert_eq!(span.trace_id().as_deref(), Some(TRACE));
        let below = span.run(async { (Span::part("below", Kind::Client).context(), current()) });
        assert_eq!(below.await, (Some(said(true)), Some(said(true))));
    }

    #[tokio::test]
    async fn without_an_exporter_nothing_is_begun() {
        let span = Span::of_request(None, "request".into(), None, true);
        assert_eq!(span.context(), None);
        assert_eq!(span.run(async { current() }).await, None);
    }

    #[test]
    fn a_request_goes_on_with_its_callers_trace() {
        let (tracer, exporter) = tracer(0.0);
        let span = Span::of_request(Some(&tracer), "request".into(), Some(&said(true)), true);
        span.note("room", "daily");
        let passed_on = span.context().unwrap();
        assert!(passed_on.parent.starts_with(&format!("00-{TRACE}-")) && passed_on.parent.ends_with("-01"));
        assert_ne!(passed_on.parent, said(true).parent, "the span is another one");
        assert_eq!(passed_on.state, "rojo=1");
        assert!(exporter.get_finished_spans().unwrap().is_empty(), "it has not ended");
        drop(span);
        let [span] = exporter.get_finished_spans().unwrap().try_into().unwrap();
        assert_eq!(span.parent_span_id.to_string(), "b7ad6b7169203331");
        assert!(span.parent_span_is_remote);
        assert_eq!(span.attributes, [KeyValue::new("room", "daily")]);
    }

    #[test]
    fn a_request_that_says_nothing_readable_begins_a_trace() {
        let (tracer, exporter) = tracer(1.0);
        let garbage = TraceContext {
            parent: "00-00000000000000000000000000000000-b7ad6b7169203331-01".into(),
            state: String::new(),
        };
        for said in [None, Some(&garbage)] {
            let span = Span::of_request(Some(&tracer), "request".into(), said, true);
            assert_eq!(span.trace_id().unwrap().len(), 32);
        }
        let spans = exporter.get_finished_spans().unwrap();
        assert_eq!(spans.len(), 2);
        assert!(
            spans
                .iter()
                .all(|span| span.parent_span_id.to_string() == "0000000000000000")
        );
    }

    #[test]
    fn a_trace_that_is_not_kept_is_passed_on_all_the_same() {
        let (tracer, exporter) = tracer(0.0);
        for said in [None, Some(&said(false))] {
            let span = Span::of_request(Some(&tracer), "request".into(), said, true);
            assert!(span.context().unwrap().parent.ends_with("-00"));
        }
        assert!(exporter.get_finished_spans().unwrap().is_empty());
    }

    #[test]
    fn callers_get_their_wish_only_so_often_in_a_second() {
        let wishes = Wishes(Mutex::new(None));
        let now = Instant::now();
        let granted = |at| (0..2 * MAX_WISHES).filter(|_| wishes.grant(at)).count();
        assert_eq!(granted(now), MAX_WISHES as usize);
        assert_eq!(granted(now + Duration::from_millis(999)), 0);
        assert_eq!(granted(now + Duration::from_secs(1)), MAX_WISHES as usize);
        let caller = context::read(&said(true)).unwrap();
        assert_eq!(context::write(&unkept(&caller)), Some(said(false)));
    }

    #[test]
    fn only_whoever_may_begin_a_trace_does() {
        let (tracer, exporter) = tracer(1.0);
        let span = Span::of_request(Some(&tracer), "request".into(), None, false);
        assert_eq!(span.context(), None);
        drop(span);
        assert!(exporter.get_finished_spans().unwrap().is_empty());
    }
}
