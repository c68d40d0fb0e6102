//! Joins without a peer connection.

use reqwest::{Method, Response};
use serde_json::{Value, json};
use signalbox_protocol::control::{CloseReason, Command, Event, Join, RefusalReason, Request, Transports};
use signalbox_protocol::room::{Kind, Source};
use signalbox_protocol::srtp::{SrtpSuite, SrtpWanted};

use crate::cluster::{Cluster, JOIN, close_code, next_json, problem};

async fn join(cluster: &Cluster, body: Value, accept: Option<&str>) -> Response {
    let request = cluster.request(Method::POST, JOIN).json(&body);
    let request = accept
        .into_iter()
        .fold(request, |request, accept| request.header("accept", accept));
    request.send().await.unwrap()
}

fn both_ways() -> Value {
    json!({
        "transport": "srtp",
        "publish": [{"kind": "video", "codec": "vp8"}, {"kind": "audio", "codec": "opus", "source": "screen_share_audio"}],
        "subscribe": [{"kind": "video", "codec": "h264"}, {"kind": "audio"}],
    })
}

#[tokio::test]
async fn a_join_by_srtp_asks_the_node_for_streams_and_tells_them() {
    let cluster = Cluster::start().await;
    let response = join(&cluster, both_ways(), None).await;
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["location"], "/v1/rooms/daily/participants/PA_1");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let reply: Value = response.json().await.unwrap();
    assert_eq!(
        (&reply["media"]["ip"], &reply["media"]["port"]),
        (&json!("192.0.2.7"), &json!(50_000))
    );
    assert_eq!(reply["publish"][0]["codec"], "video/VP8");
    assert_eq!(reply["publish"][1]["codec"], "audio/opus");
    assert_eq!(reply["receive"][0]["suite"], "AES_CM_128_HMAC_SHA1_80");
    assert_eq!(reply["events"], "/v1/rooms/daily/participants/PA_1/events");
    let sdp = reply["sdp"].as_str().unwrap();
    assert!(
        sdp.contains("m=video 5004 RTP/SAVP 106\r\na=rtpmap:106 H264/90000\r\n"),
        "{sdp}"
    );
    assert!(sdp.contains("m=audio 5006 RTP/SAVP 107\r\n"), "{sdp}");

    let requests = cluster.node.requests();
    let [Request::Join(asked)] = requests.as_slice() else {
        panic!("{requests:?}")
    };
    assert_eq!((asked.transports, &asked.offer), (Transports::Srtp, &None));
    assert_eq!(asked.publish[0].codec.as_deref(), Some("video/VP8"));
    assert_eq!(
        (asked.publish[0].source, asked.publish[1].source),
        (Source::Camera, Source::ScreenShareAudio)
    );
    let srtp = asked.srtp.as_ref().unwrap();
    assert_eq!(
        (srtp.suite, srtp.receive_present),
        (SrtpSuite::AesCm128HmacSha1_80, false)
    );
    let wanted = |kind, codec: Option<&str>| SrtpWanted {
        kind,
        codec: codec.map(str::to_owned),
    };
    assert_eq!(
        srtp.receive,
        [wanted(Kind::Video, Some("video/H264")), wanted(Kind::Audio, None)]
    );
}

#[tokio::test]
async fn the_command_lines_name_the_streams_as_the_tools_want_them() {
    let cluster = Cluster::start().await;
    let reply: Value = join(&cluster, both_ways(), None).await.json().await.unwrap();
    let ffmpeg = reply["examples"]["ffmpeg"]["publish"].as_str().unwrap();
    // 0xf0000000 as the signed number that ffmpeg's option is.
    assert!(
        ffmpeg.contains("-payload_type 96 -ssrc -268435456 -srtp_out_suite AES_CM_128_HMAC_SHA1_80"),
        "{ffmpeg}"
    );
    assert!(
        ffmpeg.contains("'srtp://192.0.2.7:50000?rtcpport=50000&pkt_size=1200'"),
        "{ffmpeg}"
    );
    let receive = reply["examples"]["ffmpeg"]["receive"].as_str().unwrap();
    assert!(
        receive.contains("'cHJvb2Y='") && receive.contains("localport=5006"),
        "{receive}"
    );
    let gstreamer = reply["examples"]["gstreamer"]["publish"].as_str().unwrap();
    assert!(
        gstreamer.contains("rtpvp8pay picture-id-mode=2 pt=96 ssrc=4026531840"),
        "{gstreamer}"
    );
}

#[tokio::test]
async fn the_answer_comes_as_an_sdp_file_or_as_a_script_when_that_is_accepted() {
    let cluster = Cluster::start().await;
    let sdp = join(&cluster, both_ways(), Some("application/sdp")).await;
    assert_eq!(
        (sdp.status().as_u16(), &sdp.headers()["content-type"]),
        (201, &"application/sdp".parse().unwrap())
    );
    assert!(sdp.text().await.unwrap().starts_with("v=0\r\n"));
    let script = join(&cluster, both_ways(), Some("text/x-shellscript")).await;
    assert_eq!(script.status(), 201);
    let script = script.text().await.unwrap();
    assert!(
        script
            .lines()
            .any(|line| line.starts_with("ffmpeg ") && line.contains("srtp://")),
        "{script}"
    );
}

#[tokio::test]
async fn who_cannot_be_answered_as_accepted_is_told_why_and_does_not_stay() {
    let cluster = Cluster::start().await;
    let only_publishes = json!({"transport": "srtp", "publish": [{"kind": "audio", "codec": "opus"}]});
    let (status, kind, detail) = problem(join(&cluster, only_publishes, Some("application/sdp")).await).await;
    assert_eq!((status, kind.as_str()), (400, "invalid-request"));
    assert!(detail.contains("nothing to receive"), "{detail}");
    cluster.node.saw_command("PA_1", Command::Leave).await;
    let av1 = json!({"transport": "srtp", "publish": [{"kind": "video", "codec": "av1"}], "subscribe": false});
    let (status, _, detail) = problem(join(&cluster, av1, Some("text/x-shellscript")).await).await;
    assert_eq!(status, 400);
    assert!(detail.contains("AV1"), "{detail}");
    cluster.node.saw_command("PA_2", Command::Leave).await;
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_refused_before_a_room_is_placed() {
    let cluster = Cluster::start().await;
    let video = |codec: &str| json!([{"kind": "video", "codec": codec}]);
    let cases = [
        (json!({"transport": "quic"}), "`webrtc` or `srtp`"),
        (json!({"transport": 7}), "`webrtc` or `srtp`"),
        (json!({"transport": "srtp", "publish": video("theora")}), "theora"),
        (json!({"transport": "srtp", "publish": video("opus")}), "opus is audio"),
        (json!({"transport": "srtp", "publish": [{"kind": "video"}]}), "codec"),
        (
            json!({"transport": "srtp", "publish": [{"kind": "smell", "codec": "vp8"}]}),
            "smell",
        ),
        (
            json!({"transport": "srtp", "publish": [{"kind": "video", "codec": "vp8", "ssrc": -1}]}),
            "-1",
        ),
        (
            json!({"transport": "srtp", "subscribe": "everything"}),
            "true, false, or a list",
        ),
        (
            json!({"transport": "srtp", "suite": "F8_128_HMAC_SHA1_80"}),
            "AEAD_AES_128_GCM",
        ),
        (json!({"transport": "srtp", "receive_port": 65_535}), "`receive_port`"),
        (json!({"transport": "srtp", "offer": "v=0"}), "offer"),
        (
            json!({"transport": "srtp", "publish": vec![json!({"kind": "audio", "codec": "opus"}); 65]}),
            "at most 64",
        ),
    ];
    for (body, said) in cases {
        let shown = body.to_string();
        let (status, _, detail) = problem(join(&cluster, body, None).await).await;
        assert_eq!(status, 400, "{shown}");
        assert!(detail.contains(said), "{shown}: {detail}");
    }
    assert_eq!(cluster.orchestrator.asked(), 0);
}

#[tokio::test]
async fn a_nodes_refusal_is_passed_on() {
    let cluster = Cluster::start().await;
    cluster.node.refuse([RefusalReason::NotPermitted]);
    let (status, kind, _) = problem(join(&cluster, both_ways(), None).await).await;
    assert_eq!((status, kind.as_str()), (403, "forbidden"));
}

/// The joins that the node was asked for.
fn joins(cluster: &Cluster) -> Vec<Join> {
    let requests = cluster.node.requests().into_iter();
    let joins = requests.filter_map(|request| match request {
        Request::Join(join) => Some(*join),
        _ => None,
    });
    joins.collect()
}

#[tokio::test]
async fn who_has_no_peer_connection_is_put_back_into_its_room_and_told_where_when_the_node_goes() {
    let cluster = Cluster::start().await;
    let reply: Value = join(&cluster, both_ways(), None).await.json().await.unwrap();
    let (mut events, _) = cluster.events("PA_1").await;
    cluster.orchestrator.re_place(cluster.node.control());
    let reason = CloseReason::NodeGone;
    cluster.node.push("PA_1", Event::Closed { reason });
    let snapshot = next_json(&mut events).await;
    assert_eq!(
        (&snapshot["type"], &snapshot["participant"]["id"]),
        (&json!("snapshot"), &json!("PA_2"))
    );
    let moved = next_json(&mut events).await;
    assert_eq!(moved["type"], "moved");
    assert_eq!(moved["location"], "/v1/rooms/daily/participants/PA_2");
    assert_eq!(moved["media"], reply["media"]);
    assert_eq!(moved["receive"].as_array().unwrap().len(), 2);

    let joins = joins(&cluster);
    let [_, again] = joins.as_slice() else {
        panic!("{joins:?}")
    };
    assert_eq!((again.transports, again.attach), (Transports::Srtp, true));
    // What the publisher's tracks were like last, not what the first join said.
    let track = &again.publish[0];
    assert_eq!((track.name.as_str(), track.muted, track.width), ("a name", true, 640));
    let srtp = again.srtp.as_ref().unwrap();
    let resumed = srtp.resume.iter();
    let resumed: Vec<Value> = resumed
        .map(|one| json!([one.ssrc, one.payload_type, one.key, one.track]))
        .collect();
    let before = reply["publish"].as_array().unwrap().iter();
    let before: Vec<Value> = before
        .map(|one| json!([one["ssrc"], one["payload_type"], one["key"], one["track"]]))
        .collect();
    assert_eq!(resumed, before);
    assert_eq!(srtp.receive.len(), 2);

    // The stream goes on for the participant that it is now.
    cluster.node.push("PA_2", Event::SlotsWanted { audio: 1, video: 0 });
    assert_eq!(next_json(&mut events).await["type"], "slots_wanted");
}

#[tokio::test]
async fn who_cannot_be_put_back_is_told_where_the_room_is_and_that_it_is_over() {
    let cluster = Cluster::start().await;
    cluster.join().await;
    let (mut events, _) = cluster.events("PA_1").await;
    cluster.orchestrator.re_place(cluster.node.control());
    let reason = CloseReason::NodeGone;
    cluster.node.push("PA_1", Event::Closed { reason });
    let moved = next_json(&mut events).await;
    assert_eq!(
        (&moved["type"], &moved["media"]["port"]),
        (&json!("moved"), &json!(50_000))
    );
    assert_eq!(moved.get("location"), None);
    assert_eq!(next_json(&mut events).await["type"], "closed");
    assert_eq!(close_code(&mut events).await, 1000);
    assert_eq!(joins(&cluster).len(), 1);
}
