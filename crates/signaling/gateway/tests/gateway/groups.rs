//! The cookie of those who were placed on canary nodes because of the canary share.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use reqwest::header::{COOKIE, SET_COOKIE};
use reqwest::{Method, Response};
use serde_json::json;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::cluster::{Cluster, OFFER, SECRET, token};

async fn join(cluster: &Cluster, room: &str, cookie: Option<&str>) -> Response {
    let mut request = cluster
        .bare(Method::POST, &format!("/v1/rooms/{room}/join"))
        .bearer_auth(token(room, "ann"))
        .header("content-type", "application/json")
        .body(OFFER);
    if let Some(cookie) = cookie {
        request = request.header(COOKIE, cookie);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 201);
    response
}

/// What is set, without its attributes.
fn pair(set: &str) -> String {
    set.split(';').next().unwrap().to_owned()
}

fn set(response: &Response) -> Option<&str> {
    response.headers().get(SET_COOKIE).map(|value| value.to_str().unwrap())
}

/// Whether the last placement was asked for somebody of the group.
fn was_member(cluster: &Cluster) -> bool {
    cluster.orchestrator.requests().last().unwrap().canary_user
}

/// A cookie that is signed with a secret, for an audience, and expires so many seconds from now.
fn signed(secret: &str, audience: &str, value: &str, seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({"aud": audience, "exp": now.saturating_add_signed(seconds), "value": value});
    let key = EncodingKey::from_secret(secret.as_bytes());
    format!(
        "signalbox_group={}",
        jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
    )
}

const AUDIENCE: &str = "signalbox-cookie:signalbox_group";

#[tokio::test]
async fn who_is_placed_by_the_share_gets_the_cookie_and_is_known_by_it() {
    let cluster = Cluster::start().await;
    assert_eq!(set(&join(&cluster, "a", None).await), None);
    assert!(!was_member(&cluster));

    cluster.orchestrator.place_by_share(true);
    let answer = join(&cluster, "b", None).await;
    let cookie = set(&answer).unwrap();
    for part in [
        "signalbox_group=",
        "HttpOnly",
        "Secure",
        "SameSite=Lax",
        "Max-Age=604800",
    ] {
        assert!(cookie.contains(part), "{cookie}");
    }
    cluster.orchestrator.place_by_share(false);
    join(&cluster, "c", Some(&format!("theme=dark; {}", pair(cookie)))).await;
    assert!(was_member(&cluster));
}

#[tokio::test]
async fn who_joins_a_room_that_somebody_else_had_placed_gets_none() {
    let cluster = Cluster::start().await;
    cluster.orchestrator.place_by_share(true);
    assert!(set(&join(&cluster, "a", None).await).is_some());
    assert_eq!(set(&join(&cluster, "a", None).await), None);
}

#[tokio::test]
async fn a_websocket_gets_it_with_its_upgrade() {
    let cluster = Cluster::start().await;
    cluster.orchestrator.place_by_share(true);
    let url = format!("ws://{}/rtc?access_token={}", cluster.address, token("a", "ann"));
    let request = url.into_client_request().unwrap();
    let (_socket, response) = connect_async(request).await.unwrap();
    assert_eq!(response.status(), 101);
    let cookie = response.headers()[SET_COOKIE.as_str()].to_str().unwrap();
    assert!(cookie.starts_with("signalbox_group="), "{cookie}");
}

#[tokio::test]
async fn a_join_that_fails_sets_none() {
    let cluster = Cluster::start().await;
    cluster.orchestrator.place_by_share(true);
    cluster.node.refuse([signalbox_protocol::control::RefusalReason::Sdp]);
    let request = cluster
        .bare(Method::POST, "/v1/rooms/a/join")
        .bearer_auth(token("a", "ann"))
        .header("content-type", "application/json")
        .body(OFFER);
    let response = request.send().await.unwrap();
    assert!(response.status().is_client_error());
    assert_eq!(set(&response), None);
}

#[tokio::test]
async fn a_cookie_that_the_cluster_signed_counts() {
    let cluster = Cluster::start().await;
    join(&cluster, "a", Some(&signed(SECRET, AUDIENCE, "canary", 60))).await;
    assert!(was_member(&cluster));
}

#[tokio::test]
async fn a_forged_cookie_counts_for_nothing() {
    let cluster = Cluster::start().await;
    for forged in [
        "signalbox_group=canary".to_owned(),
        signed("somebody else's secret", AUDIENCE, "canary", 60),
    ] {
        join(&cluster, "a", Some(&forged)).await;
        assert!(!was_member(&cluster), "{forged}");
    }
}

#[tokio::test]
async fn an_expired_cookie_counts_for_nothing() {
    let cluster = Cluster::start().await;
    join(&cluster, "a", Some(&signed(SECRET, AUDIENCE, "canary", -5))).await;
    assert!(!was_member(&cluster));
}

#[tokio::test]
async fn what_was_signed_for_something_else_counts_for_nothing() {
    let cluster = Cluster::start().await;
    for (audience, value) in [("signalbox-cookie:signalbox_gateway", "canary"), (AUDIENCE, "stable")] {
        join(&cluster, "a", Some(&signed(SECRET, audience, value, 60))).await;
        assert!(!was_member(&cluster), "{audience} {value}");
    }
}
