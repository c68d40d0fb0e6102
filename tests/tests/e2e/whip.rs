//! WHIP and WHEP: publish and watch with one POST each, on any gateway, and be gone with one DELETE.

use e2e::client::Wish;
use e2e::cluster::{Cluster, token};
use e2e::whip::{Session, post};
use reqwest::StatusCode;
use signalbox_protocol::placement::RoomState;
use signalbox_protocol::room::Kind;

const FRAGMENT: &str = "a=mid:0\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n";

async fn publish(cluster: &Cluster, rids: &'static [&'static str]) -> Session {
    let token = token("studio", "camera");
    Session::publish(cluster.gateway(), "studio", &token, rids)
        .await
        .unwrap()
}

async fn watch(cluster: &Cluster) -> Session {
    let token = token("studio", "viewer");
    Session::watch(cluster.gateway(), "studio", &token).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_with_one_token_share_a_simulcast_stream_that_everyone_sees() {
    let cluster = Cluster::start(1).await;
    let camera = publish(&cluster, &["q", "h", "f"]).await;
    let bob = cluster.join(&Wish::watch("studio", "bob")).await;
    let viewers = [watch(&cluster).await, watch(&cluster).await];
    for viewer in &viewers {
        viewer.peer.receives(camera.sender, 60).await;
        let ledgers = viewer.peer.state().ledgers;
        assert_eq!(ledgers.len(), 2, "sound and a picture");
        assert!(
            ledgers.values().all(|ledger| ledger.ssrcs.len() == 1),
            "one stream on each"
        );
    }
    bob.slot("camera", Kind::Audio).await;
    let mid = bob.slot("camera", Kind::Video).await;
    bob.peer
        .until("the best layer", |state| {
            state.ledger(&mid).latest().is_some_and(|last| last.mark.layer == 2)
        })
        .await;
    let track = bob.view().track("camera", Kind::Video).unwrap().clone();
    assert_eq!(track.layers.len(), 3);
    assert_eq!(bob.view().participants.len(), 1, "viewers are not shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_gateway_changes_and_ends_a_session() {
    let mut cluster = Cluster::start(1).await;
    cluster.add_gateway().await.unwrap();
    let other = cluster.gateways[1].url.clone();
    e2e::cluster::wait_for_ready(&other).await.unwrap();
    let mut camera = publish(&cluster, &[]).await;
    let mut viewer = watch(&cluster).await;
    viewer.peer.receives(camera.sender, 30).await;
    for session in [&mut camera, &mut viewer] {
        session.go_to(&other).unwrap();
        let stale = session.tag.clone();
        assert_eq!(session.patch(&stale, FRAGMENT).await.unwrap(), StatusCode::NO_CONTENT);
        session.restart_ice().await.unwrap();
        assert_ne!(session.tag, stale);
        assert_eq!(
            session.patch(&stale, FRAGMENT).await.unwrap(),
            StatusCode::PRECONDITION_FAILED
        );
        assert_eq!(
            session.patch(&session.tag, FRAGMENT).await.unwrap(),
            StatusCode::NO_CONTENT
        );
        assert_eq!(
            session.patch("*", "a=ice-ufrag:abcd\r\n").await.unwrap(),
            StatusCode::BAD_REQUEST
        );
    }
    viewer.peer.receives(camera.sender, 60).await;
    assert_eq!(camera.delete().await.unwrap(), StatusCode::OK);
    assert_eq!(camera.delete().await.unwrap(), StatusCode::NOT_FOUND);
    assert_eq!(camera.patch("*", FRAGMENT).await.unwrap(), StatusCode::NOT_FOUND);
    assert_eq!(viewer.delete().await.unwrap(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_watches_before_anyone_publishes_waits_and_opens_no_room() {
    let cluster = Cluster::start(1).await;
    let (http, token) = (reqwest::Client::new(), token("studio", "viewer"));
    let endpoint = format!("{}/v1/rooms/studio/whep", cluster.gateway());
    let ask = async || {
        let (_, offer) = Session::offer_to_watch().await.unwrap();
        post(&http, &endpoint, &token, offer).await.unwrap()
    };
    let response = ask().await;
    assert_eq!(response.status(), StatusCode::CONFLICT);
    assert!(response.headers().contains_key("retry-after"));
    assert!(
        cluster.map().rooms().await.unwrap().is_empty(),
        "the room was not placed"
    );

    // Somebody is in the room, and publishes nothing.
    let bob = cluster.join(&Wish::watch("studio", "bob")).await;
    assert_eq!(ask().await.status(), StatusCode::CONFLICT);
    let camera = publish(&cluster, &[]).await;
    watch(&cluster).await.peer.receives(camera.sender, 30).await;
    let rooms = cluster.map().rooms().await.unwrap();
    assert_eq!(rooms.len(), 1);
    assert_eq!(rooms[0].state, RoomState::Open);
    bob.leave().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_that_comes_back_replaces_itself_and_its_viewers_see_it_again() {
    let cluster = Cluster::start(1).await;
    let first = publish(&cluster, &[]).await;
    let viewer = watch(&cluster).await;
    viewer.peer.receives(first.sender, 30).await;
    let second = publish(&cluster, &[]).await;
    viewer.peer.receives(second.sender, 30).await;
    assert_eq!(first.delete().await.unwrap(), StatusCode::NOT_FOUND, "it was replaced");
    viewer.peer.receives(second.sender, 30).await;
}
