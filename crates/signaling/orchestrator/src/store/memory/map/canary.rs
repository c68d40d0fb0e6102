//! The canary share, and what came of it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use signalbox_protocol::canary::{CanaryChange, Outcomes};
use signalbox_protocol::placement::Track;
use tokio::time::Instant;

use super::Map;
use crate::store::canary::{BUCKET, CanaryState, KEPT_CHANGES, NodeOutcomes, ShareChange};

#[derive(Debug, Clone, Default)]
pub(super) struct Canary {
    version: u64,
    /// The newest first.
    changes: VecDeque<CanaryChange>,
    /// By version of the share, beginning of the stretch since the map was made, and track.
    outcomes: BTreeMap<(u64, Duration, Track), Outcomes>,
}

impl Map {
    pub fn canary(&self, window: Duration, now: Instant) -> CanaryState {
        let canary = &self.canary;
        let now = self.uptime(now);
        let counted = |track| {
            let recent = canary.outcomes.iter().filter(|((version, bucket, of), _)| {
                (*version, *of) == (canary.version, track) && *bucket + window > now
            });
            recent.fold(Outcomes::default(), |sum, (_, outcomes)| sum.plus(*outcomes))
        };
        CanaryState {
            version: canary.version,
            last: canary.changes.front().cloned(),
            stable: counted(Track::Stable),
            canary: counted(Track::Canary),
        }
    }

    pub fn canary_history(&self, limit: usize) -> Vec<CanaryChange> {
        self.canary.changes.iter().take(limit).cloned().collect()
    }

    pub fn set_canary(&mut self, change: &ShareChange<'_>, now: Instant) -> bool {
        if change.after != self.canary.version {
            return false;
        }
        let at_ms = self.unix_ms(now);
        self.canary.version += 1;
        self.canary.changes.push_front(CanaryChange {
            at_ms,
            from: change.from,
            to: change.to,
            by: change.by,
            why: change.why.to_owned(),
        });
        let kept = usize::try_from(KEPT_CHANGES).unwrap_or(usize::MAX);
        self.canary.changes.truncate(kept);
        true
    }

    pub fn note_outcomes(&mut self, outcomes: &[NodeOutcomes], now: Instant) {
        let bucket = BUCKET * (self.uptime(now).div_duration_f64(BUCKET) as u32);
        for noted in outcomes {
            let Some(node) = self.nodes.get(&noted.node) else {
                continue;
            };
            let key = (self.canary.version, bucket, node.about.track);
            let counted = self.canary.outcomes.entry(key).or_default();
            *counted = counted.plus(noted.outcomes);
        }
    }

    pub fn forget_outcomes(&mut self, age: Duration, now: Instant) -> u64 {
        let (before, now) = (self.canary.outcomes.len(), self.uptime(now));
        self.canary.outcomes.retain(|(_, bucket, _), _| *bucket + age >= now);
        (before - self.canary.outcomes.len()) as u64
    }

    fn uptime(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }
}
