//! Reads and writes RTCP (RFC 3550 section 6, RFC 4585, RFC 5104), as far as a forwarder needs it.

/// RFC 3550 section 12.1.
pub const SENDER_REPORT: u8 = 200;
/// RFC 3550 section 12.1.
pub const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
/// RFC 4585 section 6.1: about packets.
const TRANSPORT_FEEDBACK: u8 = 205;
/// RFC 4585 section 6.1: about pictures.
const PAYLOAD_FEEDBACK: u8 = 206;

/// RFC 3611 section 2.
const EXTENDED_REPORT: u8 = 207;

const NACK: u8 = 1;
/// draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1.
const TRANSPORT_WIDE: u8 = 15;
const PLI: u8 = 1;
/// RFC 5104 section 4.3.1.
const FIR: u8 = 4;
/// RFC 4585 section 6.4: what an application likes, the peer's estimate among it.
const APPLICATION: u8 = 15;

/// A report block (RFC 3550 section 6.4.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Whose packets it is about.
    pub ssrc: u32,
    /// The share that was lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// All that was lost, 24 bits.
    pub lost: u32,
    /// The highest sequence number, with the low 16 bits of its rollover counter.
    pub highest: u32,
    /// In ticks of the codec's clock.
    pub jitter: u32,
    /// The middle of the last sender report's NTP timestamp; 0: there was none.
    pub last_sender_report: u32,
    /// How long ago that was, in 1/65,536 s.
    pub delay: u32,
}

/// What a compound packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said<'a> {
    /// A sender tells when it sent what.
    SenderReport {
        /// Who.
        ssrc: u32,
        /// When.
        ntp: u64,
    },
    /// How packets arrive.
    Report(Report),
    /// Packets are missing (RFC 4585 section 6.2.1).
    Missing {
        /// Whose.
        ssrc: u32,
        /// The first of them.
        first: u16,
        /// Which of the 16 behind it, lowest bit first.
        others: u16,
    },
    /// A key frame is needed (RFC 4585 section 6.3.1, RFC 5104 section 4.3.1).
    KeyFrame {
        /// Whose.
        ssrc: u32,
    },
    /// When which packets of all streams arrived (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1): the feedback control
    /// information, as it is.
    Arrivals(&'a [u8]),
    /// What the peer believes that it can receive in all, in bits per second (draft-alvestrand-rmcat-remb-03 section 2.2).
    PeerEstimate(u64),
    /// A sender is gone.
    Goodbye {
        /// Which.
        ssrc: u32,
    },
}

/// Reads a compound packet, or one of reduced size (RFC 5506). `false`: its lengths do not add up; what came before was read.
pub fn read(mut compound: &[u8], mut take: impl FnMut(Said<'_>)) -> bool {
    while let Some((head, rest)) = compound.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([head[2], head[3]])) * 4;
        let (2, Some((mut body, behind))) = (head[0] >> 6, rest.split_at_checked(length)) else {
            return false;
        };
        if head[0] & 0x20 != 0 {
            let padding = usize::from(body.last().copied().unwrap_or_default());
            let Some(unpadded) = body.len().checked_sub(padding).and_then(|end| body.get(..end)) else {
                return false;
            };
            body = unpadded;
        }
        if read_one(head[0] & 0x1f, head[1], body, &mut take).is_none() {
            return false;
        }
        compound = behind;
    }
    compound.is_empty()
}

fn read_one(count: u8, kind: u8, mut body: &[u8], take: &mut impl FnMut(Said<'_>)) -> Option<()> {
    match kind {
        SENDER_REPORT | RECEIVER_REPORT => {
            let ssrc = word(&mut body)?;
            if kind == SENDER_REPORT {
                let ntp = u64::from(word(&mut body)?) << 32 | u64::from(word(&mut body)?);
                // The RTP timestamp, packets and bytes.
                body = body.get(12..)?;
                take(Said::SenderReport { ssrc, ntp });
            }
            for _ in 0..count {
                let (ssrc, lost) = (word(&mut body)?, word(&mut body)?);
                take(Said::Report(Report {
                    ssrc,
                    fraction_lost: (lost >> 24) as u8,
                    lost: lost & 0x00ff_ffff,
                    highest: word(&mut body)?,
                    jitter: word(&mut body)?,
                    last_sender_report: word(&mut body)?,
                    delay: word(&mut body)?,
                }));
            }
        }
        GOODBYE => {
            for _ in 0..count {
                take(Said::Goodbye { ssrc: word(&mut body)? });
            }
        }
        TRANSPORT_FEEDBACK | PAYLOAD_FEEDBACK => {
            let (_sender, ssrc) = (word(&mut body)?, word(&mut body)?);
            match (kind, count) {
                (TRANSPORT_FEEDBACK, NACK) => {
                    while !body.is_empty() {
                        let entry = word(&mut body)?;
                        let (first, others) = ((entry >> 16) as u16, entry as u16);
                        take(Said::Missing { ssrc, first, others });
                    }
                }
                (TRANSPORT_FEEDBACK, TRANSPORT_WIDE) => take(Said::Arrivals(body)),
                (PAYLOAD_FEEDBACK, APPLICATION) => {
                    if let Some(bps) = peer_estimate(body) {
                        take(Said::PeerEstimate(bps));
                    }
                }
                (PAYLOAD_FEEDBACK, PLI) => take(Said::KeyFrame { ssrc }),
                (PAYLOAD_FEEDBACK, FIR) => {
                    while !body.is_empty() {
                        let (ssrc, _sequence) = (word(&mut body)?, word(&mut body)?);
                        take(Said::KeyFrame { ssrc });
                    }
                }
                _ => {}
            }
        }
        _ => {}
    }
    Some(())
}

/// The rate in a message of the application layer, if it is one of these.
fn peer_estimate(message: &[u8]) -> Option<u64> {
    let rest = message.strip_prefix(b"REMB")?;
    let [_sources, high, middle, low, ..] = *rest else {
        return None;
    };
    let mantissa = u64::from(high & 0x03) << 16 | u64::from(middle) << 8 | u64::from(low);
    mantissa.checked_mul(1u64.checked_shl(u32::from(high >> 2))?)
}

/// Whether a compound packet is only about what its receiver sends: reports of no sender, and feedback.
pub fn is_only_feedback(mut compound: &[u8]) -> bool {
    while let Some((head, rest)) = compound.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([head[2], head[3]])) * 4;
        if matches!(head[1], SENDER_REPORT | GOODBYE | EXTENDED_REPORT) {
            return false;
        }
        compound = rest.get(length..).unwrap_or_default();
    }
    true
}

fn word(body: &mut &[u8]) -> Option<u32> {
    let (word, rest) = body.split_first_chunk::<4>()?;
    *body = rest;
    Some(u32::from_be_bytes(*word))
}

/// A compound packet that is being written.
#[derive(Debug, Default)]
pub struct Compound(Vec<u8>);

impl Compound {
    /// Begins with a sender report (RFC 3550 section 6.4.1).
    pub fn sender_report(ssrc: u32, ntp: u64, timestamp: u32, packets: u32, bytes: u32) -> Self {
        Self::default().and_sender_report(ssrc, ntp, timestamp, packets, bytes)
    }

    /// Adds a sender report (RFC 3550 section 6.4.1).
    #[must_use]
    pub fn and_sender_report(mut self, ssrc: u32, ntp: u64, timestamp: u32, packets: u32, bytes: u32) -> Self {
        let words = [ssrc, (ntp >> 32) as u32, ntp as u32, timestamp, packets, bytes];
        self.packet(0, SENDER_REPORT, &words);
        self
    }

    /// How long it is so far, in bytes.
    pub fn length(&self) -> usize {
        self.0.len()
    }

    /// Begins with a receiver report (RFC 3550 section 6.4.2).
    pub fn receiver_report(ssrc: u32, report: Option<Report>) -> Self {
        let mut compound = Self::default();
        match report {
            None => compound.packet(0, RECEIVER_REPORT, &[ssrc]),
            Some(report) => {
                let lost = u32::from(report.fraction_lost) << 24 | report.lost & 0x00ff_ffff;
                let (highest, jitter) = (report.highest, report.jitter);
                let (last, delay) = (report.last_sender_report, report.delay);
                let words = [ssrc, report.ssrc, lost, highest, jitter, last, delay];
                compound.packet(1, RECEIVER_REPORT, &words);
            }
        }
        compound
    }

    /// The canonical name, without which no compound packet is complete (RFC 3550 section 6.5.1). At most 255 bytes of it count.
    #[must_use]
    pub fn cname(mut self, ssrc: u32, name: &str) -> Self {
        let name = name.as_bytes().get(..name.len().min(255)).unwrap_or_default();
        let mut chunk = ssrc.to_be_bytes().to_vec();
        chunk.extend([1, name.len() as u8]);
        chunk.extend(name);
        // At least one zero ends the chunk.
        chunk.resize((chunk.len() + 1).next_multiple_of(4), 0);
        self.0
            .extend([2 << 6 | 1, SOURCE_DESCRIPTION, 0, (chunk.len() / 4) as u8]);
        self.0.extend(chunk);
        self
    }

    /// A picture loss indication (RFC 4585 section 6.3.1).
    #[must_use]
    pub fn picture_loss(mut self, sender: u32, ssrc: u32) -> Self {
        self.packet(PLI, PAYLOAD_FEEDBACK, &[sender, ssrc]);
        self
    }

    /// A generic NACK (RFC 4585 section 6.2.1) of these sequence numbers, in ascending order.
    #[must_use]
    pub fn missing(mut self, sender: u32, ssrc: u32, missing: &[u16]) -> Self {
        let mut words = vec![sender, ssrc];
        let mut entry: Option<(u16, u16)> = None;
        for &sequence in missing {
            entry = match entry {
                Some((first, others)) if (1..=16).contains(&sequence.wrapping_sub(first)) => {
                    Some((first, others | 1 << (sequence.wrapping_sub(first) - 1)))
                }
                other => {
                    words.extend(other.map(|(first, others)| u32::from(first) << 16 | u32::from(others)));
                    Some((sequence, 0))
                }
            };
        }
        words.extend(entry.map(|(first, others)| u32::from(first) << 16 | u32::from(others)));
        self.packet(NACK, TRANSPORT_FEEDBACK, &words);
        self
    }

    /// Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1): its control information, in whole words of 32 bits.
    #[must_use]
    pub fn arrivals(mut self, sender: u32, information: &[u8]) -> Self {
        let words = information
            .chunks_exact(4)
            .map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
        let words: Vec<u32> = [sender, 0].into_iter().chain(words).collect();
        self.packet(TRANSPORT_WIDE, TRANSPORT_FEEDBACK, &words);
        self
    }

    /// The packet.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn packet(&mut self, count: u8, kind: u8, words: &[u32]) {
        let length = (words.len() as u16).to_be_bytes();
        self.0.extend([2 << 6 | count, kind, length[0], length[1]]);
        self.0.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a compound packet says, as text: what it borrows does not outlive its reading.
    fn said(compound: &[u8]) -> (Vec<String>, bool) {
        let mut said = Vec::new();
        let is_whole = read(compound, |one| said.push(format!("{one:?}")));
        (said, is_whole)
    }

    fn texts(said: &[Said<'_>]) -> Vec<String> {
        said.iter().map(|one| format!("{one:?}")).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let report = Report {
            ssrc: 7,
            fraction_lost: 3,
            lost: 0x0001_0203,
            highest: 0x0001_ffff,
            jitter: 9,
            last_sender_report: 10,
            delay: 11,
        };
        let bytes = Compound::receiver_report(1, Some(report))
            .cname(1, "a name")
            .picture_loss(1, 7)
            .missing(1, 7, &[65_535, 0, 15, 16, 300])
            .into_bytes();
        let expected = vec![
            Said::Report(report),
            Said::KeyFrame { ssrc: 7 },
            Said::Missing {
                ssrc: 7,
                first: 65_535,
                others: 0b1000_0000_0000_0001,
            },
            Said::Missing {
                ssrc: 7,
                first: 16,
                others: 0,
            },
            Said::Missing {
                ssrc: 7,
                first: 300,
                others: 0,
            },
        ];
        assert_eq!(said(&bytes), (texts(&expected), true));
        let bytes = Compound::sender_report(5, 1 << 40, 2, 3, 4).cname(5, "").into_bytes();
        assert_eq!(
            said(&bytes),
            (texts(&[Said::SenderReport { ssrc: 5, ntp: 1 << 40 }]), true)
        );
    }

    #[test]
    fn no_truncation_and_no_garbage_is_read_past_its_end() {
        let bytes = Compound::receiver_report(1, Some(Report::default()))
            .missing(1, 7, &[1, 100])
            .into_bytes();
        for length in 0..bytes.len() {
            assert_eq!(said(&bytes[..length]).1, length == 0 || length == 32, "{length}");
        }
        for kind in 192..=223u8 {
            for count in 0..32u8 {
                for length in 0..12u8 {
                    let mut packet = vec![0x80 | count, kind, 0, length];
                    packet.resize(4 + usize::from(length) * 4, 0xff);
                    read(&packet, |_| {});
                    packet[0] |= 0x20;
                    read(&packet, |_| {});
                }
            }
        }
    }

    #[test]
    fn a_peers_estimate_and_its_arrivals_are_read() {
        let mut bytes = Compound::receiver_report(1, None).into_bytes();
        // 0x3_0201 · 2^5.
        bytes.extend([0x8f, PAYLOAD_FEEDBACK, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0]);
        bytes.extend(b"REMB");
        bytes.extend([1, 5 << 2 | 3, 2, 1, 0, 0, 0, 9]);
        bytes.extend([0x8f, TRANSPORT_FEEDBACK, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4]);
        let expected = [Said::PeerEstimate(0x3_0201 << 5), Said::Arrivals(&[1, 2, 3, 4])];
        assert_eq!(said(&bytes), (texts(&expected), true));
        assert!(is_only_feedback(&bytes));
        bytes.extend([0x80, SENDER_REPORT, 0, 1, 0, 0, 0, 1]);
        assert!(!is_only_feedback(&bytes));
    }

    #[test]
    fn an_absurd_estimate_is_none() {
        assert_eq!(peer_estimate(b"REMB\x01\xff\xff\xff"), None);
        assert_eq!(peer_estimate(b"REMB\x01\x00\x00"), None);
        assert_eq!(peer_estimate(b"BMER\x01\x00\x00\x00"), None);
    }
}
