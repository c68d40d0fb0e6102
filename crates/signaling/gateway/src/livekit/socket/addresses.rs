//! Where the media of a client's peer connections has gone lately.
//!
//! A browser that is sent back to an address which it still has a candidate pair with goes on to check that pair with the credentials of then (seen in
//! Chromium 149), which whoever is there now does not know. It gets there only once it has begun ICE anew on its side, from other ports.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

/// How long a browser keeps a pair that it does not use: 30 seconds after its last packet in Chromium. Higher: clients that come back late resume for
/// nothing. Lower: some of them are without their own media until their pair has timed out.
const KEPT: Duration = Duration::from_secs(40);

/// Addresses that are remembered. Who is sent to more within [`KEPT`] is seen to by the other limits.
const MAX: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    /// The last one is in use.
    used: Vec<Used>,
    /// Counts the ICE sessions.
    session: u64,
}

#[derive(Debug)]
struct Used {
    address: SocketAddr,
    session: u64,
    /// But for the one in use: when it was left.
    until: Instant,
}

impl Addresses {
    /// It goes there from now on, in the ICE session that it has or in another; whether it has been there lately in another than it has then.
    pub(super) fn go_to(&mut self, address: SocketAddr, keeps_ice: bool, now: Instant) -> bool {
        if let Some(last) = self.used.last_mut() {
            last.until = now;
        }
        self.session += u64::from(!keeps_ice);
        self.used.retain(|used| now.duration_since(used.until) < KEPT);
        let is_known = |used: &Used| used.address == address && used.session != self.session;
        let is_known = self.used.iter().any(is_known);
        self.used.retain(|used| used.address != address);
        if self.used.len() == MAX {
            self.used.remove(0);
        }
        self.used.push(Used {
            address,
            session: self.session,
            until: now,
        });
        is_known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_known_while_a_browser_may_still_have_a_pair_with_it() {
        let [a, b] = [1, 2].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        let begun = Instant::now();
        let mut addresses = Addresses::default();
        assert!(!addresses.go_to(a, false, begun));
        // However long it was there.
        let later = begun + 3 * KEPT;
        assert!(addresses.go_to(a, false, later));
        assert!(!addresses.go_to(b, false, later));
        assert!(addresses.go_to(a, false, later + KEPT / 2));
        assert!(!addresses.go_to(b, false, later + 2 * KEPT));
    }

    #[test]
    fn the_pairs_of_an_ice_session_that_goes_on_are_still_good() {
        let [a, b] = [1, 2].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        let now = Instant::now();
        let mut addresses = Addresses::default();
        assert!(!addresses.go_to(a, false, now));
        assert!(!addresses.go_to(b, true, now));
        assert!(!addresses.go_to(a, true, now));
        assert!(addresses.go_to(b, false, now));
        assert!(addresses.go_to(a, true, now));
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let address = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let now = Instant::now();
        let mut addresses = Addresses::default();
        for port in 0..=MAX as u16 {
            assert!(!addresses.go_to(address(port), false, now));
        }
        assert!(addresses.go_to(address(1), false, now));
        assert!(!addresses.go_to(address(0), false, now));
    }
}
