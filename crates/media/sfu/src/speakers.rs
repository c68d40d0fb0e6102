//! Who is speaking, and who has the floor, from the audio levels that publishers send with each packet (RFC 6464).
//!
//! Those who speak are all whose voice is heard at present. The *dominant* speaker is one of them or, while nobody speaks, the last one:
//! the one to be shown large. It changes only for somebody who has clearly taken over (`activity`), so that neither a cough
//! nor two who speak at once make pictures jump.

mod activity;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use signalbox_protocol::ParticipantId;
use signalbox_protocol::room::Speaker;

use activity::{Activity, Scores};

/// How often speakers are reported. Higher: fewer messages. Lower: the ring around a face follows the voice more closely.
pub const INTERVAL: Duration = Duration::from_millis(300);

/// A packet this loud or louder counts as voice, in dBov. Higher: quiet speakers are missed. Lower: fans and keyboards speak.
const VOICE_DBOV: i8 = -40;

/// How many packets of an interval must be voice to begin speaking (to go on, half as many do). At 20 ms a packet, an interval has 15.
const VOICE_PACKETS: u32 = 4;

/// How many intervals without voice end speaking, so that a pause between words does not.
const HANGOVER: u32 = 2;

#[derive(Debug, Default)]
struct Voice {
    packets: u32,
    loudest: Option<i8>,
    active: bool,
    quiet: u32,
    level: f32,
    reported: (bool, u8, bool),
    activity: Activity,
}

/// The voices of one room.
#[derive(Debug, Default)]
pub struct Speakers {
    voices: BTreeMap<ParticipantId, Voice>,
    dominant: Option<ParticipantId>,
    /// Who has spoken, the last one first.
    order: Vec<ParticipantId>,
}

impl Speakers {
    /// Takes an audio packet's level, −127 to 0 dBov, into account.
    pub fn observe(&mut self, now: Instant, participant: &ParticipantId, dbov: i8) {
        if let Some(voice) = self.voices.get_mut(participant) {
            voice.observe(now, dbov);
        } else {
            let voice = self.voices.entry(participant.clone()).or_default();
            voice.observe(now, dbov);
        }
    }

    /// Forgets a participant.
    pub fn remove(&mut self, participant: &ParticipantId) {
        self.voices.remove(participant);
        self.order.retain(|other| other != participant);
        self.dominant.take_if(|dominant| dominant == participant);
    }

    /// A participant has muted: it does not speak any more, and has no floor to keep.
    pub fn muted(&mut self, participant: &ParticipantId) {
        self.dominant.take_if(|dominant| dominant == participant);
        if let Some(voice) = self.voices.get_mut(participant) {
            voice.hush();
        }
    }

    /// Ends an interval: everyone whose report has changed, the dominant speaker first, if it is among them. Who was dominant and is not
    /// any more is among them as well.
    pub fn tick(&mut self, now: Instant) -> Vec<Speaker> {
        for voice in self.voices.values_mut() {
            voice.tick();
        }
        self.choose_dominant(now);
        let spoke = |participant: &ParticipantId| self.voices.get(participant).is_some_and(|voice| voice.active);
        // Those who speak go before those who do not; beyond that, the order stays.
        self.order.sort_by_key(|participant| !spoke(participant));
        let mut changed = Vec::new();
        for (participant, voice) in &mut self.voices {
            if voice.active && !self.order.contains(participant) {
                self.order.insert(0, participant.clone());
            }
            let is_dominant = self.dominant.as_ref() == Some(participant);
            // Eight steps of loudness are enough to draw.
            let step = if voice.active { (voice.level * 8.0) as u8 } else { 0 };
            let report = (voice.active, step, is_dominant);
            if report != voice.reported {
                voice.reported = report;
                changed.push(voice.speaker(participant, is_dominant));
            }
        }
        changed.sort_by_key(|speaker| !speaker.dominant);
        changed
    }

    fn choose_dominant(&mut self, now: Instant) {
        let leader = self
            .dominant
            .as_ref()
            .and_then(|dominant| self.voices.get_mut(dominant));
        let leader = leader.map(|voice| voice.activity.scores(now));
        let mut best: Option<(&ParticipantId, Scores)> = None;
        for (participant, voice) in &mut self.voices {
            if !voice.active || self.dominant.as_ref() == Some(participant) {
                continue;
            }
            let scores = voice.activity.scores(now);
            let may = leader
                .as_ref()
                .map_or(scores.may_lead(), |leader| scores.overtakes(leader));
            if may && best.as_ref().is_none_or(|(_, best)| scores.beats(best)) {
                best = Some((participant, scores));
            }
        }
        if let Some((participant, _)) = best {
            self.dominant = Some(participant.clone());
        }
    }

    /// Who has the floor; none: nobody has spoken yet, or who had it has muted or is gone.
    pub fn dominant(&self) -> Option<&ParticipantId> {
        self.dominant.as_ref()
    }

    /// Everyone who has spoken: the dominant speaker, then who spoke last, first.
    pub fn recency(&self) -> Vec<ParticipantId> {
        let others = self.order.iter().filter(|other| Some(*other) != self.dominant.as_ref());
        self.dominant.iter().chain(others).cloned().collect()
    }

    /// The dominant speaker, even if it is silent at present, and everyone else who is speaking, loudest first.
    pub fn active(&self) -> Vec<Speaker> {
        let mut active: Vec<Speaker> = self
            .voices
            .iter()
            .map(|(participant, voice)| voice.speaker(participant, self.dominant.as_ref() == Some(participant)))
            .filter(|speaker| speaker.active || speaker.dominant)
            .collect();
        active.sort_by(|a, b| b.dominant.cmp(&a.dominant).then(b.level.total_cmp(&a.level)));
        active
    }
}

impl Voice {
    fn observe(&mut self, now: Instant, dbov: i8) {
        self.activity.observe(now, dbov);
        if dbov >= VOICE_DBOV {
            self.packets += 1;
        }
        self.loudest = Some(self.loudest.map_or(dbov, |loudest| loudest.max(dbov)));
    }

    fn tick(&mut self) {
        let needed = if self.active { VOICE_PACKETS / 2 } else { VOICE_PACKETS };
        if self.packets >= needed {
            self.active = true;
            self.quiet = 0;
        } else if self.active {
            self.quiet += 1;
            self.active = self.quiet < HANGOVER;
        }
        let loudest = f32::from(self.loudest.take().unwrap_or(-127));
        self.level = if self.active {
            10f32.powf(loudest / 20.0).clamp(0.0, 1.0)
        } else {
            0.0
        };
        self.packets = 0;
    }

    /// Ends speaking at once.
    fn hush(&mut self) {
        self.activity.clear();
        (self.packets, self.loudest, self.active, self.quiet, self.level) = (0, None, false, 0, 0.0);
    }

    fn speaker(&self, participant: &ParticipantId, dominant: bool) -> Speaker {
        Speaker {
            participant: participant.clone(),
            level: self.level,
            active: self.active,
            dominant,
        }
    }
}

#[cfg(test)]
mod tests;
