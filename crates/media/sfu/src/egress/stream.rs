//! One stream that is sent: an SSRC with numbers of its own, and the SSRC of its repair.

use std::time::{Duration, Instant};

use crate::history::History;
use crate::packet::Mid;
use crate::window::{self, RtpWindow};

use super::Outgoing;
use super::header::{Extensions, Stamp};

/// A receiver's report says nothing of the present after so long.
const REPORT_MEMORY: Duration = Duration::from_secs(10);

/// A packet that was sent.
#[derive(Clone)]
pub struct Sent {
    /// What.
    pub packet: Outgoing,
    /// What it was stamped with.
    pub stamp: Stamp,
}

/// What was negotiated of an m-line on which we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// The m-line.
    pub mid: Mid,
    /// The stream's SSRC.
    pub ssrc: u32,
    /// The SSRC of its repair (RFC 4588), if there is one.
    pub repair_ssrc: Option<u32>,
    /// Whether it is sound.
    pub is_audio: bool,
    /// Which header extensions the receiver takes.
    pub extensions: Extensions,
}

impl Line {
    /// Its SSRCs.
    pub fn ssrcs(&self) -> impl Iterator<Item = u32> {
        [Some(self.ssrc), self.repair_ssrc].into_iter().flatten()
    }
}

/// A stream.
pub struct Stream {
    /// What was negotiated.
    pub line: Line,
    /// Which numbers were used.
    pub used: RtpWindow,
    /// The number at which the receiver's rollover counter was 0.
    base: u64,
    /// What can be sent again.
    pub history: History<Sent>,
    /// Packets that were sent, repair and padding aside.
    pub packets: u32,
    /// Bytes of their payloads.
    pub bytes: u32,
    /// The timestamp of the newest packet, and when it arrived from its publisher.
    pub newest: Option<(u32, Instant)>,
    /// Ticks per second.
    pub clock_rate: u32,
    /// Whether the receiver has reported on the SSRC, and so knows whose it is.
    pub is_bound: bool,
    /// The same of its repair.
    pub is_repair_bound: bool,
    /// The number of the last packet of its repair.
    repair_sequence: u64,
    /// The payload type of what was sent last.
    pub payload_type: u8,
    /// When a key frame was asked for last.
    pub key_frame_wanted: Option<Instant>,
    /// What the receiver has reported last.
    reported: Option<Reported>,
    rated: u32,
}

#[derive(Debug, Clone, Copy)]
struct Reported {
    at: Instant,
    loss: f32,
    /// All that was expected and lost by then.
    highest: u32,
    lost: u32,
}

impl Stream {
    /// One that has sent nothing.
    pub fn new(line: Line) -> Self {
        Self {
            line,
            used: RtpWindow::new(),
            base: 0,
            history: History::default(),
            packets: 0,
            bytes: 0,
            newest: None,
            clock_rate: 0,
            is_bound: false,
            is_repair_bound: false,
            // Below 2^15, so that the first rollover is far off (RFC 3711 section 3.3.1).
            repair_sequence: u64::from(line.repair_ssrc.unwrap_or_default() & 0x7fff),
            payload_type: 0,
            key_frame_wanted: None,
            reported: None,
            rated: 0,
        }
    }

    /// Its receiver begins anew with other keys, and its rollover counters with it.
    pub fn rekey(&mut self) {
        self.base = self.used.highest().unwrap_or_default() & !0xffff;
        self.repair_sequence &= 0x7fff;
        self.history.clear();
        (self.is_bound, self.is_repair_bound) = (false, false);
        self.reported = None;
    }

    /// The index that a number's packet is encrypted with; none: the receiver could not find it.
    pub fn index(&self, sequence: u64) -> Option<u64> {
        sequence.checked_sub(self.base)
    }

    /// The number of the next packet of its repair.
    pub fn next_repair(&mut self) -> u64 {
        self.repair_sequence += 1;
        self.repair_sequence
    }

    /// The number that a receiver means by its low 16 bits; none: nothing was sent.
    pub fn extend(&self, low: u16) -> Option<u64> {
        Some(window::nearest(self.used.highest()?, low))
    }

    /// Takes a receiver's report. Returns how many packets were lost and how many were expected since the one before.
    pub fn reported(&mut self, now: Instant, fraction_lost: u8, lost: u32, highest: u32) -> (u32, u32) {
        // 24 bits with a sign (RFC 3550 section 6.4.1).
        let lost = ((lost << 8) as i32 >> 8) as u32;
        let since = self.reported.map_or((0, 0), |before| {
            let expected = highest.wrapping_sub(before.highest);
            let newly_lost = lost.wrapping_sub(before.lost) as i32;
            // What was not sent cannot have been expected.
            if expected > self.packets {
                (0, 0)
            } else {
                (newly_lost.clamp(0, expected as i32) as u32, expected)
            }
        });
        self.reported = Some(Reported {
            at: now,
            loss: f32::from(fraction_lost) / 256.0,
            highest,
            lost,
        });
        since
    }

    /// How many packets were sent since the last call, and which share the receiver has lost, if it has told lately.
    pub fn rate(&mut self, now: Instant) -> (u32, Option<f32>) {
        let packets = self
            .packets
            .wrapping_sub(std::mem::replace(&mut self.rated, self.packets));
        let reported = self
            .reported
            .filter(|reported| now.saturating_duration_since(reported.at) < REPORT_MEMORY);
        (packets, reported.map(|reported| reported.loss))
    }
}
