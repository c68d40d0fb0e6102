//! Data messages between clients.

use std::time::Duration;

use prost::Message;
use signalbox_protocol::control::Event;
use signalbox_protocol::room::Grants;
use signalbox_protocol::srtp::SrtpRequest;
use signalbox_sfu::Limits;
use signalbox_sfu::data::{MAX_BACKLOG_BYTES, MAX_MESSAGE_BYTES};

use crate::sfu::link::Impairment;
use crate::sfu::world::World;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;
const RELIABLE: &str = "_reliable";
const LOSSY: &str = "_lossy";

/// What the tests read and write of a `DataPacket`.
#[derive(Clone, PartialEq, Message)]
struct Packet {
    #[prost(message, optional, tag = "2")]
    user: Option<User>,
    #[prost(string, tag = "4")]
    participant_identity: String,
    #[prost(string, repeated, tag = "5")]
    destination_identities: Vec<String>,
    #[prost(uint32, tag = "16")]
    sequence: u32,
    #[prost(string, tag = "17")]
    participant_sid: String,
}

#[derive(Clone, PartialEq, Message)]
struct User {
    #[prost(bytes = "vec", tag = "2")]
    payload: Vec<u8>,
}

fn packet(sequence: u32, bytes: usize, to: &[&str]) -> Vec<u8> {
    let packet = Packet {
        user: Some(User {
            payload: vec![7; bytes],
        }),
        destination_identities: to.iter().map(ToString::to_string).collect(),
        sequence,
        ..Packet::default()
    };
    packet.encode_to_vec()
}

/// Joins with data channels.
fn join(world: &mut World, identity: &str, grants: Grants) -> usize {
    let mut client = world.new_client();
    client.has_data = true;
    let offer = client.offer(false, &[], (1, 1));
    let mut request = World::request(identity);
    (request.offer, request.grants) = (Some(offer), grants);
    let joined = world.admit(request).unwrap();
    client.answer(joined.answer.as_deref().unwrap());
    world.add(identity, client, joined)
}

/// Ann, Bob and Cleo, with open channels.
fn three(seed: u64, limits: Limits) -> World {
    let mut world = World::with_limits(seed, Impairment::NONE, limits);
    for name in ["ann", "bob", "cleo"] {
        join(&mut world, name, Grants::default());
    }
    world.connect();
    world.run_until(SECONDS(5), "the channels are open", |world| {
        world.members.iter().all(|member| member.client.channels.len() == 2)
    });
    world
}

fn received(world: &World, member: usize) -> Vec<(String, Packet)> {
    let messages = world.members[member].client.messages.iter();
    messages
        .map(|(label, message)| (label.clone(), Packet::decode(&message[..]).unwrap()))
        .collect()
}

fn sequences(world: &World, member: usize) -> Vec<u32> {
    received(world, member)
        .iter()
        .map(|(_, packet)| packet.sequence)
        .collect()
}

/// What a member was told of lost messages, sent and received.
fn lost(world: &World, member: usize) -> (u64, u64) {
    let id = world.id(member);
    world
        .events
        .iter()
        .fold((0, 0), |(all_sent, all_received), (to, event)| match event {
            Event::DataLost { sent, received } if *to == [id.clone()] => (all_sent + sent, all_received + received),
            _ => (all_sent, all_received),
        })
}

#[test]
fn messages_arrive_on_the_channel_that_they_were_sent_on_with_their_sender_and_sequence() {
    let mut world = three(71, Limits::default());
    for (sequence, label) in [(1, RELIABLE), (2, LOSSY)] {
        assert!(world.members[0].client.send(label, &packet(sequence, 10, &[])));
        world.run_for(SECONDS(1));
    }
    for member in [1, 2] {
        let got = received(&world, member);
        assert_eq!(got.len(), 2);
        for ((label, packet), (sequence, sent_on)) in got.iter().zip([(1, RELIABLE), (2, LOSSY)]) {
            assert_eq!((label.as_str(), packet.sequence), (sent_on, sequence));
            assert_eq!(packet.participant_identity, "ann");
            assert_eq!(packet.participant_sid, world.id(0).as_str());
            assert_eq!(packet.user.as_ref().unwrap().payload.len(), 10);
        }
    }
    assert!(world.members[0].client.messages.is_empty(), "nobody gets its own");
    assert_eq!(world.shard.stats().dropped_data_slow, 0);
}

#[test]
fn named_receivers_alone_get_a_message_and_unknown_names_are_nobody() {
    let mut world = three(72, Limits::default());
    for (sequence, to) in [
        (1, &["bob"][..]),
        (2, &["cleo", "bob"]),
        (3, &["nobody"]),
        (4, &["nobody", "cleo"]),
    ] {
        assert!(world.members[0].client.send(RELIABLE, &packet(sequence, 10, to)));
    }
    world.run_for(SECONDS(1));
    assert_eq!(sequences(&world, 1), [1, 2]);
    assert_eq!(sequences(&world, 2), [2, 4]);
}

#[test]
fn the_longest_message_arrives_and_a_longer_one_is_dropped_counted_and_told() {
    let mut world = three(73, Limits::default());
    let overhead = packet(1, 60_000, &[]).len() - 60_000;
    for label in [RELIABLE, LOSSY] {
        assert!(
            world.members[0]
                .client
                .send(label, &packet(1, MAX_MESSAGE_BYTES - overhead, &[]))
        );
        world.run_for(SECONDS(2));
    }
    assert_eq!(sequences(&world, 1), [1, 1]);
    assert!(
        world.members[0]
            .client
            .send(RELIABLE, &packet(2, MAX_MESSAGE_BYTES, &[]))
    );
    assert!(world.members[0].client.send(RELIABLE, b"\xff\xff\xff garbage"));
    world.run_for(SECONDS(2));
    assert_eq!(sequences(&world, 1).len(), 2);
    assert_eq!(world.shard.stats().dropped_data, 2);
    assert_eq!(lost(&world, 0), (2, 0));
}

#[test]
fn who_may_not_send_data_is_not_heard() {
    let mut world = World::new(74, Impairment::NONE);
    let grants = Grants {
        publish_data: false,
        ..Grants::default()
    };
    join(&mut world, "ann", grants);
    join(&mut world, "bob", Grants::default());
    world.connect();
    world.run_for(SECONDS(1));
    assert!(world.members[0].client.send(RELIABLE, &packet(1, 10, &[])));
    world.run_for(SECONDS(1));
    assert!(received(&world, 1).is_empty());
    assert_eq!(lost(&world, 0), (1, 0));
}

#[test]
fn a_slow_receiver_loses_only_its_own_messages_and_is_told_how_many() {
    let mut world = three(75, Limits::default());
    let (bob, cleo) = (1, 2);
    world.members[bob].is_gone = true;
    let sent = 300;
    let size = |sequence: u32| if sequence.is_multiple_of(3) { 10 } else { 10_000 };
    for sequence in 1..=sent {
        assert!(
            world.members[0]
                .client
                .send(RELIABLE, &packet(sequence, size(sequence), &[]))
        );
        // A sender with a network of its own speed.
        world.run_for(Duration::from_millis(20));
    }
    world.run_for(SECONDS(1));
    assert_eq!(
        sequences(&world, cleo),
        (1..=sent).collect::<Vec<_>>(),
        "in order, and on time"
    );
    let dropped = world.shard.stats().dropped_data_slow;
    let waiting = u64::from(sent) - dropped;
    let large = (MAX_BACKLOG_BYTES + 128 * 1024) as u64 / 10_000 + 1;
    assert!(
        dropped > 0 && waiting <= large + u64::from(sent) / 3,
        "{waiting} of {sent} wait"
    );
    world.members[bob].is_gone = false;
    world.run_until(SECONDS(90), "bob has what waited", |world| {
        sequences(world, bob).len() as u64 >= waiting
    });
    let got = sequences(&world, bob);
    assert!(got.windows(2).all(|pair| pair[0] < pair[1]), "in order: {got:?}");
    assert!((1..=100).eq(got[..100].iter().copied()), "the oldest ones: {got:?}");
    assert_eq!(lost(&world, bob), (0, dropped));
    assert_eq!((lost(&world, cleo), lost(&world, 0)), ((0, 0), (0, 0)));
    // And goes on.
    assert!(world.members[0].client.send(RELIABLE, &packet(999, 10, &[])));
    world.run_until(SECONDS(10), "bob hears again", |world| {
        sequences(world, bob).last() == Some(&999)
    });
}

#[test]
fn a_reliable_message_that_lossy_ones_left_no_room_for_is_sent_when_there_is() {
    let mut world = three(80, Limits::default());
    let bob = 1;
    world.members[bob].is_gone = true;
    for bytes in [15_000, 15_000, 60_000] {
        assert!(world.members[0].client.send(LOSSY, &packet(1, bytes, &[])));
        world.run_for(Duration::from_millis(50));
    }
    assert_eq!(
        world.shard.stats().dropped_data_slow,
        0,
        "the buffer has taken all of them"
    );
    assert!(world.members[0].client.send(RELIABLE, &packet(2, 60_000, &[])));
    world.run_for(SECONDS(1));
    world.members[bob].is_gone = false;
    world.run_until(SECONDS(60), "the reliable one arrives", |world| {
        sequences(world, bob).contains(&2)
    });
}

#[test]
fn lossy_messages_do_not_wait_and_leave_room_to_reliable_ones() {
    let mut world = three(76, Limits::default());
    let bob = 1;
    world.members[bob].is_gone = true;
    for sequence in 1..=100 {
        assert!(world.members[0].client.send(LOSSY, &packet(sequence, 5_000, &[])));
        world.run_for(Duration::from_millis(20));
    }
    assert!(
        world.shard.stats().dropped_data_slow > 80,
        "{}",
        world.shard.stats().dropped_data_slow
    );
    assert!(world.members[0].client.send(RELIABLE, &packet(1_000, 5_000, &[])));
    world.run_for(SECONDS(1));
    assert_eq!(lost(&world, bob), (0, 0), "nobody is told of lossy ones");
    world.members[bob].is_gone = false;
    world.run_until(SECONDS(60), "the reliable one arrives", |world| {
        sequences(world, bob).contains(&1_000)
    });
    assert!(
        sequences(&world, bob).len() < 20,
        "what was dropped does not come later"
    );
}

#[test]
fn who_sends_too_much_loses_the_rest_and_nobody_else_is_affected() {
    let limits = Limits {
        data_messages_per_second: 10,
        ..Limits::default()
    };
    let mut world = three(77, limits);
    for sequence in 1..=100 {
        assert!(world.members[0].client.send(RELIABLE, &packet(sequence, 10, &[])));
    }
    assert!(world.members[1].client.send(RELIABLE, &packet(500, 10, &[])));
    world.run_for(SECONDS(1));
    let got = sequences(&world, 2);
    let of_ann = got.iter().filter(|sequence| **sequence <= 100).count();
    assert!(
        (20..=31).contains(&of_ann),
        "two seconds' worth, and what came meanwhile: {of_ann}"
    );
    assert!(got.contains(&500));
    let dropped = world.shard.stats().dropped_data_rate;
    assert_eq!(dropped, 100 - of_ann as u64);
    assert_eq!(lost(&world, 0), (dropped, 0));
    world.run_for(SECONDS(5));
    assert!(world.members[0].client.send(RELIABLE, &packet(101, 10, &[])));
    world.run_for(SECONDS(1));
    assert!(sequences(&world, 2).contains(&101), "later it may again");
}

#[test]
fn the_bytes_of_a_sender_are_bounded_as_well() {
    let limits = Limits {
        data_bytes_per_second: 10_000,
        ..Limits::default()
    };
    let mut world = three(78, limits);
    for sequence in 1..=10 {
        assert!(world.members[0].client.send(RELIABLE, &packet(sequence, 5_000, &[])));
    }
    world.run_for(SECONDS(1));
    assert!(
        (3..=5).contains(&sequences(&world, 1).len()),
        "{:?}",
        sequences(&world, 1)
    );
}

#[test]
fn nothing_waits_for_those_who_have_no_data_channels() {
    let mut world = three(79, Limits::default());
    world.join("dora", false, &[], (1, 1));
    world.join_srtp("camera", &["audio/opus"], SrtpRequest::default());
    for sequence in 1..=200 {
        assert!(world.members[0].client.send(RELIABLE, &packet(sequence, 10_000, &[])));
        world.run_for(Duration::from_millis(20));
    }
    world.run_for(SECONDS(1));
    assert_eq!(sequences(&world, 1).len(), 200);
    assert_eq!(world.shard.stats().dropped_data_slow, 0);
    assert_eq!(lost(&world, 3), (0, 0));
}
