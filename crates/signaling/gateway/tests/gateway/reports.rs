//! What the gateway tells the orchestrators about nodes that fail.

use reqwest::Method;
use signalbox_protocol::canary::Tally;
use signalbox_protocol::control::RefusalReason;
use signalbox_protocol::node::{Complaint, Verdict};
use signalbox_protocol::{Epoch, NodeId};

use crate::cluster::{Cluster, JOIN, OFFER, eventually, token};

/// Nobody listens there: port 1 of the loopback.
const NOWHERE: &str = "ws://127.0.0.1:1";

async fn join(cluster: &Cluster, room: &str) -> u16 {
    join_as(cluster, room, "ann").await
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_is_reported_once_for_many_joins() {
    let cluster = Cluster::start().await;
    cluster.orchestrator.place_on(Some(NOWHERE.into()));
    for room in ["a", "b", "c"] {
        assert_eq!(join(&cluster, room).await, 503);
    }
    cluster.orchestrator.saw_reports(1).await;
    let reports = cluster.orchestrator.reports();
    assert_eq!(reports.len(), 1, "{reports:?}");
    let (node, report) = &reports[0];
    assert_eq!(*node, NodeId(Default::default()));
    assert_eq!((report.epoch, report.complaint), (Epoch(1), Complaint::Unreachable));
    assert_eq!(cluster.metric("node_reports_total").await, 1);
}

#[tokio::test]
async fn when_the_orchestrator_does_not_reach_it_either_its_other_rooms_are_asked_for_anew() {
    for answers in [true, false] {
        let cluster = Cluster::start().await;
        // So long that only forgetting makes it ask anew.
        cluster.orchestrator.sign_for(3600);
        let ejected = false;
        cluster.orchestrator.judge(Verdict { answers, ejected });
        assert_eq!(join(&cluster, "a").await, 201);
        cluster.orchestrator.place_on(Some(NOWHERE.into()));
        assert_eq!(join(&cluster, "b").await, 503);
        cluster.orchestrator.saw_reports(1).await;
        cluster.orchestrator.place_on(Some(cluster.node.control()));
        let asked = cluster.orchestrator.asked();
        if answers {
            assert_eq!(join(&cluster, "a").await, 201);
            assert_eq!(cluster.orchestrator.asked(), asked);
        } else {
            eventually("a new question", async {
                while cluster.orchestrator.asked() == asked {
                    assert_eq!(join(&cluster, "a").await, 201);
                }
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_node_on_which_five_joins_in_a_row_fail_is_reported() {
    let cluster = Cluster::start().await;
    cluster.node.refuse([RefusalReason::Internal; 4]);
    for _ in 0..4 {
        assert_eq!(join(&cluster, "a").await, 500);
    }
    assert_eq!(join(&cluster, "a").await, 201);
    cluster.node.refuse([RefusalReason::Internal; 5]);
    for _ in 0..4 {
        assert_eq!(join(&cluster, "a").await, 500);
    }
    assert_eq!(cluster.metric("node_reports_total").await, 0);
    assert_eq!(join(&cluster, "a").await, 500);
    cluster.orchestrator.saw_reports(1).await;
    assert_eq!(cluster.orchestrator.reports()[0].1.complaint, Complaint::JoinsFail);
}

#[tokio::test]
async fn a_node_that_refuses_is_not_reported() {
    let cluster = Cluster::start().await;
    for reason in [
        RefusalReason::Full,
        RefusalReason::Ticket,
        RefusalReason::Closing,
        RefusalReason::Sdp,
        RefusalReason::Overloaded,
    ] {
        for _ in 0..6 {
            cluster.node.refuse([reason]);
            cluster.send_json(Method::POST, JOIN, OFFER).await;
        }
    }
    assert_eq!(cluster.metric("node_reports_total").await, 0);
    assert_eq!(cluster.orchestrator.reports(), []);
}

/// Joins as somebody, and says how it ended.
async fn join_as(cluster: &Cluster, room: &str, identity: &str) -> u16 {
    let response = cluster
        .bare(Method::POST, &format!("/v1/rooms/{room}/join"))
        .bearer_auth(token(room, identity))
        .header("content-type", "application/json")
        .body(OFFER)
        .send()
        .await
        .unwrap();
    response.status().as_u16()
}

/// Waits until the orchestrator was told so much, and that it was told no more.
async fn was_told(cluster: &Cluster, ok: u64, failed: u64) {
    let mut outcomes = cluster.orchestrator.outcomes();
    eventually("the outcomes", async {
        outcomes.wait_for(|told| told.all() >= ok + failed).await.unwrap();
    })
    .await;
    assert_eq!(*outcomes.borrow(), Tally { ok, failed });
}

#[tokio::test]
async fn what_came_of_joins_is_told_by_whose_fault_it_was() {
    let cluster = Cluster::start().await;
    assert_eq!(join_as(&cluster, "a", "ann").await, 201);
    // The client's own, and what is no fault of the node's.
    for reason in [RefusalReason::Sdp, RefusalReason::NotPermitted, RefusalReason::Full] {
        cluster.node.refuse([reason]);
        join_as(&cluster, "a", "bob").await;
    }
    cluster.node.refuse([RefusalReason::Internal]);
    assert_eq!(join_as(&cluster, "a", "carl").await, 500);
    // Full, and then not: that one has joined.
    was_told(&cluster, 2, 1).await;
    cluster.orchestrator.place_on(Some(NOWHERE.into()));
    assert_eq!(join_as(&cluster, "b", "dora").await, 503);
    was_told(&cluster, 2, 2).await;
}

#[tokio::test]
async fn who_fails_again_and_again_is_told_of_once() {
    let cluster = Cluster::start().await;
    for _ in 0..3 {
        cluster.node.refuse([RefusalReason::Internal]);
        assert_eq!(join_as(&cluster, "a", "ann").await, 500);
    }
    cluster.node.refuse([RefusalReason::Internal]);
    assert_eq!(join_as(&cluster, "a", "bob").await, 500);
    assert_eq!(join_as(&cluster, "a", "ann").await, 201);
    was_told(&cluster, 1, 2).await;
}
