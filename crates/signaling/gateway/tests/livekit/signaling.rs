//! While a client is connected.

use livekit_protocol as lk;
use livekit_protocol::request_response::{Reason, Request as Subject};
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use signalbox_protocol::control::{
    CodecWanted, Command, Event, Quality, RefusalReason, StreamState, SubscriptionFault, Target,
};
use signalbox_protocol::room::{ConnectionQuality, Kind, ParticipantQuality, RoomInfo, Source, Speaker};
use signalbox_protocol::{Generation, ParticipantId, TrackId};
use tokio_tungstenite::tungstenite::Message;

use crate::client::Client;
use crate::cluster::{Cluster, bob, token};

async fn joined() -> (Cluster, Client) {
    let cluster = Cluster::start().await;
    let mut ann = Client::connect(cluster.address, &token("ann"), "").await;
    assert!(matches!(ann.next().await, Response::Join(_)));
    (cluster, ann)
}

fn offer(sdp: &str, id: u32) -> lk::SessionDescription {
    lk::SessionDescription {
        r#type: "offer".into(),
        sdp: sdp.into(),
        id,
        ..lk::SessionDescription::default()
    }
}

fn camera(cid: &str) -> lk::AddTrackRequest {
    let layer = |quality: lk::VideoQuality, width, height| lk::VideoLayer {
        quality: quality.into(),
        width,
        height,
        bitrate: width * 1000,
        ..lk::VideoLayer::default()
    };
    lk::AddTrackRequest {
        cid: cid.into(),
        r#type: lk::TrackType::Video.into(),
        source: lk::TrackSource::Camera.into(),
        width: 1280,
        height: 720,
        layers: vec![
            layer(lk::VideoQuality::Low, 320, 180),
            layer(lk::VideoQuality::Medium, 640, 360),
            layer(lk::VideoQuality::High, 1280, 720),
        ],
        simulcast_codecs: vec![lk::SimulcastCodec {
            codec: "vp8".into(),
            cid: cid.into(),
            ..lk::SimulcastCodec::default()
        }],
        ..lk::AddTrackRequest::default()
    }
}

#[tokio::test]
async fn an_announced_track_reaches_the_node_before_the_offer_that_carries_it() {
    let (mut cluster, mut ann) = joined().await;
    ann.send(Request::AddTrack(camera("c1"))).await;
    ann.send(Request::Offer(offer("v=0", 4))).await;
    let Command::Publish(track) = cluster.node.asked().await else {
        panic!("the track comes first");
    };
    assert_eq!((track.kind, track.source), (Kind::Video, Source::Camera));
    let rids: Vec<_> = track.layers.iter().map(|l| (l.rid.as_str(), l.width)).collect();
    assert_eq!(rids, [("q", 320), ("h", 640), ("f", 1280)]);
    assert_eq!(cluster.node.asked().await, Command::Offer { sdp: "v=0".into() });

    let (mut answer, mut published) = (None, None);
    for _ in 0..2 {
        match ann.next().await {
            Response::Answer(sdp) => answer = Some(sdp),
            Response::TrackPublished(track) => published = Some(track),
            message => panic!("unexpected {message:?}"),
        }
    }
    let answer = answer.unwrap();
    assert_eq!((answer.r#type.as_str(), answer.id), ("answer", 4));
    assert_eq!(answer.sdp, "answer to v=0");
    let published = published.unwrap();
    let track = published.track.unwrap();
    assert_eq!((published.cid.as_str(), track.sid.as_str()), ("c1", "TR_c1"));
    assert_eq!(track.codecs[0].mime_type, "video/VP8");
    assert_eq!(track.codecs[0].cid, "c1");
}

#[tokio::test]
async fn the_nodes_offer_is_answered_under_its_id() {
    let (mut cluster, mut ann) = joined().await;
    let event = Event::Offer {
        id: 9,
        sdp: "v=0".into(),
    };
    cluster.node.tell("PA_ann", event);
    let Response::Offer(sdp) = ann.next().await else {
        panic!("no offer comes");
    };
    assert_eq!((sdp.r#type.as_str(), sdp.sdp.as_str(), sdp.id), ("offer", "v=0", 9));
    for id in [9, 0] {
        ann.send(Request::Answer(lk::SessionDescription {
            r#type: "answer".into(),
            sdp: "mine".into(),
            id,
            ..lk::SessionDescription::default()
        }))
        .await;
        let expected = Command::Answer {
            id: 9,
            sdp: "mine".into(),
        };
        assert_eq!(cluster.node.asked().await, expected);
    }
}

#[tokio::test]
async fn requests_become_commands() {
    let (mut cluster, mut ann) = joined().await;
    let tracks = || vec![TrackId::new("TR_x")];
    let cases = [
        (
            Request::Trickle(lk::TrickleRequest {
                candidate_init: r#"{"candidate":"candidate:1 1 udp 1 192.0.2.1 9 typ host","sdpMid":"0"}"#.into(),
                target: lk::SignalTarget::Subscriber.into(),
                r#final: false,
            }),
            Command::Candidate {
                target: Target::Subscriber,
                candidate: "candidate:1 1 udp 1 192.0.2.1 9 typ host".into(),
            },
        ),
        (
            Request::Mute(lk::MuteTrackRequest {
                sid: "TR_x".into(),
                muted: true,
            }),
            Command::Mute {
                track: TrackId::new("TR_x"),
                muted: true,
            },
        ),
        (
            Request::Subscription(lk::UpdateSubscription {
                participant_tracks: vec![lk::ParticipantTracks {
                    participant_sid: "PA_bob".into(),
                    track_sids: vec!["TR_x".into()],
                }],
                ..lk::UpdateSubscription::default()
            }),
            Command::Subscribe {
                tracks: tracks(),
                subscribed: false,
            },
        ),
        (
            Request::TrackSetting(lk::UpdateTrackSettings {
                track_sids: vec!["TR_x".into()],
                quality: lk::VideoQuality::Medium.into(),
                ..lk::UpdateTrackSettings::default()
            }),
            Command::Prefer {
                tracks: tracks(),
                preference: signalbox_protocol::control::Preference {
                    quality: Some(Quality::Medium),
                    ..Default::default()
                },
            },
        ),
        (
            Request::TrackSetting(lk::UpdateTrackSettings {
                track_sids: vec!["TR_x".into()],
                disabled: true,
                width: 320,
                height: 180,
                fps: 15,
                priority: 2,
                ..lk::UpdateTrackSettings::default()
            }),
            Command::Prefer {
                tracks: tracks(),
                preference: signalbox_protocol::control::Preference {
                    enabled: false,
                    quality: None,
                    width: 320,
                    height: 180,
                    fps: 15,
                    priority: 2,
                },
            },
        ),
    ];
    for (request, command) in cases {
        ann.send(request).await;
        assert_eq!(cluster.node.asked().await, command);
    }
}

#[tokio::test]
async fn events_become_messages() {
    let (cluster, mut ann) = joined().await;
    cluster
        .node
        .tell("PA_ann", Event::ParticipantJoined { participant: bob() });
    let Response::Update(update) = ann.next().await else {
        panic!("bob is not announced");
    };
    let announced = &update.participants[0];
    assert_eq!(announced.state(), lk::participant_info::State::Active);
    assert_eq!(announced.tracks[0].sid, "TR_cam");
    assert!(announced.is_publisher);

    let speaker = Speaker {
        participant: ParticipantId::new("PA_bob"),
        level: 0.5,
        active: true,
        dominant: false,
    };
    cluster.node.tell(
        "PA_ann",
        Event::Speakers {
            speakers: vec![speaker],
        },
    );
    let Response::SpeakersChanged(changed) = ann.next().await else {
        panic!("bob is not heard");
    };
    assert_eq!(changed.speakers[0].sid, "PA_bob");

    cluster
        .node
        .tell("PA_ann", Event::ParticipantLeft { participant: bob() });
    let Response::Update(update) = ann.next().await else {
        panic!("bob does not leave");
    };
    let gone = &update.participants[0];
    assert_eq!(gone.state(), lk::participant_info::State::Disconnected);
    assert!(gone.tracks.is_empty());
}

#[tokio::test]
async fn new_metadata_of_the_room_is_told_and_kept() {
    let (cluster, mut ann) = joined().await;
    let room = RoomInfo {
        name: "daily".parse().unwrap(),
        id: "RM_daily".into(),
        generation: Generation(1),
        created_at_ms: 1_000,
        participants: 7,
        publishers: 0,
        metadata: "topic".into(),
    };
    cluster.node.tell("PA_ann", Event::RoomUpdated { room });
    let Response::RoomUpdate(update) = ann.next().await else {
        panic!("the room is not told");
    };
    let told = update.room.unwrap();
    // The numbers are the roster's.
    assert_eq!((told.metadata.as_str(), told.num_participants), ("topic", 1));
}

#[tokio::test]
async fn a_refused_request_is_reported_with_its_number() {
    let (cluster, mut ann) = joined().await;
    let update = lk::UpdateParticipantMetadata {
        name: "Annie".into(),
        request_id: 7,
        ..lk::UpdateParticipantMetadata::default()
    };
    cluster.node.refuse(RefusalReason::NotPermitted);
    ann.send(Request::UpdateMetadata(update.clone())).await;
    let Response::RequestResponse(report) = ann.next().await else {
        panic!("nothing is reported");
    };
    assert_eq!((report.request_id, report.reason()), (7, Reason::NotAllowed));
    assert_eq!(report.message, "No.");
    assert_eq!(report.request, Some(Subject::UpdateMetadata(update.clone())));

    ann.send(Request::UpdateMetadata(update)).await;
    let Response::RequestResponse(report) = ann.next().await else {
        panic!("nothing is reported");
    };
    assert_eq!((report.request_id, report.reason()), (7, Reason::Ok));
}

#[tokio::test]
async fn pings_are_answered_in_both_ways() {
    let (_cluster, mut ann) = joined().await;
    ann.send(Request::Ping(5)).await;
    assert!(matches!(ann.next().await, Response::Pong(time) if time > 0));
    ann.send(Request::PingReq(lk::Ping { timestamp: 5, rtt: 0 })).await;
    assert!(matches!(ann.next().await, Response::PongResp(pong) if pong.last_ping_timestamp == 5));
}

#[tokio::test]
async fn a_client_that_speaks_json_is_answered_in_json() {
    let (_cluster, mut ann) = joined().await;
    ann.send_raw(Message::text(r#"{"pingReq":{"timestamp":"5"},"unknown":1}"#))
        .await;
    let Message::Text(text) = ann.next_raw().await else {
        panic!("the answer is not text");
    };
    assert!(text.starts_with(r#"{"pongResp":{"lastPingTimestamp":"5""#), "{text}");
    ann.send(Request::PingReq(lk::Ping { timestamp: 6, rtt: 0 })).await;
    assert!(matches!(ann.next().await, Response::PongResp(_)));
}

#[tokio::test]
async fn what_is_unknown_or_unsupported_does_no_harm() {
    let (mut cluster, mut ann) = joined().await;
    // Field 1000, length-delimited, empty.
    ann.send_raw(Message::binary(vec![0xc2, 0x3e, 0x00])).await;
    ann.send(Request::Simulate(lk::SimulateScenario::default())).await;
    for candidate_init in ["", "{", r#"{"candidate":""}"#] {
        ann.send(Request::Trickle(lk::TrickleRequest {
            candidate_init: candidate_init.into(),
            ..lk::TrickleRequest::default()
        }))
        .await;
    }
    let data = lk::AddTrackRequest {
        r#type: lk::TrackType::Data.into(),
        ..camera("c1")
    };
    ann.send(Request::AddTrack(data)).await;
    let Response::RequestResponse(report) = ann.next().await else {
        panic!("the client waits for its track in vain");
    };
    assert_eq!(report.reason(), Reason::UnsupportedType);
    ann.send(Request::Offer(offer("v=0", 1))).await;
    assert_eq!(cluster.node.asked().await, Command::Offer { sdp: "v=0".into() });
}

#[tokio::test]
async fn connection_quality_is_passed_on() {
    let (cluster, mut ann) = joined().await;
    let told = |participant: &str, quality| ParticipantQuality {
        participant: ParticipantId::new(participant),
        quality,
    };
    let event = Event::Quality {
        participants: vec![
            told("PA_ann", ConnectionQuality::Excellent),
            told("PA_bob", ConnectionQuality::Lost),
        ],
    };
    cluster.node.tell("PA_ann", event);
    let Response::ConnectionQuality(update) = ann.next().await else {
        panic!("the qualities come");
    };
    let qualities: Vec<_> = update
        .updates
        .iter()
        .map(|one| (one.participant_sid.as_str(), one.quality()))
        .collect();
    let expected = [
        ("PA_ann", lk::ConnectionQuality::Excellent),
        ("PA_bob", lk::ConnectionQuality::Lost),
    ];
    assert_eq!(qualities, expected);
}

#[tokio::test]
#[allow(deprecated)]
async fn a_publisher_is_told_which_encodings_are_wanted() {
    let (cluster, mut ann) = joined().await;
    let wanted = |mime_type: &str, layers| CodecWanted {
        mime_type: mime_type.into(),
        layers,
    };
    let event = |codecs| Event::EncodingsWanted {
        track: TrackId::new("TR_a"),
        codecs,
    };
    // Nothing could be said of no codec.
    cluster.node.tell("PA_ann", event(Vec::new()));
    let codecs = vec![
        wanted("video/VP9", vec![Quality::Low, Quality::High]),
        wanted("video/vp8", Vec::new()),
    ];
    cluster.node.tell("PA_ann", event(codecs));
    let Response::SubscribedQualityUpdate(update) = ann.next().await else {
        panic!("what is wanted comes");
    };
    let enabled = |qualities: &[lk::SubscribedQuality]| -> Vec<_> {
        qualities.iter().map(|one| (one.quality(), one.enabled)).collect()
    };
    let rungs = |enabled: [bool; 3]| -> Vec<_> {
        use lk::VideoQuality::{High, Low, Medium};
        [Low, Medium, High].into_iter().zip(enabled).collect()
    };
    assert_eq!(update.track_sid, "TR_a");
    assert_eq!(enabled(&update.subscribed_qualities), rungs([true, false, true]));
    let codecs: Vec<_> = update
        .subscribed_codecs
        .iter()
        .map(|codec| (codec.codec.as_str(), enabled(&codec.qualities)))
        .collect();
    assert_eq!(
        codecs,
        [("vp9", rungs([true, false, true])), ("vp8", rungs([false; 3]))]
    );
}

#[tokio::test]
async fn a_subscriber_is_told_what_is_paused_and_what_cannot_be_received() {
    let (cluster, mut ann) = joined().await;
    let state = |track: &str, paused| StreamState {
        participant: ParticipantId::new("PA_bob"),
        track: TrackId::new(track),
        paused,
    };
    cluster.node.tell("PA_ann", Event::StreamStates { streams: Vec::new() });
    let streams = vec![state("TR_a", true), state("TR_b", false)];
    cluster.node.tell("PA_ann", Event::StreamStates { streams });
    let Response::StreamStateUpdate(update) = ann.next().await else {
        panic!("the states come");
    };
    let states: Vec<_> = update
        .stream_states
        .iter()
        .map(|one| (one.participant_sid.as_str(), one.track_sid.as_str(), one.state()))
        .collect();
    let expected = [
        ("PA_bob", "TR_a", lk::StreamState::Paused),
        ("PA_bob", "TR_b", lk::StreamState::Active),
    ];
    assert_eq!(states, expected);

    let failed = Event::SubscriptionFailed {
        participant: ParticipantId::new("PA_bob"),
        track: TrackId::new("TR_a"),
        reason: SubscriptionFault::Codec,
    };
    cluster.node.tell("PA_ann", failed);
    let Response::SubscriptionResponse(response) = ann.next().await else {
        panic!("the failure comes");
    };
    assert_eq!(
        (response.track_sid.as_str(), response.err()),
        ("TR_a", lk::SubscriptionError::SeCodecUnsupported)
    );
}

#[tokio::test]
async fn a_further_encoding_is_announced_under_its_own_id() {
    let (mut cluster, mut ann) = joined().await;
    let mut first = camera("c1");
    first.simulcast_codecs = ["vp9", "vp8"]
        .map(|codec| lk::SimulcastCodec {
            codec: codec.into(),
            ..lk::SimulcastCodec::default()
        })
        .to_vec();
    ann.send(Request::AddTrack(first)).await;
    let Command::Publish(track) = cluster.node.asked().await else {
        panic!("the track is announced");
    };
    assert_eq!(
        (track.codec.as_deref(), track.backup_codec.as_deref()),
        (Some("video/vp9"), Some("video/vp8"))
    );
    assert!(matches!(ann.next().await, Response::TrackPublished(_)));

    let second = lk::AddTrackRequest {
        sid: "TR_c1".into(),
        ..camera("c2")
    };
    ann.send(Request::AddTrack(second)).await;
    let Command::Publish(track) = cluster.node.asked().await else {
        panic!("the encoding is announced");
    };
    assert_eq!(track.encoding_of, Some(TrackId::new("TR_c1")));
    assert_eq!(track.codec.as_deref(), Some("video/vp8"));
    let Response::TrackPublished(published) = ann.next().await else {
        panic!("the client waits for its encoding in vain");
    };
    assert_eq!(
        (published.cid.as_str(), published.track.unwrap().sid.as_str()),
        ("c2", "TR_c1")
    );
}

#[tokio::test]
async fn who_is_muted_by_another_is_asked_to_mute() {
    let (cluster, mut ann) = joined().await;
    let track = TrackId::new("TR_a");
    cluster.node.tell("PA_ann", Event::MutedRemotely { track });
    let Response::Mute(mute) = ann.next().await else {
        panic!("the request to mute comes");
    };
    assert_eq!((mute.sid.as_str(), mute.muted), ("TR_a", true));
}
