//! Which nodes cannot take a room, whatever the policy.
//!
//! Track and region are not here: both give way when nothing else is left. See [`super::track`], [`super::region`].

use signalbox_protocol::history::Filter;
use signalbox_protocol::node::NodeState;
use signalbox_protocol::placement::PlaceRoom;

use super::version::Version;
use super::{Candidate, Situation};

/// The share of the nodes that may be ejected. With more, ejection says more about what the nodes have in common than
/// about any of them, and the rest could not carry the load: it is ignored (Envoy's panic threshold). Higher: the few
/// that are left get everything. Lower: bad nodes get rooms again sooner.
pub const PANIC_ABOVE: f64 = 0.5;

/// The hard filters for one request.
#[derive(Debug)]
pub struct Filters<'a> {
    request: &'a PlaceRoom,
    situation: &'a Situation<'a>,
    minimum: Option<Version>,
    panic: bool,
}

impl<'a> Filters<'a> {
    /// The filters for `request`.
    pub fn new(request: &'a PlaceRoom, situation: &'a Situation<'a>) -> Self {
        let ejected = situation.candidates.iter().filter(|c| c.ejected).count();
        Self {
            request,
            situation,
            minimum: request.min_version.as_deref().map(Version::parse),
            panic: ejected as f64 > situation.candidates.len() as f64 * PANIC_ABOVE,
        }
    }

    /// Whether ejection is ignored because more than [`PANIC_ABOVE`] of the nodes are ejected.
    pub fn panic(&self) -> bool {
        self.panic
    }

    /// The first reason why the candidate cannot take the room; none: it can.
    pub fn refuse(&self, candidate: &Candidate) -> Option<Filter> {
        let wanted = &self.request.labels;
        let refused = [
            (Filter::State, candidate.state != NodeState::Serving),
            (Filter::Lease, !candidate.lease_holds),
            (Filter::Ejected, candidate.ejected && !self.panic),
            (
                Filter::Version,
                self.minimum
                    .is_some_and(|minimum| Version::parse(&candidate.version) < minimum),
            ),
            (
                Filter::Labels,
                wanted
                    .iter()
                    .any(|(key, value)| candidate.labels.get(key) != Some(value)),
            ),
            // What is expected to come only makes the score worse: it may as well not come.
            (Filter::Capacity, candidate.participants >= candidate.capacity),
            (Filter::AntiAffinity, self.situation.occupied.contains(&candidate.node)),
        ];
        refused
            .into_iter()
            .find_map(|(filter, refused)| refused.then_some(filter))
    }
}
