//! What the room map in PostgreSQL can do, measured: `cargo bench -p signalbox-orchestrator --bench room_map`.
//!
//! `SIGNALBOX_TEST_DATABASE_URL` names a database, in which it makes a schema of its own and removes it afterwards. To be
//! comparable: PostgreSQL on the same machine, `fsync` on, nothing else running. Each figure is the median of three runs.
//! Words after `--` choose the lines whose names contain one of them.
//!
//! The last lines let nodes appear and go at random while rooms are placed, once with the predicate that the store uses
//! and once with the one that looks right: the second must show live rooms taken over, or the check proves nothing.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use signalbox_orchestrator::Error;
use signalbox_orchestrator::placement::Wish;
use signalbox_orchestrator::store::postgres::storm::{self, Storm, about, proposal};
use signalbox_orchestrator::store::postgres::{PostgresStore, sql};
use signalbox_orchestrator::store::{Assignment, Placed, Proposal, Registration, Store};
use signalbox_protocol::history::Considered;
use signalbox_protocol::node::NodeLoad;
use signalbox_protocol::{Epoch, Generation, NodeId, RoomName};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, Postgres};
use sqlx::query::Query;
use sqlx::types::{Json, Uuid};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, Row};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

const URL: &str = "SIGNALBOX_TEST_DATABASE_URL";

/// How often each figure is measured, and for how long.
const RUNS: usize = 3;
const RUN: Duration = Duration::from_secs(3);

const LEASE: Duration = Duration::from_secs(3600);
const MARGIN: Duration = Duration::from_millis(500);

/// Nodes that rooms are placed on.
const NODES: usize = 100;

/// Database clients where the store is left out.
const CLIENTS: usize = 64;

const MONOTONE: &str = "EXISTS (SELECT 1 FROM media_node o WHERE o.node_id = r.node_id AND o.epoch > r.node_epoch)";
const NAIVE: &str = "NOT EXISTS (SELECT 1 FROM media_node o WHERE o.node_id = r.node_id AND o.epoch = r.node_epoch
                                  AND o.lease_until > clock_timestamp())";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // Cargo's tests run benchmarks too, without this flag, to see whether they start.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return println!("run it with `cargo bench -p signalbox-orchestrator --bench room_map`");
    }
    let Ok(url) = std::env::var(URL) else {
        return println!(
            "set {URL}, such as postgres://postgres@127.0.0.1:5432/postgres, to a database for the benchmark"
        );
    };
    let wanted = arguments
        .into_iter()
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let bench = Bench::new(&url, wanted).await;
        bench.all().await;
        bench.remove().await;
    });
}

struct Bench {
    options: PgConnectOptions,
    schema: String,
    store: Arc<PostgresStore>,
    nodes: Arc<Vec<(NodeId, Epoch)>>,
    /// Numbers that were used for nothing yet.
    next: Arc<AtomicU64>,
    wanted: Vec<String>,
}

impl Bench {
    async fn new(url: &str, wanted: Vec<String>) -> Self {
        let base: PgConnectOptions = url.parse().expect("a PostgreSQL URL");
        let schema = format!("signalbox_bench_{}", Uuid::new_v4().simple());
        execute(&base, format!("CREATE SCHEMA {schema}")).await;
        let separator = if url.contains('?') { '&' } else { '?' };
        let store = PostgresStore::new(&format!("{url}{separator}options=-csearch_path%3D{schema}"));
        let store = Arc::new(store.expect("a PostgreSQL URL"));
        store.open().await.expect("the schema is made");
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            let node = NodeId::random();
            let registration = store.register(&about(node), LEASE).await.expect("a registration");
            nodes.push((node, registration.held().expect("a new node")));
        }
        let session = [
            ("search_path", schema.as_str()),
            ("enable_seqscan", "off"),
            ("jit", "off"),
        ];
        Self {
            options: base.options(session),
            schema,
            store,
            nodes: Arc::new(nodes),
            next: Arc::default(),
            wanted,
        }
    }

    async fn remove(&self) {
        execute(&self.options, format!("DROP SCHEMA {} CASCADE", self.schema)).await;
    }

    async fn all(&self) {
        row("", "measured", "bar");
        self.single_statements().await;
        self.placements().await;
        self.reads().await;
        self.renewals().await;
        self.a_dead_node().await;
        self.storms().await;
    }

    fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| name.contains(wanted))
    }

    /// How often a second so many callers, each in a task of its own, get through their call.
    async fn rate<F>(
        &self,
        name: &str,
        bar: Option<f64>,
        callers: usize,
        call: impl Fn(usize) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        if !self.wants(name) {
            return;
        }
        let call = Arc::new(call);
        let mut rates = Vec::new();
        for _ in 0..RUNS {
            let begun = Instant::now();
            let mut tasks = JoinSet::new();
            for caller in 0..callers {
                let call = call.clone();
                tasks.spawn(async move {
                    let mut done = 0_u64;
                    while begun.elapsed() < RUN {
                        call(caller).await.expect("the database answers");
                        done += 1;
                    }
                    done
                });
            }
            let done: u64 = tasks.join_all().await.into_iter().sum();
            rates.push(done as f64 / begun.elapsed().as_secs_f64());
        }
        let bar = bar.map_or_else(String::new, |bar| format!(">= {bar:.0}/s"));
        row(name, &format!("{:.0}/s", median(rates)), &bar);
    }

    async fn single_statements(&self) {
        let connections = self.connections(CLIENTS).await;
        for (name, bar, rooms) in [
            ("place, one statement a room, 64 clients", Some(8000.0), u64::MAX),
            ("place, one statement a room, 64 clients on 100 hot rooms", None, 100),
        ] {
            let (connections, nodes, next) = (connections.clone(), self.nodes.clone(), self.next.clone());
            self.rate(name, bar, CLIENTS, move |client| {
                let (connections, number) = (connections.clone(), next.fetch_add(1, Ordering::Relaxed));
                let proposal = with_reasons(proposal(&room(number % rooms), nodes[number as usize % NODES].0));
                async move {
                    let mut connection = connections[client].lock().await;
                    place(sql::PLACE, &proposal).fetch_optional(&mut *connection).await?;
                    Ok(())
                }
            })
            .await;
        }
    }

    async fn placements(&self) {
        for callers in [1, 64, 256, 1024] {
            let bar = (callers >= 256).then_some(25_000.0);
            let name = format!("place through the store, {callers} callers");
            self.place_through_store(&name, bar, callers, u64::MAX).await;
        }
        let name = "place through the store, 256 callers on 100 hot rooms";
        self.place_through_store(name, None, 256, 100).await;
    }

    async fn place_through_store(&self, name: &str, bar: Option<f64>, callers: usize, rooms: u64) {
        let (store, nodes, next) = (self.store.clone(), self.nodes.clone(), self.next.clone());
        self.rate(name, bar, callers, move |_| {
            let (store, number) = (store.clone(), next.fetch_add(1, Ordering::Relaxed));
            let proposal = with_reasons(proposal(&room(number % rooms), nodes[number as usize % NODES].0));
            async move { store.place(proposal, MARGIN).await.map(drop) }
        })
        .await;
    }

    async fn reads(&self) {
        const ROOMS: u64 = 10_000;
        let calls = (0..ROOMS).map(|number| {
            let node = self.nodes[number as usize % NODES].0;
            let store = self.store.clone();
            async move { store.place(proposal(&room(number), node), MARGIN).await.map(drop) }
        });
        finish(calls).await;
        for callers in [1, 64, 256, 1024] {
            let bar = (callers >= 64).then_some(20_000.0);
            let (store, next) = (self.store.clone(), AtomicU64::new(0));
            self.rate(
                &format!("find through the store, {callers} callers"),
                bar,
                callers,
                move |_| {
                    let (store, number) = (store.clone(), next.fetch_add(7919, Ordering::Relaxed));
                    async move {
                        let found = store.find(&room(number % ROOMS)).await?;
                        assert!(found.is_some(), "it was placed");
                        Ok(())
                    }
                },
            )
            .await;
        }
        let connections = self.connections(CLIENTS).await;
        let next = AtomicU64::new(0);
        self.rate("find, one statement a room, 64 clients", None, CLIENTS, move |client| {
            let (connections, number) = (connections.clone(), next.fetch_add(7919, Ordering::Relaxed));
            async move {
                let mut connection = connections[client].lock().await;
                let find = sqlx::query(sql::FIND).bind(room(number % ROOMS).to_string());
                find.fetch_one(&mut *connection).await?;
                Ok(())
            }
        })
        .await;
    }

    async fn renewals(&self) {
        let beats = Arc::new(AtomicU64::new(1));
        let connections = self.connections(CLIENTS).await;
        let (nodes, beat) = (self.nodes.clone(), beats.clone());
        self.rate(
            "renew, one statement a node, 64 clients",
            None,
            CLIENTS,
            move |client| {
                let (connections, beat) = (connections.clone(), beat.fetch_add(1, Ordering::Relaxed) as i64);
                let (node, epoch) = nodes[client];
                async move {
                    let mut connection = connections[client].lock().await;
                    sqlx::query(sql::nodes::RENEW)
                        .bind(vec![node.0])
                        .bind(vec![epoch.0 as i64])
                        .bind(vec![beat])
                        .bind(vec![Json(NodeLoad::default())])
                        .bind(vec![LEASE.as_secs_f64()])
                        .fetch_one(&mut *connection)
                        .await?;
                    Ok(())
                }
            },
        )
        .await;
        let (store, nodes) = (self.store.clone(), self.nodes.clone());
        self.rate("renew through the store, 100 nodes", None, NODES, move |caller| {
            let (store, beat) = (store.clone(), beats.fetch_add(1, Ordering::Relaxed));
            let (node, epoch) = nodes[caller];
            async move {
                store
                    .renew(node, epoch, beat, NodeLoad::default(), LEASE)
                    .await
                    .map(drop)
            }
        })
        .await;
    }

    async fn a_dead_node(&self) {
        const ROOMS: u64 = 10_000;
        let name = "10,000 rooms off a dead node, through the store";
        if !self.wants(name) {
            return;
        }
        let mut times = Vec::new();
        for _ in 0..RUNS {
            let first = self.next.fetch_add(ROOMS, Ordering::Relaxed);
            let node = NodeId::random();
            let registration = self.store.register(&about(node), LEASE).await;
            let epoch = registration.ok().and_then(Registration::held).expect("a registration");
            let placed = |candidate: NodeId, generation: u64| {
                let store = self.store.clone();
                (first..first + ROOMS).map(move |number| {
                    let (store, proposal) = (store.clone(), proposal(&room(number), candidate));
                    async move {
                        let placed = store.place(with_reasons(proposal), MARGIN).await?;
                        assert!(matches!(placed, Placed::New(new) if new.generation.0 == generation));
                        Ok(())
                    }
                })
            };
            finish(placed(node, 1)).await;
            let begun = Instant::now();
            assert!(self.store.release(node, epoch).await.expect("the database answers"));
            finish(placed(self.nodes[0].0, 2)).await;
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
        row(name, &format!("{:.0} ms", median(times)), "");
    }

    async fn storms(&self) {
        let storm = Storm {
            nodes: 16,
            rooms: 100,
            takers: CLIENTS,
            breakers: 8,
            take_overs: 16_000,
            seed: 7,
        };
        let naive: &'static str = sql::PLACE.replacen(MONOTONE, NAIVE, 1).leak();
        assert_ne!(naive, sql::PLACE, "the predicate is found");
        for (name, statement, bar) in [
            ("live rooms taken over under load, store", None, "0"),
            (
                "live rooms taken over under load, single statements",
                Some(sql::PLACE),
                "0",
            ),
            ("live rooms taken over under load, naive predicate", Some(naive), "> 0"),
        ] {
            if !self.wants(name) {
                continue;
            }
            execute(&self.options, "DELETE FROM room; DELETE FROM room_history".to_owned()).await;
            let begun = Instant::now();
            let damage = match statement {
                None => {
                    let store = self.store.clone();
                    let place = move |proposal| place_by_store(store.clone(), proposal);
                    storm::run(self.store.clone(), storm, place).await
                }
                Some(statement) => {
                    let (connections, turn) = (self.connections(CLIENTS).await, Arc::new(AtomicUsize::new(0)));
                    let place = move |proposal| {
                        let client = turn.fetch_add(1, Ordering::Relaxed) % CLIENTS;
                        place_by_statement(statement, connections.clone(), client, proposal)
                    };
                    storm::run(self.store.clone(), storm, place).await
                }
            };
            let damage = damage.expect("the database answers");
            let of = format!("{} of {}", damage.live, damage.take_overs);
            row(name, &of, bar);
            let seconds = begun.elapsed().as_secs_f64();
            println!(
                "    in {seconds:.1} s; generations missing or given twice: {}",
                damage.gaps
            );
        }
    }

    /// Connections of one's own, one for each client.
    async fn connections(&self, count: usize) -> Arc<Vec<Mutex<PgConnection>>> {
        let mut connections = Vec::new();
        for _ in 0..count {
            connections.push(Mutex::new(self.options.connect().await.expect("the database answers")));
        }
        Arc::new(connections)
    }
}

async fn place_by_store(store: Arc<PostgresStore>, proposal: Proposal) -> Result<Option<Assignment>, Error> {
    match store.place(proposal, MARGIN).await? {
        Placed::New(assignment) => Ok(Some(assignment)),
        Placed::Existing(_) | Placed::Refused => Ok(None),
    }
}

async fn place_by_statement(
    statement: &'static str,
    connections: Arc<Vec<Mutex<PgConnection>>>,
    client: usize,
    proposal: Proposal,
) -> Result<Option<Assignment>, Error> {
    let mut connection = connections[client].lock().await;
    let row = place(statement, &proposal).fetch_optional(&mut *connection).await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Assignment {
        room: proposal.room,
        node: NodeId(row.try_get("node_id")?),
        epoch: Epoch(row.try_get::<i64, _>("node_epoch")? as u64),
        generation: Generation(row.try_get::<i64, _>("generation")? as u64),
        control: row.try_get("control")?,
    }))
}

fn place(statement: &'static str, proposal: &Proposal) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(statement)
        .bind(proposal.room.to_string())
        .bind(proposal.candidate.0)
        .bind(MARGIN.as_secs_f64())
        .bind(proposal.by.clone())
        .bind(Json(proposal.reasons.clone()))
        .bind(proposal.group.clone())
        .bind(proposal.avoid.clone())
        .bind(None::<Json<Wish>>)
}

fn room(number: u64) -> RoomName {
    format!("room-{number}").parse().expect("a room's name")
}

/// As many candidates as a small cluster has.
fn with_reasons(mut proposal: Proposal) -> Proposal {
    let considered = |n: u32| Considered {
        node: proposal.candidate,
        region: "eu".into(),
        score: f64::from(n) / 10.0,
        filtered: None,
    };
    proposal.reasons.candidates = (1..=3).map(considered).collect();
    proposal
}

/// All calls, a thousand at once.
async fn finish<F>(calls: impl Iterator<Item = F>)
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let mut tasks = JoinSet::<Result<(), Error>>::new();
    for call in calls {
        if tasks.len() >= 1000 {
            let done = tasks.join_next().await.expect("there are some");
            done.expect("no panic").expect("the database answers");
        }
        tasks.spawn(call);
    }
    for done in tasks.join_all().await {
        done.expect("the database answers");
    }
}

async fn execute(options: &PgConnectOptions, statements: String) {
    let mut connection = options.connect().await.expect("the database answers");
    let done = connection.execute(AssertSqlSafe(statements)).await;
    done.expect("the statement is right");
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn row(name: &str, figure: &str, bar: &str) {
    println!("{name:<60} {figure:>14} {bar:>12}");
}
