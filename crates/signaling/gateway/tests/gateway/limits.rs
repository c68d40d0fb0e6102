//! Connections: slow ones, too many of them, their bytes, and what the log may say of them.

use reqwest::Method;
use signalbox_protocol::control::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing_subscriber::EnvFilter;

use crate::cluster::{Cluster, JOIN, OFFER, eventually, token};
use crate::log::Log;

#[tokio::test]
async fn slow_headers_are_cut_off() {
    let cluster = Cluster::start().await;
    let mut slow = TcpStream::connect(cluster.address).await.unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    let mut rest = Vec::new();
    let ended = eventually("the cut", slow.read_to_end(&mut rest)).await;
    assert!(ended.is_err() || !rest.starts_with(b"HTTP/1.1 200"));
    assert_eq!(
        reqwest::get(format!("http://{}/livez", cluster.address))
            .await
            .unwrap()
            .status(),
        200
    );
}

#[tokio::test]
async fn what_is_over_the_limit_is_turned_away() {
    let cluster = Cluster::start_with(&["--max-connections", "1"]).await;
    let mut first = TcpStream::connect(cluster.address).await.unwrap();
    first
        .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut head = [0; 12];
    first.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    let mut second = TcpStream::connect(cluster.address).await.unwrap();
    let mut answer = Vec::new();
    eventually("the refusal", second.read_to_end(&mut answer))
        .await
        .unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.1 503"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(cluster.metric("connections_refused_total").await, 1);
    drop(first);
    eventually("a free place", async {
        while reqwest::get(format!("http://{}/livez", cluster.address))
            .await
            .map_or(true, |response| response.status() != 200)
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn every_byte_is_counted_also_after_an_upgrade() {
    let cluster = Cluster::start().await;
    let request = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut stream = TcpStream::connect(cluster.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    assert_eq!(cluster.metric("bytes_received_total").await, request.len() as u64);
    assert_eq!(cluster.metric("bytes_sent_total").await, response.len() as u64);

    let before = cluster.metric("bytes_sent_total").await;
    let (_socket, snapshot) = cluster.events("PA_1").await;
    let least = before + snapshot.to_string().len() as u64;
    assert!(cluster.metric("bytes_sent_total").await > least);
    assert_eq!(cluster.metric("sockets").await, 1);
}

#[tokio::test]
async fn requests_under_way_are_answered_at_the_end() {
    let mut cluster = Cluster::start().await;
    cluster.join().await;
    cluster.node.hold();
    let body = OFFER.replace('}', r#","name":"last"}"#);
    let joining = cluster.send_json(Method::POST, JOIN, &body);
    let stopping = async {
        let last = |request: &Request| matches!(request, Request::Join(join) if join.name == "last");
        cluster.node.saw(last).await;
        cluster.shutdown.cancel();
        cluster.node.release();
    };
    let (response, ()) = tokio::join!(joining, stopping);
    assert_eq!(response.status(), 201);
    eventually("the end", &mut cluster.running).await.unwrap().unwrap();
    assert!(TcpStream::connect(cluster.address).await.is_err());
}

#[tokio::test]
async fn tokens_and_secrets_are_never_logged() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("debug,signalbox_gateway=trace"))
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .init();
    let cluster = Cluster::start().await;
    cluster.join().await;
    let (_socket, _) = cluster.events("PA_1").await;
    let token = token("daily", "ann");
    for path in ["/v1/nothing", "/rtc", "/v1/rooms/daily/participants/PA_1/events"] {
        let path = format!("{path}?access_token={token}");
        cluster.bare(Method::GET, &path).send().await.unwrap();
    }
    cluster.orchestrator.place_on(Some("ws://127.0.0.1:1".into()));
    cluster.node.cut();
    cluster.send_json(Method::POST, JOIN, OFFER).await;
    let text = log.text();
    assert!(text.contains("answered"), "nothing was logged");
    for secret in [
        token.as_str(),
        crate::cluster::SECRET,
        crate::cluster::KEY_SECRET,
        "ticket-1",
        "access_token",
    ] {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
}
