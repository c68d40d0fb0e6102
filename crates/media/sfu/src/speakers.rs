//! Who is speaking, from the audio levels that publishers send with each packet (RFC 6464).

use std::collections::BTreeMap;
use std::time::Duration;

use signalbox_protocol::ParticipantId;
use signalbox_protocol::room::Speaker;

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
    reported: (bool, u8),
}

/// The voices of one room.
#[derive(Debug, Default)]
pub struct Speakers {
    voices: BTreeMap<ParticipantId, Voice>,
}

impl Speakers {
    /// Takes an audio packet's level, −127 to 0 dBov, into account.
    pub fn observe(&mut self, participant: &ParticipantId, dbov: i8) {
        if let Some(voice) = self.voices.get_mut(participant) {
            voice.observe(dbov);
        } else {
            self.voices.entry(participant.clone()).or_default().observe(dbov);
        }
    }

    /// Forgets a participant; its last state if it was speaking.
    pub fn remove(&mut self, participant: &ParticipantId) {
        self.voices.remove(participant);
    }

    /// Ends an interval: everyone whose report has changed.
    pub fn tick(&mut self) -> Vec<Speaker> {
        let mut changed = Vec::new();
        for (participant, voice) in &mut self.voices {
            voice.tick();
            // Eight steps of loudness are enough to draw.
            let report = (voice.active, if voice.active { (voice.level * 8.0) as u8 } else { 0 });
            if report != voice.reported {
                voice.reported = report;
                changed.push(voice.speaker(participant));
            }
        }
        changed
    }

    /// Everyone who is speaking, loudest first.
    pub fn active(&self) -> Vec<Speaker> {
        let mut active: Vec<Speaker> = self
            .voices
            .iter()
            .filter(|(_, voice)| voice.active)
            .map(|(participant, voice)| voice.speaker(participant))
            .collect();
        active.sort_by(|a, b| b.level.total_cmp(&a.level));
        active
    }
}

impl Voice {
    fn observe(&mut self, dbov: i8) {
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

    fn speaker(&self, participant: &ParticipantId) -> Speaker {
        Speaker {
            participant: participant.clone(),
            level: self.level,
            active: self.active,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(speakers: &mut Speakers, who: &ParticipantId, dbov: i8, packets: u32) -> Vec<Speaker> {
        for _ in 0..packets {
            speakers.observe(who, dbov);
        }
        speakers.tick()
    }

    #[test]
    fn a_voice_is_reported_when_it_begins_and_when_it_ends() {
        let (mut speakers, ann) = (Speakers::default(), ParticipantId::new("PA_ann"));
        assert!(interval(&mut speakers, &ann, -90, 15).is_empty());
        let begun = interval(&mut speakers, &ann, -20, 15);
        assert!(begun[0].active && begun[0].level > 0.0);
        assert_eq!(speakers.active().len(), 1);
        assert!(interval(&mut speakers, &ann, -20, 15).is_empty(), "nothing new");
        interval(&mut speakers, &ann, -90, 15);
        interval(&mut speakers, &ann, -90, 15);
        assert!(speakers.active().is_empty());
    }

    #[test]
    fn a_click_is_not_a_voice() {
        let (mut speakers, ann) = (Speakers::default(), ParticipantId::new("PA_ann"));
        assert!(interval(&mut speakers, &ann, -10, 2).is_empty());
    }

    #[test]
    fn a_pause_between_words_does_not_end_speaking() {
        let (mut speakers, ann) = (Speakers::default(), ParticipantId::new("PA_ann"));
        interval(&mut speakers, &ann, -20, 15);
        interval(&mut speakers, &ann, -90, 15);
        assert_eq!(speakers.active().len(), 1);
    }
}
