//! Plain HTTP where TLS is: everybody is sent there.

use axum::Router;
use axum::extract::Request;
use axum::http::header::{HOST, LOCATION};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::problem::ApiError;

/// Sends each request to the same address with `https`, at this port.
pub(crate) fn router(port: u16) -> Router {
    Router::new().fallback(async move |request: Request| redirect(&request, port))
}

fn redirect(request: &Request, port: u16) -> Response {
    match location(request, port) {
        // The method and the body stay as they are (RFC 9110 section 15.4.9).
        Some(location) => (StatusCode::PERMANENT_REDIRECT, [(LOCATION, location)]).into_response(),
        None => ApiError::InvalidRequest("Say in the `Host` header which host this is for.".into()).into_response(),
    }
}

fn location(request: &Request, port: u16) -> Option<HeaderValue> {
    let host = request.headers().get(HOST)?.to_str().ok()?;
    let authority: Authority = host.parse().ok().filter(|_| !host.contains('@'))?;
    // What follows the host is a port or nothing; the type takes other things for it as well.
    let is_host = authority.as_str() == authority.host() || authority.port_u16().is_some();
    let authority = Some(authority).filter(|_| is_host)?;
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    // Two slashes would name another host.
    let path = format!("/{}", path.trim_start_matches('/'));
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    format!("https://{}{port}{path}", authority.host()).try_into().ok()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn sent_to(host: &str, path: &str, port: u16) -> Option<String> {
        let request = Request::get(path).header(HOST, host).body(Body::empty()).unwrap();
        Some(location(&request, port)?.to_str().unwrap().to_owned())
    }

    #[test]
    fn path_and_query_are_kept_and_the_port_is_that_of_tls() {
        let sent = |host, path, port| sent_to(host, path, port).unwrap();
        assert_eq!(sent("a.example", "/", 443), "https://a.example/");
        assert_eq!(
            sent("a.example:80", "/rtc?x=1&y=%0d%0a", 8443),
            "https://a.example:8443/rtc?x=1&y=%0d%0a"
        );
        assert_eq!(sent("[2001:db8::1]:80", "/", 443), "https://[2001:db8::1]/");
    }

    #[test]
    fn nobody_is_sent_elsewhere() {
        for host in ["", "a.example/evil", "user@a.example", "a b", "a.example:port"] {
            assert_eq!(sent_to(host, "/", 443), None, "{host}");
        }
        assert_eq!(
            sent_to("a.example", "//evil.example/", 443).unwrap(),
            "https://a.example/evil.example/"
        );
    }
}
