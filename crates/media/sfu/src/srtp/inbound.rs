//! A stream that a client publishes: authenticates its packets, follows its address, and tells the client how they arrive.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::codec::{Codec, PayloadFormat};
use crate::packet::{MediaPacket, Mid};

use super::Refused;
use super::guard::Guard;
use super::reception::Reception;
use crate::cipher::Cipher;
use crate::missing::Missing;
use crate::reporter::{REPORT_INTERVAL, Reporter};
use crate::rtcp::{self, Compound, Said};
use crate::rtp::Header;
use crate::window::{self, RtcpWindow, RtpWindow};

/// Rollover counters that are tried for one packet of a stream whose counter is not known. Higher: a forged packet costs more.
const ROLLOVERS_PER_PACKET: u32 = 64;

/// Rollover counters that are tried in all: 62 hours of 300 packets a second.
const MAX_ROLLOVERS: u32 = 1_024;

/// Packets after which the rollover counter is taken for known. Until then the first packet may have been an old one, sent again by
/// somebody else; what is newer is looked for.
const SETTLED: u64 = 256;

/// How long a packet may be late before it is asked for. Higher: losses are repaired later. Lower: reordering causes needless
/// requests.
const TOLERANCE: Duration = Duration::from_millis(20);

/// How long after a request the same packet is asked for again: longer than most round trips.
const REPEAT: Duration = Duration::from_millis(100);

/// A published stream.
pub struct Inbound {
    /// Its name among the client's streams.
    pub mid: Mid,
    /// Its SSRC.
    pub ssrc: u32,
    payload_type: u8,
    codec: Codec,
    format: PayloadFormat,
    cipher: Cipher,
    window: RtpWindow,
    reports: RtcpWindow,
    /// Of a stream that goes on from another node: the next rollover counter to be tried.
    rollover: Option<u32>,
    guard: Guard,
    address: Option<SocketAddr>,
    heard: Option<Instant>,
    feedback: Reporter,
    reception: Reception,
    missing: Missing,
    /// The packets of the last interval, and which share of them was lost.
    loss: (u64, f32),
    is_heard_since_report: bool,
    report_due: Option<Instant>,
}

/// What an authentic RTP packet is.
pub struct Arrived {
    /// The media in it; none: padding alone.
    pub packet: Option<MediaPacket>,
    /// The address is known now, and was not before.
    pub is_newly_proven: bool,
}

impl Inbound {
    /// A stream of which nothing has come yet. `is_resumed`: it has been going on at another node, for how many rollovers of its
    /// sequence number nobody knows.
    pub fn new(
        mid: Mid,
        ssrc: u32,
        payload_type: u8,
        codec: Codec,
        cipher: Cipher,
        feedback: Reporter,
        is_resumed: bool,
    ) -> Self {
        Self {
            mid,
            ssrc,
            payload_type,
            codec,
            format: PayloadFormat::of(codec),
            cipher,
            window: RtpWindow::new(),
            reports: RtcpWindow::new(),
            rollover: is_resumed.then_some(0),
            guard: Guard::default(),
            address: None,
            heard: None,
            feedback,
            reception: Reception::default(),
            missing: Missing::default(),
            loss: (0, 0.0),
            is_heard_since_report: false,
            report_due: None,
        }
    }

    /// Whether the client has proven where it sends from.
    pub fn is_proven(&self) -> bool {
        self.address.is_some()
    }

    /// Whether this is the address that has been proven.
    pub fn is_at(&self, source: SocketAddr) -> bool {
        self.address == Some(source)
    }

    /// How many packets were to come in the last [`REPORT_INTERVAL`], and which share of them was lost.
    pub fn loss(&self) -> (u64, f32) {
        self.loss
    }

    /// Takes an RTP packet; `scratch` is overwritten.
    pub fn handle_rtp(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Result<Arrived, Refused> {
        if self.guard.refuses(now, self.address == Some(source)) {
            return Err(Refused::Limited);
        }
        let header = Header::read(datagram).ok_or(Refused::Garbage)?;
        let index = match self.authenticate(&header, datagram, scratch) {
            Err(Refused::Unauthentic) => {
                self.guard.failed(now);
                return Err(Refused::Unauthentic);
            }
            other => other?,
        };
        if header.payload_type != self.payload_type {
            return Err(Refused::PayloadType);
        }
        let before = self.window.highest();
        let is_newly_proven = self.address.is_none();
        // An old packet that comes late from an address that was left must not turn the stream back to it.
        if self.window.take(index) {
            self.address = Some(source);
        }
        self.heard = Some(now);
        let clock_rate = self.codec.clock_rate();
        self.reception.packet(now, index, header.timestamp, clock_rate);
        if self.reception.received() >= SETTLED {
            self.rollover = None;
        }
        if self.codec != Codec::Opus {
            self.missing.packet(now, index, before, TOLERANCE);
        }
        self.is_heard_since_report = true;
        self.report_due.get_or_insert(now + REPORT_INTERVAL);
        let padding = if header.is_padded {
            usize::from(scratch.last().copied().unwrap_or_default())
        } else {
            0
        };
        let payload = scratch.len().checked_sub(padding).and_then(|end| scratch.get(..end));
        let payload = payload.filter(|payload| !payload.is_empty());
        Ok(Arrived {
            is_newly_proven: is_newly_proven && self.is_proven(),
            packet: payload.map(|payload| MediaPacket {
                arrived: now,
                ssrc: header.ssrc,
                sequence: index,
                timestamp: header.timestamp,
                marker: header.marker,
                codec: self.codec,
                format: self.format,
                is_red: false,
                clock_rate,
                rid: None,
                mid: self.mid,
                audio_level: None,
                voice: None,
                rotation: None,
                playout_delay: None,
                capture_time: None,
                dependency: None,
                payload: payload.into(),
            }),
        })
    }

    /// The index at which a packet is authentic. Nothing is remembered of one that is not.
    fn authenticate(&mut self, header: &Header, packet: &[u8], payload: &mut Vec<u8>) -> Result<u64, Refused> {
        let highest = self.window.highest();
        let nearest = match (highest, self.rollover) {
            (Some(highest), _) => Some(window::nearest(highest, header.sequence)),
            // RFC 3711 section 3.3.1: a stream begins with a rollover counter of 0.
            (None, None) => Some(header.sequence.into()),
            (None, Some(_)) => None,
        };
        let mut refused = Refused::Unauthentic;
        if let Some(index) = nearest {
            if !self.window.is_new(index) {
                refused = Refused::Replayed;
            } else if self.cipher.open_rtp(packet, header.length, self.ssrc, index, payload) {
                return Ok(index);
            }
        }
        let Some(rollover) = &mut self.rollover else {
            return Err(refused);
        };
        for _ in 0..ROLLOVERS_PER_PACKET {
            let index = u64::from(*rollover) << 16 | u64::from(header.sequence);
            if highest.is_none_or(|highest| index > highest)
                && self.cipher.open_rtp(packet, header.length, self.ssrc, index, payload)
            {
                return Ok(index);
            }
            *rollover = (*rollover + 1) % MAX_ROLLOVERS;
        }
        Err(Refused::Unauthentic)
    }

    /// Takes an RTCP packet of the stream's sender. Returns whether the sender says that the stream has ended.
    pub fn handle_rtcp(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Result<bool, Refused> {
        if self.guard.refuses(now, self.address == Some(source)) {
            return Err(Refused::Limited);
        }
        let index = self.cipher.rtcp_index(datagram).ok_or(Refused::Unauthentic)?;
        if !self.reports.is_new(index.into()) {
            return Err(Refused::Replayed);
        }
        if !self.cipher.open_rtcp(datagram, self.ssrc, index, scratch) {
            self.guard.failed(now);
            return Err(Refused::Unauthentic);
        }
        self.reports.take(index.into());
        let mut has_ended = false;
        rtcp::read(scratch, |said| match said {
            Said::SenderReport { ssrc, ntp } if ssrc == self.ssrc => self.reception.sender_report(now, ntp),
            Said::Goodbye { ssrc } => has_ended |= ssrc == self.ssrc,
            _ => {}
        });
        Ok(has_ended)
    }

    /// A datagram that asks the client for a key frame; `None`: where to is not known.
    pub fn request_key_frame(&mut self, now: Instant, name: &str) -> Option<(SocketAddr, Vec<u8>)> {
        self.send(now, name, |compound, sender, ssrc| compound.picture_loss(sender, ssrc))
    }

    /// What is due: a report, or a request for what is missing. After `idle` without a packet, nothing is sent to its address any more.
    pub fn handle_timeout(&mut self, now: Instant, name: &str, idle: Duration) -> Option<(SocketAddr, Vec<u8>)> {
        if self.idle_at(idle).is_some_and(|at| at <= now) {
            self.address = None;
        }
        let missing = self.missing.due(now, REPEAT);
        let is_report_due = self.report_due.is_some_and(|due| due <= now);
        if is_report_due {
            self.loss = self.reception.rate();
            let is_heard = std::mem::take(&mut self.is_heard_since_report);
            self.report_due = is_heard.then(|| now + REPORT_INTERVAL);
        }
        if !missing.is_empty() {
            self.send(now, name, |compound, sender, ssrc| {
                compound.missing(sender, ssrc, &missing)
            })
        } else if is_report_due {
            self.send(now, name, |compound, _, _| compound)
        } else {
            None
        }
    }

    /// When [`Inbound::handle_timeout`] has something to do.
    pub fn next_due(&self, idle: Duration) -> Option<Instant> {
        let reports = self.report_due.into_iter().chain(self.missing.next_due());
        reports.chain(self.idle_at(idle)).min()
    }

    fn idle_at(&self, idle: Duration) -> Option<Instant> {
        self.address.and(self.heard).map(|heard| heard + idle)
    }

    /// Seals a compound packet that begins with a report, as each must (RFC 3550 section 6.1).
    fn send(
        &mut self,
        now: Instant,
        name: &str,
        complete: impl FnOnce(Compound, u32, u32) -> Compound,
    ) -> Option<(SocketAddr, Vec<u8>)> {
        let address = self.address?;
        let (sender, ssrc) = (self.feedback.ssrc, self.ssrc);
        let report = self.reception.report(now, ssrc);
        let compound = Compound::receiver_report(sender, report).cname(sender, name);
        let bytes = self.feedback.seal(complete(compound, sender, ssrc))?;
        Some((address, bytes))
    }
}
