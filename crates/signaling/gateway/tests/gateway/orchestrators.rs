//! Several orchestrators: spread, retries, breakers, and what goes on while they or their database are away.

use reqwest::{Method, Response};
use signalbox_protocol::control::Command;

use crate::cluster::{Cluster, JOIN, OFFER, problem, token};
use crate::fake_node::FakeNode;
use crate::fake_orchestrator::{FakeOrchestrator, Mood};

/// A gateway between one node and so many orchestrators that give tickets for a single use; and all of these, the first of which is the
/// cluster's own.
async fn with(count: usize) -> (Cluster, Vec<FakeOrchestrator>) {
    let node = FakeNode::start().await;
    let mut all = Vec::new();
    for _ in 0..count {
        let orchestrator = FakeOrchestrator::start(Some(node.control())).await;
        orchestrator.sign_for(0);
        all.push(orchestrator);
    }
    let urls: Vec<&str> = all.iter().map(FakeOrchestrator::url).collect();
    let cluster = Cluster::start_between(node, all[0].clone(), &urls.join(","), &[]).await;
    (cluster, all)
}

/// With two; and the second of them.
async fn with_two() -> (Cluster, FakeOrchestrator) {
    let (cluster, mut all) = with(2).await;
    (cluster, all.remove(1))
}

async fn join(cluster: &Cluster, room: &str) -> Response {
    cluster
        .bare(Method::POST, &format!("/v1/rooms/{room}/join"))
        .bearer_auth(token(room, "ann"))
        .header("content-type", "application/json")
        .body(OFFER)
        .send()
        .await
        .unwrap()
}

fn metric_of(orchestrator: &FakeOrchestrator, name: &str) -> String {
    let name_of_it = orchestrator.url().strip_prefix("http://").unwrap();
    format!("orchestrator_{name}{{orchestrator=\"{name_of_it}\"}}")
}

#[tokio::test]
async fn placements_are_spread_and_name_the_user() {
    let (cluster, second) = with_two().await;
    for _ in 0..60 {
        cluster.join().await;
    }
    let (a, b) = (cluster.orchestrator.asked(), second.asked());
    assert_eq!(a + b, 60);
    assert!(a.min(b) >= 10, "{a} and {b}");
    assert_eq!(second.requests()[0].user.as_deref(), Some("ann"));
    assert_eq!(cluster.metric(&metric_of(&second, "requests_total")).await, b);
    assert_eq!(cluster.metric(&metric_of(&second, "breaker")).await, 0);
}

#[tokio::test]
async fn one_that_cannot_answer_is_made_up_for_by_the_other_and_then_left_alone() {
    for mood in [Mood::MapAway, Mood::Busy, Mood::Broken] {
        let (cluster, second) = with_two().await;
        cluster.orchestrator.be(mood);
        for room in 0..40 {
            assert_eq!(join(&cluster, &format!("room{room}")).await.status(), 201, "{mood:?}");
        }
        let broken = &cluster.orchestrator;
        // Five that open its breaker, and if the test is slow a trial or two.
        assert!((5..10).contains(&broken.asked()), "{mood:?}: {}", broken.asked());
        assert_eq!(second.asked(), 40, "{mood:?}");
        assert_eq!(
            cluster.metric(&metric_of(broken, "failures_total")).await,
            broken.asked()
        );
        assert_eq!(cluster.metric(&metric_of(broken, "breaker")).await, 2);
        assert_eq!(
            cluster.metric(&metric_of(&second, "retries_total")).await,
            broken.asked()
        );
    }
}

#[tokio::test]
async fn no_node_is_an_answer_and_not_asked_for_elsewhere() {
    let (cluster, second) = with_two().await;
    cluster.orchestrator.place_on(None);
    second.place_on(None);
    for round in 1..=20 {
        let response = cluster.send_json(Method::POST, JOIN, OFFER).await;
        assert_eq!(response.headers()["retry-after"], "3");
        assert_eq!(problem(response).await.1, "no-node");
        assert_eq!(cluster.orchestrator.asked() + second.asked(), round);
    }
    assert_eq!(cluster.metric(&metric_of(&second, "failures_total")).await, 0);
}

#[tokio::test]
async fn while_the_database_is_away_known_rooms_go_on_and_new_ones_are_told_when_to_come_back() {
    // Placed once each: only one of the orchestrators remembers a room, and more than are tried for one request do not.
    let (cluster, all) = with(5).await;
    let rooms: Vec<String> = (0..20).map(|room| format!("known{room}")).collect();
    let join_all = || futures_util::future::join_all(rooms.iter().map(|room| join(&cluster, room)));
    let placed = join_all().await;
    assert!(placed.iter().all(|response| response.status() == 201));
    all.iter().for_each(|orchestrator| orchestrator.be(Mood::MapAway));
    for round in 0..3 {
        let again = join_all().await;
        assert!(again.iter().all(|response| response.status() == 201), "round {round}");
        let response = join(&cluster, &format!("new{round}")).await;
        assert!(response.headers().contains_key("retry-after"));
        let (status, kind, _) = problem(response).await;
        assert_eq!((status, kind.as_str()), (503, "orchestrator-unavailable"));
    }
    all.iter().for_each(|orchestrator| orchestrator.be(Mood::Well));
    assert_eq!(join(&cluster, "new1").await.status(), 201);
}

#[tokio::test]
async fn without_any_orchestrator_participants_go_on_and_joins_are_told_when_to_come_back() {
    let (cluster, second) = with_two().await;
    cluster.join().await;
    cluster.orchestrator.be(Mood::Broken);
    second.be(Mood::Broken);
    for _ in 0..12 {
        let response = cluster.send_json(Method::POST, JOIN, OFFER).await;
        assert!(response.headers().contains_key("retry-after"));
        assert_eq!(problem(response).await.1, "orchestrator-unavailable");
        let leave = "/v1/rooms/daily/participants/PA_1";
        assert_eq!(cluster.send_json(Method::DELETE, leave, "").await.status(), 204);
    }
    cluster.node.saw_command("PA_1", Command::Leave).await;
    // Both breakers are open by now: whoever needs no ticket does not ask.
    let asked = cluster.orchestrator.asked() + second.asked();
    let (_socket, snapshot) = cluster.events("PA_1").await;
    assert_eq!(snapshot["type"], "snapshot");
    assert_eq!(cluster.orchestrator.asked() + second.asked(), asked);
}

#[tokio::test]
async fn retries_end_when_their_budget_is_used_up() {
    let node = FakeNode::start().await;
    let orchestrator = FakeOrchestrator::start(Some(node.control())).await;
    orchestrator.be(Mood::Busy);
    let urls = format!("{},http://127.0.0.1:1,http://127.0.0.1:2", orchestrator.url());
    let cluster = Cluster::start_between(node, orchestrator, &urls, &[]).await;
    let joins = (0..200).map(|room| {
        let cluster = &cluster;
        async move { join(cluster, &format!("room{room}")).await.status() }
    });
    let answers = futures_util::future::join_all(joins).await;
    assert!(answers.iter().all(|status| *status == 503));
    assert!(cluster.metric("retry_budget_exhausted_total").await > 0);
    assert!(
        cluster
            .metric(&metric_of(&cluster.orchestrator, "requests_total"))
            .await
            < 200 + 150
    );
}

#[tokio::test]
async fn the_first_of_several_cluster_secrets_is_used() {
    let node = FakeNode::start().await;
    let orchestrator = FakeOrchestrator::start(Some(node.control())).await;
    let urls = orchestrator.url().to_owned();
    let secrets = format!("{},the secret that was before", crate::cluster::SECRET);
    let cluster = Cluster::start_between(node, orchestrator, &urls, &["--cluster-secret", &secrets]).await;
    cluster.join().await;
}
