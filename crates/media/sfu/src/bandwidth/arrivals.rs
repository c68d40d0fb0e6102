//! Reads transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1): which packets have arrived, and when.
//! Whoever sends it may lie, so nothing is read past the number of packets that may be meant.

/// 64 ms in units of 250 µs: the unit of the reference time, in that of the differences.
const REFERENCE_TICKS: i64 = 256;

/// The fixed part of the feedback control information, behind the two SSRCs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The low 16 bits of the first packet's transport-wide sequence number.
    pub first: u16,
    /// How many packets it is about.
    pub count: u16,
    /// What the times count from, in units of 250 µs of the peer's clock, modulo 2³² of them.
    pub reference: u32,
    /// The feedback's own number: each has one more than the one before, modulo 256.
    pub number: u8,
}

/// Reads the fixed part. Returns it with what follows.
pub fn head(feedback: &[u8]) -> Option<(Head, &[u8])> {
    let (fixed, rest) = feedback.split_first_chunk::<8>()?;
    let reference = u32::from_be_bytes([0, fixed[4], fixed[5], fixed[6]]);
    let head = Head {
        first: u16::from_be_bytes([fixed[0], fixed[1]]),
        count: u16::from_be_bytes([fixed[2], fixed[3]]),
        reference: reference * REFERENCE_TICKS as u32,
        number: fixed[7],
    };
    Some((head, rest))
}

/// Reads what follows: for each packet its place behind the first one and, if it has arrived, when, in units of 250 µs since the
/// reference time. `None`: it is cut short.
pub fn read(count: u16, rest: &[u8], mut take: impl FnMut(u16, Option<i64>)) -> Option<()> {
    // The statuses come first and the times behind them, so the former are gone through to find the latter.
    let mut times = rest.get(statuses(count, rest, |_| ())? * 2..)?;
    let mut ticks = 0i64;
    let (mut place, mut is_whole) = (0, true);
    statuses(count, rest, |status| {
        let step = match status {
            1 => times.split_first().map(|(step, rest)| (i64::from(*step), rest)),
            2 => times
                .split_first_chunk::<2>()
                .map(|(step, rest)| (i64::from(i16::from_be_bytes(*step)), rest)),
            _ => None,
        };
        let arrived = step.map(|(step, rest)| {
            times = rest;
            ticks += step;
            ticks
        });
        is_whole &= arrived.is_some() || !matches!(status, 1 | 2);
        if is_whole {
            take(place, arrived);
        }
        place += 1;
    })?;
    is_whole.then_some(())
}

/// Goes through the statuses of the packets. Returns how many chunks of 16 bits hold them.
fn statuses(count: u16, rest: &[u8], mut take: impl FnMut(u8)) -> Option<usize> {
    let (mut left, mut chunks) = (count, 0);
    while left > 0 {
        let pair = rest.get(chunks * 2..)?.first_chunk::<2>()?;
        let chunk = u16::from_be_bytes(*pair);
        chunks += 1;
        let (symbols, bits) = match chunk >> 14 {
            // A run of one status (section 3.1.3).
            0 | 1 => {
                let run = (chunk & 0x1fff).min(left);
                // A chunk that is about nothing would be gone through for nothing.
                if run == 0 {
                    return None;
                }
                for _ in 0..run {
                    take((chunk >> 13 & 0x03) as u8);
                }
                left -= run;
                continue;
            }
            // One bit each, or two (section 3.1.4).
            2 => (14, 1),
            _ => (7, 2),
        };
        for symbol in 0..symbols.min(left) {
            let shift = 14 - bits * (symbol + 1);
            take((chunk >> shift & ((1 << bits) - 1)) as u8);
        }
        left -= symbols.min(left);
    }
    Some(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(count: u16, rest: &[u8]) -> Option<Vec<(u16, Option<i64>)>> {
        let mut found = Vec::new();
        read(count, rest, |place, arrived| found.push((place, arrived)))?;
        Some(found)
    }

    #[test]
    fn runs_and_vectors_are_read_and_times_add_up() {
        let fixed = [0xff, 0xfe, 0, 3, 1, 2, 3, 9];
        let (head, rest) = head(&fixed).unwrap();
        assert!(rest.is_empty());
        assert_eq!(
            head,
            Head {
                first: 0xfffe,
                count: 3,
                reference: 0x0102_0300,
                number: 9
            }
        );
        // A run of 2 small steps; one-bit symbols: 0, 1, 0, …; two-bit symbols: 2, 0, 1; then the times.
        let rest = [0x20, 2, 0x90, 0x00, 0xe1, 0x00, 4, 8, 4, 0xff, 0xff, 5];
        let found = all(2 + 14 + 3, &rest).unwrap();
        let expected = (0..19).map(|place| match place {
            0 => (place, Some(4)),
            1 => (place, Some(12)),
            3 => (place, Some(16)),
            16 => (place, Some(15)),
            18 => (place, Some(20)),
            _ => (place, None),
        });
        assert_eq!(found, expected.collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_read_past_its_end() {
        let whole = [0x20, 3, 1, 2, 3];
        assert!(all(3, &whole).is_some());
        for length in 0..whole.len() {
            assert!(all(3, &whole[..length]).is_none(), "{length}");
        }
        assert!(all(4, &whole).is_none(), "more packets than statuses");
        assert!(all(1, &[0x20, 0, 0, 0]).is_none(), "a run of none");
        for chunk in 0..=u16::MAX {
            let [high, low] = chunk.to_be_bytes();
            all(20, &[high, low, 7, 7, 7]);
            all(u16::MAX, &[high, low, high, low]);
        }
    }
}
