//! How active one voice is over three lengths of time, and what that says about the floor.
//!
//! After I. Volfson and I. Cohen, "Dominant speaker identification for multipoint videoconferencing", Computer Speech and Language 27
//! (2013). At each length a count of active parts is compared under two hypotheses, speech (a binomial distribution) and none (an
//! exponential one); the logarithm of their ratio is the length's score. Whoever is to take the floor must beat the one who has it at
//! all three: it is heard now, it has been for some words, and that for about a second.
//!
//! The paper counts sub-bands of the signal where here is only its level: loudness above the noise takes their place.

use std::time::{Duration, Instant};

/// The unit of time. Most audio packets hold as much.
const FRAME: Duration = Duration::from_millis(20);

/// Frames that are remembered: the long time.
const FRAMES: usize = BLOCKS * BLOCK_FRAMES;

/// Frames that a packet's level holds for when no other follows: the longest usual packet (RFC 7587), and some delay of the next one.
const HELD_FRAMES: u64 = 4;

/// The immediate time in frames. One frame would be none at all whenever a packet is late.
const IMMEDIATE_FRAMES: usize = 3;

/// The medium time in frames.
const MEDIUM_FRAMES: usize = 10;

/// Blocks of the long time.
const BLOCKS: usize = 10;

/// Frames of a block.
const BLOCK_FRAMES: usize = 5;

/// Active frames that make a block active.
const BLOCK_ACTIVE: usize = 3;

/// Steps of loudness of a frame.
const STEPS: usize = 13;

/// The level of step 0, in dBov, and below. Higher: the quiet are not heard. Lower: noise is.
const NOISE_DBOV: i16 = -55;

/// Decibels of a step.
const STEP_DB: i16 = 4;

/// The step from which a frame is active: −39 dBov.
const ACTIVE_STEP: u8 = 4;

/// Active blocks without which nobody takes the floor: half a second within the last one. Higher: a new speaker waits longer. Lower:
/// coughs are shown to everyone.
const MIN_BLOCKS: usize = 5;

/// By how much (natural logarithm of the scores' ratio) a challenger must be ahead: immediately, for the medium and for the long time.
/// Higher: two who speak at once change places less often. Lower: whoever interrupts is shown sooner. The first two are the
/// paper's; its third is 0, with which two who speak at once change places by chance.
const AHEAD: [f64; 3] = [3.0, 2.0, 0.3];

/// What a score is at least, so that silence can be compared as well.
const MIN_SCORE: f64 = 1e-10;

/// Of one voice.
#[derive(Debug, Clone)]
pub struct Activity {
    first: Option<Instant>,
    /// The newest frame's number since the first.
    newest: u64,
    /// The frame of the last packet.
    heard: u64,
    /// Its step.
    held: u8,
    /// The steps of the last frames, each at its number modulo their count.
    steps: [u8; FRAMES],
}

/// How active a voice is at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Active blocks of the long time.
    blocks: usize,
    /// Immediate, medium, long.
    scores: [f64; 3],
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            first: None,
            newest: 0,
            heard: 0,
            held: 0,
            steps: [0; FRAMES],
        }
    }
}

impl Activity {
    /// Takes in a packet's level, in dBov.
    pub fn observe(&mut self, now: Instant, dbov: i8) {
        self.first.get_or_insert(now);
        let frame = self.advance(now);
        let step = ((i16::from(dbov) - NOISE_DBOV) / STEP_DB).clamp(0, STEPS as i16) as u8;
        // Two packets in one frame: one was late.
        let held = if frame == self.heard { self.held.max(step) } else { step };
        (self.heard, self.held) = (frame, held);
        self.set(frame, held);
    }

    /// How active it is.
    pub fn scores(&mut self, now: Instant) -> Scores {
        self.advance(now);
        let immediate = self.last(IMMEDIATE_FRAMES).max().unwrap_or(0);
        let medium = self.last(MEDIUM_FRAMES).filter(|step| *step >= ACTIVE_STEP).count();
        let blocks = (0..BLOCKS)
            .filter(|block| {
                let frames = self.last(FRAMES).skip(block * BLOCK_FRAMES).take(BLOCK_FRAMES);
                frames.filter(|step| *step >= ACTIVE_STEP).count() >= BLOCK_ACTIVE
            })
            .count();
        Scores {
            blocks,
            // The last number is the rate of the exponential distribution, as in the paper.
            scores: [
                score(usize::from(immediate), STEPS, 0.78),
                score(medium, MEDIUM_FRAMES, 24.0),
                score(blocks, BLOCKS, 47.0),
            ],
        }
    }

    /// Forgets what was heard.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Fills in the frames that have passed; the number of the present one.
    fn advance(&mut self, now: Instant) -> u64 {
        let Some(first) = self.first else {
            return 0;
        };
        let frame = (now.saturating_duration_since(first).as_millis() / FRAME.as_millis()) as u64;
        let oldest = frame.saturating_sub(FRAMES as u64 - 1);
        for passed in (self.newest + 1).max(oldest)..=frame {
            let step = if passed - self.heard < HELD_FRAMES {
                self.held
            } else {
                0
            };
            self.set(passed, step);
        }
        self.newest = self.newest.max(frame);
        frame
    }

    fn set(&mut self, frame: u64, step: u8) {
        if let Some(slot) = self.steps.get_mut((frame % FRAMES as u64) as usize) {
            *slot = step;
        }
    }

    /// The steps of so many frames, newest first.
    fn last(&self, frames: usize) -> impl Iterator<Item = u8> {
        let newest = (self.newest % FRAMES as u64) as usize;
        (0..frames).filter_map(move |back| self.steps.get((newest + FRAMES - back) % FRAMES).copied())
    }
}

impl Scores {
    /// Whether it may take the floor from nobody.
    pub fn may_lead(&self) -> bool {
        self.blocks >= MIN_BLOCKS
    }

    /// Whether it takes the floor from the one who has it.
    pub fn overtakes(&self, leader: &Self) -> bool {
        self.may_lead() && (0..3).all(|time| self.ahead(leader, time))
    }

    fn ahead(&self, leader: &Self, time: usize) -> bool {
        let (own, other, by) = (self.scores.get(time), leader.scores.get(time), AHEAD.get(time));
        let (Some(own), Some(other), Some(by)) = (own, other, by) else {
            return false;
        };
        (own / other).ln() > *by
    }

    /// Whether it is the better one of two who could take the floor.
    pub fn beats(&self, other: &Self) -> bool {
        let order = |scores: &Self| (scores.blocks, scores.scores);
        order(self) > order(other)
    }
}

/// The logarithm of the ratio of the two hypotheses, when `active` of `parts` are.
fn score(active: usize, parts: usize, rate: f64) -> f64 {
    let (active, parts) = (active.min(parts), parts as f64);
    let chosen: f64 = (0..active)
        .map(|index| ((parts - index as f64) / (index as f64 + 1.0)).ln())
        .sum();
    let speech = chosen + parts * 0.5_f64.ln();
    let none = rate.ln() - rate * active as f64;
    (speech - none).max(MIN_SCORE)
}
