//! One at a time for each key, and what came of the last time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The most keys that are remembered, besides those that somebody holds at the moment. Higher: more memory. Lower: what
/// came of the last time is forgotten while it would still count.
pub const MAX_REMEMBERED: usize = 4096;

/// Whoever holds a key's lock has its turn, and finds what the last one left there.
pub type Turn<V> = Arc<tokio::sync::Mutex<Option<V>>>;

/// The turns of all keys.
#[derive(Debug)]
pub struct Turns<K, V> {
    kept: Mutex<BTreeMap<K, Turn<V>>>,
}

impl<K, V> Default for Turns<K, V> {
    fn default() -> Self {
        Self { kept: Mutex::default() }
    }
}

impl<K: Ord, V> Turns<K, V> {
    /// The turn of a key.
    pub fn of(&self, key: K) -> Turn<V> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_REMEMBERED && !kept.contains_key(&key) {
            // Those that somebody holds are kept: else a key could have two turns.
            kept.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        kept.entry(key).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_a_turn_that_is_held_is_not_forgotten() {
        let turns = Turns::<usize, ()>::default();
        let held = turns.of(0);
        for key in 1..=2 * MAX_REMEMBERED {
            turns.of(key);
        }
        assert!(turns.kept.lock().unwrap().len() <= MAX_REMEMBERED);
        assert!(Arc::ptr_eq(&held, &turns.of(0)));
    }
}
