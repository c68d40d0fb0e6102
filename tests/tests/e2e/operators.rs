//! What an operator types against a running cluster.

use std::process::Stdio;

use e2e::cluster::CLUSTER_SECRET;
use e2e::load::{Outcome, join};
use e2e::processes::{Processes, Shape, command, database};
use serde_json::Value;
use signalbox_protocol::history::{RoomEvent, RoomPlacement};
use signalbox_protocol::node::NodeList;
use signalbox_protocol::placement::{Policy, RoomList};

/// Runs `signalbox` with these arguments; exit code, output and errors.
fn signalbox(all: &Processes, arguments: &[&str]) -> (Option<i32>, String, String) {
    let orchestrator = all.orchestrators[0].url();
    let arguments: Vec<String> = arguments
        .iter()
        .copied()
        .chain(["--orchestrator", &orchestrator])
        .map(str::to_owned)
        .collect();
    let mut command = command("signalbox", &arguments, &all.secret).unwrap();
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn printed(all: &Processes, arguments: &[&str]) -> String {
    let (code, output, errors) = signalbox(all, arguments);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{arguments:?}: {output}");
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_rooms_and_why_a_room_is_where_it_is() {
    let Some(database) = database("operators").await.unwrap() else {
        return;
    };
    let all = Processes::start(&database, &Shape::new(1, 2)).await.unwrap();
    let http = reqwest::Client::new();
    let Outcome::Joined(media) = join(&http, &all.gateway(0), "daily", "ann").await.outcome else {
        panic!("the join succeeds");
    };

    let table = printed(&all, &["nodes"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    for node in &all.nodes {
        let line = table.lines().find(|line| line.contains(&node.id.to_string()));
        assert!(
            line.is_some_and(|line| line.contains("serving") && line.contains("stable")),
            "{table}"
        );
    }
    let nodes: NodeList = serde_json::from_str(&printed(&all, &["nodes", "--json"])).unwrap();
    assert_eq!(nodes.nodes.len(), 2);

    let table = printed(&all, &["rooms"]);
    let line = table
        .lines()
        .find(|line| line.contains("daily"))
        .unwrap_or_else(|| panic!("{table}"));
    assert!(line.contains(&media.node.to_string()), "{table}");
    let rooms: RoomList = serde_json::from_str(&printed(&all, &["rooms", "--json"])).unwrap();
    assert_eq!((rooms.rooms.len(), rooms.rooms[0].node), (1, media.node));

    let why = printed(&all, &["rooms", "why", "daily"]);
    for text in [media.node.to_string(), "two-choices".to_owned(), "daily".to_owned()] {
        assert!(why.contains(&text), "{text} in {why}");
    }
    let why: RoomPlacement = serde_json::from_str(&printed(&all, &["rooms", "why", "daily", "--json"])).unwrap();
    assert_eq!((why.now.node, why.now.generation), (media.node, media.generation));
    assert_eq!(why.history[0].event, RoomEvent::Placed);
    assert_eq!(why.history[0].reasons.as_ref().unwrap().candidates.len(), 2);

    let (code, output, errors) = signalbox(&all, &["rooms", "why", "nowhere"]);
    assert_eq!((code, output.as_str()), (Some(1), ""), "{errors}");
    assert!(errors.contains("nowhere"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_orchestrator_describes_its_interface() {
    let Some(database) = database("openapi").await.unwrap() else {
        return;
    };
    let all = Processes::start(&database, &Shape::new(0, 0)).await.unwrap();
    let url = format!("{}/openapi.json", all.orchestrators[0].url());
    let document: Value = reqwest::get(url)
        .await
        .unwrap()
        .error_for_status()
        .unwrap()
        .json()
        .await
        .unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."), "{document}");
    for path in ["/v1/nodes", "/v1/rooms", "/v1/rooms/{room}/placement", "/v1/placements"] {
        assert!(document["paths"][path].is_object(), "{path}");
    }
}

#[test]
fn a_policy_that_does_not_exist_is_refused_with_those_that_do() {
    let flags = ["--memory", "--listen", "127.0.0.1:0", "--policy", "fastest"].map(str::to_owned);
    let mut orchestrator = command("signalbox-orchestrator", &flags, CLUSTER_SECRET).unwrap();
    let output = orchestrator.stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for policy in Policy::ALL {
        assert!(said.contains(policy.name()), "{policy} in {said}");
    }
}
