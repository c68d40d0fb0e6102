//! What a media node asks of a gateway: the cluster secret, and a ticket for each room.

use e2e::cluster::{CLUSTER_SECRET, Cluster, sign, unix_seconds};
use e2e::map::Map;
use futures_util::{SinkExt, StreamExt};
use jsonwebtoken::{DecodingKey, Validation, decode};
use signalbox_protocol::control::{NodeFrame, Outcome, PATH, RefusalReason, Reply, Request, RequestFrame};
use signalbox_protocol::node::NodeView;
use signalbox_protocol::ticket::{AUDIENCE, TicketClaims};
use signalbox_protocol::{ClusterId, Epoch, NodeId, RoomName};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

struct Link(e2e::livekit::Socket);

impl Link {
    async fn open(node: &NodeView, secret: &str) -> Result<Self, Box<tokio_tungstenite::tungstenite::Error>> {
        let mut request = format!("{}{PATH}", node.control).into_client_request().unwrap();
        request
            .headers_mut()
            .insert("authorization", format!("Bearer {secret}").parse().unwrap());
        Ok(Self(
            tokio_tungstenite::connect_async(request).await.map_err(Box::new)?.0,
        ))
    }

    async fn ask(&mut self, request: Request) -> Outcome {
        let frame = RequestFrame {
            id: 1,
            trace: None,
            deadline_ms: 5_000,
            request,
        };
        self.0
            .send(Message::text(serde_json::to_string(&frame).unwrap()))
            .await
            .unwrap();
        loop {
            if let Message::Text(text) = self.0.next().await.unwrap().unwrap()
                && let NodeFrame::Reply { result, .. } = serde_json::from_str(&text).unwrap()
            {
                return result;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_orchestrators_ticket_opens_a_room() {
    let cluster = Cluster::start(1).await;
    let node = cluster.map().nodes().await.unwrap().remove(0);
    let room: RoomName = "daily".parse().unwrap();
    let mut link = Link::open(&node, CLUSTER_SECRET).await.unwrap();

    let placement = Map::new(&cluster.orchestrator, CLUSTER_SECRET)
        .place(&room)
        .await
        .unwrap();
    let mut expected = Validation::default();
    expected.set_audience(&[AUDIENCE]);
    let key = DecodingKey::from_secret(CLUSTER_SECRET.as_bytes());
    let good: TicketClaims = decode(&placement.ticket, &key, &expected).unwrap().claims;
    let bad = [
        ("forged", sign(&good, "not the cluster's secret")),
        (
            "expired",
            sign(
                &TicketClaims {
                    exp: unix_seconds() - 120,
                    ..good.clone()
                },
                CLUSTER_SECRET,
            ),
        ),
        (
            "for another node",
            sign(
                &TicketClaims {
                    node: NodeId::random(),
                    ..good.clone()
                },
                CLUSTER_SECRET,
            ),
        ),
        (
            "of another epoch",
            sign(
                &TicketClaims {
                    epoch: Epoch(node.epoch.0 + 1),
                    ..good.clone()
                },
                CLUSTER_SECRET,
            ),
        ),
        (
            "for another room",
            sign(
                &TicketClaims {
                    room: "other".parse().unwrap(),
                    ..good.clone()
                },
                CLUSTER_SECRET,
            ),
        ),
        (
            "of another cluster",
            sign(
                &TicketClaims {
                    cluster: ClusterId::random(),
                    ..good.clone()
                },
                CLUSTER_SECRET,
            ),
        ),
        (
            "for something else",
            sign(
                &TicketClaims {
                    aud: "something".to_owned(),
                    ..good.clone()
                },
                CLUSTER_SECRET,
            ),
        ),
        ("no ticket", "no ticket".to_owned()),
    ];
    for (what, ticket) in bad {
        let outcome = link
            .ask(Request::Open {
                ticket,
                room: room.clone(),
            })
            .await;
        assert!(
            matches!(&outcome, Outcome::Refused(refusal) if refusal.reason == RefusalReason::Ticket),
            "{what}: {outcome:?}"
        );
    }

    let outcome = link
        .ask(Request::Open {
            ticket: placement.ticket,
            room,
        })
        .await;
    assert!(matches!(outcome, Outcome::Ok(Reply::Opened { .. })), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_cluster_secret_nothing_internal_answers() {
    let cluster = Cluster::start(1).await;
    let node = cluster.map().nodes().await.unwrap().remove(0);
    assert!(Link::open(&node, "something else entirely").await.is_err());
    for request in [
        reqwest::Client::new().get(format!("{}/v1/nodes", cluster.orchestrator)),
        reqwest::Client::new()
            .get(format!("{}/v1/nodes", cluster.orchestrator))
            .bearer_auth("something else entirely"),
    ] {
        assert_eq!(request.send().await.unwrap().status(), 401);
    }
}
