//! The LiveKit protocol, as an SDK speaks it.

use e2e::client::Wish;
use e2e::cluster::{Cluster, token};
use e2e::livekit::{LOSSY, LiveKitClient, RELIABLE};
use livekit_protocol as proto;
use str0m::media::MediaKind;

async fn join(cluster: &Cluster, identity: &str) -> LiveKitClient {
    LiveKitClient::join(cluster.gateway(), &token("daily", identity))
        .await
        .expect("the join succeeds")
}

fn whole(client: &LiveKitClient) {
    let failures = client.signaled().failures;
    assert!(failures.is_empty(), "{failures:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn published_tracks_reach_the_other_participant() {
    let cluster = Cluster::start(1).await;
    let ann = join(&cluster, "ann").await;
    let own = ann.join.participant.clone().unwrap();
    assert!(own.sid.starts_with("PA_") && own.identity == "ann");
    assert!(ann.join.subscriber_primary);
    assert!(!ann.join.enabled_publish_codecs.is_empty());
    let info = ann.join.server_info.clone().unwrap_or_default();
    assert!(!info.version.is_empty(), "SDKs refuse a server without a version");

    let bob = join(&cluster, "bob").await;
    ann.until("bob is there", |signaled| signaled.participants.contains_key("bob"))
        .await;
    let audio = ann.publish(MediaKind::Audio).await.unwrap();
    let video = ann.publish(MediaKind::Video).await.unwrap();
    assert!(audio.sid.starts_with("TR_") && video.sid.starts_with("TR_"));
    assert_eq!(video.source, proto::TrackSource::Camera as i32);

    bob.subscriber.connected().await;
    bob.until("bob is told of both", |signaled| {
        signaled
            .participants
            .get("ann")
            .is_some_and(|ann| ann.tracks.len() == 2)
    })
    .await;
    bob.subscriber.receives(ann.sender, 100).await;
    // SDKs find the participant and the track by the ids of the m-line.
    let tracks: Vec<_> = bob.subscriber.state().remote_tracks.into_values().collect();
    for sid in [&audio.sid, &video.sid] {
        let found = tracks
            .iter()
            .any(|(stream, track)| stream.starts_with(&own.sid) && (track == sid || stream.contains(sid.as_str())));
        assert!(found, "{sid} of {} in {tracks:?}", own.sid);
    }
    whole(&ann);
    whole(&bob);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_joiner_is_told_and_sent_everything() {
    let cluster = Cluster::start(1).await;
    let ann = join(&cluster, "ann").await;
    ann.publish(MediaKind::Video).await.unwrap();
    ann.publisher.connected().await;
    let bob = join(&cluster, "bob").await;
    let other = bob
        .join
        .other_participants
        .first()
        .expect("ann is in the join response");
    assert_eq!((other.identity.as_str(), other.tracks.len()), ("ann", 1));
    bob.subscriber.receives(ann.sender, 60).await;
    let state = bob.subscriber.state();
    let ledger = state.ledgers.values().next().unwrap();
    assert!(ledger.in_order().next().unwrap().1.key);
    whole(&bob);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_arrives_with_the_senders_true_identity() {
    let cluster = Cluster::start(1).await;
    let ann = join(&cluster, "ann").await;
    let bob = join(&cluster, "bob").await;
    for (to, from, identity) in [(&bob, &ann, "ann"), (&ann, &bob, "bob")] {
        from.publisher.connected().await;
        to.subscriber
            .until("both channels", |state| {
                [RELIABLE, LOSSY]
                    .iter()
                    .all(|label| state.channels.contains_key(*label))
            })
            .await;
        for label in [RELIABLE, LOSSY] {
            let payload = format!("{identity} on {label}");
            from.send_data(label, payload.as_bytes()).await.unwrap();
            assert_eq!(
                to.data(payload.as_bytes()).await,
                (label.to_owned(), identity.to_owned())
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn muting_and_leaving_are_told() {
    let cluster = Cluster::start(1).await;
    let ann = join(&cluster, "ann").await;
    let bob = join(&cluster, "bob").await;
    let track = ann.publish(MediaKind::Audio).await.unwrap();
    bob.subscriber.receives(ann.sender, 20).await;
    let muted = |signaled: &e2e::livekit::Signaled, wanted: bool| {
        signaled
            .participants
            .get("ann")
            .and_then(|ann| ann.tracks.first())
            .is_some_and(|track| track.muted == wanted)
    };
    for wanted in [true, false] {
        let request = proto::MuteTrackRequest {
            sid: track.sid.clone(),
            muted: wanted,
        };
        ann.request(proto::signal_request::Message::Mute(request)).unwrap();
        bob.until("bob is told", |signaled| muted(signaled, wanted)).await;
    }
    bob.subscriber.receives(ann.sender, 20).await;
    ann.leave().unwrap();
    bob.until("ann is gone", |signaled| !signaled.participants.contains_key("ann"))
        .await;
    whole(&bob);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_socket_is_resumed_with_the_same_peer_connections() {
    let mut cluster = Cluster::start(1).await;
    cluster.add_gateway().await.unwrap();
    let mut ann = join(&cluster, "ann").await;
    let bob = join(&cluster, "bob").await;
    ann.publish(MediaKind::Video).await.unwrap();
    bob.publish(MediaKind::Audio).await.unwrap();
    bob.subscriber.receives(ann.sender, 30).await;
    ann.subscriber.receives(bob.sender, 30).await;

    let (other, first) = (cluster.gateways[1].url.clone(), cluster.gateways[0].url.clone());
    for gateway in [None, Some(other.as_str()), Some(first.as_str())] {
        ann.resume(gateway).await.unwrap();
        bob.subscriber.receives(ann.sender, 60).await;
        ann.subscriber.receives(bob.sender, 60).await;
        ann.send_data(RELIABLE, format!("after {gateway:?}").as_bytes())
            .await
            .unwrap();
        bob.data(format!("after {gateway:?}").as_bytes()).await;
    }
    assert!(bob.signaled().participants.contains_key("ann"), "nobody saw ann leave");
    ann.publish(MediaKind::Audio).await.unwrap();
    bob.until("a track published later", |signaled| {
        signaled
            .participants
            .get("ann")
            .is_some_and(|ann| ann.tracks.len() == 2)
    })
    .await;
    whole(&ann);
    whole(&bob);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_dialects_meet_in_one_room() {
    let cluster = Cluster::start(1).await;
    let ann = join(&cluster, "ann").await;
    let bob = cluster.join(&Wish::call("daily", "bob")).await;
    ann.publish(MediaKind::Audio).await.unwrap();
    ann.publish(MediaKind::Video).await.unwrap();
    bob.peer.receives(ann.sender, 60).await;
    ann.subscriber.receives(bob.sender, 60).await;
    whole(&ann);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_protocol_is_refused_so_that_sdks_fall_back() {
    let cluster = Cluster::start(1).await;
    for path in ["/rtc/v1", "/rtc/v1/validate"] {
        let url = format!("{}{path}?access_token={}", cluster.gateway(), token("daily", "ann"));
        let response = reqwest::get(url).await.unwrap();
        assert_eq!(response.status(), 404);
        assert!(!response.text().await.unwrap().contains("requested room does not exist"));
    }
    let url = format!(
        "{}/rtc/validate?access_token={}",
        cluster.gateway(),
        token("daily", "ann")
    );
    assert_eq!(reqwest::get(url).await.unwrap().status(), 200);
}
