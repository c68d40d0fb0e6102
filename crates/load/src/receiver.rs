//! The light receiver: what a browser does with media until it would decode it, and no more. Packets are authenticated and decrypted once; what is
//! missing is asked for, arrivals are told of, and each stream is reported on. It costs a third of what the whole stack does, so that the server
//! is at its limit before its participants are.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant, SystemTime};

use signalbox_srtp::cipher::Cipher;
use signalbox_srtp::reporter::Reporter;
use signalbox_srtp::rtcp::{Compound, Report};
use signalbox_srtp::rtp::{self, Header};
use signalbox_srtp::window::{RtpWindow, nearest};

use crate::arrivals::{Arrivals, Arrived};
use crate::described::Described;
use crate::handshake::Keys;
use crate::transport_feedback::TransportFeedback;

/// How often something is told, if there is something to tell.
const TICK: Duration = Duration::from_millis(50);

/// How often streams are reported on.
const REPORT: Duration = Duration::from_secs(1);

/// How often a packet is asked for at most, one tick apart; then the picture needs a key frame.
const TRIES: u32 = 10;

/// Packets that are missing at most; more of them are no loss but an outage.
const MAX_MISSING: usize = 500;

/// A receiver of one connection.
pub struct Receiver {
    theirs: Cipher,
    reporter: Reporter,
    streams: HashMap<u32, Stream>,
    feedback: TransportFeedback,
    plain: Vec<u8>,
    due: Instant,
    next_report: Instant,
}

/// A stream of media or of repair.
struct Stream {
    window: RtpWindow,
    is_sound: bool,
    /// What was missing last, and how often it was asked for.
    missing: BTreeMap<u64, u32>,
    /// As far as it was reported: how many were expected, and how many came.
    reported: (u64, u64),
    first: u64,
    came: u64,
    needs_key_frame: bool,
}

impl Receiver {
    /// One for these keys; none: they are unusable. `ssrc` is what it reports as, which must be nobody else's in the connection.
    pub fn new(now: Instant, keys: &Keys, ssrc: u32) -> Option<Self> {
        let theirs = Cipher::new(&keys.theirs).ok()?;
        let ours = Cipher::new(&keys.ours).ok()?;
        Some(Self {
            theirs,
            reporter: Reporter::new(ssrc, ours),
            streams: HashMap::new(),
            feedback: TransportFeedback::new(now),
            plain: Vec::new(),
            due: now + TICK,
            next_report: now + REPORT,
        })
    }

    /// Takes a datagram of SRTP. What is not authentic, or has come before, is ignored. Returns its payload's length, 0 if it carries nothing new.
    pub fn handle(
        &mut self,
        (now, clock): (Instant, SystemTime),
        datagram: &[u8],
        described: &Described,
        arrivals: &mut Arrivals,
    ) -> usize {
        if rtp::is_rtcp(datagram) {
            // Reports of senders would tell the round trip, which nobody here needs.
            return 0;
        }
        let Some(header) = Header::read(datagram) else {
            return 0;
        };
        let repaired = described.repaired.get(&header.ssrc).copied();
        let is_sound = described.streams.get(&header.ssrc).copied().unwrap_or_default();
        let stream = self
            .streams
            .entry(header.ssrc)
            .or_insert_with(|| Stream::new(header.sequence, is_sound));
        let index = nearest(
            stream.window.highest().unwrap_or(header.sequence.into()),
            header.sequence,
        );
        let is_authentic = stream.window.is_new(index)
            && self
                .theirs
                .open_rtp(datagram, header.length, header.ssrc, index, &mut self.plain);
        if !is_authentic {
            return 0;
        }
        if let Some(id) = described.transport_sequence
            && let Some(number) = extension(&datagram[..header.length], id)
        {
            self.feedback.arrived(now, number);
        }
        if header.is_padded {
            let padding = usize::from(self.plain.last().copied().unwrap_or_default());
            self.plain.truncate(self.plain.len().saturating_sub(padding));
        }
        stream.take(index, repaired.is_none());
        let (ssrc, sequence, payload) = match repaired {
            None => (header.ssrc, index, &self.plain[..]),
            Some(media) => {
                // The number that it had stands before what it carried (RFC 4588 section 4).
                let (Some((number, payload)), Some(stream)) =
                    (self.plain.split_first_chunk::<2>(), self.streams.get_mut(&media))
                else {
                    return 0;
                };
                let highest = stream.window.highest().unwrap_or_default();
                let sequence = nearest(highest, u16::from_be_bytes(*number));
                if !stream.window.is_new(sequence) {
                    return 0;
                }
                stream.take(sequence, false);
                (media, sequence, payload)
            }
        };
        let is_sound = described.streams.get(&ssrc).copied().unwrap_or_default();
        let arrived = Arrived {
            ssrc,
            sequence,
            timestamp: header.timestamp,
            is_sound,
            payload,
        };
        arrivals.add(now, clock, arrived)
    }

    /// When [`Receiver::handle_timeout`] has something to do.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// What is to be told now: datagrams to send.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut told = Vec::new();
        if now < self.due {
            return told;
        }
        self.due = now + TICK;
        let ssrc = self.reporter.ssrc;
        let is_time = now >= self.next_report;
        if is_time {
            self.next_report = now + REPORT;
        }
        for (of, stream) in &mut self.streams {
            let report = is_time.then(|| stream.report(*of));
            let missing = stream.ask();
            let wants_key_frame = std::mem::take(&mut stream.needs_key_frame) && !stream.is_sound;
            if report.is_none() && missing.is_empty() && !wants_key_frame {
                continue;
            }
            let mut compound = Compound::receiver_report(ssrc, report).cname(ssrc, "load");
            if !missing.is_empty() {
                compound = compound.missing(ssrc, *of, &missing);
            }
            if wants_key_frame {
                compound = compound.picture_loss(ssrc, *of);
            }
            told.extend(self.reporter.seal(compound));
        }
        for feedback in self.feedback.poll() {
            let compound = Compound::receiver_report(ssrc, None).arrivals(ssrc, &feedback);
            told.extend(self.reporter.seal(compound));
        }
        told
    }
}

impl Stream {
    fn new(first: u16, is_sound: bool) -> Self {
        Self {
            window: RtpWindow::new(),
            is_sound,
            missing: BTreeMap::new(),
            reported: (0, 0),
            first: first.into(),
            came: 0,
            needs_key_frame: false,
        }
    }

    /// A number has come; whether what is missing before it can be asked for.
    fn take(&mut self, index: u64, is_asked_for: bool) {
        let before = self.window.highest();
        self.window.take(index);
        self.came += 1;
        self.missing.remove(&index);
        if let Some(before) = before.filter(|before| is_asked_for && !self.is_sound && index > before + 1) {
            if index - before > MAX_MISSING as u64 {
                self.missing.clear();
                self.needs_key_frame = true;
            } else {
                self.missing.extend((before + 1..index).map(|number| (number, 0)));
            }
        }
        while self.missing.len() > MAX_MISSING {
            self.missing.pop_first();
        }
    }

    /// The numbers to ask for now.
    fn ask(&mut self) -> Vec<u16> {
        let before = self.missing.len();
        self.missing.retain(|_, tries| {
            *tries += 1;
            *tries <= TRIES
        });
        self.needs_key_frame |= self.missing.len() < before;
        self.missing.keys().map(|number| *number as u16).collect()
    }

    /// RFC 3550 section 6.4.1; jitter is not told.
    fn report(&mut self, ssrc: u32) -> Report {
        let highest = self.window.highest().unwrap_or_default();
        let expected = (highest + 1).saturating_sub(self.first);
        let of_late = (
            expected - self.reported.0.min(expected),
            self.came - self.reported.1.min(self.came),
        );
        self.reported = (expected, self.came);
        let lost = of_late.0.saturating_sub(of_late.1);
        Report {
            ssrc,
            fraction_lost: (lost * 256).checked_div(of_late.0).unwrap_or_default().min(255) as u8,
            lost: expected.saturating_sub(self.came).min(0x7f_ffff) as u32,
            highest: highest as u32,
            ..Report::default()
        }
    }
}

/// The first two bytes of a header extension (RFC 8285 sections 4.2 and 4.3).
fn extension(header: &[u8], id: u8) -> Option<u16> {
    let sources = usize::from(header.first()? & 0x0f) * 4;
    let block = header
        .get(rtp::HEADER_BYTES + sources..)
        .filter(|_| header[0] & 0x10 != 0)?;
    let (head, mut rest) = block.split_first_chunk::<4>()?;
    let is_short = head[..2] == [0xbe, 0xde];
    while let Some((&first, behind)) = rest.split_first() {
        if first == 0 {
            rest = behind;
            continue;
        }
        let (found, length, behind) = match (is_short, behind.split_first()) {
            (true, _) => (first >> 4, usize::from(first & 0x0f) + 1, behind),
            (false, Some((length, behind))) => (first, usize::from(*length), behind),
            (false, None) => return None,
        };
        if found == id {
            let bytes = behind.get(..length.min(2))?;
            return Some(u16::from_be_bytes(bytes.try_into().ok()?));
        }
        rest = behind.get(length..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_asked_for_until_it_comes_or_a_key_frame_has_to() {
        let mut picture = Stream::new(10, false);
        picture.take(10, true);
        picture.take(13, true);
        assert_eq!(picture.ask(), [11, 12]);
        picture.take(12, false);
        for _ in 1..TRIES {
            assert_eq!(picture.ask(), [11]);
            assert!(!picture.needs_key_frame);
        }
        assert!(picture.ask().is_empty() && picture.needs_key_frame);
        let mut sound = Stream::new(10, true);
        sound.take(10, true);
        sound.take(13, true);
        assert!(sound.ask().is_empty());
    }

    #[test]
    fn a_long_gap_is_for_a_key_frame_alone() {
        let mut picture = Stream::new(10, false);
        picture.take(10, true);
        picture.take(12 + MAX_MISSING as u64, true);
        assert!(picture.ask().is_empty() && picture.needs_key_frame);
    }

    #[test]
    fn a_header_extension_is_found_in_both_forms() {
        let header = |profile: [u8; 2], block: [u8; 8]| {
            let mut header = vec![0x90; 12];
            header.extend(profile);
            header.extend([0, 2]);
            header.extend(block);
            header
        };
        let short = header([0xbe, 0xde], [0x10, 7, 0, 0x31, 1, 2, 0, 0]);
        let long = header([0x10, 0], [1, 1, 7, 3, 2, 1, 2, 0]);
        for header in [short, long] {
            assert_eq!(extension(&header, 3), Some(0x0102));
            assert_eq!(extension(&header, 4), None);
            assert_eq!(extension(&header[..17], 3), None);
        }
    }
}
