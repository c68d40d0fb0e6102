//! A viewer behind a bad network sees the best that the network allows, and hears all the time.

use std::time::Duration;

use signalbox_protocol::control::Quality;

use crate::sfu::networks::{self, DROP, LOW_BPS, RECOVERY};
use crate::sfu::scenario::Run;

const TOP: u8 = 2;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What a failed bar says.
fn told(run: &Run) -> String {
    let kbps = |bps: Option<u64>| bps.map(|bps| bps / 1_000);
    let points = run.curve.chunks(4).map(|second| {
        let sent = second.iter().map(|point| point.sent_bps).sum::<f64>() / second.len() as f64 / 1_000.0;
        let layer = second.iter().filter_map(|point| point.layer).max();
        let overflowed: u64 = second.iter().map(|point| point.overflowed).sum();
        let first = second[0];
        let (at, capacity, estimate) = (first.at.as_secs_f64(), kbps(first.capacity), kbps(first.estimate));
        format!("{at:5.1} s: {sent:5.0} of {capacity:?} kbps, {estimate:?}, layer {layer:?}, {overflowed} overflowed")
    });
    let points: Vec<String> = points.collect();
    format!(
        "{}:\n{}\nfreezes: {:?}",
        run.name,
        points.join("\n"),
        run.freezes(ms(300))
    )
}

/// Whether nothing but the top layer was seen in this time.
fn stays_at_the_top(run: &Run, from: Duration, to: Duration) -> bool {
    let mut points = run.between(from, to);
    points.all(|point| point.layer.is_none_or(|(spatial, _)| spatial == TOP))
}

#[test]
fn a_viewer_whose_capacity_falls_gets_less_at_once_and_all_again_when_it_is_back() {
    let run = networks::capacity_step(1);
    assert!(stays_at_the_top(&run, seconds(2), DROP), "{}", told(&run));
    let frames: usize = run.between(seconds(2), seconds(4)).map(|point| point.frames).sum();
    assert!(frames >= 58, "all frames soon after the join: {frames}; {}", told(&run));
    for second in 2..12 {
        let rate = run.sent_bps(DROP + seconds(second), DROP + seconds(second + 1));
        assert!(
            rate < LOW_BPS as f64,
            "{rate} bits per second in second {second} after the drop; {}",
            told(&run)
        );
    }
    let mut low = run.between(DROP + seconds(3), RECOVERY);
    assert!(low.all(|point| point.frames > 0), "the picture goes on: {}", told(&run));
    let sound = run.sound(DROP + seconds(2), RECOVERY);
    assert!(sound > 47.0, "{sound} packets of sound in a second; {}", told(&run));
    assert!(run.freezes(ms(500)).len() <= 1, "{}", told(&run));
    let back = run.shows_layer_after(TOP, RECOVERY);
    assert!(back.is_some_and(|back| back <= seconds(10)), "{back:?}; {}", told(&run));
    let back = RECOVERY + back.unwrap_or_default() + seconds(1);
    assert!(
        stays_at_the_top(&run, back, RECOVERY + seconds(16)),
        "{back:?}; {}",
        told(&run)
    );
    let mut estimates = run
        .between(back, RECOVERY + seconds(16))
        .filter_map(|point| point.estimate);
    assert!(estimates.all(|bps| bps > 2_000_000), "{}", told(&run));
}

#[test]
fn a_fall_does_not_stop_the_picture_though_only_what_is_watched_is_sent() {
    for seed in 1..=3 {
        let run = networks::capacity_step_following(seed);
        let mut low = run.between(DROP + seconds(3), RECOVERY);
        assert!(low.all(|point| point.frames > 0), "the picture goes on: {}", told(&run));
        assert!(run.freezes(ms(500)).len() <= 1, "{}", told(&run));
        assert_eq!(run.freezes(ms(1_500)), [], "{}", told(&run));
        let back = run.shows_layer_after(TOP, RECOVERY);
        assert!(back.is_some_and(|back| back <= seconds(10)), "{back:?}; {}", told(&run));
        assert_eq!(run.sends, [Quality::High]);
    }
}

#[test]
fn with_random_loss_everything_arrives_in_the_end_and_nothing_freezes() {
    let run = networks::random_loss(2);
    assert!(run.arrived() >= 0.999, "{} arrived; {}", run.arrived(), told(&run));
    assert_eq!(run.freezes(ms(300)), [], "{}", told(&run));
    assert!(stays_at_the_top(&run, seconds(30), seconds(32)), "{}", told(&run));
}

#[test]
fn in_bursts_of_loss_sound_goes_on_and_the_picture_recovers() {
    let run = networks::burst_loss(3);
    // A fifth of the 50 is lost.
    let sound = run.sound(seconds(2), seconds(22));
    assert!(sound > 37.0, "{sound} packets of sound in a second");
    assert_eq!(run.freezes(ms(1_500)), [], "{}", told(&run));
}

#[test]
fn a_publisher_s_loss_is_repaired_before_anyone_sees_it() {
    let run = networks::publisher_loss(4);
    assert!(run.arrived() >= 0.999, "{} arrived; {}", run.arrived(), told(&run));
    assert_eq!(run.freezes(ms(300)), [], "{}", told(&run));
}

#[test]
fn reordering_and_duplicates_change_nothing_that_can_be_seen() {
    let run = networks::reordering(5);
    let screen = run.screen().unwrap();
    assert_eq!(screen.duplicates, 0);
    assert_eq!(run.freezes(ms(100)), [], "{}", told(&run));
    assert!(screen.key_frames_wanted <= 1, "{} key frames", screen.key_frames_wanted);
    assert!(run.arrived() >= 0.999, "{} arrived", run.arrived());
    assert!(stays_at_the_top(&run, seconds(5), seconds(15)), "{}", told(&run));
}
