//! What the WebRTC stack reports of a connection every [`quality::INTERVAL`], boiled down to a [`Report`].
//!
//! A round begins with the stack's event about the peer; the events about its streams follow it in the same drain.

use std::collections::BTreeMap;
use std::time::Duration;

use str0m::Event;

use crate::packet::{Mid, Rid};
use crate::quality::{Losses, Report};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    In,
    Out,
}

/// The last round of a connection's statistics.
#[derive(Debug, Default)]
pub struct Statistics {
    incoming: Losses,
    outgoing: Losses,
    rtt: Option<Duration>,
    /// How many packets each stream had carried in all, one simulcast layer being one stream.
    carried: BTreeMap<(Direction, Mid, Option<Rid>), u64>,
}

impl Statistics {
    /// Takes the stack's event, if it is one of these.
    pub fn observe(&mut self, event: &Event) {
        match event {
            Event::PeerStats(stats) => {
                (self.incoming, self.outgoing) = Default::default();
                self.rtt = stats.rtt;
            }
            Event::MediaIngressStats(stats) => {
                let rid = stats.rid.map(|rid| Rid::from(&*rid));
                let stream = (Direction::In, Mid::from(&*stats.mid), rid);
                let packets = self.since_last(stream, stats.packets);
                self.incoming.add(packets, stats.loss.unwrap_or_default());
            }
            Event::MediaEgressStats(stats) => {
                let rid = stats.rid.map(|rid| Rid::from(&*rid));
                let stream = (Direction::Out, Mid::from(&*stats.mid), rid);
                let packets = self.since_last(stream, stats.packets);
                if let Some(loss) = stats.loss {
                    self.outgoing.add(packets, loss);
                }
                self.rtt = self.rtt.max(stats.rtt.filter(|_| packets > 0));
            }
            _ => {}
        }
    }

    /// What they come to.
    pub fn report(&self) -> Report {
        let direction = |losses: Losses| Report {
            loss: losses.share(),
            rtt: self.rtt,
        };
        direction(self.incoming).worse(direction(self.outgoing))
    }

    fn since_last(&mut self, stream: (Direction, Mid, Option<Rid>), packets: u64) -> u64 {
        let before = self.carried.insert(stream, packets).unwrap_or_default();
        packets.saturating_sub(before)
    }
}
