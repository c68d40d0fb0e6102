//! The way up for one track: which of its rungs are of use, and in which order they are taken.

use signalbox_protocol::control::Quality;

use super::{Among, Demand, Layer, Rung};

/// A camera's picture that is not the smallest is taken only if it moves at least so often, in pictures per second. Higher: small and
/// smooth rather than large and jerky.
const SMOOTH_FPS: u32 = 12;

/// Pictures per second of a stream that nobody has measured.
const USUAL_FPS: u32 = 30;

/// Where a track may stop on its way up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub layer: Layer,
    pub bps: u64,
    pub key_bytes: u64,
}

/// The rungs that are of use, each better and more expensive than the one before. Empty: it is not wanted, or there is nothing of it.
pub(super) fn path(demand: &Demand, among: Among) -> Vec<Step> {
    if !demand.preference.enabled {
        return Vec::new();
    }
    let there: Vec<&Rung> = demand
        .rungs
        .iter()
        .filter(|rung| among == Among::All || rung.is_active)
        .collect();
    let Some(lowest) = there.iter().map(|rung| rung.layer.spatial).min() else {
        return Vec::new();
    };
    // More than what is of use is better than nothing, but more of that is not.
    let cap = cap(demand).max(lowest);
    let there: Vec<&Rung> = there
        .into_iter()
        .filter(|rung| rung.layer.spatial <= cap && is_of_use(rung, demand))
        .collect();
    let highest = there.iter().map(|rung| rung.layer.spatial).max().unwrap_or(lowest);
    let taken = there.iter().filter(|rung| {
        let beside = || {
            demand
                .rungs
                .iter()
                .filter(|other| other.layer.spatial == rung.layer.spatial)
        };
        let is_slowest = !beside().any(|other| other.layer.temporal < rung.layer.temporal);
        let is_fastest = !there
            .iter()
            .any(|other| other.layer.spatial == rung.layer.spatial && other.layer.temporal > rung.layer.temporal);
        if demand.is_screen {
            rung.layer.spatial == highest || is_slowest
        } else {
            rung.layer.spatial == lowest || is_fastest || fps(rung, demand) >= SMOOTH_FPS
        }
    });
    let mut steps: Vec<Step> = Vec::new();
    for rung in taken {
        // What costs as much as something better is in nobody's way.
        while steps.last().is_some_and(|worse| worse.bps >= rung.bps) {
            steps.pop();
        }
        steps.push(Step {
            layer: rung.layer,
            bps: rung.bps,
            key_bytes: rung.key_bytes,
        });
    }
    steps
}

/// The highest spatial layer that is of use.
pub(super) fn cap(demand: &Demand) -> u8 {
    let top = demand.rungs.iter().map(|rung| rung.layer.spatial).max().unwrap_or(0);
    let (preference, quality) = (&demand.preference, |quality| match quality {
        Quality::Low => 0,
        Quality::Medium => top.min(1),
        Quality::High => top,
    });
    let wanted = match preference.quality {
        Some(wanted) => quality(wanted),
        None if preference.width == 0 && preference.height == 0 => top,
        None => demand
            .rungs
            .iter()
            .find(|rung| rung.width >= preference.width && rung.height >= preference.height)
            .map_or(top, |rung| rung.layer.spatial),
    };
    wanted.min(demand.limit.map_or(top, quality))
}

/// Whether fewer of its pictures would not do.
fn is_of_use(rung: &Rung, demand: &Demand) -> bool {
    let wanted = demand.preference.fps;
    // What is measured may be a little less than what was meant.
    let suffices = |other: &Rung| fps(other, demand) * 10 >= wanted * 9;
    let mut slower = demand
        .rungs
        .iter()
        .filter(|other| other.layer.spatial == rung.layer.spatial && other.layer.temporal < rung.layer.temporal);
    wanted == 0 || !slower.any(suffices)
}

/// Pictures per second: as measured, or as usual, where each temporal layer has twice those of the one below.
fn fps(rung: &Rung, demand: &Demand) -> u32 {
    if rung.fps > 0 {
        return rung.fps;
    }
    let beside = demand
        .rungs
        .iter()
        .filter(|other| other.layer.spatial == rung.layer.spatial);
    let top = beside.map(|other| other.layer.temporal).max().unwrap_or(0);
    USUAL_FPS
        .checked_shr(u32::from(top.saturating_sub(rung.layer.temporal)))
        .unwrap_or(0)
}
