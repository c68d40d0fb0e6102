//! Event streams that break and go on, also elsewhere, and what they tell of connections.

use std::time::Duration;

use e2e::client::{Client, Wish};
use e2e::cluster::{Cluster, token};
use signalbox_protocol::room::ConnectionQuality;
use tokio::time::timeout;

/// Far longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads server-sent events until one of a type has come; returns its id.
async fn read_until(
    gateway: &str,
    client: &Client,
    identity: &str,
    last: Option<&str>,
    kind: &str,
) -> (String, Vec<String>) {
    let mut request = reqwest::Client::new()
        .get(format!("{gateway}{}", client.joined.events))
        .bearer_auth(token("daily", identity));
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let mut response = request.send().await.unwrap();
    let (mut text, mut kinds) = (String::new(), Vec::new());
    timeout(PATIENCE, async {
        loop {
            while let Some((block, rest)) = text.split_once("\n\n") {
                let field = |name: &str| {
                    block
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .map(str::to_owned)
                };
                let (id, event) = (field("id: "), field("event: "));
                text = rest.to_owned();
                if let (Some(id), Some(event)) = (id, event) {
                    kinds.push(event.clone());
                    if event == kind {
                        return (id, kinds);
                    }
                }
            }
            let chunk = response.chunk().await.unwrap().expect("the stream goes on");
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    })
    .await
    .expect("the event comes")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_at_its_gateway_and_begins_anew_at_another() {
    let mut cluster = Cluster::start(1).await;
    cluster.add_gateway().await.unwrap();
    let [one, two] = [0, 1].map(|index: usize| cluster.gateways[index].url.clone());
    let ann = cluster.join(&Wish::watch("daily", "ann")).await;
    let (last, _) = read_until(&one, &ann, "ann", None, "snapshot").await;
    let _bob = cluster.join(&Wish::watch("daily", "bob")).await;
    let (last, kinds) = read_until(&one, &ann, "ann", Some(&last), "joined").await;
    assert!(!kinds.contains(&"snapshot".to_owned()), "{kinds:?}");
    // Elsewhere nothing is known of that id; what is told meanwhile is told there.
    let (_, kinds) = read_until(&two, &ann, "ann", Some(&last), "snapshot").await;
    assert_eq!(kinds, ["snapshot"]);
    let _carl = cluster.join(&Wish::watch("daily", "carl")).await;
    // The first gateway has missed carl, and knows it.
    let (_, kinds) = read_until(&one, &ann, "ann", Some(&last), "snapshot").await;
    assert_eq!(kinds, ["snapshot"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_well_everyone_is_connected_is_told() {
    let cluster = Cluster::start(1).await;
    let ann = cluster.join(&Wish::call("daily", "ann")).await;
    let bob = cluster.join(&Wish::call("daily", "bob")).await;
    let id = ann.joined.participant.id.clone();
    bob.until("ann's connection is good", |view| {
        view.qualities
            .get(&id)
            .is_some_and(|quality| *quality <= ConnectionQuality::Good)
    })
    .await;
    assert_eq!(bob.view().media, Some(bob.joined.media));
}
