//! RTCP in both directions: what is told of the streams, and which packets of the peer's are taken.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::datagram::Datagram;
use crate::quality::{Losses, Report};
use crate::reporter::REPORT_INTERVAL;
use crate::rtcp::Compound;
use crate::rtp;
use crate::window::RtcpWindow;

use super::Egress;

/// The first report follows a stream's first packet soon, so that sound and picture can be put together.
pub const FIRST_REPORT: Duration = Duration::from_millis(100);

/// The length at which a compound packet is full.
const MAX_COMPOUND_BYTES: usize = 1_100;

/// SSRCs that a peer may send RTCP from. It has a sender's and a receiver's for each m-line at most.
const MAX_SENDERS: usize = 1_024;

/// Which of the peer's RTCP packets were taken.
#[derive(Default)]
pub struct RtcpWindows(HashMap<u32, RtcpWindow>);

impl RtcpWindows {
    /// Whether a packet of this sender and index may be taken.
    pub fn is_new(&self, sender: u32, index: u32) -> bool {
        match self.0.get(&sender) {
            Some(window) => window.is_new(index.into()),
            None => self.0.len() < MAX_SENDERS,
        }
    }

    /// Takes an authentic packet.
    pub fn take(&mut self, sender: u32, index: u32) {
        self.0.entry(sender).or_default().take(index.into());
    }
}

impl Egress {
    /// Opens a packet of RTCP into the scratch buffer. `false`: it is not authentic, or was taken before.
    pub(super) fn open(&mut self, datagram: &[u8]) -> bool {
        let scratch = &mut self.scratch;
        let opened = self.keys.as_mut().and_then(|keys| {
            let (sender, index) = (rtp::sender(datagram)?, keys.receiver.rtcp_index(datagram)?);
            let is_taken =
                keys.windows.is_new(sender, index) && keys.receiver.open_rtcp(datagram, sender, index, scratch);
            is_taken.then(|| keys.windows.take(sender, index))
        });
        self.counters.refused_rtcp += u64::from(opened.is_none());
        opened.is_some()
    }

    /// Asks the peer for what is missing of a stream that it sends.
    pub fn ask(&mut self, ssrc: u32, missing: &[u16]) {
        let compound = Compound::receiver_report(self.ssrc, None).cname(self.ssrc, CNAME);
        let compound = compound.missing(self.ssrc, ssrc, missing);
        self.counters.asked_again += missing.len() as u64;
        self.ready.extend(
            self.keys
                .as_mut()
                .and_then(|keys| keys.sender.seal(compound))
                .map(Datagram::from),
        );
    }

    /// Tells the peer how many packets were sent of each stream, and what time it is.
    pub(super) fn report(&mut self, now: Instant) {
        self.report_due = None;
        let ntp = self.clock.ntp(now);
        // It begins with our own SSRC, so that its index is ours alone: reports about what arrives have others.
        let begin = || Compound::receiver_report(self.ssrc, None);
        let (mut compounds, mut compound) = (Vec::new(), None);
        for stream in &mut self.streams {
            stream.history.forget(now);
            let Some((timestamp, arrived)) = stream.newest else {
                continue;
            };
            let since = now.saturating_duration_since(arrived);
            if since >= REPORT_INTERVAL * 2 || stream.packets == 0 {
                continue;
            }
            // Goes on while packets do: see `send`.
            self.report_due = Some(now + REPORT_INTERVAL);
            let ticks = (since.as_secs_f64() * f64::from(stream.clock_rate)) as u32;
            let (ssrc, timestamp) = (stream.line.ssrc, timestamp.wrapping_add(ticks));
            let one = compound
                .take()
                .unwrap_or_else(begin)
                .and_sender_report(ssrc, ntp, timestamp, stream.packets, stream.bytes)
                .cname(ssrc, CNAME);
            if one.length() > MAX_COMPOUND_BYTES {
                compounds.push(one);
            } else {
                compound = Some(one);
            }
        }
        let Some(keys) = &mut self.keys else {
            return;
        };
        for compound in compounds.into_iter().chain(compound) {
            self.ready.extend(keys.sender.seal(compound).map(Datagram::from));
        }
    }

    /// What the peer has reported since the last call.
    pub fn rate(&mut self, now: Instant) -> Report {
        let mut losses = Losses::default();
        for stream in &mut self.streams {
            if let (packets, Some(loss)) = stream.rate(now) {
                losses.add(packets.into(), loss);
            }
        }
        Report {
            loss: losses.share(),
            rtt: self.measured_round_trip(now),
        }
    }
}

/// All streams of a connection come from one sender, whose clock they share (RFC 3550 section 6.5.1).
const CNAME: &str = "signalbox";
