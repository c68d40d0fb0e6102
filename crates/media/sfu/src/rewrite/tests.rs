#![expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]

use super::*;

mod properties;

fn pictures(picture_id: u16, tl0: u8) -> Pictures {
    Pictures {
        id: Some(picture_id),
        is_wide: true,
        tl0: Some(tl0),
        is_gapless: true,
        id_at: 2,
        tl0_at: 4,
    }
}

fn vp8(sequence: u64, timestamp: u32, picture_id: u16, tl0: u8) -> Fields {
    Fields {
        sequence,
        timestamp,
        marker: false,
        clock_rate: 90_000,
        pictures: pictures(picture_id, tl0),
        frame_number: None,
    }
}

fn plain(sequence: u64, timestamp: u32) -> Fields {
    Fields {
        pictures: Pictures::default(),
        ..vp8(sequence, timestamp, 0, 0)
    }
}

/// What packets of one source become.
fn anchored(now: Instant, first: &Fields) -> Rewriter {
    let mut rewriter = Rewriter::new(0);
    rewriter.anchor(now, 1, first);
    rewriter
}

#[test]
fn another_node_goes_on_with_the_numbers_of_the_stream() {
    let now = Instant::now();
    let mut former = anchored(now, &plain(70_000, 960));
    let sent = former.send(now, &plain(70_000, 960), Cut::WHOLE).unwrap();
    // It counts the publisher's numbers from another rollover.
    let mut next = Rewriter::going_on(former.begun().unwrap());
    let first = plain(70_003 & 0xffff, 4 * 960);
    next.anchor(now, 7, &first);
    let went_on = next.send(now, &first, Cut::WHOLE).unwrap();
    assert_eq!(
        (went_on.sequence, went_on.timestamp),
        (sent.sequence + 3, sent.timestamp + 3 * 960)
    );
    // Another source is put behind it as ever.
    let later = now + Duration::from_millis(100);
    next.anchor(later, 8, &plain(5, 77));
    assert_eq!(
        next.send(later, &plain(5, 77), Cut::WHOLE).unwrap().sequence,
        sent.sequence + 4
    );
}

#[test]
fn a_stream_whose_numbers_are_about_to_begin_anew_is_not_gone_on_with() {
    let now = Instant::now();
    let begun = |sequence_offset| {
        let mut rewriter = Rewriter::going_on(Begun {
            sequence_offset,
            timestamp_offset: 0,
        });
        rewriter.anchor(now, 1, &plain(0, 0));
        rewriter.send(now, &plain(0, 0), Cut::WHOLE).unwrap();
        rewriter.begun().map(|begun| begun.sequence_offset)
    };
    assert_eq!(begun(NEAR_ROLLOVER - 1), Some(NEAR_ROLLOVER - 1));
    assert_eq!(begun(NEAR_ROLLOVER), None);
    let mut rewriter = anchored(now, &plain(1, 0));
    rewriter.release();
    assert_eq!(rewriter.begun(), None);
}

#[test]
fn a_switch_continues_the_stream() {
    let start = Instant::now();
    let mut rewriter = Rewriter::new(99);
    let numbers = |rewritten: &Rewritten| (rewritten.pictures.picture_id(), rewritten.pictures.tl0_pic_idx());
    rewriter.anchor(start, 1, &vp8(70_000, 1_000, 0x7fff, 255));
    let first = rewriter
        .send(start, &vp8(70_000, 1_000, 0x7fff, 255), Cut::WHOLE)
        .unwrap();
    assert_eq!((first.sequence, first.timestamp), (100, 1_000));
    assert_eq!(numbers(&first), (Some(1), Some(1)));
    let second = rewriter.send(start, &vp8(70_001, 4_000, 0, 0), Cut::WHOLE).unwrap();
    assert_eq!(second.sequence, 101);
    assert_eq!(numbers(&second), (Some(2), Some(2)));

    // Another layer, 100 ms later, with numbers of its own.
    let later = start + Duration::from_millis(100);
    rewriter.anchor(later, 2, &vp8(5, 4_000_000_000, 77, 9));
    let third = rewriter.send(later, &vp8(5, 4_000_000_000, 77, 9), Cut::WHOLE).unwrap();
    assert_eq!((third.sequence, third.timestamp), (102, 4_000 + 9_000));
    assert_eq!(numbers(&third), (Some(3), Some(3)));
    assert_eq!(rewriter.place(4), Place::Past, "older than the switch");
}

#[test]
fn loss_and_reordering_of_the_source_stay_visible() {
    let now = Instant::now();
    let mut rewriter = anchored(now, &plain(10, 0));
    let sent: Vec<u64> = [10, 12, 11, 15]
        .into_iter()
        .filter_map(|sequence| rewriter.send(now, &plain(sequence, 0), Cut::WHOLE))
        .map(|rewritten| rewritten.sequence)
        .collect();
    assert_eq!(sent, [1, 3, 2, 6]);
}

#[test]
fn a_duplicate_has_no_place() {
    let now = Instant::now();
    let mut rewriter = anchored(now, &plain(10, 0));
    for sequence in [10, 12, 11] {
        assert!(rewriter.send(now, &plain(sequence, 0), Cut::WHOLE).is_some());
    }
    for sequence in [10, 11, 12] {
        assert_eq!(rewriter.place(sequence), Place::Past);
        assert_eq!(rewriter.send(now, &plain(sequence, 0), Cut::WHOLE), None);
    }
}

#[test]
fn what_is_left_out_leaves_neither_a_gap_in_the_packets_nor_in_the_pictures() {
    let now = Instant::now();
    let mut rewriter = anchored(now, &vp8(10, 0, 50, 7));
    let mut sent = Vec::new();
    // Two packets a picture; every second picture is left out.
    for sequence in 10..18 {
        let picture = 50 + (sequence - 10) as u16 / 2;
        let packet = vp8(sequence, u32::from(picture) * 3_000, picture, 7);
        if picture.is_multiple_of(2) {
            let rewritten = rewriter.send(now, &packet, Cut::WHOLE).unwrap();
            sent.push((rewritten.sequence, rewritten.pictures.picture_id().unwrap()));
        } else {
            rewriter.skip(now, &packet, Cut::WHOLE);
        }
    }
    assert_eq!(sent, [(1, 1), (2, 1), (3, 2), (4, 2)]);
    assert_eq!(rewriter.next_empty(), None);
}

#[test]
fn a_late_packet_gets_the_numbers_of_its_place() {
    let now = Instant::now();
    let mut rewriter = anchored(now, &vp8(10, 0, 50, 7));
    rewriter.send(now, &vp8(10, 0, 50, 7), Cut::WHOLE).unwrap();
    // 11 is missing; 12 is left out, and with it a picture.
    rewriter.skip(now, &vp8(12, 3_000, 51, 7), Cut::WHOLE);
    let after = rewriter.send(now, &vp8(13, 6_000, 52, 8), Cut::WHOLE).unwrap();
    assert_eq!((after.sequence, after.pictures.picture_id()), (3, Some(2)));
    assert_eq!(rewriter.place(11), Place::Late(Cut::WHOLE));
    let late = rewriter.send(now, &vp8(11, 0, 50, 7), Cut::WHOLE).unwrap();
    assert_eq!(
        (late.sequence, late.timestamp, late.pictures.picture_id()),
        (2, 0, Some(1))
    );
}

#[test]
fn the_place_of_a_late_packet_that_is_left_out_is_filled() {
    let now = Instant::now();
    let mut rewriter = anchored(now, &plain(10, 500));
    rewriter.send(now, &plain(10, 500), Cut::WHOLE).unwrap();
    rewriter.send(now, &plain(13, 6_000), Cut::WHOLE).unwrap();
    rewriter.skip(now, &plain(12, 3_000), Cut::WHOLE);
    assert_eq!(rewriter.next_empty(), Some((3, 3_000)));
    assert_eq!(rewriter.next_empty(), None, "11 can still come");
    rewriter.anchor(now, 2, &plain(900, 0));
    assert_eq!(rewriter.next_empty(), Some((2, 500)), "11 cannot come any more");
    assert_eq!(rewriter.next_empty(), None);
}

#[test]
fn what_is_missing_for_long_is_given_up() {
    let start = Instant::now();
    let mut rewriter = anchored(start, &plain(10, 0));
    rewriter.send(start, &plain(10, 0), Cut::WHOLE).unwrap();
    rewriter.send(start, &plain(12, 3_000), Cut::WHOLE).unwrap();
    let later = start + Duration::from_secs(3);
    rewriter.send(later, &plain(13, 270_000), Cut::WHOLE).unwrap();
    assert_eq!(rewriter.place(11), Place::Past);
    assert_eq!(rewriter.next_empty(), Some((2, 0)));
}

#[test]
fn a_long_loss_is_not_shown() {
    let now = Instant::now();
    let mut rewriter = anchored(now, &plain(10, 0));
    rewriter.send(now, &plain(10, 0), Cut::WHOLE).unwrap();
    let after = rewriter.send(now, &plain(10_000, 9_000), Cut::WHOLE).unwrap();
    assert_eq!(after.sequence, 2);
    assert_eq!(rewriter.place(5_000), Place::Past);
}

#[test]
fn empty_packets_are_no_more_than_what_is_sent_in_the_long_run() {
    let now = Instant::now();
    let mut rewriter = anchored(now, &plain(0, 0));
    let (mut sent, mut empty) = (0, 0);
    for index in 0..10_000 {
        sent += u32::from(rewriter.send(now, &plain(index * 400, 0), Cut::WHOLE).is_some());
        while rewriter.next_empty().is_some() {
            empty += 1;
        }
    }
    assert!(empty <= sent + 512, "{empty} for {sent}");
}

#[test]
fn a_timestamp_never_stands_still_at_a_switch() {
    let now = Instant::now();
    let mut rewriter = anchored(now, &plain(1, 500));
    rewriter.send(now, &plain(1, 500), Cut::WHOLE).unwrap();
    rewriter.anchor(now, 2, &plain(1, 7));
    let next = rewriter.send(now, &plain(1, 7), Cut::WHOLE).unwrap();
    assert_eq!(next.timestamp, 500 + 900);
}

#[test]
fn a_source_that_was_paused_keeps_its_timestamps() {
    let start = Instant::now();
    let mut rewriter = anchored(start, &plain(1, 500));
    rewriter.send(start, &plain(1, 500), Cut::WHOLE).unwrap();
    let later = start + Duration::from_millis(1_004);
    rewriter.anchor(later, 1, &plain(51, 500 + 90_000));
    let next = rewriter.send(later, &plain(51, 500 + 90_000), Cut::WHOLE).unwrap();
    assert_eq!((next.sequence, next.timestamp), (2, 500 + 90_000));
}

#[test]
fn a_clock_that_is_set_moves_no_timestamp_back_and_none_far_ahead() {
    let start = Instant::now();
    let mut rewriter = anchored(start, &plain(1, 1_000_000));
    rewriter.send(start, &plain(1, 1_000_000), Cut::WHOLE).unwrap();
    let mut before = 1_000_000;
    for (index, timestamp) in [(1, 7), (2, 4_000_000_000), (3, 4_000_003_000), (4, 0)] {
        let now = start + Duration::from_millis(33) * index;
        let rewritten = rewriter
            .send(now, &plain(1 + u64::from(index), timestamp), Cut::WHOLE)
            .unwrap();
        let step = rewritten.timestamp - before;
        assert!((900..=3_000).contains(&step), "{step}");
        before = rewritten.timestamp;
    }
}

#[test]
fn a_patch_changes_the_numbers_and_nothing_else() {
    let patched = |mut payload: Vec<u8>, pictures: Pictures| {
        PicturePatch { pictures }.apply(&mut payload);
        payload
    };
    assert_eq!(
        patched(vec![0x90, 0xf0, 0x92, 0x34, 0x56, 0x20, 0x00], pictures(0x7abc, 0xff)),
        [0x90, 0xf0, 0xfa, 0xbc, 0xff, 0x20, 0x00]
    );
    let narrow = Pictures {
        is_wide: false,
        tl0_at: 3,
        ..pictures(0x1285, 2)
    };
    assert_eq!(
        patched(vec![0x80, 0xc0, 0x7f, 0x01, 0x55], narrow),
        [0x80, 0xc0, 0x05, 0x02, 0x55]
    );
    assert_eq!(patched(vec![0x10, 0xff], Pictures::default()), [0x10, 0xff]);
    assert_eq!(patched(vec![0x90], pictures(1, 1)), [0x90], "no room");
}
