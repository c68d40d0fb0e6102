//! How long datagrams are inside the node: from when they were read until all that came of them was handed to the kernel.

use std::time::Duration;

/// The upper bounds of the buckets, in microseconds.
pub const BOUNDS: [u64; 8] = [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000];

/// A histogram, as Prometheus has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// How many took no longer than each bound, and longer than the one before.
    counts: [u64; BOUNDS.len()],
    longer: u64,
    sum: Duration,
}

impl Latency {
    /// So many datagrams took so long.
    pub fn add(&mut self, datagrams: u64, took: Duration) {
        let place = BOUNDS.iter().position(|bound| took <= Duration::from_micros(*bound));
        match place.and_then(|place| self.counts.get_mut(place)) {
            Some(count) => *count += datagrams,
            None => self.longer += datagrams,
        }
        self.sum += took.saturating_mul(u32::try_from(datagrams).unwrap_or(u32::MAX));
    }

    /// Adds another one.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.longer += other.longer;
        self.sum += other.sum;
    }

    /// How many took no longer than each of [`BOUNDS`].
    pub fn up_to(&self) -> impl Iterator<Item = (Duration, u64)> {
        let bounds = BOUNDS.map(Duration::from_micros).into_iter();
        bounds.zip(self.counts.into_iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        }))
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.longer
    }

    /// How long all of them took.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_datagram_counts_in_all_buckets_that_it_fits() {
        let (mut one, mut other) = (Latency::default(), Latency::default());
        one.add(3, Duration::from_micros(100));
        one.add(1, Duration::from_micros(101));
        other.add(2, Duration::from_secs(1));
        one.merge(&other);
        let up_to: Vec<u64> = one.up_to().map(|(_, count)| count).collect();
        assert_eq!(up_to, [3, 4, 4, 4, 4, 4, 4, 4]);
        assert_eq!((one.count(), one.sum()), (6, Duration::from_micros(2_000_401)));
    }
}
