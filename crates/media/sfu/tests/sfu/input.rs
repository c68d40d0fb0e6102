//! What strangers send.

use std::net::SocketAddr;
use std::time::Duration;

use signalbox_protocol::room::Kind;

use crate::sfu::link::Impairment;
use crate::sfu::world::World;

fn stranger() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], 9))
}

fn binding_request(username: &str) -> Vec<u8> {
    let mut attributes = vec![0x00, 0x06];
    attributes.extend((username.len() as u16).to_be_bytes());
    attributes.extend(username.as_bytes());
    attributes.resize(attributes.len().next_multiple_of(4), 0);
    // MESSAGE-INTEGRITY with a hash that is wrong, then FINGERPRINT.
    attributes.extend([0x00, 0x08, 0, 20]);
    attributes.extend([0xaa; 20]);
    attributes.extend([0x80, 0x28, 0, 4, 1, 2, 3, 4]);
    let mut message = vec![0, 1];
    message.extend((attributes.len() as u16).to_be_bytes());
    message.extend([0x21, 0x12, 0xa4, 0x42]);
    message.extend([9; 12]);
    message.extend(attributes);
    message
}

#[test]
fn what_is_not_authentic_is_counted_and_never_answered() {
    let mut world = World::new(1, Impairment::NONE);
    let ann = world.join("ann", true, &["f"], (1, 1));
    let bob = world.join("bob", true, &["f"], (1, 1));
    world.run_for(Duration::from_secs(2));
    let answer = world.members[ann].joined.answer.clone().unwrap();
    let ufrag = answer
        .lines()
        .find_map(|line| line.strip_prefix("a=ice-ufrag:"))
        .unwrap()
        .to_owned();
    let (now, before) = (world.now, world.shard.stats());
    let mut garbage = vec![vec![], vec![0xff; 50], vec![0; 3], vec![5; 1400], vec![0x80; 5]];
    let mut stun = vec![
        binding_request("nobody:x"),
        binding_request(&format!("{ufrag}:x")),
        vec![0; 20],
    ];
    stun.extend((20..40).map(|length| binding_request("nobody:x")[..length].to_vec()));
    let unknown = [vec![0x80; 100], vec![22; 100]];
    let oversize = [vec![0x80; 1401], vec![0; 9_000]];
    for datagram in garbage
        .drain(..)
        .chain(stun.clone())
        .chain(unknown.clone())
        .chain(oversize.clone())
    {
        world.shard.handle_datagram(now, stranger(), &datagram);
    }
    world.drain();
    let after = world.shard.stats();
    assert_eq!(after.dropped_garbage - before.dropped_garbage, 5);
    assert_eq!(after.dropped_stun - before.dropped_stun, stun.len() as u64);
    assert_eq!(after.dropped_unknown - before.dropped_unknown, 1, "DTLS");
    assert_eq!(after.dropped_ssrc - before.dropped_ssrc, 1, "RTP");
    assert_eq!(after.dropped_oversize - before.dropped_oversize, 2);
    assert_eq!(world.astray, 0, "nothing is sent to a stranger");

    // Garbage from the address of a client that is connected costs nobody anything.
    let address = world.members[ann].client.address;
    for length in 12..200 {
        for first in [0u8, 1, 20, 22, 63, 128, 144, 200 - 10] {
            let mut datagram = vec![first.wrapping_mul(3); length];
            datagram[0] = first;
            world.shard.handle_datagram(now, address, &datagram);
        }
    }
    world.drain();
    let count = world.received(bob, ann, Kind::Video).len();
    world.run_for(Duration::from_secs(1));
    assert!(
        world.received(bob, ann, Kind::Video).len() > count + 60,
        "the call goes on"
    );
    assert_eq!(world.shard.stats().failed_connections, 0);
}
