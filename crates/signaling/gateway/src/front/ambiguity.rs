//! Requests that another server on the way could read differently are refused (RFC 9112 sections 3.2 and 6.1): what one takes for the body of a request the other
//! takes for the next one.
//!
//! This is what the HTTP library leaves of them: it refuses lengths that differ and codings that do not end with `chunked`. Of a length beside a coding it heeds
//! the coding alone and closes the connection behind the answer, so that nothing of the body is ever taken for a request (section 6.1).

use axum::extract::Request;
use axum::http::Version;
use axum::http::header::HOST;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::problem::ApiError;

/// Answers such requests with 400, and passes on all others.
pub(crate) async fn refuse(request: Request, next: Next) -> Response {
    match why(&request) {
        Some(why) => ApiError::InvalidRequest(why.to_owned()).into_response(),
        None => next.run(request).await,
    }
}

fn why<B>(request: &axum::http::Request<B>) -> Option<&'static str> {
    let hosts = request.headers().get_all(HOST).iter().count();
    // HTTP/2 names it elsewhere, and HTTP/1.0 need not.
    let is_named = hosts == 1 || hosts == 0 && request.version() != Version::HTTP_11;
    (!is_named).then_some("Say in one `Host` header which host this is for.")
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn is_refused(version: Version, uri: &str, headers: &[(&str, &str)]) -> bool {
        let request = Request::builder().version(version).uri(uri);
        let request = headers
            .iter()
            .fold(request, |request, (name, value)| request.header(*name, *value));
        why(&request.body(()).unwrap()).is_some()
    }

    #[test]
    fn one_host_is_named() {
        let host = ("host", "a.example");
        assert!(!is_refused(Version::HTTP_11, "/", &[host]));
        assert!(is_refused(Version::HTTP_11, "/", &[]));
        assert!(is_refused(Version::HTTP_11, "http://a.example/", &[]));
        assert!(is_refused(Version::HTTP_11, "/", &[host, host]));
        assert!(!is_refused(Version::HTTP_10, "/", &[]));
        assert!(!is_refused(Version::HTTP_2, "https://a.example/", &[]));
    }
}
