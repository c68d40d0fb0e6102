//! Bad requests, each answered with a problem that says what to do; and what is not the API.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Method, StatusCode};
use signalbox_protocol::token::AccessClaims;

use crate::cluster::{Cluster, JOIN, KEY_SECRET, OFFER, claims, now, problem, sign, token};

#[tokio::test]
async fn malformed_json_is_refused() {
    let cluster = Cluster::start().await;
    let (status, kind, _) = problem(cluster.send_json(Method::POST, JOIN, "{\"offer\":").await).await;
    assert_eq!((status, kind.as_str()), (400, "invalid-body"));
    let (status, ..) = problem(cluster.send_json(Method::POST, JOIN, "\u{fffd}").await).await;
    assert_eq!(status, 400);
    assert_eq!(cluster.orchestrator.asked(), 0);
}

#[tokio::test]
async fn an_unknown_field_is_named() {
    let cluster = Cluster::start().await;
    let bodies = [
        r#"{"ofer":"v=0"}"#,
        r#"{"publish":[{"cid":"a","kind":"audio","source":"microphone","ofer":1}]}"#,
    ];
    for body in bodies {
        let (status, kind, detail) = problem(cluster.send_json(Method::POST, JOIN, body).await).await;
        assert_eq!((status, kind.as_str()), (400, "invalid-body"));
        assert!(detail.contains("`ofer`"), "{detail}");
    }
}

#[tokio::test]
async fn malformed_sdp_places_no_room() {
    let cluster = Cluster::start().await;
    let (status, kind, _) = problem(cluster.send_json(Method::POST, JOIN, r#"{"offer":"hello"}"#).await).await;
    assert_eq!((status, kind.as_str()), (400, "invalid-sdp"));
    assert_eq!(cluster.orchestrator.asked(), 0);
}

#[tokio::test]
async fn a_room_or_identity_that_breaks_the_rules_is_refused() {
    let cluster = Cluster::start().await;
    let long = "x".repeat(257);
    for room in ["", "%20", &long, "a%0Ab", "%E2%80%AE"] {
        let response = cluster
            .send_json(Method::POST, &format!("/v1/rooms/{room}/join"), OFFER)
            .await;
        let (status, kind, _) = problem(response).await;
        assert_eq!((status, kind.as_str()), (400, "invalid-name"), "{room}");
    }
    let response = cluster.send_json(Method::POST, "/v1/rooms/%FF/join", OFFER).await;
    assert_eq!(problem(response).await.0, 400);
    for identity in ["", "  ", &long, "a\nb"] {
        let request = cluster.bare(Method::POST, JOIN).bearer_auth(token("daily", identity));
        let (status, kind, _) = problem(request.send().await.unwrap()).await;
        assert_eq!((status, kind.as_str()), (400, "invalid-name"), "{identity:?}");
    }
}

#[tokio::test]
async fn another_content_type_is_refused() {
    let cluster = Cluster::start().await;
    let request = cluster
        .request(Method::POST, JOIN)
        .header("content-type", "text/plain")
        .body(OFFER);
    let (status, kind, _) = problem(request.send().await.unwrap()).await;
    assert_eq!((status, kind.as_str()), (415, "unsupported-media-type"));
    let charset = "application/JSON; charset=utf-8";
    let request = cluster
        .request(Method::POST, JOIN)
        .header("content-type", charset)
        .body(OFFER);
    assert_eq!(request.send().await.unwrap().status(), 201);
}

#[tokio::test]
async fn a_body_over_64_kib_is_refused() {
    let cluster = Cluster::start().await;
    let body = |length: usize| format!(r#"{{"offer":"v=0{}"}}"#, "x".repeat(length - 15));
    for length in [64 * 1024 + 1, 200_000] {
        let (status, kind, _) = problem(cluster.send_json(Method::POST, JOIN, &body(length)).await).await;
        assert_eq!((status, kind.as_str()), (413, "body-too-large"));
    }
    let response = cluster.send_json(Method::POST, JOIN, &body(64 * 1024)).await;
    assert_eq!(response.status(), 201);
}

#[tokio::test]
async fn a_token_that_does_not_hold_is_refused() {
    let cluster = Cluster::start().await;
    let send = async |token: &str| {
        let request = cluster.bare(Method::POST, JOIN).bearer_auth(token);
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        problem(response).await
    };
    let with = |change: fn(&mut AccessClaims), secret: &str| {
        let mut claims = claims("daily", "ann");
        change(&mut claims);
        sign(&claims, secret)
    };
    let (status, kind, _) = send(&with(|claims| claims.exp = now() - 60, KEY_SECRET)).await;
    assert_eq!((status, kind.as_str()), (401, "token-expired"));
    let (status, kind, detail) = send(&with(|_| (), "another key's secret")).await;
    assert_eq!((status, kind.as_str()), (401, "token-invalid"));
    assert!(detail.contains("signature"), "{detail}");
    let (status, _, detail) = send(&with(|claims| claims.iss = "nobody".into(), KEY_SECRET)).await;
    assert_eq!(status, 401);
    assert!(detail.contains("API key"), "{detail}");
    assert_eq!(
        send(&with(|claims| claims.nbf = Some(now() + 60), KEY_SECRET)).await.0,
        401
    );
    assert_eq!(send("garbage").await.0, 401);
    assert_eq!(send("a.b.c").await.0, 401);

    let key = EncodingKey::from_secret(KEY_SECRET.as_bytes());
    let stronger = jsonwebtoken::encode(&Header::new(Algorithm::HS512), &claims("daily", "ann"), &key).unwrap();
    assert_eq!(send(&stronger).await.0, 401);
    let mut endless = serde_json::to_value(claims("daily", "ann")).unwrap();
    endless.as_object_mut().unwrap().remove("exp");
    let endless = jsonwebtoken::encode(&Header::default(), &endless, &key).unwrap();
    assert_eq!(send(&endless).await.0, 401);

    let response = cluster.bare(Method::POST, JOIN).send().await.unwrap();
    let (status, kind, _) = problem(response).await;
    assert_eq!((status, kind.as_str()), (401, "token-missing"));
    assert_eq!(cluster.orchestrator.asked(), 0);
}

#[tokio::test]
async fn a_token_for_another_room_is_refused() {
    let cluster = Cluster::start().await;
    let mut no_grant = claims("daily", "ann");
    no_grant.video.room_join = false;
    for token in [token("weekly", "ann"), token("", "ann"), sign(&no_grant, KEY_SECRET)] {
        let request = cluster.bare(Method::POST, JOIN).bearer_auth(token);
        let (status, kind, _) = problem(request.send().await.unwrap()).await;
        assert_eq!((status, kind.as_str()), (403, "forbidden"));
    }
}

#[tokio::test]
async fn an_unknown_route_and_a_wrong_method_are_problems() {
    let cluster = Cluster::start().await;
    let (status, kind, _) = problem(cluster.request(Method::GET, "/v1/nothing").send().await.unwrap()).await;
    assert_eq!((status, kind.as_str()), (404, "not-found"));
    let response = cluster.request(Method::PUT, JOIN).send().await.unwrap();
    assert_eq!(response.headers()["allow"], "POST");
    let (status, kind, _) = problem(response).await;
    assert_eq!((status, kind.as_str()), (405, "method-not-allowed"));
}

#[tokio::test]
async fn guests_get_tokens_only_where_allowed() {
    let body = r#"{"room":"daily","identity":"guest-1","name":"Guest"}"#;
    let cluster = Cluster::start().await;
    let (status, kind, _) = problem(cluster.send_json(Method::POST, "/v1/guest-tokens", body).await).await;
    assert_eq!((status, kind.as_str()), (403, "guests-off"));

    let cluster = Cluster::start_with(&["--guests"]).await;
    let response = cluster.send_json(Method::POST, "/v1/guest-tokens", body).await;
    assert_eq!(response.status(), 200);
    let reply: serde_json::Value = response.json().await.unwrap();
    let token = reply["token"].as_str().unwrap();
    let response = cluster
        .bare(Method::POST, JOIN)
        .bearer_auth(token)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    let bad = r#"{"room":"","identity":"guest-1"}"#;
    assert_eq!(
        problem(cluster.send_json(Method::POST, "/v1/guest-tokens", bad).await)
            .await
            .0,
        400
    );
}

#[tokio::test]
async fn the_page_is_served_with_its_policy() {
    let cluster = Cluster::start().await;
    for (path, media_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/favicon.svg", "image/svg+xml"),
    ] {
        let response = cluster.bare(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], media_type);
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        let policy = response.headers()["content-security-policy"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(policy.starts_with("default-src 'self'"), "{policy}");
        let tag = response.headers()["etag"].clone();
        let again = cluster
            .bare(Method::GET, path)
            .header("if-none-match", tag)
            .send()
            .await
            .unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    }
}

#[tokio::test]
async fn other_origins_may_call_the_api() {
    let cluster = Cluster::start().await;
    let response = cluster
        .bare(Method::OPTIONS, JOIN)
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type")
        .send()
        .await
        .unwrap();
    assert!(response.status().is_success());
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    let allowed = response.headers()["access-control-allow-headers"].to_str().unwrap();
    assert!(allowed.contains("authorization"), "{allowed}");
    let request = cluster
        .request(Method::POST, JOIN)
        .header("origin", "https://app.example");
    let response = request.send().await.unwrap();
    let exposed = response.headers()["access-control-expose-headers"].to_str().unwrap();
    assert!(exposed.contains("location"), "{exposed}");
}

#[tokio::test]
async fn health_is_served_on_both_listeners() {
    let cluster = Cluster::start().await;
    for address in [cluster.address, cluster.admin] {
        for path in ["livez", "readyz"] {
            let response = reqwest::get(format!("http://{address}/{path}")).await.unwrap();
            assert_eq!(response.status(), 200);
        }
    }
    let response = reqwest::get(format!("http://{}/metrics", cluster.address))
        .await
        .unwrap();
    assert_eq!(response.status(), 404);
}
