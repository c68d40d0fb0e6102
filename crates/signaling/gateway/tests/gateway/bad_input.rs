//! What is meant to hurt: each is refused at once, with a word about why, and costs others nothing.

use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cluster::{Cluster, JOIN, OFFER, eventually, problem, token};
use crate::log::Log;
use crate::tls_client::{Certificates, Offer, connect};

const EVENTS: &str = "/v1/rooms/daily/participants/PA_1/events";

/// What a WebSocket's handshake has (RFC 6455 section 4.1).
const UPGRADE: &str = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Sends bytes and reads the head of the answer.
async fn head(cluster: &Cluster, request: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(cluster.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    eventually("a head", async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
    })
    .await;
    (stream, String::from_utf8(head).unwrap())
}

#[tokio::test]
async fn a_body_that_is_announced_as_absurdly_long_is_not_waited_for() {
    let cluster = Cluster::start().await;
    let token = token("daily", "ann");
    for length in [2 * 1024 * 1024, u64::MAX / 2] {
        let request = format!(
            "POST {JOIN} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{{"
        );
        let (_stream, head) = head(&cluster, &request).await;
        assert!(head.starts_with("HTTP/1.1 413"), "{head}");
    }
    assert_eq!(cluster.orchestrator.asked(), 0);
}

#[tokio::test]
async fn a_websocket_without_a_token_is_not_opened() {
    let cluster = Cluster::start().await;
    for path in ["/rtc", EVENTS] {
        let (_stream, head) = head(&cluster, &format!("GET {path} HTTP/1.1\r\n{UPGRADE}\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    }
    assert_eq!(cluster.orchestrator.asked(), 0);
}

#[tokio::test]
async fn a_body_that_is_compressed_is_refused_as_such() {
    let cluster = Cluster::start().await;
    // Ten bytes of gzip that say nothing; what is refused is the coding.
    for coding in ["gzip", "br", "identity, gzip"] {
        let request = cluster
            .request(Method::POST, JOIN)
            .header("content-type", "application/json")
            .header("content-encoding", coding)
            .body(vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
        let (status, kind, detail) = problem(request.send().await.unwrap()).await;
        assert_eq!((status, kind.as_str()), (415, "unsupported-media-type"), "{coding}");
        assert!(detail.contains("Content-Encoding"), "{detail}");
    }
    let plain = cluster
        .request(Method::POST, JOIN)
        .header("content-type", "application/json")
        .header("content-encoding", "identity")
        .body(OFFER);
    assert_eq!(plain.send().await.unwrap().status(), 201);
}

#[tokio::test]
async fn compression_of_a_websocket_is_not_agreed_on_and_a_compressed_frame_ends_it() {
    let cluster = Cluster::start().await;
    let token = token("daily", "ann");
    let request = format!(
        "GET {EVENTS}?access_token={token} HTTP/1.1\r\n{UPGRADE}\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    );
    let (mut stream, head) = head(&cluster, &request).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(
        !head.to_ascii_lowercase().contains("sec-websocket-extensions"),
        "{head}"
    );
    // The last frame of a text, whose first reserved bit says that it is compressed (RFC 7692 section 6), with a mask of zeros.
    let bomb = [0; 1000];
    let length = u16::try_from(bomb.len()).unwrap().to_be_bytes();
    let frame = [&[0xc1, 0xfe], length.as_slice(), &[0; 4], &bomb].concat();
    stream.write_all(&frame).await.unwrap();
    let mut rest = Vec::new();
    let _ = eventually("the end", stream.read_to_end(&mut rest)).await;
    eventually("the end of the socket", async {
        while cluster.metric("sockets").await > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn who_says_it_is_somebody_else_counts_as_itself() {
    let once = ["--requests-per-address=1", "--burst-per-address=1"];
    let limited = async |cluster: &Cluster, header: &str, value: &str| {
        let request = cluster.bare(Method::GET, "/livez").header(header, value);
        request.send().await.unwrap().status() == 429
    };
    let cluster = Cluster::start_with(&once).await;
    assert!(!limited(&cluster, "x-forwarded-for", "192.0.2.1").await);
    assert!(limited(&cluster, "x-forwarded-for", "192.0.2.2").await);
    assert!(limited(&cluster, "forwarded", "for=192.0.2.3").await);
    assert!(limited(&cluster, "x-real-ip", "192.0.2.4").await);

    // Of a trusted proxy's word only what it wrote itself counts, which is the last.
    let trusting = [once[0], once[1], "--trusted-proxies=127.0.0.0/8"];
    let cluster = Cluster::start_with(&trusting).await;
    assert!(!limited(&cluster, "x-forwarded-for", "198.51.100.1, 192.0.2.1").await);
    assert!(limited(&cluster, "x-forwarded-for", "198.51.100.2, 192.0.2.1").await);
    assert!(!limited(&cluster, "x-forwarded-for", "198.51.100.1, 192.0.2.2").await);
}

#[tokio::test]
async fn an_expired_certificate_or_another_ones_key_is_not_taken_and_is_said() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    // Of this thread, which is all that the test has.
    let _said_here = tracing::subscriber::set_default(subscriber);
    let certificates = Certificates::new("kept");
    let flags = certificates.flags();
    let cluster = Cluster::start_with(&flags.each_ref().map(String::as_str)).await;
    let trusting = Offer::default().trusting(&certificates.chain("own"));
    connect(&trusting, cluster.address).await.unwrap();
    let mut failures = 0;
    let mut refused = async |sentence: &str| {
        failures += 1;
        cluster.reload.send_modify(|count| *count += 1);
        eventually("the refusal", async {
            while cluster.metric("certificate_reload_failures_total").await < failures {
                tokio::task::yield_now().await;
            }
        })
        .await;
        connect(&trusting, cluster.address).await.unwrap();
        let text = log.text();
        let said = text
            .lines()
            .filter(|line| line.contains(sentence) && line.contains("stay as they were"));
        assert!(said.count() > 0, "{text}");
    };
    certificates.make("other", "localhost");
    std::fs::copy(certificates.key("other"), certificates.key("own")).unwrap();
    refused("does not belong to the certificate").await;
    certificates.make_expired("own", "localhost");
    refused("expired").await;
}
