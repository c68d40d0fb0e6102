//! What each subscriber gets of its video tracks: what it has, what it may have next, and what it is told. When, and with which
//! numbers, is decided by the room; how a budget is shared, by the [`allocator`](crate::allocator).

mod room;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use signalbox_protocol::TrackId;
use signalbox_protocol::control::{Preference, Quality};

use crate::allocator::{Allocation, Among, Budget, Demand, History, Layer, Rung, Share, allocate};
use crate::dynacast::Places;
use crate::quality::Shortfall;

/// How often a subscriber's shares are decided anew when nothing happens. Higher: good pictures come later. Lower: more to compute.
pub const INTERVAL: Duration = Duration::from_millis(300);

/// How often the room looks whose turn it is, so that not all are at once.
pub const TICK: Duration = Duration::from_millis(100);

/// Only what has been sent for so long beside the pictures is reserved for: a burst of repair is over before its room would be of use.
/// Higher: pictures take part of the room that repair needs. Lower: one burst of losses pauses them.
const RESERVED_AFTER: Duration = Duration::from_secs(3);

/// The largest part of a budget that is reserved, in percent.
const MAX_RESERVE_PERCENT: u64 = 50;

/// A target for a track of which nothing has arrived: whatever comes first.
const ANYTHING: Layer = Layer {
    spatial: u8::MAX,
    temporal: u8::MAX,
};

/// One video track that a subscriber is subscribed to, as it is now.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which.
    pub track: TrackId,
    /// Its layers, ascending, with what each costs.
    pub rungs: Vec<Rung>,
    /// How it is wanted.
    pub preference: Preference,
    /// The best that the subscriber may have.
    pub limit: Option<Quality>,
    /// See [`Demand::is_screen`].
    pub is_screen: bool,
    /// See [`Demand::spoke`].
    pub spoke: Option<usize>,
    /// Nothing of it is sent to anyone.
    pub is_muted: bool,
    /// The publisher has been asked for these spatial layers for so long that what of them does not arrive will not.
    pub asked: Places,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What the subscriber gets of each track from now on; none: nothing.
    pub targets: Vec<(TrackId, Option<Layer>)>,
    /// Tracks that are paused for lack of room from now on, and those that are no longer.
    pub paused: Vec<(TrackId, bool)>,
    /// Tracks of which it desires other layers than before.
    pub desires: Vec<TrackId>,
    /// What would be of use in all, in bits per second.
    pub wanted: u64,
}

/// A subscriber, as far as video goes.
#[derive(Debug, Default)]
pub struct Receiver {
    /// When its shares are to be decided anew; none: at once.
    pub due: Option<Instant>,
    /// What was last said to be of use in all.
    pub wanted: Option<u64>,
    /// What was sent beside the pictures, lately and when.
    reserves: VecDeque<(Instant, u64)>,
    tracks: BTreeMap<TrackId, Held>,
}

/// What a subscriber has of one track.
#[derive(Debug, Clone, Default)]
struct Held {
    history: History,
    wish: Option<(Preference, Option<Quality>)>,
    desire: Option<Places>,
    is_paused: bool,
    short: Option<(Instant, Shortfall)>,
}

impl Receiver {
    /// Decides what it gets of each track that it is subscribed to. Those that it does not name are forgotten.
    pub fn decide(&mut self, now: Instant, budget: Budget, requests: &[Request]) -> Decision {
        let budget = Budget {
            reserve: self.reserve(now, budget),
            ..budget
        };
        self.tracks
            .retain(|track, _| requests.iter().any(|request| request.track == *track));
        let requests: Vec<&Request> = requests.iter().filter(|request| !request.is_muted).collect();
        let mut held: Vec<Held> = requests
            .iter()
            .map(|request| self.tracks.get(&request.track).cloned().unwrap_or_default())
            .collect();
        let mut demands: Vec<Demand> = Vec::with_capacity(requests.len());
        for (request, held) in requests.iter().zip(&mut held) {
            held.wish(request);
            demands.push(demand(request, held));
        }
        let aims = aims(budget, &requests, &demands);
        // What does not come though it was asked for leaves its room to others, but is not given up on.
        let hopes = allocate(budget, &demands, Among::All);
        if budget.bps.is_some() {
            let possible = allocate(budget, &demands, Among::Active);
            let fits = aims.shares.iter().zip(&possible.shares);
            for (((aim, possible), held), demand) in fits.zip(&mut held).zip(&mut demands) {
                let best = aim.layer.max(possible.layer);
                demand.may_rise = held.history.may_rise(now, best > held.history.layer());
                demand.holds_out = held.history.holds_out(now, possible.is_paused());
            }
        }
        let given = allocate(budget, &demands, Among::Active);
        let mut decision = Decision {
            wanted: aims.wanted,
            ..Decision::default()
        };
        let shares = aims.shares.iter().zip(&hopes.shares).zip(&given.shares);
        for ((((aim, hope), given), mut held), request) in shares.zip(held).zip(requests) {
            // As long as nothing arrives, what is asked for decides.
            let share = if given.ideal.is_some() { given } else { aim };
            let is_wanted = request.preference.enabled;
            let desired = desire(request, [given.layer, aim.layer, hope.layer]);
            if held.desire.replace(desired) != Some(desired) {
                decision.desires.push(request.track.clone());
            }
            if !is_wanted {
                held.history = History::default();
            } else if given.ideal.is_some() {
                held.history.gave(now, given.layer, budget);
            }
            held.set_short(now, *given);
            let target = share.layer.or((is_wanted && share.ideal.is_none()).then_some(ANYTHING));
            decision.targets.push((request.track.clone(), target));
            if std::mem::replace(&mut held.is_paused, share.is_paused()) != share.is_paused() {
                decision.paused.push((request.track.clone(), share.is_paused()));
            }
            self.tracks.insert(request.track.clone(), held);
        }
        decision
    }

    /// What is to be reserved, given what has been sent of late beside the pictures.
    fn reserve(&mut self, now: Instant, budget: Budget) -> u64 {
        let is_old = |at: Instant| now.saturating_duration_since(at) > RESERVED_AFTER;
        while self.reserves.front().is_some_and(|(at, _)| is_old(*at)) {
            self.reserves.pop_front();
        }
        // Of what was larger before, nothing will be asked.
        while self
            .reserves
            .back()
            .is_some_and(|(_, before)| *before >= budget.reserve)
        {
            self.reserves.pop_back();
        }
        self.reserves.push_back((now, budget.reserve));
        let lowest = self.reserves.front().map_or(0, |(_, reserve)| *reserve);
        let most = budget.bps.map_or(u64::MAX, |bps| bps * MAX_RESERVE_PERCENT / 100);
        lowest.min(most)
    }

    /// The tracks that are paused for lack of room.
    pub fn paused(&self) -> impl Iterator<Item = &TrackId> {
        self.tracks
            .iter()
            .filter(|(_, held)| held.is_paused)
            .map(|(track, _)| track)
    }

    /// How much less it has had than what is of use to it, for some time.
    pub fn shortfall(&self, now: Instant) -> Shortfall {
        let lasting = self.tracks.values().filter_map(|held| {
            let (since, shortfall) = held.short?;
            (now.saturating_duration_since(since) >= Shortfall::LASTING).then_some(shortfall)
        });
        lasting.max().unwrap_or_default()
    }

    /// The spatial layers of a track that it receives, or would if its publisher sent them; none: that was not decided yet.
    pub fn desire(&self, track: &TrackId) -> Option<Places> {
        self.tracks.get(track)?.desire
    }
}

impl Held {
    /// Takes note of how the track is wanted.
    fn wish(&mut self, request: &Request) {
        let wish = (request.preference, request.limit);
        if self.wish.replace(wish).is_some_and(|before| before != wish) {
            self.history.wanted_anew();
        }
    }

    fn set_short(&mut self, now: Instant, share: Share) {
        let shortfall = match (share.layer, share.ideal) {
            (None, Some(_)) => Shortfall::Nothing,
            (Some(layer), Some(ideal)) if ideal.spatial > layer.spatial + 1 => Shortfall::Little,
            _ => Shortfall::None,
        };
        self.short = match (shortfall, self.short) {
            (Shortfall::None, _) => None,
            (found, Some((since, before))) if before == found => Some((since, found)),
            (found, _) => Some((now, found)),
        };
    }
}

fn demand(request: &Request, held: &Held) -> Demand {
    Demand {
        rungs: request.rungs.clone(),
        preference: request.preference,
        limit: request.limit,
        is_screen: request.is_screen,
        spoke: request.spoke,
        standing: held.history.standing(),
        may_rise: true,
        holds_out: false,
    }
}

/// What everyone would get if the publishers sent whatever they are asked for.
fn aims(budget: Budget, requests: &[&Request], demands: &[Demand]) -> Allocation {
    let pairs = requests.iter().zip(demands);
    let demands: Vec<Demand> = pairs
        .map(|(request, demand)| {
            let mut demand = demand.clone();
            if demand.rungs.iter().any(|rung| rung.is_active) {
                let may_come = |rung: &Rung| !request.asked.contains(rung.layer.spatial);
                demand.rungs.retain(|rung| rung.is_active || may_come(rung));
            }
            demand
        })
        .collect();
    allocate(budget, &demands, Among::All)
}

/// What its publisher should send for it: what it gets, and what it would get instead. Layers between these, and those below, are of no
/// use: when there is no room for the better one, the next best is asked for.
fn desire(request: &Request, shares: [Option<Layer>; 3]) -> Places {
    if !request.preference.enabled {
        return Places::default();
    }
    if request.rungs.is_empty() {
        return Places::ALL;
    }
    let mut places = Places::default();
    for layer in shares.into_iter().flatten() {
        places.insert(layer.spatial);
    }
    places
}

#[cfg(test)]
mod tests;
