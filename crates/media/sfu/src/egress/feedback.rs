//! What the peer says about what it receives. It may lie: whatever it says, what it makes us do is bounded, and counted.

use std::time::{Duration, Instant};

use crate::bandwidth::Feedback;
use crate::clock;
use crate::history::Missing;
use crate::rtcp::{self, Report, Said};

use super::{Egress, Part, Told};

/// Of what is sent, one byte in so many may be sent again. Lower: more losses are made good. Higher: a peer that asks for everything again
/// gets less of it.
pub const REPAIR_SHARE: usize = 2;

/// What may be sent again at most after a time without losses, in bytes: a large key frame.
pub const MAX_REPAIR_BUDGET: usize = 200_000;

/// The same at least: a few packets.
const MIN_REPAIR_BUDGET: usize = 15_000;

/// No more is sent again at once than the network takes in this time: on one that has become narrow, what is sent again is in the way of
/// what is new.
const REPAIR_TIME: Duration = Duration::from_millis(300);

/// Requests for key frames on one stream closer than this are one. Higher: whoever lost a key frame waits longer. Lower: a flood of them
/// costs more.
const KEY_FRAME_INTERVAL: Duration = Duration::from_millis(100);

/// No packet is sent again sooner than this.
const MIN_ROUND_TRIP: Duration = Duration::from_millis(10);

/// A longer round trip is not believed.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(2);

/// A round trip says nothing of the present after so long.
const ROUND_TRIP_MEMORY: Duration = Duration::from_secs(10);

/// What is to be done with a packet of RTCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handled {
    /// Nothing: it is not authentic, or came before.
    Refused,
    /// Nothing more: it was only about what we send.
    Whole,
    /// Whoever receives the peer's streams must have it too.
    InPart,
}

impl Egress {
    /// Takes a packet of RTCP from the peer.
    pub fn handle_rtcp(&mut self, now: Instant, datagram: &[u8]) -> Handled {
        if !self.open(datagram) {
            return Handled::Refused;
        }
        let plain = std::mem::take(&mut self.scratch);
        let is_readable = rtcp::read(&plain, |said| self.said(now, said));
        self.counters.bad_feedback += u64::from(!is_readable);
        let handled = if rtcp::is_only_feedback(&plain) {
            Handled::Whole
        } else {
            Handled::InPart
        };
        self.scratch = plain;
        self.release(now);
        handled
    }

    pub(super) fn said(&mut self, now: Instant, said: Said<'_>) {
        match said {
            Said::Report(report) => self.reported(now, report),
            Said::Missing { ssrc, first, others } => self.missing(now, ssrc, first, others),
            Said::KeyFrame { ssrc } => self.key_frame_wanted(now, ssrc),
            Said::Arrivals(feedback) => {
                let (transmissions, mut lost) = (&mut self.transmissions, std::mem::take(&mut self.lost));
                let told = |number, has_arrived| lost.extend(transmissions.told(number, has_arrived));
                let is_believed = match self.bandwidth.feedback(now, feedback, told) {
                    Feedback::Read => true,
                    Feedback::Refused => false,
                    Feedback::Beyond(end) => self.numbers.go_on_behind(end),
                };
                self.counters.bad_feedback += u64::from(!is_believed);
                if let Some(round_trip) = self.bandwidth.round_trip_of_feedback() {
                    self.round_trip_measured(now, round_trip);
                }
                self.bandwidth_changed(now);
                // On a full path what nobody asks for is in the way.
                if self.bandwidth.is_full(now) {
                    lost.clear();
                }
                for lost in lost.drain(..) {
                    self.one_missing(now, lost.stream.into(), lost.sequence, MIN_ROUND_TRIP);
                }
                self.lost = lost;
            }
            Said::PeerEstimate(bps) => {
                let is_believed = self.bandwidth.peer_estimate(now, bps);
                self.counters.bad_feedback += u64::from(!is_believed);
                self.bandwidth_changed(now);
            }
            Said::SenderReport { .. } | Said::Goodbye { .. } => {}
        }
    }

    fn reported(&mut self, now: Instant, report: Report) {
        let Some((index, part)) = self.by_ssrc.get(&report.ssrc).copied() else {
            self.counters.unknown_feedback += 1;
            return;
        };
        let Some(stream) = self.streams.get_mut(index) else {
            return;
        };
        if part == Part::Repair {
            stream.is_repair_bound = true;
            return;
        }
        stream.is_bound = true;
        let (lost, expected) = stream.reported(now, report.fraction_lost, report.lost, report.highest);
        if expected > 0 {
            self.bandwidth.lost(now, lost, expected);
            self.bandwidth_changed(now);
        }
        // A peer that claims a delay longer than all that passed has measured nothing.
        let since = clock::short(self.clock.ntp(now)).wrapping_sub(report.last_sender_report);
        let round_trip = since.checked_sub(report.delay).map(clock::from_short);
        if let Some(round_trip) = round_trip.filter(|_| report.last_sender_report != 0)
            && round_trip <= MAX_ROUND_TRIP
        {
            self.round_trip_measured(now, round_trip);
        }
    }

    pub(super) fn round_trip_measured(&mut self, now: Instant, round_trip: Duration) {
        self.round_trip = Some((round_trip, now));
        let is_least = self
            .least_round_trip
            .is_none_or(|(least, at)| round_trip <= least || now.saturating_duration_since(at) >= ROUND_TRIP_MEMORY);
        if is_least {
            self.least_round_trip = Some((round_trip, now));
        }
    }

    /// The round trip, if it was measured lately.
    pub(super) fn measured_round_trip(&self, now: Instant) -> Option<Duration> {
        let (round_trip, at) = self.round_trip?;
        (now.saturating_duration_since(at) < ROUND_TRIP_MEMORY).then_some(round_trip)
    }

    fn missing(&mut self, now: Instant, ssrc: u32, first: u16, others: u16) {
        let Some((index, Part::Media)) = self.by_ssrc.get(&ssrc).copied() else {
            self.counters.unknown_feedback += 1;
            return;
        };
        // The least of late: what was measured by feedback that was on its way for longer, or waited for more to tell, would refuse a peer
        // that asks again after as long as it takes.
        let pause = self
            .least_round_trip
            .map_or(super::USUAL_ROUND_TRIP, |(round_trip, _)| round_trip);
        let pause = pause.clamp(MIN_ROUND_TRIP, MAX_ROUND_TRIP);
        self.one_missing(now, index, first, pause);
        for bit in (0..16u16).filter(|bit| others & 1 << bit != 0) {
            self.one_missing(now, index, first.wrapping_add(bit + 1), pause);
        }
    }

    /// Sends the packet again that is meant by the low bits of a number: see [`Egress::send_missing`].
    fn one_missing(&mut self, now: Instant, index: usize, sequence: u16, pause: Duration) {
        let sequence = self.streams.get(index).and_then(|stream| stream.extend(sequence));
        match sequence {
            Some(sequence) => self.send_missing(now, index, sequence, pause),
            None => self.counters.unknown_missing += 1,
        }
    }

    /// Sends a packet again that has not arrived, unless that was done less than `pause` ago, or too much was.
    fn send_missing(&mut self, now: Instant, index: usize, sequence: u64, pause: Duration) {
        let taken = self.bandwidth.estimate() as f64 / 8.0 * REPAIR_TIME.as_secs_f64();
        self.repair_budget = self.repair_budget.min((taken as usize).max(MIN_REPAIR_BUDGET));
        let counters = &mut self.counters;
        let Some(stream) = self.streams.get_mut(index) else {
            return;
        };
        let bytes = stream
            .history
            .get(sequence)
            .map_or(0, |sent| sent.packet.payload().len());
        if bytes > self.repair_budget {
            counters.refused_missing += 1;
            return;
        }
        match stream.history.again(now, sequence, pause) {
            Ok(_) if self.pacer.queue_repair(index, sequence) => {
                self.repair_budget -= bytes;
                let may_copy = bytes <= self.repair_budget && self.bandwidth.loses_without_queue(now);
                if may_copy && self.copies.add(now, index, sequence) {
                    self.repair_budget -= bytes;
                }
            }
            Ok(_) => counters.refused_missing += 1,
            Err(Missing::Recent) => counters.recent_missing += 1,
            Err(Missing::Unknown) => counters.unknown_missing += 1,
        }
    }

    fn key_frame_wanted(&mut self, now: Instant, ssrc: u32) {
        let found = self.by_ssrc.get(&ssrc).copied();
        let Some(stream) = found.and_then(|(index, _)| self.streams.get_mut(index)) else {
            self.counters.unknown_feedback += 1;
            return;
        };
        let is_recent = stream
            .key_frame_wanted
            .is_some_and(|then| now.saturating_duration_since(then) < KEY_FRAME_INTERVAL);
        if is_recent {
            self.counters.merged_key_frames += 1;
        } else {
            stream.key_frame_wanted = Some(now);
            self.told.push_back(Told::KeyFrameWanted(stream.line.mid));
        }
    }

    /// Begins the next probe, if there is one and it can be sent.
    pub(super) fn begin_probe(&mut self, now: Instant) {
        if self.probing.is_free()
            && let Some(probe) = self.bandwidth.next_probe(now)
        {
            self.probing.begin(now, probe);
        }
    }
}
