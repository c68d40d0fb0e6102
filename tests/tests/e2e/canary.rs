//! A new version that takes no joins is withdrawn by itself.

use e2e::cluster::{CLUSTER_SECRET, Cluster};
use e2e::eventually;
use e2e::fake_node::FakeNode;
use e2e::load::{Outcome, join};
use futures_util::future::join_all;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use signalbox_protocol::canary::{Canary, ChangedBy, Compared};
use signalbox_protocol::placement::Track;

async fn canary(cluster: &Cluster, method: Method, body: Option<Value>) -> Canary {
    let mut request = Client::new()
        .request(method, format!("{}/v1/canary", cluster.orchestrator))
        .bearer_auth(CLUSTER_SECRET);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap().error_for_status().unwrap();
    answer.json().await.unwrap()
}

/// So many users, each in a room of its own.
async fn joins(cluster: &Cluster, wave: &str, count: usize) -> Vec<Outcome> {
    let http = Client::new();
    let all = (0..count).map(|n| {
        let (http, gateway) = (http.clone(), &cluster.gateways[n % cluster.gateways.len()].url);
        async move {
            join(&http, gateway, &format!("{wave}-{n}"), &format!("guest-{n}"))
                .await
                .outcome
        }
    });
    join_all(all).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_node_that_takes_no_joins_loses_its_share_and_new_rooms_go_to_stable_ones() {
    let mut cluster = Cluster::start(1).await;
    cluster.add_gateway().await.unwrap();
    // It renews its lease and answers the orchestrators, but takes no gateway's link.
    let deaf = FakeNode::start_on(Track::Canary, &[cluster.orchestrator.clone()]).await;
    let set = json!({"share": 0.5, "why": "version 2"});
    assert_eq!(canary(&cluster, Method::PUT, Some(set)).await.share, 0.5);

    let outcomes = joins(&cluster, "first", 100).await;
    let joined = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Joined(_)));
    let joined = joined.count();
    assert!(
        (20..80).contains(&joined),
        "half of the users are in the share: {joined}"
    );

    let after = eventually("the share is taken back", async || {
        let now = canary(&cluster, Method::GET, None).await;
        (now.by == ChangedBy::Rollback).then_some(now)
    })
    .await;
    assert_eq!(after.share, 0.0);
    assert_eq!(
        (after.history.len(), after.history[0].from, after.history[1].to),
        (2, 0.5, 0.5)
    );
    assert!(after.why.contains("joins on canary nodes"), "{}", after.why);
    assert_eq!(
        after.verdict.joins.result,
        Compared::TooFew,
        "nothing was counted since"
    );

    for outcome in joins(&cluster, "second", 40).await {
        match outcome {
            Outcome::Joined(media) => assert_ne!(media.node, deaf.id),
            other => panic!("{other:?}"),
        }
    }
}
