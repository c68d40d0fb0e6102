//! Publishing over WHIP: what HTTP says to good and to bad requests.

use reqwest::header::HeaderMap;
use reqwest::{Method, Response, StatusCode, redirect};
use serde_json::json;
use signalbox_protocol::control::{CloseReason, Command, Event, OneOffer, RefusalReason, Request, Transports};
use tokio_tungstenite::connect_async;

use crate::cluster::{Cluster, KEY_SECRET, claims, next_json, problem, sign, token};
use crate::fake_node::ICE_SESSION;

pub const SDP: &str = "application/sdp";
pub const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const WHIP: &str = "/v1/rooms/daily/whip";

impl Cluster {
    /// Posts an offer with ann's token.
    pub async fn offer(&self, path: &str, offer: &str) -> Response {
        let request = self.request(Method::POST, path).header("content-type", SDP);
        request.body(offer.to_owned()).send().await.unwrap()
    }

    /// Begins a session; its path.
    pub async fn session(&self, path: &str) -> String {
        let response = self.offer(path, "v=0 offer").await;
        assert_eq!(response.status(), 201);
        response.headers()["location"].to_str().unwrap().to_owned()
    }

    /// Patches a session, as clients do that were given their token in the URL: without one.
    pub async fn patch(&self, session: &str, media_type: &str, if_match: Option<&str>, body: &str) -> Response {
        let mut request = self.bare(Method::PATCH, session).header("content-type", media_type);
        if let Some(tags) = if_match {
            request = request.header("if-match", tags);
        }
        request.body(body.to_owned()).send().await.unwrap()
    }
}

fn all(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter();
    values.map(|value| value.to_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_offer_publishes_and_is_told_all_that_a_client_needs() {
    let servers = "stun:stun.example.org,turn:turn.example.org?transport=udp;username=ann;credential=secret";
    let cluster = Cluster::start_with(&["--ice-server", servers]).await;
    let response = cluster.offer(WHIP, "v=0 offer").await;
    assert_eq!(response.status(), 201);
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], SDP);
    assert_eq!(headers["etag"], format!("\"{ICE_SESSION}\"").as_str());
    assert_eq!(headers["accept-patch"], FRAGMENT);
    assert!(
        headers["location"]
            .to_str()
            .unwrap()
            .starts_with("/v1/rooms/daily/whip/")
    );
    let session = headers["location"].to_str().unwrap();
    assert_eq!(
        all(&headers, "link"),
        [
            &format!("<{session}/events>; rel=\"urn:signalbox:events\""),
            "<stun:stun.example.org>; rel=\"ice-server\"",
            "<turn:turn.example.org?transport=udp>; rel=\"ice-server\"; username=\"ann\"; credential=\"secret\"; credential-type=\"password\"",
        ]
    );
    assert_eq!(response.text().await.unwrap(), "v=0 answer");
    let requests = cluster.node.requests();
    let Some(Request::Join(join)) = requests.first() else {
        panic!("{requests:?}");
    };
    assert_eq!(join.identity.as_str(), "ann");
    assert_eq!(join.transports, Transports::Single);
    assert_eq!(join.one_offer, Some(OneOffer::Publish));
    assert_eq!(join.offer.as_deref(), Some("v=0 offer"));
    assert!(!join.auto_subscribe && !join.attach && !join.grants.hidden);
}

#[tokio::test]
async fn a_token_may_come_in_the_query() {
    let cluster = Cluster::start().await;
    let path = format!("{WHIP}?access_token={}", token("daily", "ann"));
    let request = cluster.bare(Method::POST, &path).header("content-type", SDP);
    assert_eq!(request.body("v=0").send().await.unwrap().status(), 201);
}

#[tokio::test]
async fn an_offer_that_is_none_reaches_no_node() {
    let cluster = Cluster::start().await;
    let post = async |media_type: &str, body: Vec<u8>| {
        let request = cluster.request(Method::POST, WHIP).header("content-type", media_type);
        problem(request.body(body).send().await.unwrap()).await
    };
    let (status, kind, detail) = post("application/json", b"v=0".to_vec()).await;
    assert_eq!((status, kind.as_str()), (415, "unsupported-media-type"));
    assert!(detail.contains(SDP), "{detail}");
    for body in [&b""[..], b"hello", b"v=0 \xff\xfe"] {
        let (status, kind, _) = post(SDP, body.to_vec()).await;
        assert_eq!((status, kind.as_str()), (400, "invalid-sdp"));
    }
    let (status, kind, _) = post(SDP, [b"v=0".to_vec(), vec![b'x'; 64 * 1024]].concat()).await;
    assert_eq!((status, kind.as_str()), (413, "body-too-large"));
    assert_eq!(post("application/sdp; charset=utf-8", b"hello".to_vec()).await.0, 400);
    assert_eq!(cluster.orchestrator.asked(), 0);
    assert!(cluster.node.requests().is_empty());
}

#[tokio::test]
async fn who_may_not_publish_is_refused() {
    let cluster = Cluster::start().await;
    let post = async |token: &str| {
        let request = cluster.bare(Method::POST, WHIP).header("content-type", SDP);
        let request = if token.is_empty() {
            request
        } else {
            request.bearer_auth(token)
        };
        problem(request.body("v=0").send().await.unwrap()).await
    };
    assert_eq!(post("").await.1, "token-missing");
    assert_eq!(post("garbage").await.0, 401);
    let (status, _, detail) = post(&token("another", "ann")).await;
    assert_eq!(status, 403);
    assert!(detail.contains("another room"), "{detail}");
    let mut claims = claims("daily", "ann");
    claims.video.can_publish = Some(false);
    let (status, kind, detail) = post(&sign(&claims, KEY_SECRET)).await;
    assert_eq!((status, kind.as_str()), (403, "forbidden"));
    assert!(detail.contains("canPublish"), "{detail}");
    assert_eq!(cluster.orchestrator.asked(), 0);
}

#[tokio::test]
async fn a_node_that_refuses_the_offer_is_heard() {
    let cluster = Cluster::start().await;
    for (reason, status) in [(RefusalReason::Sdp, 400), (RefusalReason::NotPermitted, 403)] {
        cluster.node.refuse([reason]);
        assert_eq!(problem(cluster.offer(WHIP, "v=0").await).await.0, status);
    }
}

#[tokio::test]
async fn methods_that_mean_nothing_are_refused_and_get_shows_nothing() {
    let cluster = Cluster::start().await;
    let session = cluster.session(WHIP).await;
    for (path, allowed) in [(WHIP, "POST"), (session.as_str(), "PATCH")] {
        for method in [Method::GET, Method::HEAD] {
            let response = cluster.bare(method, path).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::NO_CONTENT, "RFC 9725 section 4.1");
        }
        let response = cluster
            .bare(Method::GET, &path.replace("daily", "%0A"))
            .send()
            .await
            .unwrap();
        assert!(response.status().is_client_error());
        let response = cluster.bare(Method::PUT, path).send().await.unwrap();
        let allow = response.headers()["allow"].to_str().unwrap().to_owned();
        assert!(allow.contains(allowed), "{allow}");
        assert_eq!(problem(response).await.0, 405);
    }
    assert_eq!(cluster.bare(Method::DELETE, WHIP).send().await.unwrap().status(), 405);
    assert_eq!(cluster.bare(Method::POST, &session).send().await.unwrap().status(), 405);
}

#[tokio::test]
async fn browsers_of_any_origin_may_do_all_of_it() {
    let cluster = Cluster::start().await;
    let session = cluster.session(WHIP).await;
    let preflight = async |path: &str, method: &str| {
        let request = cluster
            .bare(Method::OPTIONS, path)
            .header("origin", "https://example.com")
            .header("access-control-request-method", method)
            .header("access-control-request-headers", "authorization,content-type,if-match");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.headers().clone()
    };
    let headers = preflight(WHIP, "POST").await;
    assert_eq!(headers["accept-post"], SDP);
    let headers = [headers, preflight(&session, "PATCH").await];
    assert_eq!(headers[1]["accept-patch"], FRAGMENT);
    for headers in headers {
        assert_eq!(headers["access-control-allow-origin"], "*");
        let methods = headers["access-control-allow-methods"].to_str().unwrap();
        assert!(
            ["POST", "PATCH", "DELETE"]
                .iter()
                .all(|method| methods.contains(method))
        );
        let allowed = headers["access-control-allow-headers"].to_str().unwrap().to_lowercase();
        assert!(
            ["authorization", "content-type", "if-match"]
                .iter()
                .all(|name| allowed.contains(name))
        );
    }
    let request = cluster
        .request(Method::POST, WHIP)
        .header("origin", "https://example.com");
    let response = request.header("content-type", SDP).body("v=0").send().await.unwrap();
    let exposed = response.headers()["access-control-expose-headers"]
        .to_str()
        .unwrap()
        .to_lowercase();
    for name in ["location", "etag", "link", "accept-patch", "retry-after"] {
        assert!(exposed.contains(name), "{exposed}");
    }
    // A plain OPTIONS, which is no preflight.
    let response = cluster.bare(Method::OPTIONS, WHIP).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["accept-post"], SDP);
}

#[tokio::test]
async fn candidates_and_restarts_go_to_the_node() {
    let cluster = Cluster::start().await;
    let session = cluster.session(WHIP).await;
    let tag = format!("\"{ICE_SESSION}\"");
    let response = cluster.patch(&session, FRAGMENT, Some(&tag), "a=candidate").await;
    assert_eq!(response.status(), 204);
    assert!(!response.headers().contains_key("etag"), "RFC 9725 section 4.3.2");
    let command = Command::PatchIce {
        sessions: vec![ICE_SESSION.into()],
        fragment: "a=candidate".into(),
    };
    cluster.node.saw_command("PA_1", command).await;

    let response = cluster.patch(&session, FRAGMENT, Some("*"), "a=ice-ufrag:new").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], FRAGMENT);
    assert_eq!(response.headers()["etag"], "\"second\"");
    assert_eq!(response.text().await.unwrap(), "a=ice-ufrag:second\r\n");
    let command = Command::PatchIce {
        sessions: Vec::new(),
        fragment: "a=ice-ufrag:new".into(),
    };
    cluster.node.saw_command("PA_1", command).await;
}

#[tokio::test]
async fn a_patch_without_its_precondition_changes_nothing() {
    let cluster = Cluster::start().await;
    let session = cluster.session(WHIP).await;
    let before = cluster.node.requests().len();
    let (status, kind, detail) = problem(cluster.patch(&session, FRAGMENT, None, "a=x").await).await;
    assert_eq!((status, kind.as_str()), (428, "precondition-required"));
    assert!(detail.contains("If-Match"), "{detail}");
    // A weak tag never matches (RFC 9110 section 13.1.1), nor does what is no tag.
    for stale in [format!("W/\"{ICE_SESSION}\""), ICE_SESSION.to_owned(), String::new()] {
        let (status, kind, _) = problem(cluster.patch(&session, FRAGMENT, Some(&stale), "a=x").await).await;
        assert_eq!((status, kind.as_str()), (412, "ice-session-over"));
    }
    assert_eq!(cluster.node.requests().len(), before);
    let (status, kind, _) = problem(cluster.patch(&session, FRAGMENT, Some("\"stale\""), "a=x").await).await;
    assert_eq!((status, kind.as_str()), (412, "ice-session-over"));
}

#[tokio::test]
async fn a_patch_that_cannot_be_used_is_refused() {
    let cluster = Cluster::start().await;
    let session = cluster.session(WHIP).await;
    for media_type in ["application/json", SDP, "text/plain"] {
        let (status, kind, detail) = problem(cluster.patch(&session, media_type, Some("*"), "v=0").await).await;
        assert_eq!((status, kind.as_str()), (415, "unsupported-media-type"));
        assert!(detail.contains(FRAGMENT), "{detail}");
    }
    let long = "a".repeat(64 * 1024 + 1);
    assert_eq!(
        problem(cluster.patch(&session, FRAGMENT, Some("*"), &long).await)
            .await
            .0,
        413
    );
    for (reason, status, kind) in [
        (RefusalReason::Sdp, 400, "invalid-sdp"),
        (RefusalReason::Unsupported, 422, "unsupported"),
    ] {
        cluster.node.refuse([reason]);
        let (got, got_kind, _) = problem(cluster.patch(&session, FRAGMENT, Some("*"), "a=x").await).await;
        assert_eq!((got, got_kind.as_str()), (status, kind));
    }
}

#[tokio::test]
async fn a_session_ends_once_whatever_the_entity_tag() {
    let cluster = Cluster::start().await;
    let session = cluster.session(WHIP).await;
    let delete = async || {
        let request = cluster.bare(Method::DELETE, &session).header("if-match", "\"stale\"");
        request.send().await.unwrap()
    };
    let response = delete().await;
    assert_eq!(response.status(), 200);
    cluster.node.saw_command("PA_1", Command::Leave).await;
    let (status, kind, _) = problem(delete().await).await;
    assert_eq!((status, kind.as_str()), (404, "participant-not-found"));
    assert_eq!(
        problem(cluster.patch(&session, FRAGMENT, Some("*"), "a=x").await)
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn a_session_whose_room_went_with_its_node_is_404_and_opens_no_room() {
    let cluster = Cluster::start().await;
    let session = cluster.session(WHIP).await;
    // The node that has the room next does not know its participants.
    cluster.orchestrator.re_place(cluster.node.control());
    cluster.node.refuse([RefusalReason::NoParticipant; 2]);
    let gone = problem(cluster.bare(Method::DELETE, &session).send().await.unwrap()).await;
    assert_eq!((gone.0, gone.1.as_str()), (404, "participant-not-found"));
    // Nor does any.
    let cluster = Cluster::start().await;
    let session = cluster.session(WHIP).await;
    cluster.orchestrator.know_nothing();
    cluster.node.refuse([RefusalReason::NoRoom; 2]);
    for response in [
        cluster.bare(Method::DELETE, &session).send().await.unwrap(),
        cluster.patch(&session, FRAGMENT, Some("*"), "a=x").await,
    ] {
        let gone = problem(response).await;
        assert_eq!((gone.0, gone.1.as_str()), (404, "participant-not-found"));
    }
    assert!(
        cluster
            .orchestrator
            .requests()
            .iter()
            .skip(1)
            .all(|request| request.find_only)
    );
}

#[tokio::test]
async fn a_session_that_nobody_gave_out_does_not_exist() {
    let cluster = Cluster::start().await;
    let session = cluster.session(WHIP).await;
    let before = cluster.node.requests().len();
    let forged = [
        format!("{WHIP}/PA_1"),
        format!("{session}x"),
        session.replace("/whip/", "/whep/"),
        session.replace("/daily/", "/weekly/"),
    ];
    for path in &forged {
        // Not even for the participant itself: a token is not what opens a session.
        let request = cluster.request(Method::DELETE, path);
        assert_eq!(problem(request.send().await.unwrap()).await.0, 404, "{path}");
        assert_eq!(cluster.bare(Method::GET, path).send().await.unwrap().status(), 404);
    }
    assert_eq!(cluster.node.requests().len(), before);
}

#[tokio::test]
async fn another_gateway_redirects_with_307_alone() {
    let cluster = Cluster::start_with(&["--redirect-whip-to", "https://eu.example.com/media/"]).await;
    let client = reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .build()
        .unwrap();
    for path in [WHIP, "/v1/rooms/a%20b/whep?access_token=a.b.c"] {
        let url = format!("http://{}{path}", cluster.address);
        let request = client.post(url).header("content-type", SDP).body("v=0");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 307);
        assert_eq!(
            response.headers()["location"],
            format!("https://eu.example.com/media{path}").as_str()
        );
    }
    assert!(cluster.node.requests().is_empty());
    let response = cluster
        .send_json(Method::POST, crate::cluster::JOIN, crate::cluster::OFFER)
        .await;
    assert_eq!(response.status(), 201, "other dialects are served here");
}

#[tokio::test]
async fn a_sessions_event_stream_says_where_the_room_has_moved_to() {
    let cluster = Cluster::start().await;
    let session = cluster.session(WHIP).await;
    let url = format!("ws://{}{session}/events", cluster.address);
    let (mut events, _) = connect_async(url).await.unwrap();
    let snapshot = next_json(&mut events).await;
    assert_eq!(snapshot["participant"]["id"], "PA_1");
    cluster.orchestrator.re_place(cluster.node.control());
    let reason = CloseReason::NodeGone;
    cluster.node.push("PA_1", Event::Closed { reason });
    let moved = next_json(&mut events).await;
    assert_eq!(
        (&moved["type"], &moved["media"]["port"]),
        (&json!("moved"), &json!(50_000))
    );
    assert_eq!(next_json(&mut events).await["reason"], "node_gone");

    let forged = format!("{session}A/events");
    let response = cluster.bare(Method::GET, &forged).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}
