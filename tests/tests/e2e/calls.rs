//! Calls over the HTTP join: who is there, what flows, what stops.

use e2e::client::{Client, Wish};
use e2e::cluster::{Cluster, token};
use reqwest::StatusCode;
use serde_json::Value;
use signalbox_protocol::room::{Kind, MediaAddress};

/// How far apart two packets of one stream may be in time without it being a jump: two seconds of video.
const VIDEO_JUMP: u64 = 180_000;

/// Waits until `watcher` has sound and picture of a participant in its slots, and checks that the streams are whole.
async fn receives_both(watcher: &Client, identity: &str, sender: u32) {
    for (kind, packets, jump) in [(Kind::Audio, 50, 96_000), (Kind::Video, 60, VIDEO_JUMP)] {
        let mid = watcher.slot(identity, kind).await;
        let what = format!("{packets} {kind:?} packets of {identity} on slot {mid}");
        watcher
            .peer
            .until(&what, |state| state.ledger(&mid).packets_from(sender) >= packets)
            .await;
        watcher
            .peer
            .until("what is missing is sent again", |state| state.ledger(&mid).gaps() == 0)
            .await;
        let state = watcher.peer.state();
        let ledger = state.ledger(&mid);
        assert!(
            ledger.time_jumps(jump).is_empty(),
            "{kind:?}: {:?}",
            ledger.time_jumps(jump)
        );
        assert_eq!(ledger.ssrcs.len(), 1, "a slot is one stream to its receiver");
        assert_eq!(ledger.unmarked, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_participants_hear_and_see_each_other() {
    let cluster = Cluster::start(1).await;
    let ann = cluster.join(&Wish::call("daily", "ann")).await;
    let bob = cluster.join(&Wish::call("daily", "bob")).await;
    assert!(ann.joined.media.ip.is_loopback() && ann.joined.media.port != 0);
    assert_eq!(ann.joined.media, bob.joined.media, "one room, one address");
    assert_eq!(ann.joined.room.name.as_str(), "daily");
    assert_eq!(
        bob.joined.participants.len(),
        1,
        "the second to join is told of the first"
    );
    for line in ["a=ice-lite", "a=setup:active"] {
        assert!(ann.joined.answer.contains(line), "{line} in {}", ann.joined.answer);
    }
    receives_both(&ann, "bob", bob.sender).await;
    receives_both(&bob, "ann", ann.sender).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_is_told() {
    let cluster = Cluster::start(1).await;
    let ann = cluster.join(&Wish::call("daily", "ann")).await;
    let bob = cluster.join(&Wish::watch("daily", "bob")).await;
    let speaker = ann.joined.participant.id.clone();
    bob.until("ann speaks", |view| {
        view.speakers
            .get(&speaker)
            .is_some_and(|speaker| speaker.active && speaker.level > 0.0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_joiner_begins_with_a_key_frame() {
    let cluster = Cluster::start(1).await;
    let ann = cluster.join(&Wish::show("daily", "ann", &[])).await;
    let first = cluster.join(&Wish::watch("daily", "first")).await;
    first.peer.receives(ann.sender, 60).await;
    let late = cluster.join(&Wish::watch("daily", "late")).await;
    let mid = late.slot("ann", Kind::Video).await;
    late.peer
        .until("a picture", |state| state.ledger(&mid).packets >= 30)
        .await;
    let state = late.peer.state();
    let ledger = state.ledger(&mid);
    let (_, begin) = ledger.in_order().next().unwrap();
    assert!(begin.key, "the first packet is {begin:?}");
    assert!(
        ann.peer.state().key_frame_requests > 0,
        "the publisher was asked for it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_frame_request_reaches_the_publisher() {
    let cluster = Cluster::start(1).await;
    let _ann = cluster.join(&Wish::show("daily", "ann", &[])).await;
    let bob = cluster.join(&Wish::watch("daily", "bob")).await;
    let mid = bob.slot("ann", Kind::Video).await;
    bob.peer
        .until("a picture", |state| state.ledger(&mid).packets >= 60)
        .await;
    let before = bob.peer.state().ledger(&mid).key_frames;
    bob.peer.request_key_frame(mid.clone()).await.unwrap();
    bob.peer
        .until("one key frame more", |state| state.ledger(&mid).key_frames > before)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_used_again_after_a_leave() {
    let cluster = Cluster::start(1).await;
    let watcher = cluster
        .join(&Wish {
            audio_slots: 1,
            video_slots: 1,
            ..Wish::watch("daily", "watcher")
        })
        .await;
    let ann = cluster.join(&Wish::show("daily", "ann", &[])).await;
    let mid = watcher.slot("ann", Kind::Video).await;
    watcher
        .peer
        .until("ann's picture", |state| {
            state.ledger(&mid).packets_from(ann.sender) >= 60
        })
        .await;

    ann.leave().await.unwrap();
    watcher
        .until("ann is gone and the slot is free", |view| {
            view.who("ann").is_none() && view.slots.get(&mid).is_some_and(|slot| slot.track.is_none())
        })
        .await;
    assert!(watcher.view().log.contains(&"left".to_owned()));
    ann.until("ann is told, too", |view| view.closed.as_deref() == Some("left"))
        .await;

    let eve = cluster.join(&Wish::show("daily", "eve", &[])).await;
    assert_eq!(watcher.slot("eve", Kind::Video).await, mid);
    watcher
        .peer
        .until("eve's picture", |state| {
            state.ledger(&mid).packets_from(eve.sender) >= 60
        })
        .await;
    watcher
        .peer
        .until("nothing is missing", |state| state.ledger(&mid).gaps() == 0)
        .await;
    let state = watcher.peer.state();
    let ledger = state.ledger(&mid);
    let switches = ledger.switches();
    assert_eq!(switches.len(), 1, "{switches:?}");
    assert!(
        switches[0].1.key,
        "another source begins with a key frame: {:?}",
        switches[0]
    );
    let back: Vec<_> = ledger.time_jumps(u64::MAX);
    assert!(back.is_empty(), "time goes back: {back:?}");
    assert_eq!(ledger.ssrcs.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_slots_are_asked_for_and_filled() {
    let cluster = Cluster::start(1).await;
    let watcher = cluster
        .join(&Wish {
            audio_slots: 0,
            video_slots: 1,
            ..Wish::watch("daily", "watcher")
        })
        .await;
    let ann = cluster.join(&Wish::show("daily", "ann", &[])).await;
    let bob = cluster.join(&Wish::show("daily", "bob", &[])).await;
    watcher
        .until("one slot more is wanted", |view| {
            view.wanted.is_some_and(|(_, video)| video == 1)
        })
        .await;
    watcher.add_slots(0, 1).await.unwrap();
    watcher.slot("ann", Kind::Video).await;
    watcher.slot("bob", Kind::Video).await;
    watcher.peer.receives(ann.sender, 30).await;
    watcher.peer.receives(bob.sender, 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_muted_track_is_forwarded() {
    let cluster = Cluster::start(1).await;
    let ann = cluster.join(&Wish::call("daily", "ann")).await;
    let bob = cluster.join(&Wish::watch("daily", "bob")).await;
    let (audio, video) = (bob.slot("ann", Kind::Audio).await, bob.slot("ann", Kind::Video).await);
    bob.peer
        .until("picture and sound", |state| {
            state.ledger(&audio).packets >= 20 && state.ledger(&video).packets >= 20
        })
        .await;
    let track = bob.view().track("ann", Kind::Video).unwrap().id.to_string();

    ann.mute(&track, true).await.unwrap();
    bob.until("bob is told", |view| {
        view.track("ann", Kind::Video).is_some_and(|track| track.muted)
    })
    .await;
    // What was under way has arrived when sound that was sent later has.
    bob.peer.receives_on(&audio, 10).await;
    let before = bob.peer.state().ledger(&video).packets;
    bob.peer.receives_on(&audio, 50).await;
    assert_eq!(
        bob.peer.state().ledger(&video).packets,
        before,
        "ann's camera goes on, but nobody gets it"
    );

    ann.mute(&track, false).await.unwrap();
    bob.peer.receives_on(&video, 30).await;
    bob.peer
        .until("nothing is missing", |state| state.ledger(&video).gaps() == 0)
        .await;
    assert!(bob.peer.state().ledger(&video).time_jumps(u64::MAX).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpublished_track_frees_its_slot() {
    let cluster = Cluster::start(1).await;
    let ann = cluster.join(&Wish::call("daily", "ann")).await;
    let bob = cluster.join(&Wish::watch("daily", "bob")).await;
    let mid = bob.slot("ann", Kind::Video).await;
    let track = bob.view().track("ann", Kind::Video).unwrap().id.to_string();
    ann.unpublish(&track).await.unwrap();
    bob.until("the slot is free", |view| {
        view.slots.get(&mid).is_some_and(|slot| slot.track.is_none())
    })
    .await;
    bob.until("the track is gone", |view| {
        view.who("ann").is_some() && view.track("ann", Kind::Video).is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_can_be_paused() {
    let cluster = Cluster::start(1).await;
    let ann = cluster.join(&Wish::call("daily", "ann")).await;
    let bob = cluster.join(&Wish::watch("daily", "bob")).await;
    let (audio, video) = (bob.slot("ann", Kind::Audio).await, bob.slot("ann", Kind::Video).await);
    bob.peer.receives_on(&video, 20).await;
    let track = bob.view().track("ann", Kind::Video).unwrap().id.to_string();
    bob.prefer(&track, serde_json::json!({"enabled": false})).await.unwrap();
    bob.peer.receives_on(&audio, 10).await;
    let before = bob.peer.state().ledger(&video).packets;
    bob.peer.receives_on(&audio, 50).await;
    assert_eq!(bob.peer.state().ledger(&video).packets, before);
    bob.prefer(&track, serde_json::json!({"enabled": true})).await.unwrap();
    bob.peer.receives_on(&video, 20).await;
    drop(ann);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_vanishes_without_a_word_leaves_after_a_while() {
    let cluster = Cluster::try_start(1, &["--departure-seconds", "1"]).await.unwrap();
    let ann = cluster.join(&Wish::call("daily", "ann")).await;
    let bob = cluster.join(&Wish::watch("daily", "bob")).await;
    bob.peer.receives(ann.sender, 20).await;
    drop(ann);
    bob.until("ann is gone", |view| {
        view.who("ann").is_none() && view.log.contains(&"left".to_owned())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_offer_a_join_says_where_the_room_is() {
    let cluster = Cluster::start(1).await;
    let request = reqwest::Client::new().post(e2e::client::join_url(cluster.gateway(), "daily"));
    let response = request.bearer_auth(token("daily", "ann")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["room"], "daily");
    assert!(
        body["ticket"]
            .as_str()
            .is_some_and(|ticket| ticket.split('.').count() == 3)
    );
    let media: MediaAddress = serde_json::from_value(body["media"].clone()).unwrap();
    let ann = cluster.join(&Wish::watch("daily", "ann")).await;
    assert_eq!(ann.joined.media, media);
}
