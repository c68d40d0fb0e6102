//! The call page, the API's page and the files that they load, embedded in the binary.
//!
//! Owns their addresses, media types, cache and security headers. Knows nothing of calls: each page is a client like any other.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::state::State;

/// Nothing from elsewhere, no inline script, and nobody may frame a page that has camera and microphone.
const SECURITY_POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'self'; base-uri 'none'; object-src 'none'; frame-ancestors 'none'");

struct Asset {
    path: &'static str,
    media_type: &'static str,
    content: &'static str,
}

static ASSETS: [Asset; 12] = [
    asset("/", HTML, include_str!("../web/index.html")),
    asset("/style.css", CSS, include_str!("../web/style.css")),
    asset("/app.js", JAVASCRIPT, include_str!("../web/app.js")),
    asset("/call.js", JAVASCRIPT, include_str!("../web/call.js")),
    asset("/http.js", JAVASCRIPT, include_str!("../web/http.js")),
    asset("/media.js", JAVASCRIPT, include_str!("../web/media.js")),
    asset("/sight.js", JAVASCRIPT, include_str!("../web/sight.js")),
    asset("/view.js", JAVASCRIPT, include_str!("../web/view.js")),
    asset("/docs", HTML, include_str!("../web/docs.html")),
    asset("/docs.css", CSS, include_str!("../web/docs.css")),
    asset("/docs.js", JAVASCRIPT, include_str!("../web/docs.js")),
    asset("/favicon.svg", SVG, include_str!("../web/favicon.svg")),
];

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const fn asset(path: &'static str, media_type: &'static str, content: &'static str) -> Asset {
    Asset {
        path,
        media_type,
        content,
    }
}

/// The page's routes.
pub fn routes() -> Router<State> {
    ASSETS.iter().fold(Router::new(), |router, asset| {
        let tag = entity_tag(asset.content);
        router.route(
            asset.path,
            get(move |headers: HeaderMap| {
                let response = serve(asset, &tag, &headers);
                async move { response }
            }),
        )
    })
}

fn serve(asset: &Asset, tag: &HeaderValue, request: &HeaderMap) -> Response {
    let headers: [(HeaderName, HeaderValue); 5] = [
        (CONTENT_TYPE, HeaderValue::from_static(asset.media_type)),
        // Asked for each time, answered with 304 mostly: a new version of the gateway must not meet an old script.
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (ETAG, tag.clone()),
        (CONTENT_SECURITY_POLICY, SECURITY_POLICY),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    if request.get(IF_NONE_MATCH) == Some(tag) {
        (StatusCode::NOT_MODIFIED, headers).into_response()
    } else {
        (headers, asset.content).into_response()
    }
}

/// The same for the same content in all processes of one version.
fn entity_tag(content: &str) -> HeaderValue {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    HeaderValue::try_from(format!("\"{:016x}\"", hasher.finish())).unwrap_or(HeaderValue::from_static("\"0\""))
}
