//! Which layer of each track a subscriber gets, and which tracks have to wait: a pure function of what there is, what is wanted, what
//! is given at present, and how much may be sent.
//!
//! The rules, first to last:
//!
//! 1. Nothing beyond what is of use is given: see [`Preference`]; and never more than the budget, less its reserve.
//! 2. Tracks come in an order: by [`Preference::priority`], then by the size that they are shown at (in steps of twice the area; a shared
//!    screen counts as large), then by who spoke last.
//! 3. Every track gets its lowest rung before any gets a higher one. One whose lowest does not fit is paused, and those behind it that
//!    do fit are not. Two exceptions: a subscriber may be one that is never to be paused, and what has just ceased to fit
//!    [holds out](Demand::holds_out) for a moment.
//! 4. Those of the same priority are then raised by a rung each, in order, again and again; those of the next priority with what is left.
//! 5. What a track has it keeps as long as that fits. For a rung that it does not have, or after a pause, there has to be a
//!    [margin](RISE_MARGIN_PERCENT), and it has to be its time ([`Demand::may_rise`]). A camera's picture becomes larger only if its key
//!    picture gets through [soon](MAX_KEY_TIME_MS).
//!
//! Because of the last rule the answer for a budget, given back as what is given at present, is the answer again, for any budget within
//! the margin.

mod cost;
mod history;
mod path;

use signalbox_protocol::control::{Preference, Quality};

pub use cost::fill_costs;
pub use history::History;

/// A layer of a track: a resolution, and a share of its frames. Ordered by resolution first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layer {
    /// The place of a simulcast encoding, or of a spatial layer of a scalable stream, lowest first.
    pub spatial: u8,
    /// The highest temporal layer that is sent.
    pub temporal: u8,
}

/// What a layer is and costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    /// Which.
    pub layer: Layer,
    /// Width in pixels; 0: not known.
    pub width: u32,
    /// Height in pixels; 0: not known.
    pub height: u32,
    /// Frames per second as measured; 0: not known.
    pub fps: u32,
    /// Bits per second, headers included, of all that has to be sent for it: in a scalable stream the layers below as well.
    pub bps: u64,
    /// Bytes of the last key picture of it, headers included; 0: not known.
    pub key_bytes: u64,
    /// Whether its packets arrive at present.
    pub is_active: bool,
}

/// The longest that the key picture of a larger camera picture may take on its way: until it is there as a whole, the smaller one stands
/// still. In milliseconds. Higher: more of a narrow network is used. Lower: pictures that have just become larger stand still for less long.
pub const MAX_KEY_TIME_MS: u64 = 300;

/// What has to be over when a track is given more than it has, in percent of what is then sent. Higher: less of the network is used.
/// Lower: an estimate that wavers makes pictures change their size.
pub const RISE_MARGIN_PERCENT: u64 = 15;

/// A shared screen counts as shown at this size at least, in pixels: that it is to be read is why it is shared.
const SCREEN_PIXELS: u64 = 1920 * 1080;

/// The size of what nobody has said the size of, in pixels.
const USUAL_PIXELS: u64 = 1280 * 720;

/// How much may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// In all, in bits per second; none: without bounds.
    pub bps: Option<u64>,
    /// What is not for video: sound, and what is sent again. In bits per second.
    pub reserve: u64,
    /// Every track gets its lowest rung, whether it fits or not.
    pub never_pause: bool,
}

/// What a subscriber has of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It wants it from now on.
    New,
    /// Nothing, because it did not fit.
    Paused,
    /// This.
    Given(Layer),
}

/// One video track that a subscriber is subscribed to.
#[derive(Debug, Clone)]
pub struct Demand {
    /// What there is, ascending by layer. What each costs must be known: see [`fill_costs`].
    pub rungs: Vec<Rung>,
    /// How it is wanted.
    pub preference: Preference,
    /// The best that the subscriber may have, whatever it wants.
    pub limit: Option<Quality>,
    /// A shared screen: it wants to be sharp rather than smooth.
    pub is_screen: bool,
    /// How many have spoken after its publisher did; 0: it is the speaker. None: it has not spoken.
    pub spoke: Option<usize>,
    /// What it has.
    pub standing: Standing,
    /// Whether it may get more than it has, or anything after a pause. A new one may.
    pub may_rise: bool,
    /// Whether it keeps its lowest rung for now though that does not fit.
    pub holds_out: bool,
}

/// What becomes of one track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// What it gets; none: nothing.
    pub layer: Option<Layer>,
    /// What it would get if everything fitted; none: it is not wanted, or there is nothing of it.
    pub ideal: Option<Layer>,
}

impl Share {
    /// Whether it gets nothing though there is something, because that does not fit.
    pub fn is_paused(self) -> bool {
        self.layer.is_none() && self.ideal.is_some()
    }
}

/// What becomes of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// One for each demand, in their order.
    pub shares: Vec<Share>,
    /// What is sent, in bits per second, without the reserve.
    pub used: u64,
    /// What would be sent if everything fitted, with the reserve.
    pub wanted: u64,
    /// What the budget has to be for the next rung; none: there is none that would be of use.
    pub next: Option<u64>,
}

/// Which rungs count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Among {
    /// Those whose packets arrive.
    Active,
    /// All, as if their publisher sent them: what it should be asked for.
    All,
}

/// Shares a budget among the tracks of one subscriber.
pub fn allocate(budget: Budget, demands: &[Demand], among: Among) -> Allocation {
    let room = budget.bps.map_or(u64::MAX, |bps| bps.saturating_sub(budget.reserve));
    let mut tracks: Vec<Candidate> = demands.iter().map(|demand| Candidate::new(demand, among)).collect();
    let mut order: Vec<usize> = (0..tracks.len()).collect();
    order.sort_by_key(|&index| demands.get(index).map(rank));
    let mut shared = Shared {
        room,
        never_pause: budget.never_pause,
        used: 0,
        next: None,
    };
    for &index in &order {
        if let Some(track) = tracks.get_mut(index) {
            track.raise(&mut shared);
        }
    }
    let priority = |index: &usize| demands.get(*index).map(|demand| demand.preference.priority);
    for class in order.chunk_by(|one, two| priority(one) == priority(two)) {
        let mut is_moving = true;
        while is_moving {
            is_moving = false;
            for &index in class {
                if let Some(track) = tracks.get_mut(index) {
                    is_moving |= track.raise(&mut shared);
                }
            }
        }
    }
    Allocation {
        used: shared.used,
        wanted: tracks.iter().map(Candidate::ideal_bps).sum::<u64>() + budget.reserve,
        next: shared.next.map(|next| next + budget.reserve),
        shares: tracks.iter().map(Candidate::share).collect(),
    }
}

/// What is sent so far.
struct Shared {
    room: u64,
    never_pause: bool,
    used: u64,
    /// What the first rung that was refused needs.
    next: Option<u64>,
}

/// A track that climbs.
struct Candidate<'a> {
    demand: &'a Demand,
    path: Vec<path::Step>,
    /// How many steps of its path it has made.
    height: usize,
    /// It gets no more, or is paused.
    is_settled: bool,
}

impl<'a> Candidate<'a> {
    fn new(demand: &'a Demand, among: Among) -> Self {
        Self {
            demand,
            path: path::path(demand, among),
            height: 0,
            is_settled: false,
        }
    }

    fn bps(&self, height: usize) -> u64 {
        let step = height.checked_sub(1).and_then(|index| self.path.get(index));
        step.map_or(0, |step| step.bps)
    }

    /// One step more, if there is one and it fits.
    fn raise(&mut self, shared: &mut Shared) -> bool {
        let Some(step) = self.path.get(self.height).filter(|_| !self.is_settled) else {
            return false;
        };
        let is_kept = match self.demand.standing {
            Standing::Given(layer) => step.layer <= layer || self.height == 0,
            Standing::New => self.height == 0,
            Standing::Paused => false,
        };
        let total = shared.used + step.bps - self.bps(self.height);
        let needed = if is_kept {
            total
        } else {
            total + total * RISE_MARGIN_PERCENT / 100
        };
        let key_needs = if is_kept || self.height == 0 || self.demand.is_screen || !self.is_larger(step) {
            0
        } else {
            step.key_bytes * 8 * 1_000 / MAX_KEY_TIME_MS
        };
        let needed = needed.max(key_needs);
        let is_its_time = is_kept || self.demand.may_rise;
        let must_be = (shared.never_pause || self.demand.holds_out) && self.height == 0;
        if !must_be && (needed > shared.room || !is_its_time) {
            self.is_settled = true;
            shared.next = shared.next.or(Some(needed));
            return false;
        }
        shared.used = total;
        self.height += 1;
        true
    }

    /// Whether a step is to a larger picture than it has, or has climbed to, which begins with a key picture: one for all temporal layers.
    fn is_larger(&self, step: &path::Step) -> bool {
        let reached = self.height.checked_sub(1).and_then(|index| self.path.get(index));
        let reached = reached.map(|reached| reached.layer.spatial);
        let had = match self.demand.standing {
            Standing::Given(layer) => Some(layer.spatial),
            Standing::New | Standing::Paused => None,
        };
        Some(step.layer.spatial) > reached.max(had)
    }

    fn ideal_bps(&self) -> u64 {
        self.bps(self.path.len())
    }

    fn share(&self) -> Share {
        let at = |height: usize| Some(self.path.get(height.checked_sub(1)?)?.layer);
        Share {
            layer: at(self.height),
            ideal: at(self.path.len()),
        }
    }
}

/// Where a track stands in the order; lower comes first.
fn rank(demand: &Demand) -> (u32, u32, usize) {
    let priority = match demand.preference.priority {
        0 => u32::MAX,
        said => said,
    };
    let size = u32::MAX - pixels(demand).max(1).ilog2();
    (priority, size, demand.spoke.unwrap_or(usize::MAX))
}

/// How large it is shown.
fn pixels(demand: &Demand) -> u64 {
    let (width, height) = (u64::from(demand.preference.width), u64::from(demand.preference.height));
    let shown = match (demand.preference.quality, width.max(height)) {
        (None, larger) if larger > 0 => match width.min(height) {
            0 => larger * larger,
            smaller => larger * smaller,
        },
        _ => {
            let best = path::cap(demand);
            let rungs = demand.rungs.iter().filter(|rung| rung.layer.spatial <= best);
            let known = rungs.map(|rung| u64::from(rung.width) * u64::from(rung.height)).max();
            known.filter(|pixels| *pixels > 0).unwrap_or(USUAL_PIXELS)
        }
    };
    if demand.is_screen {
        shown.max(SCREEN_PIXELS)
    } else {
        shown
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
