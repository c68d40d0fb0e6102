//! Egress against a peer that has the other keys, and lies.
#![expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]

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
        let mut egress = Egress::new(now, Clock::new(now, 1_000_000), OURS);
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
        self.egress.write(VIDEO_STREAM, PayloadType(VP8), &packet, &rewritten);
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

fn packet(arrived: Instant, codec: Codec, payload: Vec<u8>) -> MediaPacket {
    MediaPacket {
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
    }
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

#[test]
fn a_packet_arrives_with_its_extensions_and_its_m_line_until_that_is_known() {
    let mut peer = Peer::measured();
    let sequence = peer.video(100);
    let first = peer.received(0).remove(0);
    assert_eq!(first.header.ssrc, VIDEO);
    assert_eq!((first.header.payload_type, first.header.marker), (VP8, true));
    assert_eq!(u64::from(first.header.sequence), sequence);
    assert_eq!(first.payload, vec![sequence as u8; 100]);
    assert_eq!(first.extensions, [0xbe, 0xde, 0, 2, 0x40, b'0', 0x31, 0, 1, 0, 0, 0]);
    let report = rtcp::Report {
        ssrc: VIDEO,
        ..rtcp::Report::default()
    };
    assert_eq!(peer.says(Compound::receiver_report(9, Some(report))), Handled::Whole);
    peer.received(0);
    peer.video(100);
    let second = peer.received(0).remove(0);
    assert_eq!(second.header.ssrc, VIDEO);
    assert_eq!(
        second.extensions[..5],
        [0xbe, 0xde, 0, 1, 0x31],
        "the number of the probe's packets is between"
    );
}

#[test]
fn a_missed_packet_is_sent_again_once_in_a_round_trip() {
    let mut peer = Peer::new();
    let sequence = peer.video(100);
    peer.video(100);
    peer.received(0);
    peer.now += Duration::from_millis(150);
    assert_eq!(peer.misses(&[sequence]), Handled::Whole);
    let again = peer.received(0);
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].header.ssrc, again[0].header.payload_type), (REPAIR, RTX));
    assert_eq!(again[0].header.timestamp, sequence as u32 * 3_000);
    assert_eq!(again[0].payload[..2], (sequence as u16).to_be_bytes());
    assert_eq!(again[0].payload[2..], vec![sequence as u8; 100]);
    peer.misses(&[sequence]);
    assert_eq!(peer.received(0).len(), 0, "it is on its way");
    peer.now += Duration::from_millis(150);
    peer.misses(&[sequence]);
    assert_eq!(peer.received(0).len(), 1);
    let counters = peer.egress.counters;
    assert_eq!((counters.repaired, counters.recent_missing), (2, 1));
}

#[test]
fn without_a_repair_stream_the_very_same_datagram_is_sent_again() {
    let mut peer = Peer::with(Formats::default(), None, true);
    let sequence = peer.video(100);
    let first = peer.egress.poll().unwrap();
    peer.now += Duration::from_millis(150);
    peer.misses(&[sequence]);
    assert_eq!(peer.egress.poll(), Some(first));
}

#[test]
fn a_storm_of_requests_for_what_was_lost_is_answered_within_the_budget() {
    let mut peer = Peer::new();
    let mut sent = Vec::new();
    for _ in 0..400 {
        sent.push(peer.video(1_000));
        peer.pass(Duration::from_millis(2));
    }
    peer.received(0);
    for _ in 0..50 {
        peer.now += Duration::from_millis(20);
        for part in sent.chunks(100) {
            peer.misses(part);
        }
        peer.egress.handle_timeout(peer.now);
    }
    peer.pass(Duration::from_secs(2));
    let again: usize = peer.received(0).iter().map(|packet| packet.payload.len()).sum();
    assert!(again <= 500_000, "{again} bytes after 400,000");
    let counters = peer.egress.counters;
    assert!(counters.repaired > 100, "{counters:?}");
    assert!(counters.refused_missing > 1_000, "{counters:?}");
}

#[test]
fn what_was_never_sent_is_not_sent_again() {
    let mut peer = Peer::new();
    assert_eq!(peer.misses(&[5]), Handled::Whole);
    peer.video(100);
    peer.received(0);
    peer.now += Duration::from_millis(500);
    let all: Vec<u64> = (0..65_536).filter(|sequence| *sequence != 101).collect();
    for part in all.chunks(2_000) {
        peer.misses(part);
    }
    peer.says(Compound::receiver_report(9, None).missing(9, 0xdead, &[1, 2]));
    peer.says(Compound::receiver_report(9, None).missing(9, REPAIR, &[1]));
    assert_eq!(peer.received(0).len(), 0);
    let counters = peer.egress.counters;
    assert_eq!(counters.repaired, 0);
    assert_eq!(counters.unknown_missing, 65_535 + 1);
    assert_eq!(counters.unknown_feedback, 2);
}

#[test]
fn a_flood_of_key_frame_requests_is_one() {
    let mut peer = Peer::new();
    peer.video(100);
    for _ in 0..1_000 {
        peer.says(Compound::receiver_report(9, None).picture_loss(9, VIDEO));
    }
    assert_eq!(peer.told(), [Told::KeyFrameWanted("0".into())]);
    assert_eq!(peer.egress.counters.merged_key_frames, 999);
    peer.now += Duration::from_millis(200);
    peer.says(Compound::receiver_report(9, None).picture_loss(9, VIDEO));
    peer.says(Compound::receiver_report(9, None).picture_loss(9, 0xdead));
    assert_eq!(peer.told(), [Told::KeyFrameWanted("0".into())]);
}

#[test]
fn reports_about_nobody_and_lies_about_time_change_nothing() {
    let mut peer = Peer::measured();
    peer.video(100);
    let lies = [
        rtcp::Report {
            ssrc: 0xdead,
            ..rtcp::Report::default()
        },
        rtcp::Report {
            ssrc: VIDEO,
            fraction_lost: 255,
            lost: 0x7f_ffff,
            highest: u32::MAX,
            last_sender_report: 1,
            delay: u32::MAX,
            ..rtcp::Report::default()
        },
    ];
    for lie in lies {
        for _ in 0..100 {
            peer.now += Duration::from_millis(100);
            peer.says(Compound::receiver_report(9, Some(lie)));
        }
    }
    let estimate = peer.egress.estimate().unwrap();
    assert!(estimate >= 1_000_000, "{estimate}");
    assert_eq!(peer.egress.measured_round_trip(peer.now), None);
    assert_eq!(peer.egress.counters.unknown_feedback, 100);
}

#[test]
fn rtcp_that_is_forged_or_comes_twice_is_refused() {
    let mut peer = Peer::new();
    peer.video(100);
    let good = peer
        .sender
        .seal(Compound::receiver_report(9, None).picture_loss(9, VIDEO))
        .unwrap();
    for byte in 0..good.len() {
        let mut forged = good.clone();
        forged[byte] ^= 1;
        assert_eq!(peer.egress.handle_rtcp(peer.now, &forged), Handled::Refused, "{byte}");
    }
    assert_eq!(peer.egress.handle_rtcp(peer.now, &good), Handled::Whole);
    assert_eq!(peer.told().len(), 1);
    peer.now += Duration::from_secs(1);
    assert_eq!(peer.egress.handle_rtcp(peer.now, &good), Handled::Refused);
    assert_eq!(peer.told().len(), 0);
    assert_eq!(peer.egress.counters.refused_rtcp, good.len() as u64 + 1);
}

#[test]
fn a_report_about_what_the_peer_sends_is_for_the_stack_as_well() {
    let mut peer = Peer::new();
    assert_eq!(peer.says(Compound::sender_report(9, 0, 0, 0, 0)), Handled::InPart);
    assert_eq!(
        peer.says(Compound::receiver_report(9, None).cname(9, "x")),
        Handled::Whole
    );
}

#[test]
fn a_number_is_used_once() {
    let mut peer = Peer::new();
    let sequence = peer.video(100);
    peer.sequence -= 1;
    assert_eq!(peer.video(100), sequence);
    assert_eq!(peer.received(0).len(), 1);
    assert_eq!(peer.egress.counters.repeated, 1);
}

#[test]
fn what_does_not_fit_into_a_datagram_is_counted_and_not_sent() {
    let mut peer = Peer::new();
    peer.video(1_450);
    peer.video(65_000);
    assert_eq!(peer.received(0).len(), 0);
    assert_eq!(peer.egress.counters.oversize, 2);
    peer.video(1_380);
    assert_eq!(peer.received(0).len(), 1);
}

#[test]
fn after_another_handshake_the_receiver_begins_with_rollover_0() {
    let mut peer = Peer::new();
    peer.sequence = 65_534;
    peer.video(100);
    peer.received(0);
    peer.video(100);
    assert_eq!(peer.received(1).len(), 1);
    peer.rekey(7);
    peer.video(100);
    let after = peer.received(0);
    assert_eq!(after.len(), 1);
    assert_eq!(after[0].header.sequence, 1);
    peer.now += Duration::from_millis(200);
    peer.misses(&[65_535]);
    assert_eq!(peer.received(0).len(), 0, "what the former keys sealed is gone");
}

#[test]
fn an_empty_packet_closes_a_gap_and_can_be_sent_again() {
    let mut peer = Peer::new();
    peer.egress.write_empty(VIDEO_STREAM, PayloadType(VP8), 7, 21_000);
    let empty = peer.received(0);
    assert!(empty[0].header.is_padded);
    assert_eq!(empty[0].payload, [0, 0, 0, 4], "padding that says its own length");
    peer.now += Duration::from_millis(200);
    peer.misses(&[7]);
    assert_eq!(peer.received(0)[0].payload, [0, 7]);
}

#[test]
fn redundant_sound_goes_to_who_has_negotiated_it_and_its_primary_block_to_others() {
    let red = vec![0x80 | 109, 0x0f, 0x00, 0x02, 109, 1, 2, 7, 8, 9];
    for has_red in [false, true] {
        let mut formats = Formats::default();
        formats.set(
            OPUS,
            Format {
                red: has_red.then_some(RED),
                clock_rate: 48_000,
                ..Format::default()
            },
        );
        let mut peer = Peer::with(formats, None, true);
        let mut sound = packet(peer.now, Codec::Opus, red.clone());
        sound.is_red = true;
        peer.egress
            .write(AUDIO_STREAM, PayloadType(OPUS), &sound, &rewritten(5));
        let got = peer.received(0).remove(0);
        if has_red {
            assert_eq!(got.header.payload_type, RED);
            assert_eq!(got.payload, [0x80 | OPUS, 0x0f, 0x00, 0x02, OPUS, 1, 2, 7, 8, 9]);
        } else {
            assert_eq!(got.header.payload_type, OPUS);
            assert_eq!(got.payload, [7, 8, 9]);
        }
        sound.payload = vec![0xff; 3].into();
        peer.egress
            .write(AUDIO_STREAM, PayloadType(OPUS), &sound, &rewritten(6));
        assert_eq!(peer.received(0).len(), 0);
        assert_eq!(peer.egress.counters.bad_red, 1);
    }
}

#[test]
fn sound_does_not_wait_behind_a_picture() {
    let mut peer = Peer::measured();
    for _ in 0..200 {
        peer.video(1_200);
    }
    let sound = packet(peer.now, Codec::Opus, vec![1; 50]);
    peer.egress
        .write(AUDIO_STREAM, PayloadType(OPUS), &sound, &rewritten(5));
    let at_once = peer.received(0);
    assert!(at_once.len() < 100, "{}", at_once.len());
    assert_eq!(at_once.last().unwrap().header.ssrc, AUDIO);
    peer.pass(Duration::from_millis(900));
    let numbers: Vec<u16> = peer
        .received(0)
        .iter()
        .filter(|packet| packet.header.ssrc == VIDEO)
        .map(|packet| packet.header.sequence)
        .collect();
    assert_eq!(numbers.last(), Some(&300));
    assert!(numbers.is_sorted());
}

#[test]
fn what_waits_too_long_is_dropped_and_a_key_frame_asked_for() {
    let mut peer = Peer::measured();
    for _ in 0..1_000 {
        peer.video(1_200);
    }
    peer.pass(Duration::from_secs(3));
    assert!(peer.told().contains(&Told::KeyFrameWanted("0".into())));
    assert!(peer.egress.counters.overdue > 100, "{:?}", peer.egress.counters);
    peer.received(0);
    let sequence = peer.video(100);
    let last = peer.received(0).pop().unwrap();
    assert_eq!(u64::from(last.header.sequence), sequence, "the stream goes on");
}

#[test]
fn streams_are_reported_soon_and_then_every_second_while_they_go_on() {
    let mut peer = Peer::measured();
    let (start, mut reports) = (peer.now, Vec::new());
    for millisecond in 0..6_000u64 {
        if millisecond < 3_000 && millisecond % 33 == 0 {
            peer.video(100);
        }
        peer.pass(Duration::from_millis(1));
        while let Some(datagram) = peer.egress.poll() {
            if rtp::is_rtcp(&datagram) {
                assert_eq!(rtp::sender(&datagram), Some(OURS));
                let mut plain = Vec::new();
                let index = peer.receiver.rtcp_index(&datagram).unwrap();
                assert!(peer.receiver.open_rtcp(&datagram, OURS, index, &mut plain));
                rtcp::read(&plain, |said| {
                    if let rtcp::Said::SenderReport { ssrc, .. } = said {
                        reports.push((ssrc, (peer.now - start).as_millis()));
                    }
                });
            }
        }
    }
    assert!(reports.iter().all(|(ssrc, _)| *ssrc == VIDEO));
    let times: Vec<u128> = reports.iter().map(|(_, at)| *at / 100).collect();
    assert_eq!(times, [1, 11, 21, 31, 41]);
    assert_eq!(peer.egress.next_due(), None, "nothing is due when nothing is sent");
}

#[test]
fn probes_are_made_of_what_was_sent_and_only_after_it() {
    let mut peer = Peer::measured();
    let sound = packet(peer.now, Codec::Opus, vec![1; 50]);
    peer.egress
        .write(AUDIO_STREAM, PayloadType(OPUS), &sound, &rewritten(5));
    peer.pass(Duration::from_secs(1));
    assert_eq!(peer.received(0).len(), 1, "no picture, no probe");
    let sequence = peer.video(1_000);
    peer.pass(Duration::from_millis(100));
    let mut probed = peer.received(0);
    assert_eq!(probed.remove(0).header.ssrc, VIDEO);
    assert!(probed.len() >= 10, "{}", probed.len());
    for packet in &probed {
        assert_eq!((packet.header.ssrc, packet.header.payload_type), (REPAIR, RTX));
        assert_eq!(packet.payload[..2], (sequence as u16).to_be_bytes());
    }
    assert_eq!(peer.egress.counters.padding, probed.len() as u64);
}

#[test]
fn without_a_large_packet_to_send_again_probes_are_padding() {
    let mut peer = Peer::measured();
    peer.video(20);
    peer.pass(Duration::from_millis(100));
    let mut probed = peer.received(0);
    probed.remove(0);
    assert!(probed.len() >= 10, "{}", probed.len());
    for packet in &probed {
        assert!(packet.header.is_padded);
        assert_eq!(packet.payload.last(), Some(&(packet.payload.len() as u8)));
    }
}

#[test]
fn what_is_of_no_more_use_is_neither_sent_nor_sent_again() {
    let mut peer = Peer::new();
    let sent = peer.video(100);
    peer.received(0);
    peer.now += Duration::from_millis(150);
    peer.egress.forget(VIDEO_STREAM);
    peer.misses(&[sent]);
    assert_eq!(peer.received(0).len(), 0);
    let next = peer.video(100);
    peer.now += Duration::from_millis(150);
    peer.misses(&[next]);
    assert_eq!(peer.received(0).len(), 2, "what follows is repaired as before");
}

#[test]
fn a_round_trip_that_took_long_once_does_not_hold_up_repair() {
    let mut peer = Peer::new();
    for milliseconds in [50, 400] {
        peer.egress
            .round_trip_measured(peer.now, Duration::from_millis(milliseconds));
    }
    let sequence = peer.video(100);
    peer.received(0);
    for _ in 0..2 {
        peer.now += Duration::from_millis(60);
        peer.misses(&[sequence]);
        assert_eq!(peer.received(0).len(), 1);
    }
    assert_eq!(
        peer.egress.measured_round_trip(peer.now),
        Some(Duration::from_millis(400)),
        "what is told is the last one"
    );
}
