//! The background task that ends the epochs of nodes whose leases ran out.
//!
//! Every orchestrator runs one; the store sees to it that they do not add up. Owns the pace, the hold after an absence,
//! and the knowledge whether the store answers. It must not decide how many nodes are fenced: that is [`crate::brake`].

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::brake::Brake;
use crate::store::Store;

/// Looks for leases that ran out every `interval`, until `shutdown`. Tells `reachable` whether the store answers.
///
/// After its start, and after any time in which it could not look, it holds its hand for one lease: what kept it from
/// the store may have kept the nodes from it, and they come back on their own.
pub async fn run<S: Store>(
    store: &S,
    brake: Brake,
    interval: Duration,
    reachable: watch::Sender<bool>,
    shutdown: CancellationToken,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut hold = Hold::new(&brake, interval);
    let mut held = 0;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let result = look(store, &brake, &mut hold, &mut held).await;
        let answers = match &result {
            Ok(()) => true,
            Err(error) => !error.is_outage(),
        };
        let was = reachable.send_replace(answers);
        match result {
            Err(Error::NotReady) => {}
            Err(error) if was || !error.is_outage() => tracing::error!(%error, "leases cannot be looked after"),
            Ok(()) if !was => tracing::info!("the room map is reachable"),
            _ => {}
        }
    }
}

/// `held` is how many nodes the brake was last logged to hold; it is logged when it changes.
async fn look<S: Store>(store: &S, brake: &Brake, hold: &mut Hold, held: &mut usize) -> Result<(), Error> {
    let overdue = store.overdue().await?;
    if overdue == 0 {
        *held = 0;
    }
    if hold.is_on(Instant::now()) || overdue == 0 {
        return Ok(());
    }
    let fenced = store.fence_expired(brake).await?;
    for (node, epoch) in &fenced.nodes {
        tracing::warn!(%node, %epoch, "node fenced: its lease ran out");
    }
    if fenced.held > 0 && fenced.held != *held {
        tracing::warn!(
            held = fenced.held,
            "too many leases ran out together; their nodes are fenced one by one"
        );
        *held = fenced.held;
    }
    Ok(())
}

/// Whether to refrain from fencing.
#[derive(Debug)]
struct Hold {
    lease: Duration,
    /// So long between two looks is an absence.
    absence: Duration,
    last_look: Option<Instant>,
    until: Option<Instant>,
}

impl Hold {
    fn new(brake: &Brake, interval: Duration) -> Self {
        Self {
            lease: brake.lease,
            absence: interval + brake.lease / 2,
            last_look: None,
            until: None,
        }
    }

    /// Notes a successful look at the store and says whether to refrain from fencing.
    fn is_on(&mut self, now: Instant) -> bool {
        if self.last_look.is_none_or(|last| now - last > self.absence) {
            self.until = Some(now + self.lease);
        }
        self.last_look = Some(now);
        self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use signalbox_protocol::NodeId;
    use signalbox_protocol::placement::{NodeState, RegisterNode};

    use super::*;
    use crate::store::memory::MemoryStore;

    const BRAKE: Brake = Brake {
        lease: Duration::from_secs(2),
        grace: Duration::from_millis(250),
    };

    #[test]
    fn it_holds_after_the_start_and_after_an_absence() {
        let start = Instant::now();
        let mut hold = Hold::new(&BRAKE, Duration::from_millis(500));
        let mut at = |ms| hold.is_on(start + Duration::from_millis(ms));
        assert!(at(0) && at(500) && at(1000) && at(1500));
        assert!(!at(2000) && !at(2500));
        assert!(at(5000) && at(6500));
        assert!(!at(7000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_node_is_fenced_within_two_leases_of_its_end() {
        let store = MemoryStore::default();
        let node = RegisterNode {
            node: NodeId::random(),
            control: "ws://127.0.0.1:7900".into(),
            media: Vec::new(),
            region: String::new(),
            zone: String::new(),
            labels: Default::default(),
            capacity: 10,
            version: String::new(),
        };
        store.register(&node, BRAKE.lease).await.unwrap();
        let (reachable, mut answers) = watch::channel(false);
        let shutdown = CancellationToken::new();
        let watcher = async {
            let start = Instant::now();
            while store.nodes().await.unwrap()[0].state != NodeState::Lost {
                tokio::time::advance(Duration::from_millis(50)).await;
                assert!(start.elapsed() < BRAKE.lease * 3, "not fenced");
            }
            assert!(start.elapsed() >= BRAKE.lease + BRAKE.grace);
            shutdown.cancel();
        };
        tokio::join!(
            run(&store, BRAKE, Duration::from_millis(500), reachable, shutdown.clone()),
            watcher
        );
        assert!(*answers.borrow_and_update());
    }
}
