//! Pages of other origins, with the origins that the operator allows.

use reqwest::header::HeaderMap;
use reqwest::{Method, Response, StatusCode};

use crate::cluster::{Cluster, JOIN, OFFER, eventually};

const APP: &str = "https://app.example";

async fn preflight(cluster: &Cluster, origin: &str) -> Response {
    let request = cluster
        .bare(Method::OPTIONS, JOIN)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,traceparent");
    request.send().await.unwrap()
}

async fn join(cluster: &Cluster, origin: &str) -> Response {
    let request = cluster
        .request(Method::POST, JOIN)
        .header("origin", origin)
        .header("content-type", "application/json")
        .body(OFFER);
    request.send().await.unwrap()
}

fn varies(headers: &HeaderMap) -> bool {
    let mut all = headers
        .get_all("vary")
        .iter()
        .flat_map(|value| value.to_str().unwrap().split(','));
    all.any(|name| name.trim().eq_ignore_ascii_case("origin"))
}

fn allowed(response: &Response) -> Option<&str> {
    let origin = response.headers().get("access-control-allow-origin")?;
    Some(origin.to_str().unwrap())
}

#[tokio::test]
async fn only_pages_of_listed_origins_may_call() {
    let cluster = Cluster::start_with(&["--cors-origin", "https://app.example,http://localhost:5173"]).await;
    for origin in [APP, "http://localhost:5173"] {
        let response = preflight(&cluster, origin).await;
        assert!(response.status().is_success());
        assert_eq!(allowed(&response), Some(origin));
        assert!(varies(response.headers()), "{:?}", response.headers());
        let headers = response.headers()["access-control-allow-headers"].to_str().unwrap();
        assert!(headers.contains("traceparent"), "{headers}");
        let response = join(&cluster, origin).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(allowed(&response), Some(origin));
        assert!(varies(response.headers()), "{:?}", response.headers());
    }
    for origin in [
        "https://app.example:8443",
        "http://app.example",
        "https://xapp.example",
        "null",
    ] {
        for response in [preflight(&cluster, origin).await, join(&cluster, origin).await] {
            assert_eq!(allowed(&response), None, "{origin}");
            assert!(varies(response.headers()), "{:?}", response.headers());
        }
    }
}

#[tokio::test]
async fn turned_off_nothing_is_allowed_to_pages_of_other_origins_and_whip_still_says_what_it_takes() {
    let cluster = Cluster::start_with(&["--cors-origin", "none"]).await;
    for response in [preflight(&cluster, APP).await, join(&cluster, APP).await] {
        let cors = response
            .headers()
            .keys()
            .find(|name| name.as_str().starts_with("access-control-"));
        assert_eq!(cors, None);
    }
    let request = cluster.bare(Method::OPTIONS, "/v1/rooms/daily/whip");
    assert_eq!(
        request.send().await.unwrap().headers()["accept-post"],
        "application/sdp"
    );
}

#[tokio::test]
async fn a_page_can_read_that_it_asks_too_often() {
    let limits = ["--requests-per-address", "1", "--burst-per-address", "1"];
    let cluster = Cluster::start_with(&limits).await;
    let response = eventually("a refusal", async {
        loop {
            let response = join(&cluster, APP).await;
            if response.status() == StatusCode::TOO_MANY_REQUESTS {
                return response;
            }
        }
    })
    .await;
    assert_eq!(allowed(&response), Some("*"));
    let exposed = response.headers()["access-control-expose-headers"].to_str().unwrap();
    assert!(exposed.contains("retry-after"), "{exposed}");
}
