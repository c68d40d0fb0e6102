//! Watching over WHEP: what differs from publishing.

use std::collections::BTreeSet;

use reqwest::Method;
use signalbox_protocol::control::{COUNTER_OFFER_ID, Command, OneOffer, RefusalReason, Request};

use crate::cluster::{Cluster, JOIN, KEY_SECRET, OFFER, claims, problem, sign};
use crate::fake_node::{ICE_SESSION, UNFIT};
use crate::fake_orchestrator::Mood;
use crate::whip::{FRAGMENT, SDP};

const WHEP: &str = "/v1/rooms/daily/whep";

impl Cluster {
    /// With somebody in the room.
    async fn start_live() -> Self {
        let cluster = Self::start().await;
        cluster.send_json(Method::POST, JOIN, OFFER).await;
        cluster
    }
}

#[tokio::test]
async fn players_with_one_token_are_strangers_whom_nobody_sees() {
    let cluster = Cluster::start_live().await;
    let sessions = [cluster.session(WHEP).await, cluster.session(WHEP).await];
    let players: Vec<_> = cluster
        .node
        .requests()
        .into_iter()
        .filter_map(|request| match request {
            Request::Join(join) if join.one_offer == Some(OneOffer::Receive) => Some(join),
            _ => None,
        })
        .collect();
    let identities: BTreeSet<_> = players.iter().map(|join| join.identity.as_str()).collect();
    assert_eq!(identities.len(), 2, "{identities:?}");
    for join in &players {
        assert!(join.identity.as_str().starts_with("ann~"));
        assert!(join.grants.hidden && join.grants.subscribe && join.auto_subscribe);
        assert!(!join.grants.publish && !join.grants.publish_data);
    }
    for session in sessions {
        assert_eq!(
            cluster.bare(Method::DELETE, &session).send().await.unwrap().status(),
            200
        );
    }
    let ended = cluster.node.requests().into_iter().filter_map(|request| match request {
        Request::Participant {
            identity,
            command: Command::Leave,
            ..
        } => Some(identity.to_string()),
        _ => None,
    });
    assert_eq!(ended.collect::<BTreeSet<_>>().len(), 2, "each under its own identity");
}

#[tokio::test]
async fn a_player_without_the_grant_is_refused() {
    let cluster = Cluster::start_live().await;
    let mut claims = claims("daily", "ann");
    claims.video.can_subscribe = Some(false);
    let request = cluster.bare(Method::POST, WHEP).header("content-type", SDP);
    let request = request.bearer_auth(sign(&claims, KEY_SECRET)).body("v=0");
    let (status, _, detail) = problem(request.send().await.unwrap()).await;
    assert_eq!(status, 403);
    assert!(detail.contains("canSubscribe"), "{detail}");
}

#[tokio::test]
async fn a_player_opens_no_room() {
    let cluster = Cluster::start().await;
    cluster.orchestrator.know_nothing();
    let response = cluster.offer(WHEP, "v=0").await;
    assert!(response.headers().contains_key("retry-after"));
    let (status, kind, _) = problem(response).await;
    assert_eq!((status, kind.as_str()), (409, "nothing-live"));
    let asked = cluster.orchestrator.requests();
    assert!(
        !asked.is_empty() && asked.iter().all(|request| request.find_only),
        "the room was not placed"
    );
    assert!(cluster.node.requests().is_empty());
    assert_eq!(cluster.metric("joins_failed_total").await, 0, "to wait is no failure");

    cluster.send_json(Method::POST, JOIN, OFFER).await;
    assert_eq!(cluster.offer(WHEP, "v=0").await.status(), 201);
}

#[tokio::test]
async fn a_player_waits_for_something_to_watch() {
    let cluster = Cluster::start_live().await;
    cluster.node.refuse([RefusalReason::NothingLive]);
    let response = cluster.offer(WHEP, "v=0").await;
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(problem(response).await.0, 409);
}

#[tokio::test]
async fn a_player_finds_a_known_room_while_no_orchestrator_can_say_whether_it_is_open() {
    let cluster = Cluster::start().await;
    // So that the gateway has to ask.
    cluster.orchestrator.sign_for(0);
    cluster.send_json(Method::POST, JOIN, OFFER).await;
    cluster.orchestrator.be(Mood::MapAway);
    assert_eq!(cluster.offer(WHEP, "v=0").await.status(), 201);
}

#[tokio::test]
async fn an_offer_that_can_receive_nothing_is_countered() {
    let cluster = Cluster::start_live().await;
    let response = cluster.offer(WHEP, UNFIT).await;
    assert_eq!(response.status(), 406);
    let headers = response.headers().clone();
    let media_type = headers["content-type"].to_str().unwrap();
    assert!(
        media_type.starts_with("application/sdp; valid-until=\"") && media_type.ends_with(" GMT\""),
        "{media_type}"
    );
    assert_eq!(headers["etag"], format!("\"{ICE_SESSION}\"").as_str());
    assert_eq!(headers["accept-patch"], SDP);
    assert_eq!(response.text().await.unwrap(), "v=0 counter");

    let session = headers["location"].to_str().unwrap();
    let response = cluster.patch(session, SDP, None, "v=0 answer").await;
    assert_eq!(response.status(), 204);
    let command = Command::Answer {
        id: COUNTER_OFFER_ID,
        sdp: "v=0 answer".into(),
    };
    cluster.node.saw_command("PA_2", command).await;
    let (status, kind, _) = problem(cluster.patch(session, SDP, None, "hello").await).await;
    assert_eq!((status, kind.as_str()), (400, "invalid-sdp"));
    assert_eq!(cluster.patch(session, FRAGMENT, None, "a=x").await.status(), 428);
}

#[tokio::test]
async fn a_player_recognizes_the_endpoint() {
    let cluster = Cluster::start().await;
    let response = cluster.bare(Method::HEAD, WHEP).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], SDP);
    assert_eq!(cluster.bare(Method::GET, WHEP).send().await.unwrap().status(), 204);
}
