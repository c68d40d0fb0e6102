//! The packets that were sent on a stream of late, to be sent again when they are asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::rewrite::PicturePatch;

use crate::rtp::Header;

/// Packets kept: at 5 Mbit/s about a second's. Higher: more memory for each stream, which holds its payloads that long. Lower: what is
/// asked for late is gone.
const CAPACITY: u64 = 512;

/// A packet that was sent.
#[derive(Clone)]
pub struct Sent {
    /// Its index.
    pub index: u64,
    /// Its header.
    pub header: Header,
    /// Its payload as the publisher sent it; shared with all who got it.
    pub payload: Arc<[u8]>,
    /// What is changed in it.
    pub pictures: PicturePatch,
    /// When it was sent last.
    pub at: Instant,
}

/// The last packets of one stream.
#[derive(Default)]
pub struct History {
    ring: Vec<Option<Sent>>,
}

impl History {
    /// Keeps a packet, in the place of one that was sent long before.
    pub fn keep(&mut self, sent: Sent) {
        let place = (sent.index % CAPACITY) as usize;
        if self.ring.len() <= place {
            self.ring.resize(CAPACITY as usize, None);
        }
        if let Some(slot) = self.ring.get_mut(place) {
            *slot = Some(sent);
        }
    }

    /// A packet to be sent again now; `None`: it is not kept any more, or it was sent less than `pause` ago.
    pub fn again(&mut self, now: Instant, index: u64, pause: Duration) -> Option<&Sent> {
        let sent = self.ring.get_mut((index % CAPACITY) as usize)?.as_mut()?;
        if sent.index != index || now.saturating_duration_since(sent.at) < pause {
            return None;
        }
        sent.at = now;
        Some(sent)
    }
}
