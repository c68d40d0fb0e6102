#![expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]

use signalbox_protocol::TrackId;
use signalbox_protocol::room::{Kind, LayerInfo, Source};

use super::*;
use crate::layers::dependency::tests::{template, three_by_three, write};
use crate::track::selection::tests::blank;

fn stream() -> Stream {
    Stream::new(None)
}

fn vp8(ssrc: u32, sequence: u64) -> MediaPacket {
    MediaPacket {
        ssrc,
        sequence,
        ..blank(Codec::Vp8)
    }
}

#[test]
fn a_new_ssrc_is_a_new_start_and_what_comes_late_of_the_old_one_is_not() {
    let (now, mut stream) = (Instant::now(), stream());
    assert_eq!(stream.arrive(now, &vp8(1, 500)), Arrival::Restarted, "the first");
    assert_eq!(stream.arrive(now, &vp8(1, 501)), Arrival::Expected);
    assert_eq!(stream.arrive(now, &vp8(2, 9)), Arrival::Restarted);
    assert_eq!(stream.arrive(now, &vp8(1, 502)), Arrival::Stray);
    assert_eq!(stream.arrive(now, &vp8(2, 10)), Arrival::Expected);
    assert_eq!(stream.arrive(now, &vp8(1, 503)), Arrival::Stray, "not in a row");
    // Unless the publisher has gone back to it.
    assert_eq!(stream.arrive(now, &vp8(1, 504)), Arrival::Stray);
    assert_eq!(stream.arrive(now, &vp8(1, 505)), Arrival::Restarted);
}

#[test]
fn numbers_that_are_far_off_are_a_new_start_only_if_they_follow_each_other() {
    let (now, mut stream) = (Instant::now(), stream());
    stream.arrive(now, &vp8(1, 50_000));
    assert_eq!(stream.arrive(now, &vp8(1, 52_000)), Arrival::Expected, "a loss");
    assert_eq!(stream.arrive(now, &vp8(1, 7)), Arrival::Stray);
    assert_eq!(stream.arrive(now, &vp8(1, 52_001)), Arrival::Expected);
    let arrivals = [8, 9, 10].map(|sequence| stream.arrive(now, &vp8(1, sequence)));
    assert_eq!(arrivals, [Arrival::Stray, Arrival::Stray, Arrival::Restarted]);
}

/// The packet of a frame of L3T3.
fn described(picture: u32, spatial: u8) -> MediaPacket {
    let templates = three_by_three(false);
    let structure = (picture == 0 && spatial == 0).then_some(templates.as_slice());
    let number = (picture * 3 + u32::from(spatial)) as u16;
    MediaPacket {
        sequence: u64::from(number),
        timestamp: picture * 3_000,
        dependency: Some(write(template(spatial, picture).0, number, structure).into()),
        payload: vec![0x10; 940].into(),
        ..blank(Codec::Av1)
    }
}

#[test]
fn after_a_new_start_descriptors_need_a_structure_of_their_own() {
    let (now, mut stream) = (Instant::now(), stream());
    stream.arrive(now, &described(0, 0));
    assert!(stream.reader.read(&described(0, 0)).is_some());
    assert!(stream.reader.read(&described(3, 2)).is_some());
    let restarted = MediaPacket {
        ssrc: 2,
        ..described(1, 0)
    };
    stream.arrive(now, &restarted);
    let frame = stream.reader.read(&restarted).unwrap();
    assert!(frame.descriptor().is_none() && !frame.is_key);
}

#[test]
fn a_packet_without_a_descriptor_in_a_stream_that_has_them_is_of_no_use() {
    let mut stream = stream();
    stream.reader.read(&described(0, 0)).unwrap();
    let bare = MediaPacket {
        dependency: None,
        ..described(1, 0)
    };
    assert!(stream.reader.read(&bare).is_none());
    let garbage = MediaPacket {
        dependency: Some([0x3f, 0, 0].into()),
        ..described(1, 0)
    };
    assert!(stream.reader.read(&garbage).is_none());
}

fn info(layers: &[(&str, u32)]) -> TrackInfo {
    let layer = |(rid, bitrate): &(&str, u32)| LayerInfo {
        rid: (*rid).to_owned(),
        width: 0,
        height: 0,
        bitrate: *bitrate,
    };
    TrackInfo {
        id: TrackId::new("TR_V1".to_owned()),
        kind: Kind::Video,
        source: Source::Camera,
        name: String::new(),
        muted: false,
        mime_type: String::new(),
        width: 1280,
        height: 720,
        layers: layers.iter().map(layer).collect(),
        mid: String::new(),
        stream: String::new(),
        dialect_info: None,
    }
}

fn take(encoding: &mut Encoding, now: Instant, packet: &MediaPacket) {
    let (index, _) = encoding.stream(packet.rid).unwrap();
    let stream = &mut encoding.streams[index];
    stream.arrive(now, packet);
    let frame = stream.reader.read(packet).unwrap();
    stream.measure(now, &frame, packet.payload.len());
}

#[test]
fn the_ladder_of_a_scalable_stream_says_what_each_layer_costs_with_all_that_it_needs() {
    let begun = Instant::now();
    let mut encoding = Encoding::new(0, Mid::from("0"), None, []);
    // So long that nothing is left of what the key picture cost.
    for picture in 0..1_200 {
        let now = begun + Duration::from_millis(25) * picture;
        (0..3).for_each(|spatial| take(&mut encoding, now, &described(picture, spatial)));
    }
    let now = begun + Duration::from_millis(25 * 1_199);
    let ladder = encoding.ladder(now, &info(&[]));
    let layers: Vec<(u8, u8)> = ladder
        .iter()
        .map(|rung| (rung.layer.spatial, rung.layer.temporal))
        .collect();
    assert_eq!(
        layers,
        [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    );
    // 1,000 bytes a frame, 40 pictures a second, of which a quarter, a half, and all; one to three layers.
    let expected: Vec<u64> = [1, 2, 3]
        .iter()
        .flat_map(|layers| [10, 20, 40].map(|frames| layers * frames * 8_000))
        .collect();
    assert_eq!(ladder.iter().map(|rung| rung.bps).collect::<Vec<_>>(), expected);
    assert_eq!(
        ladder.iter().map(|rung| rung.fps).collect::<Vec<_>>(),
        [10, 20, 40].repeat(3)
    );
    assert_eq!((ladder[8].width, ladder[8].height, ladder[0].width), (1280, 720, 320));
    let keys = ladder.iter().map(|rung| rung.key_bytes);
    let expected_keys = [1_000, 2_000, 3_000].into_iter().flat_map(|bytes| [bytes; 3]);
    assert_eq!(keys.collect::<Vec<_>>(), expected_keys.collect::<Vec<_>>());
    assert!(ladder.iter().all(|rung| rung.is_active));
    let later = encoding.ladder(now + Duration::from_secs(2), &info(&[]));
    assert!(later.iter().all(|rung| !rung.is_active));
    assert_eq!(
        later.iter().map(|rung| rung.bps).collect::<Vec<_>>(),
        expected,
        "what it has cost"
    );
}

#[test]
fn what_a_key_picture_costs_is_not_taken_for_what_the_layer_costs() {
    let begun = Instant::now();
    let mut encoding = Encoding::new(0, Mid::from("0"), None, []);
    let mut highest: u64 = 0;
    for picture in 0..80 {
        let now = begun + Duration::from_millis(25) * picture;
        for spatial in 0..3 {
            let mut packet = described(picture, spatial);
            if picture == 0 {
                // Eight times the size of the others.
                packet.payload = vec![0x10; 7_520].into();
            }
            take(&mut encoding, now, &packet);
        }
        let rungs = encoding.ladder(now, &info(&[]));
        highest = highest.max(rungs.last().unwrap().bps);
    }
    // 1,000 bytes a frame, 40 pictures a second, three layers.
    assert!((960_000..=1_060_000).contains(&highest), "{highest}");
}

#[test]
fn a_stream_of_nothing_but_key_pictures_costs_what_they_cost() {
    let begun = Instant::now();
    let mut encoding = Encoding::new(0, Mid::from("0"), None, []);
    for picture in 0..60 {
        let now = begun + Duration::from_millis(25) * picture;
        let structure = three_by_three(false);
        let mut packet = described(picture, 0);
        packet.dependency = Some(write(template(0, 0).0, picture as u16, Some(&structure)).into());
        take(&mut encoding, now, &packet);
    }
    let rungs = encoding.ladder(begun + Duration::from_millis(25 * 59), &info(&[]));
    assert!((310_000..=330_000).contains(&rungs[0].bps), "{}", rungs[0].bps);
    assert_eq!(rungs[0].key_bytes, 1_000, "the last of them alone");
}

#[test]
fn the_ladder_of_simulcast_has_a_place_for_each_layer_whether_it_comes_or_not() {
    let now = Instant::now();
    let rids = ["q", "h", "f"].map(Rid::from);
    let mut encoding = Encoding::new(0, Mid::from("0"), None, rids);
    let said = info(&[("q", 150_000), ("h", 500_000), ("f", 1_700_000)]);
    let packet = MediaPacket {
        rid: Some(rids[1]),
        ..vp8(1, 1)
    };
    take(&mut encoding, now, &packet);
    let ladder = encoding.ladder(now, &said);
    let seen: Vec<_> = ladder
        .iter()
        .map(|rung| (rung.layer.spatial, rung.width, rung.bps, rung.is_active))
        .collect();
    assert_eq!(
        seen,
        [
            (0, 320, 150_000, false),
            (1, 640, 500_000, true),
            (2, 1280, 1_700_000, false)
        ]
    );
}

#[test]
fn layers_that_nobody_has_announced_are_put_in_order_up_to_a_bound() {
    let mut encoding = Encoding::new(0, Mid::from("0"), None, []);
    let rid = |rid: &str| Some(Rid::from(rid));
    assert_eq!(encoding.stream(rid("f")), Some((0, true)));
    assert_eq!(encoding.stream(rid("q")), Some((0, true)));
    assert_eq!(encoding.stream(rid("h")), Some((1, true)));
    assert_eq!(encoding.stream(None), Some((3, true)));
    assert_eq!(encoding.stream(rid("x")), None);
    assert_eq!(encoding.stream(rid("f")), Some((2, false)));
}

#[test]
fn a_key_frame_may_be_begun_with_as_long_as_all_that_follows_it_is_kept() {
    let (now, mut stream) = (Instant::now(), stream());
    stream.arrive(now, &vp8(1, 1));
    // 2 is missing; somebody waits from here on.
    for sequence in 3..10 {
        let packet = Arc::new(vp8(1, sequence));
        stream.arrive(now, &packet);
        let frame = stream.reader.read(&packet);
        stream.keep(&packet, frame.as_ref());
    }
    stream.arrive(now, &vp8(1, 2));
    assert!(stream.may_begin_at(2));
    let newer: Vec<u64> = stream.newer(2).iter().map(|(packet, _)| packet.sequence).collect();
    assert_eq!(newer, (3..10).collect::<Vec<_>>());
    for sequence in 10..300 {
        let packet = Arc::new(vp8(1, sequence));
        stream.arrive(now, &packet);
        let frame = stream.reader.read(&packet);
        stream.keep(&packet, frame.as_ref());
    }
    assert!(!stream.may_begin_at(2), "too much has passed");
    stream.forget_kept(299);
    stream.arrive(now, &vp8(1, 300));
    assert!(stream.may_begin_at(300) && !stream.may_begin_at(298));
}
