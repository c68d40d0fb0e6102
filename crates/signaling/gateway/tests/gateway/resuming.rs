//! Event streams that break and go on, as WebSockets and as server-sent events.

use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use signalbox_protocol::control::{CloseReason, Command, Event, Request};
use signalbox_protocol::room::{ConnectionQuality, ParticipantQuality};
use signalbox_protocol::{Generation, ParticipantId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio_tungstenite::connect_async;

use crate::cluster::{Cluster, Socket, close_code, eventually, next_json, problem, token};
use crate::fake_node::participant;

const EVENTS: &str = "/v1/rooms/daily/participants/PA_1/events";

/// A stream of server-sent events.
struct Sse {
    response: Response,
    text: String,
}

/// One event of it.
#[derive(Debug)]
struct Sent {
    id: Option<String>,
    event: String,
    data: Value,
}

impl Sse {
    async fn open(cluster: &Cluster, last_id: Option<&str>) -> Self {
        Self::open_for(cluster, "PA_1", last_id).await
    }

    async fn open_for(cluster: &Cluster, participant: &str, last_id: Option<&str>) -> Self {
        let mut request = cluster.request(Method::GET, &EVENTS.replace("PA_1", participant));
        if let Some(last_id) = last_id {
            request = request.header("last-event-id", last_id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let text = String::new();
        Self { response, text }
    }

    /// The next event; none: the stream has ended.
    async fn next(&mut self) -> Option<Sent> {
        eventually("an event", async {
            loop {
                while let Some((block, rest)) = self.text.split_once("\n\n") {
                    let sent = parse(block);
                    self.text = rest.to_owned();
                    if sent.is_some() {
                        return sent;
                    }
                }
                let chunk = self.response.chunk().await.unwrap()?;
                self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            }
        })
        .await
    }
}

/// None for a comment and for what only sets the time to retry.
fn parse(block: &str) -> Option<Sent> {
    let field = |name: &str| {
        let mut lines = block.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
    };
    Some(Sent {
        id: field("id"),
        event: field("event")?,
        data: serde_json::from_str(&field("data")?).unwrap(),
    })
}

async fn socket(cluster: &Cluster, last_id: &str) -> Socket {
    let url = format!(
        "ws://{}{EVENTS}?last_event_id={last_id}&access_token={}",
        cluster.address,
        token("daily", "ann")
    );
    connect_async(url).await.unwrap().0
}

fn wanted(audio: u32) -> Event {
    Event::SlotsWanted { audio, video: 0 }
}

/// How often the participant was attached.
fn attached(cluster: &Cluster) -> usize {
    let attaches = |request: &Request| {
        matches!(
            request,
            Request::Participant {
                command: Command::Attach,
                ..
            }
        )
    };
    cluster
        .node
        .requests()
        .iter()
        .filter(|request| attaches(request))
        .count()
}

#[tokio::test]
async fn whoever_asks_for_no_upgrade_gets_server_sent_events() {
    let cluster = Cluster::start().await;
    let mut stream = Sse::open(&cluster, None).await;
    let headers = stream.response.headers();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-accel-buffering"], "no");
    let first = stream.next().await.unwrap();
    assert_eq!(
        (first.event.as_str(), &first.data["type"]),
        ("snapshot", &json!("snapshot"))
    );
    assert_eq!(first.data["media"]["port"], 50_000);
    assert_eq!(first.data["qualities"], json!([]));
    cluster.node.push(
        "PA_1",
        Event::Quality {
            participants: vec![ParticipantQuality {
                participant: ParticipantId::new("PA_9"),
                quality: ConnectionQuality::Poor,
            }],
        },
    );
    let quality = stream.next().await.unwrap();
    assert_eq!(quality.event, "quality");
    assert_eq!(
        quality.data["participants"],
        json!([{"participant": "PA_9", "quality": "poor"}])
    );
    assert_eq!(quality.data["id"].as_str(), quality.id.as_deref());
    assert_ne!(first.id, quality.id);
    let reason = CloseReason::Removed;
    cluster.node.push("PA_1", Event::Closed { reason });
    let closed = stream.next().await.unwrap();
    assert_eq!(
        (closed.event.as_str(), &closed.data["reason"]),
        ("closed", &json!("removed"))
    );
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_question_for_the_headers_takes_no_stream_over() {
    let cluster = Cluster::start().await;
    let mut stream = Sse::open(&cluster, None).await;
    stream.next().await.unwrap();
    let response = cluster.request(Method::HEAD, EVENTS).send().await.unwrap();
    assert_eq!(response.status(), 405);
    cluster.node.push("PA_1", wanted(1));
    assert_eq!(stream.next().await.unwrap().event, "slots_wanted");
}

#[tokio::test]
async fn what_was_missed_is_replayed_and_the_node_is_not_asked() {
    let cluster = Cluster::start().await;
    let mut stream = Sse::open(&cluster, None).await;
    stream.next().await.unwrap();
    cluster.node.push("PA_1", wanted(1));
    let last = stream.next().await.unwrap().id.unwrap();
    drop(stream);
    for audio in [2, 3] {
        cluster.node.push("PA_1", wanted(audio));
    }
    // The other form of the stream, and back.
    let mut resumed = socket(&cluster, &last).await;
    assert_eq!(next_json(&mut resumed).await["audio"], 2);
    let third = next_json(&mut resumed).await;
    assert_eq!(third["audio"], 3);
    drop(resumed);
    cluster.node.push("PA_1", wanted(4));
    let mut resumed = Sse::open(&cluster, third["id"].as_str()).await;
    assert_eq!(resumed.next().await.unwrap().data["audio"], 4);
    assert_eq!(attached(&cluster), 1);
}

#[tokio::test]
async fn a_stream_that_is_resumed_elsewhere_or_with_nonsense_begins_with_a_snapshot() {
    let cluster = Cluster::start().await;
    let mut stream = Sse::open(&cluster, None).await;
    let last = stream.next().await.unwrap().id.unwrap();
    for nonsense in ["0", "x-1", "-", &format!("{last}9")] {
        let mut resumed = Sse::open(&cluster, Some(nonsense)).await;
        assert_eq!(resumed.next().await.unwrap().event, "snapshot", "{nonsense:?}");
    }
    let other = Cluster::start().await;
    let mut resumed = Sse::open(&other, Some(&last)).await;
    assert_eq!(resumed.next().await.unwrap().event, "snapshot");
}

#[tokio::test]
async fn a_stream_whose_participant_was_attached_elsewhere_is_not_resumed_here() {
    let cluster = Cluster::start().await;
    let mut stream = Sse::open(&cluster, None).await;
    let last = stream.next().await.unwrap().id.unwrap();
    cluster.node.push("PA_1", Event::AttachedElsewhere);
    let end = stream.next().await.unwrap();
    assert_eq!((end.event.as_str(), end.id.as_deref()), ("end", None));
    assert_eq!(end.data, json!({"type": "end", "reason": "replaced"}));
    assert!(stream.next().await.is_none());
    // What happens now is told to the other gateway alone.
    let mut back = Sse::open(&cluster, Some(&last)).await;
    assert_eq!(back.next().await.unwrap().event, "snapshot");
    assert_eq!(attached(&cluster), 2);
}

#[tokio::test]
async fn only_its_own_participant_resumes_a_stream() {
    let cluster = Cluster::start().await;
    let mut stream = Sse::open(&cluster, None).await;
    let last = stream.next().await.unwrap().id.unwrap();
    cluster
        .node
        .refuse([signalbox_protocol::control::RefusalReason::NoParticipant; 2]);
    let eve = cluster
        .bare(Method::GET, EVENTS)
        .bearer_auth(token("daily", "eve"))
        .header("last-event-id", &last);
    assert_eq!(problem(eve.send().await.unwrap()).await.0, 404);
    cluster.node.push("PA_1", wanted(1));
    assert_eq!(stream.next().await.unwrap().event, "slots_wanted");
}

#[tokio::test]
async fn a_resumed_stream_takes_the_running_one_over() {
    let cluster = Cluster::start().await;
    let (mut first, snapshot) = cluster.events("PA_1").await;
    let mut second = socket(&cluster, snapshot["id"].as_str().unwrap()).await;
    assert_eq!(close_code(&mut first).await, 1008);
    cluster.node.push("PA_1", wanted(1));
    assert_eq!(next_json(&mut second).await["audio"], 1);
    assert_eq!(attached(&cluster), 1);
}

#[tokio::test]
async fn a_client_that_comes_back_too_late_for_the_end_still_learns_why() {
    let cluster = Cluster::start().await;
    let mut stream = Sse::open(&cluster, None).await;
    let last = stream.next().await.unwrap().id.unwrap();
    drop(stream);
    let reason = CloseReason::DuplicateIdentity;
    cluster.node.push("PA_1", Event::Closed { reason });
    let mut back = Sse::open(&cluster, Some(&last)).await;
    let closed = back.next().await.unwrap();
    assert_eq!(
        (closed.event.as_str(), &closed.data["reason"]),
        ("closed", &json!("duplicate_identity"))
    );
    assert!(back.next().await.is_none());
}

#[tokio::test]
async fn a_client_that_stays_away_is_detached() {
    let cluster = Cluster::start().await;
    let mut stream = Sse::open(&cluster, None).await;
    stream.next().await.unwrap();
    drop(stream);
    cluster.node.saw_command("PA_1", Command::Detach).await;
}

#[tokio::test]
async fn a_room_that_is_found_elsewhere_has_moved() {
    let cluster = Cluster::start().await;
    let (mut socket, first) = cluster.events("PA_1").await;
    assert_eq!(first["media"]["generation"], 1);
    cluster.node.cut();
    assert_eq!(next_json(&mut socket).await["type"], "snapshot");
    cluster.node.move_to(2);
    cluster.node.cut();
    let again = next_json(&mut socket).await;
    assert_eq!(
        (&again["type"], &again["media"]["generation"]),
        (&json!("snapshot"), &json!(2))
    );
    let moved = next_json(&mut socket).await;
    assert_eq!((&moved["type"], &moved["media"]), (&json!("moved"), &again["media"]));
    assert_eq!(moved["media"]["generation"], json!(Generation(2)));
    // The first loss was no move.
    cluster.node.push("PA_1", wanted(1));
    assert_eq!(next_json(&mut socket).await["type"], "slots_wanted");
}

#[tokio::test]
async fn the_shutdown_ends_server_sent_events_too() {
    let mut cluster = Cluster::start().await;
    let mut stream = Sse::open(&cluster, None).await;
    stream.next().await.unwrap();
    cluster.shutdown.cancel();
    assert_eq!(stream.next().await.unwrap().data["reason"], "restart");
    assert!(stream.next().await.is_none());
    cluster.node.saw_command("PA_1", Command::Detach).await;
    eventually("the end", &mut cluster.running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_that_never_reads_is_ended_and_nobody_else_notices() {
    let cluster = Cluster::start().await;
    let small = TcpSocket::new_v4().unwrap();
    small.set_recv_buffer_size(4096).unwrap();
    let mut never = small.connect(cluster.address).await.unwrap();
    let request = format!(
        "GET {EVENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
        token("daily", "ann")
    );
    never.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 15];
    never.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    let mut other = Sse::open_for(&cluster, "PA_2", None).await;
    other.next().await.unwrap();
    let mut bob = participant("PA_9", "bob", "Bob");
    bob.metadata = "x".repeat(60_000);
    // One after the other, since of many at once only the last would be kept for it.
    eventually("the end of the stream", async {
        while cluster.metric("sockets").await > 1 {
            let participant = bob.clone();
            cluster.node.push("PA_1", Event::ParticipantUpdated { participant });
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    cluster.node.push("PA_2", wanted(1));
    assert_eq!(other.next().await.unwrap().event, "slots_wanted");
}
