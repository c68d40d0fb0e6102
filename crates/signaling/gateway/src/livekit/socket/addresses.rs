//! Where the media of a client's peer connections has gone lately.
//!
//! A browser that is sent back to an address which it still has a candidate pair with goes on to check that pair with the credentials of then (seen in
//! Chromium 149), which whoever is there now does not know; and where its ICE session goes on, it prefers that pair no more than when it
//! was left. It gets there only once it has begun ICE anew on its side, from other ports.

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
    /// The last one is in use, the others have been until then.
    used: Vec<(SocketAddr, Instant)>,
}

impl Addresses {
    /// It goes there from now on; whether it has been there lately.
    pub(super) fn go_to(&mut self, address: SocketAddr, now: Instant) -> bool {
        if let Some((_, until)) = self.used.last_mut() {
            *until = now;
        }
        self.used.retain(|(_, until)| now.duration_since(*until) < KEPT);
        let is_known = self.used.iter().any(|(used, _)| *used == address);
        self.used.retain(|(used, _)| *used != address);
        if self.used.len() == MAX {
            self.used.remove(0);
        }
        self.used.push((address, now));
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
        assert!(!addresses.go_to(a, begun));
        // However long it was there.
        let later = begun + 3 * KEPT;
        assert!(addresses.go_to(a, later));
        assert!(!addresses.go_to(b, later));
        assert!(addresses.go_to(a, later + KEPT / 2));
        assert!(!addresses.go_to(b, later + 2 * KEPT));
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let address = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let now = Instant::now();
        let mut addresses = Addresses::default();
        for port in 0..=MAX as u16 {
            assert!(!addresses.go_to(address(port), now));
        }
        assert!(addresses.go_to(address(1), now));
        assert!(!addresses.go_to(address(0), now));
    }
}
