//! Heartbeats at an orchestrator without sockets, on a paused clock.

use signalbox_protocol::{Epoch, Generation};

use super::*;
use crate::digests::EVERY;
use crate::harness::{Orchestrator, heartbeat, node, orchestrator, register, start};

const LEASE: Duration = Duration::from_secs(2);

async fn renewed(service: &Orchestrator, epoch: Epoch, beat: u64, rooms: Option<Vec<RoomDigest>>) -> Renewed {
    match service.beat(node(1), &heartbeat(epoch, beat, rooms)).await {
        Ok(Beat::Renewed(renewed)) => renewed,
        other => panic!("{other:?}"),
    }
}

fn digest(room: &str, generation: u64) -> RoomDigest {
    RoomDigest {
        room: room.parse().unwrap(),
        generation: Generation(generation),
    }
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_counts_once_and_not_after_its_epoch() {
    let (service, _) = orchestrator(&[]);
    start(&service).await;
    let epoch = register(&service, node(1)).await;
    assert_eq!(renewed(&service, epoch, 2, None).await.lease_ms, 2000);
    for beat in [2, 1] {
        let past = service.beat(node(1), &heartbeat(epoch, beat, None)).await;
        assert_eq!(past.unwrap(), Beat::Past);
    }
    let next = register(&service, node(1)).await;
    let over = service.beat(node(1), &heartbeat(epoch, 3, None)).await;
    assert_eq!(over.unwrap(), Beat::Over);
    renewed(&service, next, 1, None).await;
}

#[tokio::test(start_paused = true)]
async fn rooms_are_asked_for_compared_and_the_stale_ones_named() {
    let (service, _) = orchestrator(&[]);
    start(&service).await;
    let epoch = register(&service, node(1)).await;
    assert!(renewed(&service, epoch, 1, None).await.rooms_wanted);
    let lost = digest("lost in a failover", 3);
    let first = renewed(&service, epoch, 2, Some(vec![lost.clone()])).await;
    assert_eq!((first.rooms_wanted, first.stale), (false, vec![]));
    let found = service.store.find(&lost.room).await.unwrap().unwrap();
    assert_eq!(
        (found.node, found.epoch, found.generation),
        (node(1), epoch, Generation(3))
    );

    let stale = digest("lost in a failover", 2);
    let second = renewed(&service, epoch, 3, Some(vec![lost, stale.clone()])).await;
    assert_eq!(second.stale, [stale]);
}

#[tokio::test(start_paused = true)]
async fn rooms_are_asked_for_again_after_a_while_and_after_a_restart_of_the_database() {
    let (service, answers) = orchestrator(&[]);
    start(&service).await;
    let epoch = register(&service, node(1)).await;
    answers.set(node(1), Some(epoch));
    renewed(&service, epoch, 1, Some(Vec::new())).await;
    assert!(!renewed(&service, epoch, 2, None).await.rooms_wanted);
    service.store.restart();
    service
        .sight()
        .wait_for(|sight| sight.incarnation == "1")
        .await
        .unwrap();
    assert!(renewed(&service, epoch, 3, None).await.rooms_wanted);
    assert!(!renewed(&service, epoch, 4, Some(Vec::new())).await.rooms_wanted);
    tokio::time::sleep(EVERY).await;
    assert!(renewed(&service, epoch, 5, None).await.rooms_wanted);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_although_the_rooms_cannot_be_compared() {
    let (service, _) = orchestrator(&[]);
    start(&service).await;
    let epoch = register(&service, node(1)).await;
    service.store.mute("restore");
    let answer = renewed(&service, epoch, 1, Some(vec![digest("daily", 1)])).await;
    assert!(
        !answer.promised && answer.rooms_wanted && answer.stale.is_empty(),
        "{answer:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_database_that_hangs_is_as_one_that_is_away_and_the_answer_comes_in_time() {
    let (service, _) = orchestrator(&[]);
    start(&service).await;
    let epoch = register(&service, node(1)).await;
    service.store.delay(Duration::from_secs(60));
    let asked = Instant::now();
    assert!(renewed(&service, epoch, 1, None).await.promised);
    assert!(asked.elapsed() <= LEASE / 4, "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_orchestrator_that_was_started_in_an_outage_promises_too() {
    let (service, _) = orchestrator(&[]);
    service.store.outage(true);
    assert!(renewed(&service, Epoch(1), 1, None).await.promised);
}
