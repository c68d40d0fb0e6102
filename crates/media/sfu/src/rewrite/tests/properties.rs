//! For any order, loss, duplication, change of the source and choice of what is left out.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// What happens to the next frame of the publisher.
#[derive(Debug, Clone)]
enum Step {
    /// It has so many packets, and is sent or left out.
    Frame { packets: u8, is_sent: bool },
    /// Before it, another source takes over: another layer, or an encoder that was started anew.
    Switch {
        sequence: u16,
        timestamp: u32,
        picture: u16,
    },
    /// The packets that come next are of the same source after a pause.
    Pause { packets: u16 },
    /// The source's clock is set.
    Clock { timestamp: u32 },
}

/// A packet as it arrives.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    source: u32,
    fields: Fields,
    is_sent: bool,
    is_anchor: bool,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1..5_u8, any::<bool>()).prop_map(|(packets, is_sent)| Step::Frame { packets, is_sent }),
        1 => (any::<u16>(), any::<u32>(), 0..0x8000_u16)
            .prop_map(|(sequence, timestamp, picture)| Step::Switch { sequence, timestamp, picture }),
        1 => (0..2_000_u16).prop_map(|packets| Step::Pause { packets }),
        1 => any::<u32>().prop_map(|timestamp| Step::Clock { timestamp }),
    ]
}

/// All packets in the order of the publisher.
fn published(steps: &[Step]) -> Vec<Arrival> {
    let (mut source, mut sequence, mut timestamp, mut picture) = (1, 1_000_u64, 0_u32, 0_u16);
    let mut anchors = true;
    let mut packets = Vec::new();
    for step in steps {
        match *step {
            Step::Frame {
                packets: count,
                is_sent,
            } => {
                for _ in 0..count {
                    packets.push(Arrival {
                        source,
                        fields: vp8(sequence, timestamp, picture, 0),
                        is_sent: is_sent || anchors,
                        is_anchor: std::mem::take(&mut anchors),
                    });
                    sequence += 1;
                }
                timestamp = timestamp.wrapping_add(3_000);
                picture = (picture + 1) & 0x7fff;
            }
            Step::Switch {
                sequence: first,
                timestamp: time,
                picture: id,
            } => {
                source += 1;
                (sequence, timestamp, picture) = (u64::from(first), time, id);
                anchors = true;
            }
            Step::Pause { packets: count } => {
                sequence += u64::from(count);
                timestamp = timestamp.wrapping_add(u32::from(count) * 3_000);
                anchors = true;
            }
            Step::Clock { timestamp: time } => timestamp = time,
        }
    }
    packets
}

/// What the network makes of it: some are lost, some come twice, some come later.
fn arrived(published: &[Arrival], lost: &[Index], twice: &[(Index, u8)], late: &[(Index, u8)]) -> Vec<Arrival> {
    let mut keyed: Vec<(usize, Arrival)> = published
        .iter()
        .enumerate()
        .map(|(at, packet)| (at * 2, *packet))
        .collect();
    if published.is_empty() {
        return Vec::new();
    }
    let by = |delay: u8| usize::from(delay) * 2 + 1;
    for (index, delay) in late {
        let at = index.index(published.len());
        // Where a source begins is decided in the order of arrival.
        if !published[at].is_anchor {
            keyed[at].0 += by(*delay);
        }
    }
    for (index, delay) in twice {
        let at = index.index(published.len());
        keyed.push((
            at * 2 + by(*delay),
            Arrival {
                is_anchor: false,
                ..published[at]
            },
        ));
    }
    let lost: BTreeSet<usize> = lost.iter().map(|index| index.index(published.len())).collect();
    let mut keyed: Vec<(usize, Arrival)> = keyed
        .into_iter()
        .enumerate()
        .filter(|(at, (_, packet))| !lost.contains(at) || packet.is_anchor)
        .map(|(_, keyed)| keyed)
        .collect();
    keyed.sort_by_key(|(at, _)| *at);
    keyed.into_iter().map(|(_, packet)| packet).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_receiver_sees_one_stream(
        start in any::<u16>(),
        steps in prop::collection::vec(step(), 1..60),
        lost in prop::collection::vec(any::<Index>(), 0..12),
        twice in prop::collection::vec((any::<Index>(), 0..40_u8), 0..8),
        late in prop::collection::vec((any::<Index>(), 0..40_u8), 0..12),
    ) {
        let begin = Instant::now();
        let mut rewriter = Rewriter::new(start);
        let published = published(&steps);
        let packets = arrived(&published, &lost, &twice, &late);
        // By number: timestamp, picture id; an empty packet has none.
        let mut received: BTreeMap<u64, (u32, Option<u16>)> = BTreeMap::new();
        // Numbers that are kept for what the source has lost.
        let mut given: BTreeMap<(u32, u64), u64> = BTreeMap::new();
        for (index, packet) in packets.iter().enumerate() {
            let now = begin + Duration::from_millis(10) * index as u32;
            if packet.is_anchor {
                rewriter.anchor(now, packet.source, &packet.fields);
            }
            let is_current = rewriter.source() == Some(packet.source);
            if is_current && rewriter.place(packet.fields.sequence) != Place::Past {
                if packet.is_sent {
                    let rewritten = rewriter.send(now, &packet.fields, Cut::WHOLE).unwrap();
                    let numbers = (rewritten.timestamp, rewritten.pictures.picture_id());
                    prop_assert_eq!(received.insert(rewritten.sequence, numbers), None, "a number twice");
                    prop_assert_eq!(given.insert((packet.source, packet.fields.sequence), rewritten.sequence), None, "a packet twice");
                } else {
                    rewriter.skip(now, &packet.fields, Cut::WHOLE);
                }
            }
            while let Some((sequence, timestamp)) = rewriter.next_empty() {
                prop_assert_eq!(received.insert(sequence, (timestamp, None)), None, "a number twice");
            }
        }
        // Only a loss that the source may still repair leaves a number out.
        let open = rewriter.gaps.open_numbers();
        if let (Some((first, _)), Some((last, _))) = (received.first_key_value(), received.last_key_value()) {
            prop_assert_eq!(*first, u64::from(start & 0x7fff) + 1);
            for number in *first..=*last {
                prop_assert!(received.contains_key(&number) != open.contains(&number), "number {} is neither there nor expected", number);
            }
        }
        // Pictures and times go forward.
        let numbered: Vec<(u32, u16)> = received.values().filter_map(|(time, picture)| Some((*time, (*picture)?))).collect();
        for pair in numbered.windows(2) {
            let (time, picture) = (pair[1].0.wrapping_sub(pair[0].0) as i32, pair[1].1.wrapping_sub(pair[0].1) & 0x7fff);
            prop_assert!(time >= 0, "time runs back: {:?}", pair);
            prop_assert!(picture < 0x4000, "pictures run back: {:?}", pair);
            prop_assert!((picture == 0) <= (time == 0), "one picture, two times: {:?}", pair);
        }
        for pair in received.values().collect::<Vec<_>>().windows(2) {
            prop_assert!(pair[1].0.wrapping_sub(pair[0].0) as i32 >= 0, "time runs back: {:?}", pair);
        }
    }
}
