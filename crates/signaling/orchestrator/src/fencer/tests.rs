//! The fencer in a running orchestrator, on a paused clock.

use signalbox_protocol::Epoch;
use signalbox_protocol::node::NodeState;

use super::*;
use crate::harness::{Orchestrator, heartbeat, node, orchestrator, register, start};
use crate::leases::Beat;
use crate::truce::LINGER;

const LEASE: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_millis(250);
const TICK: Duration = Duration::from_millis(50);

async fn is_lost(service: &Orchestrator, n: u128) -> bool {
    let nodes = service.store.nodes().await.unwrap();
    nodes
        .iter()
        .any(|view| view.node == node(n) && view.state == NodeState::Lost)
}

/// How long it takes until the node is fenced, at most so long.
async fn fenced_after(service: &Orchestrator, n: u128, most: Duration) -> Option<Duration> {
    let start = Instant::now();
    while start.elapsed() < most {
        if is_lost(service, n).await {
            return Some(start.elapsed());
        }
        tokio::time::sleep(TICK).await;
    }
    None
}

/// Lets the hold after the start pass.
async fn settled(service: &Orchestrator) {
    start(service).await;
    tokio::time::sleep(LEASE * 2).await;
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Renewed,
    Promised,
    Unavailable,
}
use Answer::{Promised, Renewed, Unavailable};

async fn beat(service: &Orchestrator, n: u128, epoch: Epoch, beat: u64) -> Answer {
    match service.beat(node(n), &heartbeat(epoch, beat, None)).await {
        Ok(Beat::Renewed(renewed)) if renewed.promised => Promised,
        Ok(Beat::Renewed(_)) => Renewed,
        Ok(other) => panic!("{other:?}"),
        Err(error) => {
            assert!(error.is_outage(), "{error}");
            Unavailable
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_fenced_soon_after_its_lease() {
    let (service, _) = orchestrator(&[]);
    settled(&service).await;
    register(&service, node(1)).await;
    let after = fenced_after(&service, 1, LEASE * 3).await.expect("it is fenced");
    assert!(after >= LEASE + GRACE && after <= LEASE * 2, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stands_still_is_fenced_soon_after_its_lease_whenever_it_was_heard_last() {
    let (service, answers) = orchestrator(&[]);
    settled(&service).await;
    let mut worst = Duration::ZERO;
    for n in 1..=20 {
        tokio::time::sleep(TICK / 2 * n as u32).await;
        let epoch = register(&service, node(n)).await;
        answers.set(node(n), Some(epoch));
        answers.freeze(node(n));
        let after = fenced_after(&service, n, LEASE * 3).await.expect("it is fenced");
        assert!(after >= LEASE + GRACE, "{after:?}");
        worst = worst.max(after);
    }
    println!("{worst:?} after it was heard last");
    assert!(worst <= LEASE + Duration::from_millis(700), "{worst:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_fenced_within_a_lease_of_the_start() {
    let (service, _) = orchestrator(&[]);
    register(&service, node(1)).await;
    tokio::time::sleep(LEASE * 2).await;
    start(&service).await;
    let after = fenced_after(&service, 1, LEASE * 3).await.expect("it is fenced");
    assert!(after >= LEASE, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_answers_that_it_holds_its_epoch_is_spared_until_it_does_not() {
    let (service, answers) = orchestrator(&[]);
    settled(&service).await;
    let epoch = register(&service, node(1)).await;
    answers.set(node(1), Some(epoch));
    register(&service, node(2)).await;
    assert!(
        fenced_after(&service, 2, LEASE * 3).await.is_some(),
        "one that does not answer is fenced"
    );
    assert_eq!(fenced_after(&service, 1, LEASE * 5).await, None);
    answers.set(node(1), None);
    assert!(fenced_after(&service, 1, LEASE * 2).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn in_an_outage_leases_are_promised_and_after_it_nobody_is_fenced_for_a_lease() {
    let (service, _) = orchestrator(&[]);
    settled(&service).await;
    let epoch = register(&service, node(1)).await;
    service.store.outage(true);
    for number in 1..=60 {
        assert_eq!(beat(&service, 1, epoch, number).await, Promised, "beat {number}");
        tokio::time::sleep(LEASE / 4).await;
    }
    assert!(!service.sight().borrow().reachable);
    service.store.outage(false);
    let after = fenced_after(&service, 1, LEASE * 3)
        .await
        .expect("it is silent from then on");
    assert!(after >= LEASE, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_promise_holds_although_the_map_is_there_for_the_fencer() {
    let (service, _) = orchestrator(&[]);
    settled(&service).await;
    let epoch = register(&service, node(1)).await;
    tokio::time::sleep(LEASE).await;
    service.store.mute("renew");
    // The renewal is carried out; only its answer is lost.
    assert_eq!(beat(&service, 1, epoch, 1).await, Promised);
    let after = fenced_after(&service, 1, LEASE * 3)
        .await
        .expect("it is silent from then on");
    assert!(after >= LEASE + GRACE, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_fence_whose_outcome_is_unknown_nothing_is_promised_until_the_map_has_answered() {
    let (service, answers) = orchestrator(&[]);
    settled(&service).await;
    register(&service, node(1)).await;
    let survivor = register(&service, node(2)).await;
    answers.set(node(2), Some(survivor));
    service.store.mute("fence_expired");
    assert!(fenced_after(&service, 1, LEASE * 3).await.is_some());
    service.store.unmute("fence_expired");

    service.store.outage(true);
    assert_eq!(beat(&service, 2, survivor, 1).await, Unavailable);
    tokio::time::sleep(LINGER * 2).await;
    assert_eq!(
        beat(&service, 2, survivor, 2).await,
        Unavailable,
        "time alone does not tell"
    );
    service.store.outage(false);
    tokio::time::sleep(LEASE).await;
    assert_eq!(beat(&service, 2, survivor, 3).await, Renewed);
    service.store.outage(true);
    assert_eq!(beat(&service, 2, survivor, 4).await, Promised);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_of_the_database_nobody_is_fenced_for_a_lease() {
    let (service, _) = orchestrator(&[]);
    settled(&service).await;
    register(&service, node(1)).await;
    tokio::time::sleep(LEASE).await;
    service.store.restart();
    let after = fenced_after(&service, 1, LEASE * 3).await.expect("it is fenced");
    assert!(after >= LEASE, "{after:?}");
    assert_eq!(service.sight().borrow().incarnation, "1");
}

#[tokio::test(start_paused = true)]
async fn orchestrators_of_one_map_are_counted() {
    let (service, _) = orchestrator(&[]);
    settled(&service).await;
    service.store.look("b", LEASE).await.unwrap();
    tokio::time::sleep(LEASE / 2).await;
    assert_eq!(service.sight().borrow().orchestrators, 2);
    tokio::time::sleep(LEASE).await;
    assert_eq!(service.sight().borrow().orchestrators, 1);
}
