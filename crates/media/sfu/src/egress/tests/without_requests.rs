//! What feedback says is lost is sent again, whether or not anybody asks for it.

use std::collections::BTreeMap;

use super::*;
use crate::bandwidth::tests::feedback;
use crate::rtcp::Said;

/// What came of 300 pictures of one packet each, of whose transmissions one in 15 is lost.
struct Outcome {
    /// How long each picture took, by its number; one that never came is not in it.
    took: BTreeMap<u64, Duration>,
    /// The numbers of the first and the last picture.
    range: (u64, u64),
    lost: u64,
    counters: Counters,
}

fn run(asks: bool) -> Outcome {
    let mut peer = Peer::measured();
    let (mut sent_at, mut took) = (BTreeMap::new(), BTreeMap::new());
    let (mut transmissions, mut lost) = (0, 0);
    let mut statuses = Vec::new();
    for tick in 0..300u64 {
        sent_at.insert(peer.video(500), peer.now);
        peer.pass(Duration::from_millis(10));
        let mut missed = Vec::new();
        for packet in peer.received(0) {
            let number = match packet.header.ssrc {
                REPAIR => u16::from_be_bytes([packet.payload[0], packet.payload[1]]).into(),
                _ => u64::from(packet.header.sequence),
            };
            let is_first = packet.header.ssrc == VIDEO;
            transmissions += 1;
            let is_lost = transmissions % 15 == 0;
            let ticks = 10_000 + 40 * tick;
            statuses.push((transport_sequence(&packet), (!is_lost).then_some(ticks)));
            if is_lost {
                lost += u64::from(!took.contains_key(&number));
                missed.extend(is_first.then_some(number));
            } else if let Some(at) = sent_at.get(&number) {
                took.entry(number).or_insert(peer.now - *at);
            }
        }
        if asks && !missed.is_empty() {
            peer.misses(&missed);
        }
        if tick % 5 == 4 {
            let (now, first) = (peer.now, statuses[0].0);
            let arrivals: Vec<_> = statuses.drain(..).map(|(_, arrival)| arrival).collect();
            let feedback = feedback(u64::from(first), &arrivals, (tick / 5) as u8);
            peer.egress.said(now, Said::Arrivals(&feedback));
        }
    }
    Outcome {
        range: (
            *sent_at.first_key_value().unwrap().0,
            *sent_at.last_key_value().unwrap().0,
        ),
        took,
        lost,
        counters: peer.egress.counters,
    }
}

#[test]
fn what_is_lost_comes_after_the_next_feedback_if_nobody_asks_for_it() {
    let Outcome { took, range, lost, .. } = run(false);
    assert!(lost > 15, "{lost}");
    // What was lost last may still be to come.
    for number in range.0..range.1 - 12 {
        let after = took.get(&number).copied();
        assert!(
            after.is_some_and(|after| after <= Duration::from_millis(130)),
            "{number}: {after:?}"
        );
    }
}

#[test]
fn what_was_asked_for_is_not_sent_again_for_the_feedback() {
    let Outcome {
        took,
        range,
        lost,
        counters,
    } = run(true);
    assert!((range.0..range.1 - 12).all(|number| took.contains_key(&number)));
    // With the second copy that a lossy path gets.
    assert!(counters.repaired <= 2 * lost, "for {lost}: {counters:?}");
    assert_eq!(counters.unknown_missing, 0);
}
