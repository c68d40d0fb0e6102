//! A network of hosts in one process: messages take a seeded time, and between some pairs they do not arrive.
//!
//! A lost message is a future that never ends, as it is for who waits for an answer that does not come: whoever sends must bound its
//! patience.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

/// Who sends and receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    Database,
    Orchestrator(usize),
    Node(usize),
    Gateway(usize),
}

/// The network. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Network {
    wires: Arc<Mutex<Wires>>,
}

#[derive(Debug)]
struct Wires {
    rng: StdRng,
    /// Messages from the first to the second are lost.
    cut: BTreeSet<(Host, Host)>,
    /// The share of messages that are lost anyhow.
    loss: f64,
    /// Whether some messages are so slow that an answer comes after its asker has given up.
    stalls: bool,
}

impl Network {
    pub fn new(seed: u64) -> Self {
        Self {
            wires: Arc::new(Mutex::new(Wires {
                rng: StdRng::seed_from_u64(seed),
                cut: BTreeSet::new(),
                loss: 0.0,
                stalls: true,
            })),
        }
    }

    /// Carries one message. Never ends if the message is lost.
    pub async fn carry(&self, from: Host, to: Host) {
        let delay = {
            let mut wires = self.wires();
            let loss = wires.loss;
            let lost = wires.rng.random_bool(loss) || wires.cut.contains(&(from, to));
            let slow = wires.rng.random_bool(0.01) && wires.stalls;
            let micros = wires
                .rng
                .random_range(if slow { 100_000..1_500_000 } else { 200..5_000 });
            (!lost).then(|| Duration::from_micros(micros))
        };
        match delay {
            Some(delay) => sleep(delay).await,
            None => pending().await,
        }
        // What is under way when the wire is cut is lost as well.
        if self.wires().cut.contains(&(from, to)) {
            pending::<()>().await;
        }
    }

    /// Cuts the wire in one direction.
    pub fn cut(&self, from: Host, to: Host) {
        self.wires().cut.insert((from, to));
    }

    /// Sets the share of messages that are lost.
    pub fn lose(&self, share: f64) {
        self.wires().loss = share;
    }

    /// From now on every message is quick.
    pub fn calm(&self) {
        self.wires().stalls = false;
    }

    /// Mends what is cut or lossy.
    pub fn heal(&self) {
        let mut wires = self.wires();
        wires.cut.clear();
        wires.loss = 0.0;
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
