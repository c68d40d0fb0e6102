//! The orchestrator's parts put together, over any store, without a socket.
//!
//! Owns what requests and background tasks share. It must not know listeners, nor read flags besides those that it is given.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use axum::Router;
use rand::SeedableRng;
use rand::rngs::StdRng;
use signalbox_protocol::ClusterId;
use signalbox_protocol::placement::Placement;
use signalbox_protocol::ticket::LIFETIME_SECONDS;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Guard};
use crate::brake::Brake;
use crate::canary::{self, CanaryShare};
use crate::fencer::{Fencer, Sight};
use crate::health::Health;
use crate::known_rooms::KnownRooms;
use crate::leases::Leases;
use crate::placer::Placer;
use crate::probe::{Ask, Prober};
use crate::store::{Assignment, Retention, Store};
use crate::ticket::Signer;
use crate::truce::Truce;
use crate::{Config, Error, drains, housekeeping};

/// How often the fencer looks in the time between two heartbeats. Higher: a lost node is fenced sooner after its lease; each look is one
/// statement. Lower: fewer of them.
const LOOKS: u32 = 2;

/// How long to wait before the database is tried again at the start.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

/// One orchestrator.
pub struct Service<S> {
    pub(crate) store: S,
    pub(crate) name: String,
    pub(crate) placer: Placer,
    pub(crate) canary: CanaryShare,
    pub(crate) leases: Leases,
    pub(crate) health: Health,
    pub(crate) signer: Signer,
    pub(crate) heartbeat: Duration,
    pub(crate) public_media: bool,
    pub(crate) truce: Mutex<Truce>,
    pub(crate) prober: Prober,
    pub(crate) ask: Arc<dyn Ask>,
    me: Weak<Self>,
    pub(crate) sight: watch::Sender<Sight>,
    known_rooms: Mutex<KnownRooms>,
    started: Instant,
    brake: Brake,
    retention: Retention,
    guard: Arc<Guard>,
    cluster: OnceLock<ClusterId>,
    /// For the background tasks, which may be started again after a crash in a simulation.
    rng: Mutex<StdRng>,
}

impl<S: Store> Service<S> {
    /// An assignment with the ticket that opens it.
    ///
    /// # Errors
    /// The cluster is not known yet, or the ticket cannot be signed.
    pub fn placement(&self, assignment: Assignment) -> Result<Placement, Error> {
        let ticket = self.signer.sign(self.cluster()?, &assignment, SystemTime::now())?;
        Ok(Placement {
            room: assignment.room,
            node: assignment.node,
            control: assignment.control,
            epoch: assignment.epoch,
            generation: assignment.generation,
            ticket,
            ticket_seconds: LIFETIME_SECONDS,
            by_canary_share: false,
        })
    }

    /// An orchestrator of this name over this store. `ask` is how nodes are asked, `rng` all randomness that it has. The
    /// configuration must be one that [`Config::check`] accepts; its name, database and listener are not read.
    pub fn new(store: S, config: &Config, name: String, ask: Arc<dyn Ask>, mut rng: StdRng) -> Arc<Self> {
        let brake = config.brake();
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            store,
            placer: Placer::new(
                name.clone(),
                config.placement(),
                config.margin(),
                StdRng::from_rng(&mut rng),
            ),
            canary: CanaryShare::new(config.canary_share),
            leases: Leases::new(config.lease()),
            health: Health::new(config.ejection()),
            signer: Signer::new(config.cluster_secret.current()),
            heartbeat: config.heartbeat(),
            public_media: config.require_public_media,
            truce: Mutex::new(Truce::new(brake, config.heartbeat())),
            prober: Prober::new(Arc::clone(&ask), config.probe_patience()),
            ask,
            sight: watch::Sender::default(),
            known_rooms: Mutex::default(),
            started: Instant::now(),
            brake,
            retention: config.retention(),
            guard: Arc::new(Guard::new(config.cluster_secret.clone())),
            cluster: OnceLock::new(),
            rng: Mutex::new(rng),
            name,
        })
    }

    /// The HTTP API.
    pub fn router(self: &Arc<Self>) -> Router {
        api::router(self.clone(), self.guard.clone())
    }

    /// Opens the store as soon as it can be reached, and then looks after leases and what is over, until `shutdown`.
    /// Without it requests are answered 503.
    ///
    /// Fails with [`Error::Schema`] if the database's schema does not fit this version.
    pub async fn background(&self, shutdown: CancellationToken) -> Result<(), Error> {
        let Some(opened) = shutdown.run_until_cancelled(self.open()).await else {
            return Ok(());
        };
        // A second time it is the same cluster.
        let _ = self.cluster.set(opened?);
        let fencer = Fencer {
            store: &self.store,
            name: &self.name,
            brake: self.brake,
            interval: self.heartbeat / LOOKS,
            truce: &self.truce,
            prober: &self.prober,
            sight: &self.sight,
            known_rooms: &self.known_rooms,
        };
        let rng = StdRng::from_rng(&mut *self.rng.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::join!(
            fencer.run(shutdown.clone()),
            housekeeping::run(&self.store, self.retention, rng, shutdown.clone()),
            canary::run(self, shutdown.clone()),
            drains::run(self, shutdown)
        );
        Ok(())
    }

    /// What the fencer saw last.
    pub fn sight(&self) -> watch::Receiver<Sight> {
        self.sight.subscribe()
    }

    /// The store, for tests and simulations that look behind the API.
    pub fn store(&self) -> &S {
        &self.store
    }

    pub(crate) fn known_rooms(&self) -> MutexGuard<'_, KnownRooms> {
        self.known_rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Itself, for tasks of its own.
    pub(crate) fn me(&self) -> Option<Arc<Self>> {
        self.me.upgrade()
    }

    /// The time since this orchestrator was made.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn cluster(&self) -> Result<ClusterId, Error> {
        self.cluster.get().copied().ok_or(Error::NotReady)
    }

    async fn open(&self) -> Result<ClusterId, Error> {
        let mut logged = false;
        loop {
            match self.store.open().await {
                Err(error) if error.is_outage() => {
                    if !logged {
                        tracing::error!(%error, "the database cannot be reached; requests are refused until it can");
                        logged = true;
                    }
                }
                done => return done,
            }
            tokio::time::sleep(OPEN_AGAIN).await;
        }
    }
}
