//! What the WebRTC stack reports of a connection every [`quality::INTERVAL`](crate::quality::INTERVAL), boiled down to a [`Report`], beside
//! what the peer reports of what is sent.
//!
//! A round begins with the stack's event about the peer; the events about its streams follow it in the same drain.

use std::collections::BTreeMap;
use std::time::Duration;

use str0m::Event;

use crate::packet::{Mid, Rid};
use crate::quality::{Losses, Report};

/// The last round of a connection's statistics.
#[derive(Debug, Default)]
pub struct Statistics {
    incoming: Losses,
    rtt: Option<Duration>,
    sent: Report,
    /// How many packets each stream had carried in all, one simulcast layer being one stream.
    carried: BTreeMap<(Mid, Option<Rid>), u64>,
}

impl Statistics {
    /// Takes the stack's event, if it is one of these. Returns whether a round begins with it.
    pub fn observe(&mut self, event: &Event) -> bool {
        match event {
            Event::PeerStats(stats) => {
                self.incoming = Losses::default();
                self.rtt = stats.rtt;
                return true;
            }
            Event::MediaIngressStats(stats) => {
                let stream = (Mid::from(&*stats.mid), stats.rid.map(|rid| Rid::from(&*rid)));
                let packets = self.since_last(stream, stats.packets);
                self.incoming.add(packets, stats.loss.unwrap_or_default());
            }
            _ => {}
        }
        false
    }

    /// What the peer has reported of what was sent to it in the round that begins.
    pub fn sent(&mut self, report: Report) {
        self.sent = report;
    }

    /// What they come to.
    pub fn report(&self) -> Report {
        let incoming = Report {
            loss: self.incoming.share(),
            rtt: self.rtt,
        };
        incoming.worse(self.sent)
    }

    fn since_last(&mut self, stream: (Mid, Option<Rid>), packets: u64) -> u64 {
        let before = self.carried.insert(stream, packets).unwrap_or_default();
        packets.saturating_sub(before)
    }
}
