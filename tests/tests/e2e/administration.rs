//! Somebody administers a room over HTTP, without being in it.

use e2e::client::Wish;
use e2e::cluster::{Cluster, KEY_SECRET, sign, unix_seconds};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use signalbox_protocol::room::Kind;
use signalbox_protocol::token::{AccessClaims, VideoGrant};

/// A server's token.
fn admin(room: &str) -> String {
    let claims = AccessClaims {
        iss: e2e::cluster::KEY.to_owned(),
        exp: unix_seconds() + 3_600,
        video: VideoGrant {
            room_admin: true,
            room: room.to_owned(),
            ..VideoGrant::default()
        },
        ..AccessClaims::default()
    };
    sign(&claims, KEY_SECRET)
}

async fn ask(cluster: &Cluster, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
    let url = format!("{}/v1/rooms/daily/participants{path}", cluster.gateway());
    let mut request = reqwest::Client::new().request(method, url).bearer_auth(admin("daily"));
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    (response.status(), response.json().await.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_for_a_room_opens_none() {
    let cluster = Cluster::start(1).await;
    let (status, problem) = ask(&cluster, Method::GET, "", None).await;
    assert_eq!(
        (status, &problem["type"]),
        (StatusCode::NOT_FOUND, &json!("urn:signalbox:problem:room-not-found"))
    );
    assert!(cluster.map().rooms().await.unwrap().is_empty());
    assert_eq!(cluster.node_counter("signalbox_media_rooms").await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_administrator_takes_away_is_gone_for_everyone() {
    let cluster = Cluster::start(1).await;
    let ann = cluster.join(&Wish::call("daily", "ann")).await;
    let bob = cluster.join(&Wish::watch("daily", "bob")).await;
    let mid = bob.slot("ann", Kind::Video).await;
    bob.peer
        .until("a picture", |state| state.ledger(&mid).packets >= 30)
        .await;
    let (_, view) = ask(&cluster, Method::GET, "", None).await;
    assert_eq!(view["participants"].as_array().unwrap().len(), 2);
    let (_, found) = ask(&cluster, Method::GET, "/ann", None).await;
    assert_eq!(found["tracks"].as_array().unwrap().len(), 2);

    let only_microphone = json!({"grants": {"sources": ["microphone"]}});
    let (status, changed) = ask(&cluster, Method::PATCH, "/ann", Some(only_microphone)).await;
    assert_eq!(
        (status, changed["tracks"].as_array().unwrap().len()),
        (StatusCode::OK, 1)
    );
    bob.until("ann's picture is gone", |view| view.track("ann", Kind::Video).is_none())
        .await;
    let track = changed["tracks"][0]["id"].as_str().unwrap();
    let (status, _) = ask(
        &cluster,
        Method::PATCH,
        &format!("/ann/tracks/{track}"),
        Some(json!({"muted": true})),
    )
    .await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    bob.until("ann is muted", |view| {
        view.track("ann", Kind::Audio).is_some_and(|track| track.muted)
    })
    .await;
    // The participant itself takes it back.
    ann.mute(track, false).await.unwrap();
    bob.until("ann is heard", |view| {
        view.track("ann", Kind::Audio).is_some_and(|track| !track.muted)
    })
    .await;

    let (status, _) = ask(&cluster, Method::DELETE, "/ann", None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    ann.until("ann is told why", |view| view.closed.as_deref() == Some("removed"))
        .await;
    bob.until("ann is gone", |view| view.who("ann").is_none()).await;
}
