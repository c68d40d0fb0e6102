//! What follows from gateways' complaints about nodes.

use super::*;
use crate::harness::Answers;

struct Cluster {
    app: Router,
    answers: Arc<Answers>,
    service: Orchestrator,
}

async fn cluster() -> Cluster {
    let (service, answers) = orchestrator(&[]);
    start(&service).await;
    Cluster {
        app: service.router(),
        answers,
        service,
    }
}

impl Cluster {
    async fn register(&self, n: u128) -> (NodeId, Epoch) {
        let node = crate::harness::node(n);
        (node, crate::harness::register(&self.service, node).await)
    }

    async fn report(&self, node: NodeId, epoch: Epoch, complaint: &str) -> (bool, bool) {
        let body = json!({"epoch": epoch, "complaint": complaint});
        let verdict: Verdict = post(&self.app, &format!("/v1/nodes/{node}/reports"), body).await;
        (verdict.answers, verdict.ejected)
    }
}

#[tokio::test]
async fn a_node_that_answers_is_not_ejected_because_one_gateway_cannot_reach_it() {
    let cluster = cluster().await;
    let (node, epoch) = cluster.register(1).await;
    cluster.answers.set(node, Some(epoch));
    assert_eq!(cluster.report(node, epoch, "unreachable").await, (true, false));
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_ejected_and_gets_no_rooms() {
    let cluster = cluster().await;
    let (silent, epoch) = cluster.register(1).await;
    cluster.register(2).await;
    cluster.register(3).await;
    assert_eq!(cluster.report(silent, epoch, "unreachable").await, (false, true));
    let list: NodeList = decode(send(&cluster.app, request(Method::GET, "/v1/nodes", "")).await).await;
    let ejected: Vec<bool> = list.nodes.iter().map(|node| node.ejected_ms > 0).collect();
    assert_eq!(ejected, [true, false, false]);
    assert!(list.nodes[0].ejected_ms <= 30_000 && list.nodes[0].ejected_ms > 25_000);
}

#[tokio::test]
async fn a_node_on_which_joins_fail_is_ejected_although_it_answers() {
    let cluster = cluster().await;
    let (node, epoch) = cluster.register(1).await;
    cluster.answers.set(node, Some(epoch));
    assert_eq!(cluster.report(node, epoch, "joins_fail").await, (true, true));
}

#[tokio::test]
async fn no_more_than_a_tenth_of_the_nodes_is_ejected_but_always_one() {
    let cluster = cluster().await;
    let mut ejected = 0;
    let mut nodes = Vec::new();
    for n in 1..=20 {
        nodes.push(cluster.register(n).await);
    }
    for (node, epoch) in nodes {
        ejected += u32::from(cluster.report(node, epoch, "unreachable").await.1);
    }
    assert_eq!(ejected, 2);
}

#[tokio::test]
async fn a_complaint_about_an_ended_epoch_changes_nothing() {
    let cluster = cluster().await;
    let (node, old) = cluster.register(1).await;
    let (_, current) = cluster.register(1).await;
    cluster.answers.set(node, Some(current));
    assert_eq!(cluster.report(node, old, "joins_fail").await, (false, false));
}

#[tokio::test]
async fn a_storm_of_complaints_is_looked_into_once() {
    let cluster = cluster().await;
    let (node, epoch) = cluster.register(1).await;
    let report = || cluster.report(node, epoch, "unreachable");
    let storm = tokio::join!(report(), report(), report(), report());
    assert_eq!(storm, ((false, true), (false, true), (false, true), (false, true)));
    assert_eq!(cluster.service.store().calls("nodes"), 1);
    assert_eq!(cluster.service.store().calls("eject"), 1);
}

#[tokio::test]
async fn an_unknown_node_is_404() {
    let cluster = cluster().await;
    let path = format!("/v1/nodes/{}/reports", NodeId::random());
    let body = json!({"epoch": 1, "complaint": "unreachable"}).to_string();
    fails(&cluster.app, request(Method::POST, &path, body), 404, "unknown-node").await;
}
