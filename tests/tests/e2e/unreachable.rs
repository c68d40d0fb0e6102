//! Nodes that are there for the orchestrators and not for anybody else.

use std::process::Stdio;

use e2e::eventually;
use e2e::fake_node::FakeNode;
use e2e::load::{Outcome, join};
use e2e::processes::{Processes, Shape, command, database, free_address};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_gateways_cannot_reach_is_given_no_new_rooms() {
    let Some(database) = database("unreachable").await.unwrap() else {
        return;
    };
    let all = Processes::start(&database, &Shape::new(2, 2).orchestrators(2))
        .await
        .unwrap();
    let deaf = FakeNode::start(&all.orchestrator_urls()).await;
    deaf.close_control();
    all.map(0).until_nodes(3).await;

    let http = reqwest::Client::new();
    let mut joins = 0;
    let mut next = async || {
        joins += 1;
        join(&http, &all.gateway(joins % 2), &format!("room-{joins}"), "ann")
            .await
            .outcome
    };
    eventually("it is ejected", async || {
        next().await;
        (all.map(0).node(deaf.id).await.ok()?.ejected_ms > 0).then_some(())
    })
    .await;
    for _ in 0..40 {
        match next().await {
            Outcome::Joined(media) => assert_ne!(media.node, deaf.id),
            other => panic!("{other:?}"),
        }
    }
    // Its lease goes on: it is not lost, and has not been fenced.
    let view = all.map(1).node(deaf.id).await.unwrap();
    assert!(view.live && view.ejected_ms > 0, "{view:?}");
    assert_eq!(deaf.view().fenced, 0);
    println!("ejected after {} joins", joins - 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_would_give_clients_a_private_address_is_refused() {
    let Some(database) = database("private").await.unwrap() else {
        return;
    };
    let shape = Shape::new(0, 0)
        .orchestrators(1)
        .orchestrator_flags(&["--require-public-media"]);
    let all = Processes::start(&database, &shape).await.unwrap();
    let control = free_address().unwrap().to_string();
    let orchestrator = all.orchestrators[0].url();
    let flags = |media: &str| {
        [
            "--control-listen",
            &control,
            "--media-bind",
            "127.0.0.1:0",
            "--media-ip",
            media,
            "--orchestrator",
            &orchestrator,
        ]
        .map(str::to_owned)
    };
    for private in ["127.0.0.1", "10.1.2.3", "192.168.1.2"] {
        let mut node = command("signalbox-media", &flags(private), &all.secret).unwrap();
        let output = tokio::task::spawn_blocking(move || node.stderr(Stdio::piped()).output().unwrap());
        let output = tokio::time::timeout(e2e::PATIENCE, output)
            .await
            .expect("it ends")
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{private}: {said}");
        assert!(said.contains(private) && said.contains("--media-ip"), "{said}");
    }
    assert_eq!(all.map(0).nodes().await.unwrap(), []);
}
