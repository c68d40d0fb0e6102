//! A peer that asks for too much, or says what is not so.

use super::*;

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
