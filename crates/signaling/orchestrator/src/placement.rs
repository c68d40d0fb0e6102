//! Which node should take a new room: the policy, pure.
//!
//! Owns the scores, the hard filters and the choice. It must not know where candidates come from, what time it is, or
//! what the map says: candidates, the time and the random number generator are arguments, so that the same input always
//! gives the same choice. What it chooses is a proposal; only [`crate::store::Store::place`] decides.
//!
//! A choice goes through these stages; each takes nodes out of the [`Field`] and says why:
//!
//! | stage | module |
//! |---|---|
//! | can it take the room at all | [`filters`], [`version`] |
//! | canary or stable | [`track`] |
//! | near where it is wanted | [`region`] |
//! | one of those that are left, by the policy | [`two_choices`], [`round_robin`], [`least_loaded`], [`rendezvous`], [`bounded_rendezvous`], [`packing`] |
//! | why | [`explain`] |
//!
//! [`wish`] is what of a request is kept for when the room is moved. [`in_flight`] is its memory of the last seconds, and [`hash`] what the hashing ones stand on.

pub mod bounded_rendezvous;
pub mod explain;
pub mod field;
pub mod filters;
pub mod hash;
pub mod in_flight;
pub mod least_loaded;
pub mod packing;
pub mod region;
pub mod rendezvous;
pub mod round_robin;
pub mod track;
pub mod two_choices;
pub mod version;
pub mod wish;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::Rng;
use signalbox_protocol::NodeId;
use signalbox_protocol::history::Reasons;
use signalbox_protocol::node::NodeState;
use signalbox_protocol::placement::{PlaceRoom, Policy, Track};

pub use field::Field;
pub use in_flight::InFlight;
pub use wish::Wish;

use filters::Filters;
use round_robin::RoundRobin;

/// A node that is not lost, as the map has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Who.
    pub node: NodeId,
    /// Serving or draining.
    pub state: NodeState,
    /// Whether its lease holds for longer than the margin that was asked for.
    pub lease_holds: bool,
    /// Whether it is given no rooms for a while because joins on it failed.
    pub ejected: bool,
    /// Where it stands; may be empty.
    pub region: String,
    /// Which failure domain of the region; may be empty.
    pub zone: String,
    /// What rooms can be placed by.
    pub labels: BTreeMap<String, String>,
    /// Whether a new version is tried on it.
    pub track: Track,
    /// Its software's version.
    pub version: String,
    /// How many participants it takes.
    pub capacity: u32,
    /// How many it has by its last report.
    pub participants: u32,
}

/// A candidate with its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored<'a> {
    /// The candidate.
    pub candidate: &'a Candidate,
    /// The share of its capacity that is, or soon will be, in use. Lower is better; over 1 means that it is expected to
    /// be full.
    pub score: f64,
}

/// How a cluster places rooms. A request may override the policy. All numbers are finite and not negative.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Who chooses among the nodes that may take the room.
    pub policy: Policy,
    /// How many participants a room is expected to have in the end. Higher: new rooms spread wider while they are still
    /// empty. Lower: a burst of new rooms piles onto the node that was idle when it began.
    pub expected_participants: f64,
    /// The score from which a region counts as full and its rooms spill over. Higher: rooms stay near for longer. Lower:
    /// more headroom for the rooms that are already there to grow.
    pub spill_over: f64,
    /// For each region the others, nearest first: where its rooms spill over to. Regions that are not named come last.
    pub near: BTreeMap<String, Vec<String>>,
    /// Up to which score [`Policy::Packing`] fills a node.
    pub pack_to: f64,
    /// By how much more than its share [`Policy::BoundedRendezvous`] lets a node have, as a share of its share.
    pub slack: f64,
    /// The share of users whose new rooms go to canary nodes, from 0 to 1.
    pub canary_share: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Policy::TwoChoices,
            expected_participants: 4.0,
            spill_over: 0.8,
            near: BTreeMap::new(),
            pack_to: 0.65,
            slack: 0.25,
            canary_share: 0.0,
        }
    }
}

/// What a choice is made from, besides the request.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The nodes that are not lost, ordered by id.
    pub candidates: &'a [Candidate],
    /// Those that host a room which this one must not be with.
    pub occupied: &'a BTreeSet<NodeId>,
    /// Where the room's user fell when it was placed, if that is known from then; see [`Wish::bucket`].
    pub bucket: Option<u16>,
    /// How many orchestrators place rooms on them, the caller among them.
    pub orchestrators: usize,
    /// The time on the caller's own clock, the one that [`Chooser::placed`] is told.
    pub now: Duration,
}

/// What was chosen, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The node; none: no candidate may take the room.
    pub node: Option<NodeId>,
    /// For the room's history.
    pub reasons: Reasons,
}

/// Chooses nodes by one cluster's settings. Its state: the placements of the last seconds, and whose turn it is.
#[derive(Debug)]
pub struct Chooser {
    settings: Settings,
    in_flight: InFlight,
    round_robin: RoundRobin,
}

impl Chooser {
    /// A chooser that has placed nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            in_flight: InFlight::default(),
            round_robin: RoundRobin::default(),
        }
    }

    /// From now on this share of users counts: [`Settings::canary_share`].
    pub fn set_canary_share(&mut self, share: f64) {
        self.settings.canary_share = share;
    }

    /// The share of users that counts.
    pub fn canary_share(&self) -> f64 {
        self.settings.canary_share
    }

    /// The node for a new room: none only if every candidate is filtered out for another reason than its region.
    pub fn choose(&mut self, request: &PlaceRoom, situation: &Situation<'_>, rng: &mut impl Rng) -> Choice {
        let Self {
            settings,
            in_flight,
            round_robin,
        } = self;
        in_flight.advance(situation.now);
        let score = |candidate: &Candidate| score(candidate, settings, in_flight, situation.orchestrators);

        let filters = Filters::new(request, situation);
        let mut field = Field::default();
        for candidate in situation.candidates {
            match filters.refuse(candidate) {
                None => field.eligible.push(Scored {
                    candidate,
                    score: score(candidate),
                }),
                Some(filter) => field.filtered.push((candidate, filter)),
            }
        }
        let (track, track_fallback) = track::keep(&mut field, request, situation.bucket, settings);
        if let Some(asked) = &request.region {
            region::keep(&mut field, asked, settings);
        }

        let policy = request.policy.unwrap_or(settings.policy);
        let eligible = field.eligible.as_slice();
        let key = || hash::of_bytes(request.room.as_str().as_bytes());
        let expected = settings.expected_participants;
        let chosen = match policy {
            Policy::TwoChoices => two_choices::choose(eligible, rng),
            Policy::RoundRobin => round_robin.choose(situation.candidates, eligible),
            Policy::LeastLoaded => least_loaded::choose(eligible, rng),
            Policy::Rendezvous => rendezvous::choose(eligible, key()),
            Policy::BoundedRendezvous => bounded_rendezvous::choose(eligible, key(), settings.slack, expected),
            Policy::Packing => packing::choose(eligible, settings.pack_to, expected, rng),
        };

        let spilled_to = chosen
            .map(|chosen| &chosen.candidate.region)
            .filter(|region| request.region.as_ref().is_some_and(|asked| asked != *region));
        let (candidates, omitted) = explain::explain(field, chosen, score);
        Choice {
            node: chosen.map(|chosen| chosen.candidate.node),
            reasons: Reasons {
                policy,
                rule: request.rule.clone(),
                region: request.region.clone(),
                spilled_to: spilled_to.cloned(),
                track,
                track_fallback,
                panic: filters.panic(),
                candidates,
                omitted,
                drained: None,
            },
        }
    }

    /// The room that was last chosen for has been placed on this node.
    pub fn placed(&mut self, node: NodeId, now: Duration) {
        self.in_flight.note(node, now);
    }
}

/// (reported + own rooms in flight · participants of a room · orchestrators) / capacity: the other orchestrators' rooms in
/// flight are not known, but each of them places as many.
fn score(candidate: &Candidate, settings: &Settings, in_flight: &InFlight, orchestrators: usize) -> f64 {
    let rooms = in_flight.rooms(candidate.node) * orchestrators.max(1) as f64;
    let expected = rooms * settings.expected_participants;
    (f64::from(candidate.participants) + expected) / f64::from(candidate.capacity.max(1))
}
