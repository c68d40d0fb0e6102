//! What a peer connection gets besides payloads: header extensions, redundant sound, repair, clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use signalbox_protocol::room::Kind;
use str0m::Rtc;
use str0m::media::Mid;
use str0m::rtp::{AbsCaptureTime, ExtensionValues, VideoOrientation};

use crate::sfu::client::Client;
use crate::sfu::link::Impairment;
use crate::sfu::world::World;

const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// The m-line on which a member receives the first track of a kind.
fn slot(world: &World, member: usize, kind: Kind) -> Mid {
    let slots = world.slots(member);
    let slot = slots.iter().find(|slot| slot.kind == kind && slot.track.is_some());
    Mid::from(slot.unwrap().mid.as_str())
}

#[test]
fn header_extensions_arrive_as_they_were_sent() {
    let mut world = World::new(1, Impairment::NONE);
    let ann = world.join("ann", true, &["f"], (0, 0));
    let bob = world.join("bob", false, &[], (1, 1));
    let captured = SystemTime::UNIX_EPOCH + Duration::from_millis(1_234_567_125);
    let publisher = &mut world.members[ann].client;
    publisher.audio_level = Some(-23);
    publisher.video_values = ExtensionValues {
        video_orientation: Some(VideoOrientation::Deg90),
        play_delay_min: Some(str0m::media::MediaTime::from_hundredths(7)),
        play_delay_max: Some(str0m::media::MediaTime::from_hundredths(4_000)),
        abs_capture_time: Some(AbsCaptureTime {
            capture_time: captured,
            clock_offset: Some(-5_000_000_000),
        }),
        ..ExtensionValues::default()
    };
    world.run_for(SECONDS(2));
    let (audio, video) = (slot(&world, bob, Kind::Audio), slot(&world, bob, Kind::Video));
    let last = &world.members[bob].client.last;
    let sound = &last[&audio].1;
    assert_eq!((sound.audio_level, sound.voice_activity), (Some(-23), Some(true)));
    let picture = &last[&video].1;
    assert_eq!(picture.video_orientation, Some(VideoOrientation::Deg90));
    let delays = [picture.play_delay_min, picture.play_delay_max].map(|delay| delay.unwrap().as_seconds());
    assert_eq!(delays, [0.07, 40.0]);
    let capture = picture.abs_capture_time.unwrap();
    assert_eq!(capture.clock_offset, Some(-5_000_000_000));
    let off = capture
        .capture_time
        .duration_since(captured)
        .unwrap_or_else(|error| error.duration());
    assert!(off < Duration::from_nanos(10), "{off:?}");
    assert!(picture.transport_cc.is_some());
}

#[test]
fn redundant_sound_reaches_who_understands_it_and_plain_sound_who_does_not() {
    let mut world = World::new(2, Impairment::NONE);
    let with_red = |world: &World, has_red: bool| {
        let address = world.new_client().address;
        let config = Rtc::builder()
            .clear_codecs()
            .enable_opus(true, has_red)
            .enable_vp8(true);
        Client::with_config(world.now, address, config)
    };
    let mut join = |name: &str, has_red: bool, audio: bool, slots: usize| {
        let mut client = with_red(&world, has_red);
        client.is_redundant = true;
        let offer = client.offer(audio, &[], (slots, 0));
        let joined = world.try_join(name, Some(offer)).unwrap();
        let answer = joined.answer.clone().unwrap();
        assert_eq!(answer.contains("red/48000"), has_red, "{answer}");
        assert!(answer.contains("useinbandfec=1"), "{answer}");
        client.answer(&answer);
        world.add(name, client, joined)
    };
    join("ann", true, true, 0);
    let (bob, eve) = (join("bob", true, false, 1), join("eve", false, false, 1));
    world.run_for(SECONDS(2));
    let last = |member| {
        let mid = slot(&world, member, Kind::Audio);
        let (payload, _, is_redundant) = &world.members[member].client.last[&mid];
        (payload.clone(), *is_redundant)
    };
    let (payload, is_redundant) = last(bob);
    assert!(is_redundant);
    assert_eq!(payload[5..], [0xfc, 1, 0xfc, 0, 0, 0, 0]);
    assert_eq!(last(eve), (vec![0xfc, 0, 0, 0, 0], false));
}

#[test]
fn of_5_percent_losses_at_100_ms_next_to_all_are_made_good() {
    let mut world = World::new(3, Impairment::NONE);
    let ann = world.join("ann", false, &["f"], (0, 0));
    let bob = world.join("bob", false, &[], (0, 1));
    world.connect();
    world.run_for(SECONDS(1));
    let lossy = Impairment {
        loss: 0.05,
        delay: Duration::from_millis(50),
        jitter: Duration::from_millis(5),
        ..Impairment::NONE
    };
    for member in [ann, bob] {
        world.impair(member, lossy, lossy);
    }
    world.run_for(SECONDS(30));
    let received = world.received(bob, ann, Kind::Video);
    let sequences: BTreeSet<u64> = received.iter().map(|packet| packet.sequence).collect();
    let first = *sequences.first().unwrap();
    // What was sent in the last second may still be asked for.
    let last = sequences.last().unwrap() - 100;
    let arrived = sequences.range(first..=last).count();
    let share = arrived as f64 / (last - first + 1) as f64;
    assert!(
        last - first > 2_000 && share >= 0.999,
        "{share} of {}",
        last - first + 1
    );
    assert_eq!(sequences.len(), received.len(), "none twice");
}

/// How long one in twenty of those packets of Ann's pictures was missed by Bob that were lost, when so much is lost on her or his side.
fn missed(seed: u64, of_ann: f64, of_bob: f64) -> Duration {
    let mut world = World::new(seed, Impairment::NONE);
    let ann = world.join("ann", false, &["f"], (0, 0));
    let bob = world.join("bob", false, &[], (0, 1));
    world.connect();
    world.run_for(SECONDS(2));
    let losing = |loss| Impairment {
        loss,
        delay: Duration::from_millis(5),
        ..Impairment::NONE
    };
    world.impair(ann, losing(of_ann), losing(of_ann));
    world.impair(bob, losing(of_bob), losing(of_bob));
    world.run_for(SECONDS(30));
    let received = world.received(bob, ann, Kind::Video);
    let (mut highest, mut missing, mut times) = (received[0].sequence, BTreeMap::new(), Vec::new());
    for packet in received {
        times.extend(missing.remove(&packet.sequence).map(|since| packet.at - since));
        missing.extend((highest + 1..packet.sequence).map(|sequence| (sequence, packet.at)));
        highest = highest.max(packet.sequence);
    }
    assert!(times.len() > 100, "{}", times.len());
    times.sort();
    times[times.len() * 19 / 20]
}

#[test]
fn what_is_lost_twice_on_its_way_here_is_asked_for_again() {
    for (loss, is_asked) in [(0.0, false), (0.1, true)] {
        let mut world = World::new(600, Impairment::NONE);
        let ann = world.join("ann", false, &["f"], (0, 0));
        world.join("bob", false, &[], (0, 1));
        world.connect();
        let lossy = Impairment {
            loss,
            ..Impairment::NONE
        };
        world.impair(ann, lossy, lossy);
        world.run_for(SECONDS(10));
        let asked = world.shard.stats().asked_again;
        assert_eq!(asked > 0, is_asked, "{asked} at {loss}");
    }
}

/// The client asks again after 105 ms.
#[test]
fn what_is_lost_twice_on_its_way_from_here_comes_again_soon() {
    let times: Vec<_> = (0..4).map(|seed| missed(610 + seed, 0.0, 0.05)).collect();
    assert!(times.iter().all(|time| *time < Duration::from_millis(70)), "{times:?}");
}
