//! Which pages of other origins may call the API (the Fetch standard, "CORS protocol").
//!
//! A browser asks on behalf of its page; nobody else is kept out by this. The token, which no browser sends by itself, is what counts, so any
//! origin may call unless the operator names some. WebSockets know no such question: their token alone decides.

use std::str::FromStr;
use std::time::Duration;

use axum::http::Method;
use axum::http::header::{
    AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MATCH, LINK, LOCATION, RETRY_AFTER,
};
use reqwest::Url;
use signalbox_protocol::trace::{TRACEPARENT, TRACESTATE};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

/// How long a browser may remember that it may call the API from another origin.
const PREFLIGHT_LIFETIME: Duration = Duration::from_secs(3600);

/// What an event stream that goes on had last. A script that reads one by `fetch` sends it itself.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Whose pages may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigin {
    /// `*`: everybody's.
    Any,
    /// `none`: those of the gateway's own origin only.
    Nobody,
    /// Those of this origin, as browsers write it (RFC 6454 section 6.2).
    Exact(HeaderValue),
}

impl FromStr for CorsOrigin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "*" => return Ok(Self::Any),
            "none" => return Ok(Self::Nobody),
            "null" => {
                return Err(
                    "`null` is what all pages say that have no origin, so it names nobody; name the pages' own origins",
                );
            }
            _ if text.contains('*') => return Err("origins are exact; name each one, or `*` alone for all"),
            _ => {}
        }
        let wrong = "must be an origin like https://app.example.com, without a path; or `*`, or `none`";
        let url = Url::parse(text).map_err(|_| wrong)?;
        let is_origin = matches!(url.path(), "" | "/")
            && !text.ends_with('/')
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        let host = url
            .host_str()
            .filter(|host| is_origin && !host.is_empty())
            .ok_or(wrong)?;
        // Ports that go without saying are gone already.
        let origin = match url.port() {
            Some(port) => format!("{}://{host}:{port}", url.scheme()),
            None => format!("{}://{host}", url.scheme()),
        };
        HeaderValue::try_from(origin).map(Self::Exact).map_err(|_| wrong)
    }
}

/// The layer for these origins. It answers all `OPTIONS`, whoever asks.
///
/// # Errors
/// A sentence without its full stop: settings that contradict each other.
pub(crate) fn layer(origins: &[CorsOrigin]) -> Result<CorsLayer, String> {
    let exact = |origin: &CorsOrigin| match origin {
        CorsOrigin::Exact(origin) => Some(origin.clone()),
        CorsOrigin::Any | CorsOrigin::Nobody => None,
    };
    let allowed = match origins {
        [CorsOrigin::Any] => AllowOrigin::from(Any),
        [] | [CorsOrigin::Nobody] => return Ok(CorsLayer::new()),
        // Says `Vary: Origin`, so that no cache gives one origin's answer to another one.
        origins => match origins.iter().map(exact).collect::<Option<Vec<_>>>() {
            Some(origins) => AllowOrigin::list(origins),
            None => {
                return Err("--cors-origin takes `*` and `none` alone only, without other origins beside them".into());
            }
        },
    };
    Ok(CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([
            AUTHORIZATION,
            CONTENT_TYPE,
            IF_MATCH,
            LAST_EVENT_ID,
            HeaderName::from_static(TRACEPARENT),
            HeaderName::from_static(TRACESTATE),
        ])
        .expose_headers([
            LOCATION,
            RETRY_AFTER,
            ETAG,
            LINK,
            HeaderName::from_static("accept-patch"),
            HeaderName::from_static("x-request-id"),
        ])
        .max_age(PREFLIGHT_LIFETIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_compared_as_browsers_write_it() {
        for (text, origin) in [
            ("https://app.example.com", "https://app.example.com"),
            ("HTTPS://App.Example.com:443", "https://app.example.com"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("http://[::1]:80", "http://[::1]"),
            ("capacitor://localhost", "capacitor://localhost"),
        ] {
            let parsed = text.parse::<CorsOrigin>().unwrap();
            assert_eq!(parsed, CorsOrigin::Exact(HeaderValue::from_static(origin)), "{text}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "app.example.com",
            "https://",
            "https://app.example.com/",
            "https://app.example.com/page",
            "https://app.example.com?x",
            "https://ann@app.example.com",
            "https://*.example.com",
            "**",
            "null",
            "file:///",
        ] {
            assert!(text.parse::<CorsOrigin>().is_err(), "{text}");
        }
    }

    #[test]
    fn all_and_none_stand_alone() {
        let origins = |texts: &[&str]| -> Vec<CorsOrigin> { texts.iter().map(|text| text.parse().unwrap()).collect() };
        for fits in [&["*"][..], &["none"], &["https://a", "https://b"]] {
            assert!(layer(&origins(fits)).is_ok(), "{fits:?}");
        }
        for contradiction in [&["*", "https://a"][..], &["https://a", "none"], &["*", "none"]] {
            let error = layer(&origins(contradiction)).unwrap_err();
            assert!(error.contains("--cors-origin"), "{error}");
        }
    }
}
