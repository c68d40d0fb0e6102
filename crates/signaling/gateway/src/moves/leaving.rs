//! The session at the node that a participant has moved away from: it is kept until the participant's connections are up at its new node, so that its
//! media goes on until then, and at most as long as the old node has promised.

use std::time::Duration;

use signalbox_protocol::control::{Event, Target};
use tokio::time::{Instant, sleep_until};

use crate::session::{Session, SessionEvent};

/// How long a client without a peer connection is served by the old node as well, whose streams nobody sees arrive.
const STREAMS_PATIENCE: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(crate) struct Leaving {
    /// None: the node is gone, or has let go.
    old: Option<Session>,
    until: Instant,
    /// Which connections are not up yet at the new node.
    waits_for: Vec<Target>,
    began: Instant,
}

impl Leaving {
    /// After a loss: there is no session to be kept.
    pub(crate) fn lost(connections: Vec<Target>, within: Duration) -> Self {
        let began = Instant::now();
        Self {
            old: None,
            until: began + within,
            waits_for: connections,
            began,
        }
    }

    /// After a node has handed the room over, which serves this session until `until`.
    pub(crate) fn handed_over(old: Session, connections: Vec<Target>, until: Instant) -> Self {
        let began = Instant::now();
        let until = if connections.is_empty() {
            until.min(began + STREAMS_PATIENCE)
        } else {
            until
        };
        Self {
            old: Some(old),
            until,
            waits_for: connections,
            began,
        }
    }

    /// A connection is up at the new node; whether that was the last one.
    pub(crate) fn connected(&mut self, target: Target) -> bool {
        self.waits_for.retain(|waited| *waited != target);
        self.waits_for.is_empty()
    }

    /// Whether the connection is not up yet.
    pub(crate) fn waits_for(&self, target: Target) -> bool {
        self.waits_for.contains(&target)
    }

    /// How long ago the participant was taken up at its new node.
    pub(crate) fn since(&self) -> Duration {
        self.began.elapsed()
    }

    /// Ends when the old node lets go of the participant. What it tells meanwhile concerns nobody: the new node tells it as well. Cancelling it loses
    /// nothing.
    pub(crate) async fn ended(&mut self) {
        loop {
            let Some(old) = &mut self.old else {
                return sleep_until(self.until).await;
            };
            let event = tokio::select! {
                event = old.next_event() => event,
                () = sleep_until(self.until) => return,
            };
            let is_over = matches!(
                event,
                SessionEvent::Event(Event::Closed { .. }) | SessionEvent::Lost | SessionEvent::Replaced { .. }
            );
            if is_over && let Some(old) = self.old.take() {
                old.give_up();
            }
        }
    }

    /// Lets go of the old node.
    pub(crate) fn let_go(self) {
        if let Some(mut old) = self.old {
            old.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_connections_have_to_be_up() {
        let both = vec![Target::Publisher, Target::Subscriber];
        let mut leaving = Leaving::lost(both, Duration::from_secs(1));
        for _ in 0..2 {
            assert!(!leaving.connected(Target::Subscriber));
        }
        assert!(leaving.waits_for(Target::Publisher));
        assert!(leaving.connected(Target::Publisher));
    }
}
