//! Handshakes with peers of each version, and what comes before they answer.
#![expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]

use super::*;

/// What `from` has to send at the time that it was told last.
fn packets(from: &mut dyn DtlsInstance, now: Instant) -> Vec<Vec<u8>> {
    let (mut buffer, mut packets) = ([0; 2_000], Vec::new());
    loop {
        match from.poll_output(&mut buffer) {
            DtlsOutput::Packet(packet) => packets.push(packet.to_vec()),
            // Before that it is to be asked again at once.
            DtlsOutput::Timeout(due) if due > now => return packets,
            _ => {}
        }
    }
}

fn carry(from: &mut dyn DtlsInstance, to: &mut dyn DtlsInstance, now: Instant) {
    for packet in packets(from, now) {
        to.handle_packet(&packet).unwrap();
    }
}

/// Our side, which begins, and a peer of this version.
fn pair(peer: DtlsVersion, now: Instant) -> (Box<dyn DtlsInstance>, Box<dyn DtlsInstance>, Handshake) {
    let provider = crypto_provider().dtls_provider;
    let new = |version| {
        let certificate = provider.generate_certificate().unwrap();
        provider.new_dtls(&certificate, now, version, None).unwrap()
    };
    let mut theirs = new(peer);
    let mut ours = new(DtlsVersion::Auto);
    let handshake = Handshake::of_last_made().unwrap();
    ours.set_active(true);
    theirs.set_active(false);
    for side in [&mut ours, &mut theirs] {
        side.handle_timeout(now).unwrap();
    }
    (ours, theirs, handshake)
}

/// The version that both agree on, and how many handshakes that took. First our side gets this.
fn agree(peer: DtlsVersion, before: &[&[u8]]) -> (ProtocolVersion, u32) {
    let now = Instant::now();
    let (mut ours, mut theirs, handshake) = pair(peer, now);
    let first = packets(&mut *ours, now);
    for packet in before {
        ours.handle_packet(packet).unwrap();
    }
    for packet in first {
        theirs.handle_packet(&packet).unwrap();
    }
    for _ in 0..10 {
        carry(&mut *theirs, &mut *ours, now);
        carry(&mut *ours, &mut *theirs, now);
    }
    (ours.protocol_version().unwrap(), handshake.count())
}

#[test]
fn a_peer_is_spoken_to_in_the_newest_version_that_it_knows() {
    assert_eq!(agree(DtlsVersion::Auto, &[]), (ProtocolVersion::DTLS1_3, 1));
    assert_eq!(agree(DtlsVersion::Dtls13, &[]), (ProtocolVersion::DTLS1_3, 1));
    assert_eq!(agree(DtlsVersion::Dtls12, &[]), (ProtocolVersion::DTLS1_2, 1));
}

/// Else it would be sent media that it cannot open yet.
#[test]
fn it_is_over_when_the_peer_has_our_last_flight() {
    for (peer, flights) in [(DtlsVersion::Dtls13, 1), (DtlsVersion::Dtls12, 2)] {
        let now = Instant::now();
        let (mut ours, mut theirs, handshake) = pair(peer, now);
        for _ in 0..flights {
            assert_eq!(handshake.count(), 0, "{peer}");
            carry(&mut *ours, &mut *theirs, now);
            carry(&mut *theirs, &mut *ours, now);
        }
        let last = packets(&mut *ours, now);
        if peer == DtlsVersion::Dtls13 {
            assert_eq!(handshake.count(), 0);
            for packet in &last {
                theirs.handle_packet(packet).unwrap();
            }
            carry(&mut *theirs, &mut *ours, now);
            packets(&mut *ours, now);
        }
        assert_eq!(handshake.count(), 1, "{peer}");
    }
}

/// Such as what the client still sends of its connection with the node that it comes from, and what anybody sends in its name.
#[test]
fn what_comes_before_the_answer_costs_nothing() {
    let alert = [&[21, 0xfe, 0xfd, 0, 1][..], &[0; 30]].concat();
    let encrypted = [&[0x2f, 1, 2, 0, 19][..], &[7; 19]].concat();
    let hello = [
        &[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 1, 0, 0, 8][..],
        &[0; 16],
    ]
    .concat();
    let part = [
        &[
            22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 2, 0, 0, 80, 0, 0, 0, 0, 0, 0, 0, 8,
        ][..],
        &[0; 8],
    ]
    .concat();
    let before: [&[u8]; 6] = [&alert, &encrypted, &hello, &part, &[22], &[]];
    for peer in [DtlsVersion::Auto, DtlsVersion::Dtls12] {
        assert_eq!(agree(peer, &before).1, 1, "{peer}");
    }
}

#[test]
fn the_end_of_the_connection_before_is_seen_in_both_versions() {
    let of_1_3 = |length: u8| [&[0x2f, 1, 2, 0, length][..], &vec![7; length.into()]].concat();
    assert!(is_alert(&[21, 0xfe, 0xfd, 0, 1]) && is_alert(&of_1_3(19)));
    // An SCTP packet has 12 bytes and at least one chunk of 4; its record 17 more.
    assert!(!is_alert(&of_1_3(33)) && !is_alert(&[22, 0xfe, 0xfd, 0, 0]));
}
