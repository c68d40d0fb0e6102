//! The HTTP tier carries no media.

use e2e::client::Wish;
use e2e::cluster::{Cluster, counter};

/// How many bytes of media flow before the counters are read again.
const MEDIA: u64 = 1_500_000;

/// What the event streams may add meanwhile: pings and their answers.
const CHATTER: u64 = 4_096;

async fn carried(admin: &str) -> u64 {
    let received = counter(admin, "signalbox_gateway_bytes_received_total").await.unwrap();
    received + counter(admin, "signalbox_gateway_bytes_sent_total").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_media_passes_through_the_gateway() {
    let cluster = Cluster::start(1).await;
    let ann = cluster.join(&Wish::show("daily", "ann", &["q", "h", "f"])).await;
    let bob = cluster.join(&Wish::watch("daily", "bob")).await;
    bob.peer.receives(ann.sender, 30).await;
    let admin = &cluster.gateways[0].admin;
    let before = carried(admin).await;
    assert!(before > 1_000, "the joins were counted: {before}");
    let arrived = |state: &e2e::peer::PeerState| state.ledgers.values().map(|ledger| ledger.bytes).sum::<u64>();
    let start = arrived(&bob.peer.state());
    bob.peer
        .until("much media", |state| arrived(state) >= start + MEDIA)
        .await;
    let added = carried(admin).await - before;
    assert!(
        added < CHATTER,
        "{MEDIA} bytes of media added {added} bytes at the gateway"
    );
}
