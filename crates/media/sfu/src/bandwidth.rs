//! How much a connection's network takes: the estimate for what a node sends to one peer, from the peer's transport-wide feedback
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01), and the probes that look for more.
//!
//! Sans-IO, and without packets: its caller tells what leaves and what the peer says, and is told rates. The algorithm is libwebrtc's:
//! see [`controller`]. A peer without such feedback has a simpler estimate: see [`reports`].

pub mod arrivals;
pub mod controller;
pub mod doubt;
pub mod history;
pub mod overload;
mod peer_clock;
pub mod proven;
pub mod reports;
mod round_trips;
pub mod search;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::window;

use controller::{Controller, Update};
use doubt::Doubt;
use history::{History, Sent};
use overload::Overload;
use peer_clock::PeerClock;
use proven::Proven;
use reports::FromReports;
use round_trips::RoundTrips;
use search::Search;

/// What is believed of a network of which nothing is known. Higher: whoever joins from a poor network gets more than it takes, until the
/// first feedback. Lower: whoever joins sees a small picture first.
const START_BPS: u64 = 1_000_000;

/// No estimate is lower: sound goes on.
const MIN_BPS: u64 = 50_000;

/// No estimate is higher. Higher: more is probed for than a participant can look at.
const MAX_BPS: u64 = 50_000_000;

/// What is believed at least while packets get lost but do not queue: the path is a bad one, and not full. Higher: a path that polices
/// loses more. Lower: whoever has a bad path has sound only.
const LOSSY_BPS: u64 = 300_000;

/// Packets queue if the round trip is so much longer than it has been of late. A path that becomes longer does so by less.
const QUEUE: Duration = Duration::from_millis(150);

/// With a round trip so much longer than it has been of late, nobody looks for more.
const SUSPICION: Duration = Duration::from_millis(60);

/// With a round trip that is longer by no more than this, what was in a queue has left it.
const DRAINED: Duration = Duration::from_millis(20);

/// An estimate below this part of what has just arrived is out of date.
const FOUND: f64 = 0.7;

/// If one packet in so many is lost, something is wrong with the path.
const LOST_SHARE: usize = 8;

/// After a queue was seen, or most was lost for seconds, a low estimate is believed for so long. Higher: a path that was full once and is lossy later carries little.
/// Lower: a narrow path is filled up more often.
const QUEUE_MEMORY: Duration = Duration::from_secs(60);

/// How often the estimate is looked at. Higher: probes begin later. Lower: more work for each peer.
const INTERVAL: Duration = Duration::from_millis(50);

/// How much later than that it is, if feedback may come until then: what is known of the peer is at hand then, and nobody has to be woken. Higher: without feedback it
/// is looked at more seldom. Lower: peers whose feedback comes a little late are looked at by themselves.
const WAIT_FOR_FEEDBACK: Duration = Duration::from_millis(25);

/// After so long without a packet nothing is measured, and there is no timer.
const REST: Duration = Duration::from_secs(2);

/// A peer that has given no feedback so long after the first packet gives none, whatever it has negotiated.
const FEEDBACK_TIMEOUT: Duration = Duration::from_secs(5);

/// Probes that wait to be sent at most; a later one knows more than an earlier one.
const MAX_PROBES: usize = 4;

/// How much faster than the estimate packets leave, so that a frame is not spread over the time until the next one (libwebrtc's factor).
const PACING: f64 = 2.5;

/// Packets that feedback may leave out between one and the next.
const MAX_LEFT_OUT: u64 = 1_000;

/// What a packet carries, as far as the estimate cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Sound.
    Audio,
    /// Anything else that is of use: picture, and packets that are sent again.
    Video,
    /// Nothing: it is sent to measure.
    Padding,
}

/// A burst at a rate that may be more than the estimate, to see whether it gets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Which; to be given back with each of its packets.
    pub id: u32,
    /// How fast its packets leave, in bits per second.
    pub bps: u64,
    /// How many packets it has at least.
    pub packets: u32,
    /// How many bytes it has at least.
    pub bytes: u64,
}

/// What has become of a peer's transport-wide feedback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feedback {
    /// It is believed.
    Read,
    /// It cannot be read, and is ignored.
    Refused,
    /// It is also about packets that were never sent, up to this number, exclusive; it is ignored.
    Beyond(u64),
}

/// The estimate of one connection.
pub struct Bandwidth {
    now: Instant,
    wanted: u64,
    /// What it begins with, in bits per second.
    start: u64,
    controller: Controller,
    history: History,
    target: u64,
    pacing: u64,
    probes: VecDeque<Probe>,
    /// The probe that is being sent, and how much of it was.
    sending: Option<(u32, u64)>,
    /// Lost packets of which no arrived one has been told since: the controller takes none without the other.
    lost: Vec<Sent>,
    peer_clock: PeerClock,
    /// The number of the last feedback, and the packet after the last one that it was about.
    last_feedback: Option<(u8, u64)>,
    round_trips: RoundTrips,
    /// When too much was sent last.
    queued: Option<Instant>,
    first_sent: Option<Instant>,
    /// When something was sent that was not only to measure.
    last_sent: Option<Instant>,
    has_feedback: bool,
    from_reports: FromReports,
    has_reports: bool,
    next: Option<Instant>,
    search: Search,
    overload: Overload,
    proven: Proven,
    doubt: Doubt,
    /// Neither does anything queue now, nor was more than a little lost of what was told of last.
    is_clear: bool,
}

impl Bandwidth {
    /// An estimate that knows nothing yet, or what the path took in bits per second when it was measured last. Less than what is believed of an
    /// unknown path says little: it may not have been measured to its end.
    pub fn new(now: Instant, known: Option<u64>) -> Self {
        let start = known.map_or(START_BPS, |bps| bps.clamp(START_BPS, MAX_BPS));
        Self {
            now,
            start,
            wanted: 0,
            controller: Controller::new(now),
            history: History::default(),
            target: start,
            pacing: (start as f64 * PACING) as u64,
            probes: VecDeque::new(),
            sending: None,
            lost: Vec::new(),
            peer_clock: PeerClock::default(),
            last_feedback: None,
            round_trips: RoundTrips::default(),
            queued: None,
            first_sent: None,
            last_sent: None,
            has_feedback: false,
            from_reports: FromReports::new(now, start),
            has_reports: false,
            next: None,
            search: Search::new(now),
            overload: Overload::default(),
            proven: Proven::default(),
            doubt: Doubt::default(),
            is_clear: false,
        }
    }

    /// A packet leaves. `sequence` is its transport-wide sequence number, extended past 16 bits, one higher with each; `bytes` is the
    /// datagram's length; `probe` names the probe that it is part of.
    pub fn sent(&mut self, now: Instant, sequence: u64, bytes: usize, load: Load, probe: Option<Probe>) {
        self.now = now;
        self.first_sent.get_or_insert(now);
        if load != Load::Padding {
            self.last_sent = Some(now);
        }
        let probe = probe.map(|probe| {
            let before = self
                .sending
                .filter(|(id, _)| *id == probe.id)
                .map_or(0, |(_, bytes)| bytes);
            self.sending = Some((probe.id, before + bytes as u64));
            (probe, before)
        });
        let sent = self.history.sent(now, sequence, bytes, load, probe);
        // Before there is a picture, there is nothing to measure with.
        if !self.controller.is_running() && load == Load::Video {
            self.begin(now, self.start);
        }
        if self.controller.is_running() {
            self.controller.sent(&sent);
            self.next.get_or_insert(now + INTERVAL);
        }
    }

    fn begin(&mut self, now: Instant, start: u64) {
        let update = self.controller.begin(now, start, self.wanted);
        self.update(update);
    }

    /// The peer's transport-wide feedback: the packet's feedback control information, behind the two SSRCs.
    /// `told` gets what is news of it: numbers, and whether they have arrived.
    pub fn feedback(&mut self, now: Instant, feedback: &[u8], mut told: impl FnMut(u64, bool)) -> Feedback {
        self.now = now;
        let (Some((head, rest)), Some(last)) = (arrivals::head(feedback), self.history.last()) else {
            return Feedback::Refused;
        };
        let first = window::nearest(last, head.first);
        let next = first + u64::from(head.count);
        if head.count == 0 {
            return Feedback::Refused;
        }
        if next > last + 1 {
            return Feedback::Beyond(next);
        }
        let reference = self.peer_clock.extend(self.controller.micros(now), head.reference);
        let (mut arrived, mut lost) = (Vec::new(), Vec::new());
        let (history, mut newest) = (&mut self.history, None);
        // Some peers begin with a packet that has arrived. If no feedback is missing, those before it have not.
        let last_feedback = self.last_feedback.replace((head.number, next));
        if let Some((number, begin)) = last_feedback
            && number.wrapping_add(1) == head.number
            && begin < first
            && first - begin < MAX_LEFT_OUT
        {
            let before = (begin..first).filter_map(|sequence| history.told(sequence, false));
            lost.extend(before.inspect(|sent| told(sent.sequence, false)));
        }
        let is_whole = arrivals::read(head.count, rest, |place, ticks| {
            if let Some(sent) = history.told(first + u64::from(place), ticks.is_some()) {
                told(sent.sequence, ticks.is_some());
                match ticks {
                    Some(ticks) => {
                        let time = (reference + ticks) * peer_clock::TICK_US;
                        newest = newest.max(Some((time, sent.at)));
                        arrived.push((sent, time));
                    }
                    None => lost.push(sent),
                }
            }
        });
        self.lost.extend(lost);
        let outcome = is_whole.map_or(Feedback::Refused, |()| Feedback::Read);
        let Some((_, newest_sent)) = newest else {
            return outcome;
        };
        self.has_feedback = true;
        let (arrived_bytes, lost_packets) = (arrived.iter().map(|(sent, _)| sent.bytes).sum(), self.lost.len());
        self.round_trips.told(now, newest_sent);
        let queues = self.is_longer_by(SUSPICION);
        self.overload
            .told(now, arrived.len(), arrived_bytes, lost_packets, queues);
        self.proven
            .told(now, arrived.len(), arrived_bytes, lost_packets, queues);
        if self.is_longer_by(QUEUE) || self.overload.is_policed() {
            self.queued = Some(now);
        }
        let is_lossy = lost_packets * LOST_SHARE > arrived.len();
        self.is_clear = !self.is_longer_by(DRAINED) && !is_lossy;
        if queues || is_lossy {
            self.doubt.refuted(now);
        }
        let lost = std::mem::take(&mut self.lost);
        let is_wide = !queues && self.target >= self.wanted;
        let in_flight = self.history.in_flight();
        let update = self.controller.told(now, &lost, &arrived, in_flight, is_wide);
        self.update(update);
        if self.next.is_some_and(|due| due <= now + INTERVAL) {
            self.look(now, INTERVAL + WAIT_FOR_FEEDBACK);
        }
        let whole = arrived.iter().filter_map(|(sent, _)| {
            let (probe, _) = sent.probe?;
            self.search.arrived(&probe)
        });
        if let Some(bps) = whole.last() {
            self.found(now, bps);
        }
        outcome
    }

    /// A probe of ours has arrived as a whole. What the controller remembers of losses weighs until enough packets have arrived since;
    /// as long as all is held back, there are none but those of probes. So it begins anew.
    fn found(&mut self, now: Instant, bps: u64) {
        if self.is_clear && self.is_silent(now) && (self.target as f64) < bps as f64 * FOUND {
            self.lost.clear();
            self.probes.clear();
            self.overload = Overload::default();
            self.target = bps;
            self.begin(now, bps);
        }
    }

    /// The round trip that the last feedback tells, if it tells one.
    pub fn round_trip_of_feedback(&self) -> Option<Duration> {
        self.round_trips.last()
    }

    /// Whether there is anything to tell by: packets of which the peer gives feedback, an estimate of its own, or its reports.
    pub fn is_informed(&self) -> bool {
        self.first_sent.is_some() || self.has_reports
    }

    /// The peer has reported on one stream: so many of so many packets since its last report were lost. Used as long as there is no
    /// feedback.
    pub fn lost(&mut self, now: Instant, lost: u32, expected: u32) {
        self.now = now;
        self.has_reports = true;
        let wanted = if self.wanted > 0 { self.wanted } else { MAX_BPS };
        self.from_reports.lost(now, lost, expected, wanted, (MIN_BPS, MAX_BPS));
    }

    /// The peer's own estimate of what it can receive, in bits per second (draft-alvestrand-rmcat-remb-03). It bounds, as long as there
    /// is no feedback. `false`: nobody can believe it.
    pub fn peer_estimate(&mut self, now: Instant, bps: u64) -> bool {
        self.now = now;
        let is_believed = self.from_reports.peer_estimate(now, bps);
        self.has_reports |= is_believed;
        is_believed
    }

    /// How much would be of use at most, in bits per second. Nothing much beyond it is looked for.
    pub fn set_wanted(&mut self, now: Instant, bps: u64) {
        self.now = now;
        let bps = bps.min(MAX_BPS);
        if bps == self.wanted {
            return;
        }
        self.wanted = bps;
        if self.controller.is_running() && !self.rests(now) {
            self.next.get_or_insert(now + INTERVAL);
        }
        let update = self.controller.want(now, bps);
        self.update(update);
    }

    /// What may be sent in all, in bits per second.
    pub fn estimate(&self) -> u64 {
        if self.gives_feedback() {
            let bound = self.overload.bound(self.now).unwrap_or(MAX_BPS).max(MIN_BPS);
            self.believed().min(bound)
        } else {
            self.from_reports.estimate(self.now)
        }
    }

    /// How fast packets may leave that are there, in bits per second; more than the estimate, so that a frame is not spread over the
    /// time until the next one.
    pub fn pacing(&self) -> u64 {
        if self.gives_feedback() {
            let bound = self.overload.bound(self.now).unwrap_or(u64::MAX).max(MIN_BPS);
            self.pacing.max((self.believed() as f64 * PACING) as u64).min(bound)
        } else {
            (self.estimate() as f64 * PACING) as u64
        }
    }

    /// Whether packets have got lost of late though the path is not full, as far as it can be told.
    pub fn loses_without_queue(&self, now: Instant) -> bool {
        self.overload.bound(now).is_none() && self.proven.loses(now)
    }

    /// Whether something queues on the path, or it has just shown that it is full.
    pub fn is_full(&self, now: Instant) -> bool {
        self.is_longer_by(SUSPICION) || self.overload.bound(now).is_some()
    }

    /// The next probe that is to be sent.
    pub fn next_probe(&mut self, now: Instant) -> Option<Probe> {
        self.now = now;
        if self.rests(now) {
            self.probes.clear();
            return None;
        }
        // One that is slower than what is believed finds nothing, and the controller takes what it shows for the estimate.
        let target = self.target;
        self.probes.retain(|probe| probe.bps > target);
        let probe = self.probes.pop_front().or_else(|| {
            let may_look = self.has_feedback && !self.is_longer_by(SUSPICION) && self.overload.bound(now).is_none();
            let wanted = self.wanted.min(MAX_BPS);
            self.search.next(now, self.target, wanted).filter(|_| may_look)
        });
        if probe.is_some() {
            self.search.probed(now);
        }
        probe
    }

    /// When [`Bandwidth::handle_timeout`] has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        self.next
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if self.next.is_none_or(|due| due > now) {
            return;
        }
        self.look(now, INTERVAL);
    }

    fn look(&mut self, now: Instant, until_next: Duration) {
        self.next = (!self.rests(now)).then(|| now + until_next);
        let update = self.controller.look(now);
        self.update(update);
    }

    /// Whether nothing is going on that would be worth measuring for: nothing is sent, and nothing is held back for want of room.
    fn rests(&self, now: Instant) -> bool {
        self.is_silent(now) && self.target >= self.wanted
    }

    /// Whether nothing is sent but to measure.
    fn is_silent(&self, now: Instant) -> bool {
        self.last_sent
            .is_none_or(|last| now.saturating_duration_since(last) >= REST)
    }

    fn is_longer_by(&self, time: Duration) -> bool {
        self.round_trips.is_longer_by(self.now, time)
    }

    /// What the path is believed to take, unless there is an overload.
    fn believed(&self) -> u64 {
        let doubted = self.doubt.held(self.now).unwrap_or_default();
        let proven = self.proven.bps(self.now).unwrap_or_default();
        self.target.max(doubted).max(proven).max(self.floor())
    }

    fn floor(&self) -> u64 {
        let was_queued = self
            .queued
            .is_some_and(|at| self.now.saturating_duration_since(at) < QUEUE_MEMORY);
        if was_queued { MIN_BPS } else { LOSSY_BPS }
    }

    /// Whether the peer gives feedback, or may still begin to.
    fn gives_feedback(&self) -> bool {
        if self.controller.has_failed() {
            return false;
        }
        let waited = self.first_sent.map(|first| self.now.saturating_duration_since(first));
        self.has_feedback || waited.is_some_and(|waited| waited < FEEDBACK_TIMEOUT)
    }

    fn update(&mut self, update: Update) {
        if let Some(target) = update.target {
            let before = std::mem::replace(&mut self.target, target);
            if let Some(bps) = self.doubt.changed(self.now, before, self.target, self.is_clear) {
                self.probes.clear();
                self.probes.push_back(self.search.probe(bps));
            }
        }
        self.pacing = update.pacing.unwrap_or(self.pacing);
        for probe in update.probes {
            if self.probes.len() >= MAX_PROBES {
                self.probes.pop_front();
            }
            self.probes.push_back(probe);
        }
    }
}

#[cfg(test)]
pub mod tests;
