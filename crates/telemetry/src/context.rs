//! W3C Trace Context (<https://www.w3.org/TR/trace-context/>): which trace a request belongs to, as others say it and as we tell them.
//!
//! Callers may send anything. What is not exactly as it should be counts as absent, so that it can neither fail a request nor end up in a trace.

use std::str::FromStr;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use reqwest::header::HeaderMap;
use signalbox_protocol::trace::{TRACEPARENT, TRACESTATE, TraceContext};

/// How long `traceparent` is in version 00, in bytes (section 3.2.2). Later versions may be longer, but begin in the same way.
const PARENT_BYTES: usize = 55;

/// The longest `traceparent` of a later version that is read.
const MAX_PARENT_BYTES: usize = 128;

/// The longest `tracestate`, in bytes; a longer one is left behind (section 3.3.1.5: at least 512 should be passed on). Higher: callers make every
/// request between the tiers longer. Lower: their own tracing systems lose what they noted.
const MAX_STATE_BYTES: usize = 512;

/// What a request's headers say. More than one `traceparent` says nothing.
pub fn from_headers(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let (parent, None) = (parents.next()?.to_str().ok()?, parents.next()) else {
        return None;
    };
    // Several are one list (section 3.3.1).
    let states: Vec<&str> = headers
        .get_all(TRACESTATE)
        .iter()
        .filter_map(|state| state.to_str().ok())
        .collect();
    Some(TraceContext {
        parent: parent.to_owned(),
        state: states.join(","),
    })
}

/// The span that a context names; none if that cannot be read.
pub(crate) fn read(said: &TraceContext) -> Option<SpanContext> {
    let (trace, span, flags) = parent(&said.parent)?;
    let state = Some(said.state.as_str())
        .filter(|state| state.len() <= MAX_STATE_BYTES && state.bytes().all(is_printable))
        .and_then(|state| TraceState::from_str(state).ok())
        .unwrap_or_default();
    Some(SpanContext::new(trace, span, flags, true, state))
}

/// A context that names a span; none for one that is in no trace.
pub(crate) fn write(span: &SpanContext) -> Option<TraceContext> {
    span.is_valid().then(|| TraceContext {
        parent: format!(
            "00-{}-{}-{:02x}",
            span.trace_id(),
            span.span_id(),
            span.trace_flags().to_u8()
        ),
        state: span.trace_state().header(),
    })
}

/// Section 3.2.2, and 4.3 for versions to come.
fn parent(text: &str) -> Option<(TraceId, SpanId, TraceFlags)> {
    if text.len() > MAX_PARENT_BYTES || !text.is_ascii() {
        return None;
    }
    let (known, rest) = text.split_at_checked(PARENT_BYTES)?;
    let mut fields = known.split('-');
    let version = hex(fields.next()?, 2)?;
    let trace = hex(fields.next()?, 32)?;
    let span = hex(fields.next()?, 16)?;
    let flags = hex(fields.next()?, 2)?;
    let fits = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => rest.is_empty() || rest.starts_with('-'),
    };
    let is_whole = fields.next().is_none();
    let flags = TraceFlags::new(u8::try_from(flags).ok()?) & TraceFlags::SAMPLED;
    let (trace, span) = (TraceId::from(trace), SpanId::from(u64::try_from(span).ok()?));
    (fits && is_whole && trace != TraceId::INVALID && span != SpanId::INVALID).then_some((trace, span, flags))
}

/// A number of so many digits, in lower case.
fn hex(digits: &str, count: usize) -> Option<u128> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let fits = digits.len() == count && digits.bytes().all(is_hex);
    fits.then(|| u128::from_str_radix(digits, 16).ok()).flatten()
}

/// It becomes a header again.
fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn context(parent: &str, state: &str) -> TraceContext {
        TraceContext {
            parent: parent.to_owned(),
            state: state.to_owned(),
        }
    }

    #[test]
    fn a_context_is_the_same_after_it_was_read_and_written() {
        for said in [
            context(PARENT, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
            context(&PARENT.replace("-01", "-00"), ""),
        ] {
            assert_eq!(write(&read(&said).unwrap()), Some(said));
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-will-be-like";
        let known = read(&context(later, "")).unwrap();
        assert_eq!(write(&known).unwrap().parent, PARENT);
        // Flags that are not known are not passed on (section 3.2.2.5).
        let read = read(&context(&PARENT.replace("-01", "-ff"), "")).unwrap();
        assert_eq!(write(&read).unwrap().parent, PARENT);
    }

    #[test]
    fn a_traceparent_that_is_not_exactly_one_is_none() {
        let long = format!("cc{}-{}", &PARENT[2..], "x".repeat(100_000));
        for parent in [
            "",
            "-",
            "00",
            "garbage",
            &PARENT[1..],
            &PARENT[..54],
            &format!("{PARENT}-"),
            &format!("{PARENT}0"),
            &PARENT.to_uppercase(),
            &PARENT.replacen("00-", "ff-", 1),
            &PARENT.replacen("00-", "+0-", 1),
            &PARENT.replacen("00-", "0-0", 1),
            &PARENT.replace("0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000"),
            &PARENT.replace("b7ad6b7169203331", "0000000000000000"),
            &PARENT.replace("b7ad6b7169203331", "b7ad6b716920333g"),
            &PARENT.replace("-01", "-0ä"),
            &PARENT.replace('-', "_"),
            &format!("cc{}x", &PARENT[2..]),
            &long,
        ] {
            assert_eq!(read(&context(parent, "")), None, "{parent}");
        }
    }

    #[test]
    fn a_tracestate_that_is_too_long_or_malformed_is_left_behind_alone() {
        let members = |count| {
            let members: Vec<String> = (0..count).map(|n| format!("key{n}=value")).collect();
            members.join(",")
        };
        for state in [&members(60), "no member", "UPPER=1", "a=ä", "a=\n"] {
            let read = read(&context(PARENT, state)).unwrap();
            assert_eq!(write(&read), Some(context(PARENT, "")), "{state}");
        }
    }

    #[test]
    fn headers_that_contradict_each_other_say_nothing_and_lists_are_joined() {
        let mut headers = HeaderMap::new();
        assert_eq!(from_headers(&headers), None);
        headers.append(TRACEPARENT, PARENT.parse().unwrap());
        headers.append(TRACESTATE, "a=1".parse().unwrap());
        headers.append(TRACESTATE, "b=2".parse().unwrap());
        assert_eq!(from_headers(&headers), Some(context(PARENT, "a=1,b=2")));
        headers.append(TRACEPARENT, PARENT.parse().unwrap());
        assert_eq!(from_headers(&headers), None);
    }
}
