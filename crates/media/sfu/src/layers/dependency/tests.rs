//! Streams with descriptors, made here, and what is read of them.

use proptest::prelude::*;

use super::super::bits::BitWriter;
use super::*;

/// A frame as a publisher describes it.
#[derive(Debug, Clone)]
pub struct Made {
    /// The spatial layer.
    pub spatial: u8,
    /// The temporal layer.
    pub temporal: u8,
    /// One letter for each decode target: `-`, D, S, R.
    pub indications: String,
    /// How far back the frames are that it needs.
    pub references: Vec<u32>,
}

fn made(spatial: u8, temporal: u8, indications: &str, references: &[u32]) -> Made {
    Made {
        spatial,
        temporal,
        indications: indications.to_owned(),
        references: references.to_vec(),
    }
}

/// The templates of L3T3, or of L3T3_KEY, where higher layers need lower ones in key pictures only.
pub fn three_by_three(is_key_only: bool) -> Vec<Made> {
    if is_key_only {
        vec![
            made(0, 0, "SSSSSSSSS", &[]),
            made(0, 0, "SSS------", &[12]),
            made(0, 1, "-DS------", &[6]),
            made(0, 2, "--D------", &[3]),
            made(1, 0, "---SSSSSS", &[1]),
            made(1, 0, "---SSS---", &[12]),
            made(1, 1, "----DS---", &[6]),
            made(1, 2, "-----D---", &[3]),
            made(2, 0, "------SSS", &[1]),
            made(2, 0, "------SSS", &[12]),
            made(2, 1, "-------DS", &[6]),
            made(2, 2, "--------D", &[3]),
        ]
    } else {
        vec![
            made(0, 0, "SSSSSSSSS", &[]),
            made(0, 0, "SSSRRRRRR", &[12]),
            made(0, 1, "-DS-RR-RR", &[6]),
            made(0, 2, "--D--R--R", &[3]),
            made(1, 0, "---SSSSSS", &[1]),
            made(1, 0, "---SSSRRR", &[12, 1]),
            made(1, 1, "----DS-RR", &[6, 1]),
            made(1, 2, "-----D--R", &[3, 1]),
            made(2, 0, "------SSS", &[1]),
            made(2, 0, "------SSS", &[12, 1]),
            made(2, 1, "-------DS", &[6, 1]),
            made(2, 2, "--------D", &[3, 1]),
        ]
    }
}

/// Which template a layer's frame in a picture of the pattern 0 2 1 2 has.
pub fn template(spatial: u8, picture: u32) -> (u8, u8) {
    let in_layer = match picture % 4 {
        0 if picture == 0 => 0,
        0 => 1,
        2 => 2,
        _ => 3,
    };
    (spatial * 4 + in_layer, [0, 2, 1, 2][picture as usize % 4])
}

fn indication(letter: char) -> u32 {
    match letter {
        'D' => 1,
        'S' => 2,
        'R' => 3,
        _ => 0,
    }
}

/// The descriptor of a frame's only packet; with the structure, if these templates are given.
pub fn write(template: u8, number: u16, structure: Option<&[Made]>) -> Vec<u8> {
    let mut writer = BitWriter::default();
    writer.put(0b11, 2);
    writer.put(u32::from(template), 6);
    writer.put(u32::from(number), 16);
    let Some(templates) = structure else {
        return writer.into_bytes();
    };
    writer.put(0b1_0000, 5);
    let targets = templates[0].indications.len() as u32;
    writer.put(0, 6);
    writer.put(targets - 1, 5);
    for pair in templates.windows(2) {
        let next = match (
            pair[1].spatial - pair[0].spatial,
            pair[1].temporal as i8 - pair[0].temporal as i8,
        ) {
            (0, 0) => 0,
            (0, 1) => 1,
            _ => 2,
        };
        writer.put(next, 2);
    }
    writer.put(3, 2);
    for letter in templates.iter().flat_map(|template| template.indications.chars()) {
        writer.put(indication(letter), 2);
    }
    for template in templates {
        for reference in &template.references {
            writer.put(1, 1);
            writer.put(reference - 1, 4);
        }
        writer.put(0, 1);
    }
    // No chains, which take as many bits as it needs to say none of up to nine; sizes of three layers.
    writer.put(0, 32 - (targets + 1).leading_zeros() as usize - 1);
    writer.put(1, 1);
    let highest = templates.iter().map(|template| template.spatial).max().unwrap();
    for spatial in 0..=u32::from(highest) {
        writer.put((320 << spatial) - 1, 16);
        writer.put((180 << spatial) - 1, 16);
    }
    writer.into_bytes()
}

fn structure() -> Arc<Structure> {
    read(&write(0, 7, Some(&three_by_three(false))), [None, None])
        .unwrap()
        .structure
}

#[test]
fn a_structure_is_read() {
    let descriptor = read(&write(0, 7, Some(&three_by_three(false))), [None, None]).unwrap();
    assert!(descriptor.is_key() && descriptor.ends_frame);
    assert_eq!(descriptor.number, 7);
    let structure = &descriptor.structure;
    assert_eq!(structure.targets.len(), 9);
    assert_eq!(
        structure.targets[5].layer,
        Layer {
            spatial: 1,
            temporal: 2
        }
    );
    assert_eq!(structure.targets[5].contains, 0b111_111, "all lower ones");
    assert_eq!(structure.sizes, [(320, 180), (640, 360), (1280, 720)]);
    assert_eq!((0..9).filter(|target| descriptor.is_switch_to(*target)).count(), 9);
}

#[test]
fn in_a_stream_whose_layers_need_each_other_in_key_pictures_only_a_layer_does_not_contain_the_lower() {
    let structure = read(&write(0, 7, Some(&three_by_three(true))), [None, None])
        .unwrap()
        .structure;
    assert_eq!(structure.targets[5].contains, 0b111_000);
    assert_eq!(structure.targets[8].contains, 0b111_000_000);
}

#[test]
fn a_later_packet_refers_to_the_structure() {
    let structure = structure();
    let descriptor = read(&write(6, 40, None), [Some(&structure), None]).unwrap();
    assert_eq!((descriptor.spatial, descriptor.temporal), (1, 1));
    assert_eq!(descriptor.targets().collect::<Vec<_>>(), [4, 5, 7, 8]);
    assert!(descriptor.is_switch_to(5) && !descriptor.is_switch_to(4));
    assert!(descriptor.references.are_in(1 | 1 << 5));
    assert!(!descriptor.references.are_in(1));
    assert_eq!(read(&write(6, 40, None), [None, None]), None, "no structure");
    assert_eq!(
        read(&write(60, 40, None), [Some(&structure), None]),
        None,
        "no such template"
    );
}

#[test]
fn what_a_packet_says_of_its_own_is_read() {
    let structure = structure();
    let mut writer = BitWriter::default();
    writer.put(0b11, 2);
    writer.put(1, 6);
    writer.put(9, 16);
    // Active targets, own relations, own references.
    writer.put(0b0_1110, 5);
    writer.put(0b0_0011_1111, 9);
    for letter in "SSSSSS---".chars() {
        writer.put(indication(letter), 2);
    }
    for (size, reference) in [(1, 3), (2, 99)] {
        writer.put(size, 2);
        writer.put(reference - 1, 4 * size as usize);
    }
    writer.put(0, 2);
    let bytes = writer.into_bytes();
    let descriptor = read(&bytes, [Some(&structure), None]).unwrap();
    assert_eq!(descriptor.said_active, Some(0b11_1111));
    assert!(descriptor.is_in(5) && !descriptor.is_in(6));
    assert!(descriptor.references.are_in(1 << 2 | 1 << 98));
    assert!(!descriptor.references.are_in(1 << 2));
    for length in 0..bytes.len() {
        assert!(
            read(&bytes[..length], [Some(&structure), None])
                .is_none_or(|read| length == 3 && read.said_active.is_none())
        );
    }
    // Other targets and another number, and all else as it was.
    let rewritten = descriptor.rewritten(&bytes, 500, Some(0b111));
    let again = read(&rewritten, [Some(&structure), None]).unwrap();
    assert_eq!(again.said_active, Some(0b111));
    assert_eq!(again.number, 500);
    assert_eq!(
        (again.relation, again.references),
        (descriptor.relation, descriptor.references)
    );
}

#[test]
fn rewriting_changes_number_and_active_targets_and_leaves_the_structure() {
    for templates in [three_by_three(true), three_by_three(false)] {
        for template in [None, Some(templates.as_slice())] {
            let bytes = write(0, 7, template);
            let known = read(&write(0, 7, Some(&templates)), [None, None]).unwrap().structure;
            let descriptor = read(&bytes, [Some(&known), None]).unwrap();
            let moved = descriptor.rewritten(&bytes, 0xfffe, None);
            assert_eq!(moved.len(), bytes.len());
            assert_eq!(moved[3..], bytes[3..]);
            let moved = read(&moved, [Some(&known), None]).unwrap();
            assert_eq!((moved.number, moved.said_active), (0xfffe, None));
            let masked = descriptor.rewritten(&bytes, 1, Some(0b1011));
            let masked = read(&masked, [template.is_none().then_some(&known), None]).unwrap();
            assert_eq!((masked.number, masked.said_active), (1, Some(0b1011)));
            assert_eq!(masked.structure, known);
            assert_eq!(masked.relation, descriptor.relation);
        }
    }
}

proptest! {
    #[test]
    fn garbage_is_no_more_than_refused(bytes in prop::collection::vec(any::<u8>(), 0..255), number: u16, active: u32) {
        let structure = structure();
        for known in [[None, None], [Some(&structure), None]] {
            if let Some(descriptor) = read(&bytes, known) {
                prop_assert!(descriptor.structure.targets.len() <= 32);
                let rewritten = descriptor.rewritten(&bytes, number, Some(active));
                prop_assert!(rewritten.len() <= 255);
                let again = read(&rewritten, [Some(&descriptor.structure), None]).unwrap();
                prop_assert_eq!(again.number, number);
            }
        }
    }

    #[test]
    fn a_structure_with_flipped_bits_is_no_more_than_refused(at in 0..600_usize, more in 0..600_usize) {
        let mut bytes = write(0, 7, Some(&three_by_three(false)));
        let bits = bytes.len() * 8;
        for bit in [at % bits, more % bits] {
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        read(&bytes, [None, None]);
    }
}
