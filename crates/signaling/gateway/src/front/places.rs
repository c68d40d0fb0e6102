//! How many connections there may be: in total, and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The limits, and who has a place.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    per_address: usize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    address: Option<IpAddr>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// At most so many, and so many from one address.
    pub(super) fn new(limit: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self {
            all: Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))),
            per_address,
            by_address: Mutex::default(),
        })
    }

    /// A place for whoever it is; none: all are taken.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        Some(Place {
            _permit: Arc::clone(&self.all).try_acquire_owned().ok()?,
            places: Arc::clone(self),
            address: None,
        })
    }

    fn by_address(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// It is this address's; whether that may have one more. To be called once.
    pub(super) fn give_to(&mut self, address: IpAddr) -> bool {
        let network = network(address);
        let mut by_address = self.places.by_address();
        let count = by_address.entry(network).or_default();
        if *count >= self.places.per_address {
            return false;
        }
        *count += 1;
        self.address = Some(network);
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(network) = self.address else {
            return;
        };
        let mut by_address = self.places.by_address();
        if let Some(count) = by_address.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&network);
            }
        }
    }
}

/// What one subscriber has: an IPv4 address, or the first 64 bits of an IPv6 address, as whoever has one of them has all (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & (!0 << 64)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    #[test]
    fn an_address_gets_its_places_back() {
        let places = Places::new(10, 2);
        let mut taken = [places.take().unwrap(), places.take().unwrap()];
        assert!(taken.iter_mut().all(|place| place.give_to(at("192.0.2.1"))));
        let mut third = places.take().unwrap();
        assert!(!third.give_to(at("192.0.2.1")));
        drop(third);
        assert!(places.take().unwrap().give_to(at("192.0.2.2")), "another address");
        drop(taken);
        assert!(places.take().unwrap().give_to(at("192.0.2.1")));
        assert!(places.by_address().is_empty(), "nothing is remembered");
    }

    #[test]
    fn all_places_are_counted_whoever_has_them() {
        let places = Places::new(1, 10);
        let only = places.take();
        assert!(only.is_some() && places.take().is_none());
        drop(only);
        assert!(places.take().is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        assert_eq!(network(at("2001:db8:0:1::7")), network(at("2001:db8:0:1:ffff::")));
        assert_ne!(network(at("2001:db8:0:1::7")), network(at("2001:db8:0:2::7")));
        assert_eq!(network(at("::ffff:192.0.2.1")), at("192.0.2.1"));
    }
}
