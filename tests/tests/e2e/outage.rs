//! PostgreSQL goes away, and comes back as it was.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use e2e::client::{Client, Wish};
use e2e::cluster::{counter, token};
use e2e::load::{Attempt, Load, Outcome, Tally};
use e2e::map::{Place, place};
use e2e::peer::Peer;
use e2e::postgres::{Durability, Postgres};
use e2e::processes::{Processes, Shape};
use signalbox_protocol::RoomName;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often a room that is known is joined, and how often a new one.
const TICK: Duration = Duration::from_millis(100);

/// How many rooms are known before.
const KNOWN: usize = 10;

/// How long everything is whole, before and after.
const WHOLE: Duration = Duration::from_secs(3);

/// How long media may stand still before it counts as interrupted. The client shares the processors with all else.
const STILL: Duration = Duration::from_secs(2);

/// How soon new rooms must work again.
const RECOVERY: Duration = Duration::from_secs(10);

/// Watches the packets that a peer gets from a sender.
struct Watch {
    stop: CancellationToken,
    samples: JoinHandle<Vec<(Instant, u64)>>,
}

impl Watch {
    fn start(peer: &Peer, sender: u32) -> Self {
        let (peer, stop) = (peer.clone(), CancellationToken::new());
        let stopped = stop.clone();
        let samples = tokio::spawn(async move {
            let mut samples = Vec::new();
            let mut ticks = tokio::time::interval(Duration::from_millis(100));
            while stopped.run_until_cancelled(ticks.tick()).await.is_some() {
                samples.push((Instant::now(), peer.state().packets_from(sender)));
            }
            samples
        });
        Self { stop, samples }
    }

    async fn stop(self) -> Packets {
        self.stop.cancel();
        Packets(self.samples.await.unwrap())
    }
}

/// How many packets had come by when.
struct Packets(Vec<(Instant, u64)>);

impl Packets {
    /// How many came between two times, and the longest time without one.
    fn between(&self, from: Instant, to: Instant) -> (u64, Duration) {
        let samples: Vec<_> = self.0.iter().filter(|(at, _)| (from..to).contains(at)).collect();
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
            return (0, to - from);
        };
        let (mut progress, mut longest) = (**first, Duration::ZERO);
        for (at, count) in &samples {
            longest = longest.max(*at - progress.0);
            if *count > progress.1 {
                progress = (*at, *count);
            }
        }
        (last.1 - first.1, longest)
    }
}

/// What the map says of every room.
async fn places(all: &Processes) -> BTreeMap<RoomName, Place> {
    let rooms = all.map(0).rooms().await.unwrap().into_iter();
    rooms
        .map(|room| (room.room, (room.node, room.epoch, room.generation)))
        .collect()
}

/// The attempts that ended before this time.
fn ended_before(attempts: &[Attempt], time: Instant) -> impl Iterator<Item = &Attempt> {
    attempts.iter().filter(move |attempt| attempt.at + attempt.took < time)
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_known_rooms_go_on_while_the_database_is_away() {
    let Some(mut postgres) = Postgres::start(Durability::Fsync).await.unwrap() else {
        return;
    };
    let away = Duration::from_secs(e2e::parameter("SIGNALBOX_TEST_OUTAGE_SECONDS", 6));
    // A room that nobody is in stays as long as the test: it joins without media.
    let shape = Shape::new(2, 3)
        .orchestrators(2)
        .node_flags(&["--empty-room-seconds", "600"]);
    let mut all = Processes::start(&postgres.url(), &shape).await.unwrap();
    let gateways = vec![all.gateway(0), all.gateway(1)];
    let mut calls = Vec::new();
    for (identity, gateway) in [("ann", &gateways[0]), ("bob", &gateways[1])] {
        let wish = Wish::call("call", identity);
        calls.push(Client::join(gateway, &token("call", identity), &wish).await.unwrap());
    }
    let [ann, bob] = &calls[..] else { unreachable!() };
    ann.peer.receives(bob.sender, 50).await;
    bob.peer.receives(ann.sender, 50).await;
    let packets = Watch::start(&bob.peer, ann.sender);

    let known = Load::start(gateways.clone(), TICK, |number| format!("known-{}", number % KNOWN));
    let new = Load::start(gateways, TICK, |number| format!("new-{number}"));
    let begin = Instant::now();
    tokio::time::sleep(WHOLE).await;
    let epochs = all.map(0).epochs().await.unwrap();
    let before = places(&all).await;

    let killed = Instant::now();
    postgres.kill().await.unwrap();
    let gone = Instant::now();
    tokio::time::sleep(away).await;
    // Past the gateways' memory, whose tickets outlast a short outage: an orchestrator that knew the room knows it still.
    for number in 0..KNOWN {
        let room: RoomName = format!("known-{number}").parse().unwrap();
        let answers = [all.map(0).place(&room).await, all.map(1).place(&room).await];
        let knows = answers
            .iter()
            .flatten()
            .any(|answer| before.get(&room) == Some(&place(answer)));
        assert!(knows, "{answers:?}");
    }
    let restarted = Instant::now();
    postgres.resume().await.unwrap();
    let room: RoomName = "after".parse().unwrap();
    e2e::eventually("a new room is placed", async || all.map(0).place(&room).await.ok()).await;
    tokio::time::sleep(WHOLE).await;
    let end = Instant::now();

    let (known, new, packets) = (known.stop().await, new.stop().await, packets.stop().await);
    // The last join that was refused, and the first after it.
    let works = new
        .iter()
        .rposition(|join| !matches!(join.outcome, Outcome::Joined(_)))
        .expect("some are refused")
        + 1;
    let works = new.get(works).expect("new rooms can be joined again").at;
    println!("PostgreSQL away for {:.1?}:", restarted - killed);
    for (phase, from, to) in [
        ("before", begin, killed),
        ("during", gone, restarted),
        ("until new rooms work", restarted, works),
        ("after", works, end),
    ] {
        let (count, still) = packets.between(from, to);
        println!("{phase} ({:.1?})", to - from);
        println!("  known rooms  {}", Tally::of(&known, from, to));
        println!("  new rooms    {}", Tally::of(&new, from, to));
        println!(
            "  media        {count:>6} packets, longest gap {:>4} ms",
            still.as_millis()
        );
    }
    println!(
        "new rooms work {:.1?} after the restart",
        works.saturating_duration_since(restarted)
    );

    let whole = Tally::of(&known, begin, end);
    assert_eq!(
        (whole.refused, whole.failed),
        (0, 0),
        "known rooms can be joined: {:?}",
        whole.failures
    );
    let unharmed = Tally::of(ended_before(&new, killed), begin, killed);
    assert!(unharmed.joined > 0 && unharmed.refused == 0, "{unharmed}");
    let refused = Tally::of(ended_before(&new, restarted), gone, restarted);
    assert!(refused.refused > 0 && refused.joined == 0, "{refused}");
    let failed = Tally::of(&new, begin, end).failures;
    assert!(failed.is_empty(), "new rooms are refused in order: {failed:?}");
    assert!(works < restarted + RECOVERY);
    let (count, still) = packets.between(begin, end);
    assert!(count > 0 && still < STILL, "media goes on: {still:?} without a packet");

    assert_eq!(all.map(0).epochs().await.unwrap(), epochs, "no node was fenced");
    for node in &all.nodes {
        let fenced = counter(&node.server.url(), "signalbox_media_fenced_total")
            .await
            .unwrap();
        assert_eq!(fenced, 0, "no node has fenced itself");
    }
    let after = places(&all).await;
    for (room, place) in &before {
        assert_eq!(after.get(room), Some(place), "{room} is where it was");
    }
    for client in &calls {
        assert_eq!(client.view().closed, None, "nobody was sent away");
        client
            .peer
            .receives(
                if client.sender == ann.sender {
                    bob.sender
                } else {
                    ann.sender
                },
                50,
            )
            .await;
    }
    for server in &mut all.orchestrators {
        server.terminate().await.unwrap();
    }
}
