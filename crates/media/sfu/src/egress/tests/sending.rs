//! What arrives of what is written, when, and again.

use super::*;
use crate::bandwidth::tests::feedback;
use crate::rtcp::Said;

#[test]
fn a_packet_arrives_with_its_extensions_and_its_m_line_until_that_is_known() {
    let mut peer = Peer::measured();
    let sequence = peer.video(100);
    let first = peer.received(0).remove(0);
    assert_eq!(first.header.ssrc, VIDEO);
    assert_eq!((first.header.payload_type, first.header.marker), (VP8, true));
    assert_eq!(u64::from(first.header.sequence), sequence);
    assert_eq!(first.payload, vec![sequence as u8; 100]);
    let [.., high, low] = OURS.to_be_bytes();
    let expected = [0xbe, 0xde, 0, 2, 0x40, b'0', 0x31, high, low, 0, 0, 0];
    assert_eq!(first.extensions, expected);
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
fn where_packets_get_lost_though_nothing_queues_they_are_sent_again_twice() {
    for (is_lossy, copies) in [(false, 0), (true, 1)] {
        let mut peer = Peer::measured();
        let (mut missed, mut sent, mut statuses) = (0, 0, Vec::new());
        for tick in 0..150u64 {
            missed = peer.video(500);
            peer.pass(Duration::from_millis(10));
            for packet in peer.received(0) {
                sent += 1;
                let is_lost = is_lossy && sent % 20 == 0;
                let ticks = 10_000 + 40 * tick;
                statuses.push((transport_sequence(&packet), (!is_lost).then_some(ticks)));
            }
            if tick % 5 == 4 {
                let (now, first) = (peer.now, statuses[0].0);
                let arrivals: Vec<_> = statuses.drain(..).map(|(_, arrival)| arrival).collect();
                let feedback = feedback(u64::from(first), &arrivals, (tick / 5) as u8);
                peer.egress.said(now, Said::Arrivals(&feedback));
            }
        }
        peer.received(0);
        peer.misses(&[missed]);
        peer.pass(Duration::from_millis(5));
        let again = |sent: Vec<Opened>| sent.iter().filter(|packet| packet.header.ssrc == REPAIR).count();
        assert_eq!(again(peer.received(0)), 1);
        peer.pass(Duration::from_millis(30));
        assert_eq!(again(peer.received(0)), copies, "{is_lossy}");
    }
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
        Arc::make_mut(&mut sound).is_red = true;
        peer.egress
            .write(sound.arrived, AUDIO_STREAM, PayloadType(OPUS), &sound, &rewritten(5));
        let got = peer.received(0).remove(0);
        if has_red {
            assert_eq!(got.header.payload_type, RED);
            assert_eq!(got.payload, [0x80 | OPUS, 0x0f, 0x00, 0x02, OPUS, 1, 2, 7, 8, 9]);
        } else {
            assert_eq!(got.header.payload_type, OPUS);
            assert_eq!(got.payload, [7, 8, 9]);
        }
        Arc::make_mut(&mut sound).payload = vec![0xff; 3].into();
        peer.egress
            .write(sound.arrived, AUDIO_STREAM, PayloadType(OPUS), &sound, &rewritten(6));
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
        .write(sound.arrived, AUDIO_STREAM, PayloadType(OPUS), &sound, &rewritten(5));
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
                    if let Said::SenderReport { ssrc, .. } = said {
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
        .write(sound.arrived, AUDIO_STREAM, PayloadType(OPUS), &sound, &rewritten(5));
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
