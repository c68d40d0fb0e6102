//! From the request to the first message.

use livekit_protocol::leave_request::Action;
use livekit_protocol::participant_info::Kind;
use livekit_protocol::signal_response::Message as Response;
use livekit_protocol::{DisconnectReason, ParticipantInfo};
use signalbox_protocol::control::{Command, Request, Transports};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::Client;
use crate::cluster::{Cluster, token, token_with};

#[tokio::test]
async fn the_first_message_is_the_join_response() {
    let mut cluster = Cluster::start().await;
    let _bob = Client::connect(cluster.address, &token("bob"), "").await;
    let token = token_with(|claims| {
        claims.name = "Ann".into();
        claims.kind = "agent".into();
        claims.attributes.insert("role".into(), "host".into());
    });
    let mut ann = Client::connect(cluster.address, &token, "&auto_subscribe=0&client_protocol=1").await;
    let Response::Join(join) = ann.next().await else {
        panic!("the first message is no join response");
    };
    let room = join.room.unwrap();
    assert_eq!((room.sid.as_str(), room.name.as_str()), ("RM_a", "daily"));
    assert_eq!(room.creation_time, 1_700_000_000);
    let me = join.participant.unwrap();
    assert_eq!(
        (me.sid.as_str(), me.identity.as_str(), me.name.as_str()),
        ("PA_ann", "ann", "Ann")
    );
    assert_eq!((me.kind(), me.client_protocol), (Kind::Agent, 1));
    assert_eq!(me.attributes["role"], "host");
    assert_eq!(identities(&join.other_participants), ["bob"]);
    let server = join.server_info.unwrap();
    assert!(!server.version.is_empty());
    assert_eq!(server.protocol, 17);
    assert!(join.subscriber_primary);
    assert_eq!((join.ping_interval, join.ping_timeout), (5, 15));
    assert!(!join.enabled_publish_codecs.is_empty());

    let Request::Join(_) = cluster.node.request().await else {
        panic!("bob joins");
    };
    let Request::Join(asked) = cluster.node.request().await else {
        panic!("ann joins");
    };
    assert_eq!(asked.transports, Transports::Dual);
    assert!(asked.attach);
    assert!(!asked.auto_subscribe && !asked.never_pause);
    assert!(asked.limits.is_none());
}

#[tokio::test]
async fn what_a_token_limits_is_told_to_the_node() {
    let mut cluster = Cluster::start().await;
    let token = token_with(|claims| claims.limits.max_tracks = std::num::NonZeroU32::new(3));
    let _ann = Client::connect(cluster.address, &token, "").await;
    let Request::Join(asked) = cluster.node.request().await else {
        panic!("ann joins");
    };
    assert_eq!(asked.limits.tracks, Some(3));
}

#[tokio::test]
async fn a_client_may_ask_that_no_picture_is_paused() {
    let mut cluster = Cluster::start().await;
    let cases = [
        ("ann", "&subscriber_allow_pause=0", true),
        ("bob", "&subscriber_allow_pause=1", false),
    ];
    let mut clients = Vec::new();
    for (identity, query, never_pause) in cases {
        clients.push(Client::connect(cluster.address, &token(identity), query).await);
        let Request::Join(asked) = cluster.node.request().await else {
            panic!("{identity} joins");
        };
        assert_eq!(asked.never_pause, never_pause, "{query}");
    }
}

fn identities(participants: &[ParticipantInfo]) -> Vec<&str> {
    participants.iter().map(|p| p.identity.as_str()).collect()
}

#[tokio::test]
async fn a_bad_token_is_an_http_error_and_validate_says_the_same() {
    let cluster = Cluster::start().await;
    let expired = token_with(|claims| claims.exp = 1_000_000);
    let no_join = token_with(|claims| claims.video.room_join = false);
    let bad_room = token_with(|claims| claims.video.room = "a\nb".into());
    let no_identity = token_with(|claims| claims.sub = String::new());
    for (token, status) in [
        ("", 401),
        ("garbage", 401),
        (&expired, 401),
        (&no_join, 403),
        (&bad_room, 400),
        (&no_identity, 400),
    ] {
        let Err((refused, sentence)) =
            Client::try_connect(cluster.address, &format!("/rtc?access_token={token}")).await
        else {
            panic!("{token} is let in");
        };
        assert_eq!(refused, status, "{sentence}");
        let (validated, body) = get(&cluster, &format!("/rtc/validate?access_token={token}")).await;
        assert_eq!(validated, status);
        assert_eq!(body, sentence);
        assert!(!body.starts_with('{'), "SDKs show the body as it is: {body}");
    }
}

#[tokio::test]
async fn validate_approves_of_a_good_token() {
    let cluster = Cluster::start().await;
    let (status, body) = get(&cluster, &format!("/rtc/validate?access_token={}", token("ann"))).await;
    assert_eq!((status, body.as_str()), (200, "success"));
}

#[tokio::test]
async fn version_one_is_not_found_so_that_sdks_fall_back() {
    let cluster = Cluster::start().await;
    let token = token("ann");
    let Err((status, _)) = Client::try_connect(cluster.address, &format!("/rtc/v1?access_token={token}")).await else {
        panic!("version 1 is answered");
    };
    assert_eq!(status, 404);
    let (status, body) = get(&cluster, &format!("/rtc/v1/validate?access_token={token}")).await;
    assert_eq!(status, 404);
    assert!(!body.contains("requested room does not exist"));
    assert!(!body.contains(&token));
}

#[tokio::test]
async fn a_request_that_is_no_websocket_admits_nobody() {
    let mut cluster = Cluster::start().await;
    let (status, _) = get(&cluster, &format!("/rtc?access_token={}", token("bob"))).await;
    assert_eq!(status, 426);
    let _ann = Client::connect(cluster.address, &token("ann"), "").await;
    let Request::Join(first) = cluster.node.request().await else {
        panic!("ann joins");
    };
    assert_eq!(first.identity.as_str(), "ann");
}

#[tokio::test]
async fn a_closed_websocket_is_resumed() {
    let mut cluster = Cluster::start().await;
    let mut ann = Client::connect(cluster.address, &token("ann"), "").await;
    ann.next().await;
    drop(ann);
    assert_eq!(cluster.node.asked().await, Command::Detach);

    let mut ann = Client::connect(cluster.address, &token("ann"), "&reconnect=1&sid=PA_ann").await;
    let Response::Reconnect(reconnect) = ann.next().await else {
        panic!("the first message is no reconnect response");
    };
    assert!(!reconnect.server_info.unwrap().version.is_empty());
    let Response::Update(update) = ann.next().await else {
        panic!("the participants are not told");
    };
    assert_eq!(identities(&update.participants), ["ann"]);
    let Response::RoomUpdate(_) = ann.next().await else {
        panic!("the room is not told");
    };
    assert_eq!(cluster.node.asked().await, Command::RestartIce);
}

#[tokio::test]
async fn a_participant_that_is_gone_cannot_be_resumed_and_joins_anew() {
    let cluster = Cluster::start().await;
    for query in ["&reconnect=1&sid=PA_ann", "&reconnect=1"] {
        let mut ann = Client::connect(cluster.address, &token("ann"), query).await;
        let Response::Leave(leave) = ann.next().await else {
            panic!("the first message is no leave");
        };
        assert_eq!(leave.action(), Action::Reconnect);
        assert_eq!(leave.reason(), DisconnectReason::StateMismatch);
        assert_eq!(ann.closed().await, 1000);
    }
}

async fn get(cluster: &Cluster, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(cluster.address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let status = response.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    (status, body.to_owned())
}
