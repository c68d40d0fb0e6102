//! What `/metrics` tells of clients and of those whom the gateway asks.

use futures_util::StreamExt;
use reqwest::{Method, StatusCode};
use tokio_tungstenite::connect_async;

use crate::cluster::{Cluster, JOIN, OFFER, eventually, token};
use crate::fake_orchestrator::Mood;

async fn until(cluster: &Cluster, name: &str, value: u64) {
    eventually(&format!("{name} to be {value}"), async {
        while cluster.metric(name).await != value {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn requests_to_join_are_counted_by_dialect_and_result() {
    let limits = ["--requests-per-user", "1", "--burst-per-user", "3"];
    let cluster = Cluster::start_with(&limits).await;
    let of = |dialect: &str, result: &str| format!("join_requests_total{{dialect=\"{dialect}\",result=\"{result}\"}}");
    cluster.join().await;
    // Nobody is to join.
    assert_eq!(
        cluster.send_json(Method::POST, JOIN, "{}").await.status(),
        StatusCode::OK
    );
    let garbage = r#"{"offer":"hello"}"#;
    let mut invalid = 0;
    while cluster.send_json(Method::POST, JOIN, garbage).await.status() == StatusCode::BAD_REQUEST {
        invalid += 1;
    }
    cluster.bare(Method::POST, "/v1/rooms/daily/whip").send().await.unwrap();
    cluster.bare(Method::GET, "/rtc").send().await.unwrap();
    cluster.bare(Method::GET, "/rtc?reconnect=1").send().await.unwrap();
    for (dialect, result, count) in [
        ("http", "ok", 1),
        ("http", "invalid", invalid),
        ("http", "limited", 1),
        ("http", "token", 0),
        ("whip", "token", 1),
        ("livekit", "token", 1),
        ("livekit", "ok", 0),
    ] {
        assert_eq!(cluster.metric(&of(dialect, result)).await, count, "{dialect} {result}");
    }
    assert_eq!(cluster.metric("limited_total").await, 1);
}

#[tokio::test]
async fn a_join_that_no_orchestrator_can_place_has_failed() {
    let cluster = Cluster::start_with(&[]).await;
    cluster.node.cut();
    cluster.orchestrator.be(Mood::MapAway);
    let response = cluster.send_json(Method::POST, JOIN, OFFER).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let failed = "join_requests_total{dialect=\"http\",result=\"failed\"}";
    assert_eq!(cluster.metric(failed).await, 1);
}

#[tokio::test]
async fn open_event_streams_are_counted_by_how_they_are_carried() {
    let cluster = Cluster::start().await;
    let of = |transport: &str| format!("sockets{{dialect=\"http\",transport=\"{transport}\"}}");
    let (socket, _) = cluster.events("PA_1").await;
    until(&cluster, &of("websocket"), 1).await;
    let path = "/v1/rooms/daily/participants/PA_2/events";
    let stream = cluster.request(Method::GET, path).send().await.unwrap();
    assert_eq!(stream.status(), StatusCode::OK);
    until(&cluster, &of("server_sent"), 1).await;
    drop((socket, stream));
    until(&cluster, &of("websocket"), 0).await;
    until(&cluster, &of("server_sent"), 0).await;
}

#[tokio::test]
async fn a_livekit_client_is_a_socket_for_as_long_as_it_is_there() {
    let cluster = Cluster::start().await;
    let of = "sockets{dialect=\"livekit\",transport=\"websocket\"}";
    let url = format!("ws://{}/rtc?access_token={}", cluster.address, token("daily", "ann"));
    let (mut socket, _) = connect_async(url).await.unwrap();
    socket.next().await.unwrap().unwrap();
    until(&cluster, of, 1).await;
    assert_eq!(
        cluster
            .metric("join_requests_total{dialect=\"livekit\",result=\"ok\"}")
            .await,
        1
    );
    drop(socket);
    until(&cluster, of, 0).await;
}

#[tokio::test]
async fn links_to_nodes_are_shown_as_they_are() {
    let cluster = Cluster::start().await;
    let of = |state: &str| format!("node_links{{state=\"{state}\"}}");
    cluster.join().await;
    until(&cluster, &of("open"), 1).await;
    assert_eq!(cluster.metric(&of("broken")).await, 0);
    cluster.node.cut();
    until(&cluster, "node_links_lost_total", 1).await;
    // Nobody asks for it, so it is not made again.
    until(&cluster, &of("broken"), 1).await;
    assert_eq!(cluster.metric(&of("open")).await, 0);
    cluster.join().await;
    until(&cluster, &of("open"), 1).await;
    assert_eq!(cluster.metric(&of("broken")).await, 0);
}
