//! The estimate on a simulated link: a queue of limited length, a capacity that changes, random losses.
#![expect(clippy::disallowed_methods, reason = "a test's clock starts somewhere")]

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

const STEP: Duration = Duration::from_millis(1);
const FEEDBACK: Duration = Duration::from_millis(50);
const PACKET: usize = 1_200;

/// Writes feedback about packets, in 250 µs of arrival each, if they have arrived.
pub fn feedback(first: u64, arrivals: &[Option<u64>], number: u8) -> Vec<u8> {
    let reference = arrivals.iter().flatten().next().map_or(0, |ticks| ticks / 256);
    let mut bytes = (first as u16).to_be_bytes().to_vec();
    bytes.extend((arrivals.len() as u16).to_be_bytes());
    bytes.extend(&(reference as u32).to_be_bytes()[1..]);
    bytes.push(number);
    let (mut before, mut steps) = (reference * 256, Vec::new());
    for chunk in arrivals.chunks(7) {
        let mut word = 0xc000u16;
        for (place, arrived) in chunk.iter().enumerate() {
            if let Some(ticks) = arrived {
                let step = *ticks as i64 - before as i64;
                before = *ticks;
                let symbol = match u8::try_from(step) {
                    Ok(step) => {
                        steps.push(step);
                        1
                    }
                    Err(_) => {
                        steps.extend((step as i16).to_be_bytes());
                        2
                    }
                };
                word |= symbol << (12 - 2 * place);
            }
        }
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(steps);
    bytes
}

struct Link {
    bandwidth: Bandwidth,
    start: Instant,
    now: Instant,
    rng: StdRng,
    capacity: u64,
    loss: f64,
    delay: Duration,
    queue: Duration,
    /// Whether what is too much is dropped, and nothing waits.
    is_policed: bool,
    /// Whether feedback begins with what has arrived, and leaves out what was lost before it.
    leaves_out: bool,
    wanted: u64,
    is_silent: bool,
    /// When what is in the queue has left it.
    busy_until: Instant,
    sequence: u64,
    credit: f64,
    probe: Option<(Probe, Instant, u64, u32)>,
    /// How much more than the estimate the slowest probe was for.
    least_step: i64,
    /// Of packets that were sent and not told of: when each arrives.
    arriving: VecDeque<(u64, Option<Instant>)>,
    told_until: u64,
    reports: VecDeque<(Instant, Vec<u8>)>,
    next_feedback: Instant,
    sent_bytes: u64,
    number: u8,
    /// How often it was woken.
    wakes: u64,
}

impl Link {
    fn new(capacity: u64, loss: f64, wanted: u64) -> Self {
        let start = Instant::now();
        let mut bandwidth = Bandwidth::new(start, None);
        bandwidth.set_wanted(start, wanted);
        Self {
            bandwidth,
            start,
            now: start,
            rng: StdRng::seed_from_u64(7),
            capacity,
            loss,
            delay: Duration::from_millis(25),
            queue: Duration::from_millis(300),
            is_policed: false,
            leaves_out: false,
            wanted,
            is_silent: false,
            busy_until: start,
            sequence: 1,
            credit: 0.0,
            probe: None,
            least_step: i64::MAX,
            arriving: VecDeque::new(),
            told_until: 0,
            reports: VecDeque::new(),
            next_feedback: start + FEEDBACK,
            sent_bytes: 0,
            number: 0,
            wakes: 0,
        }
    }

    fn send(&mut self, bytes: usize, load: Load, probe: Option<Probe>) {
        self.bandwidth.sent(self.now, self.sequence, bytes, load, probe);
        self.sent_bytes += bytes as u64;
        let begins = self.busy_until.max(self.now);
        let is_lost = begins > self.now + self.queue || self.rng.random::<f64>() < self.loss;
        let arrives = (!is_lost).then(|| {
            self.busy_until = begins + Duration::from_secs_f64(bytes as f64 * 8.0 / self.capacity as f64);
            let through = if self.is_policed { self.now } else { self.busy_until };
            through + self.delay
        });
        self.arriving.push_back((self.sequence, arrives));
        self.sequence += 1;
    }

    fn step(&mut self) {
        self.now += STEP;
        let millisecond = (self.now - self.start).as_millis();
        if millisecond.is_multiple_of(20) && !self.is_silent {
            self.send(120, Load::Audio, None);
        }
        let rate = self.bandwidth.estimate().min(self.wanted).saturating_sub(48_000);
        let rate = if self.is_silent { 0 } else { rate };
        self.credit += rate as f64 / 8_000.0;
        // Frames, thirty a second.
        while millisecond.is_multiple_of(33) && self.credit >= PACKET as f64 {
            self.credit -= PACKET as f64;
            self.send(PACKET, Load::Video, None);
        }
        self.probe();
        while self.reports.front().is_some_and(|(at, _)| *at <= self.now) {
            let (_, report) = self.reports.pop_front().unwrap();
            assert_eq!(self.bandwidth.feedback(self.now, &report, |_, _| {}), Feedback::Read);
        }
        if self.now >= self.next_feedback {
            self.next_feedback += FEEDBACK;
            self.report();
        }
        if self.bandwidth.next_due().is_some_and(|due| due <= self.now) {
            self.bandwidth.handle_timeout(self.now);
            self.wakes += 1;
        }
    }

    fn probe(&mut self) {
        if self.probe.is_none() {
            let probe = self.bandwidth.next_probe(self.now);
            let steps = probe.map(|probe| probe.bps as i64 - self.bandwidth.target as i64);
            self.least_step = steps.map_or(self.least_step, |step| step.min(self.least_step));
            self.probe = probe.map(|probe| (probe, self.now, 0, 0));
        }
        while let Some((probe, begun, bytes, packets)) = self.probe {
            let due = begun + Duration::from_secs_f64(bytes as f64 * 8.0 / probe.bps as f64);
            if due > self.now {
                return;
            }
            self.send(PACKET, Load::Padding, Some(probe));
            let (bytes, packets) = (bytes + PACKET as u64, packets + 1);
            let is_done = bytes >= probe.bytes && packets >= probe.packets;
            self.probe = (!is_done).then_some((probe, begun, bytes, packets));
        }
    }

    /// What has arrived, and what was lost before the last of it.
    fn report(&mut self) {
        let now = self.now;
        let Some(last) = self
            .arriving
            .iter()
            .rposition(|(_, arrives)| arrives.is_some_and(|at| at <= now))
        else {
            return;
        };
        let about: Vec<_> = self.arriving.drain(..=last).collect();
        let arrived = about.iter().position(|(_, arrives)| arrives.is_some());
        let about = &about[arrived.filter(|_| self.leaves_out).unwrap_or_default()..];
        let first = about[0].0;
        let arrivals: Vec<_> = about
            .iter()
            .map(|(_, arrives)| arrives.map(|at| ((at - self.start).as_micros() / 250) as u64 + 77_777))
            .collect();
        self.told_until = first + arrivals.len() as u64;
        let bytes = feedback(first, &arrivals, self.number);
        self.number = self.number.wrapping_add(1);
        self.reports.push_back((self.now + self.delay, bytes));
    }

    /// The mean of the estimate until then.
    fn mean(&mut self, time: Duration) -> u64 {
        let (end, mut estimates) = (self.now + time, Vec::new());
        while self.now < end {
            self.run(Duration::from_millis(100));
            estimates.push(self.bandwidth.estimate());
        }
        estimates.iter().sum::<u64>() / estimates.len() as u64
    }

    /// Bits per second that were sent until then, in pieces of a fifth of a second.
    fn run(&mut self, time: Duration) -> Vec<u64> {
        let (end, piece) = (self.now + time, Duration::from_millis(200));
        let (mut rates, mut piece_end) = (Vec::new(), self.now + piece);
        let mut before = self.sent_bytes;
        while self.now < end {
            self.step();
            if self.now >= piece_end {
                piece_end += piece;
                rates.push((self.sent_bytes - before) * 8 * 5);
                before = self.sent_bytes;
            }
        }
        rates
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn nobody_is_woken_to_look_as_long_as_feedback_comes() {
    let mut link = Link::new(5_000_000, 0.0, 1_000_000);
    link.run(Duration::from_secs(5));
    link.wakes = 0;
    link.run(Duration::from_secs(10));
    assert!(link.wakes < 10, "{}", link.wakes);
    link.next_feedback += Duration::from_secs(60);
    link.run(Duration::from_secs(1));
    link.wakes = 0;
    link.run(Duration::from_secs(10));
    assert!((190..=200).contains(&link.wakes), "{}", link.wakes);
}

#[test]
fn the_top_is_reached_soon_after_a_join_on_a_good_link() {
    let mut link = Link::new(20_000_000, 0.0, 4_000_000);
    let rates = link.run(2 * SECOND);
    assert!(
        link.bandwidth.estimate() >= 4_000_000,
        "{} {rates:?}",
        link.bandwidth.estimate()
    );
}

#[test]
fn a_step_down_and_up_is_followed() {
    let mut link = Link::new(3_000_000, 0.0, 2_800_000);
    let before = link.run(10 * SECOND);
    assert!(*before.last().unwrap() > 2_000_000, "{before:?}");
    link.capacity = 400_000;
    let down = link.run(20 * SECOND);
    // A second later it is below, and stays around it.
    let seconds: Vec<u64> = down[10..]
        .chunks(5)
        .map(|rates| rates.iter().sum::<u64>() / 5)
        .collect();
    assert!(seconds.iter().all(|rate| *rate < 440_000), "{seconds:?}");
    let mean = seconds.iter().sum::<u64>() / seconds.len() as u64;
    assert!((200_000..=400_000).contains(&mean), "{mean} {seconds:?}");
    link.capacity = 3_000_000;
    let up = link.run(8 * SECOND);
    assert!(
        link.bandwidth.estimate() >= 2_500_000,
        "{} {up:?}",
        link.bandwidth.estimate()
    );
}

#[test]
fn random_losses_of_5_percent_do_not_bring_it_down() {
    let mut link = Link::new(3_000_000, 0.05, 3_000_000);
    link.run(10 * SECOND);
    let mean = link.mean(20 * SECOND);
    assert!(mean >= 2_400_000, "{mean}");
}

#[test]
fn a_link_that_is_not_as_wide_as_what_is_wanted_is_used_and_hardly_anything_waits() {
    let mut link = Link::new(1_000_000, 0.0, 3_000_000);
    link.run(5 * SECOND);
    let (mean, longest) = (link.mean(30 * SECOND), Duration::from_millis(100));
    assert!((750_000..1_000_000).contains(&mean), "{mean}");
    let waits = link.bandwidth.round_trip_of_feedback().unwrap();
    assert!(waits < longest, "{waits:?}");
}

#[test]
fn losses_of_20_percent_leave_enough_for_sound_and_a_small_picture() {
    let mut link = Link::new(3_000_000, 0.20, 3_000_000);
    let rates = link.run(30 * SECOND);
    assert!(
        link.bandwidth.estimate() >= 250_000,
        "{} {rates:?}",
        link.bandwidth.estimate()
    );
}

#[test]
fn a_path_that_is_narrow_from_the_start_is_not_overfilled_whatever_its_queue() {
    for (queue, leaves_out, is_policed) in [
        (300, false, false),
        (300, true, false),
        (20, false, false),
        (20, false, true),
        (20, true, true),
    ] {
        let mut link = Link::new(100_000, 0.0, 3_000_000);
        link.queue = Duration::from_millis(queue);
        (link.leaves_out, link.is_policed) = (leaves_out, is_policed);
        link.run(10 * SECOND);
        let rates = link.run(20 * SECOND);
        let mean = rates.iter().sum::<u64>() / rates.len() as u64;
        assert!(
            mean < 150_000,
            "{queue} ms, {leaves_out}, {is_policed}: {mean} {rates:?}"
        );
    }
}

#[test]
fn nobody_is_probed_for_less_than_what_is_known() {
    let mut link = Link::new(20_000_000, 0.0, 0);
    link.wanted = 120_000;
    link.run(SECOND / 20);
    for wanted in [120_000, 240_000, 360_000, 800_000] {
        link.wanted = wanted;
        link.bandwidth.set_wanted(link.now, wanted);
        link.run(SECOND);
        assert!(link.bandwidth.estimate() >= 1_000_000);
    }
    assert!(link.least_step > 0, "{}", link.least_step);
}

#[test]
fn nothing_is_due_when_nothing_is_sent() {
    let mut link = Link::new(3_000_000, 0.0, 1_000_000);
    assert_eq!(link.bandwidth.next_due(), None);
    link.run(SECOND);
    let mut due = link.bandwidth.next_due();
    assert!(due.is_some());
    let end = link.now + 3 * SECOND;
    while let Some(at) = due.filter(|at| *at < end) {
        link.bandwidth.handle_timeout(at);
        due = link.bandwidth.next_due();
    }
    assert_eq!(due, None);
}

#[test]
fn what_is_held_back_for_want_of_room_is_probed_for_until_there_is() {
    let mut link = Link::new(100_000, 0.0, 1_000_000);
    link.run(10 * SECOND);
    assert!(link.bandwidth.estimate() < 200_000, "{}", link.bandwidth.estimate());
    // Nothing fits, so nothing is sent.
    link.is_silent = true;
    link.run(30 * SECOND);
    assert!(link.bandwidth.next_due().is_some());
    link.capacity = 3_000_000;
    let mut estimates = Vec::new();
    for _ in 0..60 {
        link.run(SECOND);
        estimates.push(link.bandwidth.estimate());
    }
    assert!(link.bandwidth.estimate() >= 700_000, "{estimates:?}");
}

#[test]
fn a_path_that_becomes_longer_is_no_full_one() {
    let mut link = Link::new(10_000_000, 0.0, 1_000_000);
    link.wanted = 150_000;
    link.run(5 * SECOND);
    link.delay += Duration::from_millis(45);
    for _ in 0..100 {
        link.run(SECOND / 10);
        assert!(link.bandwidth.estimate() >= 300_000, "{}", link.bandwidth.estimate());
    }
}

#[test]
fn a_peer_that_negotiated_feedback_and_gives_none_is_measured_by_its_reports() {
    let start = Instant::now();
    let mut bandwidth = Bandwidth::new(start, None);
    bandwidth.set_wanted(start, 5_000_000);
    let mut now = start;
    for second in 0..30 {
        now = start + Duration::from_secs(second);
        bandwidth.sent(now, second, PACKET, Load::Video, None);
        bandwidth.handle_timeout(now);
        bandwidth.lost(now, 0, 100);
    }
    assert!(bandwidth.estimate() > 3_000_000, "{}", bandwidth.estimate());
    bandwidth.peer_estimate(now, 700_000);
    assert_eq!(bandwidth.estimate(), 700_000);
}

#[test]
fn feedback_that_lies_is_ignored_and_harms_nobody() {
    let mut link = Link::new(3_000_000, 0.0, 3_000_000);
    link.run(3 * SECOND);
    let estimate = link.bandwidth.estimate();
    let now = link.now;
    // About what was never sent, about nothing, cut short.
    let beyond = feedback(link.sequence, &[Some(1_000); 20], 0);
    let about_all = [0, 0, 0xff, 0xff, 0, 0, 0, 0, 0x3f, 0xff, 0x3f, 0xff];
    let nothing = [0; 8];
    for lie in [&beyond[..], &about_all, &nothing, &[1, 2, 3]] {
        assert_ne!(link.bandwidth.feedback(now, lie, |_, _| {}), Feedback::Read, "{lie:?}");
    }
    assert_eq!(link.bandwidth.estimate(), estimate);
    // Random bytes, and random changes of good ones, whatever they say.
    for round in 0..20_000u32 {
        let mut arrivals = vec![Some(80_000 + u64::from(round)); 10];
        arrivals[3] = None;
        link.send(PACKET, Load::Video, None);
        let first = link.sequence.saturating_sub(link.rng.random_range(1..40));
        let mut bytes = feedback(first, &arrivals, 0);
        for _ in 0..link.rng.random_range(0..4) {
            let at = link.rng.random_range(0..bytes.len());
            bytes[at] = link.rng.random();
        }
        bytes.truncate(link.rng.random_range(0..=bytes.len()));
        link.now += STEP;
        link.bandwidth.feedback(link.now, &bytes, |_, _| {});
        link.bandwidth.handle_timeout(link.now);
    }
    assert!((MIN_BPS..=MAX_BPS).contains(&link.bandwidth.estimate()));
}

#[test]
fn a_panic_in_the_controller_costs_what_it_knows_and_after_some_its_peer_is_estimated_from_reports() {
    let now = Instant::now();
    let mut bandwidth = Bandwidth::new(now, None);
    for failures in 1..=3 {
        bandwidth.sent(now, failures, PACKET, Load::Video, None);
        assert!(bandwidth.controller.is_running(), "a picture packet begins a new one");
        bandwidth.controller.panic_now();
        assert!(!bandwidth.controller.is_running());
    }
    bandwidth.sent(now, 4, PACKET, Load::Video, None);
    assert!(!bandwidth.controller.is_running(), "no more of them");
    let before = bandwidth.estimate();
    for second in 1..5 {
        bandwidth.lost(now + Duration::from_secs(second), 50, 100);
    }
    assert!(
        bandwidth.estimate() < before,
        "reports count: {} bps",
        bandwidth.estimate()
    );
}
