//! Egress and the peer that it is tested with, which has the other keys.
#![expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]

mod counted_elsewhere;
mod lies;
mod sending;
mod without_requests;

use super::feedback::Handled;
use super::header::Extensions;
use super::*;
use crate::codec::Codec;
use crate::keys::Profile;
use crate::rtcp::{self, Compound};
use crate::rtp::{self, Header};

const VIDEO: u32 = 0x1111;
const REPAIR: u32 = 0x2222;
const AUDIO: u32 = 0x3333;
const OURS: u32 = 0x4444;
const VP8: u8 = 96;
const RTX: u8 = 97;
const OPUS: u8 = 111;
const RED: u8 = 63;

const VIDEO_STREAM: OutgoingStream = OutgoingStream(0);
const AUDIO_STREAM: OutgoingStream = OutgoingStream(1);

/// The other side of an egress: it opens what is sent, and seals what it says.
struct Peer {
    egress: Egress,
    now: Instant,
    receiver: Cipher,
    sender: Reporter,
    sequence: u64,
}

/// What was sent, opened.
#[derive(Debug)]
struct Opened {
    header: Header,
    extensions: Vec<u8>,
    payload: Vec<u8>,
}

impl Peer {
    fn new() -> Self {
        Self::with(Formats::default(), Some(REPAIR), false)
    }

    /// One that gives feedback of what arrives, so that probes are sent to it.
    fn measured() -> Self {
        Self::with(Formats::default(), Some(REPAIR), true)
    }

    fn with(mut formats: Formats, repair_ssrc: Option<u32>, is_measured: bool) -> Self {
        let now = Instant::now();
        let mut egress = Egress::new(now, Clock::new(now, 1_000_000), OURS, None);
        formats.set(
            VP8,
            Format {
                repair: repair_ssrc.map(|_| RTX),
                red: None,
                has_nack: true,
                clock_rate: 90_000,
            },
        );
        egress.set_formats(formats);
        let line = Line {
            mid: "0".into(),
            ssrc: VIDEO,
            repair_ssrc,
            is_audio: false,
            extensions: Extensions {
                mid: Some(4),
                transport_sequence: is_measured.then_some(3),
                ..Extensions::default()
            },
        };
        egress.set_line(line);
        egress.set_line(Line {
            mid: "1".into(),
            ssrc: AUDIO,
            repair_ssrc: None,
            is_audio: true,
            ..line
        });
        let mut peer = Self {
            egress,
            now,
            receiver: Cipher::new(&keys(0).0).unwrap(),
            sender: Reporter::new(9, Cipher::new(&keys(0).1).unwrap()),
            sequence: 100,
        };
        peer.rekey(0);
        peer
    }

    fn rekey(&mut self, seed: u8) {
        let (ours, theirs) = keys(seed);
        assert!(self.egress.set_keys(&ours, &theirs));
        self.receiver = Cipher::new(&ours).unwrap();
        self.sender = Reporter::new(9, Cipher::new(&theirs).unwrap());
    }

    fn video(&mut self, bytes: usize) -> u64 {
        self.sequence += 1;
        let packet = packet(self.now, Codec::Vp8, vec![self.sequence as u8; bytes]);
        let rewritten = rewritten(self.sequence);
        self.egress
            .write(packet.arrived, VIDEO_STREAM, PayloadType(VP8), &packet, &rewritten);
        self.sequence
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.egress.next_due().filter(|due| *due <= end) {
            self.now = self.now.max(due) + Duration::from_micros(1);
            self.egress.handle_timeout(self.now);
        }
        self.now = self.now.max(end);
    }

    /// All RTP that is sent; what has a rollover counter above 0 must say so.
    fn received(&mut self, rollover: u64) -> Vec<Opened> {
        let mut opened = Vec::new();
        while let Some(datagram) = self.egress.poll() {
            if rtp::is_rtcp(&datagram) {
                continue;
            }
            let header = Header::read(&datagram).unwrap();
            let mut payload = Vec::new();
            let index = rollover << 16 | u64::from(header.sequence);
            assert!(
                self.receiver
                    .open_rtp(&datagram, header.length, header.ssrc, index, &mut payload),
                "{header:?}"
            );
            opened.push(Opened {
                header,
                extensions: datagram[12..header.length].to_vec(),
                payload,
            });
        }
        opened
    }

    fn says(&mut self, compound: Compound) -> Handled {
        let datagram = self.sender.seal(compound).unwrap();
        self.egress.handle_rtcp(self.now, &datagram)
    }

    fn misses(&mut self, sequences: &[u64]) -> Handled {
        let low: Vec<u16> = sequences.iter().map(|sequence| *sequence as u16).collect();
        self.says(Compound::receiver_report(9, None).missing(9, VIDEO, &low))
    }

    fn told(&mut self) -> Vec<Told> {
        std::iter::from_fn(|| self.egress.poll_told())
            .filter(|told| *told != Told::Estimate)
            .collect()
    }
}

fn keys(seed: u8) -> (MasterKey, MasterKey) {
    let exported: Vec<u8> = (0..88u8).map(|byte| byte.wrapping_add(seed)).collect();
    MasterKey::pair(Profile::AeadAes256Gcm, &exported).unwrap()
}

fn packet(arrived: Instant, codec: Codec, payload: Vec<u8>) -> Arc<MediaPacket> {
    Arc::new(MediaPacket {
        arrived,
        ssrc: 1,
        sequence: 0,
        timestamp: 0,
        marker: false,
        codec,
        format: crate::codec::PayloadFormat::of(codec),
        is_red: false,
        clock_rate: codec.clock_rate(),
        rid: None,
        mid: "in".into(),
        audio_level: None,
        voice: None,
        rotation: None,
        playout_delay: None,
        capture_time: None,
        dependency: None,
        payload: payload.into(),
    })
}

fn rewritten(sequence: u64) -> Rewritten {
    Rewritten {
        sequence,
        timestamp: sequence as u32 * 3_000,
        marker: true,
        pictures: Default::default(),
        dependency: None,
    }
}

fn transport_sequence(packet: &Opened) -> u16 {
    let mut elements = &packet.extensions[4..];
    loop {
        let [head, rest @ ..] = elements else {
            panic!("no number: {packet:?}");
        };
        let length = usize::from(head & 0xf) + 1;
        match head >> 4 {
            0 => elements = rest,
            3 => return u16::from_be_bytes([rest[0], rest[1]]),
            _ => elements = &rest[length..],
        }
    }
}
