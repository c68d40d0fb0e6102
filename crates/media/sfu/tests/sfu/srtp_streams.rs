//! The streams of a client without a peer connection, on other people's SRTP and RTCP.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rtc_rtcp::goodbye::Goodbye;
use rtc_rtcp::packet::Packet as RtcpPacket;
use rtc_rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc_rtcp::receiver_report::ReceiverReport;
use rtc_rtcp::reception_report::ReceptionReport;
use rtc_rtcp::sender_report::SenderReport;
use rtc_rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};
use rtc_rtp::{Header, Packet};
use rtc_shared::marshal::{Marshal, Unmarshal};
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;
use signalbox_protocol::room::Kind;
use signalbox_protocol::srtp::{SrtpKey, SrtpStream, SrtpSuite};

use crate::sfu::client::Received;

/// A context for one direction of one key.
pub fn context(suite: SrtpSuite, key: &SrtpKey) -> Context {
    let bytes = STANDARD.decode(&key.0).unwrap();
    let (key, salt) = bytes.split_at(suite.key_bytes());
    let profile = match suite {
        SrtpSuite::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        SrtpSuite::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
    };
    let provider = rtc_srtp::crypto::default_provider().unwrap();
    Context::new(key, salt, profile, None, None, provider.crypto()).unwrap()
}

/// A stream that it sends.
pub struct Sender {
    pub stream: SrtpStream,
    /// The node's reports about it.
    pub reports: Vec<ReceptionReport>,
    /// How often a key frame was asked for.
    pub key_frames_wanted: usize,
    /// Sequence numbers that were asked for, in order.
    pub missing: Vec<u16>,
    /// The next packet's.
    pub sequence: u16,
    /// These are not put on the network when they are first sent.
    pub hold_back: BTreeSet<u16>,
    held: BTreeMap<u16, Vec<u8>>,
    context: Context,
    feedback: Context,
    needs_key_frame: bool,
    frame: u64,
    pub next: Instant,
}

/// A stream that it receives.
pub struct Receiver {
    pub stream: SrtpStream,
    pub received: Vec<Received>,
    pub sender_reports: Vec<SenderReport>,
    /// The share that it claims to have lost, in 1/256.
    pub fraction_lost: u8,
    context: Context,
    feedback: Context,
    last_sender_report: Option<(u32, Instant)>,
}

impl Sender {
    pub fn new(now: Instant, stream: &SrtpStream) -> Self {
        Self {
            stream: stream.clone(),
            reports: Vec::new(),
            key_frames_wanted: 0,
            missing: Vec::new(),
            sequence: 1_000,
            hold_back: BTreeSet::new(),
            held: BTreeMap::new(),
            context: context(stream.suite, &stream.key),
            feedback: context(stream.suite, &stream.feedback_key),
            needs_key_frame: true,
            frame: 0,
            next: now,
        }
    }

    /// One Opus packet every 20 ms, or one VP8 frame of three packets every 33 ms.
    pub fn frame(&mut self, is_silent: bool, out: &mut Vec<Vec<u8>>) {
        let (interval, ticks, parts) = match self.stream.kind {
            Kind::Audio => (Duration::from_millis(20), 960, 1),
            Kind::Video => (Duration::from_millis(33), 2_970, 3),
        };
        self.next += interval;
        if is_silent {
            return;
        }
        let frame = self.frame;
        self.frame += 1;
        let is_key = std::mem::take(&mut self.needs_key_frame);
        for part in 0..parts {
            let payload = match self.stream.kind {
                Kind::Audio => vec![0xfc, 0, 0, 0, 0],
                Kind::Video => {
                    let mut payload = vec![if part == 0 { 0x90 } else { 0x80 }, 0xe0];
                    payload.extend((0x8000 | (frame as u16 & 0x7fff)).to_be_bytes());
                    payload.extend([frame as u8, 0x20, u8::from(!is_key)]);
                    payload.extend([0; 200]);
                    payload
                }
            };
            let (payload_type, timestamp) = (self.stream.payload_type, (frame as u32).wrapping_mul(ticks));
            let sequence = self.sequence;
            let datagram = self.packet(payload_type, timestamp, part + 1 == parts, payload);
            if self.hold_back.contains(&sequence) {
                self.held.insert(sequence, datagram);
            } else {
                out.push(datagram);
            }
        }
    }

    /// The next packet, encrypted.
    pub fn packet(&mut self, payload_type: u8, timestamp: u32, marker: bool, payload: Vec<u8>) -> Vec<u8> {
        let packet = Packet {
            header: Header {
                version: 2,
                marker,
                payload_type,
                sequence_number: self.sequence,
                timestamp,
                ssrc: self.stream.ssrc,
                ..Header::default()
            },
            payload: payload.into(),
        };
        self.sequence = self.sequence.wrapping_add(1);
        let plain = packet.marshal().unwrap();
        self.context.encrypt_rtp(&plain).unwrap().to_vec()
    }

    /// A plain packet, encrypted as it is.
    pub fn raw(&mut self, plain: &[u8]) -> Vec<u8> {
        self.context.encrypt_rtp(plain).unwrap().to_vec()
    }

    /// A plain RTCP packet, encrypted as it is.
    pub fn raw_rtcp(&mut self, plain: &[u8]) -> Vec<u8> {
        self.context.encrypt_rtcp(plain).unwrap().to_vec()
    }

    /// Goes on with this stream where its join at another node says.
    pub fn go_on(&mut self, there: &Self) {
        self.stream = there.stream.clone();
        self.feedback = context(self.stream.suite, &self.stream.feedback_key);
        self.next = there.next;
        self.needs_key_frame = false;
    }

    /// RTCP of the stream's sender.
    pub fn rtcp(&mut self, packets: &[Box<dyn RtcpPacket>]) -> Vec<u8> {
        let plain = rtc_rtcp::packet::marshal(packets).unwrap();
        self.context.encrypt_rtcp(&plain).unwrap().to_vec()
    }

    /// A report of when it sent what, at an NTP time.
    pub fn sender_report(&mut self, ntp_time: u64) -> Vec<u8> {
        let ssrc = self.stream.ssrc;
        self.rtcp(&[Box::new(SenderReport {
            ssrc,
            ntp_time,
            ..SenderReport::default()
        })])
    }

    /// The end of the stream.
    pub fn goodbye(&mut self) -> Vec<u8> {
        let (ssrc, sources) = (self.stream.ssrc, vec![self.stream.ssrc]);
        self.rtcp(&[
            Box::new(SenderReport {
                ssrc,
                ..SenderReport::default()
            }),
            Box::new(Goodbye {
                sources,
                ..Goodbye::default()
            }),
        ])
    }

    pub fn feedback(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        let plain = self.feedback.decrypt_rtcp(datagram).unwrap();
        let packets = rtc_rtcp::packet::unmarshal(&mut &plain[..]).unwrap();
        assert!(
            packets[0].as_any().is::<ReceiverReport>(),
            "a compound packet begins with a report"
        );
        let mut again = Vec::new();
        for packet in packets {
            let packet = packet.as_any();
            if let Some(report) = packet.downcast_ref::<ReceiverReport>() {
                self.reports.extend(report.reports.iter().cloned());
            } else if let Some(pli) = packet.downcast_ref::<PictureLossIndication>() {
                assert_eq!(pli.media_ssrc, self.stream.ssrc);
                self.key_frames_wanted += 1;
                self.needs_key_frame = true;
            } else if let Some(nack) = packet.downcast_ref::<TransportLayerNack>() {
                assert_eq!(nack.media_ssrc, self.stream.ssrc);
                let missing: Vec<u16> = nack.nacks.iter().flat_map(|pair| pair.packet_list()).collect();
                again.extend(missing.iter().filter_map(|sequence| self.held.get(sequence).cloned()));
                self.missing.extend(missing);
            }
        }
        again
    }
}

impl Receiver {
    pub fn new(stream: &SrtpStream) -> Self {
        Self {
            stream: stream.clone(),
            received: Vec::new(),
            sender_reports: Vec::new(),
            fraction_lost: 0,
            context: context(stream.suite, &stream.key),
            feedback: context(stream.suite, &stream.feedback_key),
            last_sender_report: None,
        }
    }

    pub fn take(&mut self, now: Instant, passed: Duration, datagram: &[u8], is_rtcp: bool) {
        if is_rtcp {
            let plain = self.context.decrypt_rtcp(datagram).unwrap();
            for packet in rtc_rtcp::packet::unmarshal(&mut &plain[..]).unwrap() {
                if let Some(report) = packet.as_any().downcast_ref::<SenderReport>() {
                    self.last_sender_report = Some(((report.ntp_time >> 16) as u32, now));
                    self.sender_reports.push(report.clone());
                }
            }
            return;
        }
        let plain = self.context.decrypt_rtp(datagram).unwrap();
        let packet = Packet::unmarshal(&mut &plain[..]).unwrap();
        assert_eq!(packet.header.payload_type, self.stream.payload_type);
        let payload = &packet.payload;
        let is_video = self.stream.kind == Kind::Video;
        self.received.push(Received {
            at: passed,
            sequence: packet.header.sequence_number.into(),
            timestamp: packet.header.timestamp,
            picture_id: payload
                .get(2..4)
                .filter(|_| is_video)
                .map(|id| u16::from_be_bytes([id[0] & 0x7f, id[1]])),
            begins_key_frame: payload.first() == Some(&0x90) && payload.get(6) == Some(&0),
            layer: 0,
        });
    }

    /// RTCP from the stream's receiver.
    pub fn rtcp(&mut self, packets: &[Box<dyn RtcpPacket>]) -> Vec<u8> {
        let plain = rtc_rtcp::packet::marshal(packets).unwrap();
        self.feedback.encrypt_rtcp(&plain).unwrap().to_vec()
    }

    /// A plain RTCP packet, encrypted as it is.
    pub fn raw_rtcp(&mut self, plain: &[u8]) -> Vec<u8> {
        self.feedback.encrypt_rtcp(plain).unwrap().to_vec()
    }

    /// An authentic report.
    pub fn report(&mut self, now: Instant) -> Vec<u8> {
        let report = self.plain_report(now);
        self.rtcp(&[Box::new(report)])
    }

    /// A report in the clear, from an SSRC that the node has never heard of.
    pub fn report_in_the_clear(&self, now: Instant) -> Vec<u8> {
        let report = ReceiverReport {
            ssrc: self.stream.ssrc.wrapping_add(1),
            ..self.plain_report(now)
        };
        report.marshal().unwrap().to_vec()
    }

    fn plain_report(&self, now: Instant) -> ReceiverReport {
        let (last_sender_report, delay) = self.last_sender_report.map_or((0, 0), |(ntp, at)| {
            (ntp, (now.duration_since(at).as_secs_f64() * 65_536.0) as u32)
        });
        ReceiverReport {
            ssrc: self.stream.feedback_ssrc,
            reports: vec![ReceptionReport {
                ssrc: self.stream.ssrc,
                fraction_lost: self.fraction_lost,
                last_sender_report,
                delay,
                ..ReceptionReport::default()
            }],
            ..ReceiverReport::default()
        }
    }

    /// Asks for a key frame.
    pub fn picture_loss(&mut self) -> Vec<u8> {
        self.rtcp(&[Box::new(PictureLossIndication {
            sender_ssrc: self.stream.feedback_ssrc,
            media_ssrc: self.stream.ssrc,
        })])
    }

    /// Asks for packets.
    pub fn nack(&mut self, sequences: &[u16]) -> Vec<u8> {
        self.rtcp(&[Box::new(TransportLayerNack {
            sender_ssrc: self.stream.feedback_ssrc,
            media_ssrc: self.stream.ssrc,
            nacks: nack_pairs_from_sequence_numbers(sequences),
        })])
    }

    /// It receives no more.
    pub fn goodbye(&mut self) -> Vec<u8> {
        self.rtcp(&[Box::new(Goodbye {
            sources: vec![self.stream.feedback_ssrc],
            ..Goodbye::default()
        })])
    }
}
