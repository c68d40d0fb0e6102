//! Two gateways that bring each other their clients.

use futures_util::SinkExt;
use jsonwebtoken::{EncodingKey, Header};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::json;
use signalbox_protocol::ParticipantId;
use signalbox_protocol::control::{Command, Event};
use signalbox_protocol::room::{ConnectionQuality, ParticipantQuality};
use tokio::net::TcpListener;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::cluster::{Cluster, SECRET, eventually, next_json, now, token};

const EVENTS: &str = "/v1/rooms/daily/participants/PA_1/events";

/// Two gateways before one node, which is the first one's.
async fn pair(flags: &[&str]) -> (Cluster, Cluster) {
    let listeners = [
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    ];
    let [at_a, at_b] = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
    let peers = format!("--peers=a=http://{at_a},b=http://{at_b}");
    let flags = |name: &'static str| [&[name, peers.as_str(), "--peer-listen=127.0.0.1:1"], flags].concat();
    let [for_a, for_b] = listeners;
    let a = Cluster::start_among(for_a, None, &flags("--gateway-name=a")).await;
    let b = Cluster::start_among(for_b, Some(a.orchestrator.url()), &flags("--gateway-name=b")).await;
    for gateway in [&a, &b] {
        eventually("the other gateway", async {
            while gateway.metric("peers_up").await < 1 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    (a, b)
}

fn cookie(response: &Response) -> String {
    let set = response.headers()["set-cookie"].to_str().unwrap();
    set.split(';').next().unwrap().to_owned()
}

/// What has come until it has `text` in it.
async fn read_until(response: &mut Response, text: &str) -> String {
    eventually(text, async {
        let mut read = String::new();
        while !read.contains(text) {
            let chunk = response.chunk().await.unwrap().expect("the stream goes on");
            read.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        read
    })
    .await
}

fn id(sent: &str) -> &str {
    sent.lines().find_map(|line| line.strip_prefix("id: ")).unwrap()
}

/// Begins a stream, and breaks off: its cookie, and the id of its last message.
async fn broken_off(gateway: &Cluster) -> (String, String) {
    let mut stream = gateway.request(Method::GET, EVENTS).send().await.unwrap();
    let last_id = id(&read_until(&mut stream, "data: ").await).to_owned();
    (cookie(&stream), last_id)
}

fn resumed(gateway: &Cluster, cookie: &str, last_id: &str) -> RequestBuilder {
    gateway
        .request(Method::GET, EVENTS)
        .header("cookie", cookie)
        .header("last-event-id", last_id)
}

/// A message of a participant's stream, told apart by how many participants it is about.
fn quality(scores: usize) -> Event {
    let quality = ParticipantQuality {
        participant: ParticipantId::new("PA_1"),
        quality: ConnectionQuality::Good,
    };
    Event::Quality {
        participants: vec![quality; scores],
    }
}

#[tokio::test]
async fn an_event_stream_goes_on_at_its_own_gateway_wherever_its_client_comes() {
    let (a, b) = pair(&[]).await;
    a.join().await;
    let (cookie, last_id) = broken_off(&a).await;
    a.node.push("PA_1", quality(1));
    let mut stream = resumed(&b, &cookie, &last_id).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    assert!(stream.headers().get("set-cookie").is_none(), "the client knows it");
    let missed = read_until(&mut stream, "data: ").await;
    assert!(missed.contains("quality") && !missed.contains("snapshot"), "{missed}");
    assert_eq!(b.metric("clients_brought_total").await, 1);
    // Without an id it is a new stream, and stays where it comes.
    let fresh = b
        .request(Method::GET, EVENTS)
        .header("cookie", &cookie)
        .send()
        .await
        .unwrap();
    assert!(fresh.headers().get("set-cookie").is_some());
    assert_eq!(b.metric("clients_brought_total").await, 1);
}

#[tokio::test]
async fn a_websocket_is_brought_to_its_own_gateway_and_ends_with_it() {
    let (a, b) = pair(&[]).await;
    a.join().await;
    let (cookie, last_id) = broken_off(&a).await;
    let url = format!(
        "ws://{}{EVENTS}?access_token={}&last_event_id={last_id}",
        b.address,
        token("daily", "ann")
    );
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("cookie", cookie.parse().unwrap());
    let (mut socket, _) = connect_async(request).await.unwrap();
    for scores in 1..=3 {
        a.node.push("PA_1", quality(scores));
        let told = next_json(&mut socket).await;
        assert_eq!(told["participants"].as_array().unwrap().len(), scores, "{told}");
    }
    assert_eq!(b.metric("clients_brought_total").await, 1);
    assert_eq!((a.metric("sockets").await, b.metric("sockets").await), (1, 1));
    socket.send(Message::Close(None)).await.unwrap();
    a.node.saw_command("PA_1", Command::Detach).await;
    eventually("the end of both", async {
        while a.metric("sockets").await + b.metric("sockets").await > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn who_comes_back_when_its_gateway_is_gone_is_served_where_it_comes() {
    let (mut a, b) = pair(&[]).await;
    a.join().await;
    let (of_a, last_id) = broken_off(&a).await;
    a.shutdown.cancel();
    (&mut a.running).await.unwrap().unwrap();
    let mut stream = resumed(&b, &of_a, &last_id).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    assert_ne!(cookie(&stream), of_a, "from now on it is this one's");
    let told = read_until(&mut stream, "data: ").await;
    assert!(told.contains("snapshot"), "{told}");
    assert_eq!(b.metric("sessions_taken_over_total").await, 1);
    assert_eq!(b.metric("clients_brought_total").await, 0);
}

#[tokio::test]
async fn a_cookie_that_nobody_signed_or_another_cluster_did_counts_for_nothing() {
    let (a, b) = pair(&[]).await;
    a.join().await;
    let signed = |secret: &str| {
        let claims = json!({"aud": "signalbox-cookie:signalbox_gateway", "exp": now() + 60, "value": "a"});
        let key = EncodingKey::from_secret(secret.as_bytes());
        let signed = jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap();
        format!("signalbox_gateway={signed}")
    };
    for (cookie, brought) in [
        ("signalbox_gateway=a", 0),
        (&signed("the secret of another cluster"), 0),
        (&signed(SECRET), 1),
    ] {
        let stream = resumed(&b, cookie, "x-1").send().await.unwrap();
        assert_eq!(stream.status(), 200);
        assert_eq!(stream.headers().contains_key("set-cookie"), brought == 0, "{cookie}");
        assert_eq!(b.metric("clients_brought_total").await, brought, "{cookie}");
    }
}

#[tokio::test]
async fn each_user_has_one_gateway_by_its_identity() {
    const USERS: u64 = 40;
    let (a, b) = pair(&["--sticky=users"]).await;
    for user in 0..USERS {
        for gateway in [&a, &b] {
            let path = format!("/rtc?access_token={}", token("daily", &format!("user-{user}")));
            let response = gateway.bare(Method::GET, &path).send().await.unwrap();
            assert_eq!(response.status(), 426, "no upgrade was asked for, at whichever gateway");
        }
    }
    let (by_a, by_b) = (
        a.metric("clients_brought_total").await,
        b.metric("clients_brought_total").await,
    );
    assert_eq!(by_a + by_b, USERS, "each is brought by the gateway that is not its own");
    assert!(by_a >= USERS / 4 && by_b >= USERS / 4, "{by_a}, {by_b}");
    // Whoever has no token that holds is nobody's.
    let response = a.bare(Method::GET, "/rtc?access_token=x").send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(a.metric("clients_brought_total").await, by_a);
}

#[tokio::test]
async fn nobody_but_gateways_may_ask_where_they_bring_clients() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let flags = [
        "--gateway-name=a",
        "--peers=a=http://127.0.0.1:1",
        "--peer-listen=127.0.0.1:1",
    ];
    let _gateway = Cluster::start_among(listener, None, &flags).await;
    let client = reqwest::Client::new();
    let url = format!("http://{address}/livez");
    for request in [
        client.get(&url),
        client.get(&url).header("signalbox-brought", "127.0.0.1"),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 421);
        let sentence = response.text().await.unwrap();
        assert!(sentence.contains("other port"), "{sentence}");
    }
}
