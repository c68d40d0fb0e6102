//! A stream that a client receives: nothing is sent before the client has proven its address, and what was sent is sent again when it is
//! missed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::codec::Codec;
use crate::egress::red;
use crate::history::History;
use crate::packet::{MediaPacket, Mid};
use crate::rewrite::{PicturePatch, Rewritten};

use super::Refused;
use super::guard::Guard;
use crate::cipher::Cipher;
use crate::clock::{self, Clock};
use crate::reporter::{REPORT_INTERVAL, Reporter};
use crate::rtcp::{self, Compound, Report, Said};
use crate::rtp::{HEADER_BYTES, Header};
use crate::window::{self, RtcpWindow, RtpWindow};

/// The SRTCP index of the datagram that the join hands out as a proof: the last one there is, which no client comes to, so that it
/// neither uses an index of the client's nor moves the window.
pub const PROOF_INDEX: u32 = (1 << 31) - 1;

/// The first report follows the first packet soon, so that sound and picture can be put together.
const FIRST_REPORT: Duration = Duration::from_millis(100);

/// The round trip until one was measured.
const USUAL_ROUND_TRIP: Duration = Duration::from_millis(100);

/// No packet is sent again sooner than this.
const MIN_ROUND_TRIP: Duration = Duration::from_millis(10);

/// A receiver's report says nothing of the present after so long.
const REPORT_MEMORY: Duration = Duration::from_secs(10);

/// When a receiver that has sent no RTCP of its own, and so may be one that cannot ask, gets a key frame: so long after its proof, after
/// twice that, and so on up to the second. A recorder is often started after the proof was sent, and has missed the first one.
/// Higher: it waits longer for its first picture. Lower: the publisher spends its bit rate on key frames.
const KEY_FRAMES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// A received stream.
pub struct Outbound {
    /// Its name among the client's streams.
    pub mid: Mid,
    /// Its SSRC.
    pub ssrc: u32,
    /// Its payload type.
    pub payload_type: u8,
    /// The one codec that it can carry.
    pub codec: Codec,
    /// The SSRC that the client's RTCP comes from.
    pub feedback_ssrc: u32,
    /// The keys of its RTP and of its sender reports.
    sender: Reporter,
    feedback: Cipher,
    reports: RtcpWindow,
    is_proof_used: bool,
    guard: Guard,
    address: Option<SocketAddr>,
    heard: Option<Instant>,
    used: RtpWindow,
    history: History<Sent>,
    packets: u32,
    bytes: u32,
    newest: Option<(u32, Instant)>,
    round_trip: Duration,
    /// What the receiver has reported last.
    reported: Option<Reported>,
    report_due: Option<Instant>,
    /// When it gets a key frame without asking, and how long after that the next.
    key_frame: Option<(Instant, Duration)>,
}

/// A packet that was sent.
#[derive(Debug, Clone)]
struct Sent {
    index: u64,
    header: Header,
    /// As the publisher sent it; shared with all who got it.
    payload: Arc<[u8]>,
    /// What is changed in it.
    pictures: PicturePatch,
}

/// What a receiver reports.
#[derive(Debug, Clone, Copy)]
pub struct Reported {
    /// When.
    at: Instant,
    /// Packets that had been sent by then.
    sent: u32,
    /// Packets that had been sent since the report before.
    pub packets: u32,
    /// The share that was lost of those.
    pub loss: f32,
    /// The round-trip time, if it knew a sender report.
    pub round_trip: Option<Duration>,
}

/// What an authentic RTCP packet of the receiver says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The address is known now, and was not before.
    pub is_newly_proven: bool,
    /// A key frame is needed.
    pub wants_key_frame: bool,
    /// The receiver is gone.
    pub has_ended: bool,
}

impl Outbound {
    /// A stream that has no address to be sent to. `sender` holds the stream's own SSRC.
    pub fn new(
        mid: Mid,
        payload_type: u8,
        codec: Codec,
        sender: Reporter,
        feedback_ssrc: u32,
        feedback: Cipher,
    ) -> Self {
        Self {
            mid,
            ssrc: sender.ssrc,
            payload_type,
            codec,
            feedback_ssrc,
            sender,
            feedback,
            reports: RtcpWindow::new(),
            is_proof_used: false,
            guard: Guard::default(),
            address: None,
            heard: None,
            used: RtpWindow::new(),
            history: History::default(),
            packets: 0,
            bytes: 0,
            newest: None,
            round_trip: USUAL_ROUND_TRIP,
            reported: None,
            report_due: None,
            key_frame: None,
        }
    }

    /// Whether the client has proven where it receives.
    pub fn is_proven(&self) -> bool {
        self.address.is_some()
    }

    /// Whether this is the address that has been proven.
    pub fn is_at(&self, source: SocketAddr) -> bool {
        self.address == Some(source)
    }

    /// A datagram that proves the address that it is sent from, once.
    pub fn proof(&self) -> Option<Vec<u8>> {
        let mut bytes = Compound::receiver_report(self.feedback_ssrc, None).into_bytes();
        self.feedback
            .seal_rtcp(&mut bytes, self.feedback_ssrc, PROOF_INDEX)
            .ok()?;
        Some(bytes)
    }

    /// Makes a packet ready to be sent; `None`: where to is not known, or its index was used before.
    pub fn write(&mut self, packet: &MediaPacket, rewritten: &Rewritten) -> Option<(SocketAddr, Vec<u8>)> {
        let address = self.address?;
        let index = rewritten.sequence;
        // Two packets of one index would be encrypted with the same keystream (RFC 3711 section 9.1).
        if !self.used.is_new(index) {
            return None;
        }
        let now = packet.arrived;
        // What these clients receive is what their SDP file says, and no redundant audio data.
        let payload = if packet.is_red {
            packet.payload.get(red::primary(&packet.payload)?)?.into()
        } else {
            packet.payload.clone()
        };
        let sent = Sent {
            index,
            header: Header {
                marker: rewritten.marker,
                payload_type: self.payload_type,
                sequence: index as u16,
                timestamp: rewritten.timestamp,
                ssrc: self.ssrc,
                is_padded: false,
                length: HEADER_BYTES,
            },
            payload,
            pictures: rewritten.pictures,
        };
        let bytes = self.seal(&sent)?;
        if self.used.take(index) {
            self.newest = Some((rewritten.timestamp, now));
        }
        self.packets = self.packets.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(packet.payload.len() as u32);
        self.report_due.get_or_insert(now + FIRST_REPORT);
        if self.codec != Codec::Opus {
            self.history.keep(now, index, sent);
        }
        Some((address, bytes))
    }

    fn seal(&self, sent: &Sent) -> Option<Vec<u8>> {
        // The longest tag is 16 bytes.
        let mut bytes = Vec::with_capacity(HEADER_BYTES + sent.payload.len() + 16);
        bytes.extend(sent.header.to_bytes());
        bytes.extend(&*sent.payload);
        if let Some(payload) = bytes.get_mut(HEADER_BYTES..) {
            sent.pictures.apply(payload);
        }
        let cipher = &self.sender.cipher;
        cipher.seal_rtp(&mut bytes, HEADER_BYTES, self.ssrc, sent.index).ok()?;
        Some(bytes)
    }

    /// Takes an RTCP packet from the client's feedback SSRC; packets to be sent again go to `again`.
    pub fn handle_rtcp(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &[u8],
        scratch: &mut Vec<u8>,
        clock: &Clock,
        again: &mut impl FnMut(SocketAddr, Vec<u8>),
    ) -> Result<Heard, Refused> {
        if self.guard.refuses(now, self.address == Some(source)) {
            return Err(Refused::Limited);
        }
        let index = self.feedback.rtcp_index(datagram).ok_or(Refused::Unauthentic)?;
        let is_proof = index == PROOF_INDEX;
        if (is_proof && self.is_proof_used) || (!is_proof && !self.reports.is_new(index.into())) {
            return Err(Refused::Replayed);
        }
        if !self.feedback.open_rtcp(datagram, self.feedback_ssrc, index, scratch) {
            self.guard.failed(now);
            return Err(Refused::Unauthentic);
        }
        let mut heard = Heard::default();
        let is_newest = if is_proof {
            self.is_proof_used = true;
            // It has no place among the others; what they prove is not older.
            self.address.is_none()
        } else {
            self.reports.take(index.into())
        };
        if is_newest {
            heard.is_newly_proven = self.address.is_none();
            self.address = Some(source);
        }
        self.key_frame = (is_proof && self.codec != Codec::Opus).then_some((now + KEY_FRAMES.0, KEY_FRAMES.0));
        self.heard = Some(now);
        let mut missing = Vec::new();
        rtcp::read(scratch, |said| match said {
            Said::Report(report) if report.ssrc == self.ssrc => self.reported(now, clock, report),
            Said::KeyFrame { ssrc } => heard.wants_key_frame |= ssrc == self.ssrc,
            Said::Goodbye { ssrc } => heard.has_ended |= ssrc == self.feedback_ssrc,
            Said::Missing { ssrc, first, others } if ssrc == self.ssrc => missing.push((first, others)),
            _ => {}
        });
        for (first, others) in missing {
            self.send_again(now, first, again);
            for bit in (0..16u16).filter(|bit| others & 1 << bit != 0) {
                self.send_again(now, first.wrapping_add(bit + 1), again);
            }
        }
        if heard.has_ended {
            self.forget_address();
        }
        Ok(heard)
    }

    /// Takes an RTCP packet in the clear, which some clients cannot but send. It is a sign of life if it is from the proven host and
    /// reports on this stream, and nothing more: what it says could be anyone's.
    pub fn handle_plain(&mut self, now: Instant, source: SocketAddr, datagram: &[u8]) -> Result<(), Refused> {
        let mut is_about_us = false;
        let is_whole = rtcp::read(datagram, |said| {
            is_about_us |= matches!(said, Said::Report(report) if report.ssrc == self.ssrc);
        });
        let is_proven = self.address.is_some_and(|address| address.ip() == source.ip());
        if !is_whole || !is_about_us || !is_proven {
            return Err(Refused::Unauthentic);
        }
        self.heard = Some(now);
        Ok(())
    }

    /// Its client's signaling is there, which is a sign of life of a client that sends no RTCP.
    pub fn keep(&mut self, now: Instant) {
        if self.is_proven() {
            self.heard = Some(now);
        }
    }

    /// Whether it is time for a key frame that nobody has asked for.
    pub fn is_key_frame_due(&mut self, now: Instant) -> bool {
        let Some((_, after)) = self.key_frame.filter(|(due, _)| *due <= now) else {
            return false;
        };
        let next = (after * 2).min(KEY_FRAMES.1);
        self.key_frame = Some((now + next, next));
        true
    }

    fn reported(&mut self, now: Instant, clock: &Clock, report: Report) {
        let since = clock::short(clock.ntp(now)).wrapping_sub(report.last_sender_report);
        // A client that claims a delay longer than all that passed has measured nothing.
        let round_trip = since
            .checked_sub(report.delay)
            .filter(|_| report.last_sender_report != 0);
        let round_trip = round_trip.map(clock::from_short);
        if let Some(round_trip) = round_trip {
            self.round_trip = round_trip.clamp(MIN_ROUND_TRIP, Duration::from_secs(1));
        }
        let before = self.reported.map_or(0, |reported| reported.sent);
        self.reported = Some(Reported {
            at: now,
            sent: self.packets,
            packets: self.packets.wrapping_sub(before),
            loss: f32::from(report.fraction_lost) / 256.0,
            round_trip,
        });
    }

    /// What the receiver has reported, if it was not too long ago.
    pub fn report(&self) -> Option<Reported> {
        self.reported
    }

    fn send_again(&mut self, now: Instant, sequence: u16, again: &mut impl FnMut(SocketAddr, Vec<u8>)) {
        let (Some(address), Some(highest)) = (self.address, self.used.highest()) else {
            return;
        };
        let index = window::nearest(highest, sequence);
        let Ok(sent) = self.history.again(now, index, self.round_trip).cloned() else {
            return;
        };
        if let Some(bytes) = self.seal(&sent) {
            again(address, bytes);
        }
    }

    /// What is due: a report. After `idle` without a sign of life, the address has to be proven anew.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        name: &str,
        clock: &Clock,
        idle: Duration,
    ) -> Option<(SocketAddr, Vec<u8>)> {
        if self.idle_at(idle).is_some_and(|at| at <= now) {
            self.forget_address();
        }
        if self.report_due.is_none_or(|due| due > now) {
            return None;
        }
        self.report_due = None;
        self.history.forget(now);
        self.reported = self
            .reported
            .filter(|reported| now.saturating_duration_since(reported.at) < REPORT_MEMORY);
        let (address, (timestamp, sent)) = (self.address?, self.newest?);
        // Goes on while packets do: see `write`.
        let since = now.saturating_duration_since(sent);
        if since < REPORT_INTERVAL * 2 {
            self.report_due = Some(now + REPORT_INTERVAL);
        }
        let ticks = (since.as_secs_f64() * f64::from(self.codec.clock_rate())) as u32;
        let timestamp = timestamp.wrapping_add(ticks);
        let compound = Compound::sender_report(self.ssrc, clock.ntp(now), timestamp, self.packets, self.bytes);
        let bytes = self.sender.seal(compound.cname(self.ssrc, name))?;
        Some((address, bytes))
    }

    /// When [`Outbound::handle_timeout`] has something to do.
    pub fn next_due(&self, idle: Duration) -> Option<Instant> {
        let key_frame = self.key_frame.map(|(due, _)| due);
        self.report_due
            .into_iter()
            .chain(self.idle_at(idle))
            .chain(key_frame)
            .min()
    }

    fn idle_at(&self, idle: Duration) -> Option<Instant> {
        self.address.and(self.heard).map(|heard| heard + idle)
    }

    fn forget_address(&mut self) {
        self.address = None;
        self.reported = None;
        self.report_due = None;
        self.key_frame = None;
    }
}
