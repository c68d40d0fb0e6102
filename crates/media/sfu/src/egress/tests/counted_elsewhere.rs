//! A peer that has counted another node's packets, and goes on counting: libwebrtc's feedback is about numbers, and not about who sent them.

use std::collections::BTreeMap;

use super::*;
use crate::bandwidth::tests::feedback;
use crate::rtcp::Said;
use crate::window;

/// What libwebrtc keeps of arrivals (`TransportSequenceNumberFeedbackGenenerator`).
struct Counting {
    /// When each number arrived first, in 250 µs.
    arrived: BTreeMap<u64, u64>,
    last: u64,
    /// What it has not told of yet begins here.
    window: u64,
    told: u8,
}

impl Counting {
    /// Packets up to a number came from elsewhere, until now.
    fn up_to(last: u64) -> Self {
        let arrived = (last - 100..=last).map(|number| (number, 10_000 + 20 * (100 + number - last)));
        Self {
            arrived: arrived.collect(),
            last,
            window: last + 1,
            told: 0,
        }
    }

    fn arrives(&mut self, number: u16, ticks: u64) {
        self.last = window::nearest(self.last, number);
        if !self.arrived.contains_key(&self.last) {
            self.arrived.insert(self.last, ticks);
            // An older one than those that were told of: these are told of again.
            self.window = self.window.min(self.last);
        }
    }

    fn tell(&mut self) -> Option<Vec<u8>> {
        let end = *self.arrived.last_key_value()?.0 + 1;
        let begin = std::mem::replace(&mut self.window, end);
        let statuses: Vec<_> = (begin..end).map(|number| self.arrived.get(&number).copied()).collect();
        self.told = self.told.wrapping_add(1);
        (!statuses.is_empty()).then(|| feedback(begin, &statuses, self.told))
    }
}

#[test]
fn a_peer_that_has_counted_another_nodes_packets_gives_feedback_of_ours_at_once() {
    let first = 65_536 + u64::from(OURS as u16);
    // Behind ours, ahead of them, and half a turn away.
    let places = [
        -50_000i64, -32_768, -32_767, -500, -1, 101, 600, 5_000, 32_767, 32_768, 50_000,
    ];
    for last in places.map(|place| first.strict_add_signed(place)) {
        let mut peer = Peer::measured();
        let mut counting = Counting::up_to(last);
        let (mut informed, mut sent, mut told) = (None, 0, 0);
        for tick in 0..200u64 {
            peer.video(500);
            peer.pass(Duration::from_millis(10));
            for packet in peer.received(0) {
                counting.arrives(transport_sequence(&packet), 12_200 + 40 * tick);
                sent += 1;
            }
            if tick % 5 == 4
                && let Some(feedback) = counting.tell()
            {
                let now = peer.now;
                peer.egress.said(now, Said::Arrivals(&feedback));
                if peer.egress.bandwidth.round_trip_of_feedback().is_some() {
                    informed.get_or_insert(tick);
                    told += 1;
                }
            }
        }
        assert!(sent >= 200, "{last}: {sent}");
        assert!(informed.is_some_and(|tick| tick < 20), "{last}: {informed:?}");
        assert!(told >= 36, "{last}: {told}");
        assert_eq!(peer.egress.counters.bad_feedback, 0, "{last}");
        assert!(peer.egress.bandwidth.estimate() >= 1_000_000, "{last}");
    }
}
