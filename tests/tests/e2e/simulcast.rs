//! Of several encodings of a picture one is forwarded, and a change of it looks like one stream to the receiver.

use e2e::client::Wish;
use e2e::cluster::Cluster;
use e2e::media::Ledger;
use serde_json::json;
use signalbox_protocol::room::Kind;

/// How many switches a handful of changes may take. Two layers forwarded at a time would be hundreds.
const FEW: usize = 6;

/// That the receiver cannot tell that there were several encodings.
fn is_one_stream(ledger: &Ledger) {
    assert_eq!(ledger.ssrcs.len(), 1);
    assert_eq!(ledger.gaps(), 0, "sequence numbers are continuous");
    let jumps = ledger.time_jumps(180_000);
    assert!(jumps.is_empty(), "timestamps grow steadily: {jumps:?}");
    let jumps = ledger.picture_id_jumps();
    assert!(jumps.is_empty(), "picture ids are continuous: {jumps:?}");
    let switches = ledger.switches();
    assert!(switches.len() <= FEW, "one layer at a time: {switches:?}");
    for (before, after) in switches {
        assert!(after.key, "a layer begins with a key frame: {before:?} {after:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_layer_is_forwarded_and_a_preference_switches_it() {
    let cluster = Cluster::start(1).await;
    let wish = Wish {
        announced: true,
        ..Wish::show("daily", "ann", &["q", "h", "f"])
    };
    let ann = cluster.join(&wish).await;
    let bob = cluster.join(&Wish::watch("daily", "bob")).await;
    let mid = bob.slot("ann", Kind::Video).await;
    bob.peer
        .until("a picture", |state| state.ledger(&mid).packets >= 30)
        .await;
    let track = bob.view().track("ann", Kind::Video).unwrap().clone();
    let rids: Vec<_> = track.layers.iter().map(|layer| layer.rid.as_str()).collect();
    assert_eq!(rids, ["q", "h", "f"], "lowest first");

    for (quality, layer) in [("low", 0), ("high", 2), ("medium", 1), ("low", 0)] {
        bob.prefer(track.id.as_str(), json!({"quality": quality}))
            .await
            .unwrap();
        let what = format!("the {quality} layer");
        bob.peer
            .until(&what, |state| {
                state
                    .ledger(&mid)
                    .latest()
                    .is_some_and(|latest| latest.mark.layer == layer)
            })
            .await;
        let before = bob.peer.state().ledger(&mid).packets_of(ann.sender, layer);
        bob.peer
            .until(&what, |state| {
                state.ledger(&mid).packets_of(ann.sender, layer) >= before + 60
            })
            .await;
    }
    bob.peer
        .until("nothing is missing", |state| state.ledger(&mid).gaps() == 0)
        .await;
    is_one_stream(bob.peer.state().ledger(&mid));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_subscriber_has_its_own_layer() {
    let cluster = Cluster::start(1).await;
    let ann = cluster.join(&Wish::show("daily", "ann", &["q", "h", "f"])).await;
    let (low, high) = (
        cluster.join(&Wish::watch("daily", "low")).await,
        cluster.join(&Wish::watch("daily", "high")).await,
    );
    for (client, quality, layer) in [(&low, "low", 0), (&high, "high", 2)] {
        let mid = client.slot("ann", Kind::Video).await;
        let track = client.view().track("ann", Kind::Video).unwrap().id.to_string();
        client.prefer(&track, json!({"quality": quality})).await.unwrap();
        client
            .peer
            .until(quality, |state| state.ledger(&mid).packets_of(ann.sender, layer) >= 60)
            .await;
        client
            .peer
            .until("nothing is missing", |state| state.ledger(&mid).gaps() == 0)
            .await;
        is_one_stream(client.peer.state().ledger(&mid));
    }
}
