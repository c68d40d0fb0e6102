//! Which microphones of a big room are forwarded: those of the loudest, as many as [`Limits::loudest_audio`](crate::Limits).
//!
//! Each audio track of a room that is forwarded has a *place*. As long as there are places, every track has one, so that rooms with no
//! more microphones than places are never touched. Beyond that, a track that begins to speak takes, with that very packet, the
//! place of the one that has been silent longest. One that has spoken of late keeps its place, through the pauses of speech, unless
//! all have, and somebody is much louder. The choice is the room's and not a subscriber's: an explicit subscription to a track
//! does not keep it forwarded while it is silent, and so one choice serves everyone, at a cost for each packet that does not
//! grow with the room.
//!
//! A track without audio levels (RFC 6464), and shared sound of a screen, which has no pauses of speech, counts as loud all the time. There are as many places
//! again for those, for whoever comes first; a place is free again when its track has sent nothing for a while.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use signalbox_protocol::TrackId;

/// A packet this loud or louder counts as voice, in dBov. Higher: quiet speakers get no place. Lower: noise takes places.
const VOICE_DBOV: i8 = -45;

/// How long a track keeps its place after its last voice while others want it, and after its last packet if nobody does. Higher: fewer
/// changes. Lower: in a lively discussion, who is new to it is heard sooner.
const RELEASE: Duration = Duration::from_millis(2_500);

/// How much louder one must be to take the place of somebody who has spoken of late, in dB.
const LOUDER_DB: f32 = 10.0;

/// How long a track that took such a place keeps it at least.
const MIN_STAY: Duration = Duration::from_secs(1);

/// The share of a louder packet in the smoothed level of a voice; about 150 ms to get there.
const ATTACK: f32 = 0.25;

/// The share of a quieter packet; about 2 s to get there.
const DECAY: f32 = 0.02;

/// How soon a track that found no place looks for one again. It bounds what the search costs, and delays who is speaking by no more
/// than that.
const VOICE_RETRY: Duration = Duration::from_millis(60);

/// The same while it is silent.
const SILENT_RETRY: Duration = Duration::from_millis(500);

/// The audio tracks of one room.
#[derive(Debug)]
pub struct Loudest {
    places: usize,
    tracks: BTreeMap<TrackId, Sound>,
    /// Those that have a place.
    placed: Vec<TrackId>,
}

#[derive(Debug)]
struct Sound {
    /// Counts as loud all the time.
    is_steady: bool,
    /// Whatever its levels say.
    is_always_steady: bool,
    /// Since when it has its place.
    placed: Option<Instant>,
    /// How loud its voice is, smoothed, in dBov.
    level: f32,
    last_voice: Option<Instant>,
    last_packet: Option<Instant>,
    /// When it looks for a place again, and whether it was voice that found none.
    next_try: Option<(Instant, bool)>,
}

/// A track is forwarded from now on, or no longer.
pub type Change = (TrackId, bool);

impl Loudest {
    /// A room without tracks, with so many places; 0: everything is forwarded.
    pub fn new(places: usize) -> Self {
        Self {
            places,
            tracks: BTreeMap::new(),
            placed: Vec::new(),
        }
    }

    /// An audio track is published. Whether it is forwarded to begin with.
    pub fn insert(&mut self, now: Instant, track: &TrackId, is_always_steady: bool) -> bool {
        let sound = Sound {
            is_steady: is_always_steady,
            is_always_steady,
            placed: None,
            level: -127.0,
            last_voice: None,
            last_packet: None,
            next_try: None,
        };
        self.tracks.insert(track.clone(), sound);
        if self.has_room(is_always_steady) {
            self.place(now, track);
        }
        self.places == 0 || self.placed.contains(track)
    }

    /// A track is gone.
    pub fn remove(&mut self, track: &TrackId) {
        self.tracks.remove(track);
        self.placed.retain(|placed| placed != track);
    }

    /// A track is muted: its place is free. Whether it is forwarded nevertheless, once it is not muted any more.
    pub fn muted(&mut self, track: &TrackId) -> bool {
        if let Some(sound) = self.tracks.get_mut(track) {
            (sound.placed, sound.last_voice, sound.last_packet, sound.next_try) = (None, None, None, None);
            sound.level = -127.0;
        }
        self.placed.retain(|placed| placed != track);
        self.places == 0
    }

    /// A packet of a track arrived, of this level in dBov. What changes, before it is forwarded.
    pub fn observe(&mut self, now: Instant, track: &TrackId, level: Option<i8>) -> Vec<Change> {
        if self.places == 0 {
            return Vec::new();
        }
        let Some(sound) = self.tracks.get_mut(track) else {
            return Vec::new();
        };
        let is_voice = sound.observe(now, level);
        let is_steady = sound.is_always_steady || level.is_none();
        let (was_steady, is_placed) = (
            std::mem::replace(&mut sound.is_steady, is_steady),
            sound.placed.is_some(),
        );
        let mut changes = Vec::new();
        if is_placed {
            // It has begun, or ceased, to say how loud it is, and there are too many of those it belongs to now.
            if was_steady != is_steady && self.count(is_steady) > self.places {
                changes.push(self.displace(track.clone()));
            }
            return changes;
        }
        // Who begins to speak does not wait because it was silent.
        if sound
            .next_try
            .is_some_and(|(next, was_voice)| now < next && (was_voice || !is_voice))
        {
            return changes;
        }
        if !self.has_room(is_steady) {
            let Some(victim) = self.victim(now, track, is_voice) else {
                if let Some(sound) = self.tracks.get_mut(track) {
                    let pause = if is_voice { VOICE_RETRY } else { SILENT_RETRY };
                    sound.next_try = Some((now + pause, is_voice));
                }
                return changes;
            };
            changes.push(self.displace(victim));
        }
        self.place(now, track);
        changes.push((track.clone(), true));
        changes
    }

    /// Whose place a track may take, if all are taken.
    fn victim(&self, now: Instant, track: &TrackId, is_voice: bool) -> Option<TrackId> {
        let challenger = self.tracks.get(track)?;
        let rivals = self.placed.iter().filter_map(|id| Some((id, self.tracks.get(id)?)));
        let rivals = rivals.filter(|(_, sound)| sound.is_steady == challenger.is_steady);
        let passed = |since: Option<Instant>| since.is_none_or(|since| now.saturating_duration_since(since) >= RELEASE);
        if challenger.is_steady || !is_voice {
            let mut gone = rivals.filter(|(_, sound)| passed(sound.last_packet) && passed(sound.placed));
            return gone.next().map(|(id, _)| id.clone());
        }
        // The one that has been silent longest; if all have spoken of late, the quietest.
        let (silent, speaking): (Vec<_>, Vec<_>) = rivals.partition(|(_, sound)| passed(sound.last_voice));
        if let Some((id, _)) = silent.into_iter().min_by_key(|(_, sound)| sound.last_voice) {
            return Some(id.clone());
        }
        let (id, quietest) = speaking
            .into_iter()
            .min_by(|(_, a), (_, b)| a.level.total_cmp(&b.level))?;
        let stayed = quietest
            .placed
            .is_none_or(|placed| now.saturating_duration_since(placed) >= MIN_STAY);
        (stayed && challenger.level > quietest.level + LOUDER_DB).then(|| id.clone())
    }

    fn has_room(&self, is_steady: bool) -> bool {
        self.count(is_steady) < self.places
    }

    /// The tracks with a place of this sort.
    fn count(&self, is_steady: bool) -> usize {
        let placed = self.placed.iter().filter_map(|id| self.tracks.get(id));
        placed.filter(|sound| sound.is_steady == is_steady).count()
    }

    fn place(&mut self, now: Instant, track: &TrackId) {
        if let Some(sound) = self.tracks.get_mut(track) {
            sound.placed = Some(now);
            self.placed.push(track.clone());
        }
    }

    fn displace(&mut self, track: TrackId) -> Change {
        if let Some(sound) = self.tracks.get_mut(&track) {
            sound.placed = None;
        }
        self.placed.retain(|placed| *placed != track);
        (track, false)
    }
}

impl Sound {
    /// Takes in a packet; whether it is voice.
    fn observe(&mut self, now: Instant, level: Option<i8>) -> bool {
        self.last_packet = Some(now);
        let Some(dbov) = level else {
            return true;
        };
        let is_voice = dbov >= VOICE_DBOV;
        let louder = f32::from(dbov) - self.level;
        self.level += louder
            * match (louder > 0.0, is_voice) {
                (true, _) => ATTACK,
                (false, true) => DECAY,
                // A pause does not make a voice quieter; but clicks do not add up to one.
                (false, false) if self.placed.is_some() => 0.0,
                (false, false) => ATTACK,
            };
        if is_voice {
            self.last_voice = Some(now);
        }
        is_voice
    }
}

#[cfg(test)]
mod tests;
