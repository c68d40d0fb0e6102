//! The database goes away and comes back, seen through a relay that can be cut, stalled and closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::*;

/// What the relay does with connections.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    /// Relays.
    Open,
    /// Passes nothing on, as if the host had vanished.
    Stalled,
    /// Ends all connections, and new ones at once.
    Closed,
}

/// Stands between a store and the database.
struct Relay {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
}

impl Relay {
    async fn start(server: (String, u16)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, modes) = watch::channel(Mode::Open);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, server.clone(), modes.clone()));
            }
        });
        Self { address, mode }
    }

    /// Ends all connections, as a restart of the server does, and lets new ones through.
    async fn cut(&self) {
        self.mode.send_replace(Mode::Closed);
        // Each connection's task has let go of its end of the channel once it has seen that.
        while self.mode.receiver_count() > 1 {
            tokio::task::yield_now().await;
        }
        self.mode.send_replace(Mode::Open);
    }
}

async fn relay(client: TcpStream, server: (String, u16), mut modes: watch::Receiver<Mode>) {
    if *modes.borrow_and_update() == Mode::Closed {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
    let (up, down) = (modes.clone(), modes.clone());
    tokio::select! {
        () = pass(client_in, server_out, up) => {}
        () = pass(server_in, client_out, down) => {}
        _ = modes.wait_for(|mode| *mode == Mode::Closed) => {}
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut modes: watch::Receiver<Mode>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let open = modes.wait_for(|mode| *mode != Mode::Stalled).await.is_ok();
        if !open || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// A store that reaches its database through a relay, and has a node.
async fn relayed(timeout: Duration) -> Option<(Arc<PostgresStore>, Relay, NodeId)> {
    let options = fresh_schema().await?;
    let relay = Relay::start((options.get_host().to_owned(), options.get_port())).await;
    let options = options.host("127.0.0.1").port(relay.address.port());
    let store = Arc::new(PostgresStore::with_options(options, timeout));
    store.open().await.unwrap();
    let node = new_node();
    register(&*store, &node, LONG).await;
    Some((store, relay, node.node))
}

/// Calls that occupy many connections at once, so that many are idle afterwards.
async fn occupy_connections(store: &PostgresStore) {
    let calls = (0..MAX_CONNECTIONS * 2).map(|_| store.nodes());
    for nodes in futures_util::future::join_all(calls).await {
        nodes.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_of_the_server_no_call_that_can_be_repeated_fails() {
    let Some((store, relay, node)) = relayed(PATIENT).await else {
        return;
    };
    for round in 0..3 {
        occupy_connections(&store).await;
        relay.cut().await;
        for n in 0..20 {
            let name = room(&format!("room-{round}-{n}"));
            let (candidates, placed) =
                tokio::join!(store.candidates(MARGIN), store.place(proposal(&name, node), MARGIN));
            assert_eq!(candidates.unwrap().len(), 1);
            assert!(matches!(placed.unwrap(), Placed::New(_)));
            assert!(store.find(&name).await.unwrap().is_some());
        }
    }
    remove(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_of_the_server_at_most_one_call_that_cannot_be_repeated_fails() {
    let Some((store, relay, node)) = relayed(PATIENT).await else {
        return;
    };
    let mut placed = Vec::new();
    for n in 0..20 {
        let name = room(&format!("room-{n}"));
        if let Placed::New(assignment) = store.place(proposal(&name, node), MARGIN).await.unwrap() {
            placed.push(assignment);
        }
    }
    occupy_connections(&store).await;
    relay.cut().await;
    let mut failed = 0;
    for assignment in &placed {
        let owner = CloseRoom {
            node: assignment.node,
            epoch: assignment.epoch,
            generation: assignment.generation,
        };
        match store.close(&assignment.room, &owner, "test").await {
            Ok(closed) => assert!(closed),
            Err(error) => {
                assert!(error.is_outage(), "{error}");
                failed += 1;
            }
        }
    }
    assert!(failed <= 1, "{failed} failed");
    remove(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_host_vanishes_calls_end_as_outages_and_succeed_once_it_is_back() {
    let Some((store, relay, node)) = relayed(Duration::from_secs(2)).await else {
        return;
    };
    occupy_connections(&store).await;
    relay.mode.send_replace(Mode::Stalled);
    let begun = Instant::now();
    let (name, nobody) = (room("daily"), BTreeSet::new());
    let (found, placed, nodes, fenced, renewed) = tokio::join!(
        store.find(&name),
        store.place(proposal(&name, node), MARGIN),
        store.nodes(),
        store.fence_expired(&LOOSE, &nobody),
        store.renew(node, Epoch(1), 1, NodeLoad::default(), LONG),
    );
    assert!(found.unwrap_err().is_outage());
    assert!(placed.unwrap_err().is_outage());
    assert!(nodes.unwrap_err().is_outage());
    assert!(fenced.unwrap_err().is_outage());
    assert!(renewed.unwrap_err().is_outage());
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());

    relay.mode.send_replace(Mode::Open);
    let placed = store.place(proposal(&name, node), MARGIN).await.unwrap();
    // What was cut off before may have been carried out when the host came back.
    assert!(matches!(placed, Placed::New(_) | Placed::Existing(_)));
    remove(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_refuses_connections_calls_fail_at_once() {
    let Some((store, relay, node)) = relayed(PATIENT).await else {
        return;
    };
    occupy_connections(&store).await;
    relay.mode.send_replace(Mode::Closed);
    let begun = Instant::now();
    for n in 0..50 {
        let name = room(&format!("room-{n}"));
        assert!(store.find(&name).await.unwrap_err().is_outage());
        assert!(
            store
                .place(proposal(&name, node), MARGIN)
                .await
                .unwrap_err()
                .is_outage()
        );
    }
    assert!(begun.elapsed() < PATIENT, "{:?}", begun.elapsed());
    relay.mode.send_replace(Mode::Open);
    assert!(store.find(&room("daily")).await.unwrap().is_none());
    remove(&store).await;
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_an_outage() {
    let Some(store) = fresh().await else { return };
    let options = store.options.clone().options([("default_transaction_read_only", "on")]);
    let standby = PostgresStore::with_options(options, PATIENT);
    assert!(standby.open().await.unwrap_err().is_outage());
    standby.ready.store(true, Ordering::Release);
    let node = new_node();
    assert!(standby.register(&node, LONG).await.unwrap_err().is_outage());
    let placed = standby.place(proposal(&room("daily"), node.node), MARGIN).await;
    assert!(placed.unwrap_err().is_outage());
    remove(&store).await;
}
