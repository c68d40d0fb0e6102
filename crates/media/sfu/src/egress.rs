//! What a peer connection sends as RTP: header and extensions, encryption, repair, reports, pacing and probes.
//!
//! It knows nothing of how the connection was negotiated: it is told the streams and the keys. **After every call that can change it, call
//! [`Egress::poll`] until it returns `None`, then wait for [`Egress::next_due`].** What a packet costs does not depend on how many streams
//! there are.
//!
//! Reading order: [`stream`] (one SSRC and its repair), [`outgoing`] and [`header`] (what a packet is made of),
//! [`send`] (how it leaves), [`feedback`] (what the peer says), [`reports`] (what the peer is told).

mod copies;
pub mod feedback;
pub mod header;
pub mod meter;
mod numbers;
mod outgoing;
pub mod pacer;
pub mod probing;
pub mod red;
pub mod reports;
pub mod send;
pub mod stream;
mod transmissions;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::ShardStats;
use crate::bandwidth::Bandwidth;
use crate::cipher::Cipher;
use crate::clock::Clock;
use crate::datagram::Datagram;
use crate::keys::MasterKey;
use crate::packet::{MediaPacket, Mid, OutgoingStream, PayloadType};
use crate::reporter::Reporter;
use crate::rewrite::Rewritten;

use copies::Copies;
use meter::Meter;
use numbers::Numbers;
use outgoing::Outgoing;
use pacer::Pacer;
use probing::Probing;
use reports::RtcpWindows;
use stream::{Line, Stream};
use transmissions::{Transmission, Transmissions};

/// The round trip until one was measured.
const USUAL_ROUND_TRIP: Duration = Duration::from_millis(100);

/// What became of what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that were too long for a datagram.
    pub oversize: u64,
    /// Redundant audio data that is none.
    pub bad_red: u64,
    /// Packets whose number had been used before: the same keystream would have encrypted both.
    pub repeated: u64,
    /// Packets that waited too long to be sent.
    pub overdue: u64,
    /// Packets sent again because they were missed.
    pub repaired: u64,
    /// Packets that the peer was asked for once more than the stack had.
    pub asked_again: u64,
    /// Missed packets that are not kept (any more), or never were.
    pub unknown_missing: u64,
    /// Missed packets that were on their way again already.
    pub recent_missing: u64,
    /// Missed packets that the budget for repair did not allow.
    pub refused_missing: u64,
    /// Requests for key frames that followed another too closely.
    pub merged_key_frames: u64,
    /// Packets sent only to measure.
    pub padding: u64,
    /// Feedback about SSRCs that are none of ours.
    pub unknown_feedback: u64,
    /// Feedback that could not be read, or that claims what cannot be.
    pub bad_feedback: u64,
    /// RTCP that was not authentic, or came twice.
    pub refused_rtcp: u64,
}

impl Counters {
    /// Adds them to the shard's.
    pub fn add_to(self, stats: &mut ShardStats) {
        stats.resent += self.repaired;
        stats.asked_again += self.asked_again;
        stats.padding += self.padding;
        stats.dropped_overdue += self.overdue;
        stats.dropped_unsendable += self.oversize + self.bad_red + self.repeated;
        stats.refused_requests +=
            self.unknown_missing + self.recent_missing + self.refused_missing + self.merged_key_frames;
        stats.bad_feedback += self.unknown_feedback + self.bad_feedback;
        stats.dropped_unauthentic += self.refused_rtcp;
    }
}

/// What a peer has told about what it receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// A key frame is needed on an m-line.
    KeyFrameWanted(Mid),
    /// What may be sent has changed noticeably.
    Estimate,
}

/// What belongs to each payload type, by its number.
#[derive(Debug, Clone, Copy)]
pub struct Formats([Format; 128]);

/// What belongs to a payload type.
#[derive(Debug, Clone, Copy, Default)]
pub struct Format {
    /// The payload type of its repair (RFC 4588), if that was negotiated.
    pub repair: Option<u8>,
    /// The payload type of its redundant form (RFC 2198), if that was negotiated.
    pub red: Option<u8>,
    /// Whether the receiver asks for what it misses (RFC 4585 section 4.2).
    pub has_nack: bool,
    /// RTP clock ticks per second.
    pub clock_rate: u32,
}

impl Default for Formats {
    fn default() -> Self {
        Self([Format::default(); 128])
    }
}

impl Formats {
    /// Sets what belongs to a payload type.
    pub fn set(&mut self, payload_type: u8, format: Format) {
        if let Some(entry) = self.0.get_mut(usize::from(payload_type)) {
            *entry = format;
        }
    }

    /// What belongs to a payload type.
    pub fn get(&self, payload_type: u8) -> Format {
        self.0.get(usize::from(payload_type)).copied().unwrap_or_default()
    }
}

/// The keys of one handshake, and what must not be used or taken twice with them.
struct Keys {
    sender: Reporter,
    receiver: Cipher,
    windows: RtcpWindows,
}

/// Which of a stream's two SSRCs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Media,
    Repair,
}

/// What one connection sends.
pub struct Egress {
    clock: Clock,
    /// The latest time that it was told.
    now: Instant,
    ssrc: u32,
    keys: Option<Keys>,
    streams: Vec<Stream>,
    by_ssrc: HashMap<u32, (usize, Part)>,
    formats: Formats,
    ready: VecDeque<Datagram>,
    told: VecDeque<Told>,
    scratch: Vec<u8>,
    numbers: Numbers,
    round_trip: Option<(Duration, Instant)>,
    /// The least round trip of late.
    least_round_trip: Option<(Duration, Instant)>,
    bandwidth: Bandwidth,
    estimate_told: (u64, Option<Instant>),
    pacer: Pacer,
    copies: Copies,
    transmissions: Transmissions,
    /// Empty; kept for its memory.
    lost: Vec<Transmission>,
    probing: Probing,
    repair_budget: usize,
    report_due: Option<Instant>,
    overhead: Meter,
    counters: Counters,
}

impl Egress {
    /// One without streams or keys, whose RTCP comes from this SSRC, which must be nobody else's in the connection. What the path takes may be
    /// known, in bits per second.
    pub fn new(now: Instant, clock: Clock, ssrc: u32, known_bps: Option<u64>) -> Self {
        Self {
            clock,
            now,
            ssrc,
            keys: None,
            streams: Vec::new(),
            by_ssrc: HashMap::new(),
            formats: Formats::default(),
            ready: VecDeque::new(),
            told: VecDeque::new(),
            scratch: Vec::new(),
            numbers: Numbers::new(ssrc as u16),
            round_trip: None,
            least_round_trip: None,
            bandwidth: Bandwidth::new(now, known_bps),
            estimate_told: (0, None),
            pacer: Pacer::new(),
            copies: Copies::default(),
            transmissions: Transmissions::default(),
            lost: Vec::new(),
            probing: Probing::default(),
            repair_budget: feedback::MAX_REPAIR_BUDGET,
            report_due: None,
            overhead: Meter::default(),
            counters: Counters::default(),
        }
    }

    /// Takes the keys of a handshake that is done: the ones to encrypt with, and the peer's. Streams go on with the same numbers, but the
    /// receiver's rollover counters begin anew. `false`: they are unusable.
    pub fn set_keys(&mut self, ours: &MasterKey, theirs: &MasterKey) -> bool {
        let (Ok(sender), Ok(receiver)) = (Cipher::new(ours), Cipher::new(theirs)) else {
            return false;
        };
        self.keys = Some(Keys {
            sender: Reporter::new(self.ssrc, sender),
            receiver,
            windows: RtcpWindows::default(),
        });
        for stream in &mut self.streams {
            stream.rekey();
        }
        true
    }

    /// Whether it has keys to send with.
    pub fn is_ready(&self) -> bool {
        self.keys.is_some()
    }

    /// What was negotiated for payload types.
    pub fn set_formats(&mut self, formats: Formats) {
        self.formats = formats;
    }

    /// The streams that were negotiated so far, in the order of their numbers.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.streams.iter().map(|stream| &stream.line)
    }

    /// The stream of an m-line.
    pub fn stream_of(&self, mid: Mid) -> Option<OutgoingStream> {
        let index = self.streams.iter().position(|stream| stream.line.mid == mid)?;
        Some(OutgoingStream(index as u32))
    }

    /// Adds the stream of an m-line, or changes what was negotiated of it.
    pub fn set_line(&mut self, line: Line) {
        let index = match self.stream_of(line.mid) {
            Some(OutgoingStream(index)) => index as usize,
            None => self.streams.len(),
        };
        match self.streams.get_mut(index) {
            Some(stream) => {
                for ssrc in stream.line.ssrcs() {
                    self.by_ssrc.remove(&ssrc);
                }
                stream.line = line;
            }
            None => self.streams.push(Stream::new(line)),
        }
        self.by_ssrc.insert(line.ssrc, (index, Part::Media));
        if let Some(ssrc) = line.repair_ssrc {
            self.by_ssrc.insert(ssrc, (index, Part::Repair));
        }
    }

    /// Gives the stream of an m-line another SSRC, which is its receiver's name for it already. Returns the one that it had; none: there is no such stream, or another
    /// one has this SSRC.
    pub fn rename(&mut self, mid: Mid, ssrc: u32) -> Option<u32> {
        let line = *self.lines().find(|line| line.mid == mid)?;
        if self.by_ssrc.contains_key(&ssrc) {
            return None;
        }
        self.set_line(Line { ssrc, ..line });
        Some(line.ssrc)
    }

    /// Queues a packet that was forwarded. `false`: it cannot be sent.
    pub fn write(
        &mut self,
        now: Instant,
        stream: OutgoingStream,
        kind: PayloadType,
        packet: &Arc<MediaPacket>,
        rewritten: &Rewritten,
    ) -> bool {
        let outgoing = Outgoing::new(kind.0, packet, rewritten);
        self.take(now, stream, outgoing)
    }

    /// Queues an empty packet, so that the receiver does not wait for its number.
    pub fn write_empty(&mut self, stream: OutgoingStream, kind: PayloadType, sequence: u64, timestamp: u32) -> bool {
        self.take(self.now, stream, Outgoing::empty(kind.0, sequence, timestamp))
    }

    /// Lets go of what waits on a stream, and sends nothing of what it has sent again.
    pub fn forget(&mut self, stream: OutgoingStream) {
        let index = stream.0 as usize;
        self.counters.overdue += self.pacer.drop_stream(index);
        self.pacer.drop_repairs(index);
        self.copies.drop_stream(index);
        if let Some(stream) = self.streams.get_mut(index) {
            stream.history.clear();
        }
    }

    /// The next datagram for the peer.
    pub fn poll(&mut self) -> Option<Datagram> {
        self.ready.pop_front()
    }

    /// The next thing that the peer has told.
    pub fn poll_told(&mut self) -> Option<Told> {
        self.told.pop_front()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if self.report_due.is_some_and(|due| due <= now) {
            self.report(now);
        }
        if self.bandwidth.next_due().is_some_and(|due| due <= now) {
            self.bandwidth.handle_timeout(now);
            self.bandwidth_changed(now);
        }
        self.release(now);
    }

    /// When [`Egress::handle_timeout`] has something to do; none: nothing is going on.
    pub fn next_due(&self) -> Option<Instant> {
        let waiting = self.probing.next_due().or_else(|| self.pacer.next_due());
        let due = [
            self.report_due,
            self.bandwidth.next_due(),
            self.copies.next_due(),
            waiting,
        ];
        due.into_iter().flatten().min()
    }

    /// What may be sent in all, in bits per second; none: the peer gives nothing to tell by.
    pub fn estimate(&self) -> Option<u64> {
        self.bandwidth.is_informed().then(|| self.bandwidth.estimate())
    }

    /// How much would be of use at most, in bits per second.
    pub fn set_wanted(&mut self, now: Instant, bps: u64) {
        self.bandwidth.set_wanted(now, bps);
        self.bandwidth_changed(now);
        self.release(now);
    }

    /// Bits per second of sound and of repair that were sent lately.
    pub fn overhead(&self, now: Instant) -> u64 {
        self.overhead.bps(now)
    }

    /// What became of what since the last call.
    pub fn take_counters(&mut self) -> Counters {
        std::mem::take(&mut self.counters)
    }

    fn bandwidth_changed(&mut self, now: Instant) {
        let estimate = self.bandwidth.estimate();
        let (told, at) = self.estimate_told;
        let is_noticeable = estimate < told - told / 10
            || estimate != told && at.is_none_or(|at| now.saturating_duration_since(at) >= ESTIMATE_INTERVAL);
        if is_noticeable {
            self.estimate_told = (estimate, Some(now));
            self.told.push_back(Told::Estimate);
        }
    }
}

/// An estimate that rose is told this often at most. Higher: less work for whoever divides it up. Lower: it is used sooner.
const ESTIMATE_INTERVAL: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
