#![expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::codec::{Codec, PayloadFormat};
use crate::layers::dependency::tests::{Made, template, three_by_three, write};
use crate::packet::{MediaPacket, Mid};

/// A frame that a publisher sends as one packet, and the numbers of those that a decoder needs for it.
struct Sent {
    number: i32,
    needs: Vec<i32>,
    spatial: u8,
    temporal: u8,
    packet: MediaPacket,
}

/// The streams that publishers make.
#[derive(Debug, Clone, Copy)]
enum Scheme {
    /// VP8, one spatial and three temporal layers.
    Vp8,
    /// VP9, three and three, payload descriptors alone.
    Vp9,
    /// The same with dependency descriptors, in AV1.
    Full,
    /// The same, where higher layers need lower ones in key pictures only.
    KeyOnly,
}

const SCHEMES: [Scheme; 4] = [Scheme::Vp8, Scheme::Vp9, Scheme::Full, Scheme::KeyOnly];

impl Scheme {
    fn spatial_layers(self) -> u8 {
        if matches!(self, Scheme::Vp8) { 1 } else { 3 }
    }
}

/// Makes the pictures of a stream, of which these are key pictures.
fn pictures(scheme: Scheme, keys: &[bool]) -> Vec<Sent> {
    let mut frames = Vec::new();
    let mut since_key = 0;
    for (picture, is_key) in keys.iter().enumerate() {
        since_key = if *is_key || picture == 0 { 0 } else { since_key + 1 };
        for spatial in 0..scheme.spatial_layers() {
            frames.push(frame(scheme, picture as i32, since_key, spatial));
        }
    }
    frames
}

fn frame(scheme: Scheme, picture: i32, since_key: u32, spatial: u8) -> Sent {
    let temporal = [0, 2, 1, 2][since_key as usize % 4];
    let layers = i32::from(scheme.spatial_layers());
    let number = picture * layers + i32::from(spatial);
    // How far back the pictures are that it needs.
    let before: &[i32] = match since_key % 4 {
        0 if since_key == 0 => &[],
        0 => &[4],
        1 => &[1],
        2 => &[2],
        _ if matches!(scheme, Scheme::Full | Scheme::KeyOnly) => &[1],
        _ => &[1, 2],
    };
    let mut needs: Vec<i32> = before.iter().map(|pictures| number - pictures * layers).collect();
    if spatial > 0 && (since_key == 0 || !matches!(scheme, Scheme::KeyOnly)) {
        needs.push(number - 1);
    }
    let mut packet = MediaPacket {
        timestamp: picture as u32 * 3_000,
        ..blank(match scheme {
            Scheme::Vp8 => Codec::Vp8,
            Scheme::Vp9 => Codec::Vp9,
            Scheme::Full | Scheme::KeyOnly => Codec::Av1,
        })
    };
    match scheme {
        Scheme::Vp8 => {
            // The last of four needs one of a higher layer than the lowest.
            let is_synced = since_key % 4 == 1 || since_key % 4 == 2;
            let layer = temporal << 6 | u8::from(is_synced) << 5;
            packet.payload = [0x90, 0x20, layer, u8::from(since_key != 0), 0].into();
        }
        Scheme::Vp9 => {
            // The picture after that of the middle layer needs one of the highest from before it.
            let is_switching_point = temporal != 1;
            let layer = temporal << 5 | u8::from(is_switching_point) << 4 | spatial << 1 | u8::from(spatial > 0);
            packet.payload = [0x2c | u8::from(since_key != 0) << 6, layer, 0, 0].into();
        }
        Scheme::Full | Scheme::KeyOnly => {
            let templates = three_by_three(matches!(scheme, Scheme::KeyOnly));
            let structure = (since_key == 0 && spatial == 0).then_some(templates.as_slice());
            packet.dependency = Some(described(&templates, spatial, since_key, number as u16, structure));
        }
    }
    Sent {
        number,
        needs,
        spatial,
        temporal,
        packet,
    }
}

fn described(templates: &[Made], spatial: u8, since_key: u32, number: u16, structure: Option<&[Made]>) -> Arc<[u8]> {
    let (template, temporal) = template(spatial, since_key);
    assert_eq!(templates[usize::from(template)].temporal, temporal);
    write(template, number, structure).into()
}

/// A packet without layers.
pub fn blank(codec: Codec) -> MediaPacket {
    MediaPacket {
        arrived: Instant::now(),
        ssrc: 1,
        sequence: 0,
        timestamp: 0,
        marker: false,
        codec,
        format: PayloadFormat::of(codec),
        is_red: false,
        clock_rate: 90_000,
        rid: None,
        mid: Mid::from("0"),
        audio_level: None,
        voice: None,
        rotation: None,
        playout_delay: None,
        capture_time: None,
        dependency: None,
        payload: [0x10, 0].into(),
    }
}

fn up_to(spatial: u8, temporal: u8) -> Layer {
    Layer { spatial, temporal }
}

/// Which of the frames are sent when this is wanted in each picture.
fn sent(frames: &[Sent], layers: u8, wanted: impl Fn(usize) -> Layer) -> Vec<&Sent> {
    let mut reader = Reader::default();
    let mut selection: Option<Selection> = None;
    let mut sent = Vec::new();
    for (index, made) in frames.iter().enumerate() {
        let frame = reader.read(&made.packet).unwrap();
        assert_eq!((frame.spatial, frame.temporal), (made.spatial, made.temporal));
        let wanted = wanted(index / usize::from(layers));
        let selection = selection.get_or_insert_with(|| Selection::new(&frame, wanted));
        selection.advance(&frame, wanted);
        if selection.cut().includes(&frame) {
            selection.sent(&frame);
            sent.push(made);
        }
    }
    sent
}

/// Everything that a decoder needs for what it gets, it gets.
fn assert_decodable(frames: &[&Sent]) {
    let numbers: BTreeSet<i32> = frames.iter().map(|frame| frame.number).collect();
    for frame in frames {
        for needed in &frame.needs {
            assert!(numbers.contains(needed), "{} needs {needed}", frame.number);
        }
    }
}

#[test]
fn each_layer_gives_exactly_its_frames() {
    for scheme in SCHEMES {
        let layers = scheme.spatial_layers();
        let frames = pictures(scheme, &[false; 40]);
        for (spatial, temporal) in (0..layers).flat_map(|spatial| (0..3).map(move |temporal| (spatial, temporal))) {
            let sent = sent(&frames, layers, |_| up_to(spatial, temporal));
            assert_decodable(&sent);
            let is_of_it = |frame: &&Sent| {
                let is_needed = match scheme {
                    // After the key picture, no layer needs another.
                    Scheme::KeyOnly => frame.spatial == spatial || (frame.number < 3 && frame.spatial < spatial),
                    _ => frame.spatial <= spatial,
                };
                is_needed && frame.temporal <= temporal
            };
            let expected: Vec<i32> = frames.iter().filter(is_of_it).map(|frame| frame.number).collect();
            let numbers: Vec<i32> = sent.iter().map(|frame| frame.number).collect();
            assert_eq!(numbers, expected, "{scheme:?} S{spatial} T{temporal}");
        }
    }
}

#[test]
fn fewer_frames_are_sent_at_once_and_more_as_soon_as_the_stream_allows() {
    for scheme in SCHEMES {
        let layers = scheme.spatial_layers();
        let top = layers - 1;
        let frames = pictures(scheme, &[false; 40]);
        let sent = sent(&frames, layers, |picture| match picture {
            10..20 => up_to(top, 0),
            _ => up_to(top, 2),
        });
        assert_decodable(&sent);
        let in_pictures = |from: i32, to: i32| {
            let is_in = |frame: &&&Sent| (from..to).contains(&(frame.number / i32::from(layers)));
            let highest = sent.iter().filter(|frame| frame.spatial == top);
            highest.filter(is_in).count() as i32
        };
        assert_eq!(in_pictures(10, 20), 2, "{scheme:?}");
        assert_eq!(in_pictures(0, 10), 10, "{scheme:?}");
        assert_eq!(in_pictures(30, 40), 10, "{scheme:?}");
    }
}

#[test]
fn a_higher_spatial_layer_waits_for_a_key_picture() {
    for scheme in [Scheme::Vp9, Scheme::Full, Scheme::KeyOnly] {
        let mut keys = [false; 40];
        keys[30] = true;
        let frames = pictures(scheme, &keys);
        let sent = sent(
            &frames,
            3,
            |picture| if picture < 10 { up_to(0, 2) } else { up_to(2, 2) },
        );
        assert_decodable(&sent);
        let highest = |from: i32, to: i32| {
            let pictures = sent.iter().filter(|frame| (from..to).contains(&(frame.number / 3)));
            pictures.map(|frame| frame.spatial).max()
        };
        assert_eq!(highest(0, 30), Some(0), "{scheme:?}");
        assert_eq!(highest(30, 40), Some(2), "{scheme:?}");
    }
}

#[test]
fn where_lower_layers_were_not_sent_fewer_frames_bridge_the_time_until_a_key_picture() {
    let mut keys = [false; 40];
    keys[20] = true;
    let frames = pictures(Scheme::KeyOnly, &keys);
    let sent = sent(
        &frames,
        3,
        |picture| if picture < 10 { up_to(2, 2) } else { up_to(1, 2) },
    );
    assert_decodable(&sent);
    let layers = |from: i32, to: i32| -> BTreeSet<(u8, u8)> {
        let pictures = sent.iter().filter(|frame| (from..to).contains(&(frame.number / 3)));
        pictures.map(|frame| (frame.spatial, frame.temporal)).collect()
    };
    assert_eq!(layers(10, 20), BTreeSet::from([(2, 0)]));
    assert_eq!(layers(21, 40), BTreeSet::from([(1, 0), (1, 1), (1, 2)]));
}

#[test]
fn what_ends_a_picture_is_the_end_of_the_highest_layer_that_is_sent() {
    for scheme in [Scheme::Vp9, Scheme::Full, Scheme::KeyOnly] {
        let mut reader = Reader::default();
        let mut selection: Option<Selection> = None;
        for made in pictures(scheme, &[false; 8]) {
            let frame = reader.read(&made.packet).unwrap();
            let selection = selection.get_or_insert_with(|| Selection::new(&frame, up_to(1, 2)));
            selection.advance(&frame, up_to(1, 2));
            assert_eq!(selection.cut().ends_picture(&frame), made.spatial == 1, "{scheme:?}");
        }
    }
}

#[test]
fn a_receiver_is_told_which_decode_targets_are_sent() {
    let frames = pictures(Scheme::Full, &[false; 60]);
    let mut reader = Reader::default();
    let mut selection: Option<Selection> = None;
    let mut told = Vec::new();
    for (index, made) in frames.iter().enumerate() {
        let frame = reader.read(&made.packet).unwrap();
        let wanted = if (30..90).contains(&index) { up_to(2, 0) } else { ALL };
        let selection = selection.get_or_insert_with(|| Selection::new(&frame, wanted));
        selection.advance(&frame, wanted);
        if selection.cut().includes(&frame) {
            selection.sent(&frame);
        }
        told.push(selection.active(frame.descriptor().unwrap()));
    }
    assert_eq!(told[25], None, "all are");
    assert_eq!(told[30], Some(0b001_001_001));
    assert_eq!(told[89], Some(0b001_001_001));
    assert_eq!(told[100], Some(0b111_111_111), "they are again");
    assert_eq!(told[179], None, "which need not be said for ever");
}

proptest! {
    #[test]
    fn whatever_is_wanted_what_is_sent_can_be_decoded(
        scheme in prop::sample::select(SCHEMES.to_vec()),
        steps in prop::collection::vec((0..3_u8, 0..3_u8, prop::bool::weighted(0.1)), 1..60),
    ) {
        let keys: Vec<bool> = steps.iter().map(|(_, _, is_key)| *is_key).collect();
        let layers = scheme.spatial_layers();
        let frames = pictures(scheme, &keys);
        let sent = sent(&frames, layers, |picture| up_to(steps[picture].0.min(layers - 1), steps[picture].1));
        assert_decodable(&sent);
        // Nobody is left without a picture.
        let lowest = sent.iter().filter(|frame| frame.temporal == 0).map(|frame| frame.number / i32::from(layers));
        let pictures: BTreeSet<i32> = lowest.collect();
        for frame in frames.iter().filter(|frame| frame.temporal == 0) {
            prop_assert!(pictures.contains(&(frame.number / i32::from(layers))));
        }
    }
}
