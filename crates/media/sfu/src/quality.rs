//! How well a participant's connection does: a pure function of what its connections report, of how long it has been silent, and of what
//! it gets of the pictures that it wants.

mod room;

use std::time::Duration;

use signalbox_protocol::room::ConnectionQuality;

/// How often connections report and qualities are told. Higher: less to compute and to tell. Lower: a bad connection shows sooner.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// A peer that was not heard for so long is lost. ICE checks alone come every 2.5 seconds or so, some of which get lost. Higher: a
/// participant that is gone looks fine for longer. Lower: LiveKit's SDKs reconnect when they are told for 10 seconds that they are lost.
const LOST_AFTER: Duration = Duration::from_secs(8);

/// A peer that was not heard for so long does badly.
const POOR_AFTER: Duration = Duration::from_secs(5);

/// From this share of lost packets on people notice.
const POOR_LOSS: f32 = 0.10;

/// From this share of lost packets on repair is at work.
const GOOD_LOSS: f32 = 0.02;

/// From this round-trip time on people talk into each other.
const POOR_RTT: Duration = Duration::from_millis(800);

/// From this round-trip time on answers come late.
const GOOD_RTT: Duration = Duration::from_millis(300);

/// To get better, loss and round-trip time must be below this percentage of the limit that they exceeded, so that a connection at a
/// limit is not told anew each time.
const MARGIN: u8 = 75;

/// What a participant's connections have reported of the last [`INTERVAL`]; none: nothing to tell by.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Report {
    /// The share of packets that was lost, 0 to 1, in the worse direction.
    pub loss: Option<f32>,
    /// The round-trip time.
    pub rtt: Option<Duration>,
}

impl Report {
    /// The worse of both, field by field.
    pub fn worse(self, other: Self) -> Self {
        Self {
            loss: match (self.loss, other.loss) {
                (Some(one), Some(two)) => Some(one.max(two)),
                (one, two) => one.or(two),
            },
            rtt: self.rtt.max(other.rtt),
        }
    }
}

/// How much less of the pictures a participant gets than what is of use to it, because its network does not take more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shortfall {
    /// All, or nearly.
    #[default]
    None,
    /// A picture is more than one layer smaller.
    Little,
    /// A picture is missing.
    Nothing,
}

impl Shortfall {
    /// What lasts less is not counted: whoever has just come has to be measured first.
    pub const LASTING: Duration = Duration::from_secs(5);
}

/// How well a connection does that has reported this, was last heard so long ago, and gets so much less than what is of use; `before`
/// is what was said the last time.
pub fn rate(
    report: Report,
    silent: Duration,
    shortfall: Shortfall,
    before: Option<ConnectionQuality>,
) -> ConnectionQuality {
    if silent >= LOST_AFTER {
        return ConnectionQuality::Lost;
    }
    let reaches = |loss: f32, rtt: Duration, quality: ConnectionQuality| {
        let percent = if before >= Some(quality) { MARGIN } else { 100 };
        report
            .loss
            .is_some_and(|found| found * 100.0 >= loss * f32::from(percent))
            || report.rtt.is_some_and(|found| found * 100 >= rtt * u32::from(percent))
    };
    if silent >= POOR_AFTER || shortfall == Shortfall::Nothing || reaches(POOR_LOSS, POOR_RTT, ConnectionQuality::Poor)
    {
        ConnectionQuality::Poor
    } else if shortfall == Shortfall::Little || reaches(GOOD_LOSS, GOOD_RTT, ConnectionQuality::Good) {
        ConnectionQuality::Good
    } else {
        ConnectionQuality::Excellent
    }
}

/// Adds up the losses of a connection's streams, each by the packets that it carried.
#[derive(Debug, Clone, Copy, Default)]
pub struct Losses {
    lost: f32,
    packets: f32,
}

impl Losses {
    /// A stream that carried so many packets since its last report, with this share of them lost.
    pub fn add(&mut self, packets: u64, loss: f32) {
        let packets = packets as f32;
        self.lost += packets * loss.clamp(0.0, 1.0);
        self.packets += packets;
    }

    /// The share that was lost; none without packets.
    pub fn share(self) -> Option<f32> {
        (self.packets > 0.0).then(|| self.lost / self.packets)
    }
}

#[cfg(test)]
mod tests {
    use ConnectionQuality::{Excellent, Good, Lost, Poor};

    use super::*;

    #[test]
    fn quality_follows_loss_round_trip_and_silence() {
        // Loss in percent, round-trip time in ms, silence in ms, the quality before, the quality.
        let table = [
            (None, None, 0, None, Excellent),
            (Some(0), Some(20), 100, None, Excellent),
            (Some(1), Some(299), 4_999, None, Excellent),
            (Some(2), Some(20), 100, None, Good),
            (Some(0), Some(300), 100, None, Good),
            (Some(9), Some(799), 100, None, Good),
            (Some(10), Some(20), 100, None, Poor),
            (Some(0), Some(800), 100, None, Poor),
            (None, None, 5_000, None, Poor),
            // Whoever is heard is not lost, however bad it is.
            (Some(100), Some(60_000), 7_999, Some(Poor), Poor),
            (Some(0), Some(20), 8_000, Some(Excellent), Lost),
            (None, None, 60_000, None, Lost),
            // It gets better only with a margin.
            (Some(8), None, 100, Some(Poor), Poor),
            (Some(7), None, 100, Some(Poor), Good),
            (None, Some(700), 100, Some(Lost), Poor),
            (None, Some(250), 100, Some(Good), Good),
            (None, Some(220), 100, Some(Good), Excellent),
            (Some(8), None, 100, Some(Good), Good),
            (Some(0), Some(20), 100, Some(Lost), Excellent),
        ];
        for (loss, rtt, silent, before, expected) in table {
            let report = Report {
                loss: loss.map(|percent: u8| f32::from(percent) / 100.0),
                rtt: rtt.map(Duration::from_millis),
            };
            let found = rate(report, Duration::from_millis(silent), Shortfall::None, before);
            assert_eq!(found, expected, "{report:?}, {silent} ms, {before:?}");
        }
    }

    #[test]
    fn a_picture_that_is_small_or_missing_shows_though_nothing_is_lost() {
        // Loss in percent, silence in ms, what is missing, the quality.
        let table = [
            (0, 100, Shortfall::None, Excellent),
            (0, 100, Shortfall::Little, Good),
            (0, 100, Shortfall::Nothing, Poor),
            (5, 100, Shortfall::Nothing, Poor),
            (20, 100, Shortfall::Little, Poor),
            (0, 9_000, Shortfall::Nothing, Lost),
        ];
        for (loss, silent, shortfall, expected) in table {
            let report = Report {
                loss: Some(loss as f32 / 100.0),
                rtt: None,
            };
            let found = rate(report, Duration::from_millis(silent), shortfall, None);
            assert_eq!(found, expected, "{loss}%, {silent} ms, {shortfall:?}");
        }
    }

    #[test]
    fn a_stream_counts_by_its_packets() {
        let mut losses = Losses::default();
        assert_eq!(losses.share(), None);
        losses.add(3, 1.0);
        losses.add(297, 0.0);
        losses.add(0, 1.0);
        assert_eq!(losses.share(), Some(0.01));
    }

    #[test]
    fn the_worse_of_two_connections_counts() {
        let up = Report {
            loss: Some(0.1),
            rtt: None,
        };
        let down = Report {
            loss: Some(0.0),
            rtt: Some(Duration::from_millis(5)),
        };
        let both = Report {
            loss: Some(0.1),
            rtt: Some(Duration::from_millis(5)),
        };
        assert_eq!(up.worse(down), both);
        assert_eq!(down.worse(up), both);
        assert_eq!(Report::default().worse(up), up);
    }
}
