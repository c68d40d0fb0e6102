//! When which connection is due. Nearly every packet changes that for its receivers, so a change costs a few steps in a heap, and no memory.

use std::time::Instant;

/// A binary heap of the next times, and where each key is in it.
#[derive(Debug, Default)]
pub struct Timers {
    heap: Vec<(Instant, usize)>,
    /// By key; [`NOWHERE`]: it is not due.
    places: Vec<usize>,
}

const NOWHERE: usize = usize::MAX;

impl Timers {
    /// A key is due then, and at no other time.
    pub fn set(&mut self, key: usize, due: Instant) {
        if self.places.len() <= key {
            self.places.resize(key + 1, NOWHERE);
        }
        let place = match self.place(key) {
            Some(place) => place,
            None => {
                self.heap.push((due, key));
                self.put(self.heap.len() - 1, (due, key));
                self.heap.len() - 1
            }
        };
        self.put(place, (due, key));
        let place = self.rise(place);
        self.sink(place);
    }

    /// A key is not due any more.
    pub fn remove(&mut self, key: usize) {
        let Some(place) = self.place(key) else {
            return;
        };
        self.forget(key);
        let Some(last) = self.heap.pop().filter(|_| place < self.heap.len()) else {
            return;
        };
        self.put(place, last);
        let place = self.rise(place);
        self.sink(place);
    }

    /// Who is due first, and when.
    pub fn first(&self) -> Option<(Instant, usize)> {
        self.heap.first().copied()
    }

    /// How many are due at some time.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    fn place(&self, key: usize) -> Option<usize> {
        self.places.get(key).copied().filter(|place| *place != NOWHERE)
    }

    fn forget(&mut self, key: usize) {
        if let Some(place) = self.places.get_mut(key) {
            *place = NOWHERE;
        }
        while self.places.pop_if(|place| *place == NOWHERE).is_some() {}
    }

    fn put(&mut self, place: usize, one: (Instant, usize)) {
        if let (Some(there), Some(known)) = (self.heap.get_mut(place), self.places.get_mut(one.1)) {
            *there = one;
            *known = place;
        }
    }

    /// Moves what is at a place up as far as it belongs; where it is then.
    fn rise(&mut self, mut place: usize) -> usize {
        while place > 0 {
            let above = (place - 1) / 2;
            if !self.exchange_if_earlier(place, above) {
                break;
            }
            place = above;
        }
        place
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let earlier = if self.heap.get(right) < self.heap.get(left) && right < self.heap.len() {
                right
            } else {
                left
            };
            if !self.exchange_if_earlier(earlier, place) {
                return;
            }
            place = earlier;
        }
    }

    fn exchange_if_earlier(&mut self, below: usize, above: usize) -> bool {
        let (Some(&lower), Some(&upper)) = (self.heap.get(below), self.heap.get(above)) else {
            return false;
        };
        if lower >= upper {
            return false;
        }
        self.put(above, lower);
        self.put(below, upper);
        true
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Compared with a sorted set.
        #[test]
        fn the_first_one_is_first_whatever_was_changed(changes in prop::collection::vec((0usize..20, 0u64..4, 0u64..100), 1..200)) {
            let begun = Instant::now();
            let (mut timers, mut sorted) = (Timers::default(), BTreeSet::new());
            for (key, what, at) in changes {
                let due = begun + Duration::from_millis(at);
                sorted.retain(|(_, other)| *other != key);
                if what == 0 {
                    timers.remove(key);
                } else {
                    timers.set(key, due);
                    sorted.insert((due, key));
                }
                prop_assert_eq!(timers.first(), sorted.first().copied());
                prop_assert_eq!(timers.len(), sorted.len());
            }
            while let Some((_, key)) = timers.first() {
                prop_assert_eq!(timers.first(), sorted.pop_first());
                timers.remove(key);
            }
            prop_assert!(sorted.is_empty() && timers.places.is_empty());
        }
    }
}
