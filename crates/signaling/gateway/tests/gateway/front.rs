//! The front door: TLS, who a connection is from, and what is not let in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ProtocolVersion;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::cluster::{Cluster, JOIN, OFFER, eventually, token};
use crate::tls_client::{Certificates, Offer, agreed, connect};

async fn with_tls(certificates: &Certificates) -> Cluster {
    let flags = certificates.flags();
    Cluster::start_with(&flags.each_ref().map(String::as_str)).await
}

/// Sends a request as it stands, and reads until the end.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> String {
    // It may be refused before it was sent.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = eventually("the end of the answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn ask(cluster: &Cluster, request: &[u8]) -> String {
    exchange(TcpStream::connect(cluster.address).await.unwrap(), request).await
}

const LIVEZ: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn both_versions_of_tls_and_of_http_are_spoken() {
    let certificates = Certificates::new("versions");
    let cluster = with_tls(&certificates).await;
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let offer = Offer {
            versions: &[version],
            protocols: &["http/1.1"],
        };
        let stream = connect(&offer.trusting(&certificates.chain("own")), cluster.address)
            .await
            .unwrap();
        assert_eq!(agreed(&stream), (expected, "http/1.1".to_owned()));
        let answer = exchange(stream, LIVEZ).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(
            answer.contains("strict-transport-security: max-age=15552000\r\n"),
            "{answer}"
        );
    }
    for version in ["1.2", "1.3"] {
        let count = format!("handshakes_total{{version=\"{version}\"}}");
        assert_eq!(cluster.metric(&count).await, 1, "{version}");
    }
    let stream = connect(&Offer::default().trusting(&certificates.chain("own")), cluster.address)
        .await
        .unwrap();
    assert_eq!(agreed(&stream).1, "h2");
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let body = http_body_util::Full::new(hyper::body::Bytes::from_static(OFFER.as_bytes()));
    let request = hyper::Request::post(format!("https://localhost{JOIN}"))
        .header("authorization", format!("Bearer {}", token("daily", "ann")))
        .header("content-type", "application/json")
        .body(body)
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 201);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(serde_json::from_slice::<serde_json::Value>(&body).unwrap()["participant"].is_object());
}

#[tokio::test]
async fn a_client_that_trusts_another_certificate_is_no_connection_and_is_counted() {
    let certificates = Certificates::new("untrusted");
    let cluster = with_tls(&certificates).await;
    certificates.make("other", "localhost");
    let stranger = Offer::default().trusting(&certificates.chain("other"));
    assert!(connect(&stranger, cluster.address).await.is_err());
    let plain = ask(&cluster, LIVEZ).await;
    assert!(!plain.contains("HTTP/1.1 200"), "{plain}");
    eventually("the counts", async {
        while cluster.metric("handshakes_failed_total").await < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn certificates_are_renewed_under_load_without_a_failed_handshake() {
    const RENEWALS: usize = 10;
    let certificates = Certificates::new("renewed");
    let cluster = with_tls(&certificates).await;
    let handshakes = Arc::new(AtomicUsize::new(0));
    let ended = Arc::new(AtomicBool::new(false));
    let before = connect(&Offer::default().trusting(&certificates.chain("own")), cluster.address)
        .await
        .unwrap();
    // They take whatever certificate they are shown, so that only a handshake that fails is an error.
    let clients = (0..4).map(|_| {
        let (handshakes, ended, address) = (Arc::clone(&handshakes), Arc::clone(&ended), cluster.address);
        tokio::spawn(async move {
            while !ended.load(Ordering::Acquire) {
                let connector = Offer::trusting_anyone();
                connect(&connector, address).await.unwrap();
                handshakes.fetch_add(1, Ordering::AcqRel);
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    for renewal in 1..=RENEWALS {
        certificates.make("own", "localhost");
        cluster.reload.send_modify(|count| *count += 1);
        eventually("the new certificate", async {
            while connect(&Offer::default().trusting(&certificates.chain("own")), cluster.address)
                .await
                .is_err()
            {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(cluster.metric("certificate_reloads_total").await >= renewal as u64);
    }
    ended.store(true, Ordering::Release);
    for client in clients {
        client.await.unwrap();
    }
    assert!(handshakes.load(Ordering::Acquire) > RENEWALS);
    drop(before);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_changes_nothing() {
    let certificates = Certificates::new("unusable");
    let cluster = with_tls(&certificates).await;
    let trusting = Offer::default().trusting(&certificates.chain("own"));
    certificates.make("other", "localhost");
    // It has read them.
    connect(&trusting, cluster.address).await.unwrap();
    // The files are looked at without being told as well.
    std::fs::copy(certificates.key("other"), certificates.key("own")).unwrap();
    eventually("the refusal", async {
        while cluster.metric("certificate_reload_failures_total").await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    connect(&trusting, cluster.address).await.unwrap();
}

#[tokio::test]
async fn plain_http_beside_tls_is_sent_there() {
    let certificates = Certificates::new("redirect");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = listener.local_addr().unwrap();
    let mut flags = certificates.flags().to_vec();
    flags.push(format!("--redirect-listen={plain}"));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let cluster = Cluster::start_redirecting(listener, &flags).await;
    let request = b"GET /rtc?a=b HTTP/1.1\r\nHost: localhost:80\r\nConnection: close\r\n\r\n";
    let answer = exchange(TcpStream::connect(plain).await.unwrap(), request).await;
    assert!(answer.starts_with("HTTP/1.1 308"), "{answer}");
    let location = format!("location: https://localhost:{}/rtc?a=b\r\n", cluster.address.port());
    assert!(answer.contains(&location), "{answer}");
    assert!(!answer.contains("strict-transport-security"), "{answer}");
}

#[tokio::test]
async fn only_trusted_balancers_say_whom_a_connection_is_from() {
    let cluster = Cluster::start_with(&[
        "--trusted-proxies=127.0.0.0/8",
        "--proxy-protocol",
        "--max-connections-per-address=1",
    ])
    .await;
    let said = |source: &str| [format!("PROXY TCP4 {source} 192.0.2.9 51234 443\r\n").as_bytes(), LIVEZ].concat();
    let mut first = TcpStream::connect(cluster.address).await.unwrap();
    let without_end = String::from_utf8(said("192.0.2.1"))
        .unwrap()
        .replace("Connection: close\r\n", "");
    first.write_all(without_end.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    first.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    // The balancer's own address is that of both.
    let second = ask(&cluster, &said("192.0.2.1")).await;
    assert!(second.starts_with("HTTP/1.1 503"), "{second}");
    let other = ask(&cluster, &said("192.0.2.2")).await;
    assert!(other.starts_with("HTTP/1.1 200"), "{other}");
    let none = ask(&cluster, LIVEZ).await;
    assert_eq!(none, "", "a trusted balancer says it always");

    let closed = Cluster::start_with(&["--trusted-proxies=192.0.2.0/24", "--proxy-protocol"]).await;
    let forged = ask(&closed, &said("192.0.2.1")).await;
    assert!(forged.starts_with("HTTP/1.1 400"), "{forged}");
    let honest = ask(&closed, LIVEZ).await;
    assert!(honest.starts_with("HTTP/1.1 200"), "{honest}");
}

#[tokio::test]
async fn a_connection_that_is_never_used_is_closed() {
    let certificates = Certificates::new("silent");
    let cluster = with_tls(&certificates).await;
    let mut silent = TcpStream::connect(cluster.address).await.unwrap();
    let idle = connect(&Offer::default().trusting(&certificates.chain("own")), cluster.address)
        .await
        .unwrap();
    let (_sender, connection) = http2::handshake::<_, _, Empty<&[u8]>>(TokioExecutor::new(), TokioIo::new(idle))
        .await
        .unwrap();
    let (shaken, served) = tokio::join!(
        eventually("the end of one that shakes no hands", silent.read_u8()),
        eventually("the end of one that asks nothing", connection),
    );
    assert!(shaken.is_err());
    let _ = served;
}

#[tokio::test]
async fn requests_that_could_be_read_in_two_ways_are_refused() {
    let cluster = Cluster::start().await;
    for request in [
        b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n".as_slice(),
        b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\n folded: b\r\nConnection: close\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nX : b\r\nConnection: close\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nX: a\0b\r\nConnection: close\r\n\r\n",
        b"POST /v1/rooms/a/join HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /v1/rooms/a/join HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
        b"POST /v1/rooms/a/join HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\na",
        b"POST /v1/rooms/a/join HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        b"POST /v1/rooms/a/join HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let answer = ask(&cluster, request).await;
        assert!(
            answer.starts_with("HTTP/1.1 400"),
            "{}\n{answer}",
            String::from_utf8_lossy(request)
        );
    }
    assert_eq!(cluster.orchestrator.asked(), 0);
}

#[tokio::test]
async fn of_a_length_beside_a_coding_nothing_is_taken_for_a_second_request() {
    let cluster = Cluster::start().await;
    let token = token("daily", "ann");
    let head = format!(
        "POST {JOIN} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    );
    for lengths in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
    ] {
        let request = format!("{head}{lengths}\r\n2\r\n{{}}\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = ask(&cluster, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    }
}

#[tokio::test]
async fn heads_that_are_too_long_are_refused() {
    let cluster = Cluster::start().await;
    let long = format!(
        "GET /livez HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "x".repeat(100 * 1024)
    );
    let many = format!("GET /livez HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: x\r\n".repeat(10_000));
    for request in [long, many] {
        let answer = ask(&cluster, request.as_bytes()).await;
        // Whoever is still sending may see a reset instead.
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    let answer = ask(&cluster, LIVEZ).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn garbage_behind_a_request_is_answered_and_closed() {
    let cluster = Cluster::start().await;
    let request = [b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".as_slice(), &[0xff; 4096]].concat();
    let answer = ask(&cluster, &request).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn settings_that_cannot_be_used_do_not_start() {
    let certificates = Certificates::new("start");
    certificates.make("other", "localhost");
    std::fs::copy(certificates.key("other"), certificates.key("own")).unwrap();
    let flags = certificates.flags();
    let mut cluster = Cluster::start_with(&flags.each_ref().map(String::as_str)).await;
    let error = eventually("the end", &mut cluster.running).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("does not belong"), "{error}");
}

#[tokio::test]
async fn who_has_connected_before_the_end_is_answered() {
    let certificates = Certificates::new("end");
    let cluster = with_tls(&certificates).await;
    let offer = Offer {
        protocols: &["http/1.1"],
        ..Offer::default()
    };
    let mut shaken = connect(&offer.trusting(&certificates.chain("own")), cluster.address)
        .await
        .unwrap();
    let waiting = TcpStream::connect(cluster.address).await.unwrap();
    cluster.shutdown.cancel();
    eventually("the end of the listener", async {
        while TcpStream::connect(cluster.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let answered = async |stream| {
        let answer = exchange(stream, LIVEZ).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    };
    // Its request may be on its way for a while.
    let closed = tokio::time::timeout(Duration::from_millis(100), shaken.read_u8()).await;
    assert!(closed.is_err(), "{closed:?} before it has asked");
    answered(shaken).await;
    let connector = offer.trusting(&certificates.chain("own"));
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    answered(connector.connect(name, waiting).await.unwrap()).await;
}
