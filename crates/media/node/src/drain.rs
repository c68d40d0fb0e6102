//! The node's own end without a loss: it asks the orchestrators to move its rooms to other nodes, and waits until it hosts none.
//!
//! It does not wait for nothing. It goes on to its end when
//! - it hosts nothing (any more), or has lost its lease and with it all rooms;
//! - the grace is over;
//! - every orchestrator refuses, as those do that know no drains;
//! - for [`STUCK`] no other node takes any of the rooms that are left;
//! - the drain was ended otherwise: an operator has cancelled it, or its deadline came.
//!
//! Orchestrators that do not answer are asked again: calls go on here meanwhile, as long as the lease is renewed.

use std::time::Duration;

use reqwest::Method;
use signalbox_protocol::node::{Asker, Drain, DrainNode, DrainState};
use tokio::time::{Instant, sleep, timeout};

use crate::node::Node;
use crate::orchestrators::CallError;

/// How long one call may take.
const CALL: Duration = Duration::from_secs(1);

/// The pause before an orchestrator is asked again after it failed.
const PAUSE: Duration = Duration::from_millis(200);

/// How often the node looks how far its drain has come. Its own rooms it knows at any time.
const LOOK: Duration = Duration::from_millis(250);

/// How long no other node may take what is left before the node ends with it. Higher: another node that is just being restarted can
/// still take it. Lower: the only node of a cluster ends sooner.
pub const STUCK: Duration = Duration::from_secs(3);

/// How long the node waits for the orchestrators to see that it is empty, so that the drain ends as done and not as lost.
const NOTICE: Duration = Duration::from_secs(1);

/// Rooms per second at least, unless the operator says how many.
const RATE: f64 = 5.0;

/// The highest rate that orchestrators take.
const MAX_RATE: f64 = 1_000.0;

/// Why the node waits no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Empty,
    GraceOver,
    Refused,
    Stuck,
    Ended,
}

impl End {
    fn why(self) -> &'static str {
        match self {
            Self::Empty => "the node hosts nothing any more",
            Self::GraceOver => "the grace period is over; what is left is closed",
            Self::Refused => "the orchestrators do not drain it; its rooms are closed",
            Self::Stuck => "no other node takes its rooms; they are closed",
            Self::Ended => "the drain was ended; what is left is closed",
        }
    }
}

/// Asks for the drain and waits for it, at most for `grace`. `rate`: rooms per second; none: as fast as the grace needs.
pub async fn run(node: &Node, rate: Option<f64>, grace: Duration) {
    let rooms = node.rooms.len();
    if rooms == 0 {
        return;
    }
    let order = DrainNode {
        rate: rate.unwrap_or_else(|| rate_for(rooms, grace)),
        deadline_ms: Some(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)),
        asked_by: Asker::Node,
    };
    tracing::info!(
        rooms,
        rate = order.rate,
        ?grace,
        "the node asks for its rooms to be moved"
    );
    let mut drain = None;
    let end = {
        let followed = timeout(grace, follow(node, &order, &mut drain));
        tokio::select! {
            () = node.rooms.until_empty() => End::Empty,
            end = followed => end.unwrap_or(End::GraceOver),
        }
    };
    tracing::info!(left = node.rooms.len(), "{}", end.why());
    if end == End::Empty && drain.is_some_and(|state| state == DrainState::Running) {
        let noticed = async {
            while look(node).await.is_ok_and(|drain| drain.state == DrainState::Running) {
                sleep(LOOK).await;
            }
        };
        let _ = timeout(NOTICE, noticed).await;
    }
}

/// Half of the grace is for moving the rooms; what is left is for slow ones.
fn rate_for(rooms: usize, grace: Duration) -> f64 {
    let needed = rooms as f64 / (grace.as_secs_f64() / 2.0).max(0.1);
    needed.clamp(RATE, MAX_RATE)
}

/// Asks for the drain until there is one, and looks after it. `state`: how it stood last.
async fn follow(node: &Node, order: &DrainNode, state: &mut Option<DrainState>) -> End {
    let mut refusals = 0;
    loop {
        match begin(node, order).await {
            Ok(drain) => {
                *state = Some(drain.state);
                break;
            }
            Err(CallError::Status { status, .. }) if status.is_client_error() => {
                refusals += 1;
                tracing::info!(%status, "an orchestrator does not drain the node");
                if refusals >= node.orchestrators.len() {
                    return End::Refused;
                }
            }
            Err(error) => {
                refusals = 0;
                tracing::debug!(%error, "an orchestrator cannot be asked to drain the node");
                sleep(PAUSE).await;
            }
        }
    }
    let mut watch = Watch::default();
    loop {
        sleep(LOOK).await;
        if let Ok(drain) = look(node).await {
            *state = Some(drain.state);
            if let Some(end) = watch.handle(Instant::now(), &drain) {
                return end;
            }
        }
    }
}

async fn begin(node: &Node, order: &DrainNode) -> Result<Drain, CallError> {
    let id = node.id.to_string();
    let path = ["v1", "nodes", &id, "drain"];
    node.orchestrators.ask(Method::PUT, &path, Some(order), CALL).await
}

async fn look(node: &Node) -> Result<Drain, CallError> {
    let id = node.id.to_string();
    let path = ["v1", "nodes", &id, "drain"];
    node.orchestrators.ask(Method::GET, &path, None::<&()>, CALL).await
}

/// What follows from how the drain stands.
#[derive(Debug, Default)]
struct Watch {
    /// Since when nobody takes anything of what is left.
    stuck: Option<Instant>,
}

impl Watch {
    fn handle(&mut self, now: Instant, drain: &Drain) -> Option<End> {
        match drain.state {
            DrainState::Running if drain.rooms_left > 0 && drain.stuck >= drain.rooms_left => {
                let since = *self.stuck.get_or_insert(now);
                (now.duration_since(since) >= STUCK).then_some(End::Stuck)
            }
            // Done by the map: those in the last rooms are still on their way.
            DrainState::Running | DrainState::Done => {
                self.stuck = None;
                None
            }
            DrainState::Cancelled | DrainState::Expired | DrainState::Lost => Some(End::Ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use signalbox_protocol::{Epoch, NodeId};

    use super::*;

    fn drain(state: DrainState, rooms_left: u64, stuck: u64) -> Drain {
        Drain {
            node: NodeId::random(),
            epoch: Epoch(1),
            state,
            rooms: 9,
            rooms_left,
            stuck,
            rate: 5.0,
            eta_ms: None,
            deadline_ms: None,
            age_ms: 0,
            by: String::new(),
        }
    }

    #[test]
    fn the_node_waits_while_anything_moves_and_not_for_rooms_that_nobody_takes() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let running = |left, stuck| drain(DrainState::Running, left, stuck);
        assert_eq!(watch.handle(start, &running(3, 3)), None);
        assert_eq!(watch.handle(start + STUCK / 2, &running(3, 2)), None);
        assert_eq!(watch.handle(start + STUCK, &running(2, 2)), None);
        assert_eq!(watch.handle(start + STUCK, &running(0, 0)), None);
        assert_eq!(watch.handle(start + 2 * STUCK, &running(2, 2)), None);
        assert_eq!(watch.handle(start + 3 * STUCK, &running(2, 2)), Some(End::Stuck));
        assert_eq!(watch.handle(start, &drain(DrainState::Done, 0, 0)), None);
        for over in [DrainState::Cancelled, DrainState::Expired, DrainState::Lost] {
            assert_eq!(watch.handle(start, &drain(over, 2, 0)), Some(End::Ended));
        }
    }

    #[test]
    fn many_rooms_move_faster_than_few() {
        let grace = Duration::from_secs(30);
        assert_eq!(rate_for(10, grace), RATE);
        assert_eq!(rate_for(300, grace), 20.0);
        assert_eq!(rate_for(1_000_000, grace), MAX_RATE);
        assert_eq!(rate_for(1, Duration::ZERO), 10.0);
    }
}
