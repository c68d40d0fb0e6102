//! What a token says that its bearer may use, in every dialect.

use reqwest::Method;
use serde_json::{Value, json};
use signalbox_protocol::control::{CloseReason, Event, ParticipantLimits, Quality, Request};

use crate::cluster::{Cluster, KEY_SECRET, claims, next_json, problem, sign};

const ROOM: &str = "/v1/rooms/daily";

fn claimed() -> Value {
    json!({"maxPublishBitrate": 2_000_000, "maxTracks": 2, "maxReceiveBitrate": 1_000_000, "maxReceiveQuality": "medium"})
}

fn limits() -> ParticipantLimits {
    ParticipantLimits {
        publish_bps: Some(2_000_000),
        tracks: Some(2),
        receive_quality: Some(Quality::Medium),
        receive_bps: Some(1_000_000),
    }
}

/// Ann's token with this claim.
fn token(claim: &Value) -> String {
    let mut claims = claims("daily", "ann");
    claims.limits = serde_json::from_value(claim.clone()).unwrap();
    sign(&claims, KEY_SECRET)
}

/// The limits of each join that reached the node.
fn asked(cluster: &Cluster) -> Vec<ParticipantLimits> {
    let requests = cluster.node.requests();
    let joins = requests.iter().filter_map(|request| match request {
        Request::Join(join) => Some(join.limits),
        _ => None,
    });
    joins.collect()
}

#[tokio::test]
async fn every_way_to_join_over_http_takes_them_to_the_node() {
    let cluster = Cluster::start().await;
    let token = token(&claimed());
    let json = "application/json";
    for (path, kind, body) in [
        ("/join", json, r#"{"offer":"v=0 offer"}"#),
        (
            "/join",
            json,
            r#"{"transport":"srtp","publish":[{"kind":"audio","codec":"opus"}]}"#,
        ),
        ("/whip", "application/sdp", "v=0 offer"),
        ("/whep", "application/sdp", "v=0 offer"),
    ] {
        let request = cluster.bare(Method::POST, &format!("{ROOM}{path}"));
        let request = request.bearer_auth(&token).header("content-type", kind).body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 201, "{path} {body}");
    }
    assert_eq!(asked(&cluster), [limits(); 4]);
}

#[tokio::test]
async fn a_token_without_them_limits_nothing() {
    let cluster = Cluster::start().await;
    let request = cluster.request(Method::POST, &format!("{ROOM}/join"));
    let response = request.json(&json!({"offer": "v=0 offer"})).send().await.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(asked(&cluster), [ParticipantLimits::default()]);
}

#[tokio::test]
async fn who_is_put_back_into_its_room_keeps_them() {
    let cluster = Cluster::start().await;
    let body = json!({"transport": "srtp", "publish": [{"kind": "audio", "codec": "opus"}]});
    let request = cluster.bare(Method::POST, &format!("{ROOM}/join"));
    let request = request.bearer_auth(token(&claimed())).json(&body);
    assert_eq!(request.send().await.unwrap().status(), 201);
    let (mut events, _) = cluster.events("PA_1").await;
    cluster.orchestrator.re_place(cluster.node.control());
    let reason = CloseReason::NodeGone;
    cluster.node.push("PA_1", Event::Closed { reason });
    while next_json(&mut events).await["type"] != "moved" {}
    assert_eq!(asked(&cluster), [limits(); 2]);
}

#[tokio::test]
async fn a_claim_that_makes_no_sense_is_refused_and_named() {
    let cluster = Cluster::start().await;
    for (claim, named) in [
        (json!({"maxTracks": 0}), "nonzero"),
        (json!({"maxPublishBitrate": "2M"}), "2M"),
        (json!({"maxReceiveQuality": "best"}), "best"),
        (json!({"maxBitrate": 1}), "maxBitrate"),
    ] {
        let mut claims = serde_json::to_value(claims("daily", "ann")).unwrap();
        claims["signalbox"] = claim;
        let key = jsonwebtoken::EncodingKey::from_secret(KEY_SECRET.as_bytes());
        let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
        let request = cluster.bare(Method::POST, &format!("{ROOM}/join")).bearer_auth(token);
        let response = request.json(&json!({"offer": "v=0 offer"})).send().await.unwrap();
        let (status, kind, detail) = problem(response).await;
        assert_eq!((status, kind.as_str()), (401, "token-invalid"));
        assert!(detail.contains(named), "{detail}");
    }
    assert!(asked(&cluster).is_empty());
}
