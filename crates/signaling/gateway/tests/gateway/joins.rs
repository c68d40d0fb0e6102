//! Joins and what participants do without an event stream.

use reqwest::Method;
use serde_json::{Value, json};
use signalbox_protocol::TrackId;
use signalbox_protocol::control::{Command, Preference, Quality, RefusalReason, Request, Transports};

use crate::cluster::{Cluster, JOIN, KEY_SECRET, OFFER, claims, problem, sign};
use crate::fake_node::{FakeNode, UNKNOWN};
use crate::fake_orchestrator::FakeOrchestrator;

fn tickets(node: &FakeNode) -> Vec<String> {
    let ticket = |request| match request {
        Request::Join(join) => Some(join.ticket),
        Request::Open { ticket, .. } | Request::Expect { ticket, .. } => Some(ticket),
        Request::Participant { .. } | Request::Administer { .. } => None,
    };
    node.requests().into_iter().filter_map(ticket).collect()
}

#[tokio::test]
async fn a_join_with_an_offer_admits_a_participant() {
    let cluster = Cluster::start().await;
    let mut claims = claims("daily", "ann");
    claims.metadata = "m".into();
    let body = r#"{"offer":"v=0 offer","name":"Ann","publish":[{"cid":"c","kind":"video","source":"camera"}]}"#;
    let response = cluster
        .bare(Method::POST, JOIN)
        .bearer_auth(sign(&claims, KEY_SECRET))
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["location"], "/v1/rooms/daily/participants/PA_1");
    let reply: Value = response.json().await.unwrap();
    assert_eq!(reply["answer"], "v=0 answer");
    assert_eq!(reply["events"], "/v1/rooms/daily/participants/PA_1/events");
    assert_eq!(reply["participant"]["identity"], "ann");
    assert_eq!(reply["participants"], json!([]));
    assert_eq!(reply["slots"], json!([]));
    assert_eq!(reply["room"]["name"], "daily");
    assert_eq!(reply["media"]["ip"], "192.0.2.7");
    assert_eq!(reply["media"]["port"], 50_000);
    let requests = cluster.node.requests();
    let [Request::Join(join)] = requests.as_slice() else {
        panic!("{requests:?}");
    };
    assert_eq!((join.name.as_str(), join.metadata.as_str()), ("Ann", "m"));
    assert_eq!(join.transports, Transports::Single);
    assert!(join.auto_subscribe && !join.attach);
    assert_eq!(join.publish.len(), 1);
}

#[tokio::test]
async fn a_join_without_an_offer_says_where_the_room_is() {
    let cluster = Cluster::start().await;
    let response = cluster.request(Method::POST, JOIN).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let reply: Value = response.json().await.unwrap();
    assert_eq!(reply["room"], "daily");
    assert_eq!(reply["ticket"], "ticket-1");
    assert_eq!(reply["media"]["generation"], 1);
}

#[tokio::test]
async fn a_placement_is_asked_for_once() {
    let cluster = Cluster::start().await;
    let joins = futures_util::future::join_all((0..20).map(|_| cluster.join())).await;
    assert_eq!(joins.len(), 20);
    assert_eq!(cluster.orchestrator.asked(), 1);
    assert_eq!(cluster.node.links(), 1);
    assert_eq!(cluster.metric("joins_total").await, 20);
}

#[tokio::test]
async fn a_refused_ticket_is_replaced() {
    let cluster = Cluster::start().await;
    cluster.join().await;
    cluster.node.refuse([RefusalReason::Ticket]);
    cluster.join().await;
    assert_eq!(tickets(&cluster.node), ["ticket-1", "ticket-1", "ticket-2"]);
}

#[tokio::test]
async fn a_closing_or_full_node_is_asked_again_but_not_for_ever() {
    let cluster = Cluster::start().await;
    cluster.node.refuse([RefusalReason::Closing, RefusalReason::Full]);
    cluster.join().await;
    assert_eq!(cluster.orchestrator.asked(), 3);
    cluster.node.refuse([RefusalReason::Full; 16]);
    let response = cluster.send_json(Method::POST, JOIN, OFFER).await;
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(problem(response).await.0, 503);
    assert!(cluster.orchestrator.asked() < 10);
}

#[tokio::test]
async fn without_a_node_the_caller_is_told_when_to_come_back() {
    let cluster = Cluster::start().await;
    cluster.orchestrator.place_on(None);
    let response = cluster.send_json(Method::POST, JOIN, OFFER).await;
    assert_eq!(response.headers()["retry-after"], "3");
    let (status, kind, detail) = problem(response).await;
    assert_eq!((status, kind.as_str()), (503, "no-node"));
    assert_eq!(detail, "No media node is serving; start one.");
}

#[tokio::test]
async fn a_node_that_is_gone_is_503() {
    let cluster = Cluster::start().await;
    // Nobody listens there: port 1 of the loopback.
    cluster.orchestrator.place_on(Some("ws://127.0.0.1:1".into()));
    let response = cluster.send_json(Method::POST, JOIN, OFFER).await;
    assert!(response.headers().contains_key("retry-after"));
    let (status, kind, _) = problem(response).await;
    assert_eq!((status, kind.as_str()), (503, "node-unavailable"));
}

#[tokio::test]
async fn a_room_that_has_moved_is_found() {
    let cluster = Cluster::start().await;
    cluster.orchestrator.place_on(Some("ws://127.0.0.1:1".into()));
    let response = cluster.send_json(Method::POST, JOIN, OFFER).await;
    assert_eq!(response.status(), 503);
    cluster.orchestrator.place_on(Some(cluster.node.control()));
    cluster.join().await;
}

#[tokio::test]
async fn the_next_orchestrator_is_asked_when_one_is_away() {
    let node = FakeNode::start().await;
    let orchestrator = FakeOrchestrator::start(Some(node.control())).await;
    let urls = format!("http://127.0.0.1:1,{}", orchestrator.url());
    let cluster = Cluster::start_between(node, orchestrator, &urls, &[]).await;
    cluster.join().await;
}

#[tokio::test]
async fn without_an_orchestrator_joins_are_503() {
    let node = FakeNode::start().await;
    let orchestrator = FakeOrchestrator::start(None).await;
    let cluster = Cluster::start_between(node, orchestrator, "http://127.0.0.1:1", &[]).await;
    let response = cluster.send_json(Method::POST, JOIN, OFFER).await;
    assert!(response.headers().contains_key("retry-after"));
    let (status, kind, _) = problem(response).await;
    assert_eq!((status, kind.as_str()), (503, "orchestrator-unavailable"));
}

#[tokio::test]
async fn refusals_become_problems() {
    let cluster = Cluster::start().await;
    for (reason, status, kind) in [
        (RefusalReason::Sdp, 400, "invalid-sdp"),
        (RefusalReason::Invalid, 400, "invalid-request"),
        (RefusalReason::NotPermitted, 403, "forbidden"),
        (RefusalReason::Overloaded, 503, "overloaded"),
        (RefusalReason::Internal, 500, "internal"),
    ] {
        cluster.node.refuse([reason]);
        let (got, got_kind, _) = problem(cluster.send_json(Method::POST, JOIN, OFFER).await).await;
        assert_eq!((got, got_kind.as_str()), (status, kind));
    }
}

#[tokio::test]
async fn a_participant_commands_its_own_tracks_and_subscriptions() {
    let cluster = Cluster::start().await;
    let base = "/v1/rooms/daily/participants/PA_1";
    let response = cluster.send_json(Method::POST, &format!("{base}/offer"), OFFER).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.json::<Value>().await.unwrap(), json!({"answer": "v=0 again"}));
    let track = TrackId::new("TR_a");
    for (method, path, body, command) in [
        (
            Method::PATCH,
            "/tracks/TR_a",
            r#"{"muted":true}"#,
            Command::Mute {
                track: track.clone(),
                muted: true,
            },
        ),
        (
            Method::DELETE,
            "/tracks/TR_a",
            "",
            Command::Unpublish { track: track.clone() },
        ),
        (
            Method::PATCH,
            "/subscriptions/TR_a",
            r#"{"subscribed":false}"#,
            Command::Subscribe {
                tracks: vec![track.clone()],
                subscribed: false,
            },
        ),
        (
            Method::PATCH,
            "/subscriptions/TR_a",
            r#"{"quality":"medium"}"#,
            Command::Prefer {
                tracks: vec![track.clone()],
                preference: Preference {
                    quality: Some(Quality::Medium),
                    ..Preference::default()
                },
            },
        ),
        (
            Method::PATCH,
            "/subscriptions/TR_a",
            r#"{"fps":15,"priority":1}"#,
            Command::Prefer {
                tracks: vec![track.clone()],
                preference: Preference {
                    fps: 15,
                    priority: 1,
                    ..Preference::default()
                },
            },
        ),
        (Method::DELETE, "", "", Command::Leave),
    ] {
        let response = cluster.send_json(method, &format!("{base}{path}"), body).await;
        assert_eq!(response.status(), 204, "{path} {body}");
        cluster.node.saw_command("PA_1", command).await;
    }
    let response = cluster
        .send_json(Method::PATCH, &format!("{base}/subscriptions/TR_a"), "{}")
        .await;
    assert_eq!(problem(response).await.0, 400);
}

#[tokio::test]
async fn an_unknown_participant_is_404() {
    let cluster = Cluster::start().await;
    let path = format!("/v1/rooms/daily/participants/{UNKNOWN}");
    let (status, kind, _) = problem(cluster.send_json(Method::DELETE, &path, "").await).await;
    assert_eq!((status, kind.as_str()), (404, "participant-not-found"));
    cluster.node.refuse([RefusalReason::NoTrack]);
    let path = "/v1/rooms/daily/participants/PA_1/tracks/TR_a";
    let (status, kind, _) = problem(cluster.send_json(Method::DELETE, path, "").await).await;
    assert_eq!((status, kind.as_str()), (404, "track-not-found"));
}

#[tokio::test]
async fn a_join_that_nobody_waits_for_is_taken_back() {
    let cluster = Cluster::start().await;
    cluster.join().await;
    cluster.node.hold();
    let body = serde_json::to_string(&json!({"offer": "v=0", "name": "gone"})).unwrap();
    let request = cluster.send_json(Method::POST, JOIN, &body);
    tokio::select! {
        _ = request => panic!("answered"),
        () = cluster.node.saw(|request| matches!(request, Request::Join(join) if join.name == "gone")) => {}
    }
    // The connection is closed with its request; only then the node answers.
    crate::cluster::eventually("the end of the connection", async {
        while cluster.metric("connections").await > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    cluster.node.release();
    cluster.node.saw_command("PA_2", Command::Leave).await;
}
