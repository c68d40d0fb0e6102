//! Bad input from outside. After each, the system serves a call as before.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::PATIENCE;
use e2e::client::{Wish, join_url};
use e2e::cluster::{Cluster, token};
use e2e::livekit::{LiveKitClient, open, receive};
use e2e::stun::{binding_request, sdp_attribute};
use futures_util::{SinkExt, StreamExt};
use livekit_protocol::signal_response::Message as Response;
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const GARBAGE: &str = r#"signalbox_media_datagrams_dropped_total{reason="garbage"}"#;
const UNKNOWN: &str = r#"signalbox_media_datagrams_dropped_total{reason="unknown_source"}"#;
const UNKNOWN_SSRC: &str = r#"signalbox_media_datagrams_dropped_total{reason="unknown_ssrc"}"#;
const STUN: &str = r#"signalbox_media_datagrams_dropped_total{reason="stun"}"#;
const OVERSIZE: &str = r#"signalbox_media_datagrams_dropped_total{reason="oversize"}"#;
const FAILED: &str = "signalbox_media_failed_connections_total";

/// How long to wait for an answer that must not come, once it is known that the question has been dealt with.
const SILENCE: Duration = Duration::from_millis(200);

/// Waits until the nodes have counted this many more.
async fn counted(cluster: &Cluster, name: &str, wanted: u64) {
    let wait = async {
        while cluster.node_counter(name).await.unwrap() < wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, wait).await;
    if seen.is_err() {
        panic!("{name} is {}, not {wanted}", cluster.node_counter(name).await.unwrap());
    }
}

/// That two clients still reach each other.
async fn serves_a_call(cluster: &Cluster) {
    let ann = cluster.join(&Wish::call("afterwards", "ann")).await;
    let bob = cluster.join(&Wish::call("afterwards", "bob")).await;
    ann.peer.receives(bob.sender, 30).await;
    bob.peer.receives(ann.sender, 30).await;
    assert_eq!(cluster.node_counter(FAILED).await.unwrap(), 0);
}

async fn stranger() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

async fn stays_silent(socket: &UdpSocket) {
    let mut buffer = [0; 2_048];
    let answer = tokio::time::timeout(SILENCE, socket.recv_from(&mut buffer)).await;
    assert!(answer.is_err(), "an answer to a stranger: {answer:?}");
}

fn rtp() -> Vec<u8> {
    let mut packet = vec![0x80, 96, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1];
    packet.resize(200, 7);
    packet
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_from_strangers_is_dropped_without_an_answer() {
    let cluster = Cluster::start(1).await;
    let ann = cluster.join(&Wish::call("daily", "ann")).await;
    ann.peer.connected().await;
    let media = ann.joined.media.socket_addr();
    let socket = stranger().await;

    let garbage: [&[u8]; 5] = [b"", b"\0", b"GET / HTTP/1.1\r\n\r\n", &[0xff; 1_200], &[0x7f; 3]];
    let before = cluster.node_counter(GARBAGE).await.unwrap();
    for datagram in garbage {
        socket.send_to(datagram, media).await.unwrap();
    }
    // An empty datagram is not worth counting.
    counted(&cluster, GARBAGE, before + 4).await;

    let before = cluster.node_counter(UNKNOWN).await.unwrap();
    let ssrcs_before = cluster.node_counter(UNKNOWN_SSRC).await.unwrap();
    let dtls = [&[22, 0xfe, 0xfd][..], &[0; 100]].concat();
    for datagram in [rtp(), rtp(), dtls] {
        socket.send_to(&datagram, media).await.unwrap();
    }
    counted(&cluster, UNKNOWN, before + 1).await;
    counted(&cluster, UNKNOWN_SSRC, ssrcs_before + 2).await;
    stays_silent(&socket).await;
    serves_a_call(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stun_without_the_right_credentials_is_not_answered() {
    let cluster = Cluster::start(1).await;
    let ann = cluster.join(&Wish::call("daily", "ann")).await;
    ann.peer.connected().await;
    let media = ann.joined.media.socket_addr();
    let ufrag = sdp_attribute(&ann.joined.answer, "ice-ufrag").unwrap().to_owned();
    let socket = stranger().await;

    let right_name = binding_request(&format!("{ufrag}:else"));
    let mut truncated: Vec<Vec<u8>> = [1, 4, 19, 20, 24, 40]
        .iter()
        .map(|end| right_name[..*end].to_vec())
        .collect();
    let mut lying = right_name.clone();
    lying[3] = 0xff;
    truncated.push(lying);
    for datagram in &truncated {
        socket.send_to(datagram, media).await.unwrap();
    }
    let before = cluster.node_counter(STUN).await.unwrap();
    let wrong = [
        right_name.clone(),
        binding_request("nobody:else"),
        binding_request(""),
        binding_request(&"x".repeat(600)),
    ];
    for datagram in &wrong {
        socket.send_to(datagram, media).await.unwrap();
    }
    counted(&cluster, STUN, before + 4).await;
    stays_silent(&socket).await;

    // Nor from the address that the connection uses, and it goes on.
    ann.peer.send_raw(media, right_name).await.unwrap();
    let bob = cluster.join(&Wish::watch("daily", "bob")).await;
    bob.peer.receives(ann.sender, 50).await;
    serves_a_call(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oversize_packets_are_counted_and_dropped() {
    let cluster = Cluster::start(1).await;
    let ann = cluster.join(&Wish::call("daily", "ann")).await;
    let bob = cluster.join(&Wish::watch("daily", "bob")).await;
    bob.peer.receives(ann.sender, 20).await;
    let media: SocketAddr = ann.joined.media.socket_addr();
    let before = cluster.node_counter(OVERSIZE).await.unwrap();
    let mut packet = rtp();
    packet.resize(1_401, 0);
    ann.peer.send_raw(media, packet.clone()).await.unwrap();
    packet.resize(9_000, 0);
    ann.peer.send_raw(media, packet.clone()).await.unwrap();
    stranger().await.send_to(&packet, media).await.unwrap();
    counted(&cluster, OVERSIZE, before + 3).await;
    bob.peer.receives(ann.sender, 50).await;
    serves_a_call(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_a_connection_costs_nothing() {
    let cluster = Cluster::start(1).await;
    let ann = cluster.join(&Wish::call("daily", "ann")).await;
    let bob = cluster.join(&Wish::watch("daily", "bob")).await;
    bob.peer.receives(ann.sender, 20).await;
    let media = ann.joined.media.socket_addr();
    // Unencrypted RTP and RTCP, a truncated header, an extension that claims more than there is, a DTLS record of nonsense.
    let mut extension = rtp();
    extension[0] = 0x90;
    extension[14..16].copy_from_slice(&[0xff, 0xff]);
    let datagrams = [
        rtp(),
        vec![0x80; 12],
        vec![0x80; 5],
        extension,
        [vec![0x81, 206], vec![0; 30]].concat(),
        vec![22; 60],
        vec![0xff; 9],
    ];
    for datagram in datagrams {
        ann.peer.send_raw(media, datagram).await.unwrap();
    }
    bob.peer.receives(ann.sender, 50).await;
    serves_a_call(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_offer_is_a_problem_that_says_so() {
    let cluster = Cluster::start(1).await;
    let no_fingerprint = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\n\
        a=mid:0\r\na=sendrecv\r\na=rtpmap:111 opus/48000/2\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdabcdabcdabcdabcdabcd\r\n";
    let offers = [
        "",
        "v=0",
        "nonsense",
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n",
        no_fingerprint,
        "\0\0\0",
    ];
    for offer in offers {
        let request = reqwest::Client::new().post(join_url(cluster.gateway(), "daily"));
        let response = request
            .bearer_auth(token("daily", "ann"))
            .json(&json!({"offer": offer}))
            .send()
            .await
            .unwrap();
        let status = response.status();
        let media_type = response.headers().get("content-type").cloned();
        let problem: Value = response.json().await.unwrap();
        assert_eq!(status, 400, "{offer:?}: {problem}");
        assert_eq!(media_type.unwrap(), "application/problem+json");
        assert!(
            problem["type"].as_str().unwrap().starts_with("urn:signalbox:problem:"),
            "{problem}"
        );
        assert!(
            problem["detail"].as_str().is_some_and(|detail| detail.len() > 10),
            "{problem}"
        );
    }
    let bob = cluster.join(&Wish::watch("daily", "bob")).await;
    assert!(
        bob.joined.participants.is_empty(),
        "a refused join leaves nobody behind: {:?}",
        bob.joined.participants
    );
    serves_a_call(&cluster).await;
}

/// Reads until the server ends the socket.
async fn is_ended(socket: &mut e2e::livekit::Socket) {
    let end = async { while let Some(Ok(_)) = socket.next().await {} };
    tokio::time::timeout(PATIENCE, end).await.expect("the socket is ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_rtc_costs_only_that_socket() {
    let cluster = Cluster::start(1).await;
    let bystander = LiveKitClient::join(cluster.gateway(), &token("daily", "bystander"))
        .await
        .unwrap();
    let garbage = [
        Message::binary(vec![0xff; 64]),
        Message::text("no JSON"),
        Message::binary(vec![0; 2 * 1024 * 1024 + 1]),
    ];
    for (index, message) in garbage.into_iter().enumerate() {
        let mut socket = open(cluster.gateway(), &token("daily", &format!("rude-{index}")), "")
            .await
            .unwrap();
        assert!(matches!(receive(&mut socket).await.unwrap(), Response::Join(_)));
        // The server may end the socket before it has read all of it.
        let _ = socket.send(message).await;
        is_ended(&mut socket).await;
    }
    let pongs = bystander.signaled().pongs;
    bystander
        .request(livekit_protocol::signal_request::Message::PingReq(
            livekit_protocol::Ping::default(),
        ))
        .unwrap();
    bystander.until("a pong", |signaled| signaled.pongs > pongs).await;
    serves_a_call(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_before_the_join_do_no_harm() {
    let cluster = Cluster::start(1).await;
    let mut socket = open(cluster.gateway(), &token("daily", "hasty"), "").await.unwrap();
    let early = livekit_protocol::SignalRequest {
        message: Some(livekit_protocol::signal_request::Message::Mute(
            livekit_protocol::MuteTrackRequest {
                sid: "TR_nothing".to_owned(),
                muted: true,
            },
        )),
    };
    socket
        .send(Message::binary(prost::Message::encode_to_vec(&early)))
        .await
        .unwrap();
    assert!(
        matches!(receive(&mut socket).await.unwrap(), Response::Join(_)),
        "the join response comes first"
    );
    serves_a_call(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversize_frame_on_the_event_stream_ends_it_alone() {
    let cluster = Cluster::start(1).await;
    let ann = cluster.join(&Wish::call("daily", "ann")).await;
    let url = format!("{}{}", cluster.gateway().replacen("http", "ws", 1), ann.joined.events);
    let mut request = url.into_client_request().unwrap();
    let bearer = format!("Bearer {}", token("daily", "ann"));
    request.headers_mut().insert("authorization", bearer.parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    let _ = socket.send(Message::binary(vec![0; 8 * 1024 * 1024])).await;
    is_ended(&mut socket).await;
    let bob = cluster.join(&Wish::watch("daily", "bob")).await;
    bob.peer.receives(ann.sender, 30).await;
    serves_a_call(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_is_its_identitys_alone() {
    let cluster = Cluster::start(1).await;
    let ann = cluster.join(&Wish::call("daily", "ann")).await;
    let url = format!(
        "{}/v1/rooms/daily/participants/{}",
        cluster.gateway(),
        ann.joined.participant.id
    );
    let other_room = format!(
        "{}/v1/rooms/other/participants/{}",
        cluster.gateway(),
        ann.joined.participant.id
    );
    for (url, bearer, status) in [
        (&url, token("daily", "eve"), 404),
        (&url, token("other", "ann"), 403),
        (&other_room, token("other", "ann"), 404),
        (&url, "no token".to_owned(), 401),
    ] {
        let response = reqwest::Client::new()
            .delete(url)
            .bearer_auth(bearer)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), status, "{url}");
    }
    let bob = cluster.join(&Wish::watch("daily", "bob")).await;
    bob.peer.receives(ann.sender, 20).await;
}
